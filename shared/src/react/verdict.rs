//! Verdicts: what the policy said of an image, and when.
//!
//! An index is not scanned; it takes the worst of its image children, whichever order they, it and their scans come in.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::findings::Finding;
use super::policy::{Judgement, Loaded};
use super::severity::Severity;
use crate::image::Digest;
use crate::limits;

/// Pass, fail, or no way to know; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Scanned, and within the policy.
    Pass,
    /// There was no scan to judge by: failed, unsupported, too large, or silence.
    Inconclusive,
    /// Against the policy.
    Fail,
}

impl Outcome {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }
}

/// What the policy said of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Pass, fail or inconclusive.
    pub outcome: Outcome,
    /// Whether a release may go on with it.
    pub allows_release: bool,
    /// Why; empty for a pass.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The policy's version.
    pub policy: String,
    /// When that policy was read: the verdict of an older one never stands over that of a newer one.
    #[serde(default)]
    pub policy_read_at: Timestamp,
    /// When the findings were read; a later reading is never overwritten by an earlier one.
    pub read_at: Timestamp,
    /// Since when the outcome is this one.
    pub since: Timestamp,
    /// The outcome before that, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Outcome>,
    /// Findings that count, by level.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<Severity, u64>,
    /// The worst of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Finding>,
    /// Findings that exceptions took out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub excepted: BTreeSet<String>,
}

impl Verdict {
    /// The verdict that `judgement` amounts to; `None` while the scan is awaited.
    pub fn new(judgement: Judgement, policy: &Loaded, read_at: Timestamp) -> Option<Self> {
        let Judgement { outcome, allows_release, reason, counts, top, excepted } = judgement;
        Some(Self {
            outcome: outcome?,
            allows_release,
            reason,
            policy: policy.policy.version.clone(),
            policy_read_at: policy.read_at,
            read_at,
            since: read_at,
            before: None,
            counts,
            top,
            excepted,
        })
    }

    /// The worst of an index's children: `None` while one that could still change the answer has none. A child that
    /// fails decides without the others.
    pub fn fold(children: &[(String, Digest, Option<Self>)], read_at: Timestamp) -> Option<Self> {
        let known = || children.iter().filter_map(|(name, _, verdict)| Some((name, verdict.as_ref()?)));
        let (worst_name, worst) = known().max_by_key(|(_, verdict)| verdict.outcome)?;
        if worst.outcome != Outcome::Fail && known().count() < children.len() {
            return None;
        }
        let mut counts: BTreeMap<Severity, u64> = BTreeMap::new();
        let mut top: Vec<Finding> = Vec::new();
        let mut excepted = BTreeSet::new();
        for (_, verdict) in known() {
            for (severity, count) in &verdict.counts {
                // The same finding in two platforms is one thing to repair.
                let most = counts.entry(*severity).or_default();
                *most = (*most).max(*count);
            }
            let new: Vec<Finding> = verdict.top.iter().filter(|finding| !top.contains(finding)).cloned().collect();
            top.extend(new);
            excepted.extend(verdict.excepted.iter().cloned());
        }
        top.sort_by(|one, other| other.severity.rank().cmp(&one.severity.rank()).then_with(|| one.id.cmp(&other.id)));
        top.truncate(limits::TOP_FINDINGS);
        let reason = if worst.reason.is_empty() { String::new() } else { format!("{worst_name}: {}", worst.reason) };
        Some(Self {
            outcome: worst.outcome,
            allows_release: known().all(|(_, verdict)| verdict.allows_release),
            reason,
            policy: worst.policy.clone(),
            // Which is the newer of two is known of each child already.
            policy_read_at: read_at,
            read_at,
            since: read_at,
            before: None,
            counts,
            top,
            excepted,
        })
    }

    /// This verdict after `earlier`: `None` when `earlier` was read later, or is by a policy that was read later, and
    /// stands; the outcome's age is kept while it stays the same.
    pub fn after(self, earlier: Option<&Self>) -> Option<Self> {
        match earlier {
            None => Some(self),
            Some(earlier) if earlier.read_at > self.read_at || earlier.is_of_newer_policy(&self) => None,
            Some(earlier) if earlier.outcome == self.outcome => {
                Some(Self { since: earlier.since, before: earlier.before, ..self })
            }
            Some(earlier) => Some(Self { before: Some(earlier.outcome), ..self }),
        }
    }

    fn is_of_newer_policy(&self, other: &Self) -> bool {
        self.policy != other.policy && self.policy_read_at > other.policy_read_at
    }

    /// The worst level among the findings that count.
    pub fn worst_severity(&self) -> Option<Severity> {
        self.top.first().map(|finding| finding.severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn verdict(outcome: Outcome, second: i64) -> Verdict {
        Verdict {
            outcome,
            allows_release: outcome == Outcome::Pass,
            reason: if outcome == Outcome::Pass { String::new() } else { "why".into() },
            policy: "default".into(),
            policy_read_at: at(0),
            read_at: at(second),
            since: at(second),
            before: None,
            counts: BTreeMap::from([(Severity::High, 2)]),
            top: vec![],
            excepted: BTreeSet::new(),
        }
    }

    #[test]
    fn an_index_takes_the_worst_of_its_children_once_it_is_known() {
        use Outcome::{Fail, Inconclusive, Pass};
        for (children, wanted) in [
            (&[][..], None),
            (&[None], None),
            (&[Some(Pass)], Some(Pass)),
            (&[Some(Pass), None], None),
            (&[Some(Inconclusive), None], None),
            (&[None, Some(Fail)], Some(Fail)),
            (&[Some(Pass), Some(Inconclusive)], Some(Inconclusive)),
            (&[Some(Fail), Some(Inconclusive), Some(Pass)], Some(Fail)),
        ] {
            let named: Vec<_> = children
                .iter()
                .enumerate()
                .map(|(n, outcome)| {
                    (format!("platform {n}"), Digest::of(&[0]), outcome.map(|outcome| verdict(outcome, 1)))
                })
                .collect();
            let folded = Verdict::fold(&named, at(9));
            assert_eq!(folded.as_ref().map(|verdict| verdict.outcome), wanted, "{children:?}");
            if let Some(folded) = folded {
                assert_eq!(folded.allows_release, wanted == Some(Pass), "{children:?}");
                assert_eq!(folded.counts[&Severity::High], 2, "{children:?}");
                assert_eq!(folded.reason.is_empty(), wanted == Some(Pass), "{children:?}");
            }
        }
    }

    #[test]
    fn a_later_reading_stands_and_an_outcome_keeps_its_age() {
        use Outcome::{Fail, Pass};
        let earlier = verdict(Fail, 5);
        assert_eq!(verdict(Pass, 4).after(Some(&earlier)), None);
        assert_eq!(verdict(Fail, 7).after(Some(&earlier)).unwrap().since, at(5));
        let changed = verdict(Pass, 7).after(Some(&earlier)).unwrap();
        assert_eq!((changed.since, changed.before), (at(7), Some(Fail)));
        assert_eq!(verdict(Pass, 7).after(None).unwrap().since, at(7));
    }

    #[test]
    fn a_policy_that_was_read_later_stands() {
        use Outcome::{Fail, Pass};
        let by = |outcome, second, policy: &str, policy_second| Verdict {
            policy: policy.into(),
            policy_read_at: at(policy_second),
            ..verdict(outcome, second)
        };
        let strict = by(Fail, 5, "strict", 4);
        assert_eq!(by(Pass, 6, "lax", 1).after(Some(&strict)), None, "a long sweep under the policy before it");
        assert!(by(Pass, 6, "lax", 5).after(Some(&strict)).is_some(), "the file was put back");
        assert!(by(Pass, 6, "strict", 1).after(Some(&strict)).is_some(), "the same policy, other findings");
    }
}
