//! What the functions were seen to do, against what their roles allow: neither more nor less.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

use std::collections::{BTreeMap, BTreeSet};

use emulator::faults::{Action, Fault};
use emulator::wire::Caller;
use local::samples::{Image, docker_archive, layer};
use pipeline_tests::{Pipeline, Setup};
use serde_json::json;

use crate::roles::{statements, texts};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// What no call of ours to the embedded AWS can show, and why it is needed all the same.
const UNSEEN: &[(&str, &str)] = &[
    ("inspector2:ListFindings", "Inspector's, behind ECR's own call; whether that asks for it is not documented"),
    ("inspector2:ListCoverage", "Inspector's, behind ECR's own call; whether that asks for it is not documented"),
    ("kms:CreateGrant", "ECR's, on behalf of whoever makes a repository with a customer's key"),
    ("kms:RetireGrant", "ECR's, on behalf of whoever makes a repository with a customer's key"),
    ("kms:DescribeKey", "ECR's, on behalf of whoever makes a repository with a customer's key"),
    ("logs:CreateLogStream", "Lambda's, with the function's role"),
    ("logs:PutLogEvents", "Lambda's, with the function's role"),
    ("xray:PutTraceSegments", "Lambda's, with the function's role"),
    ("xray:PutTelemetryRecords", "Lambda's, with the function's role"),
    ("sqs:ReceiveMessage", "Lambda's poller's, with the function's role"),
    ("sqs:DeleteMessage", "Lambda's poller's, with the function's role"),
    ("sqs:GetQueueAttributes", "Lambda's poller's, with the function's role"),
    ("s3:ListBucket", "asked for no call but a listing; without it a missing key is answered as a denied one"),
];

/// Who and what.
type Rights = BTreeMap<&'static str, BTreeSet<String>>;

/// The three reacting functions have one policy, since they take the same looks; each alone may be seen to need less.
fn who(function: &str) -> &'static str {
    if function == "ImportFunction" { "import" } else { "look" }
}

fn tarball(base: u32, app: u32) -> Vec<u8> {
    docker_archive(&[(&Image::new("amd64", vec![layer("base", base, 20_000), layer("app", app, 20_000)]), &[])])
}

/// Everything that functions do: uploads new and known, named and unnamed, good and bad; pushes, scans, verdicts,
/// policies, releases by hand, and what goes wrong on the way.
async fn everything() -> Pipeline {
    let parameters = [("ReleaseGate", "scan"), ("PullAccounts", "111122223333")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let pipeline = Pipeline::with(PROGRAM, Setup { parameters, ..Setup::default() }).await;
    let busy = Action::Status(500, String::new());
    for operation in ["ecr:CreateRepository", "ecr:ListImages", "ecr:DescribeImageScanFindings"] {
        let fault = Fault { operation: operation.to_owned(), resource: None, skip: 0, times: 8, action: busy.clone() };
        pipeline.faults.add(fault);
    }
    pipeline.stack.images().set_account_setting("BLOB_MOUNTING", "ENABLED").unwrap();
    pipeline.findings(&json!([{"repository": "team/*", "findings": []}]));
    pipeline.put_state("policy.toml", "max_severity = \"high\"\n").await;
    pipeline.put_state("policy.toml", "max_severity = \"hihg\"\n").await;
    pipeline.put("team/app/1.0.0.tar", &tarball(1, 2)).await;
    pipeline.quiet().await;
    // Its base is in another repository below the same folder.
    pipeline.put("team/other/1.0.0.tar", &tarball(1, 3)).await;
    pipeline.put("team/app/broken.tar", b"no archive").await;
    pipeline.quiet().await;
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.unwrap();
    let digest = receipt["import"]["images"][0]["digest"].as_str().unwrap().to_owned();
    pipeline.put_state(&format!("releases/team/app/{digest}"), "because").await;
    pipeline.stack.rescan("team/app", "1.0.0").unwrap();
    pipeline.quiet().await;
    // Nobody scans this one, and its time is up.
    pipeline.put("quiet/app/1.0.0.tar", &tarball(4, 5)).await;
    pipeline.quiet().await;
    let receipt = pipeline.receipt("quiet/app/1.0.0.tar").await.unwrap();
    let digest = receipt["import"]["images"][0]["digest"].as_str().unwrap();
    pipeline.age("quiet/app", digest).await;
    // An event need not name the version.
    let bare = json!({
        "source": "aws.s3", "detail-type": "Object Created",
        "detail": {"bucket": {"name": "uploads"}, "object": {"key": "team/other/1.0.0.tar", "size": 1}},
    });
    pipeline.stack.invoke("ImportFunction", &bare).await.unwrap();
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    pipeline.quiet().await;
    pipeline
}

#[tokio::test]
async fn the_roles_allow_what_is_done_and_nothing_else() {
    let pipeline = everything().await;
    let mut seen = Rights::new();
    let mut denied = Vec::new();
    for call in pipeline.stack.gate().calls() {
        let Caller::Role(function) = &call.caller else { continue };
        seen.entry(who(function)).or_default().insert(call.action.clone());
        if !call.allowed {
            denied.push(call);
        }
    }
    assert!(denied.is_empty(), "{denied:?}");

    let mut allowed = Rights::new();
    for (function, statement) in statements() {
        let actions = texts(&statement["Action"]).into_iter().map(str::to_owned);
        allowed.entry(who(&function)).or_default().extend(actions);
    }
    for (action, reason) in UNSEEN {
        assert!(allowed.values().any(|actions| actions.contains(*action)), "{action} is allowed no more: {reason}");
    }
    for actions in allowed.values_mut().chain(seen.values_mut()) {
        actions.retain(|action| UNSEEN.iter().all(|(unseen, _)| action != unseen));
    }
    for who in ["import", "look"] {
        let never: Vec<_> = allowed[who].difference(&seen[who]).collect();
        let without: Vec<_> = seen[who].difference(&allowed[who]).collect();
        assert!(never.is_empty() && without.is_empty(), "{who}: allowed and never done {never:?}, done {without:?}");
    }
    let count: usize = seen.values().map(BTreeSet::len).sum();
    pipeline_tests::say(&format!("checked {count} rights of the functions' roles, each seen in use"));
}
