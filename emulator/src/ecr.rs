//! The ECR control API: JSON 1.1, one operation per request, named in `X-Amz-Target`.
//!
//! Names, limits, exceptions and their texts are those of the ECR API reference.

mod account;
mod error;
mod image_id;
mod images;
mod layers;
mod lifecycle;
mod policies;
mod repositories;
mod scans;
mod tags;

use std::sync::Arc;

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    ecr::error::ApiError,
    iam::Gate,
    images::{Images, Repository, repository_arn},
    wire::{Answer, Caller, Request, json_1_1},
};

/// A manifest of 4 MiB, escaped as JSON, and the rest of the request.
const MAX_REQUEST_BYTES: usize = 32 << 20;

/// What every target begins with.
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.";

/// The ECR control API over an image store.
#[derive(Debug)]
pub struct Ecr {
    images: Arc<Images>,
    gate: Arc<Gate>,
    events: UnboundedSender<Value>,
    /// `http://HOST:PORT`
    endpoint: String,
}

/// One call: who makes it, and its parameters.
#[derive(Debug)]
struct Call {
    caller: Caller,
    input: Value,
}

impl Call {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        T::deserialize(&self.input).map_err(|error| ApiError::new("SerializationException", error.to_string()))
    }
}

type Output = Result<Value, ApiError>;

impl Ecr {
    /// Speaks for `images` at `endpoint` (`http://HOST:PORT`), where the registry API is too.
    ///
    /// Images that are put or deleted are announced to `events` as `ECR Image Action`.
    pub fn new(images: Arc<Images>, gate: Arc<Gate>, events: UnboundedSender<Value>, endpoint: &str) -> Self {
        Self { images, gate, events, endpoint: endpoint.to_owned() }
    }

    /// Answers one call of `caller`, whose signature was checked before.
    ///
    /// # Errors
    ///
    /// None; the type is that of all services.
    pub async fn handle(&self, caller: Caller, request: Request) -> Answer {
        let (parts, body) = request.into_parts();
        let operation = parts
            .headers
            .get("x-amz-target")
            .and_then(|target| target.to_str().ok())
            .and_then(|target| target.strip_prefix(TARGET))
            .unwrap_or_default()
            .to_owned();
        let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
        let answer = match body.map(|body| serde_json::from_slice(&body.to_bytes())) {
            Ok(Ok(input)) => self.answer(&operation, &Call { caller, input }),
            Ok(Err(error)) => Err(ApiError::new("SerializationException", error.to_string())),
            Err(error) => Err(ApiError::new("SerializationException", error.to_string())),
        };
        Ok(match answer {
            Ok(output) => json_1_1(StatusCode::OK, &output),
            Err(error) => json_1_1(error.status(), &error.body()),
        })
    }

    fn answer(&self, operation: &str, call: &Call) -> Output {
        match operation {
            "GetAuthorizationToken" => self.authorization_token(call),
            "GetAccountSetting" => self.account_setting(call),
            "PutAccountSetting" => self.put_account_setting(call),
            "CreateRepository" => self.create_repository(call),
            "DescribeRepositories" => self.describe_repositories(call),
            "DeleteRepository" => self.delete_repository(call),
            "PutImageTagMutability" => self.put_image_tag_mutability(call),
            "PutImageScanningConfiguration" => self.put_image_scanning_configuration(call),
            "DescribeImages" => self.describe_images(call),
            "ListImages" => self.list_images(call),
            "BatchGetImage" => self.batch_get_image(call),
            "BatchDeleteImage" => self.batch_delete_image(call),
            "BatchCheckLayerAvailability" => self.batch_check_layer_availability(call),
            "GetDownloadUrlForLayer" => self.download_url_for_layer(call),
            "PutImage" => self.put_image(call),
            "DescribeImageScanFindings" => self.describe_image_scan_findings(call),
            "StartImageScan" => self.start_image_scan(call),
            "GetRegistryScanningConfiguration" => self.registry_scanning_configuration(call),
            "PutRegistryScanningConfiguration" => self.put_registry_scanning_configuration(call),
            "PutLifecyclePolicy" => self.put_lifecycle_policy(call),
            "GetLifecyclePolicy" => self.lifecycle_policy(call),
            "SetRepositoryPolicy" => self.set_repository_policy(call),
            "GetRepositoryPolicy" => self.repository_policy(call),
            "TagResource" => self.tag_resource(call),
            "UntagResource" => self.untag_resource(call),
            "ListTagsForResource" => self.list_tags_for_resource(call),
            _ => {
                tracing::warn!(operation, "ECR operation is not implemented");
                Err(ApiError::new(
                    "UnknownOperationException",
                    format!("The embedded ECR has no operation {operation:?}."),
                ))
            }
        }
    }

    /// Asks for an action that has no resource.
    fn authorize_account(&self, call: &Call, action: &str) -> Result<(), ApiError> {
        Ok(self.gate.check(&call.caller, action, "*", &[])?)
    }

    /// Asks for an action on a repository, whose tags are condition keys.
    fn authorize(&self, call: &Call, action: &str, repository: &str) -> Result<(), ApiError> {
        let context = self.images.read(repository, Repository::context).unwrap_or_default();
        let resource = repository_arn(repository);
        Ok(self.gate.check(&call.caller, action, &resource, &context)?)
    }

    /// Looks at a repository that must exist.
    fn look<T>(&self, repository: &str, look: impl FnOnce(&Repository) -> T) -> Result<T, ApiError> {
        Ok(self.images.read(repository, look)?)
    }

    /// Changes a repository that must exist.
    fn change<T>(&self, repository: &str, change: impl FnOnce(&mut Repository) -> T) -> Result<T, ApiError> {
        self.images.update(repository, |repository| Ok(change(repository)))
    }
}

/// A time as JSON 1.1 has it: seconds since 1970, with milliseconds.
fn epoch(time: Timestamp) -> Value {
    let milliseconds = SignedDuration::from_millis(time.as_millisecond());
    json!(milliseconds.as_secs_f64())
}

/// `maxResults`: 1 to 1,000, and 100 unless it says otherwise.
fn limit(max_results: Option<usize>) -> Result<usize, ApiError> {
    let limit = max_results.unwrap_or(100);
    if (1..=1000).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::invalid("maxResults", "Member must have value between 1 and 1000"))
}

/// One page of `items`: those after the one that `token` names, at most `limit`, and the next token.
///
/// Tokens are the items' own names.
fn page<T>(items: Vec<T>, token: Option<&str>, limit: usize, name: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let mut later: Vec<T> =
        items.into_iter().filter(|item| token.is_none_or(|token| name(item).as_str() > token)).collect();
    if later.len() <= limit {
        return (later, None);
    }
    later.truncate(limit);
    let next = later.last().map(name);
    (later, next)
}

#[cfg(test)]
mod tests_support {
    use std::path::Path;

    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;

    /// An API over an empty store in `folder`, to be called by the user.
    pub(super) fn ecr(folder: &Path) -> Ecr {
        ecr_and_events(folder).0
    }

    /// The same, and what it announces.
    pub(super) fn ecr_and_events(folder: &Path) -> (Ecr, UnboundedReceiver<Value>) {
        let images = Arc::new(Images::open(folder.to_owned(), None).unwrap());
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let gate = Arc::new(Gate::new(Vec::new()));
        (Ecr::new(images, gate, sender, "http://127.0.0.1:1"), events)
    }

    /// Puts an image of one layer with the text `layer` into the repository `ab`; its manifest.
    pub(super) fn put_image(ecr: &Ecr, layer: &str, tag: Option<&str>) -> String {
        let manifest = manifest(ecr, layer);
        let mut input = json!({"repositoryName": "ab", "imageManifest": manifest});
        if let Some(tag) = tag {
            input["imageTag"] = json!(tag);
        }
        ecr.put_image(&call(input)).unwrap();
        manifest
    }

    /// The manifest of an image of one layer, whose blobs are in the repository `ab`.
    pub(super) fn manifest(ecr: &Ecr, layer: &str) -> String {
        let descriptor = |media_type: &str, text: &str| {
            let digest = crate::images::tests::blob(&ecr.images, "ab", text).to_string();
            json!({"mediaType": media_type, "digest": digest, "size": text.len()})
        };
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", "config"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        })
        .to_string()
    }

    pub(super) fn call(input: Value) -> Call {
        Call { caller: Caller::User, input }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_everything_once() {
        let items = || vec!["a", "b", "c", "d", "e"];
        for limit in 1..=6 {
            let mut seen = Vec::new();
            let mut token = None;
            loop {
                let (page, next) = page(items(), token.as_deref(), limit, |item| (*item).to_owned());
                assert!(page.len() <= limit);
                seen.extend(page);
                token = next;
                if token.is_none() {
                    break;
                }
            }
            assert_eq!(seen, items(), "by {limit}");
        }
    }

    #[test]
    fn times_are_numbers() {
        let time: Timestamp = "2026-11-23T22:20:00.500999Z".parse().unwrap();
        assert_eq!(epoch(time), json!(1_795_472_400.5));
    }
}
