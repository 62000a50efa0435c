//! The policy: which findings hold a release, read from `policy.toml` in the state bucket.
//!
//! A file that parses is kept as `policy.good.toml`; one that does not changes nothing, and the last good one stays in
//! force, also for a process that starts later. Without a file the default holds: critical findings and inconclusive
//! scans hold a release.

mod file;
mod judge;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use wildmatch::WildMatch;

use super::severity::Severity;
use crate::image::Repository;

pub use file::PolicyError;
pub use judge::{Judgement, Subject};
pub use store::{Loaded, Policies};

/// Where the file is, in the state bucket.
pub const KEY: &str = "policy.toml";

/// Where the last one that parsed is kept.
pub const GOOD_KEY: &str = "policy.good.toml";

/// How the default is called where a version is wanted.
const DEFAULT_VERSION: &str = "default";

/// Days before its last that people hear of an exception's end.
pub const EXPIRY_NOTICE_DAYS: i32 = 14;

/// What decides over releases.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The first twelve hex digits of the file's SHA-256, or `default`.
    pub version: String,
    rules: Rules,
    overrides: Vec<(WildMatch, Changes)>,
    exceptions: Vec<Exception>,
}

/// What holds a release, in one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The worst finding that is still allowed.
    pub max_severity: Allowed,
    /// How many findings of a level are allowed at most.
    pub max_counts: BTreeMap<Severity, u64>,
    /// Whether only findings with a fix count. Where the scanner does not say, they count.
    pub fixable_only: bool,
    /// What an inconclusive scan means.
    pub inconclusive: WhenInconclusive,
    /// Which level a finding without one counts as.
    pub undefined_as: Severity,
    /// Labels that the image must have: a name, or `name=value`.
    pub required_labels: Vec<String>,
    /// The largest image, in bytes of compressed layers.
    pub max_size_bytes: Option<u64>,
}

/// How bad a finding may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// No finding at all is allowed.
    Nothing,
    /// Findings of this level and milder ones are.
    UpTo(Severity),
}

impl Allowed {
    /// Whether a finding of `level` is too bad.
    fn is_exceeded_by(self, level: Severity) -> bool {
        match self {
            Self::Nothing => true,
            Self::UpTo(most) => level.rank() > most.rank(),
        }
    }
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("none is allowed"),
            Self::UpTo(most) => write!(f, "at most {most} is allowed"),
        }
    }
}

/// What an inconclusive scan means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenInconclusive {
    /// The release waits.
    Hold,
    /// The release goes on.
    Pass,
}

/// The fields that a `[[repository]]` changes.
#[derive(Debug, Clone, Default)]
struct Changes {
    max_severity: Option<Allowed>,
    max_counts: Option<BTreeMap<Severity, u64>>,
    fixable_only: Option<bool>,
    inconclusive: Option<WhenInconclusive>,
    undefined_as: Option<Severity>,
    required_labels: Option<Vec<String>>,
    max_size_bytes: Option<u64>,
}

/// A finding that somebody answers for, until a day.
#[derive(Debug, Clone)]
pub struct Exception {
    /// The finding's name, such as `CVE-2024-3094`.
    pub id: String,
    /// Where it holds, as written.
    pub repository: String,
    matcher: WildMatch,
    /// The one package in which it holds; in any without.
    pub package: Option<String>,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day on which it holds, in UTC.
    pub expires: Date,
}

impl Default for Rules {
    /// Critical findings hold, inconclusive holds.
    fn default() -> Self {
        Self {
            max_severity: Allowed::UpTo(Severity::High),
            max_counts: BTreeMap::new(),
            fixable_only: false,
            inconclusive: WhenInconclusive::Hold,
            // Never ignored silently, and not everybody's alarm.
            undefined_as: Severity::Medium,
            required_labels: Vec::new(),
            max_size_bytes: None,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: DEFAULT_VERSION.to_owned(),
            rules: Rules::default(),
            overrides: Vec::new(),
            exceptions: Vec::new(),
        }
    }
}

impl Policy {
    /// What holds in `repository`: the file's own rules, changed by every `[[repository]]` that matches, in the order
    /// of the file.
    pub fn rules(&self, repository: &Repository) -> Rules {
        let mut rules = self.rules.clone();
        for (_, changes) in self.overrides.iter().filter(|(glob, _)| glob.matches(repository.as_str())) {
            changes.apply(&mut rules);
        }
        rules
    }

    /// What holds where nothing else is said.
    pub fn everywhere(&self) -> &Rules {
        &self.rules
    }

    /// Each `[[repository]]` with what holds there if no other one matches.
    pub fn overrides(&self) -> impl Iterator<Item = (String, Rules)> {
        self.overrides.iter().map(|(glob, changes)| {
            let mut rules = self.rules.clone();
            changes.apply(&mut rules);
            (glob.to_string(), rules)
        })
    }

    /// Each two `[[repository]]` that may match one repository, with what holds where both do and no other.
    pub fn overlaps(&self) -> impl Iterator<Item = (String, String, Rules)> {
        let pairs = self
            .overrides
            .iter()
            .enumerate()
            .flat_map(|(at, first)| self.overrides.iter().skip(at + 1).map(move |second| (first, second)));
        pairs.filter_map(|((first, changes), (second, later))| {
            let globs = (first.to_string(), second.to_string());
            let mut rules = self.rules.clone();
            changes.apply(&mut rules);
            later.apply(&mut rules);
            may_both_match(&globs.0, &globs.1).then_some((globs.0, globs.1, rules))
        })
    }

    /// All exceptions.
    pub fn exceptions(&self) -> &[Exception] {
        &self.exceptions
    }

    /// Whether an exception from one of these findings held on the day `then`, and holds no more `today`.
    pub fn has_ended(&self, excepted: &BTreeSet<String>, then: Date, today: Date) -> bool {
        self.exceptions.iter().any(|exception| {
            exception.expires >= then
                && exception.expires < today
                && excepted.iter().any(|id| exception.id.eq_ignore_ascii_case(id))
        })
    }

    /// Exceptions whose last day is within [`EXPIRY_NOTICE_DAYS`] of `today`, or over.
    pub fn ending(&self, today: Date) -> impl Iterator<Item = &Exception> {
        self.exceptions.iter().filter(move |exception| exception.days_left(today) <= EXPIRY_NOTICE_DAYS)
    }
}

/// Whether there is a name that two globs match, in which `*` stands for any characters and `?` for one.
fn may_both_match(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut seen = BTreeSet::new();
    let mut open = vec![(0, 0)];
    while let Some((i, j)) = open.pop() {
        if !seen.insert((i, j)) {
            continue;
        }
        match (one.get(i), other.get(j)) {
            (None, None) => return true,
            // A star may stand for nothing, or for whatever comes on the other side.
            (Some('*'), there) => open.extend([(i + 1, j)].into_iter().chain(there.map(|_| (i, j + 1)))),
            (here, Some('*')) => open.extend([(i, j + 1)].into_iter().chain(here.map(|_| (i + 1, j)))),
            (Some(a), Some(b)) if a == b || *a == '?' || *b == '?' => open.push((i + 1, j + 1)),
            _ => {}
        }
    }
    false
}

impl Exception {
    /// Days until its last, 0 on that day, negative after it.
    pub fn days_left(&self, today: Date) -> i32 {
        today.until(self.expires).map_or(0, |span| span.get_days())
    }

    /// Whether it holds for this finding on this day.
    fn covers(&self, repository: &Repository, id: &str, package: Option<&str>, today: Date) -> bool {
        self.id.eq_ignore_ascii_case(id)
            && self.expires >= today
            && self.matcher.matches(repository.as_str())
            && self
                .package
                .as_deref()
                .is_none_or(|wanted| package.is_some_and(|found| found.split(',').any(|one| one == wanted)))
    }
}

impl Changes {
    fn apply(&self, rules: &mut Rules) {
        let Self {
            max_severity,
            max_counts,
            fixable_only,
            inconclusive,
            undefined_as,
            required_labels,
            max_size_bytes,
        } = self.clone();
        rules.max_severity = max_severity.unwrap_or(rules.max_severity);
        rules.fixable_only = fixable_only.unwrap_or(rules.fixable_only);
        rules.inconclusive = inconclusive.unwrap_or(rules.inconclusive);
        rules.undefined_as = undefined_as.unwrap_or(rules.undefined_as);
        rules.max_size_bytes = max_size_bytes.or(rules.max_size_bytes);
        if let Some(counts) = max_counts {
            rules.max_counts = counts;
        }
        if let Some(labels) = required_labels {
            rules.required_labels = labels;
        }
    }
}

#[cfg(test)]
mod tests;
