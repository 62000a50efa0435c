//! Metrics: lines of the log that CloudWatch reads numbers from.
//!
//! The CloudWatch user guide, "Specification: Embedded metric format": a line of JSON whose `_aws` names which of its
//! members are metrics and which are their dimensions. It costs no call and no right of its own. The names are those of
//! the dashboard in `template.yaml`.

use std::io::Write as _;

use gantry::react::release::Standing;
use gantry::react::{Looked, Swept};
use gantry::receipt::{How, Receipt, State};
use gantry::uploads::Reconciled;
use jiff::Timestamp;
use serde_json::{Value, json};

const NAMESPACE: &str = "Gantry";

/// Says what is counted, of one stack.
#[derive(Debug, Clone)]
pub struct Metrics {
    stack: String,
    now: fn() -> Timestamp,
}

impl Metrics {
    /// Of the stack `stack`. `now` is the clock.
    pub fn new(stack: &str, now: fn() -> Timestamp) -> Self {
        Self { stack: stack.to_owned(), now }
    }

    /// An upload has come to an end: imported, or given up.
    pub fn import(&self, receipt: &Receipt) {
        self.say(&imported(receipt));
    }

    /// A delivery of an upload failed, and `last` says whether it was the last.
    pub fn delivery(&self, kind: &str, last: bool) {
        if last {
            self.say(&failed(State::Failed.as_str(), kind));
        } else {
            self.say(&Said::of([("Redeliveries", "Count", 1)]).by("kind", kind, "Redeliveries"));
        }
    }

    /// An image was looked at.
    pub fn look(&self, looked: &Looked) {
        let verdict = match looked {
            Looked::At(Standing::Waiting) | Looked::Unscanned(Standing::Waiting) => "waiting",
            Looked::At(Standing::Released(_)) | Looked::Unscanned(Standing::Released(_)) => "released",
            Looked::At(Standing::Held(hold)) | Looked::Unscanned(Standing::Held(hold)) => hold.kind.as_str(),
            Looked::NotOurs => "not-ours",
            Looked::Gone => "gone",
        };
        self.say(&Said::of([("Looks", "Count", 1)]).by("verdict", verdict, "Looks"));
    }

    /// A look failed, and is taken again or given up.
    pub fn look_failed(&self, kind: &str) {
        self.say(&Said::of([("Failures", "Count", 1)]).by("kind", kind, "Failures"));
    }

    /// The records were gone through.
    pub fn swept(&self, swept: &Swept) {
        self.say(&Said::of([
            ("RecordsSwept", "Count", count(swept.records)),
            ("RecordsLooked", "Count", count(swept.looked)),
            ("RecordsFailed", "Count", count(swept.failed)),
        ]));
    }

    /// The uploads were gone through.
    pub fn reconciled(&self, done: &Reconciled) {
        self.say(&Said::of([
            ("UploadsLooked", "Count", done.uploads),
            ("UploadsSilent", "Count", done.silent),
            ("UploadsResent", "Count", done.resent),
            ("UploadsGivenUp", "Count", done.given_up),
            ("UploadsFailed", "Count", done.failed),
        ]));
    }

    fn say(&self, said: &Said) {
        let mut line = said.line(&self.stack, (self.now)()).to_string();
        line.push('\n');
        // In one piece, so that no other line comes between; a number that is not said fails nothing.
        std::io::stdout().lock().write_all(line.as_bytes()).ok();
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// What an upload that ended says.
fn imported(receipt: &Receipt) -> Said {
    let import = &receipt.import;
    let blobs = || import.images.iter().flat_map(|image| &image.blobs);
    let reused = blobs().filter(|blob| blob.how != How::Sent).map(|blob| blob.size_bytes).sum();
    let layers = import.layers;
    let state = receipt.state.as_str();
    let mut said = Said::of([
        ("Imports", "Count", 1),
        ("ImportDuration", "Milliseconds", import.duration_ms),
        ("BytesRead", "Bytes", layers.map_or(0, |layers| layers.read_bytes)),
        ("BytesSent", "Bytes", layers.map_or(0, |layers| layers.sent_bytes)),
        ("BytesReused", "Bytes", reused),
    ]);
    said = said.by("state", state, "Imports");
    match (&receipt.state, &import.reason) {
        (State::Failed, Some(reason)) => said.with(("Failures", "Count", 1)).by("kind", &reason.kind, "Failures"),
        _ => said,
    }
}

/// What an upload says that no delivery could finish.
fn failed(state: &str, kind: &str) -> Said {
    Said::of([("Imports", "Count", 1), ("Failures", "Count", 1)])
        .by("state", state, "Imports")
        .by("kind", kind, "Failures")
}

/// A name, its unit, and how many.
type Metric = (&'static str, &'static str, u64);

/// One line: its metrics, each of them by stack, and some by something else as well.
#[derive(Debug, Default)]
struct Said {
    metrics: Vec<Metric>,
    by: Vec<(&'static str, String, &'static str)>,
}

impl Said {
    fn of<const N: usize>(metrics: [Metric; N]) -> Self {
        Self { metrics: metrics.to_vec(), by: Vec::new() }
    }

    fn with(mut self, metric: Metric) -> Self {
        self.metrics.push(metric);
        self
    }

    /// Tells the metric `metric` by `dimension` too.
    fn by(mut self, dimension: &'static str, value: &str, metric: &'static str) -> Self {
        self.by.push((dimension, value.to_owned(), metric));
        self
    }

    fn line(&self, stack: &str, now: Timestamp) -> Value {
        let directive = |dimensions: Value, metrics: Vec<Value>| json!({"Namespace": NAMESPACE, "Dimensions": [dimensions], "Metrics": metrics});
        let definition = |(name, unit, _): &Metric| json!({"Name": name, "Unit": unit});
        let mut directives = vec![directive(json!(["stack"]), self.metrics.iter().map(definition).collect())];
        let mut line = json!({"stack": stack});
        for (name, _, number) in &self.metrics {
            line[*name] = json!(number);
        }
        for (dimension, value, of) in &self.by {
            let metrics = self.metrics.iter().filter(|(name, ..)| name == of).map(definition).collect();
            directives.push(directive(json!(["stack", dimension]), metrics));
            line[*dimension] = json!(value);
        }
        line["_aws"] = json!({"Timestamp": now.as_millisecond(), "CloudWatchMetrics": directives});
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(said: &Said) -> Value {
        said.line("gantry", Timestamp::from_millisecond(1_767_225_600_123).unwrap())
    }

    /// What the specification's schema asks for: names that stand at the root, numbers as metrics, texts as dimensions.
    fn check(line: &Value) {
        let meta = &line["_aws"];
        assert!(meta["Timestamp"].is_u64(), "{line}");
        for directive in meta["CloudWatchMetrics"].as_array().unwrap() {
            assert_eq!(directive["Namespace"], "Gantry");
            for set in directive["Dimensions"].as_array().unwrap() {
                let names = set.as_array().unwrap();
                assert!(names.len() <= 30);
                for name in names {
                    assert!(line[name.as_str().unwrap()].as_str().is_some_and(|value| !value.is_empty()), "{line}");
                }
            }
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!((1..=100).contains(&metrics.len()), "{line}");
            for metric in metrics {
                assert!(line[metric["Name"].as_str().unwrap()].is_u64(), "{line}");
                let unit = metric["Unit"].as_str().unwrap();
                assert!(["Count", "Bytes", "Milliseconds"].contains(&unit), "{line}");
            }
        }
    }

    fn receipt(import: &Value, state: &str) -> Receipt {
        serde_json::from_value(json!({
            "state": state, "summary": "", "next": "", "schema": 1, "stack": "gantry", "version": "0",
            "upload": {"bucket": "uploads", "key": "k", "version_id": null, "etag": null, "sequencer": null},
            "import": import,
        }))
        .unwrap()
    }

    #[test]
    fn an_import_is_one_line_of_the_embedded_metric_format() {
        let zeroes = format!("sha256:{}", "0".repeat(64));
        let blob = |how: &str, size: u64| json!({"digest": zeroes, "size_bytes": size, "how": how});
        let receipt = receipt(
            &json!({
                "outcome": "imported", "attempt": {"n": 1, "of": 10}, "started_at": "2026-01-01T00:00:00Z",
                "updated_at": "2026-01-01T00:00:02Z", "duration_ms": 2000,
                "layers": {"done": 3, "of": 3, "read_bytes": 500, "sent_bytes": 200},
                "images": [{
                    "repository": "team/app", "tags": ["1"], "digest": zeroes, "uri": "r/team/app:1", "platforms": [],
                    "named_by": "key", "unchanged": false,
                    "blobs": [blob("sent", 200), blob("reused", 30), blob("mounted", 4)],
                }],
            }),
            "imported",
        );
        let line = line(&imported(&receipt));
        check(&line);
        let count = json!({"Name": "Imports", "Unit": "Count"});
        assert_eq!(
            line,
            json!({
                "_aws": {
                    "Timestamp": 1_767_225_600_123_u64,
                    "CloudWatchMetrics": [
                        {"Namespace": "Gantry", "Dimensions": [["stack"]], "Metrics": [
                            count,
                            {"Name": "ImportDuration", "Unit": "Milliseconds"},
                            {"Name": "BytesRead", "Unit": "Bytes"},
                            {"Name": "BytesSent", "Unit": "Bytes"},
                            {"Name": "BytesReused", "Unit": "Bytes"},
                        ]},
                        {"Namespace": "Gantry", "Dimensions": [["stack", "state"]], "Metrics": [count]},
                    ],
                },
                "stack": "gantry", "state": "imported", "Imports": 1, "ImportDuration": 2000, "BytesRead": 500,
                "BytesSent": 200, "BytesReused": 34,
            })
        );
    }

    #[test]
    fn a_failure_is_counted_by_its_kind() {
        let receipt = receipt(
            &json!({
                "outcome": "failed", "attempt": {"n": 1, "of": 10}, "started_at": "2026-01-01T00:00:00Z",
                "updated_at": "2026-01-01T00:00:00Z", "duration_ms": 0,
                "reason": {"kind": "archive", "text": "", "fix": "", "upload_again_helps": false},
            }),
            "failed",
        );
        for line in [line(&imported(&receipt)), line(&failed("failed", "archive"))] {
            check(&line);
            assert_eq!(
                (&line["Failures"], &line["kind"], &line["state"]),
                (&json!(1), &json!("archive"), &json!("failed"))
            );
            let last = line["_aws"]["CloudWatchMetrics"].as_array().unwrap().last().unwrap();
            assert_eq!(last["Dimensions"], json!([["stack", "kind"]]));
            assert_eq!(last["Metrics"], json!([{"Name": "Failures", "Unit": "Count"}]));
        }
    }
}
