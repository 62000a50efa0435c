//! What we tell: the samples in `events/out`, and what a real stack tells, held against the schema.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use emulator::images::{Finding, ScanEntry, ScanKind};
use emulator::sns::Notification;
use local::samples::{Image, docker_archive, layer};
use pipeline_tests::{Pipeline, Setup};
use serde_json::{Value, json};

use crate::schema::Schema;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../events/out");

/// What no step should ever take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Every sample, with the event and the kind of reason that make it one, and whom it needs.
pub(crate) const SAMPLES: &[(&str, &str, &str, &str)] = &[
    ("image-imported", "Image Imported", "", "nobody"),
    ("import-failed", "Import Failed", "archive", "person"),
    ("image-released", "Image Released", "released", "nobody"),
    ("image-held-verification", "Image Held", "verification", "person"),
    ("image-held-policy", "Image Held", "policy", "person"),
    ("image-held-inconclusive", "Image Held", "inconclusive", "person"),
    ("verdict-changed", "Verdict Changed", "verdict", "person"),
    ("policy-problem", "Policy Problem", "parse", "person"),
    ("policy-problem-exception", "Policy Problem", "expiring", "person"),
];

/// The sample in `FOLDER/<file>.json`.
pub(crate) fn sample(file: &str) -> Value {
    let bytes = std::fs::read(Path::new(FOLDER).join(format!("{file}.json"))).expect("the sample is there");
    serde_json::from_slice(&bytes).expect("a sample is JSON")
}

/// The event and the kind of its reason.
fn kind(event: &Value) -> (String, String) {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    (text(event.get("detail-type")), text(event.pointer("/detail/reason/kind")))
}

/// The names of all fields, each with its way; of a list, those of all members; of counts, none.
fn fields(value: &Value, way: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !way.ends_with("/counts") => {
            for (name, value) in map {
                let way = format!("{way}/{name}");
                fields(value, &way, found);
                found.insert(way);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, way, found)),
        _ => {}
    }
}

/// Those of an event's detail.
pub(crate) fn fields_of(event: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    fields(&event["detail"], "", &mut found);
    found
}

#[test]
fn every_sample_is_as_the_schema_says_and_has_a_row() {
    let schema = Schema::read();
    let files = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let rows = SAMPLES.iter().map(|(file, ..)| format!("{file}.json"));
    assert_eq!(files.collect::<BTreeSet<_>>(), rows.collect::<BTreeSet<_>>());
    for (file, event, reason, _) in SAMPLES {
        let found = sample(file);
        assert_eq!(schema.refusal(&found), None, "{file}");
        assert_eq!(kind(&found), ((*event).to_owned(), (*reason).to_owned()), "{file}");
    }
    let ids: BTreeSet<String> = SAMPLES.iter().map(|(file, ..)| sample(file)["detail"]["id"].to_string()).collect();
    assert_eq!(ids.len(), SAMPLES.len(), "each is another fact");
}

#[test]
fn the_schema_lets_fields_be_added_and_nothing_be_changed() {
    let schema = Schema::read();
    let change = |pointer: &str, value: Value| {
        let mut event = sample("image-held-policy");
        match event.pointer_mut(pointer) {
            Some(there) => *there = value,
            None => event["detail"][pointer] = value,
        }
        schema.refusal(&event)
    };
    assert_eq!(change("new", json!({"field": 1})), None);
    for (pointer, value) in [
        ("/source", json!("aws.ecr")),
        ("/detail-type", json!("Image Lost")),
        ("/time", json!("yesterday")),
        ("/detail", json!({})),
        ("/detail/schema", json!(2)),
        ("/detail/id", json!("1")),
        ("/detail/state", json!("released")),
        ("/detail/image", json!({})),
        ("/detail/image/digest", json!("sha256:12")),
        ("/detail/image/uri", json!("team/my-app:1.4.2")),
        ("/detail/reason/kind", json!("archive")),
        ("/detail/verdict/outcome", json!("failed")),
        ("/detail/verdict/counts", json!({"grave": 1})),
        ("/detail/verdict/findings/0/severity", json!("CRITICAL")),
        ("/detail/verdict/findings/0/fix", json!("maybe")),
        ("/detail/verdict/since", json!(0)),
    ] {
        assert!(change(pointer, value).is_some(), "{pointer}");
    }
}

fn finding(name: &str, severity: &str, package: &str) -> Finding {
    Finding {
        name: name.to_owned(),
        severity: severity.to_owned(),
        package: Some(package.to_owned()),
        version: Some("3.0.1".to_owned()),
        fixed_in: Some("3.0.2".to_owned()),
        ..Finding::default()
    }
}

/// What the scanner says: one finding that is allowed everywhere but where it is another one, or none is made.
fn scans(of_my_app: &Finding) -> Vec<ScanEntry> {
    let enhanced = |repository: &str, findings: Vec<Finding>| ScanEntry {
        scan: ScanKind::Enhanced,
        findings,
        ..ScanEntry::new(repository, "*")
    };
    let mild = finding("CVE-2026-0002", "MEDIUM", "zlib");
    vec![
        enhanced("team/my-app", vec![of_my_app.clone()]),
        enhanced("team/risky", vec![finding("CVE-2026-0001", "CRITICAL", "openssl")]),
        ScanEntry {
            status: Some("UNSUPPORTED_IMAGE".to_owned()),
            reason: Some("the operating system is not supported".to_owned()),
            ..enhanced("team/odd", vec![])
        },
        enhanced("*", vec![mild]),
    ]
}

/// Waits for an event of this kind.
async fn told(pipeline: &Pipeline, event: &str, reason: &str) -> Notification {
    let topics = pipeline.stack.topics();
    let topic = pipeline.stack.topic_arn("Topic").expect("the template has a topic");
    let wanted = (event.to_owned(), reason.to_owned());
    let waiting = async {
        loop {
            let messages = topics.messages(topic).expect("the topic is there");
            let count = messages.len();
            if let Some(found) = messages.into_iter().find(|message| kind(&machine(message)) == wanted) {
                return found;
            }
            topics.wait_for(topic, count + 1).await.expect("the topic is there");
        }
    };
    let what = format!("{event} {reason} is told");
    tokio::time::timeout(PATIENCE, waiting).await.expect(&what)
}

/// What programs get.
fn machine(message: &Notification) -> Value {
    serde_json::from_str(&message.text_for("sqs")).expect("programs get JSON")
}

async fn put_policy(pipeline: &Pipeline, text: &str) {
    let put = pipeline.s3.put_object().bucket("state").key("policy.toml").body(text.as_bytes().to_vec().into());
    put.send().await.expect("the policy is put");
}

/// Every event there is, from a stack on which it happened: as the schema says, with the fields of its sample, and
/// with the attributes by which people choose.
#[tokio::test]
async fn a_stack_tells_what_the_samples_show() {
    let parameters = BTreeMap::from([("ReleaseGate".to_owned(), "scan".to_owned())]);
    let setup = Setup { parameters, ..Setup::default() };
    let pipeline = Pipeline::with(env!("CARGO_BIN_EXE_gantry-under-test"), setup).await;
    let images = pipeline.stack.images();
    let mild = finding("CVE-2026-0003", "LOW", "zlib");
    images.set_findings(&scans(&mild)).expect("the findings are put");
    let tarball = |seed| docker_archive(&[(&Image::new("amd64", vec![layer("hello", seed, 30_000)]), &[])]);

    for (seed, name) in [(1, "my-app"), (2, "risky"), (3, "odd"), (4, "broken")] {
        pipeline.import(&format!("team/{name}/1.4.2.tar"), &tarball(seed)).await;
    }
    pipeline.import("team/junk/1.4.2.tar", b"this is no archive").await;

    // Released, and then found to be bad.
    images.set_findings(&scans(&finding("CVE-2026-0001", "CRITICAL", "openssl"))).expect("the findings are put");
    pipeline.stack.rescan("team/my-app", "1.4.2").expect("it is scanned again");
    told(&pipeline, "Verdict Changed", "verdict").await;

    // Released, and then found to have lost a layer.
    let (digest, _) = images.image("team/broken", "1.4.2").expect("the image is there");
    let manifest = pipeline_tests::look::manifest(images, "team/broken", "1.4.2");
    let blob = manifest["layers"][0]["digest"].as_str().and_then(|digest| digest.parse().ok()).expect("a layer");
    images.forget_blob("team/broken", &blob).expect("the layer is gone");
    let mut push = crate::sample::read("ecr-image-push");
    push["detail"]["repository-name"] = "team/broken".into();
    push["detail"]["image-digest"] = digest.to_string().into();
    pipeline.stack.put_event(push);
    let held = told(&pipeline, "Image Held", "verification").await;

    let soon = (held.time + Duration::from_hours(72)).strftime("%Y-%m-%d");
    let exception = format!(
        "[[exception]]\nid = \"CVE-2026-0009\"\nrepository = \"team/*\"\nreason = \"never called\"\n\
         owner = \"ann@example.com\"\nexpires = {soon}\n"
    );
    put_policy(&pipeline, &exception).await;
    told(&pipeline, "Policy Problem", "expiring").await;
    put_policy(&pipeline, "max_severty = \"high\"\n").await;

    let schema = Schema::read();
    for (file, event, reason, needs) in SAMPLES {
        let message = told(&pipeline, event, reason).await;
        let found = machine(&message);
        assert_eq!(schema.refusal(&found), None, "{file}: {found:#}");
        assert_eq!(fields_of(&found), fields_of(&sample(file)), "{file}: {found:#}");

        let attribute = |name: &str| message.attributes.get(name).map(|attribute| attribute.value.as_str());
        let or_none = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).or(Some("none"));
        assert_eq!(attribute("event"), Some(*event), "{file}");
        assert_eq!(attribute("needs"), Some(*needs), "{file}");
        assert_eq!(attribute("state"), or_none("/detail/state"), "{file}");
        assert_eq!(attribute("repository"), or_none("/detail/image/repository"), "{file}");
        assert_eq!(attribute("severity"), or_none("/detail/verdict/findings/0/severity"), "{file}");
        assert_eq!(message.attributes.len(), 5, "{file}");

        // People get the same words, and not the JSON.
        let text = message.text_for("email");
        let fix = found.pointer("/detail/reason/fix").and_then(Value::as_str).unwrap_or("Nothing to do.");
        assert!(text.starts_with(fix) && text.lines().count() <= 25, "{file}:\n{text}");
        assert_eq!(message.text_for("http"), message.text_for("sqs"), "{file}");
        let subject = message.subject.unwrap_or_default();
        assert!(subject.starts_with(&format!("{event}: ")), "{file}: {subject}");
    }
    drop(pipeline.stop().await);
}
