//! What the tarball holds, whoever wrote it, and however the whole of it is compressed.
//!
//! [`Archive::open`] finds where every file lies: in a plain tar by walking the headers with ranged reads that skip
//! the bodies, in a compressed one by decoding it once. [`Contents`] then reads the few small JSON entries and says
//! which images there are, and where their blobs lie. Nothing is extracted, and no order of entries is assumed:
//! `manifest.json` and `index.json` usually come last.

#![warn(clippy::indexing_slicing, clippy::string_slice, clippy::arithmetic_side_effects)]

mod contents;
mod dir;
mod docker;
mod docker_v1;
mod ecr_rules;
mod error;
mod input;
mod oci;
mod referrers;
mod stored;
mod tar_index;
mod walk;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::decompress::{Codec, Decoded, decode};
use crate::limits;
use crate::object::{Source, read_exact, stream_by};

pub use contents::{
    ArchiveImage, Blob, Content, Contents, DockerImage, DockerLayer, LayerBytes, Layout, OciImage, OciManifest, Stored,
};
pub use error::ArchiveError;
pub(crate) use oci::rewritten;
pub use stored::StoredIndex;
pub use tar_index::{Extent, Magic, TarIndex};

/// Where every file of one upload lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Its files.
    pub index: TarIndex,
    /// Absent for a plain tar.
    pub outer: Option<Outer>,
}

/// The compression around a whole archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outer {
    /// Which one.
    pub codec: Codec,
    /// What it decompresses to.
    pub decompressed_bytes: u64,
}

/// What `gantry plan` and the tests give a delivery: the function's timeout less its margin.
pub const USUAL_DELIVERY: Duration = Duration::from_secs(855);

impl Archive {
    /// Finds the files of `source`. A plain tar costs a few ranged reads for each file that is larger than a window; a
    /// compressed one is read and decoded once from front to back, with the small JSON entries kept.
    ///
    /// `delivery` is the time that one delivery has: an archive that takes longer to decode is refused.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]: not a tar, damaged, cut off, or over a limit (permanent); unreadable (as the object says).
    pub async fn open<S: Source>(source: &Arc<S>, delivery: Duration) -> Result<Self, ArchiveError> {
        let start = Start::read(&**source).await?;
        Self::open_at(source, start, delivery).await
    }

    /// The same, where the archive's start is read already.
    ///
    /// # Errors
    ///
    /// As [`Archive::open`].
    pub async fn open_at<S: Source>(source: &Arc<S>, start: Start, delivery: Duration) -> Result<Self, ArchiveError> {
        let length = source.length_bytes();
        let Some(codec) = start.codec() else {
            let index = walk::walk(&mut input::Ranged::new(&**source, start.bytes), None).await?;
            return Ok(Self { index, outer: None });
        };
        // What comes out is hardly ever less than what goes in.
        let most = most_bytes(codec, delivery);
        if length > most {
            return Err(ArchiveError::TooSlow { codec, found_bytes: length, most_bytes: most, delivery });
        }
        let decoded = open_decoded(source, codec);
        let mut input = input::InOnePass::new(decoded, codec, most, delivery);
        let index = walk::walk(&mut input, Some(codec)).await?;
        let decompressed_bytes = input::Input::found_bytes(&input);
        Ok(Self { index, outer: Some(Outer { codec, decompressed_bytes }) })
    }

    /// How the layer at `extent` is stored, by its first bytes.
    pub(crate) async fn how_stored(&self, source: &impl Source, extent: &Extent) -> Result<Stored, ArchiveError> {
        if let Some(magic) = extent.magic {
            return Ok(Stored::of(&magic));
        }
        if let Some(content) = &extent.content {
            return Ok(Stored::of(content));
        }
        let length = extent.size_bytes.min(Magic::default().len() as u64);
        let start = extent.offset..extent.offset.saturating_add(length);
        Ok(Stored::of(&read_exact(source, start).await?))
    }

    /// The bytes of a small file.
    pub(crate) async fn small(&self, source: &impl Source, extent: &Extent) -> Result<Bytes, ArchiveError> {
        if let Some(content) = &extent.content {
            return Ok(content.clone());
        }
        let over = |what: String, limit: u64| ArchiveError::OverLimit {
            what,
            offset: extent.offset,
            found: extent.size_bytes,
            limit,
        };
        if extent.size_bytes > limits::JSON_BYTES {
            return Err(over(format!("the JSON entry {:?}", extent.path), limits::JSON_BYTES));
        }
        match self.outer {
            None => Ok(read_exact(source, extent.range()).await?),
            Some(_) if extent.size_bytes == 0 => Ok(Bytes::new()),
            // It was no JSON, or there was more of it than is kept.
            Some(Outer { codec, .. }) => Err(ArchiveError::NotKept {
                entry: extent.path.clone(),
                codec,
                size_bytes: extent.size_bytes,
                limit: limits::KEPT_JSON_BYTES,
            }),
        }
    }
}

/// The first bytes of an upload: as many as the walk of a plain archive begins with.
#[derive(Debug, Clone)]
pub struct Start {
    bytes: Bytes,
}

impl Start {
    /// Reads them. One small request.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Object`]
    pub async fn read(source: &impl Source) -> Result<Self, ArchiveError> {
        let length = source.length_bytes().min(limits::HEADER_WINDOW_BYTES);
        Ok(Self { bytes: read_exact(source, 0..length).await? })
    }

    /// What the whole upload is compressed with. A tar whose first file happens to be called like a magic number is
    /// still a tar.
    pub fn codec(&self) -> Option<Codec> {
        Codec::of(&self.bytes).filter(|_| !walk::is_header(&self.bytes))
    }
}

/// Decompressed bytes that one delivery can get through.
fn most_bytes(codec: Codec, delivery: Duration) -> u64 {
    codec.megabytes_a_second().saturating_mul(1_000_000).saturating_mul(delivery.as_secs())
}

/// The archive's bytes out of the decoder, from the first on.
pub fn open_decoded<S: Source>(source: &Arc<S>, codec: Codec) -> Decoded {
    let whole = 0..source.length_bytes();
    decode(
        stream_by(source, whole, limits::DECODER_RANGE_BYTES, limits::DECODER_RANGES_AHEAD),
        codec,
        limits::DECODER_WINDOW_BYTES,
    )
}
