//! The receipt: what became of an upload, written beside it as `<key>.receipt.json`.
//!
//! Its first keys are `state`, `summary` and `next`; object tag, exit codes and events are derived from its state and
//! from nothing else. [`Receipts`] is the only writer.

pub mod log;
mod tags;
mod words;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use aws_sdk_s3::Client;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::ObjectCreated;
use crate::image::{Digest, Repository, Tag};
use crate::naming::NamedBy;
use crate::plan::Applied;
use crate::react::release::ReleaseState;
use crate::react::{ImageRelease, Verdict, Verification};
use crate::state::image_record::UploadRecord;
use crate::state::{Documents, StateError};
use crate::version::VERSION;

/// What a receipt's key ends in; the upload rule leaves such keys out.
pub const SUFFIX: &str = ".receipt.json";

/// Longest key that S3 takes, in bytes.
const KEY_LONGEST: usize = 1_024;

/// What became of an upload. Every upload ends in exactly one final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A delivery has begun.
    Importing,
    /// In ECR under its tag; verification or verdict outstanding.
    Imported,
    /// Verified, and passed where the gate asks: deploy it.
    Released,
    /// In ECR, not to be used.
    Held,
    /// Nothing was tagged.
    Failed,
    /// A newer version of the same key won; nothing was moved.
    Superseded,
}

impl State {
    /// Whether nothing more is to come by itself.
    pub fn is_final(self) -> bool {
        match self {
            Self::Importing | Self::Imported => false,
            Self::Released | Self::Held | Self::Failed | Self::Superseded => true,
        }
    }

    /// The word of the object tag `gantry`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Importing => "importing",
            Self::Imported => "imported",
            Self::Released => "released",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Derived from the sections below.
    pub state: State,
    /// One sentence.
    pub summary: String,
    /// One command, or what to do.
    pub next: String,
    /// Of this document; fields are only ever added.
    pub schema: u32,
    /// The stack.
    pub stack: String,
    /// The version that wrote it.
    pub version: String,
    /// Which upload.
    pub upload: UploadId,
    /// Import's section.
    pub import: ImportSection,
    /// What was made of each image once it was in ECR, by `<repository>@<digest>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reaction: BTreeMap<String, ImageReaction>,
}

/// What was made of one image: verification, verdict, and whether it may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReaction {
    /// Whether it may be used.
    pub release: ImageRelease,
    /// What was found when it was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// What the policy says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

impl Receipt {
    /// What was made of an image, if anything yet.
    pub fn reaction(&self, repository: &Repository, digest: Digest) -> Option<&ImageReaction> {
        self.reaction.get(&reaction_key(repository, digest))
    }
}

impl ImageReaction {
    /// Whether `known` was found out later: looks may end in another order than they began.
    fn is_overtaken_by(&self, known: &Self) -> bool {
        let times = |one: &Self| {
            let verified = one.verification.as_ref().map(|verification| verification.at);
            (verified, one.verdict.as_ref().map(|verdict| verdict.read_at))
        };
        let (ours, theirs) = (times(self), times(known));
        let is_released = |one: &Self| one.release.state == ReleaseState::Released;
        theirs.0 > ours.0 || theirs.1 > ours.1 || (ours == theirs && is_released(known) && !is_released(self))
    }

    /// Whether two differ in nothing but when it was looked.
    fn says_the_same_as(&self, other: &Self) -> bool {
        let verified =
            |one: &Self| one.verification.as_ref().map(|one| Verification { at: Timestamp::UNIX_EPOCH, ..one.clone() });
        let judged = |one: &Self| one.verdict.as_ref().map(|one| Verdict { read_at: one.since, ..one.clone() });
        self.release == other.release && verified(self) == verified(other) && judged(self) == judged(other)
    }
}

fn reaction_key(repository: &Repository, digest: Digest) -> String {
    format!("{repository}@{digest}")
}

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

    /// Whether `other` is another version of this key, and which came later, as far as the sequencers say
    /// (S3 user guide, "Event message structure": hexadecimal, compared after padding on the left).
    fn order(&self, other: &Self) -> Option<Ordering> {
        if self.is_version(other) {
            return Some(Ordering::Equal);
        }
        let (ours, theirs) = (self.sequencer.as_deref()?, other.sequencer.as_deref()?);
        let width = ours.len().max(theirs.len());
        let padded = |text: &str| format!("{text:0>width$}").to_ascii_uppercase();
        Some(padded(ours).cmp(&padded(theirs)))
    }
}

/// How far the import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// Under way, or waiting for its next delivery.
    Importing,
    /// Everything is in ECR under its tags.
    Imported,
    /// Given up.
    Failed,
    /// Overtaken by a newer version.
    Superseded,
}

/// Import's section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportSection {
    /// How far it is.
    pub outcome: ImportOutcome,
    /// Which delivery this is.
    pub attempt: Attempt,
    /// When this delivery began.
    pub started_at: Timestamp,
    /// When this section was written.
    pub updated_at: Timestamp,
    /// Between the two.
    pub duration_ms: u64,
    /// The upload's size, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Layers done in this delivery, and of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersDone>,
    /// Why it failed, or what the last delivery failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Each image and what was done for it.
    #[serde(default)]
    pub images: Vec<ImageReceipt>,
    /// What the archive names and does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What was made of it for its consumer, where the profile is not `exact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Applied>,
    /// How adopted repositories differ from the stack's settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings_differ: Vec<String>,
    /// Whether people were told of the outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
    /// How often reconcile sent it round again, since nothing was heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resent: Option<Resent>,
}

/// How often an upload was sent round again by reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    /// How often.
    pub times: u32,
    /// When last.
    pub at: Timestamp,
}

/// Delivery `n` of at most `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub n: u32,
    /// After the last one the message goes to the failed queue.
    pub of: u32,
}

/// Progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayersDone {
    /// Layers that ECR has.
    pub done: usize,
    /// Layers of all images.
    pub of: usize,
    /// Bytes read for those that were sent.
    pub read_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// Why, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A word that is stable: `archive`, `naming`, `conflict`, `repository`, `object`, `operator`, `network`, `time`,
    /// `lost` or `superseded`.
    pub kind: String,
    /// The whole chain of causes.
    pub text: String,
    /// What to do.
    pub fix: String,
    /// Whether uploading the same file again can help.
    pub upload_again_helps: bool,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReceipt {
    /// Where it is.
    pub repository: Repository,
    /// Under which tags.
    pub tags: Vec<Tag>,
    /// The manifest's digest.
    pub digest: Digest,
    /// Registry host, repository and first tag: what `docker pull` takes.
    pub uri: String,
    /// The repository's ARN, as far as ECR has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_arn: Option<String>,
    /// The config's digest, where it is one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<Digest>,
    /// What it runs on.
    pub platforms: Vec<String>,
    /// What named it.
    pub named_by: NamedBy,
    /// Whether ECR had it under these tags already.
    pub unchanged: bool,
    /// Each config and layer.
    pub blobs: Vec<BlobReceipt>,
}

/// One config or layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobReceipt {
    /// Its digest in ECR.
    pub digest: Digest,
    /// Its size there.
    pub size_bytes: u64,
    /// The hash of its uncompressed bytes, where that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// How it got there.
    pub how: How,
}

/// How a blob got into the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Its bytes were sent.
    Sent,
    /// The repository had it.
    Reused,
    /// ECR took it over from another repository.
    Mounted,
}

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
            self.documents(upload).update(&key(upload), WANTED, change).await?;
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
        let written = self.documents(upload).update(&key(upload), WANTED, change).await?;
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
        self.documents(upload).update(&key(upload), WANTED, change).await.map(|_| ())
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
        let written = self.documents(upload).update(&key(upload), WANTED, change).await?;
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
        let state = state_of(&import, &reaction);
        let (summary, next) = words::in_words(state, upload, &import, &reaction);
        Receipt {
            state,
            summary,
            next,
            schema: 1,
            stack: self.stack.clone(),
            version: VERSION.to_owned(),
            upload: upload.clone(),
            import,
            reaction,
        }
    }
}

const WANTED: &str = "a receipt";

/// What makes two writings of one receipt two steps: a receipt that only tells progress is none.
fn step(receipt: &Receipt) -> (State, u32) {
    (receipt.state, receipt.import.attempt.n)
}

fn key(upload: &UploadId) -> String {
    format!("{}{SUFFIX}", upload.key)
}

/// What the sections come to: the worst of the images, once they are in ECR.
fn state_of(import: &ImportSection, reaction: &BTreeMap<String, ImageReaction>) -> State {
    match import.outcome {
        ImportOutcome::Importing => State::Importing,
        ImportOutcome::Failed => State::Failed,
        ImportOutcome::Superseded => State::Superseded,
        ImportOutcome::Imported => {
            let of = |image: &ImageReceipt| {
                let known = reaction.get(&reaction_key(&image.repository, image.digest));
                known.map_or(ReleaseState::Waiting, |known| known.release.state)
            };
            match import.images.iter().map(of).max() {
                Some(ReleaseState::Released) => State::Released,
                Some(ReleaseState::Held) => State::Held,
                Some(ReleaseState::Waiting) | None => State::Imported,
            }
        }
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

    #[test]
    fn the_first_keys_are_state_summary_and_next() {
        let at = Timestamp::UNIX_EPOCH;
        let import = ImportSection {
            outcome: ImportOutcome::Failed,
            attempt: Attempt { n: 1, of: 10 },
            started_at: at,
            updated_at: at,
            duration_ms: 0,
            size_bytes: None,
            layers: None,
            reason: Some(Reason {
                kind: "archive".into(),
                text: "the upload is empty".into(),
                fix: "upload the whole file".into(),
                upload_again_helps: false,
            }),
            images: vec![],
            left_out: vec![],
            profile: None,
            settings_differ: vec![],
            told: false,
            resent: None,
        };
        let config =
            aws_sdk_s3::Config::builder().behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12()).build();
        let receipts = Receipts::new(Client::from_conf(config), "gantry".into());
        let receipt = receipts.receipt(&upload("a", None), import, BTreeMap::new());
        let text = serde_json::to_string(&receipt).unwrap();
        let start =
            r#"{"state":"failed","summary":"nothing was tagged: the upload is empty","next":"upload the whole file","#;
        assert!(text.starts_with(start), "{text}");
        assert_eq!(serde_json::from_str::<Receipt>(&text).unwrap(), receipt);
    }
}
