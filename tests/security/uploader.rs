//! What somebody can reach who may upload below `team/`, and nowhere else.

use local::samples::{Image, digest, docker_archive, gzipped, layer, oci_archive, tar_of};
use pipeline_tests::Pipeline;
use serde_json::json;

use crate::{PROGRAM, everything, image, refused};

/// Of the rival team.
const RIVAL: &str = "rival/app";

/// A stack in which `rival/app:1` is released, with its only layer.
async fn with_rival() -> (Pipeline, Vec<u8>) {
    let pipeline = Pipeline::start(PROGRAM).await;
    pipeline.stack.images().set_account_setting("BLOB_MOUNTING", "ENABLED").unwrap();
    let secret = layer("secret", 7, 50_000);
    let theirs = Image::new("amd64", vec![secret.clone()]);
    let receipt = pipeline.import("rival/app/1.tar", &docker_archive(&[(&theirs, &[])])).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    pipeline.quiet().await;
    (pipeline, secret)
}

#[tokio::test]
async fn no_name_reaches_another_team_s_repository() {
    let (pipeline, _) = with_rival().await;
    let before = everything(&pipeline);
    let one = docker_archive(&[(&image(1), &["rival/app:2"])]);
    let two = docker_archive(&[(&image(1), &["rival/app:2"]), (&image(2), &["team/app:2"])]);
    let outside = "not at or below \"team\"";
    for (key, body, metadata, words) in [
        // By metadata.
        ("team/app/2.tar", &one, Some("rival/app:2"), outside),
        ("team/app/2.tar", &one, Some("rival/app"), outside),
        ("team/app/2.tar", &one, Some("team-rival/app:2"), outside),
        ("team/app/2.tar", &one, Some("team2:2"), outside),
        ("team/app/2.tar", &one, Some("team/../rival/app:2"), "ECR refuses the repository name"),
        ("team/app/2.tar", &one, Some("../rival/app:2"), "ECR refuses the repository name"),
        ("team/app/2.tar", &one, Some("//rival/app:2"), ""),
        ("team/app/2.tar", &one, Some("127.0.0.1:5000/rival/app:2"), ""),
        // By the archive's own names.
        ("team/two.tar", &two, None, outside),
        ("team/app/two.tar", &two, None, outside),
        // By the key.
        ("team/../rival/app/2.tar", &one, None, "ECR refuses the repository name"),
        ("team//rival/app/2.tar", &one, None, ""),
        ("team/%2e%2e/rival/app/2.tar", &one, None, "ECR refuses the repository name"),
    ] {
        let metadata: Vec<_> = metadata.map(|image| ("image", image)).into_iter().collect();
        refused(&pipeline, key, body, &metadata, words).await;
    }
    let (layout, _) = oci_archive(&[&image(3)], "rival/app:2");
    let receipt = pipeline.import("team/app/3.tar", &layout).await;
    assert_eq!(receipt["import"]["images"][0]["repository"], "team/app", "the key counts: {receipt:#}");
    pipeline.quiet().await;
    let ours = |(name, _): &(String, _)| !name.starts_with("team/");
    assert_eq!(everything(&pipeline).into_iter().filter(ours).collect::<Vec<_>>(), before);
}

/// Knowing a diff ID is not possession: the ledger, which knows the layer, saves nobody from bringing its bytes.
#[tokio::test]
async fn no_diff_id_gets_another_team_s_layer() {
    let (pipeline, secret) = with_rival().await;
    let theirs = Image::new("amd64", vec![secret.clone()]);
    let config = theirs.config();
    let other: Vec<u8> = secret.iter().map(|byte| byte ^ 1).collect();
    let manifest = br#"[{"Config":"c.json","Layers":["l.tar"]}]"#.as_slice();
    // Their config, and bytes of the very length of their layer.
    for (what, body) in [
        ("other bytes", other.as_slice()),
        ("other bytes, compressed", &gzipped(&other)),
        ("no bytes", &[]),
        ("zeros", &vec![0; secret.len()]),
    ] {
        let archive = tar_of(&[("l.tar", body), ("c.json", &config), ("manifest.json", manifest)]);
        refused(&pipeline, &format!("team/app/{}.tar", what.len()), &archive, &[], "").await;
    }
    let archive = tar_of(&[("c.json", &config), ("manifest.json", manifest)]);
    refused(&pipeline, "team/app/9.tar", &archive, &[], "the archive has no such file").await;
    assert_not_theirs(&pipeline);

    // Whoever has the bytes may bring them: they are sent, not mounted.
    let receipt = pipeline.import("team/app/1.tar", &docker_archive(&[(&theirs, &[])])).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    // The config was theirs to bring already.
    assert_eq!(receipt.pointer("/import/images/0/blobs/1/how"), Some(&json!("sent")), "{receipt:#}");
}

/// An OCI layout that names their blobs and does not hold them.
#[tokio::test]
async fn no_digest_gets_another_team_s_blob() {
    let (pipeline, _) = with_rival().await;
    let theirs = pipeline_tests::look::manifest(pipeline.stack.images(), RIVAL, "1");
    let (manifest, config) = (theirs.to_string(), theirs["config"]["digest"].as_str().unwrap());
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).trim_start_matches("sha256:"));
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": theirs["mediaType"], "digest": digest(manifest.as_bytes()), "size": manifest.len()}]});
    let index = index.to_string();
    let marker = br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice();
    let path = name(manifest.as_bytes());
    let files = [(path.as_str(), manifest.as_bytes()), ("index.json", index.as_bytes()), ("oci-layout", marker)];
    refused(&pipeline, "team/app/1.tar", &tar_of(&files), &[], "").await;
    // With bytes of their own under the digest's name.
    let layer = theirs["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    let config = config.replace("sha256:", "blobs/sha256/");
    let size = usize::try_from(theirs["layers"][0]["size"].as_u64().unwrap()).unwrap();
    let false_layer = vec![1; size];
    let false_config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.as_slice();
    let forged =
        [files.as_slice(), &[(layer.as_str(), false_layer.as_slice()), (config.as_str(), false_config)]].concat();
    refused(&pipeline, "team/app/2.tar", &tar_of(&forged), &[], "").await;
    assert_not_theirs(&pipeline);
}

/// `team/app` holds no layer of the rival's.
fn assert_not_theirs(pipeline: &Pipeline) {
    let theirs = pipeline_tests::look::manifest(pipeline.stack.images(), RIVAL, "1");
    let layer = theirs["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    assert!(pipeline.stack.images().blob_size_bytes(RIVAL, &layer).is_some());
    assert_eq!(pipeline.stack.images().blob_size_bytes("team/app", &layer), None, "the layer was given away");
    assert!(pipeline.tagged("team/app").is_empty());
}

/// Objects below the uploader's folder that look like what the pipeline keeps elsewhere.
#[tokio::test]
async fn nothing_in_the_upload_bucket_is_taken_for_policy_record_or_receipt() {
    let pipeline = Pipeline::start(PROGRAM).await;
    for key in ["policy.toml", "team/policy.toml", "team/releases/app", "team/images/app.json", "team/ledger/x.json"] {
        refused(&pipeline, key, b"max_severity = \"critical\"\n", &[], "").await;
    }
    // A receipt that was there before: it says what its uploader likes, and of a version that nobody can know.
    let forged = json!({
        "state": "released", "summary": "fine", "next": "", "schema": 1, "stack": "gantry", "version": "0",
        "upload": {"bucket": "uploads", "key": "team/app/1.tar", "version_id": "guessed", "etag": null,
            "sequencer": "FFFFFFFFFFFFFFFFFFFF"},
        "import": {"outcome": "imported", "attempt": {"n": 1, "of": 10}, "started_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z", "duration_ms": 0, "images": []},
    });
    let looks = pipeline.faults.count("s3:HeadObject");
    pipeline.put("team/app/1.tar.receipt.json", forged.to_string().as_bytes()).await;
    pipeline.quiet().await;
    assert_eq!(pipeline.faults.count("s3:HeadObject"), looks, "a receipt wakes nobody");
    assert!(pipeline.object("state", "policy.good.toml").await.is_none());
}

/// The uploader's own words end where they were meant to, or nowhere.
#[tokio::test]
async fn metadata_makes_no_tags_but_those_it_may() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let body = docker_archive(&[(&image(1), &[])]);
    for (at, revision) in ["latest", "../../x", "0123456789ag"].iter().enumerate() {
        let metadata = [("revision", *revision)];
        let receipt = pipeline.import_with(&format!("team/app-{at}/1.0.0.tar"), &body, &metadata).await;
        assert_eq!(receipt["state"], "released", "{receipt:#}");
        pipeline.quiet().await;
        let tags: Vec<String> = pipeline.tagged(&format!("team/app-{at}")).into_keys().collect();
        assert_eq!(tags, ["1.0.0", "latest"], "{revision:?}");
    }
}
