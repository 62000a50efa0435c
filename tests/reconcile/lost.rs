//! Uploads whose event never came, or whose message is nowhere.

use emulator::sqs::Ask;
use serde_json::{Value, json};

use crate::{
    FAILED, QUEUE, age_receipt, hours_later, messages, put_receipt, reconcile, tarball, told_of_failures,
    without_import,
};

const KEY: &str = "team/app/1.0.0.tar";

#[tokio::test]
async fn an_upload_whose_event_was_dropped_is_imported_all_the_same() {
    let pipeline = without_import().await;
    let uploaded = pipeline.put(KEY, &tarball(1)).await;
    pipeline.put("team/folder/", b"").await;
    pipeline.stack.queues().purge(QUEUE).unwrap();
    let said = reconcile(&pipeline).await;
    assert_eq!((messages(&pipeline, QUEUE), &said["resent"]), (0, &json!(0)), "its event may yet come");

    let pipeline = hours_later(pipeline, vec![]).await;
    let said = reconcile(&pipeline).await;
    assert_eq!((&said["uploads"], &said["silent"], &said["resent"]), (&json!(1), &json!(1), &json!(1)), "{said}");
    pipeline.quiet().await;
    let receipt = pipeline.receipt(KEY).await.unwrap();
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    assert_eq!(receipt["import"]["resent"]["times"], 1, "{receipt:#}");
    assert_eq!(receipt["upload"]["version_id"], uploaded.version_id);
    let said = reconcile(&pipeline).await;
    assert_eq!((&said["silent"], &said["resent"]), (&json!(0), &json!(0)), "{said}");
}

/// The older version is released, and its receipt lies beside the key.
#[tokio::test]
async fn a_newer_version_whose_event_was_dropped_is_imported_all_the_same() {
    let pipeline = pipeline_tests::Pipeline::start(crate::PROGRAM).await;
    pipeline.put(KEY, b"no archive").await;
    pipeline.quiet().await;
    assert_eq!(pipeline.receipt(KEY).await.unwrap()["state"], "failed");
    let pipeline = hours_later(pipeline, vec!["ImportFunction"]).await;
    let newer = pipeline.put(KEY, &tarball(1)).await;
    pipeline.stack.queues().purge(QUEUE).unwrap();
    let pipeline = hours_later(pipeline, vec![]).await;
    assert_eq!(reconcile(&pipeline).await["resent"], 1);
    pipeline.quiet().await;
    let receipt = pipeline.receipt(KEY).await.unwrap();
    assert_eq!((&receipt["state"], &receipt["upload"]["version_id"]), (&json!("released"), &json!(newer.version_id)));
}

#[tokio::test]
async fn an_upload_is_sent_round_three_times_and_then_it_failed() {
    let pipeline = without_import().await;
    pipeline.put(KEY, &tarball(1)).await;
    pipeline.stack.queues().purge(QUEUE).unwrap();
    let pipeline = hours_later(pipeline, vec!["ImportFunction"]).await;
    for times in 1..=3 {
        assert_eq!(reconcile(&pipeline).await["resent"], 1, "time {times}");
        let receipt = pipeline.receipt(KEY).await.unwrap();
        assert_eq!((&receipt["state"], &receipt["import"]["resent"]["times"]), (&json!("importing"), &json!(times)));
        let summary = receipt["summary"].as_str().unwrap();
        assert!(summary.contains(&format!("sent round again, time {times} of 3")), "{summary}");
        assert_eq!(reconcile(&pipeline).await["resent"], 0, "it has just been sent");
        age_receipt(&pipeline, KEY, 2).await;
        assert_eq!(reconcile(&pipeline).await["silent"], 0, "its message waits in the queue");
        assert_eq!(messages(&pipeline, QUEUE), 1);
        pipeline.stack.queues().purge(QUEUE).unwrap();
    }
    assert_eq!(reconcile(&pipeline).await["given_up"], 1);
    let receipt = pipeline.receipt(KEY).await.unwrap();
    assert_eq!((&receipt["state"], &receipt["import"]["reason"]["kind"]), (&json!("failed"), &json!("lost")));
    let next = receipt["next"].as_str().unwrap();
    assert!(next.starts_with("not the upload's fault") && next.ends_with(&format!("gantry retry s3://uploads/{KEY}")));
    assert_eq!((messages(&pipeline, QUEUE), told_of_failures(&pipeline)), (0, 1));
    assert_eq!(reconcile(&pipeline).await["given_up"], 0);
    assert_eq!(told_of_failures(&pipeline), 1);
}

/// Somebody works on a message and has written no receipt yet: whose it is cannot be known.
#[tokio::test]
async fn nothing_is_sent_again_whose_message_may_be_in_flight() {
    let pipeline = without_import().await;
    pipeline.put(KEY, &tarball(1)).await;
    let pipeline = hours_later(pipeline, vec!["ImportFunction"]).await;
    let ask = Ask { most: 1, visibility: None, wait: Some(std::time::Duration::ZERO) };
    let received = pipeline.stack.queues().receive(QUEUE, ask).await.unwrap();
    assert_eq!(reconcile(&pipeline).await["resent"], 0);
    assert_eq!(messages(&pipeline, QUEUE), 1);

    // Another upload's receipt says that the message is its own.
    let other = "team/other/1.0.0.tar";
    let other_version = pipeline.put(other, &tarball(2)).await.version_id;
    // Its own message is gone; the one that is in flight stays.
    let waiting = pipeline.stack.queues().receive(QUEUE, ask).await.unwrap();
    pipeline.stack.queues().delete(QUEUE, &waiting[0].receipt).unwrap();
    put_receipt(&pipeline, other, &importing(other, &other_version)).await;
    assert_eq!(reconcile(&pipeline).await["resent"], 1);
    assert_eq!(pipeline.receipt(KEY).await.unwrap()["import"]["resent"]["times"], 1);
    let receipt = pipeline.receipt(other).await.unwrap();
    assert_eq!(receipt["import"].get("resent"), None, "a delivery is at it: {receipt:#}");
    drop(received);
}

/// The first delivery died, and its message was lost; the receipt says importing for ever.
#[tokio::test]
async fn a_delivery_that_went_silent_is_taken_up_again() {
    let pipeline = without_import().await;
    let version = pipeline.put(KEY, &tarball(1)).await.version_id;
    pipeline.stack.queues().purge(QUEUE).unwrap();
    put_receipt(&pipeline, KEY, &importing(KEY, &version)).await;
    let pipeline = hours_later(pipeline, vec![]).await;
    assert_eq!(reconcile(&pipeline).await["resent"], 0, "ninety minutes are not over");
    age_receipt(&pipeline, KEY, 2).await;
    assert_eq!(reconcile(&pipeline).await["resent"], 1);
    pipeline.quiet().await;
    assert_eq!(pipeline.receipt(KEY).await.unwrap()["state"], "released");
}

/// A receipt as import writes it when a delivery begins.
fn importing(key: &str, version: &str) -> Value {
    let at = pipeline_tests::now();
    json!({
        "state": "importing", "summary": "", "next": "", "schema": 1, "stack": "gantry", "version": "0",
        "upload": {"bucket": "uploads", "key": key, "version_id": version, "etag": null, "sequencer": "01"},
        "import": {"outcome": "importing", "attempt": {"n": 1, "of": 10}, "started_at": at, "updated_at": at,
            "duration_ms": 0, "images": []},
    })
}

#[tokio::test]
async fn a_run_goes_on_where_the_last_one_stopped() {
    let pipeline = without_import().await;
    for key in ["team/a/1.tar", "team/b/1.tar"] {
        pipeline.put(key, &tarball(1)).await;
    }
    pipeline.stack.queues().purge(QUEUE).unwrap();
    let pipeline = hours_later(pipeline, vec!["ImportFunction"]).await;
    pipeline.put_state("uploads.json", r#"{"after": "team/a/1.tar"}"#).await;
    let said = reconcile(&pipeline).await;
    assert_eq!((&said["uploads"], &said["resent"], &said["complete"]), (&json!(1), &json!(1), &json!(true)), "{said}");
    assert_eq!(pipeline.receipt("team/a/1.tar").await, None);
    pipeline.stack.queues().purge(QUEUE).unwrap();
    let said = reconcile(&pipeline).await;
    assert_eq!((&said["uploads"], &said["resent"]), (&json!(2), &json!(1)), "{said}");
    assert_eq!(pipeline.receipt("team/a/1.tar").await.unwrap()["state"], "importing");
}

#[tokio::test]
async fn what_was_found_is_a_metric() {
    let pipeline = without_import().await;
    pipeline.put(KEY, &tarball(1)).await;
    pipeline.stack.queues().purge(QUEUE).unwrap();
    let pipeline = hours_later(pipeline, vec!["ImportFunction"]).await;
    let mut log = pipeline.stack.log();
    reconcile(&pipeline).await;
    let metric: Value = loop {
        let line = log.recv().await.unwrap();
        if line.text.contains("UploadsSilent") {
            break serde_json::from_str(&line.text).unwrap();
        }
    };
    for (name, count) in
        [("UploadsLooked", 1), ("UploadsSilent", 1), ("UploadsResent", 1), ("UploadsGivenUp", 0), ("UploadsFailed", 0)]
    {
        assert_eq!(metric[name], count, "{metric}");
        let named = metric.pointer("/_aws/CloudWatchMetrics/0/Metrics").unwrap().to_string();
        assert!(named.contains(name), "{named}");
    }
    assert_eq!(messages(&pipeline, FAILED), 0);
}

/// A queue that takes nothing costs no upload one of its three times.
#[tokio::test]
async fn what_could_not_be_sent_is_not_counted() {
    let pipeline = without_import().await;
    pipeline.put(KEY, &tarball(1)).await;
    pipeline.stack.queues().purge(QUEUE).unwrap();
    let pipeline = hours_later(pipeline, vec!["ImportFunction"]).await;
    let denied = emulator::faults::Action::Status(403, r#"{"__type":"AccessDenied","message":"no"}"#.to_owned());
    let fault = pipeline.faults.add(emulator::faults::Fault {
        operation: "sqs:SendMessage".to_owned(),
        resource: None,
        skip: 0,
        times: 1,
        action: denied,
    });
    let said = reconcile(&pipeline).await;
    assert_eq!((&said["resent"], &said["failed"], pipeline.faults.fired(fault)), (&json!(0), &json!(1), 1), "{said}");
    let receipt = pipeline.receipt(KEY).await.unwrap();
    assert_eq!(receipt["import"].get("resent"), None, "{receipt:#}");
    age_receipt(&pipeline, KEY, 2).await;
    assert_eq!(reconcile(&pipeline).await["resent"], 1);
    assert_eq!(pipeline.receipt(KEY).await.unwrap()["import"]["resent"]["times"], 1);
}
