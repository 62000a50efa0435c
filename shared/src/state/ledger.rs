//! The ledger: what each layer became when it was compressed, and which repositories hold it.
//!
//! Written only by a process that hashed the uncompressed bytes itself, so an entry is a proof: these bytes, under
//! these settings, are that blob. It saves reading, compressing and sending the layer again.

use serde::{Deserialize, Serialize};

use super::{Documents, StateError};
use crate::image::{DiffId, Digest, MediaType, Repository};

/// Repositories remembered for one layer; a base layer used everywhere needs no more to be mounted from.
const REPOSITORIES: usize = 32;

/// One layer under one format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The hash of the uncompressed bytes.
    pub diff_id: DiffId,
    /// How many those are.
    pub uncompressed_bytes: u64,
    /// The hash of the blob.
    pub digest: Digest,
    /// The blob's size.
    pub size_bytes: u64,
    /// The size of the archive's entry: the uncompressed bytes, or the blob where the layer came compressed.
    pub entry_bytes: u64,
    /// What the blob is.
    pub media_type: MediaType,
    /// Where it was pushed, newest first.
    pub repositories: Vec<Repository>,
}

/// The ledger in the state bucket.
#[derive(Debug, Clone)]
pub struct Ledger {
    documents: Documents,
}

const WANTED: &str = "a ledger entry";

fn key(format: &str, diff_id: DiffId) -> String {
    format!("ledger/{format}/{}.json", diff_id.0.hex())
}

impl Ledger {
    /// The ledger kept in `documents`.
    pub fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// What `diff_id` became under `format`, if it was ever sent.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn find(&self, format: &str, diff_id: DiffId) -> Result<Option<LayerRecord>, StateError> {
        Ok(self.documents.read(&key(format, diff_id), WANTED).await?.map(|read| read.value))
    }

    /// Remembers that `layer` was sent to its repositories; they are added to those known.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn record(&self, format: &str, layer: &LayerRecord) -> Result<(), StateError> {
        self.documents
            .update(&key(format, layer.diff_id), WANTED, |known: Option<LayerRecord>| {
                let mut record = layer.clone();
                // Another blob under the same format (a layer that came compressed in two ways): the newer one counts.
                let same = known.filter(|known| known.digest == layer.digest);
                let Some(same) = same else { return Some(record) };
                if layer.repositories.iter().all(|repository| same.repositories.contains(repository)) {
                    return None;
                }
                let others = same.repositories.into_iter().filter(|other| !layer.repositories.contains(other));
                record.repositories.extend(others);
                record.repositories.truncate(REPOSITORIES);
                Some(record)
            })
            .await
            .map(|_| ())
    }
}
