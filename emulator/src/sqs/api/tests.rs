use tempfile::TempDir;

use super::*;
use crate::{
    iam::{Role, Statement},
    sqs::Waits,
    template,
    wire::Body,
};

const URL: &str = "http://127.0.0.1:1/123456789012/jobs";

fn sqs(folder: &TempDir) -> Sqs {
    let queue = |name: &str, dead: Option<&str>| template::Queue {
        name: name.to_owned(),
        arn: account::arn("sqs", name),
        url: format!("http://127.0.0.1:1/123456789012/{name}"),
        visibility: Duration::from_secs(30),
        delay: Duration::ZERO,
        redrive: dead.map(|dead| template::Redrive { dead_letter_arn: account::arn("sqs", dead), max_receives: 1 }),
        policy: Vec::new(),
    };
    let queues = [queue("jobs", Some("dead")), queue("dead", None)];
    let queues = Queues::open(folder.path().to_owned(), queues, Waits::Real).unwrap();
    let statement =
        json!({ "Effect": "Allow", "Action": "sqs:ChangeMessageVisibility", "Resource": account::arn("sqs", "jobs") });
    let role = Role {
        function: "Import".to_owned(),
        session: "gantry-Import".to_owned(),
        statements: vec![Statement::parse(&statement).unwrap()],
    };
    Sqs::new(Arc::new(queues), Arc::new(Gate::new(vec![role])))
}

async fn call(sqs: &Sqs, caller: &Caller, operation: &str, input: &Value) -> (u16, Value, String) {
    let request = http::Request::post("/")
        .header("x-amz-target", format!("{TARGET}{operation}"))
        .body(full(input.to_string()) as Body)
        .unwrap();
    let response = sqs.handle(caller.clone(), request).await.unwrap();
    let status = response.status().as_u16();
    let code = response
        .headers()
        .get("x-amzn-query-error")
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap(), code)
}

async fn user(sqs: &Sqs, operation: &str, input: Value) -> Value {
    let (status, output, _) = call(sqs, &Caller::User, operation, &input).await;
    assert_eq!(status, 200, "{operation}: {output}");
    output
}

#[tokio::test]
async fn a_message_goes_round() {
    let folder = tempfile::tempdir().unwrap();
    let sqs = sqs(&folder);
    let sent = user(&sqs, "SendMessage", json!({ "QueueUrl": URL, "MessageBody": "hello" })).await;
    assert_eq!(sent["MD5OfMessageBody"], "5d41402abc4b2a76b9719d911017c592");
    let received = user(&sqs, "ReceiveMessage", json!({ "QueueUrl": URL, "AttributeNames": ["All"] })).await;
    let message = &received["Messages"][0];
    assert_eq!(message["MessageId"], sent["MessageId"]);
    assert_eq!(message["Attributes"]["ApproximateReceiveCount"], "1");
    let receipt = &message["ReceiptHandle"];
    let none = user(&sqs, "ReceiveMessage", json!({ "QueueUrl": URL })).await;
    assert_eq!(none, json!({}));
    let attributes = user(
        &sqs,
        "GetQueueAttributes",
        json!({ "QueueUrl": URL, "AttributeNames": ["ApproximateNumberOfMessagesNotVisible"] }),
    )
    .await;
    assert_eq!(attributes, json!({ "Attributes": { "ApproximateNumberOfMessagesNotVisible": "1" } }));
    user(&sqs, "ChangeMessageVisibility", json!({ "QueueUrl": URL, "ReceiptHandle": receipt, "VisibilityTimeout": 0 }))
        .await;
    // The second receive is one too many, so the message is in the dead-letter queue.
    let none = user(&sqs, "ReceiveMessage", json!({ "QueueUrl": URL })).await;
    assert_eq!(none, json!({}));
    assert_eq!(sqs.queues.messages("dead").unwrap().len(), 1);
    user(&sqs, "StartMessageMoveTask", json!({ "SourceArn": account::arn("sqs", "dead") })).await;
    let again = user(&sqs, "ReceiveMessage", json!({ "QueueUrl": URL })).await;
    let receipt = &again["Messages"][0]["ReceiptHandle"];
    let batch = user(
        &sqs,
        "DeleteMessageBatch",
        json!({ "QueueUrl": URL, "Entries": [{ "Id": "a", "ReceiptHandle": receipt }, { "Id": "b", "ReceiptHandle": "x" }] }),
    )
    .await;
    assert_eq!(batch["Successful"], json!([{ "Id": "a" }]));
    assert_eq!(batch["Failed"][0]["Code"], "ReceiptHandleIsInvalid");
    assert!(sqs.queues.messages("jobs").unwrap().is_empty());
}

#[tokio::test]
async fn refusals_have_sqss_names() {
    let folder = tempfile::tempdir().unwrap();
    let sqs = sqs(&folder);
    let role = Caller::Role("Import".to_owned());
    let missing = "http://127.0.0.1:1/123456789012/missing";
    let cases = [
        (
            &Caller::User,
            "SendMessage",
            json!({ "QueueUrl": missing, "MessageBody": "x" }),
            400,
            "AWS.SimpleQueueService.NonExistentQueue;Sender",
        ),
        (
            &Caller::User,
            "SendMessage",
            json!({ "QueueUrl": URL, "MessageBody": "x".repeat(MAX_MESSAGE_BYTES + 1) }),
            400,
            "InvalidParameterValue;Sender",
        ),
        (&Caller::User, "SendMessage", json!({ "QueueUrl": URL }), 400, "MissingParameter;Sender"),
        (
            &Caller::User,
            "ReceiveMessage",
            json!({ "QueueUrl": URL, "MaxNumberOfMessages": 11 }),
            400,
            "InvalidParameterValue;Sender",
        ),
        (
            &Caller::User,
            "DeleteMessage",
            json!({ "QueueUrl": URL, "ReceiptHandle": "x" }),
            400,
            "ReceiptHandleIsInvalid;Sender",
        ),
        (
            &Caller::User,
            "StartMessageMoveTask",
            json!({ "SourceArn": account::arn("sqs", "jobs") }),
            400,
            "AWS.SimpleQueueService.UnsupportedOperation;Sender",
        ),
        (&Caller::User, "CreateQueue", json!({ "QueueName": "new" }), 400, "InvalidAction;Sender"),
        (&role, "PurgeQueue", json!({ "QueueUrl": URL }), 403, "AccessDenied;Sender"),
        (
            &role,
            "ChangeMessageVisibility",
            json!({ "QueueUrl": URL, "ReceiptHandle": "x", "VisibilityTimeout": 1 }),
            400,
            "ReceiptHandleIsInvalid;Sender",
        ),
    ];
    for (caller, operation, input, status, code) in cases {
        let (got, output, header) = call(&sqs, caller, operation, &input).await;
        assert_eq!((got, header.as_str()), (status, code), "{operation}: {output}");
        assert!(output["__type"].is_string(), "{operation}");
    }
}
