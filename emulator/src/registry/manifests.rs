//! Manifests, tags and referrers.

use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;

use crate::{
    images::{self, Digest, Image, MAX_MANIFEST_BYTES, NewImage, PutError, Repository},
    registry::{
        Call, Registry, json_response, of_store,
        problem::{Failure, Problem},
    },
    wire::{Body, Response, empty, full},
};

/// ECR lists this many tags at once unless asked for fewer.
const TAGS_PER_PAGE: usize = 1000;

impl Registry {
    /// `GET` and `HEAD` of a manifest, by tag or digest: its exact bytes and stored type.
    pub(super) fn manifest(&self, call: &Call, repository: &str, reference: &str) -> Result<Response, Failure> {
        self.authorize(call, "ecr:BatchGetImage", repository)?;
        self.exists(repository)?;
        let (digest, image) = self
            .images
            .image(repository, reference)
            .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "Requested image not found"))?;
        let body = if call.parts.method == Method::HEAD {
            empty()
        } else {
            let bytes = self.images.manifest_bytes(&digest).map_err(|error| of_store(&error))?;
            full(bytes)
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, image.manifest_bytes.into());
        insert(headers, "content-type", &image.media_type);
        insert(headers, "docker-content-digest", &digest.to_string());
        Ok(response)
    }

    /// `PUT` of a manifest. The answer has no `Location`.
    pub(super) async fn put_manifest(
        &self,
        call: &Call,
        repository: &str,
        reference: &str,
        body: &mut Body,
    ) -> Result<Response, Failure> {
        self.authorize(call, "ecr:PutImage", repository)?;
        self.exists(repository)?;
        let digest = reference.parse::<Digest>().ok();
        if digest.is_none() && !images::is_tag(reference) {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "TAG_INVALID",
                &format!(
                    "Invalid parameter at 'imageTag' failed to satisfy constraint: 'The tag {reference} is not valid'"
                ),
            )
            .into());
        }
        // One byte more than allowed, so that what is too large is seen to be.
        let bytes = Limited::new(body, MAX_MANIFEST_BYTES + 1)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Failure::Problem(of_put(&images::Refusal::TooLarge.into()))
                } else {
                    Failure::Dropped
                }
            })?
            .to_bytes();
        let tag = digest.is_none().then_some(reference);
        let put = self
            .images
            .put(NewImage { repository, bytes: &bytes, media_type: call.header(header::CONTENT_TYPE), tag, digest })
            .map_err(|error| of_put(&error))?;
        for event in self.images.events_of(repository, &put, tag) {
            // Nobody listens while the stack is being stopped.
            drop(self.events.send(event));
        }
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::CREATED;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        insert(headers, "docker-content-digest", &put.digest.to_string());
        if let Some(subject) = &put.image.subject {
            insert(headers, "oci-subject", &subject.to_string());
        }
        Ok(response)
    }

    /// `GET …/tags/list`, in pages.
    pub(super) fn tags(&self, call: &Call, repository: &str) -> Result<Response, Failure> {
        self.authorize(call, "ecr:ListImages", repository)?;
        let limit =
            call.query("n").and_then(|limit| limit.parse().ok()).unwrap_or(TAGS_PER_PAGE).clamp(1, TAGS_PER_PAGE);
        let last = call.query("last").unwrap_or_default();
        let mut tags: Vec<String> = self
            .images
            .read(repository, |repository| {
                let later = repository.tags.keys().filter(|tag| **tag > last);
                later.take(limit + 1).cloned().collect()
            })
            .map_err(|error| of_store(&error))?;
        let more = tags.len() > limit;
        tags.truncate(limit);
        let mut response = json_response(json!({"name": repository, "tags": tags}).to_string());
        if let Some(last) = tags.last().filter(|_| more) {
            let link = format!("</v2/{repository}/tags/list?last={last}&n={limit}>; rel=\"next\"");
            insert(response.headers_mut(), "link", &link);
        }
        Ok(response)
    }

    /// `GET …/referrers/DIGEST`: the manifests whose subject it is.
    pub(super) fn referrers(&self, call: &Call, repository: &str, digest: &Digest) -> Result<Response, Failure> {
        self.authorize(call, "ecr:BatchGetImage", repository)?;
        let wanted = call.query("artifactType");
        let referrers = |repository: &Repository| -> Vec<serde_json::Value> {
            repository
                .images
                .iter()
                .filter(|(_, image)| image.subject == Some(*digest))
                .filter(|(_, image)| wanted.is_none() || image.artifact_media_type == wanted)
                .map(|(digest, image)| descriptor(digest, image))
                .collect()
        };
        let manifests = self.images.read(repository, referrers).map_err(|error| of_store(&error))?;
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        let mut response = json_response(index.to_string());
        let headers = response.headers_mut();
        insert(headers, "content-type", media_type);
        if wanted.is_some() {
            insert(headers, "oci-filters-applied", "artifactType");
        }
        Ok(response)
    }
}

fn descriptor(digest: &Digest, image: &Image) -> serde_json::Value {
    let mut descriptor = json!({
        "mediaType": image.media_type,
        "digest": digest.to_string(),
        "size": image.manifest_bytes,
    });
    if let Some(artifact_type) = &image.artifact_media_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if !image.annotations.is_empty() {
        descriptor["annotations"] = json!(image.annotations);
    }
    descriptor
}

fn insert(headers: &mut http::HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// The status and code that ECR gives a refused manifest.
fn of_put(error: &PutError) -> Problem {
    let (status, code) = match error {
        PutError::Throttled => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        PutError::Refused(_) => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        PutError::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        PutError::TagImmutable { .. } => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
        PutError::LayersMissing { .. } | PutError::ChildrenMissing { .. } => {
            (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN")
        }
        PutError::Store(error) => return of_store(error),
    };
    Problem::new(status, code, &error.to_string())
}
