//! The S3 endpoint: versions, tags, conditional writes, multipart uploads, signed requests.
//!
//! The s3s crate speaks the protocol and verifies signatures; what is ours is the store and what
//! each operation does to it.

mod access;
mod copying;
mod listing;
mod multipart;
mod operations;
mod reading;
mod store;
mod sums;
mod tagging;
#[cfg(test)]
mod tests;
mod uploads;
mod writing;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use http::HeaderValue;
use http_body_util::BodyExt;
use s3s::service::{S3Service, S3ServiceBuilder};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use crate::{
    iam::Gate,
    s3::{access::Access, operations::Operations, store::Bucket},
    wire::{Answer, Dropped, Request},
};

/// What a bucket is, as the template has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// The physical name.
    pub name: String,
    /// Whether versions are kept.
    pub versioned: bool,
    /// Whether new and deleted objects are announced on the event bus.
    pub event_bridge: bool,
}

/// Why the buckets could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not open the bucket {bucket} in {}", folder.display())]
pub struct S3Error {
    /// The bucket's name.
    pub bucket: String,
    /// Where its data is.
    pub folder: PathBuf,
    /// What the file system said.
    pub source: io::Error,
}

/// The S3 endpoint.
#[derive(Debug)]
pub struct S3 {
    service: S3Service,
}

impl S3 {
    /// Opens the buckets, each in the folder of its name below `root`, making those that are missing.
    ///
    /// Every object that comes to exist in a bucket with `event_bridge`, or is deleted from it, is
    /// announced to `events` as an `Object Created` or `Object Deleted` envelope.
    ///
    /// # Errors
    ///
    /// [`S3Error`] when a bucket's folder cannot be read or written.
    #[expect(clippy::unused_async, reason = "a service is opened like any other")]
    pub async fn open(
        root: PathBuf,
        buckets: Vec<BucketSettings>,
        gate: Arc<Gate>,
        events: UnboundedSender<Value>,
    ) -> Result<Self, S3Error> {
        let mut opened = BTreeMap::new();
        for settings in buckets {
            let name = settings.name.clone();
            let folder = root.join(&name);
            let bucket = Bucket::open(folder.clone(), settings).map_err(|source| S3Error {
                bucket: name.clone(),
                folder,
                source,
            })?;
            opened.insert(name, Arc::new(bucket));
        }
        let mut builder = S3ServiceBuilder::new(Operations { buckets: opened, gate: Arc::clone(&gate), events });
        builder.set_auth(Access::new(Arc::clone(&gate)));
        builder.set_access(Access::new(gate));
        Ok(Self { service: builder.build() })
    }

    /// Answers one request; who calls is found from its signature.
    ///
    /// # Errors
    ///
    /// [`Dropped`] when no answer can be made of what the operation gave; that would be our mistake.
    pub async fn handle(&self, request: Request) -> Answer {
        let request = request.map(s3s::Body::http_body_unsync);
        let answer = self.service.call(request).await.map_err(|error| {
            tracing::error!(?error, "no S3 answer could be made");
            Dropped
        })?;
        let mut answer = answer.map(|body| body.map_err(io::Error::other).boxed_unsync());
        // 16 characters, as S3's own.
        let id = Uuid::new_v4().simple().to_string()[..16].to_uppercase();
        let headers = answer.headers_mut();
        headers.insert("server", HeaderValue::from_static("AmazonS3"));
        if let Ok(id) = HeaderValue::try_from(id) {
            headers.insert("x-amz-request-id", id);
        }
        Ok(answer)
    }
}
