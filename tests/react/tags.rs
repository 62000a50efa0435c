//! Commit tags and floating tags.

use pipeline_tests::push::Pusher;
use serde_json::json;

use crate::{calls, tarball, upload, with};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[tokio::test]
async fn a_floating_tag_follows_the_highest_release_whatever_comes_last() {
    let pipeline = with(&[("FloatingTags", "latest,latest-{major}.{minor}")]).await;
    for (seed, version) in (0..).zip(["1.5.0", "1.4.2", "2.0.0-rc.1", "1.5.1", "v1.5.0-beta"]) {
        let (_, receipt) = upload(&pipeline, &format!("team/app/{version}.tar"), &tarball(seed), &[]).await;
        assert_eq!(receipt["state"], "released", "{version}: {receipt:#}");
    }
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["latest"], tags["1.5.1"]);
    assert_eq!(tags["latest-1.5"], tags["1.5.1"]);
    assert_eq!(tags["latest-1.4"], tags["1.4.2"]);
    assert!(!tags.contains_key("latest-2.0"), "a prerelease has none: {tags:?}");
    let told = pipeline.told_of("team/app");
    assert!(!told.iter().any(|told| told.contains("latest")), "our own tags are no releases: {told:?}");
    // Nothing we did keeps us busy.
    let puts = calls(&pipeline, "registry:PutManifest");
    pipeline.quiet().await;
    assert_eq!(calls(&pipeline, "registry:PutManifest"), puts);
}

#[tokio::test]
async fn releases_at_once_from_two_processes_end_the_same() {
    for round in 0..4 {
        let pipeline = with(&[]).await;
        let (old, new) = (tarball(round), tarball(round + 100));
        let (one, other) =
            if round % 2 == 0 { (("1.4.2", &old), ("1.5.0", &new)) } else { (("1.5.0", &new), ("1.4.2", &old)) };
        let put = |(version, body): (&'static str, &Vec<u8>)| {
            let (key, body) = (format!("team/app/{version}.tar"), body.clone());
            let pipeline = &pipeline;
            async move { pipeline.put(&key, &body).await }
        };
        tokio::join!(put(one), put(other));
        pipeline.quiet().await;
        let tags = pipeline.tagged("team/app");
        assert_eq!(tags["latest"], tags["1.5.0"], "round {round}: {tags:?}");
    }
}

/// A release is retracted: its own tag is deleted, the floating one stays, and follows what comes next.
#[tokio::test]
async fn a_floating_tag_leaves_a_release_whose_tag_is_gone() {
    let pipeline = with(&[]).await;
    upload(&pipeline, "team/app/1.4.2.tar", &tarball(1), &[]).await;
    let ecr = local::session::ecr_client(pipeline.stack.endpoint());
    let tag = aws_sdk_ecr::types::ImageIdentifier::builder().image_tag("1.4.2").build();
    ecr.batch_delete_image().repository_name("team/app").image_ids(tag).send().await.unwrap();
    assert_eq!(pipeline.tagged("team/app").keys().collect::<Vec<_>>(), ["latest"]);
    let digest = &pipeline.tagged("team/app")["latest"];
    pipeline.stack.put_event(json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": {
        "result": "SUCCESS", "repository-name": "team/app", "image-digest": digest, "action-type": "PUSH"}}));
    pipeline.quiet().await;
    assert!(!pipeline.told_of("team/app").contains(&"Image Released latest".to_owned()), "it is no release of its own");
    upload(&pipeline, "team/app/1.4.1.tar", &tarball(2), &[]).await;
    let tags = pipeline.tagged("team/app");
    assert_ne!(tags["latest"], tags["1.4.1"], "never back");
    upload(&pipeline, "team/app/1.4.3.tar", &tarball(3), &[]).await;
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["latest"], tags["1.4.3"]);
}

/// Whoever moves a tag has to see every release there is, so a release is marked before its tags move.
#[tokio::test]
async fn a_release_is_marked_before_its_tags_move() {
    let pipeline = with(&[]).await;
    let fault = pipeline.faults.add(emulator::faults::Fault {
        operation: "registry:PutManifest".to_owned(),
        resource: Some("manifests/latest".to_owned()),
        skip: 0,
        times: usize::MAX,
        action: emulator::faults::Action::Stall,
    });
    pipeline.put("team/app/1.0.0.tar", &tarball(1)).await;
    let moving = async {
        while pipeline.faults.fired(fault) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), moving).await.expect("the tag is put");
    let digest = pipeline.tagged("team/app")["1.0.0"].clone();
    let record = pipeline.record("team/app", &digest).await.unwrap();
    assert_eq!(record["released"]["by"], "verification", "{record:#}");
}

#[tokio::test]
async fn a_tag_that_somebody_else_put_stays() {
    let pipeline = with(&[]).await;
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    let theirs = pusher.image("team/app", Some("latest"), 1, &json!({})).await;
    pipeline.quiet().await;
    upload(&pipeline, "team/app/1.0.0.tar", &tarball(2), &[]).await;
    assert_eq!(pipeline.tagged("team/app")["latest"], theirs["digest"]);
}

#[tokio::test]
async fn a_repository_with_more_tags_than_a_page_is_seen_whole() {
    let pipeline = with(&[]).await;
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    // Quiet while they are made: nobody waits for 1,100 looks.
    let image = pusher.image("team/app", None, 1, &json!({})).await;
    let digest: emulator::images::Digest = image["digest"].as_str().unwrap().parse().unwrap();
    pipeline.quiet().await;
    pipeline.stack.images().set_tags("team/app", digest, (0..1_100).map(|n| format!("build-{n}"))).unwrap();
    for version in ["9.0.0", "0.1.0"] {
        upload(&pipeline, &format!("team/app/{version}.tar"), &tarball(u32::from(version.as_bytes()[0])), &[]).await;
    }
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags.len(), 1_100 + 3);
    assert_eq!(tags["latest"], tags["9.0.0"]);
}

#[tokio::test]
async fn the_commit_has_a_tag_if_the_upload_or_the_image_itself_names_it() {
    let pipeline = with(&[]).await;
    upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[("revision", COMMIT)]).await;
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["sha-0123456789ab"], tags["1.0.0"]);
    assert_eq!(pipeline.told_of("team/app").iter().filter(|told| told.starts_with("Image Released")).count(), 1);

    // The first image of a commit keeps its tag.
    let (_, receipt) = upload(&pipeline, "team/app/1.0.1.tar", &tarball(2), &[("revision", COMMIT)]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    assert_eq!(pipeline.tagged("team/app")["sha-0123456789ab"], tags["1.0.0"]);

    pipeline.adopt("team/other");
    let pusher = Pusher::new(&pipeline).await;
    let annotated = json!({"annotations": {"org.opencontainers.image.revision": "fedcba9876543210"}});
    let image = pusher.image("team/other", Some("edge"), 3, &annotated).await;
    pipeline.quiet().await;
    assert_eq!(pipeline.tagged("team/other")["sha-fedcba987654"], image["digest"]);
}

#[tokio::test]
async fn a_label_names_the_commit_only_if_the_stack_wants_so() {
    for (wanted, found) in [("false", false), ("true", true)] {
        let pipeline = with(&[("CommitTagFromLabel", wanted)]).await;
        pipeline.adopt("team/app");
        let pusher = Pusher::new(&pipeline).await;
        pusher.labelled("team/app", "edge", &json!({"org.opencontainers.image.revision": COMMIT})).await;
        pipeline.quiet().await;
        assert_eq!(pipeline.tagged("team/app").contains_key("sha-0123456789ab"), found, "{wanted}");
    }
}
