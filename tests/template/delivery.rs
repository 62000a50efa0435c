//! Rules, queues and event sources.

use emulator::account;
use emulator::events::Pattern;
use serde_json::{Value, json};

use crate::document::{resolved, resources};

/// The most that SQS keeps a message: 14 days.
const LONGEST_RETENTION_S: u64 = 1_209_600;

#[test]
fn every_queue_source_reports_failures() {
    // Read from the text too: without it Lambda takes every answer for success.
    let mut sources = 0;
    for (function, resource) in resources("AWS::Serverless::Function") {
        let events = resource["Properties"]["Events"].as_object().expect("events");
        for (name, event) in events.iter().filter(|(_, event)| event["Type"] == "SQS") {
            sources += 1;
            let types = &event["Properties"]["FunctionResponseTypes"];
            assert_eq!(types, &json!(["ReportBatchItemFailures"]), "{function}.{name}");
        }
    }
    let template = resolved(&[]);
    let read: Vec<_> = template.functions.values().filter_map(|function| function.source.as_ref()).collect();
    assert!(read.iter().all(|source| source.reports_failures), "{read:?}");
    assert!(sources > 0 && sources == read.len(), "{sources} sources, {} of them read", read.len());
}

#[test]
fn a_queue_outwaits_its_function_six_times_and_ends_in_a_dead_letter_queue() {
    let template = resolved(&[]);
    let queue = |arn: &str| template.queues.values().find(|queue| queue.arn == arn);
    for (name, function) in &template.functions {
        let Some(source) = &function.source else { continue };
        let fed = queue(&source.queue_arn).expect("the queue is in the template");
        // SQS guide, "Creating an event source mapping": at least six times the function's timeout.
        assert!(fed.visibility >= 6 * function.timeout, "{name}: {:?}, {:?}", fed.visibility, function.timeout);
        let redrive = fed.redrive.as_ref().expect("a redrive policy");
        let dead = queue(&redrive.dead_letter_arn).expect("the dead letter queue is in the template");
        assert_eq!(dead.redrive, None, "{name}: what is dead stays where it is");
        assert_eq!(function.environment["GANTRY_MAX_RECEIVES"], redrive.max_receives.to_string(), "{name}");
        assert_eq!(function.environment["GANTRY_QUEUE_URL"], fed.url, "{name}");
        let sources = template.functions.values().filter_map(|function| function.source.as_ref());
        assert_eq!(sources.filter(|source| source.queue_arn == dead.arn).count(), 0, "{name}: nobody takes the dead");
    }
}

#[test]
fn every_target_of_a_rule_has_a_dead_letter_queue_that_takes_its_events() {
    let template = resolved(&[]);
    assert!(!template.rules.is_empty());
    for (name, rule) in &template.rules {
        assert!(!rule.targets.is_empty(), "{name}");
        for target in &rule.targets {
            let dead = target.dead_letter_arn.as_ref().expect("a dead letter queue");
            assert_ne!(dead, &target.arn, "{name}");
            for arn in [dead, &target.arn] {
                let queue = template.queues.values().find(|queue| queue.arn == *arn).expect("in the template");
                assert!(!queue.policy.is_empty(), "{name}: nobody may send to {}", queue.name);
            }
        }
    }
}

#[test]
fn queues_keep_messages_as_long_as_sqs_can() {
    // In a dead-letter queue a message is as old as when it was first sent (SQS guide).
    for (name, queue) in resources("AWS::SQS::Queue") {
        assert_eq!(queue["Properties"]["MessageRetentionPeriod"], LONGEST_RETENTION_S, "{name}");
    }
}

#[test]
fn the_upload_rule_takes_every_upload_and_nothing_else() {
    let template = resolved(&[]);
    let rule = Pattern::parse(&template.rules["UploadRule"].pattern).unwrap();
    let event = |source: &str, detail_type: &str, bucket: &str, key: &str| {
        json!({
            "version": "0", "source": source, "detail-type": detail_type, "account": account::ID,
            "detail": {"bucket": {"name": bucket}, "object": {"key": key, "size": 5}},
        })
    };
    for (key, wanted) in [
        ("team/app/1.tar", true),
        ("app.tar", true),
        ("no-archive", true),
        ("team/Größe 1+1 100%20.tar", true),
        (" ", true),
        ("\u{1f980}/a\tb\nc.tgz", true),
        ("team/*?.tar", true),
        ("team//x", true),
        ("team/app.receipt.json.tar", true),
        ("receipt.json", true),
        ("team/app/1.tar.RECEIPT.JSON", true),
        ("team/app/1.tar.receipt.json", false),
        (".receipt.json", false),
        ("team/", false),
        ("/", false),
        ("team/app.tar/", false),
    ] {
        assert_eq!(rule.matches(&event("aws.s3", "Object Created", "uploads", key)), wanted, "{key:?}");
    }
    for (source, detail_type, bucket) in [
        ("aws.ecr", "Object Created", "uploads"),
        ("aws.s3", "Object Tags Added", "uploads"),
        ("aws.s3", "Object Deleted", "uploads"),
        ("aws.s3", "Object Created", "state"),
        ("aws.s3", "Object Created", "uploads2"),
    ] {
        let other = event(source, detail_type, bucket, "team/app/1.tar");
        assert!(!rule.matches(&other), "{other}");
    }
    let longest: String = "k".repeat(1_024);
    assert!(rule.matches(&event("aws.s3", "Object Created", "uploads", &longest)));
    assert!(!rule.matches(&Value::Null));
}

#[test]
fn the_upload_bucket_keeps_versions_and_tells_the_bus() {
    let template = resolved(&[]);
    assert!(template.buckets["Uploads"].versioned && template.buckets["Uploads"].event_bridge);
    assert!(template.buckets["State"].versioned);
    // Our own records must not wake anybody.
    assert!(!template.buckets["State"].event_bridge);
}
