//! What the first pass over a compressed archive found, as the state bucket keeps it: a later delivery of the same
//! version skips that pass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Archive;
use crate::limits;

/// Changes whenever [`Archive`] is written differently; what another format wrote is made again.
const FORMAT: u32 = 1;

/// zstd's own default level.
const LEVEL: i32 = 3;

/// An [`Archive`], packed small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIndex {
    format: u32,
    /// JSON, zstd, base64.
    archive: String,
}

impl StoredIndex {
    /// Packs `archive`; `None` when it is too large to be worth keeping.
    pub fn new(archive: &Archive) -> Option<Self> {
        let json = serde_json::to_vec(archive).ok()?;
        let packed = zstd::bulk::compress(&json, LEVEL).ok()?;
        let archive = STANDARD.encode(packed);
        let fits = archive.len() as u64 <= limits::DOCUMENT_BYTES / 2;
        fits.then_some(Self { format: FORMAT, archive })
    }

    /// The archive; `None` when another version wrote it.
    pub fn read(&self) -> Option<Archive> {
        if self.format != FORMAT {
            return None;
        }
        let packed = STANDARD.decode(&self.archive).ok()?;
        // What is kept in memory is bounded by the limits on paths and kept entries; as JSON it is a little more.
        let most = usize::try_from(limits::DECODER_WINDOW_BYTES).ok()?;
        serde_json::from_slice(&zstd::bulk::decompress(&packed, most).ok()?).ok()
    }
}

/// Kept entries as base64 text, which serde would write as lists of numbers.
pub(super) mod content {
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de};

    use base64::Engine as _;

    use super::STANDARD;

    #[expect(clippy::ref_option, reason = "serde gives the field")]
    pub(in super::super) fn serialize<S: Serializer>(content: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
        content.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        let bytes = text.map(|text| STANDARD.decode(text).map_err(de::Error::custom)).transpose()?;
        Ok(bytes.map(Bytes::from))
    }
}
