//! Going through all image records for what no event brought: images without verification or verdict, a policy that
//! changed, facts that somebody began to tell and did not.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::facts::Kind;
use super::judge::rests_on_an_end;
use super::look::{Look, Reactor};
use super::policy::Loaded;
use super::{ReactError, release};
use crate::config::ReleaseGate;
use crate::disposition::chain;
use crate::image::{Digest, Repository};
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
                let one = self.sweep_one(&repository, digest, sweep, policy, &mut swept);
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
        swept: &mut Swept,
    ) -> Result<Result<(), ReactError>, ReactError> {
        match self.records.find(repository, digest).await {
            Ok(Some(record)) if self.is_due(&record, sweep, policy) => {
                swept.looked += 1;
                Ok(self.look(&Look::at(repository.clone(), digest), policy).await.map(|_| ()))
            }
            Ok(_) => Ok(Ok(())),
            Err(error @ StateError::Unreadable { .. }) => Ok(Err(error.into())),
            Err(error) => Err(error.into()),
        }
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
