//! The image record: everything known of one manifest in one repository.
//!
//! Import writes it before it puts the manifest; whoever verifies, judges, releases or tells finds here what was meant
//! and what was done, and writes down what it did.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Documents, StateError};
use crate::image::{Digest, Repository, Tag};
use crate::limits;
use crate::react::{Facts, Verdict, Verification};

/// Uploads remembered for one image, newest first.
const UPLOADS: usize = 100;

/// Indexes remembered that name one image: as many as a year of nightly builds on one base could make.
const PARENTS: usize = 400;

/// Facts remembered as told, the newest: one for each of the 1,000 tags that ECR lets an image have, and one for each
/// upload; with fewer, looks at such an image would tell the same again and again.
const TOLD: usize = 1_000 + UPLOADS + 100;

/// Where all records are.
const FOLDER: &str = "images/";

/// `images/<repository>/<digest>.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Where.
    pub repository: Repository,
    /// The manifest's digest.
    pub digest: Digest,
    /// The config's digest: the image ID, where this is one image that import made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// The uploads it came from, newest first; none for an image that another client pushed.
    #[serde(default)]
    pub uploads: Vec<UploadRecord>,
    /// Whether an upload came to it since the last look, whose receipt waits for what is known here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
    /// The tags that uploads asked for.
    #[serde(default)]
    pub wanted_tags: Vec<Tag>,
    /// The commit that an upload named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The indexes that name it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Digest>,
    /// When it was pushed, by ECR's clock; of one that was deleted and pushed again, when that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed_at: Option<Timestamp>,
    /// Since when it is not there any more; set by the look that found so, and taken back by one that finds it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Timestamp>,
    /// Whether an event told that it was scanned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scan_ended: bool,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// What was found when it was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// What the policy says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Since when it is released, and why. Never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Released>,
    /// The floating tags that were put on it, and for which release each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub floats: BTreeMap<Tag, String>,
    /// What people were told of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<String, Told>,
}

/// Since when an image is released, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Since when.
    pub at: Timestamp,
    /// What let it go.
    pub by: ReleasedBy,
}

/// What let an image go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleasedBy {
    /// It was verified, and the gate asks for no more.
    Verification,
    /// It was verified, and its verdict allows it.
    Verdict,
    /// Somebody released it by hand.
    Hand,
}

/// One fact that was told, or is being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When somebody took it upon them.
    pub claimed_at: Timestamp,
    /// Whether they did it.
    pub done: bool,
    /// Which delivery of an upload they are, where they are one: a later one comes only when they have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<u32>,
}

/// Who tells a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// The caller.
    Us,
    /// Somebody is about to.
    Others,
    /// It was told.
    Nobody,
}

/// One upload of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
}

/// The image records in the state bucket.
#[derive(Debug, Clone)]
pub struct ImageRecords {
    documents: Documents,
}

const WANTED: &str = "an image record";

fn key(repository: &Repository, digest: Digest) -> String {
    format!("{FOLDER}{repository}/{digest}.json")
}

impl ImageRecord {
    /// A record of an image of which nothing is known yet.
    pub fn new(repository: &Repository, digest: Digest) -> Self {
        Self {
            repository: repository.clone(),
            digest,
            config: None,
            uploads: Vec::new(),
            unanswered: false,
            wanted_tags: Vec::new(),
            revision: None,
            parents: Vec::new(),
            pushed_at: None,
            gone_since: None,
            scan_ended: false,
            facts: None,
            verification: None,
            verdict: None,
            released: None,
            floats: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Notes that `upload` wants this image under `tags`; what is known already is kept.
    pub fn want(&mut self, config: Option<Digest>, tags: &[Tag], revision: Option<&str>, upload: &UploadRecord) {
        self.config = self.config.or(config);
        // It is about to be there again.
        self.gone_since = None;
        self.unanswered = true;
        self.revision = revision.map(str::to_owned).or(self.revision.take());
        self.uploads.retain(|known| known != upload);
        self.uploads.insert(0, upload.clone());
        self.uploads.truncate(UPLOADS);
        let new: Vec<Tag> = tags.iter().filter(|tag| !self.wanted_tags.contains(tag)).cloned().collect();
        self.wanted_tags.extend(new);
    }

    /// Notes that it is there, and that ECR says it was pushed at `at`. Of two times the later one counts: the earlier
    /// one is that of an image under the same digest that was deleted since, and a scan of that is no scan of this.
    pub fn pushed(&mut self, at: Option<Timestamp>) {
        let is_anew = self.pushed_at.is_some() && at > self.pushed_at;
        self.scan_ended &= !is_anew;
        self.pushed_at = self.pushed_at.max(at);
        self.gone_since = None;
    }

    /// Notes that the index `parent` names this image.
    pub fn named_by(&mut self, parent: Digest) {
        if !self.parents.contains(&parent) {
            self.parents.insert(0, parent);
            self.parents.truncate(PARENTS);
        }
    }

    /// Takes it upon the caller to tell `fact`; `false` when it was told, or somebody is about to.
    pub fn claim(&mut self, fact: &str, now: Timestamp) -> bool {
        claim(&mut self.told, fact, now)
    }

    /// The same for the `n`-th delivery of the one upload that `fact` is about, who need not wait for those before it.
    pub fn claim_in_delivery(&mut self, fact: &str, now: Timestamp, n: u32) -> Teller {
        let known = self.told.get(fact).copied();
        if known.is_some_and(|known| known.done) {
            return Teller::Nobody;
        }
        if known.is_some_and(|known| known.delivery.is_some_and(|theirs| theirs < n)) {
            self.told.remove(fact);
        }
        if !self.claim(fact, now) {
            return Teller::Others;
        }
        if let Some(told) = self.told.get_mut(fact) {
            told.delivery = Some(n);
        }
        Teller::Us
    }

    /// Forgets claims of facts that nobody has reason to tell any more, whose claimers died; `open` are those that are
    /// told yet.
    pub fn forget_stale_claims(&mut self, open: &[String], now: Timestamp) {
        self.told.retain(|fact, told| told.done || !is_stale(told, now) || open.contains(fact));
    }

    /// Whether something is left to tell by somebody who claimed it and died.
    pub fn has_stale_claim(&self, now: Timestamp) -> bool {
        self.told.values().any(|told| !told.done && is_stale(told, now))
    }
}

/// Whether a claim is older than telling takes.
fn is_stale(told: &Told, now: Timestamp) -> bool {
    now.duration_since(told.claimed_at).unsigned_abs() > limits::CLAIM
}

/// Takes it upon the caller to tell `fact`, unless `told` says that it was told, or that somebody is about to.
pub fn claim(told: &mut BTreeMap<String, Told>, fact: &str, now: Timestamp) -> bool {
    let is_free = match told.get(fact) {
        None => true,
        Some(known) if known.done => false,
        // Whoever claimed it has died on the way.
        Some(known) => is_stale(known, now),
    };
    if is_free {
        told.insert(fact.to_owned(), Told { claimed_at: now, done: false, delivery: None });
        while told.len() > TOLD {
            let oldest = told.iter().min_by_key(|(_, known)| known.claimed_at).map(|(fact, _)| fact.clone());
            let Some(oldest) = oldest else { break };
            told.remove(&oldest);
        }
    }
    is_free
}

impl ImageRecords {
    /// The records kept in `documents`.
    pub fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// The record of one image, if there is one. One request.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn find(&self, repository: &Repository, digest: Digest) -> Result<Option<ImageRecord>, StateError> {
        Ok(self.documents.read(&key(repository, digest), WANTED).await?.map(|read| read.value))
    }

    /// Changes the record of one image, made if there is none; `change` may be called several times, and its change is
    /// written only if there is one. Gives the record as it is then. Two requests, more under contention.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn update(
        &self,
        repository: &Repository,
        digest: Digest,
        mut change: impl FnMut(&mut ImageRecord) + Send,
    ) -> Result<ImageRecord, StateError> {
        let mut seen = None;
        let written = self
            .documents
            .update(&key(repository, digest), WANTED, |known: Option<ImageRecord>| {
                let is_new = known.is_none();
                let known = known.unwrap_or_else(|| ImageRecord::new(repository, digest));
                let mut record = known.clone();
                change(&mut record);
                let is_changed = is_new || record != known;
                seen = Some(known);
                is_changed.then_some(record)
            })
            .await?;
        Ok(written.or(seen).unwrap_or_else(|| ImageRecord::new(repository, digest)))
    }

    /// Where records lie, at most a thousand of them after `after`: repository and digest, with the key to go on from.
    /// One request.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub async fn list(&self, after: Option<&str>) -> Result<Vec<(String, Repository, Digest)>, StateError> {
        let keys = self.documents.keys(FOLDER, after).await?;
        let place = |key: String| {
            let (repository, digest) = key.strip_prefix(FOLDER)?.strip_suffix(".json")?.rsplit_once('/')?;
            let (repository, digest) = (repository.parse().ok()?, digest.parse().ok()?);
            Some((key, repository, digest))
        };
        Ok(keys.into_iter().filter_map(place).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record() -> ImageRecord {
        ImageRecord::new(&"team/app".parse().unwrap(), Digest::of(b"manifest"))
    }

    #[test]
    fn a_fact_is_claimed_once_until_its_claim_is_stale() {
        let mut record = record();
        assert!(record.claim("released:1.0", at(0)));
        assert!(!record.claim("released:1.0", at(1)), "somebody is about to tell it");
        assert!(record.claim("released:1.1", at(1)), "another fact");
        assert!(!record.has_stale_claim(at(60)));
        assert!(record.has_stale_claim(at(130)));
        assert!(record.claim("released:1.0", at(130)), "they died");
        record.told.insert("released:1.0".into(), Told { claimed_at: at(130), done: true, delivery: None });
        assert!(!record.claim("released:1.0", at(9_999)), "it was told");
        record.forget_stale_claims(&["released:1.1".into()], at(9_999));
        assert!(record.has_stale_claim(at(9_999)), "it is told yet");
        record.forget_stale_claims(&[], at(9_999));
        assert!(!record.has_stale_claim(at(9_999)) && record.told.len() == 1, "what was told stays");
    }

    #[test]
    fn an_image_that_was_pushed_again_is_as_old_as_that() {
        let mut record = record();
        record.pushed(None);
        record.pushed(Some(at(5)));
        record.scan_ended = true;
        record.pushed(Some(at(5)));
        record.pushed(None);
        assert_eq!((record.pushed_at, record.scan_ended), (Some(at(5)), true));
        record.gone_since = Some(at(6));
        record.pushed(Some(at(7)));
        assert_eq!((record.pushed_at, record.scan_ended, record.gone_since), (Some(at(7)), false, None));
    }

    #[test]
    fn lists_are_bounded_and_the_newest_stay() {
        let mut record = record();
        for second in 0..2_000 {
            assert!(record.claim(&format!("fact {second}"), at(second)));
            record.named_by(Digest::of(&second.to_be_bytes()));
        }
        assert_eq!((record.told.len(), record.parents.len()), (TOLD, PARENTS));
        assert!(record.told.contains_key("fact 1999") && !record.told.contains_key("fact 0"));
        assert_eq!(record.parents[0], Digest::of(&1_999_i64.to_be_bytes()));
    }
}
