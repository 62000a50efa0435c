//! The policy file, written well and badly.

use pipeline_tests::{Pipeline, Setup};
use serde_json::{Value, json};

use crate::{PROGRAM, finding, gated, tarball, upload};

fn problems(pipeline: &Pipeline) -> Vec<Value> {
    let told = pipeline.told().into_iter().filter(|(name, _)| name == "Policy Problem");
    told.map(|(_, detail)| detail["reason"].clone()).collect()
}

#[tokio::test]
async fn a_file_that_does_not_parse_changes_nothing_and_is_told_of_once() {
    let pipeline = gated().await;
    pipeline.findings(&json!([{"repository": "*", "findings": [finding("CVE-2026-0001", "CRITICAL")]}]));
    pipeline.put_state("policy.toml", "max_severity = \"critical\"\n").await;
    pipeline.quiet().await;
    pipeline.put_state("policy.toml", "max_severity = \"critical\"\ninconclusive = \"hlod\"\n").await;
    pipeline.quiet().await;
    let told = problems(&pipeline);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["kind"], "parse");
    let text = told[0]["text"].as_str().unwrap();
    assert!(text.starts_with("line 2: ") && text.contains("hlod") && text.contains("stays in force"), "{text}");
    assert_eq!(told[0]["fix"], "Repair line 2 of s3://state/policy.toml and upload it again.");

    // Also for processes that start later.
    let folder = pipeline.stop().await;
    let parameters = [("ReleaseGate".to_owned(), "scan".to_owned())].into();
    let pipeline = Pipeline::with(PROGRAM, Setup { parameters, folder: Some(folder), ..Setup::default() }).await;
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "released", "the last good policy allows it: {receipt:#}");
    assert_eq!(problems(&pipeline).len(), 1, "told once, not by every process");

    // A missing file is the default, not the last good one.
    pipeline.s3.delete_object().bucket("state").key("policy.toml").send().await.unwrap();
    let (_, receipt) = upload(&pipeline, "team/app/1.0.1.tar", &tarball(2), &[]).await;
    assert_eq!(receipt["state"], "held", "{receipt:#}");
}

#[tokio::test]
async fn exceptions_that_end_are_announced_once() {
    let pipeline = gated().await;
    let day = |days: i64| {
        let today = pipeline_tests::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
        today.checked_add(jiff::Span::new().days(days)).unwrap()
    };
    let exception = |id: &str, days: i64| {
        format!(
            "[[exception]]\nid = \"{id}\"\nrepository = \"team/*\"\nreason = \"r\"\nowner = \"ann\"\nexpires = {}\n",
            day(days)
        )
    };
    let file = [exception("CVE-1", 3), exception("CVE-2", -1), exception("CVE-3", 30)].concat();
    pipeline.put_state("policy.toml", &file).await;
    pipeline.quiet().await;
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    let told = problems(&pipeline);
    let kinds: Vec<&str> = told.iter().map(|reason| reason["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["expiring", "expired"], "{told:?}");
    assert!(told[0]["text"].as_str().unwrap().starts_with("CVE-1 in team/*"), "{told:?}");
    assert!(told[0]["fix"].as_str().unwrap().starts_with("ann: "), "{told:?}");
}

#[tokio::test]
async fn an_exception_that_expires_counts_again() {
    let pipeline = gated().await;
    pipeline.findings(&json!([{"repository": "*", "findings": [finding("CVE-2026-0001", "CRITICAL")]}]));
    let file = "[[exception]]\nid = \"CVE-2026-0001\"\nrepository = \"*\"\nreason = \"r\"\nowner = \"ann\"\n\
                expires = 2020-01-01\n";
    pipeline.put_state("policy.toml", file).await;
    let (_, receipt) = upload(&pipeline, "team/app/1.0.0.tar", &tarball(1), &[]).await;
    assert_eq!(receipt["state"], "held", "{receipt:#}");
}
