//! What the network, AWS and the operator do wrong: the import goes on, or says whose fault it was.

use emulator::faults::{Action, Fault};
use local::samples::{Image, docker_archive, layer};
use pipeline_tests::look::{check_image, digest};
use pipeline_tests::{Pipeline, Setup};

use crate::PROGRAM;

fn image() -> Image {
    Image::new("amd64", vec![layer("base", 1, 1_500_000), layer("app", 2, 300_000)])
}

fn fault(operation: &str, skip: usize, times: usize, action: Action) -> Fault {
    Fault { operation: operation.to_owned(), resource: None, skip, times, action }
}

#[tokio::test]
async fn faults_on_the_way_do_not_change_the_image() {
    let expired = r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#;
    let elsewhere = Action::Header("location".parse().unwrap(), "http://192.0.2.1/steal".parse().unwrap());
    for (what, fault) in [
        ("a body that ends early", fault("s3:GetObject", 4, 2, Action::ShortBody(1_000))),
        ("a read that is dropped", fault("s3:GetObject", 3, 1, Action::Reset)),
        ("S3 is busy", fault("s3:GetObject", 2, 1, Action::Status(503, String::new()))),
        ("an existence check fails", fault("registry:HeadBlob", 0, 2, Action::Status(500, String::new()))),
        ("a session does not start", fault("registry:StartUpload", 0, 1, Action::Reset)),
        ("a session leads elsewhere", fault("registry:StartUpload", 0, 1, elsewhere)),
        ("a body is cut", fault("registry:PatchUpload", 0, 1, Action::DropAfterRequestBytes(20_000))),
        ("a body is refused", fault("registry:PatchUpload", 0, 1, Action::Status(500, String::new()))),
        ("the closing PUT's answer is lost", fault("registry:PutUpload", 0, 1, Action::CloseAfterHandling)),
        ("a commit is refused", fault("registry:PutUpload", 1, 1, Action::Status(500, String::new()))),
        ("an expired token", fault("registry:*", 2, 1, Action::Status(403, expired.to_owned()))),
        ("throttled manifests", fault("registry:PutManifest", 0, 2, Action::Status(429, String::new()))),
        ("a manifest's answer is lost", fault("registry:PutManifest", 1, 1, Action::CloseAfterHandling)),
        ("the repository call fails", fault("ecr:CreateRepository", 0, 1, Action::Status(500, String::new()))),
    ] {
        let pipeline = Pipeline::start(PROGRAM).await;
        let id = pipeline.faults.add(fault);
        let receipt = pipeline.import("team/app/1.tar", &docker_archive(&[(&image(), &[])])).await;
        assert!(pipeline.faults.fired(id) > 0, "{what}: the fault never fired");
        assert_eq!(receipt["state"], "released", "{what}: {receipt:#}");
        assert_eq!(check_image(pipeline.stack.images(), "team/app", "1"), digest(&image().config()), "{what}");
        assert_eq!(pipeline.tagged("team/app").len(), 1, "{what}");
    }
}

/// The operator's fault: said so, retried, and then in the failed queue.
#[tokio::test]
async fn a_denied_action_is_named_retried_and_ends_in_the_failed_queue() {
    for (line, action) in [
        ("                - ecr:UploadLayerPart\n", "ecr:UploadLayerPart"),
        ("                - ecr:CreateRepository\n", "ecr:CreateRepository"),
        ("                - ecr:PutImage\n", "ecr:PutImage"),
    ] {
        let edits = vec![
            (line.to_owned(), String::new()),
            (r#"MaxReceives: "10""#.to_owned(), r#"MaxReceives: "3""#.to_owned()),
        ];
        let pipeline = Pipeline::with(PROGRAM, Setup { edits, ..Setup::default() }).await;
        let mut log = pipeline.stack.log();
        let uploaded = pipeline.put("team/app/1.tar", &docker_archive(&[(&image(), &[])])).await;
        let receipt = pipeline.decided(&mut log, &uploaded).await;
        assert_eq!(receipt["state"], "failed", "{action}: {receipt:#}");
        assert_eq!(receipt["import"]["attempt"]["n"], 3, "{action}: {receipt:#}");
        assert_eq!(receipt["import"]["reason"]["kind"], "operator");
        let next = receipt["next"].as_str().unwrap();
        assert!(next.contains(&format!("not the upload's fault: allow {action} on")), "{action}: {next}");
        let again = "aws sqs start-message-move-task --source-arn arn:aws:sqs:us-east-1:123456789012:failed-messages";
        assert!(next.ends_with(again), "{action}: {next}");
        assert_eq!(pipeline.tags(&uploaded).await["gantry"], "failed");
        assert!(pipeline.tagged("team/app").is_empty());
        pipeline.stack.queues().drained("import-queue").await.unwrap();
        assert_eq!(pipeline.stack.queues().messages("failed-messages").unwrap().len(), 1, "{action}");
    }
}

#[tokio::test]
async fn a_receipt_that_is_denied_names_the_action_in_the_log_and_the_message_comes_back() {
    let edits = vec![
        ("              Action: s3:PutObject\n".to_owned(), "              Action: s3:PutObjectAcl\n".to_owned()),
        (r#"MaxReceives: "10""#.to_owned(), r#"MaxReceives: "2""#.to_owned()),
    ];
    let pipeline = Pipeline::with(PROGRAM, Setup { edits, ..Setup::default() }).await;
    let mut log = pipeline.stack.log();
    pipeline.put("team/app/1.tar", &docker_archive(&[(&image(), &[])])).await;
    let line = loop {
        let line = log.recv().await.unwrap().text;
        if line.contains("the receipt could not be written") {
            break line;
        }
    };
    assert!(line.contains("s3:PutObject on s3://uploads/team/app/1.tar.receipt.json was denied"), "{line}");
    pipeline.stack.queues().drained("import-queue").await.unwrap();
    assert_eq!(pipeline.stack.queues().messages("failed-messages").unwrap().len(), 1);
    assert!(pipeline.tagged("team/app").is_empty());
}

#[tokio::test]
async fn uploads_at_once_do_no_harm_to_one_another() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let body = docker_archive(&[(&image(), &[])]);
    let mut log = pipeline.stack.log();
    let mut uploads = Vec::new();
    for at in 0..12 {
        uploads.push(pipeline.put(&format!("team/app-{}/{at}.tar", at % 3), &body).await);
    }
    for upload in &uploads {
        let receipt = pipeline.decided(&mut log, upload).await;
        assert_eq!(receipt["state"], "released", "{receipt:#}");
    }
    for at in 0..12 {
        check_image(pipeline.stack.images(), &format!("team/app-{}", at % 3), &at.to_string());
    }
}
