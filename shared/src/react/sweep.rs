//! Going through all image records for what no event brought: images without verification or verdict, a policy that
//! changed, an exception that ended, floating tags that point too low, facts that somebody began to tell and did not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::facts::Kind;
use super::floating::Tags;
use super::judge::rests_on_an_end;
use super::look::{Look, Reactor};
use super::policy::Loaded;
use super::{ReactError, release};
use crate::config::ReleaseGate;
use crate::disposition::chain;
use crate::ecr::RepositoryError;
use crate::image::{Digest, Repository, Tag};
use crate::limits;
use crate::state::{ImageRecord, StateError};

/// Where a sweep that had no time left goes on.
const CURSOR: &str = "sweep.json";

const WANTED: &str = "where a sweep goes on";

/// How far a sweep came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Records that were read.
    pub records: usize,
    /// Images that were looked at.
    pub looked: usize,
    /// Looks that failed; the next sweep takes them again.
    pub failed: usize,
    /// Whether the end was reached.
    pub is_complete: bool,
}

/// What a sweep is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Whatever is left to do.
    Everything,
    /// Images whose verdict was made under another policy.
    Policy,
}

/// The floating tags of the repository that a sweep is in: asked for once, when a release of it is come by.
#[derive(Debug, Default)]
struct Floats {
    known: Option<(Repository, Tags)>,
    /// Tags that a look was taken for: what may not move is not tried again at every release.
    tried: BTreeSet<Tag>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Cursor {
    after: Option<String>,
}

impl Reactor {
    /// Goes through the records until `deadline`, and looks at each image that something is left to do for. One request
    /// for each record; a sweep of everything goes on where the last one stopped.
    ///
    /// # Errors
    ///
    /// [`ReactError`], when records cannot be listed or read; a look that fails is counted, and does not end the sweep.
    pub async fn sweep(&self, sweep: Sweep, policy: &Loaded, deadline: Instant) -> Result<Swept, ReactError> {
        let mut swept = Swept::default();
        let mut newest: Option<Loaded> = None;
        let mut floats = Floats::default();
        let mut after = match sweep {
            Sweep::Everything => self.state.read::<Cursor>(CURSOR, WANTED).await?.and_then(|read| read.value.after),
            Sweep::Policy => None,
        };
        loop {
            let page = self.records.list(after.as_deref()).await?;
            if page.is_empty() {
                swept.is_complete = true;
                after = None;
                break;
            }
            for (key, repository, digest) in page {
                if Instant::now() >= deadline {
                    break;
                }
                swept.records += 1;
                let read_at = newest.as_ref().unwrap_or(policy).read_at;
                if (self.now)().duration_since(read_at).unsigned_abs() > limits::POLICY_AGE {
                    newest = Some(self.policy().await?);
                }
                let policy = newest.as_ref().unwrap_or(policy);
                let one = self.sweep_one(&repository, digest, sweep, policy, &mut floats, &mut swept);
                // What has no time left is the next sweep's first.
                let Ok(one) = tokio::time::timeout_at(deadline, one).await else { break };
                if let Err(error) = one? {
                    swept.failed += 1;
                    let error = chain(&error);
                    tracing::error!(ecr.repository = %repository, image.digest = %digest, error, "a look failed");
                }
                after = Some(key);
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        if sweep == Sweep::Everything {
            self.state.put(CURSOR, &Cursor { after }).await?;
        }
        Ok(swept)
    }

    /// Looks at one image if something is left to do for it. What is wrong with one, its record that does not read for
    /// one, is given apart from what ends the sweep.
    async fn sweep_one(
        &self,
        repository: &Repository,
        digest: Digest,
        sweep: Sweep,
        policy: &Loaded,
        floats: &mut Floats,
        swept: &mut Swept,
    ) -> Result<Result<(), ReactError>, ReactError> {
        let record = match self.records.find(repository, digest).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(Ok(())),
            Err(error @ StateError::Unreadable { .. }) => return Ok(Err(error.into())),
            Err(error) => return Err(error.into()),
        };
        let mut is_due = self.is_due(&record, sweep, policy);
        if !is_due && sweep == Sweep::Everything {
            is_due = match self.has_low_floats(&record, floats).await {
                Ok(has) => has,
                Err(error) => return Ok(Err(error)),
            };
        }
        if !is_due {
            return Ok(Ok(()));
        }
        swept.looked += 1;
        Ok(self.look(&Look::at(repository.clone(), digest), policy).await.map(|_| ()))
    }

    /// Whether a floating tag of the image's releases points too low, and no look was taken for it in this sweep. One
    /// request for each repository, and two more.
    async fn has_low_floats(&self, record: &ImageRecord, floats: &mut Floats) -> Result<bool, ReactError> {
        let is_there = record.released.is_some() && record.gone_since.is_none();
        if !is_there || self.config.floating.is_empty() {
            return Ok(false);
        }
        let repository = &record.repository;
        if floats.known.as_ref().is_none_or(|(known, _)| known != repository) {
            let is_ours = match self.repositories.find(repository).await {
                Ok(found) => found.is_some(),
                Err(RepositoryError::NotOurs { .. }) => false,
                Err(error) => return Err(error.into()),
            };
            let tags = if is_ours { self.repositories.tags(repository).await? } else { BTreeMap::new() };
            *floats = Floats { known: Some((repository.clone(), Tags::new(tags))), tried: BTreeSet::new() };
        }
        let low = floats.known.as_ref().map(|(_, tags)| tags.too_low(&self.config.floating, record.digest));
        // Each is noted, so no short cut.
        Ok(low.into_iter().flatten().filter(|tag| floats.tried.insert(tag.clone())).count() > 0)
    }

    fn is_due(&self, record: &ImageRecord, sweep: Sweep, policy: &Loaded) -> bool {
        let now = (self.now)();
        if record.gone_since.is_some_and(|since| now.duration_since(since).unsigned_abs() > limits::GONE) {
            return false;
        }
        let is_judged = record.facts.as_ref().is_some_and(|facts| facts.kind != Kind::Artifact);
        let is_other_policy = is_judged
            && record.verdict.as_ref().is_some_and(|verdict| {
                verdict.policy != policy.policy.version || rests_on_an_end(verdict, policy, now)
            });
        match sweep {
            Sweep::Policy => is_other_policy || (is_judged && self.is_open(record)),
            Sweep::Everything => {
                is_other_policy
                    || record.unanswered
                    || record.has_stale_claim(now)
                    || self.is_overdue(record, now)
                    || (is_judged && self.is_open(record) && self.is_old(record, now))
            }
        }
    }

    /// Whether verification or verdict are missing for longer than a scan may take.
    fn is_overdue(&self, record: &ImageRecord, now: Timestamp) -> bool {
        let is_judged = record.facts.as_ref().is_none_or(|facts| facts.kind != Kind::Artifact);
        let is_missing = record.verification.is_none() || (is_judged && record.verdict.is_none());
        is_missing && self.is_old(record, now)
    }

    /// Whether it may yet be released.
    fn is_open(&self, record: &ImageRecord) -> bool {
        let terms =
            release::Terms { gate: self.config.gate, released_by_hand: false, state_bucket: self.state_bucket() };
        self.config.gate == ReleaseGate::Scan
            && record.released.is_none()
            && !matches!(release::standing(record, terms), release::Standing::Released(_))
    }

    fn is_old(&self, record: &ImageRecord, now: Timestamp) -> bool {
        let wait = SignedDuration::try_from(self.config.scan_wait).unwrap_or(SignedDuration::MAX);
        // One that import announced and that never came has no time of its own.
        record.pushed_at.is_none_or(|pushed_at| now.duration_since(pushed_at) > wait)
    }
}
