//! Object tags on the upload: `gantry=<state>` and `gantry-digest=sha256:…`, merged with the uploader's own.
//!
//! A courtesy for people and lifecycle rules: they decide nothing, and failing to set them fails nothing.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{Tag, Tagging};

use super::{State, UploadId};
use crate::aws::CallError;
use crate::disposition::chain;
use crate::image::Digest;

/// The state.
const STATE: &str = "gantry";
/// The digest of the first image.
const DIGEST: &str = "gantry-digest";
/// S3 takes at most ten tags on an object (S3 user guide, "Object tagging").
const MOST: usize = 10;

pub(super) async fn set(client: &Client, upload: &UploadId, state: State, digest: Option<Digest>) {
    if let Err(error) = try_set(client, upload, state, digest).await {
        tracing::warn!(s3.key = upload.key, error = chain(&error), "the object tags could not be set");
    }
}

async fn try_set(client: &Client, upload: &UploadId, state: State, digest: Option<Digest>) -> Result<(), CallError> {
    let resource = || format!("s3://{}/{}", upload.bucket, upload.key);
    let known = client
        .get_object_tagging()
        .bucket(&upload.bucket)
        .key(&upload.key)
        .set_version_id(upload.version_id.clone())
        .send()
        .await
        .map_err(|error| CallError::new("s3:GetObjectVersionTagging", resource(), error))?;
    // PutObjectTagging replaces the whole set, so the uploader's own tags are put again.
    let own = known.tag_set().iter().filter(|tag| tag.key() != STATE && tag.key() != DIGEST);
    let mut tags: Vec<Tag> = own.cloned().collect();
    let ours = [Some((STATE, state.as_str().to_owned())), digest.map(|digest| (DIGEST, digest.to_string()))];
    for (key, value) in ours.into_iter().flatten() {
        if tags.len() < MOST
            && let Ok(tag) = Tag::builder().key(key).value(value).build()
        {
            tags.push(tag);
        }
    }
    // Every tag that was pushed has a key and a value.
    let Ok(tagging) = Tagging::builder().set_tag_set(Some(tags)).build() else { return Ok(()) };
    client
        .put_object_tagging()
        .bucket(&upload.bucket)
        .key(&upload.key)
        .set_version_id(upload.version_id.clone())
        .tagging(tagging)
        .send()
        .await
        .map_err(|error| CallError::new("s3:PutObjectVersionTagging", resource(), error))?;
    Ok(())
}
