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
