//! Images that were pushed: what ECR tells of every client's push, and what import tells of its own.
//!
//! ECR's events are best effort: they may come twice, late, or never (EventBridge reference, "Amazon ECR events"). Import's
//! own event brings the same question again once its receipt is written, so a push that ECR did not tell of is looked
//! at all the same.

use serde::Deserialize;
use serde_json::Value;

use super::image_name::{lenient, optional, repository};
use super::{Event, EventError, detail, kind_of, other};
use crate::image::{Digest, Repository, Tag};
use crate::notify::{IMAGE_IMPORTED, SOURCE};

/// One manifest that was put, or tagged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePushed {
    /// Where.
    pub repository: Repository,
    /// What; ECR's schema leaves it optional.
    pub digest: Option<Digest>,
    /// Under which tag; absent for a push by digest.
    pub tag: Option<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Action {
    #[serde(rename = "action-type")]
    kind: String,
    result: String,
    #[serde(deserialize_with = "repository")]
    repository_name: Repository,
    #[serde(default, deserialize_with = "optional")]
    image_digest: Option<Digest>,
    #[serde(default, deserialize_with = "lenient")]
    image_tag: Option<Tag>,
}

#[derive(Deserialize)]
struct Imported {
    image: ImportedImage,
}

#[derive(Deserialize)]
struct ImportedImage {
    repository: Repository,
    digest: Digest,
}

/// Reads an EventBridge event.
///
/// # Errors
///
/// [`EventError::Malformed`]; permanent.
pub fn parse(event: &Value) -> Result<Event<ImagePushed>, EventError> {
    match kind_of(event) {
        Some(("aws.ecr", "ECR Image Action")) => {
            let action: Action = detail(event, "ECR Image Action")?;
            let Action { kind, result, repository_name: repository, image_digest: digest, image_tag: tag } = action;
            if (kind.as_str(), result.as_str()) != ("PUSH", "SUCCESS") {
                return Ok(Event::Other(format!("an image action {kind} with the result {result}")));
            }
            if digest.is_none() && tag.is_none() {
                return Ok(Event::Other(format!("a push to {repository} without digest and tag")));
            }
            Ok(Event::Known(ImagePushed { repository, digest, tag }))
        }
        Some((SOURCE, IMAGE_IMPORTED)) => {
            let Imported { image } = detail(event, IMAGE_IMPORTED)?;
            Ok(Event::Known(ImagePushed { repository: image.repository, digest: Some(image.digest), tag: None }))
        }
        _ => Ok(other(event)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:3014637776d42a85266a46eecaa689d23eed6e49a3cea1f282afce1001b796c7";

    fn action(detail: &Value) -> Value {
        json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": detail})
    }

    #[test]
    fn pushes_are_read_with_and_without_tag_and_digest() {
        for (digest, tag, wanted_tag) in [
            (json!(DIGEST), json!("1.0"), Some("1.0")),
            (json!(DIGEST), json!(""), None),
            (json!(DIGEST), Value::Null, None),
            (json!(DIGEST), json!("t".repeat(300)), None),
            (Value::Null, json!("1.0"), Some("1.0")),
        ] {
            let event = action(&json!({"result": "SUCCESS", "action-type": "PUSH", "repository-name": "team/app",
                "image-digest": digest, "image-tag": tag}));
            let Event::Known(pushed) = parse(&event).unwrap() else { panic!("not understood: {event}") };
            assert_eq!(pushed.repository.as_str(), "team/app");
            assert_eq!(pushed.digest.map(|digest| digest.to_string()).as_deref(), digest.as_str(), "{event}");
            assert_eq!(pushed.tag.as_ref().map(Tag::as_str), wanted_tag, "{event}");
        }
        let ours = json!({"source": "gantry", "detail-type": "Image Imported",
            "detail": {"image": {"repository": "team/app", "digest": DIGEST, "tags": ["1.0"]}}});
        assert!(matches!(parse(&ours).unwrap(), Event::Known(_)));
    }

    #[test]
    fn what_is_no_push_is_named() {
        for (detail, name) in [
            (json!({"result": "SUCCESS", "action-type": "DELETE", "repository-name": "a/b"}), "an image action DELETE"),
            (json!({"result": "FAILURE", "action-type": "PUSH", "repository-name": "a/b"}), "with the result FAILURE"),
            (json!({"result": "SUCCESS", "action-type": "PUSH", "repository-name": "a/b"}), "without digest and tag"),
        ] {
            let Event::Other(found) = parse(&action(&detail)).unwrap() else { panic!("{name} was taken") };
            assert!(found.contains(name), "{found}");
        }
    }

    #[test]
    fn a_digest_that_is_none_is_an_error() {
        let detail = json!({"result": "SUCCESS", "action-type": "PUSH", "repository-name": "a/b",
            "image-digest": "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd1234"});
        let error = parse(&action(&detail)).unwrap_err();
        assert_eq!(crate::disposition::chain(&error).matches("wanted 64 lower-case hex digits").count(), 1, "{error}");
    }
}
