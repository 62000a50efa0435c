//! The section of each image: what was made of it once it was in ECR, and which of two findings counts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::image::{Digest, Repository};
use crate::react::release::ReleaseState;
use crate::react::{ImageRelease, Verdict, Verification};

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

impl ImageReaction {
    /// Whether `known` was found out later: looks may end in another order than they began.
    pub(super) fn is_overtaken_by(&self, known: &Self) -> bool {
        let times = |one: &Self| {
            let verified = one.verification.as_ref().map(|verification| verification.at);
            (verified, one.verdict.as_ref().map(|verdict| verdict.read_at))
        };
        let (ours, theirs) = (times(self), times(known));
        let is_released = |one: &Self| one.release.state == ReleaseState::Released;
        theirs.0 > ours.0 || theirs.1 > ours.1 || (ours == theirs && is_released(known) && !is_released(self))
    }

    /// Whether two differ in nothing but when it was looked.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        let verified =
            |one: &Self| one.verification.as_ref().map(|one| Verification { at: Timestamp::UNIX_EPOCH, ..one.clone() });
        let judged = |one: &Self| one.verdict.as_ref().map(|one| Verdict { read_at: one.since, ..one.clone() });
        self.release == other.release && verified(self) == verified(other) && judged(self) == judged(other)
    }
}

/// What a receipt's `reaction` calls an image.
pub(super) fn reaction_key(repository: &Repository, digest: Digest) -> String {
    format!("{repository}@{digest}")
}
