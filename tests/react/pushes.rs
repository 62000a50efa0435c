//! Images that other clients push, and what is no image.

use pipeline_tests::push::{CONFIG, IMAGE, INDEX, LAYER, Pusher, on};
use pipeline_tests::{Pipeline, look};
use serde_json::{Value, json};

use crate::{finding, gated, lines, tarball, upload, with};

#[tokio::test]
async fn another_client_s_image_is_verified_released_and_told_of() {
    let pipeline = with(&[]).await;
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    let image = pusher.image("team/app", Some("1.0.0"), 1, &json!({})).await;
    pipeline.quiet().await;
    let record = pipeline.record("team/app", image["digest"].as_str().unwrap()).await.unwrap();
    assert_eq!(record["verification"]["passed"], true, "{record:#}");
    assert_eq!(record["facts"]["platforms"], json!(["linux/amd64"]));
    assert_eq!(pipeline.told_of("team/app"), ["Image Released 1.0.0"]);
    assert_eq!(pipeline.tagged("team/app")["latest"], image["digest"]);
}

#[tokio::test]
async fn repositories_that_are_not_ours_are_left_alone() {
    let pipeline = with(&[]).await;
    let pusher = Pusher::new(&pipeline).await;
    let mut log = pipeline.stack.log();
    for (repository, tags) in
        [("team/app", [].into()), ("team/other", [("gantry:stack".to_owned(), "another".to_owned())].into())]
    {
        let theirs = emulator::images::Repository::new(repository, emulator::images::Settings::default(), tags);
        pipeline.stack.images().create(theirs).unwrap();
        let image = pusher.image(repository, Some("1.0.0"), 1, &json!({})).await;
        pipeline.quiet().await;
        assert_eq!(pipeline.record(repository, image["digest"].as_str().unwrap()).await, None);
        assert_eq!(pipeline.tagged(repository).len(), 1);
        // Known for what it is, not merely out of the role's reach.
        assert_eq!(lines(&mut log, "not a repository of this stack; acknowledged").len(), 1, "{repository}");
    }
    assert!(pipeline.stack.queues().messages("failed-messages").unwrap().is_empty());
    assert!(pipeline.told().is_empty());
}

/// An image whose config lies: in `broken`, what the manifest has and the config does not say.
async fn push_broken(pusher: &Pusher, tag: &str, config: &Value) -> Value {
    let layer = pusher.blob("team/app", LAYER, &local::samples::layer("app", 1, 500)).await;
    let config = pusher.blob("team/app", CONFIG, config.to_string().as_bytes()).await;
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer],
        "annotations": {"org.opencontainers.image.revision": "0123456789abcdef"}});
    pusher.manifest("team/app", Some(tag), &manifest).await
}

#[tokio::test]
async fn an_image_that_fails_verification_is_held_and_the_check_is_told() {
    let one = json!({"type": "layers", "diff_ids": [look::digest(b"x")]});
    for (config, check) in [
        (
            json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}),
            "wanted 1 diff IDs, one for each layer of the manifest, found 0",
        ),
        (json!({"rootfs": one}), "wanted an operating system and an architecture, found os \"\", architecture \"\""),
        (json!("no config"), "wanted an image config, found invalid type"),
    ] {
        let pipeline = with(&[]).await;
        pipeline.adopt("team/app");
        let pusher = Pusher::new(&pipeline).await;
        let image = push_broken(&pusher, "1.0.0", &config).await;
        pipeline.quiet().await;
        assert_eq!(pipeline.told_of("team/app"), ["Image Held 1.0.0"], "{config}");
        assert_eq!(pipeline.tagged("team/app").len(), 1, "neither the commit's tag nor a floating one: {config}");
        let (_, detail) = pipeline.told().pop().unwrap();
        assert_eq!(detail["reason"]["kind"], "verification");
        assert!(detail["reason"]["text"].as_str().unwrap().contains(check), "{detail}");
        assert_eq!(pipeline.tagged("team/app").len(), 1, "no tag more");
        // It cannot be let go by hand.
        let digest = image["digest"].as_str().unwrap();
        pipeline.put_state(&format!("releases/team/app/{digest}"), "please").await;
        pipeline.quiet().await;
        assert_eq!(pipeline.told_of("team/app").len(), 1);
    }
}

#[tokio::test]
async fn a_blob_that_is_lost_after_the_push_is_found_by_the_next_look() {
    let pipeline = with(&[]).await;
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    let image = &receipt["import"]["images"][0];
    let layer = image["blobs"][1]["digest"].as_str().unwrap();
    pipeline.stack.images().forget_blob("team/app", &layer.parse().unwrap()).unwrap();
    pipeline.stack.put_event(json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": {
        "result": "SUCCESS", "repository-name": "team/app", "image-tag": "1.0.0", "action-type": "PUSH"}}));
    pipeline.quiet().await;
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    assert_eq!(receipt["state"], "held", "{receipt:#}");
    assert!(receipt["summary"].as_str().unwrap().contains(&format!("blob {layer}: wanted")), "{receipt:#}");
}

#[tokio::test]
async fn artifacts_are_verified_and_cause_neither_tags_nor_messages() {
    let pipeline = gated().await;
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    let image = pusher.image("team/app", Some("1.0.0"), 1, &json!({})).await;
    let empty = pusher.blob("team/app", "application/vnd.oci.empty.v1+json", b"{}").await;
    let content = pusher.blob("team/app", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart").await;
    let helm = pusher.blob("team/app", "application/vnd.cncf.helm.config.v1+json", b"{\"name\":\"c\"}").await;
    let in_toto = pusher.blob("team/app", "application/vnd.in-toto+json", b"{\"_type\":\"x\"}").await;
    let unknown = json!({"os": "unknown", "architecture": "unknown", "rootfs": {"diff_ids": []}}).to_string();
    let unknown = pusher.blob("team/app", CONFIG, unknown.as_bytes()).await;
    let artifact = |config: &Value, layer: &Value, more: Value| {
        let mut manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer]});
        for (name, value) in more.as_object().unwrap() {
            manifest[name] = value.clone();
        }
        manifest
    };
    let signature = json!({"subject": image, "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"});
    for (what, tag, manifest) in [
        ("a chart", Some("2.0.0"), artifact(&helm, &content, json!({}))),
        ("a signature", Some("sha256-abc.sig"), artifact(&empty, &content, signature)),
        ("an attestation", None, artifact(&unknown, &in_toto, json!({}))),
    ] {
        let descriptor = pusher.manifest("team/app", tag, &manifest).await;
        pipeline.quiet().await;
        let record = pipeline.record("team/app", descriptor["digest"].as_str().unwrap()).await.unwrap();
        assert_eq!(record["facts"]["kind"], "artifact", "{what}: {record:#}");
        assert_eq!(record["verification"]["passed"], true, "{what}: {record:#}");
        assert_eq!(record.get("verdict"), None, "{what}");
    }
    assert!(pipeline.told().is_empty(), "{:?}", pipeline.told());
    assert_eq!(pipeline.tagged("team/app").len(), 3);
}

async fn push_index(pipeline: &Pipeline, repository: &str, seed: u32) -> (String, Vec<String>) {
    let pusher = Pusher::new(pipeline).await;
    let amd = pusher.image(repository, None, seed, &json!({})).await;
    let arm = pusher.image(repository, None, seed + 1, &json!({})).await;
    let index = pusher.index(repository, "1.0.0", &[on(&amd, "amd64"), on(&arm, "arm64")]).await;
    let text = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    (text(&index), vec![text(&amd), text(&arm)])
}

#[tokio::test]
async fn an_index_takes_the_worst_of_its_images() {
    let pipeline = gated().await;
    pipeline.adopt("team/app");
    pipeline.adopt("team/bad");
    let (_, children) = push_index(&pipeline, "team/bad", 1).await;
    pipeline.quiet().await;
    assert!(pipeline.told().is_empty(), "nothing is scanned yet");
    pipeline.findings(&json!([
        {"repository": "team/bad", "image": children[1], "findings": [finding("CVE-2026-0001", "CRITICAL")]},
        {"repository": "*"},
    ]));
    pipeline.stack.rescan("team/bad", "1.0.0").unwrap();
    let (index, _) = push_index(&pipeline, "team/app", 5).await;
    pipeline.quiet().await;

    assert_eq!(
        pipeline.told_of("team/app"),
        ["Image Released 1.0.0"],
        "one message for the index, none for its images"
    );
    assert_eq!(pipeline.tagged("team/app")["latest"], index);
    assert_eq!(pipeline.told_of("team/bad"), ["Image Held 1.0.0"]);
    let (_, detail) = pipeline.told().into_iter().find(|(name, _)| name == "Image Held").unwrap();
    assert!(detail["reason"]["text"].as_str().unwrap().starts_with("linux/arm64: critical CVE-2026-0001"), "{detail}");
    assert!(!pipeline.tagged("team/bad").contains_key("latest"));
    assert_eq!(look::manifest(pipeline.stack.images(), "team/app", "latest")["mediaType"], INDEX);
}

#[tokio::test]
async fn events_of_what_is_gone_are_done_with() {
    let pipeline = with(&[]).await;
    pipeline.adopt("team/app");
    let mut log = pipeline.stack.log();
    let digest = look::digest(b"gone");
    for repository in ["team/never", "team/app"] {
        for detail_type in ["ECR Image Action", "ECR Image Scan"] {
            pipeline.stack.put_event(json!({"source": "aws.ecr", "detail-type": detail_type, "detail": {
                "result": "SUCCESS", "action-type": "PUSH", "scan-status": "COMPLETE",
                "repository-name": repository, "image-digest": digest}}));
            pipeline.quiet().await;
            let found = lines(&mut log, "the image or its repository is gone; acknowledged");
            assert_eq!(found.len(), 1, "{repository} {detail_type}: {found:?}");
        }
    }
    assert!(pipeline.stack.queues().messages("failed-messages").unwrap().is_empty());
    assert!(pipeline.told().is_empty());
}
