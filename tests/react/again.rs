//! What is said too early, said twice, taken back, or cannot be read to its end.

use emulator::faults::{Action, Fault, FaultId};
use pipeline_tests::Pipeline;
use pipeline_tests::push::Pusher;
use serde_json::json;

use crate::{finding, gated, tarball, upload, with};

/// ECR says that the scan goes on, `times` times.
fn in_progress(pipeline: &Pipeline, times: usize) -> FaultId {
    let body = json!({"imageScanStatus": {"status": "IN_PROGRESS"}}).to_string();
    let operation = "ecr:DescribeImageScanFindings".to_owned();
    pipeline.faults.add(Fault { operation, resource: None, skip: 0, times, action: Action::Status(200, body) })
}

/// The event of a scan's end comes before its findings do.
#[tokio::test]
async fn a_scan_that_is_told_of_too_early_is_asked_for_again() {
    for (times, fired, state) in [(2, 2, "released"), (usize::MAX, 3, "imported")] {
        let pipeline = gated().await;
        let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
        assert_eq!(receipt["state"], "imported", "nobody scans it: {receipt:#}");
        pipeline.findings(&json!([{"repository": "*"}]));
        let fault = in_progress(&pipeline, times);
        assert_eq!(pipeline.stack.rescan("team/app", "1.0.0").unwrap(), 1);
        pipeline.quiet().await;
        assert_eq!(pipeline.faults.fired(fault), fired);
        assert_eq!(pipeline.receipt("team/app/1.0.0.tar").await.unwrap()["state"], state);
        assert!(pipeline.stack.queues().messages("failed-messages").unwrap().is_empty());
    }
}

/// Nobody can pull it, so nobody need hear that it cannot be scanned.
#[tokio::test]
async fn an_archived_image_keeps_its_verdict() {
    let pipeline = gated().await;
    pipeline.findings(&json!([{"repository": "*"}]));
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let told = pipeline.told().len();
    for status in ["IMAGE_ARCHIVED", "FAILED"] {
        pipeline.findings(&json!([{"repository": "*", "status": status}]));
        let at = pipeline_tests::now();
        pipeline.stack.put_event(json!({"source": "aws.ecr", "detail-type": "ECR Image Scan", "time": at, "detail": {
            "scan-status": "COMPLETE", "repository-name": "team/app", "image-tags": ["1.0.0"],
            "image-digest": receipt["import"]["images"][0]["digest"], "finding-severity-counts": {}}}));
        pipeline.quiet().await;
        let news = pipeline.told().len() - told;
        assert_eq!(news, usize::from(status == "FAILED"), "{status}: {:?}", pipeline.told());
    }
}

#[tokio::test]
async fn an_image_that_has_but_a_commit_s_tag_is_told_of() {
    let pipeline = with(&[]).await;
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    pusher.image("team/app", Some("sha-0123456789ab"), 1, &json!({})).await;
    pipeline.quiet().await;
    assert_eq!(pipeline.told_of("team/app"), ["Image Released sha-0123456789ab"]);

    // One that has another tag is told of under that, also when it has lost it since.
    let revision = json!({"annotations": {"org.opencontainers.image.revision": "fedcba9876543210"}});
    let image = pusher.image("team/app", Some("1.0.0"), 2, &revision).await;
    pipeline.quiet().await;
    assert!(pipeline.tagged("team/app").contains_key("sha-fedcba987654"));
    let ecr = local::session::ecr_client(pipeline.stack.endpoint());
    let tag = aws_sdk_ecr::types::ImageIdentifier::builder().image_tag("1.0.0").build();
    ecr.batch_delete_image().repository_name("team/app").image_ids(tag).send().await.unwrap();
    pipeline.stack.put_event(json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": {
        "result": "SUCCESS", "repository-name": "team/app", "image-digest": image["digest"], "action-type": "PUSH"}}));
    pipeline.quiet().await;
    assert_eq!(pipeline.told_of("team/app"), ["Image Released sha-0123456789ab", "Image Released 1.0.0"]);
}

/// Two images call themselves the same release.
#[tokio::test]
async fn of_two_spellings_of_a_release_the_plain_one_counts_whatever_comes_last() {
    for order in [["1.5.0", "v1.5.0"], ["v1.5.0", "1.5.0"]] {
        let pipeline = with(&[]).await;
        for (seed, version) in (0..).zip(order) {
            upload(&pipeline, &format!("team/app/{version}.tar"), &tarball(seed), &[]).await;
        }
        let tags = pipeline.tagged("team/app");
        assert_ne!(tags["1.5.0"], tags["v1.5.0"]);
        assert_eq!(tags["latest"], tags["1.5.0"], "{order:?}");
    }
}

/// People were told not to use it; they are told that they may again, and of the next failure too.
#[tokio::test]
async fn a_released_image_that_is_whole_again_is_told_of() {
    let pipeline = with(&[]).await;
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    let layer = receipt["import"]["images"][0]["blobs"][1]["digest"].as_str().unwrap().parse().unwrap();
    let bytes = std::fs::read(pipeline.stack.images().blob_path(&layer)).unwrap();
    let look = || {
        pipeline.stack.put_event(json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": {
            "result": "SUCCESS", "repository-name": "team/app", "image-tag": "1.0.0", "action-type": "PUSH"}}));
        pipeline.quiet()
    };
    let mut told = vec!["Image Imported 1.0.0".to_owned(), "Image Released 1.0.0".to_owned()];
    assert_eq!(pipeline.told_of("team/app"), told);
    for round in 0..2 {
        pipeline.stack.images().forget_blob("team/app", &layer).unwrap();
        look().await;
        told.push("Image Held 1.0.0,latest".to_owned());
        assert_eq!(pipeline.told_of("team/app"), told, "round {round}");
        Pusher::new(&pipeline).await.blob("team/app", pipeline_tests::push::LAYER, &bytes).await;
        for _ in 0..2 {
            look().await;
        }
        told.push("Image Released 1.0.0".to_owned());
        assert_eq!(pipeline.told_of("team/app"), told, "round {round}");
        assert_eq!(pipeline.receipt("team/app/1.0.0.tar").await.unwrap()["state"], "released");
    }
    let ids: std::collections::BTreeSet<String> =
        pipeline.told().iter().map(|(_, detail)| detail["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), pipeline.told().len(), "each is a fact of its own");
}

/// An image that was deleted and pushed again is as old as that: its scan has all of its time.
#[tokio::test]
async fn an_image_that_was_pushed_again_has_its_time_for_a_scan() {
    let pipeline = gated().await;
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    let image = pusher.image("team/app", Some("1.0.0"), 1, &json!({})).await;
    pipeline.quiet().await;
    let digest = image["digest"].as_str().unwrap();
    pipeline.age("team/app", digest).await;
    let ecr = local::session::ecr_client(pipeline.stack.endpoint());
    let by_digest = aws_sdk_ecr::types::ImageIdentifier::builder().image_digest(digest).build();
    ecr.batch_delete_image().repository_name("team/app").image_ids(by_digest).send().await.unwrap();
    pusher.image("team/app", Some("1.0.0"), 1, &json!({})).await;
    pipeline.quiet().await;
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    let record = pipeline.record("team/app", digest).await.unwrap();
    assert_eq!(record.get("verdict"), None, "its scan may yet come: {record:#}");
    pipeline.age("team/app", digest).await;
    pipeline.findings(&json!([{"repository": "other", "findings": [finding("CVE-2026-0001", "LOW")]}]));
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    let record = pipeline.record("team/app", digest).await.unwrap();
    assert_eq!(record["verdict"]["outcome"], "inconclusive", "{record:#}");
}
