//! The gate: what waits for a scan, what holds, and what lets go.

use pipeline_tests::look::check_image;
use serde_json::{Value, json};

use crate::{calls, finding, gated, tarball, upload, with};

const CRITICAL: &str = "critical CVE-2026-0001 in openssl 3.0.1";

#[tokio::test]
async fn without_a_gate_an_image_is_released_when_it_is_verified_and_everything_is_told_once() {
    let pipeline = with(&[]).await;
    let (uploaded, receipt) = upload(&pipeline, "team/app/1.4.2.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let digest = receipt["import"]["images"][0]["digest"].as_str().unwrap();
    let reaction = &receipt["reaction"][format!("team/app@{digest}")];
    assert_eq!(reaction["release"]["by"], "verification");
    assert_eq!((&reaction["verification"]["manifests"], &reaction["verification"]["blobs"]), (&json!(1), &json!(2)));
    assert_eq!(pipeline.tags(&uploaded).await["gantry"], "released");
    let told = ["Image Imported 1.4.2", "Image Released 1.4.2"];
    let mut found = pipeline.told_of("team/app");
    found.sort();
    assert_eq!(found, told);

    // Every event again, twice: nothing is told, tagged or judged anew.
    let event = json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": {"result": "SUCCESS",
        "repository-name": "team/app", "image-digest": digest, "action-type": "PUSH", "image-tag": "1.4.2"}});
    let puts = calls(&pipeline, "registry:PutManifest");
    for _ in 0..2 {
        pipeline.stack.put_event(event.clone());
    }
    pipeline.quiet().await;
    assert_eq!(pipeline.told_of("team/app").len(), 2);
    assert_eq!(calls(&pipeline, "registry:PutManifest"), puts);

    // The same file again is an upload of its own, and no other release.
    let (again, receipt) = upload(&pipeline, "team/app/1.4.2.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    assert_eq!(pipeline.tags(&again).await["gantry"], "released");
    let released = pipeline.told_of("team/app").into_iter().filter(|told| told.starts_with("Image Released")).count();
    assert_eq!(released, 1);
}

#[tokio::test]
async fn with_the_gate_a_release_waits_for_a_scan() {
    let pipeline = gated().await;
    let (uploaded, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "imported", "{receipt:#}");
    assert_eq!(pipeline.tags(&uploaded).await["gantry"], "imported");
    assert_eq!(pipeline.tagged("team/app").keys().collect::<Vec<_>>(), ["1.0.0"], "the version tag does not wait");

    pipeline.findings(&json!([{"repository": "team/app", "findings": [finding("CVE-2026-0002", "HIGH")]}]));
    pipeline.stack.rescan("team/app", "1.0.0").unwrap();
    pipeline.quiet().await;
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["latest"], tags["1.0.0"]);
    assert_eq!(pipeline.tags(&uploaded).await["gantry"], "released");
    let (_, detail) = pipeline.told().into_iter().find(|(name, _)| name == "Image Released").unwrap();
    assert_eq!((&detail["verdict"]["outcome"], &detail["verdict"]["counts"]["high"]), (&json!("pass"), &json!(1)));
    assert!(detail["image"]["uri"].as_str().unwrap().ends_with(&format!("/team/app@{}", tags["1.0.0"])), "{detail}");
}

/// A stack with one image that a critical finding holds.
async fn held() -> (pipeline_tests::Pipeline, String) {
    let pipeline = gated().await;
    pipeline.findings(&json!([{"repository": "*", "findings": [finding("CVE-2026-0001", "CRITICAL")]}]));
    let (uploaded, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "held", "{receipt:#}");
    assert!(receipt["summary"].as_str().unwrap().contains(CRITICAL), "{receipt:#}");
    assert_eq!(pipeline.tags(&uploaded).await["gantry"], "held");
    assert!(!pipeline.tagged("team/app").contains_key("latest"));
    check_image(pipeline.stack.images(), "team/app", "1.0.0");
    (pipeline, receipt["import"]["images"][0]["digest"].as_str().unwrap().to_owned())
}

async fn is_released(pipeline: &pipeline_tests::Pipeline, by: &str) {
    pipeline.quiet().await;
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let reaction = receipt["reaction"].as_object().unwrap().values().next().unwrap();
    assert_eq!(reaction["release"]["by"], by, "{receipt:#}");
    let tags = pipeline.tagged("team/app");
    assert_eq!(tags["latest"], tags["1.0.0"]);
    assert_eq!(pipeline.told_of("team/app").last().unwrap(), "Image Released 1.0.0");
}

#[tokio::test]
async fn a_held_image_is_told_of_with_what_to_do_and_released_by_an_exception() {
    let (pipeline, digest) = held().await;
    let (_, detail) = pipeline.told().into_iter().find(|(name, _)| name == "Image Held").unwrap();
    assert_eq!(detail["reason"]["kind"], "policy");
    assert!(detail["reason"]["text"].as_str().unwrap().contains(CRITICAL), "{detail}");
    assert_eq!(detail["image"]["digest"], digest);

    let topic = pipeline.stack.topic_arn("Topic").unwrap();
    let messages = pipeline.stack.topics().messages(topic).unwrap();
    let message = messages.iter().find(|message| message.subject.as_deref() == Some("Image Held: team/app:1.0.0"));
    let text = message.unwrap().text_for("email");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0]
            .starts_with("Fix it and push a new image, or accept it: an [[exception]] for a finding, another limit")
    );
    assert!(lines[0].ends_with(", in s3://state/policy.toml."), "{text}");
    assert!(lines[1].contains("aws s3 cp - s3://state/releases/team/app/sha256:"), "{text}");
    assert!(lines.contains(&"findings   1 critical") && lines.len() <= 25, "{text}");
    let attribute = |name: &str| message.unwrap().attributes[name].value.clone();
    assert_eq!(attribute("severity"), "critical");
    assert_eq!((attribute("state"), attribute("needs")), ("held".into(), "person".into()));

    let exception = "[[exception]]\nid = \"CVE-2026-0001\"\nrepository = \"team/*\"\nreason = \"not reachable\"\n\
                     owner = \"ann\"\nexpires = 2099-01-01\n";
    pipeline.put_state("policy.toml", exception).await;
    is_released(&pipeline, "verdict").await;
    let record = pipeline.record("team/app", &digest).await.unwrap();
    assert_eq!(record["verdict"]["excepted"], json!(["CVE-2026-0001"]));
    assert_ne!(record["verdict"]["policy"], "default");
}

#[tokio::test]
async fn a_held_image_is_released_by_another_policy() {
    let (pipeline, _) = held().await;
    pipeline.put_state("policy.toml", "max_severity = \"critical\"").await;
    is_released(&pipeline, "verdict").await;
}

#[tokio::test]
async fn a_held_image_is_released_by_hand_with_the_command_of_the_message() {
    let (pipeline, digest) = held().await;
    pipeline.put_state(&format!("releases/team/app/{digest}"), "accepted by ann").await;
    is_released(&pipeline, "hand").await;
}

#[tokio::test]
async fn what_gives_no_answer_is_inconclusive_and_holds_unless_the_policy_says_otherwise() {
    for (what, entry, reason) in [
        (
            "a failed scan",
            json!({"status": "FAILED", "reason": "out of luck"}),
            "the scan ended as FAILED: out of luck",
        ),
        (
            "an image that Inspector cannot read",
            json!({"scan": "enhanced", "status": "UNSUPPORTED_IMAGE"}),
            "the scan ended as UNSUPPORTED_IMAGE",
        ),
        (
            "an image that is too large",
            json!({"scan": "enhanced", "status": "IMAGE_SIZE_EXCEEDED"}),
            "the scan ended as IMAGE_SIZE_EXCEEDED",
        ),
        (
            "an image that is too old",
            json!({"scan": "enhanced", "status": "SCAN_ELIGIBILITY_EXPIRED"}),
            "the scan ended as SCAN_ELIGIBILITY_EXPIRED",
        ),
    ] {
        let pipeline = gated().await;
        let mut entry = entry;
        entry["repository"] = json!("*");
        pipeline.findings(&json!([entry]));
        let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
        assert_eq!(receipt["state"], "held", "{what}: {receipt:#}");
        assert!(receipt["summary"].as_str().unwrap().contains(reason), "{what}: {receipt:#}");
        let (_, detail) = pipeline.told().into_iter().find(|(name, _)| name == "Image Held").unwrap();
        assert_eq!(detail["reason"]["kind"], "inconclusive", "{what}");
        pipeline.put_state("policy.toml", "inconclusive = \"pass\"").await;
        is_released(&pipeline, "verdict").await;
    }
}

#[tokio::test]
async fn silence_is_inconclusive_after_its_time_and_says_why() {
    for (scan_on_push, reason) in [
        ("true", "no scan result within 30 minutes (status: not scanned)"),
        ("false", "this registry's scanning configuration does not cover team/app"),
    ] {
        let pipeline = with(&[("ReleaseGate", "scan"), ("ScanOnPush", scan_on_push)]).await;
        let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
        assert_eq!(receipt["state"], "imported", "{receipt:#}");
        let digest = receipt["import"]["images"][0]["digest"].as_str().unwrap();
        pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
        assert_eq!(pipeline.receipt("team/app/1.0.0.tar").await.unwrap()["state"], "imported", "it is not time yet");

        pipeline.age("team/app", digest).await;
        pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
        pipeline.quiet().await;
        let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
        assert_eq!(receipt["state"], "held", "{receipt:#}");
        assert!(receipt["summary"].as_str().unwrap().contains(reason), "{receipt:#}");

        // A scan that comes after all is an answer.
        pipeline.findings(&json!([{"repository": "*"}]));
        pipeline.stack.rescan("team/app", "1.0.0").ok();
        pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
        if scan_on_push == "true" {
            is_released(&pipeline, "verdict").await;
        }
    }
}

#[tokio::test]
async fn a_later_finding_does_not_unrelease_and_is_told() {
    let pipeline = gated().await;
    pipeline.findings(&json!([{"repository": "*", "scan": "enhanced"}]));
    let (uploaded, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    pipeline.findings(
        &json!([{"repository": "*", "scan": "enhanced", "findings": [finding("CVE-2026-0001", "CRITICAL")]}]),
    );
    pipeline.stack.tell_findings("team/app", "1.0.0", emulator::images::FindingStatus::Active).unwrap();
    // Findings that were read within the clocks' difference of the event are read again.
    pipeline.quiet().await;
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let verdict = receipt["reaction"].as_object().unwrap().values().next().unwrap()["verdict"].clone();
    assert_eq!((&verdict["outcome"], &verdict["before"]), (&json!("fail"), &json!("pass")), "{receipt:#}");
    assert_eq!(pipeline.tags(&uploaded).await["gantry"], "released");
    let told = pipeline.told();
    let (_, changed) = told.iter().find(|(name, _)| name == "Verdict Changed").unwrap();
    assert_eq!((&changed["state"], &changed["reason"]["kind"]), (&json!("released"), &json!("verdict")));
    assert_eq!(changed["verdict"]["findings"][0]["fixed_in"], "3.0.2");
    assert!(pipeline.tagged("team/app").contains_key("latest"));
}

#[tokio::test]
async fn a_burst_of_findings_is_a_handful_of_evaluations() {
    let pipeline = gated().await;
    let many: Vec<Value> = (0..800).map(|n| finding(&format!("CVE-2026-{n:04}"), "LOW")).collect();
    pipeline.findings(&json!([{"repository": "*", "scan": "enhanced", "findings": many}]));
    upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    let before = calls(&pipeline, "ecr:DescribeImageScanFindings");
    pipeline.stack.tell_findings("team/app", "1.0.0", emulator::images::FindingStatus::Active).unwrap();
    pipeline.quiet().await;
    let evaluations = calls(&pipeline, "ecr:DescribeImageScanFindings") - before;
    assert!((1..=20).contains(&evaluations), "{evaluations} evaluations of 800 events");
    let released = pipeline.told_of("team/app").into_iter().filter(|told| told.starts_with("Image Released")).count();
    assert_eq!(released, 1);
}

#[tokio::test]
async fn more_findings_than_a_page_are_all_read() {
    let pipeline = gated().await;
    let mut many: Vec<Value> = (0..1_500).map(|n| finding(&format!("CVE-2026-{n:04}"), "LOW")).collect();
    many.push(finding("CVE-2026-9999", "CRITICAL"));
    pipeline.findings(&json!([{"repository": "*", "findings": many}]));
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "held", "{receipt:#}");
    assert!(receipt["summary"].as_str().unwrap().contains("critical CVE-2026-9999"), "{receipt:#}");
}
