//! Tokens, keys and signed addresses: nowhere in a log, a receipt, a record or a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use emulator::faults::{Action, Fault};
use emulator::host::LogLine;
use emulator::wire::Caller;
use local::samples::{docker_archive, gzipped};
use pipeline_tests::Pipeline;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use crate::{PROGRAM, image};

/// Every line so far; none may have been missed.
fn lines(log: &mut Receiver<LogLine>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match log.try_recv() {
            Ok(line) => lines.push(line.text),
            Err(end) => {
                assert_eq!(end, TryRecvError::Empty, "lines were missed");
                return lines;
            }
        }
    }
}

/// Whatever could be a secret in `text`: runs of the characters that passwords and base64 are made of.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=_-".contains(c)).filter(|word| word.len() >= 16)
}

#[tokio::test]
async fn no_secret_is_ever_written_anywhere() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let mut log = pipeline.stack.log();
    // What goes wrong is told with every cause; so much goes wrong.
    for (operation, action) in [
        ("registry:GetManifest", Action::Status(401, "Not Authorized".to_owned())),
        ("registry:PatchUpload", Action::Status(403, r#"{"errors":[{"code":"DENIED"}]}"#.to_owned())),
        ("registry:PutUpload", Action::Reset),
        ("registry:PutManifest", Action::Status(500, String::new())),
        ("registry:GetBlob", Action::Header("location".parse().unwrap(), signed().parse().unwrap())),
        ("s3:GetObject", Action::Status(403, "<Error><Code>AccessDenied</Code></Error>".to_owned())),
        ("s3:PutObject", Action::Status(503, String::new())),
        ("events:PutEvents", Action::Status(400, r#"{"__type":"AccessDeniedException"}"#.to_owned())),
        ("sns:Publish", Action::Reset),
    ] {
        pipeline.faults.add(Fault { operation: operation.to_owned(), resource: None, skip: 0, times: 1, action });
    }
    pipeline.put("team/app/1.0.0.tar", &docker_archive(&[(&image(1), &[])])).await;
    pipeline.put("team/app/1.1.0.tar", &gzipped(&docker_archive(&[(&image(2), &[])]))).await;
    pipeline.put("team/app/broken.tar", b"no archive").await;
    pipeline.quiet().await;
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    pipeline.quiet().await;

    let mut texts = lines(&mut log);
    assert!(texts.iter().any(|line| line.contains("to be delivered again")), "much went wrong");
    assert!(texts.len() > 50, "debug lines are among them: {}", texts.len());
    for key in ["team/app/1.0.0.tar", "team/app/1.1.0.tar", "team/app/broken.tar"] {
        texts.push(pipeline.receipt(key).await.unwrap().to_string());
    }
    texts.extend(pipeline.told().into_iter().map(|(_, detail)| detail.to_string()));
    let state = pipeline.s3.list_objects_v2().bucket("state").send().await.unwrap();
    for key in state.contents().iter().filter_map(|object| object.key()) {
        texts.push(String::from_utf8(pipeline.object("state", key).await.unwrap()).unwrap());
    }

    let gate = pipeline.stack.gate();
    let functions = ["ImportFunction", "OnPushFunction", "OnScanFunction", "ReconcileFunction"];
    let keys = functions.map(|function| gate.key_of(&Caller::Role(function.to_owned())).unwrap());
    let mut looked_at = 0;
    for text in &texts {
        for key in &keys {
            assert!(!text.contains(&key.secret), "a secret key: {text}");
            assert!(!text.contains(key.session_token.as_ref().unwrap()), "a session token: {text}");
        }
        for words_of_signatures in
            ["X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "Basic ", "AWS4-HMAC"]
        {
            assert!(!text.contains(words_of_signatures), "{words_of_signatures}: {text}");
        }
        for word in words(text) {
            looked_at += 1;
            assert!(gate.caller_of_password(word).is_none(), "a registry password: {text}");
            let decoded = STANDARD.decode(word).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let password = decoded.as_deref().and_then(|decoded| decoded.strip_prefix("AWS:"));
            assert!(password.is_none(), "a registry token: {text}");
        }
    }
    pipeline_tests::say(&format!("checked {looked_at} words of {} texts for secrets", texts.len()));
    // The test would see one.
    let password = gate.issue_password(&Caller::User);
    assert!(words(&json!({"password": password}).to_string()).any(|word| gate.caller_of_password(word).is_some()));
}

/// A signed address as S3 makes them, at a host that refuses connections.
fn signed() -> String {
    "https://192.0.2.1/layer?X-Amz-Credential=AKIA&X-Amz-Signature=0123456789abcdef&X-Amz-Security-Token=x".to_owned()
}

/// Where the registry sends a reader, no token goes; and where addresses of uploads lead, nothing else does.
#[tokio::test]
async fn the_token_goes_nowhere_but_to_the_registry() {
    let pipeline = Pipeline::start(PROGRAM).await;
    pipeline.import("team/app/1.0.0.tar", &docker_archive(&[(&image(1), &[])])).await;
    pipeline.quiet().await;
    let requests = pipeline.faults.requests();
    let of = |name: &str| requests.iter().filter(|request| request.operation.name == name).collect::<Vec<_>>();
    let (reads, downloads) = (of("registry:GetBlob"), of("registry:Download"));
    assert!(!reads.is_empty() && reads.iter().all(|request| request.caller.is_some()), "{reads:?}");
    assert!(!downloads.is_empty() && downloads.iter().all(|request| request.caller.is_none()), "{downloads:?}");
}

/// An upload session at another host would get the layer and the token.
#[tokio::test]
async fn an_upload_s_address_at_another_host_is_refused() {
    for address in ["https://192.0.2.1/v2/x", "http://localhost:1/v2/x", "https://169.254.169.254/v2/x"] {
        let pipeline = Pipeline::start(PROGRAM).await;
        let mut log = pipeline.stack.log();
        let fault = pipeline.faults.add(Fault {
            operation: "registry:StartUpload".to_owned(),
            resource: None,
            skip: 0,
            times: 1,
            action: Action::Header("location".parse().unwrap(), address.parse().unwrap()),
        });
        pipeline.import("team/app/1.0.0.tar", &docker_archive(&[(&image(1), &[])])).await;
        pipeline.quiet().await;
        assert_eq!(pipeline.faults.fired(fault), 1);
        let said = lines(&mut log);
        assert!(said.iter().any(|line| line.contains("another host") || line.contains("elsewhere")), "{address}");
    }
}
