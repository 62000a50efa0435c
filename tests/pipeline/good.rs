//! Uploads that end released.

use local::samples::{Image, docker_archive, gzipped, layer, oci_archive, tar_of};
use pipeline_tests::look::{check_image, digest, manifest};
use pipeline_tests::{Pipeline, Setup};
use serde_json::{Value, json};

use crate::PROGRAM;

fn image(seed: u32) -> Image {
    Image::new("amd64", vec![layer("base", 1, 2_500_000), layer("app", seed, 300_000)])
}

#[tokio::test]
async fn a_docker_archive_becomes_the_same_image_under_the_key_s_name() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let image = image(2);
    let mut log = pipeline.stack.log();
    let uploaded = pipeline.put("team/my-app/1.4.2.tar", &docker_archive(&[(&image, &["my-app:9"])])).await;
    let receipt = pipeline.decided(&mut log, &uploaded).await;

    assert_eq!(receipt["state"], "released", "{receipt:#}");
    assert_eq!(receipt["import"]["images"][0]["named_by"], "key");
    assert_eq!(receipt["import"]["images"][0]["platforms"], json!(["linux/amd64"]));
    let config = check_image(pipeline.stack.images(), "team/my-app", "1.4.2");
    assert_eq!(config, digest(&image.config()), "the image ID never changes");
    let stored = pipeline.tagged("team/my-app");
    assert_eq!(stored.keys().collect::<Vec<_>>(), ["1.4.2", "latest"], "the highest release has the floating tag");
    assert_eq!(stored["latest"], stored["1.4.2"]);
    assert_eq!(receipt["import"]["images"][0]["digest"], json!(stored["1.4.2"]));

    let tags = pipeline.tags(&uploaded).await;
    assert_eq!(tags["gantry"], "released");
    assert_eq!(tags["gantry-digest"], stored["1.4.2"]);

    let repository = pipeline.stack.images().repository("team/my-app").unwrap();
    assert_eq!(repository.resource_tags["gantry:stack"], "gantry");
    assert!(repository.settings.scan_on_push);
    assert!(repository.lifecycle.is_some());
    assert!(!repository.is_mutable("1.4.2") && repository.is_mutable("latest"));
}

#[tokio::test]
async fn the_uploader_s_own_tags_stay() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let mut log = pipeline.stack.log();
    let body = docker_archive(&[(&image(2), &[])]);
    let put = pipeline.s3.put_object().bucket("uploads").key("team/app/1.tar").tagging("owner=me").body(body.into());
    let put = put.send().await.unwrap();
    let uploaded =
        pipeline_tests::Uploaded { key: "team/app/1.tar".into(), version_id: put.version_id().unwrap().to_owned() };
    pipeline.decided(&mut log, &uploaded).await;
    let tags = pipeline.tags(&uploaded).await;
    assert_eq!((tags["owner"].as_str(), tags["gantry"].as_str()), ("me", "released"));
}

#[tokio::test]
async fn the_same_file_again_is_a_success_that_sends_nothing_whatever_the_level() {
    let body = docker_archive(&[(&image(2), &[])]);
    let pipeline = Pipeline::start(PROGRAM).await;
    let first = pipeline.import("team/app/1.tar", &body).await;
    let digest = first["import"]["images"][0]["digest"].clone();
    let sent = || pipeline.faults.count("registry:StartUpload");
    let before = sent();
    assert!(before > 0);
    let again = pipeline.import("team/app/1.tar", &body).await;
    assert_eq!((&again["state"], &again["import"]["images"][0]["digest"]), (&json!("released"), &digest));
    assert_eq!(sent(), before, "nothing was sent");

    let folder = pipeline.stop().await;
    let parameters = [("Compression".to_owned(), "gzip-9".to_owned())].into();
    let pipeline = Pipeline::with(PROGRAM, Setup { parameters, folder: Some(folder), ..Setup::default() }).await;
    let again = pipeline.import("team/app/1.tar", &body).await;
    assert_eq!((&again["state"], &again["import"]["images"][0]["digest"]), (&json!("released"), &digest));
    assert_eq!(pipeline.faults.count("registry:StartUpload"), 0, "another level: nothing was sent");
    assert_eq!(again["import"]["images"][0]["unchanged"], true);
}

#[tokio::test]
async fn a_known_layer_is_neither_read_nor_sent_again() {
    let pipeline = Pipeline::start(PROGRAM).await;
    pipeline.import("team/app/1.tar", &docker_archive(&[(&image(2), &[])])).await;
    let receipt = pipeline.import("team/app/2.tar", &docker_archive(&[(&image(3), &[])])).await;
    let how = |at: usize| receipt["import"]["images"][0]["blobs"][at]["how"].clone();
    assert_eq!([how(0), how(1), how(2)], [json!("sent"), json!("reused"), json!("sent")], "{receipt:#}");
    let read = receipt["import"]["layers"]["read_bytes"].as_u64().unwrap();
    assert!(read < 400_000, "the base layer of 2.5 MB was read: {read}");
    check_image(pipeline.stack.images(), "team/app", "2");
}

#[tokio::test]
async fn a_blob_that_ecr_lost_is_sent_again() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let body = docker_archive(&[(&image(2), &[])]);
    pipeline.import("team/app/1.tar", &body).await;
    let layer = manifest(pipeline.stack.images(), "team/app", "1")["layers"][0]["digest"].as_str().unwrap().to_owned();
    pipeline.stack.images().forget_blob("team/app", &layer.parse().unwrap()).unwrap();
    let receipt = pipeline.import("team/app/2.tar", &body).await;
    assert_eq!(receipt["import"]["images"][0]["blobs"][1]["how"], "sent", "{receipt:#}");
    check_image(pipeline.stack.images(), "team/app", "2");
}

#[tokio::test]
async fn a_layer_is_mounted_from_below_the_same_folder_only() {
    let pipeline = Pipeline::start(PROGRAM).await;
    pipeline.stack.images().set_account_setting("BLOB_MOUNTING", "ENABLED").unwrap();
    let body = docker_archive(&[(&image(2), &[])]);
    pipeline.import("team/app/1.tar", &body).await;
    for (key, how) in [("team/other/1.tar", "mounted"), ("rival/app/1.tar", "sent")] {
        let receipt = pipeline.import(key, &body).await;
        assert_eq!(receipt["import"]["images"][0]["blobs"][1]["how"], how, "{key}: {receipt:#}");
    }
    check_image(pipeline.stack.images(), "team/other", "1");
    check_image(pipeline.stack.images(), "rival/app", "1");
}

#[tokio::test]
async fn an_oci_index_is_pushed_byte_for_byte() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let (amd, arm) = (image(2), Image::new("arm64", vec![layer("app", 3, 100_000)]));
    let (body, index) = oci_archive(&[&amd, &arm], "2.0");
    let receipt = pipeline.import("team/multi/2.0.tar", &body).await;
    assert_eq!(receipt["import"]["images"][0]["digest"], json!(index), "{receipt:#}");
    let children = manifest(pipeline.stack.images(), "team/multi", "2.0")["manifests"].clone();
    for (child, image) in children.as_array().unwrap().iter().zip([&amd, &arm]) {
        let config = check_image(pipeline.stack.images(), "team/multi", child["digest"].as_str().unwrap());
        assert_eq!(config, digest(&image.config()));
    }
}

#[tokio::test]
async fn layers_that_come_compressed_pass_untouched() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let plain = layer("app", 5, 200_000);
    let image = Image::new("amd64", vec![plain.clone()]);
    let zipped = gzipped(&plain);
    let body = tar_of(&[
        ("layer.tar.gz", &zipped),
        ("config.json", &image.config()),
        ("manifest.json", br#"[{"config":"config.json","repoTags":null,"layers":["layer.tar.gz"]}]"#),
    ]);
    let receipt = pipeline.import("team/jib/1.tar", &body).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let layers = manifest(pipeline.stack.images(), "team/jib", "1")["layers"].clone();
    assert_eq!(layers[0]["digest"], json!(digest(&zipped)));
    check_image(pipeline.stack.images(), "team/jib", "1");
}

#[tokio::test]
async fn several_images_and_names_go_where_the_archive_says() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let (one, two, bare) = (image(2), image(3), image(4));
    let body = docker_archive(&[
        (&one, &["registry.example/team/one:1", "team/one:1.0"]),
        (&two, &["team/two:2"]),
        (&bare, &[]),
    ]);
    let receipt = pipeline.import("all.tar", &body).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    for (repository, tag, image) in [("team/one", "1", &one), ("team/one", "1.0", &one), ("team/two", "2", &two)] {
        assert_eq!(check_image(pipeline.stack.images(), repository, tag), digest(&image.config()));
    }
    let id = format!("id-{}", &digest(&bare.config())[7..19]);
    assert_eq!(check_image(pipeline.stack.images(), "all", &id), digest(&bare.config()));
}

#[tokio::test]
async fn metadata_names_repository_and_tags() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let body = docker_archive(&[(&image(2), &["ignored:1"])]);
    let receipt = pipeline.import_with("team/x.tar", &body, &[("image", "team/app:1.4.2,latest")]).await;
    assert_eq!(receipt["import"]["images"][0]["named_by"], "metadata", "{receipt:#}");
    assert_eq!(pipeline.tagged("team/app").keys().collect::<Vec<_>>(), ["1.4.2", "latest"]);
    // `latest` may move, the version may not.
    let other = docker_archive(&[(&image(3), &[])]);
    let moved = pipeline.import_with("team/x.tar", &other, &[("image", "team/app:1.5.0,latest")]).await;
    assert_eq!(moved["state"], "released", "{moved:#}");
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["latest"], tags["1.5.0"]);
    assert_ne!(tags["latest"], tags["1.4.2"]);
}

#[tokio::test]
async fn a_bare_event_and_s3_s_own_records_import_too() {
    let pipeline = Pipeline::with(PROGRAM, Setup::default()).await;
    let body = docker_archive(&[(&image(2), &[])]);
    let receipt = pipeline.import("team/a b+c/1.tar", &body).await;
    // A repository cannot have a space: the refusal names one that would do, and lies beside exactly that key.
    assert_eq!(receipt["state"], "failed");
    assert!(receipt["next"].as_str().unwrap().contains("team/a-b-c/TAG.tar"), "{receipt:#}");

    pipeline.import("team/app/1.tar", &body).await;
    let bus = json!({"source": "aws.s3", "detail-type": "Object Created",
        "detail": {"bucket": {"name": "uploads"}, "object": {"key": "team/app/1.tar"}}});
    let records = json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "uploads"}, "object": {"key": "team/app/1.tar"}}}]});
    for event in [bus, records] {
        let answer = pipeline.stack.invoke("ImportFunction", &event).await.unwrap();
        assert_eq!(answer, Value::Null);
    }
    assert_eq!(pipeline.receipt("team/app/1.tar").await.unwrap()["state"], "released");
}

#[tokio::test]
async fn a_repository_gets_the_template_s_settings() {
    let parameters = [
        ("RepositoryPrefix", "imported/"),
        ("TagMutability", "mutable"),
        ("ScanOnPush", "false"),
        ("ExpireUntaggedDays", "3"),
        ("PullAccounts", "210987654321"),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let pipeline = Pipeline::with(PROGRAM, Setup { parameters, ..Setup::default() }).await;
    let receipt = pipeline.import("team/app/1.tar", &docker_archive(&[(&image(2), &[])])).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let repository = pipeline.stack.images().repository("imported/team/app").unwrap();
    assert!(repository.is_mutable("1") && !repository.settings.scan_on_push);
    assert!(repository.lifecycle.unwrap().contains("\"countNumber\":3"));
    assert!(repository.policy.unwrap().contains("210987654321"));
}
