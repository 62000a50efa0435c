//! What the pipeline remembers: small JSON documents in S3, changed only by conditional writes.
//!
//! A document is read with its entity tag and put back with `If-Match`, or made with `If-None-Match: *`. On 412 or
//! 409 somebody else was faster: it is read again and the change is applied again (S3 user guide, "Conditional
//! writes").

pub mod image_record;
pub mod ledger;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aws::CallError;
use crate::disposition::Disposition;
use crate::limits;
use crate::retry::Disposed;

pub use image_record::{ImageRecord, ImageRecords};
pub use ledger::{LayerRecord, Ledger};

/// JSON documents in one bucket.
#[derive(Debug, Clone)]
pub struct Documents {
    client: Client,
    bucket: String,
}

/// Why a document could not be read or changed; all transient but the last.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Others changed it every time.
    #[error("s3://{bucket}/{key} was changed by others {times} times in a row")]
    Contended {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// How often it was tried.
        times: usize,
    },
    /// The body broke off.
    #[error("s3://{bucket}/{key} could not be read to its end")]
    Broken {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not what we write. Only the pipeline may write here, so this is somebody's mistake.
    #[error("s3://{bucket}/{key} does not read as {wanted}")]
    Unreadable {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What it should be.
        wanted: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl Disposed for StateError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Call(call) => call.disposition(),
            Self::Contended { .. } | Self::Broken { .. } | Self::Unreadable { .. } => Disposition::Transient,
        }
    }
}

impl StateError {
    /// The call that was denied, when that is what is wrong.
    pub fn denied_call(&self) -> Option<&CallError> {
        match self {
            Self::Call(call) if call.is_denied() => Some(call),
            _ => None,
        }
    }
}

/// A document with the entity tag it had when it was read.
#[derive(Debug, Clone)]
pub struct Read<T> {
    /// What it says.
    pub value: T,
    etag: String,
}

impl Documents {
    /// The documents of `bucket`.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }

    /// Reads a document, `None` when there is none. One request.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn read<T: DeserializeOwned>(
        &self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<Read<T>>, StateError> {
        let Some(Read { value: bytes, etag }) = self.get(key).await? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(Read { value, etag })),
            Err(source) => {
                Err(StateError::Unreadable { bucket: self.bucket.clone(), key: key.to_owned(), wanted, source })
            }
        }
    }

    /// The bytes of an object that is no JSON, `None` when there is none. One request.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn bytes(&self, key: &str) -> Result<Option<Bytes>, StateError> {
        Ok(self.get(key).await?.map(|read| read.value))
    }

    /// The first `most` bytes of an object that is no JSON and one more if it is longer, so that the reader sees it is;
    /// `None` when there is none. One request.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn beginning(&self, key: &str, most: usize) -> Result<Option<Bytes>, StateError> {
        let answer = self.client.get_object().bucket(&self.bucket).key(key).send().await;
        let mut body = match answer.map_err(|error| self.failed("s3:GetObject", key, error)) {
            Ok(answer) => answer.body,
            Err(call) if call.is("NoSuchKey") => return Ok(None),
            Err(call) => return Err(call.into()),
        };
        let mut bytes = BytesMut::new();
        while bytes.len() <= most
            && let Some(chunk) = body.next().await
        {
            bytes.extend_from_slice(&chunk.map_err(|error| self.broken(key, error))?);
        }
        bytes.truncate(most + 1);
        Ok(Some(bytes.freeze()))
    }

    /// Puts an object that is no JSON, whatever was there before. One request.
    ///
    /// # Errors
    ///
    /// [`StateError::Call`]
    pub async fn put_bytes(&self, key: &str, bytes: Bytes, content_type: &str) -> Result<(), StateError> {
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type);
        put.body(bytes.into()).send().await.map_err(|error| self.failed("s3:PutObject", key, error))?;
        Ok(())
    }

    /// The keys that begin with `prefix` and come after `after`, in order, at most a thousand. One request.
    ///
    /// # Errors
    ///
    /// [`StateError::Call`]
    pub async fn keys(&self, prefix: &str, after: Option<&str>) -> Result<Vec<String>, StateError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let list = list.set_start_after(after.map(str::to_owned)).send().await;
        let page = list.map_err(|error| self.failed("s3:ListBucket", prefix, error))?;
        Ok(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect())
    }

    async fn get(&self, key: &str) -> Result<Option<Read<Bytes>>, StateError> {
        let answer = self.client.get_object().bucket(&self.bucket).key(key).send().await;
        let answer = match answer.map_err(|error| self.failed("s3:GetObject", key, error)) {
            Ok(answer) => answer,
            Err(call) if call.is("NoSuchKey") => return Ok(None),
            Err(call) => return Err(call.into()),
        };
        let etag = answer.e_tag().unwrap_or_default().to_owned();
        let value = self.body(key, answer.body).await?;
        Ok(Some(Read { value, etag }))
    }

    async fn body(&self, key: &str, mut body: ByteStream) -> Result<Bytes, StateError> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| self.broken(key, error))?;
            if (bytes.len() + chunk.len()) as u64 > limits::DOCUMENT_BYTES {
                return Err(self.broken(key, format!("it has more than {} bytes", limits::DOCUMENT_BYTES)));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    fn broken(&self, key: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StateError {
        StateError::Broken { bucket: self.bucket.clone(), key: key.to_owned(), source: source.into() }
    }

    /// Writes a document whatever was there before: for facts that are the same whoever writes them.
    ///
    /// # Errors
    ///
    /// [`StateError::Call`]
    pub async fn put<T: Serialize + Sync>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let body = self.written(key, value)?;
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type("application/json").body(body);
        put.send().await.map_err(|error| self.failed("s3:PutObject", key, error))?;
        Ok(())
    }

    /// Changes a document: `change` is given what is there and says what should be, or `None` to leave it. It is
    /// called again whenever another writer was faster. Gives what is written, if anything is.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn update<T: Serialize + DeserializeOwned + Sync>(
        &self,
        key: &str,
        wanted: &'static str,
        mut change: impl FnMut(Option<T>) -> Option<T> + Send,
    ) -> Result<Option<T>, StateError> {
        for attempt in 0..limits::CONDITIONAL_WRITE_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(limits::BACKOFF_FIRST / 4).await;
            }
            let (value, etag) = match self.read(key, wanted).await? {
                Some(Read { value, etag }) => (Some(value), Some(etag)),
                None => (None, None),
            };
            let Some(changed) = change(value) else { return Ok(None) };
            let body = self.written(key, &changed)?;
            let put =
                self.client.put_object().bucket(&self.bucket).key(key).content_type("application/json").body(body);
            let put = match etag {
                Some(etag) => put.if_match(etag),
                None => put.if_none_match("*"),
            };
            match put.send().await.map_err(|error| self.failed("s3:PutObject", key, error)) {
                Ok(_) => return Ok(Some(changed)),
                Err(call) if matches!(call.status, Some(409 | 412)) => {}
                // With If-Match, S3 answers 404 when the object was deleted in between.
                Err(call) if call.status == Some(404) => {}
                Err(call) => return Err(call.into()),
            }
        }
        let times = limits::CONDITIONAL_WRITE_ATTEMPTS;
        Err(StateError::Contended { bucket: self.bucket.clone(), key: key.to_owned(), times })
    }

    fn written<T: Serialize>(&self, key: &str, value: &T) -> Result<ByteStream, StateError> {
        let written = serde_json::to_vec_pretty(value);
        written.map(ByteStream::from).map_err(|source| StateError::Unreadable {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            wanted: "JSON",
            source,
        })
    }

    fn failed<E>(
        &self,
        action: &'static str,
        key: &str,
        error: aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
    ) -> CallError
    where
        E: aws_smithy_types::error::metadata::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        CallError::new(action, format!("s3://{}/{key}", self.bucket), error)
    }
}
