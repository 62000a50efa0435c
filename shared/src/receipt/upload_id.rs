//! The upload that a receipt speaks of: which version of which key, which of two came later, and the receipt's own key.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::event::ObjectCreated;
use crate::state::image_record::UploadRecord;

/// What a receipt's key ends in; the upload rule leaves such keys out.
pub const SUFFIX: &str = ".receipt.json";

/// Longest key that S3 takes, in bytes.
const KEY_LONGEST: usize = 1_024;

/// One version of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadId {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The version, on a versioned bucket.
    pub version_id: Option<String>,
    /// The entity tag.
    pub etag: Option<String>,
    /// Orders the versions of one key.
    pub sequencer: Option<String>,
}

impl From<&ObjectCreated> for UploadId {
    fn from(created: &ObjectCreated) -> Self {
        let ObjectCreated { bucket, key, version_id, etag, sequencer } = created.clone();
        Self { bucket, key, version_id, etag, sequencer }
    }
}

impl From<&UploadRecord> for UploadId {
    /// Without what only the event says; enough to find the receipt by.
    fn from(upload: &UploadRecord) -> Self {
        let UploadRecord { bucket, key, version_id } = upload.clone();
        Self { bucket, key, version_id, etag: None, sequencer: None }
    }
}

impl UploadId {
    /// Whether `other` is the same version; where a bucket keeps none, the entity tag tells, as far as it is known.
    pub fn is_version(&self, other: &Self) -> bool {
        let same_content = self.etag == other.etag || self.etag.is_none() || other.etag.is_none();
        self.version_id == other.version_id && (self.version_id.is_some() || same_content)
    }

    /// Whether the key leaves room for the receipt's.
    pub(crate) fn has_room_for_receipt(&self) -> bool {
        self.key.len() + SUFFIX.len() <= KEY_LONGEST
    }

    /// The key of the receipt beside it.
    pub(super) fn receipt_key(&self) -> String {
        format!("{}{SUFFIX}", self.key)
    }

    /// Whether `other` is another version of this key, and which came later, as far as the sequencers say
    /// (S3 user guide, "Event message structure": hexadecimal, compared after padding on the left).
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        if self.is_version(other) {
            return Some(Ordering::Equal);
        }
        let (ours, theirs) = (self.sequencer.as_deref()?, other.sequencer.as_deref()?);
        let width = ours.len().max(theirs.len());
        let padded = |text: &str| format!("{text:0>width$}").to_ascii_uppercase();
        Some(padded(ours).cmp(&padded(theirs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(version: &str, sequencer: Option<&str>) -> UploadId {
        UploadId {
            bucket: "uploads".into(),
            key: "team/app/1.tar".into(),
            version_id: Some(version.into()),
            etag: None,
            sequencer: sequencer.map(Into::into),
        }
    }

    #[test]
    fn sequencers_order_the_versions_of_a_key() {
        for (ours, theirs, order) in [
            (upload("a", Some("1F")), upload("b", Some("0020")), Some(Ordering::Less)),
            (upload("a", Some("100")), upload("b", Some("ff")), Some(Ordering::Greater)),
            (upload("a", Some("ab")), upload("b", Some("AC")), Some(Ordering::Less)),
            (upload("a", Some("1")), upload("a", Some("1")), Some(Ordering::Equal)),
            (upload("a", None), upload("b", Some("1")), None),
        ] {
            assert_eq!(ours.order(&theirs), order, "{ours:?} {theirs:?}");
        }
    }
}
