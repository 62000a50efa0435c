//! Messages that no delivery could finish: their uploads' receipts say *failed*, whoever could not write so.

use emulator::faults::{Action, Fault};
use pipeline_tests::Pipeline;
use serde_json::json;

use crate::{
    FAILED, PROGRAM, QUEUE, age_receipt, hours_later, messages, put_receipt, reconcile, tarball, told_of_failures,
    without_import,
};

const KEY: &str = "team/app/1.0.0.tar";

/// Import may write no receipt, so that none of ten deliveries can say why.
async fn without_receipts() -> Pipeline {
    let pipeline = Pipeline::start(PROGRAM).await;
    let denied = Action::Status(403, "<Error><Code>AccessDenied</Code></Error>".to_owned());
    let fault = Fault {
        operation: "s3:PutObject".to_owned(),
        resource: Some(".receipt.json".to_owned()),
        skip: 0,
        times: usize::MAX,
        action: denied,
    };
    let fault = pipeline.faults.add(fault);
    pipeline.put(KEY, &tarball(1)).await;
    pipeline.stack.queues().drained(QUEUE).await.unwrap();
    assert!(pipeline.faults.fired(fault) >= 10);
    assert_eq!((messages(&pipeline, FAILED), pipeline.receipt(KEY).await), (1, None));
    pipeline
}

#[tokio::test]
async fn an_upload_in_the_failed_queue_has_a_receipt_that_says_so() {
    let pipeline = without_receipts().await;
    let pipeline = hours_later(pipeline, vec![]).await;
    // The receipt cannot be written yet: the message is in the failed queue all the same, and no second one is sent.
    let denied = Action::Status(403, "<Error><Code>AccessDenied</Code></Error>".to_owned());
    let resource = Some(".receipt.json".to_owned());
    let operation = "s3:PutObject".to_owned();
    let fault = pipeline.faults.add(Fault { operation, resource, skip: 0, times: 1, action: denied });
    let said = reconcile(&pipeline).await;
    assert_eq!((&said["failed"], &said["resent"], pipeline.faults.fired(fault)), (&json!(1), &json!(0), 1), "{said}");
    assert_eq!((messages(&pipeline, FAILED), messages(&pipeline, QUEUE)), (1, 0));

    let said = reconcile(&pipeline).await;
    assert_eq!((&said["given_up"], &said["resent"]), (&json!(1), &json!(0)), "{said}");
    let receipt = pipeline.receipt(KEY).await.unwrap();
    assert_eq!((&receipt["state"], &receipt["import"]["reason"]["kind"]), (&json!("failed"), &json!("lost")));
    let next = receipt["next"].as_str().unwrap();
    assert!(next.contains("aws sqs start-message-move-task --source-arn arn:aws:sqs:"), "{next}");
    assert_eq!((messages(&pipeline, FAILED), messages(&pipeline, QUEUE), told_of_failures(&pipeline)), (1, 0, 1));
    let counts = pipeline.stack.queues().counts(FAILED).unwrap();
    assert_eq!((counts.visible, counts.in_flight), (1, 0), "it was given back");
    assert_eq!(reconcile(&pipeline).await["given_up"], 0);
    assert_eq!(told_of_failures(&pipeline), 1);

    // What the receipt says to do.
    pipeline.stack.queues().redrive(FAILED, None).unwrap();
    pipeline.quiet().await;
    assert_eq!(pipeline.receipt(KEY).await.unwrap()["state"], "released");
}

/// It was sent round again by hand and is released; its first message is still among the failed ones.
#[tokio::test]
async fn a_message_whose_upload_was_decided_since_leaves_the_failed_queue() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let uploaded = pipeline.put(KEY, &tarball(1)).await;
    pipeline.quiet().await;
    let event = json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {
        "bucket": {"name": "uploads"}, "object": {"key": KEY, "version-id": uploaded.version_id}}});
    let other = json!({"source": "aws.ecr", "detail-type": "ECR Image Action"});
    for event in [&event, &other] {
        pipeline.stack.queues().send(FAILED, &event.to_string(), emulator::sqs::Extras::default()).unwrap();
    }
    let said = reconcile(&pipeline).await;
    assert_eq!((&said["given_up"], &said["failed"]), (&json!(0), &json!(0)), "{said}");
    assert_eq!(messages(&pipeline, FAILED), 1, "that of a push stays");
    assert_eq!(pipeline.receipt(KEY).await.unwrap()["state"], "released");
}

/// A version that no delivery could finish, and a newer one that came since.
#[tokio::test]
async fn a_version_that_was_overtaken_is_superseded() {
    let pipeline = without_receipts().await;
    let old = pipeline.s3.head_object().bucket("uploads").key(KEY).send().await.unwrap();
    let old = pipeline_tests::Uploaded { key: KEY.to_owned(), version_id: old.version_id().unwrap().to_owned() };
    let pipeline = hours_later(pipeline, vec![]).await;
    pipeline.import(KEY, &tarball(2)).await;
    pipeline.quiet().await;
    reconcile(&pipeline).await;
    assert_eq!(pipeline.tags(&old).await["gantry"], "superseded");
    assert_eq!(pipeline.receipt(KEY).await.unwrap()["state"], "released", "the newer one's receipt stays");
    assert_eq!((messages(&pipeline, FAILED), told_of_failures(&pipeline)), (0, 0));
}

/// The last delivery was killed: its receipt says importing, and the queue has moved its message.
#[tokio::test]
async fn a_last_delivery_that_was_killed_is_told_of() {
    let pipeline = without_import().await;
    let version = pipeline.put(KEY, &tarball(1)).await.version_id;
    pipeline.stack.queues().purge(QUEUE).unwrap();
    let at = pipeline_tests::now();
    let receipt = json!({
        "state": "importing", "summary": "", "next": "", "schema": 1, "stack": "gantry", "version": "0",
        "upload": {"bucket": "uploads", "key": KEY, "version_id": version, "etag": null, "sequencer": "01"},
        "import": {"outcome": "importing", "attempt": {"n": 10, "of": 10}, "started_at": at, "updated_at": at,
            "duration_ms": 0, "images": [], "reason": {"kind": "network", "text": "ECR got no answer", "fix": "wait",
            "upload_again_helps": true}},
    });
    put_receipt(&pipeline, KEY, &receipt).await;
    let event = json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {
        "bucket": {"name": "uploads"}, "object": {"key": KEY, "version-id": version}}});
    pipeline.stack.queues().send(FAILED, &event.to_string(), emulator::sqs::Extras::default()).unwrap();
    assert_eq!(reconcile(&pipeline).await["given_up"], 0, "somebody may have sent it round again");
    age_receipt(&pipeline, KEY, 2).await;
    assert_eq!(reconcile(&pipeline).await["given_up"], 1);
    let receipt = pipeline.receipt(KEY).await.unwrap();
    assert_eq!((&receipt["state"], &receipt["import"]["reason"]["kind"]), (&json!("failed"), &json!("network")));
    assert!(receipt["summary"].as_str().unwrap().contains("one of them said: ECR got no answer"), "{receipt:#}");
    assert_eq!((messages(&pipeline, FAILED), messages(&pipeline, QUEUE), told_of_failures(&pipeline)), (1, 0, 1));
}

/// The function died between the receipt and the message to people.
#[tokio::test]
async fn a_failure_that_nobody_was_told_of_is_told() {
    let pipeline = Pipeline::start(PROGRAM).await;
    pipeline.import(KEY, b"no archive").await;
    pipeline.quiet().await;
    assert_eq!(told_of_failures(&pipeline), 1);
    let mut receipt = pipeline.receipt(KEY).await.unwrap();
    receipt["import"].as_object_mut().unwrap().remove("told");
    put_receipt(&pipeline, KEY, &receipt).await;
    assert_eq!(reconcile(&pipeline).await["told"], 0, "somebody may be about to");
    age_receipt(&pipeline, KEY, 1).await;
    assert_eq!(reconcile(&pipeline).await["told"], 1);
    assert_eq!(told_of_failures(&pipeline), 2);
    assert_eq!(reconcile(&pipeline).await["told"], 0);
}
