//! Whatever order events come in, how often, and whichever are lost: the end is the same.

use pipeline_tests::push::{Pusher, on};
use pipeline_tests::{Pipeline, Setup};
use serde_json::{Value, json};

use crate::{PROGRAM, finding};

/// All orders of `items`.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

fn pushed(repository: &str, descriptor: &Value, tag: &str) -> (&'static str, Value) {
    let event = json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": {"result": "SUCCESS",
        "action-type": "PUSH", "repository-name": repository, "image-digest": descriptor["digest"], "image-tag": tag}});
    ("OnPushFunction", event)
}

fn scanned(repository: &str, descriptor: &Value) -> (&'static str, Value) {
    let event = json!({"source": "aws.ecr", "detail-type": "ECR Image Scan", "time": pipeline_tests::now(), "detail": {
        "scan-status": "COMPLETE", "repository-name": repository, "image-digest": descriptor["digest"],
        "image-tags": []}});
    ("OnScanFunction", event)
}

/// An index of two images: the events of its children's pushes and scans and of its own push, in every order, some
/// twice. The queues are left alone, so that nothing but these events brings anything about.
#[tokio::test]
async fn children_indexes_and_scans_end_the_same_in_every_order() {
    let setup = Setup {
        parameters: [("ReleaseGate".to_owned(), "scan".to_owned())].into(),
        without: vec![],
        unpolled: true,
        ..Setup::default()
    };
    let pipeline = Pipeline::with(PROGRAM, setup).await;
    let pusher = Pusher::new(&pipeline).await;
    for (at, order) in orders(&[0, 1, 2, 3]).into_iter().enumerate() {
        let is_good = at % 2 == 0;
        let repository = format!("team/app-{at}");
        pipeline.adopt(&repository);
        let seed = u32::try_from(at).unwrap() * 10;
        let amd = pusher.image(&repository, None, seed, &json!({})).await;
        let arm = pusher.image(&repository, None, seed + 1, &json!({})).await;
        let index = pusher.index(&repository, "1.0.0", &[on(&amd, "amd64"), on(&arm, "arm64")]).await;
        let found = if is_good { json!([]) } else { json!([finding("CVE-2026-0001", "CRITICAL")]) };
        pipeline.findings(
            &json!([{"repository": repository, "image": arm["digest"], "findings": found}, {"repository": "*"}]),
        );
        let events = [
            pushed(&repository, &amd, ""),
            scanned(&repository, &amd),
            scanned(&repository, &arm),
            pushed(&repository, &index, "1.0.0"),
        ];
        for event in &order {
            let (function, event) = &events[*event];
            // Each twice: duplicates are as usual as any order.
            for _ in 0..2 {
                pipeline.stack.invoke(function, event).await.unwrap();
            }
        }
        let wanted = if is_good { "Image Released 1.0.0" } else { "Image Held 1.0.0" };
        assert_eq!(pipeline.told_of(&repository), [wanted], "order {order:?}");
        let floats = pipeline.tagged(&repository).get("latest").is_some_and(|latest| *latest == index["digest"]);
        assert_eq!(floats, is_good, "order {order:?}");
    }
}

/// A policy that is new has judged one child and not the other: the index waits for both.
#[tokio::test]
async fn an_index_is_released_by_one_policy() {
    let setup = Setup {
        parameters: [("ReleaseGate".to_owned(), "scan".to_owned())].into(),
        unpolled: true,
        ..Setup::default()
    };
    let pipeline = Pipeline::with(PROGRAM, setup).await;
    pipeline.findings(&json!([{"repository": "*"}]));
    pipeline.adopt("team/app");
    let pusher = Pusher::new(&pipeline).await;
    let amd = pusher.image("team/app", None, 1, &json!({})).await;
    let arm = pusher.image("team/app", None, 2, &json!({})).await;
    let index = pusher.index("team/app", "1.0.0", &[on(&amd, "amd64"), on(&arm, "arm64")]).await;
    let arm_scanned = scanned("team/app", &arm);
    for (function, event) in [scanned("team/app", &amd), arm_scanned.clone()] {
        pipeline.stack.invoke(function, &event).await.unwrap();
    }
    let digest = arm["digest"].as_str().unwrap();
    let mut record = pipeline.record("team/app", digest).await.unwrap();
    record["verdict"]["policy"] = json!("older");
    record["verdict"]["policy_read_at"] = json!("2026-01-01T00:00:00Z");
    pipeline.put_state(&format!("images/team/app/{digest}.json"), &record.to_string()).await;
    let (function, event) = pushed("team/app", &index, "1.0.0");
    pipeline.stack.invoke(function, &event).await.unwrap();
    assert!(pipeline.told().is_empty(), "{:?}", pipeline.told());
    pipeline.stack.invoke(arm_scanned.0, &arm_scanned.1).await.unwrap();
    assert_eq!(pipeline.told_of("team/app"), ["Image Released 1.0.0"]);
}

/// A look that began earlier and ends later does not overwrite the receipt.
#[tokio::test]
async fn a_receipt_keeps_what_was_found_out_last() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let (_, mut receipt) = crate::upload(&pipeline, "team/app/1.0.0.tar", &crate::tarball(1), &[]).await;
    let digest = receipt["import"]["images"][0]["digest"].clone();
    let reaction = &mut receipt["reaction"][format!("team/app@{}", digest.as_str().unwrap())];
    reaction["verification"]["at"] = json!("2099-01-01T00:00:00Z");
    reaction["release"] = json!({"state": "held", "held": {"kind": "verification", "text": "t", "fix": "f"}});
    receipt["state"] = json!("held");
    let body = receipt.to_string().into_bytes();
    let put = pipeline.s3.put_object().bucket("uploads").key("team/app/1.0.0.tar.receipt.json").body(body.into());
    put.send().await.unwrap();
    pipeline.stack.put_event(pushed("team/app", &json!({"digest": digest}), "1.0.0").1);
    pipeline.quiet().await;
    assert_eq!(pipeline.receipt("team/app/1.0.0.tar").await.unwrap()["state"], "held");
}

/// Every push event is lost, and every scan event too: reconcile finds what import recorded.
#[tokio::test]
async fn what_no_event_brought_reconcile_brings() {
    let setup = Setup {
        parameters: [("ReleaseGate".to_owned(), "scan".to_owned())].into(),
        without: vec!["OnPushFunction", "OnScanFunction"],
        ..Setup::default()
    };
    let pipeline = Pipeline::with(PROGRAM, setup).await;
    pipeline.findings(&json!([{"repository": "*"}]));
    pipeline.put("team/app/1.0.0.tar", &crate::tarball(1)).await;
    pipeline.stack.queues().drained("import-queue").await.unwrap();
    for queue in ["push-queue", "scan-queue"] {
        pipeline.stack.queues().purge(queue).unwrap();
    }
    assert_eq!(pipeline.receipt("team/app/1.0.0.tar").await.unwrap()["state"], "imported");
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    assert!(pipeline.told_of("team/app").contains(&"Image Released 1.0.0".to_owned()));
}

/// A process that claimed a fact and died: the next look after the claim grew stale tells it.
#[tokio::test]
async fn a_fact_that_was_claimed_and_never_told_is_told_after_all() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let fault = pipeline.faults.add(emulator::faults::Fault {
        operation: "sns:Publish".to_owned(),
        resource: None,
        // Import's own is the first.
        skip: 1,
        times: 1,
        action: emulator::faults::Action::Status(403, String::new()),
    });
    let uploaded = pipeline.put("team/app/1.0.0.tar", &crate::tarball(1)).await;
    pipeline.quiet().await;
    assert_eq!(pipeline.faults.fired(fault), 1);
    // Denied once: given back, and told by the next delivery.
    let released =
        || pipeline.told_of("team/app").into_iter().filter(|told| told.starts_with("Image Released")).count();
    assert_eq!(released(), 1, "{:?}", pipeline.told_of("team/app"));
    assert_eq!(pipeline.tags(&uploaded).await["gantry"], "released");
}
