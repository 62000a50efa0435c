//! Scans, and what else makes a verdict worth another look: a changed policy, a release by hand.
//!
//! An event only says *look*: findings are read as they are then. Basic scanning tells of a finished scan; Inspector of
//! the initial scan, of every finding that comes, changes or goes, and of images that it will never scan.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::image_name::{in_image_arn, repository};
use super::{Event, EventError, ObjectCreated, detail, kind_of, object, other};
use crate::image::{Digest, Repository};
use crate::react::policy;
use crate::react::release;

/// What a verdict may depend on has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanChanged {
    /// The scan or the findings of one image.
    Image {
        /// Where.
        repository: Repository,
        /// Which; never an index, which is not scanned.
        digest: Digest,
        /// When it was told; whatever was read well after that has it.
        at: Option<Timestamp>,
        /// Whether it says that the image was scanned.
        ended: bool,
    },
    /// The policy file.
    Policy,
    /// Somebody released an image by hand.
    Released {
        /// Where.
        repository: Repository,
        /// Which.
        digest: Digest,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Scan {
    #[serde(deserialize_with = "repository")]
    repository_name: Repository,
    image_digest: Digest,
}

/// Reads an EventBridge event. `state_bucket` is the one bucket whose objects count.
///
/// # Errors
///
/// [`EventError::Malformed`]; permanent.
pub fn parse(event: &Value, state_bucket: &str) -> Result<Event<ScanChanged>, EventError> {
    let at = event.get("time").and_then(Value::as_str).and_then(|time| time.parse().ok());
    match kind_of(event) {
        Some(("aws.ecr", "ECR Image Scan")) => {
            let Scan { repository_name: repository, image_digest: digest } = detail(event, "ECR Image Scan")?;
            Ok(Event::Known(ScanChanged::Image { repository, digest, at, ended: true }))
        }
        // Inspector tells of instances and functions under the same name.
        Some(("aws.inspector2", "Inspector2 Scan")) if event.pointer("/detail/repository-name").is_some() => {
            let Scan { repository_name: repository, image_digest: digest } = detail(event, "Inspector2 Scan")?;
            Ok(Event::Known(ScanChanged::Image { repository, digest, at, ended: true }))
        }
        Some(("aws.inspector2", kind @ ("Inspector2 Finding" | "Inspector2 Coverage"))) => {
            // Coverage changes before the first scan, too.
            let ended = kind == "Inspector2 Finding";
            let resources = event.get("resources").and_then(Value::as_array);
            let mut arns = resources.into_iter().flatten().filter_map(Value::as_str);
            Ok(match arns.find_map(in_image_arn) {
                Some((repository, digest)) => Event::Known(ScanChanged::Image { repository, digest, at, ended }),
                None => other(event),
            })
        }
        Some(("aws.s3", "Object Created")) => of_object(event, state_bucket),
        _ => Ok(other(event)),
    }
}

fn of_object(event: &Value, state_bucket: &str) -> Result<Event<ScanChanged>, EventError> {
    let Event::Known(created) = object::parse(event.clone())? else { return Ok(other(event)) };
    Ok(match created.into_iter().find(|object| object.bucket == state_bucket) {
        Some(ObjectCreated { key, .. }) if key == policy::KEY => Event::Known(ScanChanged::Policy),
        Some(ObjectCreated { key, .. }) => match release::by_hand(&key) {
            Some((repository, digest)) => Event::Known(ScanChanged::Released { repository, digest }),
            None => Event::Other(format!("the object {key:?} of the state bucket, which nobody waits for")),
        },
        None => Event::Other("an object of another bucket".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:3014637776d42a85266a46eecaa689d23eed6e49a3cea1f282afce1001b796c7";
    const ARN: &str = "arn:aws:ecr:us-east-1:123456789012:repository/team/app";

    fn event(source: &str, kind: &str, resource: &str, detail: &Value) -> Value {
        json!({"source": source, "detail-type": kind, "time": "2026-11-12T00:00:34Z", "resources": [resource],
            "detail": detail})
    }

    #[test]
    fn every_scanner_s_events_name_the_image() {
        let name = json!({"repository-name": "team/app", "image-digest": DIGEST, "scan-status": "FAILED"});
        let arn = json!({"repository-name": ARN, "image-digest": DIGEST, "finding-severity-counts": {"TOTAL": 3}});
        let image = format!("{ARN}/{DIGEST}");
        for event in [
            event("aws.ecr", "ECR Image Scan", ARN, &name),
            event("aws.inspector2", "Inspector2 Scan", ARN, &arn),
            event("aws.inspector2", "Inspector2 Finding", &image, &json!({"status": "CLOSED"})),
            event("aws.inspector2", "Inspector2 Coverage", &image, &json!({})),
        ] {
            let Event::Known(ScanChanged::Image { repository, digest, at, ended }) = parse(&event, "state").unwrap()
            else {
                panic!("not understood: {event}")
            };
            assert_eq!(ended, event["detail-type"] != "Inspector2 Coverage", "{event}");
            assert_eq!((repository.as_str(), digest.to_string().as_str()), ("team/app", DIGEST));
            assert_eq!(at.unwrap().to_string(), "2026-11-12T00:00:34Z");
        }
    }

    #[test]
    fn objects_of_the_state_bucket_are_told_apart() {
        let object = |bucket: &str, key: &str| {
            event("aws.s3", "Object Created", "", &json!({"bucket": {"name": bucket}, "object": {"key": key}}))
        };
        assert_eq!(parse(&object("state", "policy.toml"), "state").unwrap(), Event::Known(ScanChanged::Policy));
        let by_hand = parse(&object("state", &format!("releases/team/app/{DIGEST}")), "state").unwrap();
        assert!(matches!(by_hand, Event::Known(ScanChanged::Released { .. })), "{by_hand:?}");
        for (bucket, key) in [("state", "images/a/b.json"), ("uploads", "policy.toml"), ("state", "releases/x")] {
            assert!(matches!(parse(&object(bucket, key), "state").unwrap(), Event::Other(_)), "{bucket} {key}");
        }
    }

    #[test]
    fn what_is_no_image_s_scan_is_named_or_refused() {
        for event in [
            event("aws.inspector2", "Inspector2 Scan", "", &json!({"instance-id": "i-1"})),
            event(
                "aws.inspector2",
                "Inspector2 Finding",
                "arn:aws:ec2:us-east-1:123456789012:instance/i-1",
                &json!({}),
            ),
            event("aws.inspector2", "Inspector2 Coverage", ARN, &json!({})),
            event("aws.ecr", "ECR Replication Action", "", &json!({})),
        ] {
            assert!(matches!(parse(&event, "state").unwrap(), Event::Other(_)), "{event}");
        }
        let malformed = event("aws.ecr", "ECR Image Scan", "", &json!({"repository-name": "team/app"}));
        assert_eq!(
            parse(&malformed, "state").unwrap_err().to_string(),
            "the event is named ECR Image Scan but does not read as one"
        );
    }
}
