//! What comes too early, too late, or will not work: it is asked for again, and keeps nothing else from its end.

use emulator::faults::{Action, Fault, FaultId};
use pipeline_tests::push::{CONFIG, IMAGE, Pusher, on};
use pipeline_tests::{Pipeline, Setup, now};
use serde_json::{Value, json};

use crate::{PROGRAM, finding, gated, lines, tarball, upload, with};

fn refuse(pipeline: &Pipeline, operation: &str, resource: &str, times: usize, answer: (u16, &str)) -> FaultId {
    let action = Action::Status(answer.0, answer.1.to_owned());
    // Calls of the control API name no resource.
    let resource = Some(resource.to_owned());
    pipeline.faults.add(Fault { operation: operation.to_owned(), resource, skip: 0, times, action })
}

/// ECR tells of a push before its lists show it.
#[tokio::test]
async fn a_push_that_is_told_of_too_early_is_asked_for_again() {
    for (operation, error) in
        [("ecr:DescribeImages", "ImageNotFoundException"), ("ecr:DescribeRepositories", "RepositoryNotFoundException")]
    {
        let pipeline = with(&[]).await;
        pipeline.adopt("team/app");
        let body = json!({"__type": error, "message": "not yet"}).to_string();
        let fault = refuse(&pipeline, operation, "", 1, (400, &body));
        Pusher::new(&pipeline).await.image("team/app", Some("1.0.0"), 1, &json!({})).await;
        pipeline.quiet().await;
        assert_eq!(pipeline.faults.fired(fault), 1, "{operation}");
        assert_eq!(pipeline.told_of("team/app"), ["Image Released 1.0.0"], "{operation}");
    }
}

/// The findings are not there yet under a digest that ECR lists.
#[tokio::test]
async fn an_image_whose_scan_is_not_known_yet_waits() {
    let pipeline = gated().await;
    pipeline.findings(&json!([{"repository": "*"}]));
    let body = json!({"__type": "ImageNotFoundException", "message": "not yet"}).to_string();
    let fault = refuse(&pipeline, "ecr:DescribeImageScanFindings", "", 1, (400, &body));
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    assert_eq!(pipeline.faults.fired(fault), 1);
    let told = pipeline.told_of("team/app");
    assert!(!told.iter().any(|told| told.starts_with("Image Held")), "{told:?}");
}

/// A sweep came between import's record and its manifest, and every event is lost.
#[tokio::test]
async fn what_was_not_there_for_a_moment_is_not_forgotten() {
    let setup = Setup { without: vec!["OnPushFunction", "OnScanFunction"], ..Setup::default() };
    let pipeline = Pipeline::with(PROGRAM, setup).await;
    pipeline.put("team/app/1.0.0.tar", &tarball(1)).await;
    pipeline.stack.queues().drained("import-queue").await.unwrap();
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    let digest = receipt["import"]["images"][0]["digest"].as_str().unwrap();
    let mut record = pipeline.record("team/app", digest).await.unwrap();
    record["gone_since"] = json!(now());
    pipeline.put_state(&format!("images/team/app/{digest}.json"), &record.to_string()).await;
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    assert_eq!(receipt["state"], "released", "{receipt:#}");
}

#[tokio::test]
async fn a_tag_that_cannot_be_set_keeps_no_receipt_open() {
    let pipeline = with(&[]).await;
    let denied = r#"{"errors":[{"code":"DENIED","message":"not authorized to perform: ecr:PutImage"}]}"#;
    let fault = refuse(&pipeline, "registry:PutManifest", "manifests/latest", usize::MAX, (403, denied));
    let mut log = pipeline.stack.log();
    let receipt = pipeline.import("team/app/1.0.0.tar", &tarball(1)).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let failed = async { while !log.recv().await.unwrap().text.contains("to be delivered again") {} };
    tokio::time::timeout(std::time::Duration::from_mins(1), failed).await.expect("the tag itself is not forgotten");
    assert!(pipeline.faults.fired(fault) > 0);
    assert!(pipeline.told_of("team/app").contains(&"Image Released 1.0.0".to_owned()), "{:?}", pipeline.told());
}

/// A registry that sends readers elsewhere: the image is not read from there.
#[tokio::test]
async fn a_redirect_to_this_machine_is_not_followed() {
    let pipeline = with(&[]).await;
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    let image = pusher.image("team/app", None, 1, &json!({})).await;
    pipeline.quiet().await;
    let record = pipeline.record("team/app", image["digest"].as_str().unwrap()).await.unwrap();
    assert_eq!(record["verification"]["passed"], true, "{record:#}");
    let near = pipeline.stack.endpoint().replace("127.0.0.1", "localhost");
    let action = Action::Header("location".parse().unwrap(), format!("{near}/_blobs/any").parse().unwrap());
    let (operation, resource) = ("registry:GetBlob".to_owned(), None);
    let fault = pipeline.faults.add(Fault { operation, resource, skip: 0, times: 1, action });
    let mut log = pipeline.stack.log();
    pusher.image("team/app", Some("1.0.0"), 1, &json!({})).await;
    pipeline.quiet().await;
    assert_eq!(pipeline.faults.fired(fault), 1);
    assert_eq!(lines(&mut log, "localhost").len(), 1, "refused, and asked for again");
    assert_eq!(pipeline.told_of("team/app"), ["Image Released 1.0.0"]);
}

/// The same delivery once more, when the object is gone: what was decided stands.
#[tokio::test]
async fn a_late_duplicate_does_not_take_back_a_receipt() {
    let pipeline = with(&[]).await;
    let (uploaded, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let denied = refuse(&pipeline, "s3:HeadObject", "team/app/1.0.0.tar", usize::MAX, (403, ""));
    pipeline.stack.put_event(json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {
        "bucket": {"name": "uploads"}, "object": {"key": "team/app/1.0.0.tar", "version-id": uploaded.version_id}}}));
    pipeline.quiet().await;
    assert!(pipeline.faults.fired(denied) > 0);
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    assert!(!pipeline.told().iter().any(|(name, _)| name == "Import Failed"), "{:?}", pipeline.told());
}

/// An index may name what is no image with a platform: nobody ever scans that.
#[tokio::test]
async fn an_index_does_not_wait_for_what_is_no_image() {
    let pipeline = gated().await;
    pipeline.findings(&json!([{"repository": "*"}]));
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    let amd = pusher.image("team/app", None, 1, &json!({})).await;
    let config = pusher.blob("team/app", CONFIG, br#"{"os":"wasi","architecture":"wasm"}"#).await;
    let module = pusher.blob("team/app", "application/wasm", b"module").await;
    let wasm = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [module]});
    let wasm = pusher.manifest("team/app", None, &wasm).await;
    pusher.index("team/app", "1.0.0", &[on(&amd, "amd64"), on(&wasm, "wasm")]).await;
    pipeline.quiet().await;
    assert_eq!(pipeline.told_of("team/app"), ["Image Released 1.0.0"]);
}

#[tokio::test]
async fn a_policy_of_any_size_stops_nothing() {
    let pipeline = gated().await;
    pipeline.findings(&json!([{"repository": "*"}]));
    pipeline.put_state("policy.toml", &"#".repeat(9 << 20)).await;
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    let told = pipeline.told();
    let (_, problem) = told.iter().find(|(name, _)| name == "Policy Problem").unwrap();
    assert!(problem["reason"]["text"].as_str().unwrap().contains("more than 262144 bytes"), "{problem}");
}

#[tokio::test]
async fn a_record_that_does_not_read_ends_no_sweep() {
    let setup = Setup { without: vec!["OnPushFunction", "OnScanFunction"], ..Setup::default() };
    let pipeline = Pipeline::with(PROGRAM, setup).await;
    let broken = format!("images/team/aaa/sha256:{}.json", "0".repeat(64));
    pipeline.put_state(&broken, "{").await;
    pipeline.put("team/app/1.0.0.tar", &tarball(1)).await;
    pipeline.stack.queues().drained("import-queue").await.unwrap();
    let mut log = pipeline.stack.log();
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    assert_eq!(pipeline.receipt("team/app/1.0.0.tar").await.unwrap()["state"], "released");
    assert_eq!(lines(&mut log, "does not read as an image record").len(), 1);
}

/// Time passes over the last day of an exception that a verdict rests on.
#[tokio::test]
async fn an_exception_that_ends_is_noticed_by_the_schedule() {
    let pipeline = gated().await;
    let critical: Value = finding("CVE-2026-0001", "CRITICAL");
    pipeline.findings(&json!([{"repository": "*", "findings": [critical]}]));
    let file = |expires: &str| {
        format!(
            "[[exception]]\nid = \"CVE-2026-0001\"\nrepository = \"*\"\nreason = \"r\"\nowner = \"ann\"\nexpires = {expires}\n"
        )
    };
    pipeline.put_state("policy.toml", &file("2099-01-01")).await;
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");

    // The file as it is, with its last day in the past, and the verdict from before that.
    pipeline.stack.queues().drained("scan-queue").await.unwrap();
    let digest = receipt["import"]["images"][0]["digest"].as_str().unwrap();
    let setup = Setup {
        parameters: [("ReleaseGate".to_owned(), "scan".to_owned())].into(),
        without: vec!["OnPushFunction", "OnScanFunction"],
        folder: Some(pipeline.stop().await),
        ..Setup::default()
    };
    let pipeline = Pipeline::with(PROGRAM, setup).await;
    let ended = file("2026-01-31");
    pipeline.put_state("policy.toml", &ended).await;
    let mut record = pipeline.record("team/app", digest).await.unwrap();
    for time in ["read_at", "since", "policy_read_at"] {
        record["verdict"][time] = json!("2026-01-30T00:00:00Z");
    }
    record["released"]["at"] = json!("2026-01-30T00:00:01Z");
    record["verdict"]["policy"] = json!(&pipeline_tests::look::digest(ended.as_bytes())["sha256:".len()..][..12]);
    pipeline.put_state(&format!("images/team/app/{digest}.json"), &record.to_string()).await;
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    let record = pipeline.record("team/app", digest).await.unwrap();
    assert_eq!((&record["verdict"]["outcome"], &record["verdict"]["before"]), (&json!("fail"), &json!("pass")));
    assert!(pipeline.told_of("team/app").contains(&"Verdict Changed 1.0.0,latest".to_owned()), "{:?}", pipeline.told());
}
