use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::{
    account,
    faults::{Action, Fault},
    sqs::Ask,
};

fn options(folder: &tempfile::TempDir) -> StackOptions {
    StackOptions {
        data: folder.path().join("data"),
        template: include_str!("../../../template.yaml").to_owned(),
        ..StackOptions::default()
    }
}

async fn exchange(stack: &Stack, request: &str) -> String {
    let mut stream = TcpStream::connect(stack.registry_host()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_stack_says_who_it_is_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let stack = Stack::start(options(&folder)).await.unwrap();
    assert_eq!(stack.bucket("Uploads"), Some("uploads"));
    assert_eq!(stack.bucket("Nobody"), None);
    assert_eq!(stack.queue_url("ImportQueue").unwrap(), format!("{}/123456789012/import-queue", stack.endpoint()));

    let get = "GET /_emulator/stack HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(&stack, get).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let description: Value = serde_json::from_str(body).unwrap();
    assert_eq!(description["endpoint"], stack.endpoint());
    assert_eq!(description["functions"][0], "ImportFunction");
    assert_eq!(description["buckets"]["State"], "state");

    let second = Stack::start(options(&folder)).await.unwrap_err();
    assert_eq!(second.to_string(), format!("a stack is already running at {}", stack.endpoint()));
    // Somebody reads the log, and does not hinder the end.
    let host = stack.registry_host().to_owned();
    let mut reader = TcpStream::connect(&host).await.unwrap();
    reader.write_all(b"GET /_emulator/log HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    reader.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    timeout(Duration::from_secs(10), stack.stop()).await.unwrap();
    assert!(!folder.path().join("data/stack.json").exists());
    assert!(TcpStream::connect(&host).await.is_err());
    Stack::start(options(&folder)).await.unwrap().stop().await;
}

#[tokio::test]
async fn strangers_and_unknown_services_are_answered_as_aws_does() {
    let folder = tempfile::tempdir().unwrap();
    let stack = Stack::start(options(&folder)).await.unwrap();
    let ecr = "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories";
    let signed = "authorization: AWS4-HMAC-SHA256 Credential=AKIANOBODY/x\r\n";
    let cases = [
        (ecr, "", "400", "MissingAuthenticationTokenException"),
        (ecr, signed, "400", "UnrecognizedClientException"),
        ("AmazonSQS.ListQueues", signed, "403", "UnrecognizedClientException"),
        ("AWSEvents.PutEvents", signed, "400", "UnrecognizedClientException"),
        ("DynamoDB_20120810.GetItem", "", "400", "UnknownOperationException"),
    ];
    for (target, header, status, kind) in cases {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-amz-target: {target}\r\n{header}content-length: 2\r\n\r\n{{}}"
        );
        let answer = exchange(&stack, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {answer}");
        assert!(answer.contains(&format!(r#""__type":"{kind}""#)), "{target}: {answer}");
    }
    assert_eq!(stack.faults().requests().len(), cases.len());
    stack.stop().await;
}

/// What a client gets: status and body, or what arrived before the connection was closed.
async fn attempt(stack: &Stack, caller: &Caller) -> String {
    let key = stack.gate().key_of(caller).unwrap();
    let body = format!(r#"{{"QueueUrl":"{}"}}"#, stack.queue_url("ImportQueue").unwrap());
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-amz-target: AmazonSQS.GetQueueAttributes\r\n\
         authorization: AWS4-HMAC-SHA256 Credential={}/x\r\ncontent-length: {}\r\n\r\n{body}",
        key.id,
        body.len(),
    );
    let mut stream = TcpStream::connect(stack.registry_host()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _read = timeout(Duration::from_millis(300), stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return answer;
    };
    let marker = if head.contains("x-marker") { " marked" } else { "" };
    format!("{}{marker} {body}", &head[9..12])
}

#[tokio::test]
async fn every_fault_meets_the_functions_and_not_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let stack = Stack::start(options(&folder)).await.unwrap();
    let role = Caller::Role("ImportFunction".to_owned());
    let whole = r#"200 {"Attributes":{}}"#;
    let cases = [
        (Action::Status(503, "slow down".to_owned()), "503 slow down"),
        (Action::Reset, ""),
        (Action::Stall, ""),
        (Action::CloseAfterHandling, ""),
        (Action::ShortBody(7), "200 {\"Attri"),
        (Action::ShortBody(1000), whole),
        (Action::DropAfterRequestBytes(7), ""),
        (Action::DropAfterRequestBytes(1000), whole),
        (Action::Header("x-marker".parse().unwrap(), "1".parse().unwrap()), "200 marked {\"Attributes\":{}}"),
    ];
    for (action, want) in cases {
        let fault = stack.faults().add(Fault {
            operation: "sqs:*".to_owned(),
            resource: None,
            skip: 0,
            times: 1,
            action: action.clone(),
        });
        assert_eq!(attempt(&stack, &Caller::User).await, whole, "{action:?}");
        assert_eq!(attempt(&stack, &role).await, want, "{action:?}");
        assert_eq!(attempt(&stack, &role).await, whole, "{action:?}");
        assert_eq!(stack.faults().fired(fault), 1, "{action:?}");
    }
    timeout(Duration::from_secs(10), stack.stop()).await.unwrap();
}

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = options(&folder);
    wrong.parameters = BTreeMap::from([("Nonsense".to_owned(), "1".to_owned())]);
    let error = Stack::start(wrong).await.unwrap_err();
    assert!(matches!(error, StackError::Template(TemplateError::Parameter(_))));

    let mut wrong = options(&folder);
    let command = FunctionCommand { program: PathBuf::new(), args: Vec::new(), env: Vec::new() };
    wrong.functions = BTreeMap::from([("Nobody".to_owned(), command)]);
    let error = Stack::start(wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "the template has no function Nobody");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut wrong = options(&folder);
    wrong.port = taken.local_addr().unwrap().port();
    let error = Stack::start(wrong).await.unwrap_err();
    assert!(matches!(error, StackError::Port { .. }));
    Stack::start(options(&folder)).await.unwrap().stop().await;
}

/// A stack of its own small template.
async fn small(folder: &tempfile::TempDir, template: &str) -> Stack {
    let options = StackOptions { template: template.to_owned(), ..options(folder) };
    Stack::start(options).await.unwrap()
}

/// What the user gets from a JSON API: the answer's body.
async fn user(stack: &Stack, target: &str, input: &Value) -> Value {
    let key = stack.gate().key_of(&Caller::User).unwrap();
    let body = input.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-amz-target: {target}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential={}/x\r\ncontent-length: {}\r\n\r\n{body}",
        key.id,
        body.len(),
    );
    let answer = exchange(stack, &request).await;
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn what_is_put_on_the_bus_goes_through_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let stack = small(
        &folder,
        "
Resources:
  Jobs: { Type: AWS::SQS::Queue }
  Policy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Jobs]
      PolicyDocument: { Statement: [{ Effect: Allow, Principal: { Service: events.amazonaws.com }, Action: sqs:SendMessage, Resource: '*' }] }
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern: { source: [gantry], detail: { state: [released] } }
      Targets: [{ Id: jobs, Arn: !GetAtt Jobs.Arn }]
",
    )
    .await;
    let entry =
        |state: &str| json!({ "Source": "gantry", "DetailType": "d", "Detail": json!({ "state": state }).to_string() });
    let input = json!({ "Entries": [entry("held"), entry("released")] });
    let output = user(&stack, "AWSEvents.PutEvents", &input).await;
    let received = stack.queues().receive("jobs", Ask { most: 10, visibility: None, wait: None }).await.unwrap();
    let event: Value = serde_json::from_str(&received[0].message.body).unwrap();
    assert_eq!((received.len(), &event["id"]), (1, &output["Entries"][1]["EventId"]));
    stack.stop().await;
}

#[tokio::test]
async fn what_is_published_is_kept_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let stack = small(&folder, "Resources: { Told: { Type: AWS::SNS::Topic } }").await;
    let mut log = stack.log();
    let topic = stack.topic_arn("Told").unwrap();
    let publish = |arn: &str| {
        let body = format!("Action=Publish&Version=2010-03-31&TopicArn={arn}&Subject=s&Message=m");
        format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             authorization: AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/sns/aws4_request\r\n\
             content-length: {}\r\n\r\n{body}",
            account::USER_ACCESS_KEY_ID,
            body.len(),
        )
    };
    assert!(exchange(&stack, &publish(topic)).await.starts_with("HTTP/1.1 200"));
    let refused = exchange(&stack, &publish("arn:aws:sns:us-east-1:123456789012:other")).await;
    assert!(refused.starts_with("HTTP/1.1 404") && refused.contains("<Code>NotFound</Code>"), "{refused}");
    let other_service = publish(topic).replace("/sns/", "/sts/").replace("Action=Publish", "Action=GetCall");
    let refused = exchange(&stack, &other_service).await;
    assert!(refused.contains("<Code>InvalidAction</Code><Message>The action sts:GetCall"), "{refused}");
    assert_eq!(stack.topics().messages(topic).unwrap()[0].subject.as_deref(), Some("s"));
    assert_eq!(log.recv().await.unwrap().function, "Told");
    let operation = &stack.faults().requests()[0].operation;
    assert_eq!(operation.to_string(), format!("sns:Publish {topic}"));
    stack.stop().await;
}

#[tokio::test]
async fn scans_are_told_through_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let stack = small(
        &folder,
        "
Resources:
  Scans: { Type: AWS::SQS::Queue }
  Policy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Scans]
      PolicyDocument: { Statement: [{ Effect: Allow, Principal: { Service: events.amazonaws.com }, Action: sqs:SendMessage, Resource: '*' }] }
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern: { source: [aws.ecr, aws.inspector2], detail-type: [ECR Image Scan, Inspector2 Finding] }
      Targets: [{ Id: scans, Arn: !GetAtt Scans.Arn }]
",
    )
    .await;
    let settings = json!({ "repositoryName": "team/app", "imageScanningConfiguration": { "scanOnPush": true } });
    let ecr = |operation: &str| format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
    user(&stack, &ecr("CreateRepository"), &settings).await;
    let [config, layer] = ["config", "layer"].map(|text| crate::images::tests::blob(stack.images(), "team/app", text));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 6 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 5 }],
    });
    let findings = r#"[{"repository": "team/*", "findings": [{"name": "CVE-1", "severity": "HIGH"}, {"name": "CVE-2", "severity": "LOW"}]}]"#;
    std::fs::write(folder.path().join("data/findings.json"), findings).unwrap();
    let put = json!({ "repositoryName": "team/app", "imageManifest": manifest.to_string(), "imageTag": "1" });
    user(&stack, &ecr("PutImage"), &put).await;
    assert_eq!(stack.rescan("team/app", "1").unwrap(), 1);
    assert_eq!(stack.tell_findings("team/app", "1", FindingStatus::Active).unwrap(), 2);
    let rescan = "POST /_emulator/rescan?repository=team%2Fapp&image=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert!(exchange(&stack, rescan).await.ends_with(r#"{"events":1}"#));
    let mut kinds = Vec::new();
    while kinds.len() < 5 {
        let received = stack.queues().receive("scans", Ask { most: 10, visibility: None, wait: None }).await.unwrap();
        for one in received {
            let event: Value = serde_json::from_str(&one.message.body).unwrap();
            kinds.push(event["detail-type"].as_str().unwrap().to_owned());
        }
    }
    let want = ["ECR Image Scan", "ECR Image Scan", "Inspector2 Finding", "Inspector2 Finding", "ECR Image Scan"];
    assert_eq!(kinds, want);
    let describe = json!({ "repositoryName": "team/app", "imageId": { "imageTag": "1" } });
    let told = user(&stack, &ecr("DescribeImageScanFindings"), &describe).await;
    assert_eq!(told["imageScanFindings"]["findingSeverityCounts"], json!({ "HIGH": 1, "LOW": 1 }));
    stack.stop().await;
}
