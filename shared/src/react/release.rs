//! Whether an image is released: verified, and passed where the gate asks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::facts::Kind;
use super::verdict::{Outcome, Verdict};
use super::verify::Check;
use crate::config::ReleaseGate;
use crate::image::{Digest, Repository};
use crate::state::ImageRecord;
use crate::state::image_record::ReleasedBy;

/// Where releases by hand lie in the state bucket: an object for each, whose content is the reason.
const FOLDER: &str = "releases/";

/// Repository and digest that the object under `key` releases by hand; `None` for any other key.
pub fn by_hand(key: &str) -> Option<(Repository, Digest)> {
    let (repository, digest) = key.strip_prefix(FOLDER)?.rsplit_once('/')?;
    Some((repository.parse().ok()?, digest.parse().ok()?))
}

/// The key of the object that releases an image by hand.
pub fn key_by_hand(repository: &Repository, digest: Digest) -> String {
    format!("{FOLDER}{repository}/{digest}")
}

/// Whether an image may be used, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Verification or verdict is outstanding.
    Waiting,
    /// It may; what let it go.
    Released(ReleasedBy),
    /// It may not.
    Held(Hold),
}

/// Why an image is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What holds it.
    pub kind: HoldKind,
    /// Why, in words.
    pub text: String,
    /// What lets it go.
    pub fix: String,
}

impl Hold {
    /// For an image that is held and does not say why.
    pub fn unknown() -> Self {
        Self { kind: HoldKind::Policy, text: "no reason is known".to_owned(), fix: "see its record".to_owned() }
    }
}

/// What holds an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    /// What ECR holds is not what was meant.
    Verification,
    /// The policy.
    Policy,
    /// There is no scan to judge by.
    Inconclusive,
}

impl HoldKind {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Policy => "policy",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// What an image is held against.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What a release waits for.
    pub gate: ReleaseGate,
    /// Whether somebody let it go in spite of its verdict; what failed verification cannot be let go.
    pub released_by_hand: bool,
    /// Where policy and releases by hand are, for the commands that are given.
    pub state_bucket: &'a str,
}

/// Where the image of `record` stands.
pub fn standing(record: &ImageRecord, terms: Terms<'_>) -> Standing {
    let Some(verification) = &record.verification else { return Standing::Waiting };
    if let Some(check) = verification.failures.first() {
        let fix = "Push the image again, from a build that is whole.".to_owned();
        return Standing::Held(Hold { kind: HoldKind::Verification, text: in_words(check), fix });
    }
    let Terms { gate, released_by_hand, state_bucket } = terms;
    if let Some(released) = &record.released {
        return Standing::Released(released.by);
    }
    let is_judged = record.facts.as_ref().is_some_and(|facts| facts.kind != Kind::Artifact);
    if gate == ReleaseGate::None || !is_judged {
        return Standing::Released(ReleasedBy::Verification);
    }
    match &record.verdict {
        Some(verdict) if verdict.allows_release => Standing::Released(ReleasedBy::Verdict),
        Some(_) | None if released_by_hand => Standing::Released(ReleasedBy::Hand),
        None => Standing::Waiting,
        Some(verdict) => {
            let kind = held_by(verdict);
            Standing::Held(Hold { kind, text: verdict.reason.clone(), fix: fix(record, kind, state_bucket) })
        }
    }
}

/// What lets go an image that its verdict holds.
fn fix(record: &ImageRecord, kind: HoldKind, state_bucket: &str) -> String {
    let first = match kind {
        HoldKind::Inconclusive => "Have it scanned, or accept it without: inconclusive = \"pass\"",
        HoldKind::Policy | HoldKind::Verification => {
            "Fix it and push a new image, or accept it: an [[exception]] for a finding, another limit for the rest"
        }
    };
    let by_hand = key_by_hand(&record.repository, record.digest);
    format!(
        "{first}, in s3://{state_bucket}/policy.toml.\nOr release this image as it is: echo REASON | aws s3 cp - \
         s3://{state_bucket}/{by_hand}"
    )
}

fn held_by(verdict: &Verdict) -> HoldKind {
    match verdict.outcome {
        Outcome::Inconclusive => HoldKind::Inconclusive,
        Outcome::Fail | Outcome::Pass => HoldKind::Policy,
    }
}

/// A failed check as a sentence.
pub fn in_words(check: &Check) -> String {
    format!("{}: wanted {}, found {}", check.what, check.wanted, check.found)
}

/// What a receipt says of one of its images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRelease {
    /// `released`, `held` or `waiting`.
    pub state: ReleaseState,
    /// Since when it is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What let it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ReleasedBy>,
    /// Why it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
}

/// Whether an image may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseState {
    /// It may.
    Released,
    /// That is not known yet.
    Waiting,
    /// It may not.
    Held,
}

impl ImageRelease {
    /// What `standing` comes to for the image of `record`.
    pub fn of(record: &ImageRecord, standing: &Standing) -> Self {
        match standing {
            Standing::Waiting => Self { state: ReleaseState::Waiting, since: None, by: None, held: None },
            Standing::Released(by) => {
                let since = record.released.as_ref().map(|released| released.at);
                Self { state: ReleaseState::Released, since, by: Some(*by), held: None }
            }
            Standing::Held(hold) => Self { state: ReleaseState::Held, since: None, by: None, held: Some(hold.clone()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::react::{Facts, Verification};
    use crate::state::image_record::Released;

    fn record(verified: Option<bool>, verdict: Option<Outcome>, kind: Kind) -> ImageRecord {
        let at = Timestamp::UNIX_EPOCH;
        let mut record = ImageRecord::new(&"team/app".parse().unwrap(), Digest::of(b"m"));
        let check = Check { what: "blob x".into(), wanted: "3 bytes".into(), found: "not there".into() };
        record.verification = verified.map(|passed| Verification {
            passed,
            at,
            manifests: 1,
            blobs: 2,
            failures: if passed { vec![] } else { vec![check] },
        });
        record.facts = Some(Facts {
            kind,
            platforms: vec![],
            size_bytes: 1,
            labels: BTreeMap::new(),
            revision: None,
            children: vec![],
        });
        record.verdict = verdict.map(|outcome| Verdict {
            outcome,
            allows_release: outcome == Outcome::Pass,
            reason: "why".into(),
            policy: "default".into(),
            policy_read_at: at,
            read_at: at,
            since: at,
            before: None,
            counts: BTreeMap::new(),
            top: vec![],
            excepted: BTreeSet::new(),
        });
        record
    }

    #[test]
    fn an_image_is_released_when_it_is_verified_and_the_gate_is_content() {
        use Kind::{Artifact, Image};
        use ReleaseGate::{None as NoGate, Scan};
        for (verified, verdict, kind, gate, by_hand, wanted) in [
            (None, None, Image, NoGate, true, "waiting"),
            (Some(true), None, Image, NoGate, false, "released"),
            (Some(true), Some(Outcome::Fail), Image, NoGate, false, "released"),
            (Some(true), None, Image, Scan, false, "waiting"),
            (Some(true), Some(Outcome::Pass), Image, Scan, false, "released"),
            (Some(true), Some(Outcome::Fail), Image, Scan, false, "held policy: why"),
            (Some(true), Some(Outcome::Inconclusive), Image, Scan, false, "held inconclusive: why"),
            (Some(true), Some(Outcome::Fail), Image, Scan, true, "released"),
            (Some(true), None, Image, Scan, true, "released"),
            (Some(true), None, Artifact, Scan, false, "released"),
            (
                Some(false),
                Some(Outcome::Pass),
                Image,
                Scan,
                true,
                "held verification: blob x: wanted 3 bytes, found not there",
            ),
            (Some(false), None, Image, NoGate, false, "held verification: blob x: wanted 3 bytes, found not there"),
        ] {
            let terms = Terms { gate, released_by_hand: by_hand, state_bucket: "state" };
            let found = match standing(&record(verified, verdict, kind), terms) {
                Standing::Waiting => "waiting".to_owned(),
                Standing::Released(_) => "released".to_owned(),
                Standing::Held(hold) => format!("held {}: {}", hold.kind.as_str(), hold.text),
            };
            assert_eq!(found, wanted, "{verified:?} {verdict:?} {kind:?} {gate:?} {by_hand}");
        }
    }

    #[test]
    fn a_later_verdict_does_not_unrelease() {
        let mut record = record(Some(true), Some(Outcome::Fail), Kind::Image);
        record.released = Some(Released { at: Timestamp::UNIX_EPOCH, by: ReleasedBy::Verdict });
        let terms = Terms { gate: ReleaseGate::Scan, released_by_hand: false, state_bucket: "state" };
        assert_eq!(standing(&record, terms), Standing::Released(ReleasedBy::Verdict));
    }

    #[test]
    fn keys_of_releases_by_hand_read_back() {
        let (repository, digest): (Repository, _) = ("team/my-app".parse().unwrap(), Digest::of(b"m"));
        assert_eq!(by_hand(&key_by_hand(&repository, digest)), Some((repository, digest)));
        for key in ["releases/x", "releases/team/app/latest", "images/team/app/sha256:00", "policy.toml"] {
            assert_eq!(by_hand(key), None, "{key}");
        }
    }
}
