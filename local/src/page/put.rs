//! The drop zone: a file streams through to the bucket as any upload does, in parts, and is never whole in memory.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use gantry::receipt::SUFFIX;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Body;

use crate::upload::Named;

/// Uploads at once; others wait with their first bytes.
pub(super) const AT_ONCE: usize = 4;

/// Bytes of a part, and all that one upload has in memory: S3 takes 10,000 parts, so this is enough for 160 GiB.
const PART_BYTES: usize = 16 << 20;

/// Longest key of an upload: S3 takes 1,024 bytes, and the receipt beside it needs its suffix.
const KEY_LONGEST: usize = 1_024 - SUFFIX.len();

/// Where uploads go.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) s3: &'a Client,
    pub(super) bucket: &'a str,
}

/// Why a file did not get to the bucket.
#[derive(Debug, thiserror::Error)]
pub(super) enum PutError {
    /// Its name can be no key.
    #[error("{key:?} cannot be the name of an upload: {why}")]
    Name {
        /// The key it would be.
        key: String,
        /// Why not.
        why: &'static str,
    },
    /// The browser stopped sending.
    #[error("the upload ended after {got} of {wanted} bytes; nothing was kept")]
    Short {
        /// Bytes that came.
        got: u64,
        /// Bytes that were announced.
        wanted: u64,
    },
    /// Its size is not known.
    #[error("the upload does not say its size")]
    Length,
    /// The connection broke.
    #[error("the upload broke off; nothing was kept")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The bucket did not take it.
    #[error("the bucket did not take the upload")]
    Bucket(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl PutError {
    /// The answer's status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Name { .. } | Self::Short { .. } | Self::Read(_) => StatusCode::BAD_REQUEST,
            Self::Length => StatusCode::LENGTH_REQUIRED,
            Self::Bucket(_) => StatusCode::BAD_GATEWAY,
        }
    }

    fn bucket(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Bucket(error.into())
    }
}

/// Streams a file to the bucket, and gives its key. What comes from `body` is checked against `length`; after an error
/// nothing is left in the bucket.
pub(super) async fn stream<B>(
    target: &Target<'_>,
    file: &str,
    name: Option<&str>,
    length: Option<u64>,
    body: B,
) -> Result<String, PutError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let named = Named::new(std::path::Path::new(file), name.filter(|name| !name.is_empty()));
    check(&named.key)?;
    let wanted = length.ok_or(PutError::Length)?;
    let mut parts = Parts { body, got: 0 };
    let first = parts.next().await?;
    if first.len() < PART_BYTES {
        parts.ended(wanted)?;
        let put = target.s3.put_object().bucket(target.bucket).key(&named.key).set_metadata(Some(named.metadata()));
        put.body(ByteStream::from(first)).send().await.map_err(PutError::bucket)?;
        return Ok(named.key);
    }
    let begun = target.s3.create_multipart_upload().bucket(target.bucket).key(&named.key);
    let begun = begun.set_metadata(Some(named.metadata())).send().await.map_err(PutError::bucket)?;
    let id = begun.upload_id().unwrap_or_default();
    let done = in_parts(target, &named.key, id, first, &mut parts, wanted).await;
    if done.is_err() {
        let abort = target.s3.abort_multipart_upload().bucket(target.bucket).key(&named.key).upload_id(id);
        // Best effort: S3's lifecycle rule ends what is left over.
        drop(abort.send().await);
    }
    done.map(|()| named.key)
}

async fn in_parts<B>(
    target: &Target<'_>,
    key: &str,
    id: &str,
    first: Bytes,
    parts: &mut Parts<B>,
    wanted: u64,
) -> Result<(), PutError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (mut done, mut part) = (Vec::new(), first);
    while !part.is_empty() {
        let number = i32::try_from(done.len() + 1).unwrap_or(i32::MAX);
        let put = target.s3.upload_part().bucket(target.bucket).key(key).upload_id(id).part_number(number);
        let put = put.body(ByteStream::from(part)).send().await.map_err(PutError::bucket)?;
        done.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(put.e_tag().map(str::to_owned))
                .set_checksum_crc32(put.checksum_crc32().map(str::to_owned))
                .build(),
        );
        part = parts.next().await?;
    }
    parts.ended(wanted)?;
    let all = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
    let complete = target.s3.complete_multipart_upload().bucket(target.bucket).key(key).upload_id(id);
    complete.multipart_upload(all).send().await.map_err(PutError::bucket)?;
    Ok(())
}

fn check(key: &str) -> Result<(), PutError> {
    let why = match key {
        "" => "it is empty",
        key if key.ends_with('/') => "it ends in a slash",
        key if key.ends_with(SUFFIX) => "receipts are the pipeline's to write",
        key if key.len() > KEY_LONGEST => "it is too long",
        key if key.chars().any(char::is_control) => "it has control characters",
        _ => return Ok(()),
    };
    Err(PutError::Name { key: key.to_owned(), why })
}

/// A body in pieces of [`PART_BYTES`]; the last one is shorter, and after it come empty ones.
struct Parts<B> {
    body: B,
    got: u64,
}

impl<B> Parts<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    async fn next(&mut self) -> Result<Bytes, PutError> {
        let mut part = BytesMut::new();
        while part.len() < PART_BYTES {
            let Some(frame) = self.body.frame().await else { break };
            let frame = frame.map_err(|error| PutError::Read(Box::new(error)))?;
            if let Ok(data) = frame.into_data() {
                part.extend_from_slice(&data);
            }
        }
        self.got += part.len() as u64;
        Ok(part.freeze())
    }

    fn ended(&self, wanted: u64) -> Result<(), PutError> {
        if self.got == wanted { Ok(()) } else { Err(PutError::Short { got: self.got, wanted }) }
    }
}
