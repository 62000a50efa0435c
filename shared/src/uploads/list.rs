//! Which uploads there are, and what is known of each.

use aws_sdk_s3::Client;
use aws_smithy_types::DateTime;
use jiff::{SignedDuration, Timestamp};

use crate::aws::CallError;
use crate::receipt::{Receipt, SUFFIX, State, UploadId};
use crate::state::{Documents, StateError};

/// What a receipt is called where it does not read as one.
const WANTED: &str = "a receipt";

/// The uploads of one bucket.
#[derive(Debug, Clone)]
pub struct Uploads {
    client: Client,
    bucket: String,
}

/// One upload as the bucket lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: String,
    /// When its current version was put.
    pub uploaded_at: Timestamp,
}

/// Some uploads, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The uploads.
    pub uploads: Vec<Listed>,
    /// The key after which the next page begins; `None` when this was the last one.
    pub next: Option<String>,
}

/// The current version of an upload, and the receipt beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Bucket, key, version and entity tag.
    pub upload: UploadId,
    /// When this version was put.
    pub uploaded_at: Timestamp,
    /// Its size.
    pub size_bytes: u64,
    /// The receipt, of whatever version.
    pub beside: Option<Receipt>,
}

impl Known {
    /// The receipt, if it speaks of this version.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.beside.as_ref().filter(|receipt| receipt.upload.is_version(&self.upload))
    }

    /// What its receipt says; `None` as long as nobody has begun.
    pub fn state(&self) -> Option<State> {
        self.receipt().map(|receipt| receipt.state)
    }

    /// How long nothing has been heard of it: since it was put, or since its receipt was written.
    pub fn silent_for(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.receipt().map_or(self.uploaded_at, |receipt| receipt.import.updated_at))
    }
}

impl Uploads {
    /// The uploads in `bucket`.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The uploads after the key `after`, at most a thousand. One request.
    ///
    /// # Errors
    ///
    /// [`CallError`], transient.
    pub async fn page(&self, after: Option<&str>) -> Result<Page, CallError> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).set_start_after(after.map(str::to_owned));
        let answer = request.send().await.map_err(|error| CallError::new("s3:ListBucket", self.name(""), error))?;
        let last = answer.contents().last().and_then(|object| object.key());
        let next = last.filter(|_| answer.is_truncated() == Some(true)).map(str::to_owned);
        let upload = |object: &aws_sdk_s3::types::Object| {
            let key = object.key().filter(|key| is_upload(key))?.to_owned();
            Some(Listed { key, uploaded_at: time(object.last_modified()) })
        };
        Ok(Page { uploads: answer.contents().iter().filter_map(upload).collect(), next })
    }

    /// The current version of `key` with the receipt beside it, `None` when there is no such key. Two requests.
    ///
    /// # Errors
    ///
    /// [`StateError`], transient; a receipt that does not read as one among them.
    pub async fn find(&self, key: &str) -> Result<Option<Known>, StateError> {
        let head = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        let head = match head.map_err(|error| CallError::new("s3:GetObject", self.name(key), error)) {
            Ok(head) => head,
            // A HEAD has no body, so there is no code; 405 is a delete marker.
            Err(call) if matches!(call.status, Some(404 | 405)) => return Ok(None),
            Err(call) => return Err(call.into()),
        };
        // What S3 calls the version of an object that was put before versioning was switched on.
        let version_id = head.version_id().filter(|version| *version != "null").map(str::to_owned);
        let upload = UploadId {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            version_id,
            etag: head.e_tag().map(|etag| etag.trim_matches('"').to_owned()),
            sequencer: None,
        };
        Ok(Some(Known {
            upload,
            uploaded_at: time(head.last_modified()),
            size_bytes: head.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
            beside: self.receipt(key).await?,
        }))
    }

    /// The receipt beside `key`, of whatever version, if there is one. One request.
    ///
    /// # Errors
    ///
    /// [`StateError`], transient.
    pub async fn receipt(&self, key: &str) -> Result<Option<Receipt>, StateError> {
        let documents = Documents::new(self.client.clone(), &self.bucket);
        Ok(documents.read(&format!("{key}{SUFFIX}"), WANTED).await?.map(|read| read.value))
    }

    fn name(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }
}

/// Neither a folder nor a receipt; the upload rule of the template leaves those out too.
fn is_upload(key: &str) -> bool {
    !key.ends_with(SUFFIX) && !key.ends_with('/')
}

/// S3 always says when an object was put.
fn time(time: Option<&DateTime>) -> Timestamp {
    time.and_then(|time| Timestamp::from_second(time.secs()).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}
