//! How calls name images: by tag, digest, or both.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    account,
    ecr::error::ApiError,
    images::{Digest, Repository},
};

/// ECR API reference, `BatchGetImage` and its like.
const MAX_IDS: usize = 100;

/// A tag, a digest, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageId {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
}

impl ImageId {
    /// As ECR's exceptions write it.
    pub(super) fn text(&self) -> String {
        format!(
            "{{imageDigest:'{}', imageTag:'{}'}}",
            self.image_digest.as_deref().unwrap_or("null"),
            self.image_tag.as_deref().unwrap_or("null")
        )
    }
}

/// Refuses more ids than ECR takes at once, and none.
pub(super) fn check_count(ids: &[ImageId]) -> Result<(), ApiError> {
    if (1..=MAX_IDS).contains(&ids.len()) {
        return Ok(());
    }
    Err(ApiError::invalid("imageIds", "Member must have length between 1 and 100"))
}

/// A name to sort and page by.
pub(super) fn id_name(id: &ImageId) -> String {
    format!("{}@{}", id.image_digest.as_deref().unwrap_or_default(), id.image_tag.as_deref().unwrap_or_default())
}

/// The image that an id means; with a tag and a digest, they must agree.
pub(super) fn find(repository: &Repository, id: &ImageId) -> Option<Digest> {
    let by_digest = match &id.image_digest {
        Some(digest) => Some(repository.resolve(digest)?),
        None => None,
    };
    let by_tag = match &id.image_tag {
        Some(tag) => Some(*repository.tags.get(tag)?),
        None => None,
    };
    match (by_digest, by_tag) {
        (Some(digest), Some(tagged)) => (digest == tagged).then_some(digest),
        (digest, tagged) => digest.or(tagged),
    }
}

/// The exception for an image that is not there.
pub(super) fn not_found(repository: &Repository, id: &ImageId) -> ApiError {
    ApiError::new(
        "ImageNotFoundException",
        format!(
            "The image with imageId {} does not exist within the repository with name '{}' in the registry with id '{}'",
            id.text(),
            repository.name,
            account::ID
        ),
    )
}

/// The entry in `failures` for an id that means no image, or one that the caller cannot have.
///
/// The codes are those of the ECR API reference, `ImageFailure`.
pub(super) fn failure(repository: &Repository, id: &ImageId) -> Value {
    let (code, reason) = match (&id.image_digest, &id.image_tag) {
        (None, None) => ("MissingDigestAndTag", "Image identifier must contain either an image digest or an image tag"),
        (Some(digest), _) if digest.parse::<Digest>().is_err() => (
            "InvalidImageDigest",
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
        ),
        (Some(digest), Some(tag)) if repository.resolve(digest).is_some() && repository.tags.contains_key(tag) => {
            ("ImageTagDoesNotMatchDigest", "Tag does not match digest")
        }
        _ => ("ImageNotFound", "Requested image not found"),
    };
    json!({ "imageId": id, "failureCode": code, "failureReason": reason })
}
