//! One version of one S3 object: its length, its ranges, and reading ahead.
//!
//! Everything above reads through [`Source`], so that an archive on disk is planned by the same code.

mod file;
mod read;
mod s3;

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::aws::CallError;
use crate::disposition::Disposition;
use crate::retry::Disposed;

pub use file::FileSource;
pub use read::{ReadAhead, read_exact, stream_by};
pub use s3::{Current, Head, S3Object};

/// Which bytes: bucket, key and, where there is one, version.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// The bucket.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The version, on a versioned bucket.
    pub version_id: Option<String>,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} version {:?}", self.version_id)
    }
}

/// A body: chunks in order, as they arrive.
pub type Body = BoxStream<'static, Result<Bytes, ObjectError>>;

/// Bytes that can be read by range, as often as wanted, and stay the same.
pub trait Source: Send + Sync + 'static {
    /// All of it, in bytes.
    fn length_bytes(&self) -> u64;

    /// Asks once for the bytes from `offset`, at most `length` of them; the body may end early.
    fn get(&self, offset: u64, length: u64) -> impl Future<Output = Result<Body, ObjectError>> + Send;
}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The version is no more: deleted for good, or expired.
    #[error("{object} is gone: that version was deleted")]
    Gone {
        /// The object.
        object: ObjectId,
    },
    /// Overwritten while it was read, in a bucket without versions.
    #[error("{object} was overwritten while it was read")]
    Changed {
        /// The object.
        object: ObjectId,
    },
    /// In a storage class that must be restored first.
    #[error("{object} is archived (storage class {class}); restore it or upload it again")]
    Archived {
        /// The object.
        object: ObjectId,
        /// The storage class.
        class: String,
    },
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The body broke off, again and again.
    #[error("a range ended at byte {ended_at} of {wanted_to}, {times} times in a row")]
    Short {
        /// Where the last body ended.
        ended_at: u64,
        /// Where the range was to end (exclusive).
        wanted_to: u64,
        /// How often it was continued.
        times: usize,
    },
    /// The connection broke in the middle of a body.
    #[error("the connection broke while reading")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A local file could not be read.
    #[error("cannot read {path}")]
    File {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Disposed for ObjectError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Gone { .. } | Self::Changed { .. } | Self::Archived { .. } | Self::File { .. } => {
                Disposition::Permanent
            }
            Self::Call(call) => call.disposition(),
            Self::Short { .. } | Self::Broken(_) => Disposition::Transient,
        }
    }
}
