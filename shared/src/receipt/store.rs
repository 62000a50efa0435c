//! The receipts of a bucket, and the only place that writes one: each change is one conditional write; where it is a
//! step of the upload, a line of the log and the object tags follow.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use aws_sdk_s3::Client;
use jiff::Timestamp;

use super::reaction::reaction_key;
use super::{ImageReaction, ImportOutcome, ImportSection, Receipt, State, UploadId, log, tags};
use crate::image::{Digest, Repository};
use crate::state::{Documents, StateError};

/// Receipts and object tags of one upload bucket.
#[derive(Debug, Clone)]
pub struct Receipts {
    client: Client,
    stack: String,
}

impl Receipts {
    /// The receipts that `stack` writes through `client`.
    pub fn new(client: Client, stack: String) -> Self {
        Self { client, stack }
    }

    /// The receipt beside `upload`, which may be another version's: the newest's, once that has begun.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn find(&self, upload: &UploadId) -> Result<Option<Receipt>, StateError> {
        if !upload.has_room_for_receipt() {
            return Ok(None);
        }
        Ok(self.documents(upload).read(&upload.receipt_key(), WANTED).await?.map(|read| read.value))
    }

    /// Writes import's section for `upload`; what is known of its images is kept if the receipt speaks of the same
    /// version. A receipt of a later version is left alone. Then sets the object tags, as a courtesy.
    /// Gives the receipt as it should be read: for an upload that was overtaken, its own.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the receipt could not be written; tags never fail.
    pub async fn import(&self, upload: &UploadId, import: &ImportSection) -> Result<Receipt, StateError> {
        let fresh = |known: BTreeMap<String, ImageReaction>| self.receipt(upload, import.clone(), known);
        let mut written = fresh(BTreeMap::new());
        let mut decided_before = false;
        let mut before = None;
        if upload.has_room_for_receipt() {
            let change = |known: Option<Receipt>| {
                written = fresh(BTreeMap::new());
                decided_before = false;
                before = known.as_ref().filter(|known| known.upload.is_version(upload)).map(step);
                let Some(known) = known else { return Some(written.clone()) };
                let replaces = match upload.order(&known.upload) {
                    // A duplicate delivery does not take back what is decided; one that failed may be tried again.
                    Some(Ordering::Equal) => {
                        let decided = known.state.is_final() && known.state != State::Failed;
                        decided_before = decided && import.outcome != ImportOutcome::Imported;
                        if decided_before {
                            written = known;
                        } else {
                            // Told of the same failure already.
                            let told = known.import.outcome == import.outcome && known.import.told;
                            let (resent, sequencer) = (known.import.resent, known.upload.sequencer);
                            written = fresh(known.reaction);
                            written.import.told |= told;
                            // What only an earlier writer knows.
                            written.import.resent = resent;
                            written.upload.sequencer = written.upload.sequencer.take().or(sequencer);
                        }
                        !decided_before
                    }
                    Some(Ordering::Less) => false,
                    // Without sequencers the import has asked S3 itself which version counts.
                    Some(Ordering::Greater) | None => written.state != State::Superseded,
                };
                replaces.then(|| written.clone())
            };
            self.documents(upload).update(&upload.receipt_key(), WANTED, change).await?;
        } else {
            // The tags must do; only keys of more than 1,011 bytes are without a receipt.
            tracing::warn!(s3.key = upload.key, "the key is too long for a receipt beside it");
        }
        // The tags are this version's own, also when the receipt is a later version's.
        if !decided_before {
            if before != Some(step(&written)) {
                log::step(&written);
            }
            self.tag(&written).await;
        }
        Ok(written)
    }

    /// Writes import's section of an upload that nothing was heard of, if that is so still: there is no receipt of its
    /// version, or it is importing and was last written at `seen`. Gives whether it was written.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub(crate) async fn claim(
        &self,
        upload: &UploadId,
        seen: Option<Timestamp>,
        import: &ImportSection,
    ) -> Result<bool, StateError> {
        let change = |known: Option<Receipt>| {
            let known = known.filter(|known| known.upload.is_version(upload));
            let is_silent = match (&known, seen) {
                (None, None) => true,
                (Some(known), Some(seen)) => known.state == State::Importing && known.import.updated_at == seen,
                (None, Some(_)) | (Some(_), None) => false,
            };
            let (upload, reaction) = match known {
                Some(known) => (known.upload, known.reaction),
                None => (upload.clone(), BTreeMap::new()),
            };
            is_silent.then(|| self.receipt(&upload, import.clone(), reaction))
        };
        let written = self.documents(upload).update(&upload.receipt_key(), WANTED, change).await?;
        if let Some(receipt) = &written {
            self.tag(receipt).await;
        }
        Ok(written.is_some())
    }

    /// Notes that people were told of the upload's failure.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn told(&self, upload: &UploadId) -> Result<(), StateError> {
        if !upload.has_room_for_receipt() {
            return Ok(());
        }
        let change = |known: Option<Receipt>| {
            let known = known.filter(|known| known.upload.is_version(upload) && !known.import.told)?;
            Some(Receipt { import: ImportSection { told: true, ..known.import }, ..known })
        };
        self.documents(upload).update(&upload.receipt_key(), WANTED, change).await.map(|_| ())
    }

    /// Writes what was made of one image of `upload`, if its receipt still speaks of that version, and sets the object
    /// tags if that changed the state.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn react(
        &self,
        upload: &UploadId,
        repository: &Repository,
        digest: Digest,
        reaction: &ImageReaction,
    ) -> Result<(), StateError> {
        if !upload.has_room_for_receipt() {
            return Ok(());
        }
        let mut before = None;
        let change = |known: Option<Receipt>| {
            let known = known.filter(|known| known.upload.is_version(upload))?;
            if known.reaction(repository, digest).is_some_and(|known| reaction.is_overtaken_by(known)) {
                return None;
            }
            before = Some(known.state);
            let mut all = known.reaction.clone();
            all.insert(reaction_key(repository, digest), reaction.clone());
            let changed = self.receipt(&known.upload, known.import.clone(), all);
            // That the same was found once more is no news.
            let is_news = known.reaction(repository, digest).is_none_or(|known| !known.says_the_same_as(reaction));
            (is_news || changed.state != known.state).then_some(changed)
        };
        let written = self.documents(upload).update(&upload.receipt_key(), WANTED, change).await?;
        if let Some(receipt) = written.filter(|receipt| Some(receipt.state) != before) {
            log::step(&receipt);
            self.tag(&receipt).await;
        }
        Ok(())
    }

    async fn tag(&self, receipt: &Receipt) {
        let digest = receipt.import.images.first().map(|image| image.digest);
        tags::set(&self.client, &receipt.upload, receipt.state, digest).await;
    }

    fn documents(&self, upload: &UploadId) -> Documents {
        Documents::new(self.client.clone(), &upload.bucket)
    }

    fn receipt(&self, upload: &UploadId, import: ImportSection, reaction: BTreeMap<String, ImageReaction>) -> Receipt {
        Receipt::new(&self.stack, upload, import, reaction)
    }
}

const WANTED: &str = "a receipt";

/// What makes two writings of one receipt two steps: a receipt that only tells progress is none.
fn step(receipt: &Receipt) -> (State, u32) {
    (receipt.state, receipt.import.attempt.n)
}
