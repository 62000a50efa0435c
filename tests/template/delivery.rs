//! Rules, queues and event sources.

use std::collections::BTreeMap;

use emulator::account;
use emulator::events::Pattern;
use gantry::receipt::State;
use serde_json::{Value, json};

use crate::document::{resolved, resources, section};

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
fn both_buckets_keep_versions_and_tell_the_bus() {
    let template = resolved(&[]);
    for bucket in ["Uploads", "State"] {
        assert!(template.buckets[bucket].versioned && template.buckets[bucket].event_bridge, "{bucket}");
    }
}

/// Every rule, with the samples of `events/in` that it takes.
const SAMPLES: &[(&str, &[&str])] = &[
    (
        "UploadRule",
        &[
            "s3-object-created",
            "s3-object-created-multipart",
            "s3-object-created-odd-key",
            "s3-object-created-unversioned",
        ],
    ),
    (
        "PushRule",
        &[
            "ecr-image-push",
            "ecr-image-push-short-digest-refused",
            "ecr-image-push-untagged",
            "ecr-image-push-without-optional-fields",
        ],
    ),
    ("ImportedRule", &["gantry-image-imported"]),
    (
        "BasicScanRule",
        &[
            "ecr-image-scan-complete",
            "ecr-image-scan-failed",
            "ecr-image-scan-no-counts",
            "ecr-image-scan-without-digest-refused",
        ],
    ),
    ("InspectorRule", &["inspector2-coverage", "inspector2-finding", "inspector2-scan"]),
    ("PolicyRule", &["s3-policy-changed", "s3-released-by-hand"]),
];

/// The samples that came over the bus, with their names.
fn samples() -> Vec<(String, Value)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../events/in");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder is readable").path();
        let event = serde_json::from_slice(&std::fs::read(&path).expect("a sample is readable"));
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        found.push((name, event.expect("a sample is JSON")));
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// What `parameters` make of every rule: the samples that it takes.
fn taken(parameters: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let template = resolved(parameters);
    let samples = samples();
    let mut taken = BTreeMap::new();
    for (name, rule) in template.rules {
        let pattern = Pattern::parse(&rule.pattern).expect("the pattern is understood");
        let of_rule = samples.iter().filter(|(_, event)| pattern.matches(event)).map(|(name, _)| name.clone());
        taken.insert(name, of_rule.collect());
    }
    taken
}

#[test]
fn every_rule_takes_its_own_samples_and_no_other() {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut wanted: BTreeMap<String, Vec<String>> =
        SAMPLES.iter().map(|(rule, names)| ((*rule).to_owned(), list(names))).collect();
    assert_eq!(taken(&[]), wanted);
    assert_eq!(taken(&[("RepositoryPrefix", "team/")]), wanted, "the samples are of team/my-app");
    for of_ecr in ["PushRule", "BasicScanRule", "InspectorRule"] {
        wanted.insert(of_ecr.to_owned(), Vec::new());
    }
    assert_eq!(taken(&[("RepositoryPrefix", "rival/")]), wanted);
}

/// Each image record, receipt or list of what was told that we write would otherwise wake us again.
#[test]
fn our_own_objects_wake_nobody() {
    let template = resolved(&[]);
    let patterns = template.rules.values().map(|rule| Pattern::parse(&rule.pattern).expect("it is understood"));
    let patterns: Vec<Pattern> = patterns.collect();
    for (bucket, key) in [
        ("state", "ledger/gzip-4-1048576-1/sha256:00.json"),
        ("state", "images/team/my-app/sha256:00.json"),
        ("state", "policy.good.toml"),
        ("state", "policy.told.json"),
        ("state", "sweep.json"),
        ("state", "uploads.json"),
        ("uploads", "team/my-app/1.0.0.tar.receipt.json"),
    ] {
        let event = json!({
            "source": "aws.s3", "detail-type": "Object Created",
            "detail": {"bucket": {"name": bucket}, "object": {"key": key}},
        });
        assert!(!patterns.iter().any(|pattern| pattern.matches(&event)), "{bucket}/{key}");
    }
}

#[test]
fn an_address_hears_only_of_what_needs_a_person() {
    assert_eq!(resolved(&[]).topics["Topic"].subscriptions, []);
    let template = resolved(&[("NotifyEmail", "ops@example.com")]);
    let [subscription] = template.topics["Topic"].subscriptions.as_slice() else {
        panic!("one address, one subscription")
    };
    assert_eq!((subscription.protocol.as_str(), subscription.endpoint.as_str()), ("email", "ops@example.com"));
    assert_eq!(subscription.filter, Some(json!({"needs": ["person", {"exists": false}]})));
}

/// What lifecycle rules take away goes by the words that the pipeline writes on objects.
#[test]
fn only_what_is_settled_expires() {
    let buckets: BTreeMap<String, Value> = resources("AWS::S3::Bucket").into_iter().collect();
    let rules = |bucket: &str| {
        let rules = buckets[bucket].pointer("/Properties/LifecycleConfiguration/Rules").expect("rules");
        rules.as_array().expect("a list").clone()
    };
    for bucket in ["Uploads", "State"] {
        let all = rules(bucket);
        assert!(all.iter().any(|rule| rule.get("AbortIncompleteMultipartUpload").is_some()), "{bucket}");
        assert!(all.iter().any(|rule| rule.get("NoncurrentVersionExpiration").is_some()), "{bucket}");
        // Indexes of compressed uploads are made again when they are wanted.
        let is_index = |rule: &&Value| bucket == "State" && rule["Prefix"] == "indexes/";
        let expiring = all.iter().filter(|rule| rule.get("ExpirationInDays").is_some());
        for rule in expiring.filter(|rule| !is_index(rule)) {
            let words = [State::Released, State::Superseded].map(State::as_str);
            let tag = &rule["TagFilters"][0];
            assert_eq!((bucket, tag["Key"].as_str()), ("Uploads", Some("gantry")), "{rule}");
            assert!(tag["Value"].as_str().is_some_and(|word| words.contains(&word)), "{rule}");
        }
    }
}

/// The version of the template is the version that the functions tell.
#[test]
fn the_template_and_the_functions_are_of_one_version() {
    let version = section("Mappings")["Gantry"]["Release"]["Version"].clone();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

/// Who is alarmed is who is told; and an alarm that has nobody to tell is none.
#[test]
fn every_alarm_says_what_to_do_and_tells_the_topic() {
    for (name, alarm) in resources("AWS::CloudWatch::Alarm") {
        let properties = &alarm["Properties"];
        assert_eq!(properties["AlarmActions"], json!(["Topic"]), "{name}");
        assert!(properties["AlarmDescription"].as_str().is_some_and(|text| text.len() > 40), "{name}");
        assert_eq!(properties["TreatMissingData"], "notBreaching", "{name}");
    }
}

/// A function without a log group would make one that is kept for ever; ours may not make any.
#[test]
fn every_function_has_a_log_group_with_an_end() {
    let groups: BTreeMap<String, Value> = resources("AWS::Logs::LogGroup").into_iter().collect();
    for (function, resource) in resources("AWS::Serverless::Function") {
        let logging = &resource["Properties"]["LoggingConfig"];
        assert_eq!(logging["LogFormat"], "JSON", "{function}");
        let group = logging["LogGroup"].as_str().expect("a log group");
        assert_eq!(groups[group]["Properties"]["RetentionInDays"], "LogRetentionDays", "{function}");
    }
}
