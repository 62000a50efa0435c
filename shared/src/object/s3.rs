//! The object in S3: one HEAD pins the version, every range names it.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use futures::{StreamExt as _, stream};
use tokio::time::Instant;

use super::{Body, ObjectError, ObjectId, Source};
use crate::aws::CallError;
use crate::limits;

/// What HEAD tells of the pinned version.
#[derive(Debug, Clone)]
pub struct Head {
    /// In bytes.
    pub length_bytes: u64,
    /// With quotes, as `If-Match` wants it.
    pub etag: String,
    /// The user metadata: names lower case, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
}

/// Whether a version is still the one that counts under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Current {
    /// It is.
    Yes,
    /// A newer version is; its id.
    Newer(String),
    /// The key was deleted.
    Deleted,
}

/// One version of one object, or in a bucket without versions one entity tag of it.
#[derive(Debug, Clone)]
pub struct S3Object {
    client: Client,
    id: ObjectId,
    head: Head,
}

impl S3Object {
    /// Asks for the length, entity tag and metadata of `id`. One request.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Gone`] and [`ObjectError::Archived`] (permanent), [`ObjectError::Call`] (transient).
    pub async fn open(client: &Client, id: ObjectId) -> Result<Self, ObjectError> {
        let request = client.head_object().bucket(&id.bucket).key(&id.key).set_version_id(id.version_id.clone());
        let head = match request.send().await {
            Ok(head) => head,
            Err(error) if is_absent(&error) => return Err(ObjectError::Gone { object: id }),
            Err(error) => return Err(CallError::new(get_action(&id), id.to_string(), error).into()),
        };
        // S3 names the storage class only when it is not STANDARD; a restored copy says so in x-amz-restore.
        let class = head.storage_class().map(|class| class.as_str().to_owned()).unwrap_or_default();
        let restored = head.restore().is_some_and(|restore| restore.contains("ongoing-request=\"false\""));
        if matches!(class.as_str(), "GLACIER" | "DEEP_ARCHIVE") && !restored {
            return Err(ObjectError::Archived { object: id, class });
        }
        let metadata = head.metadata().cloned().unwrap_or_default();
        let head = Head {
            length_bytes: head.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
            etag: quoted(head.e_tag().unwrap_or_default()),
            metadata: metadata.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect(),
        };
        Ok(Self { client: client.clone(), id, head })
    }

    /// Bucket, key and version.
    pub fn id(&self) -> &ObjectId {
        &self.id
    }

    /// Length, entity tag, metadata.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whether this version is still the one that counts: a HEAD without version id, since one with it never
    /// notices a newer version.
    ///
    /// # Errors
    ///
    /// [`ObjectError::Call`] (transient).
    pub async fn current(&self) -> Result<Current, ObjectError> {
        let request = self.client.head_object().bucket(&self.id.bucket).key(&self.id.key);
        match request.send().await {
            Ok(head) => {
                let newer = match (&self.id.version_id, head.version_id()) {
                    (Some(ours), Some(now)) => ours != now,
                    _ => quoted(head.e_tag().unwrap_or_default()) != self.head.etag,
                };
                let name = || head.version_id().or(head.e_tag()).unwrap_or("unknown").to_owned();
                Ok(if newer { Current::Newer(name()) } else { Current::Yes })
            }
            Err(error) if is_absent(&error) => Ok(Current::Deleted),
            Err(error) => Err(CallError::new("s3:GetObject", self.id.to_string(), error).into()),
        }
    }
}

/// The action that S3 checks: with a version id only `GetObjectVersion`, without one only `GetObject`.
fn get_action(id: &ObjectId) -> &'static str {
    if id.version_id.is_some() { "s3:GetObjectVersion" } else { "s3:GetObject" }
}

/// No such key or version. A HEAD has no body, so there is only the status; 405 is a delete marker's own version.
fn is_absent<R>(error: &SdkError<HeadObjectError, R>) -> bool
where
    R: StatusOf,
{
    match error {
        SdkError::ServiceError(service) => matches!(service.raw().status_code(), 404 | 405),
        _ => false,
    }
}

/// The status of a raw answer.
trait StatusOf {
    fn status_code(&self) -> u16;
}

impl StatusOf for aws_smithy_runtime_api::client::orchestrator::HttpResponse {
    fn status_code(&self) -> u16 {
        self.status().as_u16()
    }
}

/// Events give entity tags without quotes, answers with them, and `If-Match` wants them.
fn quoted(etag: &str) -> String {
    format!("\"{}\"", etag.trim_matches('"'))
}

impl Source for S3Object {
    fn length_bytes(&self) -> u64 {
        self.head.length_bytes
    }

    async fn get(&self, offset: u64, length: u64) -> Result<Body, ObjectError> {
        let last = offset.saturating_add(length).saturating_sub(1);
        let request = self
            .client
            .get_object()
            .bucket(&self.id.bucket)
            .key(&self.id.key)
            .set_version_id(self.id.version_id.clone())
            .if_match(&self.head.etag)
            .range(format!("bytes={offset}-{last}"));
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let object = self.id.clone();
                let call = CallError::new(get_action(&self.id), self.id.to_string(), error);
                return Err(match (call.status, call.code.as_deref()) {
                    (Some(412), _) => ObjectError::Changed { object },
                    (_, Some("NoSuchKey" | "NoSuchVersion")) => ObjectError::Gone { object },
                    (_, Some("InvalidObjectState")) => ObjectError::Archived { object, class: "archive".to_owned() },
                    _ => ObjectError::Call(call),
                });
            }
        };
        // The SDK notices a body that stands still, and not one that drips.
        let budget = limits::RANGE_TIMEOUT + Duration::from_secs(length / limits::RANGE_BYTES_A_SECOND);
        let chunks = stream::try_unfold((answer.body, budget), |(mut body, left)| async move {
            let asked = Instant::now();
            match tokio::time::timeout(left, body.next()).await {
                // Only waiting counts: whoever reads may take its time.
                Ok(Some(Ok(chunk))) => Ok(Some((chunk, (body, left.saturating_sub(asked.elapsed()))))),
                Ok(Some(Err(error))) => Err(ObjectError::Broken(Box::new(error))),
                Ok(None) => Ok(None),
                Err(slow) => Err(ObjectError::Broken(Box::new(slow))),
            }
        });
        Ok(chunks.boxed())
    }
}
