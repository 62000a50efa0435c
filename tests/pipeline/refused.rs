//! Uploads that are refused: each ends in a receipt, an object tag and words to act on, and leaves no tag behind.

use local::samples::{Image, docker_archive, gzipped, layer, tar_of};
use pipeline_tests::{Pipeline, Setup};
use serde_json::Value;

use crate::PROGRAM;

fn image(seed: u32) -> Image {
    Image::new("amd64", vec![layer("app", seed, 50_000)])
}

/// One upload that must not succeed.
struct Bad {
    what: &'static str,
    key: &'static str,
    metadata: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    summary: &'static str,
    next: &'static str,
}

fn bad(what: &'static str, key: &'static str, body: Vec<u8>, summary: &'static str, next: &'static str) -> Bad {
    Bad { what, key, metadata: vec![], body, summary, next }
}

fn cases() -> Vec<Bad> {
    let good = docker_archive(&[(&image(1), &["my-app:1.4.2"])]);
    let config = image(1).config();
    let missing = tar_of(&[("c.json", &config), ("manifest.json", br#"[{"Config":"c.json","Layers":["gone.tar"]}]"#)]);
    let wrong = tar_of(&[
        ("l.tar", layer("app", 2, 50_000).as_slice()),
        ("c.json", &config),
        ("manifest.json", br#"[{"Config":"c.json","Layers":["l.tar"]}]"#),
    ]);
    let empty = Image::new("amd64", vec![]);
    vec![
        bad(
            "not a tar",
            "team/app/1.tar",
            b"hello\n".repeat(200),
            "the upload is text, not a tar archive",
            "docker save",
        ),
        bad("empty", "team/app/2.tar", vec![], "the upload is empty: 0 bytes", "upload the whole file"),
        bad(
            "zip",
            "team/app/3.tar",
            [b"PK\x03\x04".as_slice(), &[0; 600]].concat(),
            "a zip file, not a tar",
            "docker save",
        ),
        bad(
            "no image",
            "team/app/4.tar",
            tar_of(&[("etc/passwd", b"x"), ("usr/x", b"")]),
            "the archive holds no image",
            "docker save",
        ),
        bad(
            "truncated",
            "team/app/5.tar",
            good[..good.len() / 2].to_vec(),
            "the archive is cut off",
            "upload the whole file",
        ),
        bad(
            "compressed twice",
            "team/app/10.tar",
            gzipped(&gzipped(&good)),
            "compressed twice, with gzip and inside that with gzip",
            "decompress it once",
        ),
        Bad {
            metadata: vec![("profile", "ecs")],
            ..bad(
                "no such profile",
                "team/app/11.tar",
                good.clone(),
                "there is no profile \"ecs\"; wanted exact, lambda or fargate",
                "--metadata profile=",
            )
        },
        Bad {
            metadata: vec![("profile", "lambda"), ("platform", "linux/arm64")],
            ..bad(
                "another platform",
                "team/app/12.tar",
                good.clone(),
                "wants one image for linux/arm64",
                "--metadata profile=lambda,platform=linux/amd64",
            )
        },
        bad(
            "missing layer",
            "team/app/6.tar",
            missing,
            "names \"gone.tar\", and the archive has no such file",
            "save the image again",
        ),
        bad("wrong diff ID", "team/app/7.tar", wrong, "has the diff ID sha256:", "save the image again"),
        bad("no layers", "team/app/8.tar", docker_archive(&[(&empty, &["a:1"])]), "it has no layers", "any client"),
        bad(
            "ECR's own rules",
            "Team/App/1.tar",
            good.clone(),
            "ECR refuses the repository name \"Team/App\"",
            "team/app/TAG.tar",
        ),
        Bad {
            metadata: vec![("image", "rival/app:1")],
            ..bad(
                "outside",
                "team/app/9.tar",
                good.clone(),
                "rival/app, which is not at or below \"team\"",
                "at or below \"team\"",
            )
        },
        bad(
            "the natural slip",
            "team/my-app.tar",
            good.clone(),
            "would make this image team:my-app, but the archive calls it my-app:1.4.2: which one was meant?",
            "aws s3 cp FILE s3://uploads/team/my-app/1.4.2.tar   or   aws s3 cp FILE s3://uploads/team/my-app.tar --metadata image=team:my-app",
        ),
    ]
}

#[tokio::test]
async fn every_bad_upload_ends_in_words_to_act_on_and_no_tag() {
    let pipeline = Pipeline::start(PROGRAM).await;
    for case in cases() {
        let mut log = pipeline.stack.log();
        let uploaded = pipeline.put_with(case.key, &case.body, &case.metadata).await;
        let receipt = pipeline.decided(&mut log, &uploaded).await;
        let what = case.what;
        assert_eq!(receipt["state"], "failed", "{what}: {receipt:#}");
        let (summary, next) = (receipt["summary"].as_str().unwrap(), receipt["next"].as_str().unwrap());
        assert!(summary.contains(case.summary), "{what}: {summary}");
        assert!(next.contains(case.next), "{what}: {next}");
        assert_eq!(receipt["import"]["attempt"]["n"], 1, "{what}: the upload's own fault is not retried");
        assert_eq!(pipeline.tags(&uploaded).await["gantry"], "failed", "{what}");
    }
    for repository in pipeline.stack.images().repositories() {
        assert!(pipeline.tagged(&repository).is_empty(), "{repository} has a tag");
    }
    let queues = pipeline.stack.queues();
    assert!(queues.messages("import-queue").unwrap().is_empty());
    assert!(queues.messages("failed-messages").unwrap().is_empty());
}

#[tokio::test]
async fn an_immutable_tag_of_another_image_refuses_the_whole_upload() {
    let pipeline = Pipeline::start(PROGRAM).await;
    pipeline.import("team/app/1.tar", &docker_archive(&[(&image(1), &[])])).await;
    let before = pipeline.tagged("team/app");
    let conflict = docker_archive(&[(&image(3), &["team/fresh:1"]), (&image(2), &["team/app:1"])]);
    let receipt = pipeline.import("both.tar", &conflict).await;
    assert_eq!(receipt["state"], "failed", "{receipt:#}");
    let summary = receipt["summary"].as_str().unwrap();
    assert!(
        summary.contains("team/app:1 is immutable and names another image") && summary.contains(&before["1"]),
        "{summary}"
    );
    assert_eq!(receipt["import"]["reason"]["kind"], "conflict");
    assert_eq!(pipeline.tagged("team/app"), before);
    assert!(pipeline.tagged("team/fresh").is_empty(), "not half of it either");
}

#[tokio::test]
async fn a_repository_of_somebody_else_is_not_touched_until_it_is_adopted() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let settings = emulator::images::Settings::default();
    let theirs = emulator::images::Repository::new("team/app", settings, [].into());
    pipeline.stack.images().create(theirs).unwrap();
    let body = docker_archive(&[(&image(1), &[])]);
    let receipt = pipeline.import("team/app/1.tar", &body).await;
    assert_eq!(receipt["state"], "failed", "{receipt:#}");
    let adopt = "aws ecr tag-resource --resource-arn arn:aws:ecr:us-east-1:123456789012:repository/team/app --tags \
                 Key=gantry:stack,Value=gantry";
    assert!(receipt["next"].as_str().unwrap().contains(adopt), "{receipt:#}");
    assert!(pipeline.tagged("team/app").is_empty());
}

#[tokio::test]
async fn only_the_newest_version_of_a_key_counts() {
    let pipeline = Pipeline::with(PROGRAM, Setup { no_functions: true, ..Setup::default() }).await;
    let old = pipeline.put("team/app/1.tar", &docker_archive(&[(&image(1), &[])])).await;
    let new = pipeline.put("team/app/1.tar", &docker_archive(&[(&image(2), &[])])).await;
    let gone = pipeline.put("team/gone/1.tar", &docker_archive(&[(&image(3), &[])])).await;
    pipeline.s3.delete_object().bucket("uploads").key(&gone.key).send().await.unwrap();
    let folder = pipeline.stop().await;

    let pipeline = Pipeline::with(PROGRAM, Setup { folder: Some(folder), ..Setup::default() }).await;
    let mut log = pipeline.stack.log();
    let receipt = pipeline.decided(&mut log, &new).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    pipeline.stack.queues().drained("import-queue").await.unwrap();
    assert_eq!(pipeline.tags(&old).await["gantry"], "superseded");
    assert_eq!(pipeline.tags(&new).await["gantry"], "released");
    // The older version's delivery did not take the newer one's receipt away.
    assert_eq!(pipeline.receipt(&new.key).await.unwrap()["upload"]["version_id"], Value::from(new.version_id));
    let config = pipeline_tests::look::check_image(pipeline.stack.images(), "team/app", "1");
    assert_eq!(config, pipeline_tests::look::digest(&image(2).config()));
    assert_eq!(pipeline.tags(&gone).await["gantry"], "superseded");
    assert!(pipeline.tagged("team/gone").is_empty());
}
