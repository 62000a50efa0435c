//! One image held against the policy.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use super::{Policy, Rules, WhenInconclusive};
use crate::image::Repository;
use crate::limits;
use crate::react::findings::{Finding, Fix, Scan};
use crate::react::severity::Severity;
use crate::react::verdict::Outcome;

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Where it is.
    pub repository: &'a Repository,
    /// Its config's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its compressed layers together, in bytes.
    pub size_bytes: u64,
}

/// What the policy says of an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Judgement {
    /// Pass, fail or inconclusive; `None` while the scan is still awaited.
    pub outcome: Option<Outcome>,
    /// Whether a release may go on with it.
    pub allows_release: bool,
    /// Why, in words; empty for a pass.
    pub reason: String,
    /// Findings that count, by level.
    pub counts: BTreeMap<Severity, u64>,
    /// The worst of them, at most [`limits::TOP_FINDINGS`].
    pub top: Vec<Finding>,
    /// The findings that exceptions took out, by their names.
    pub excepted: BTreeSet<String>,
}

impl Policy {
    /// Judges `subject` by its scan, on the day `today`.
    pub fn judge(&self, subject: Subject<'_>, scan: &Scan, today: Date) -> Judgement {
        let rules = self.rules(subject.repository);
        let broken = rules.broken_by(subject);
        let mut judgement = match scan {
            Scan::Done(findings) => self.judge_findings(&rules, subject.repository, findings, today),
            // Of an image that is there, ECR may not know it here yet.
            Scan::Waiting { .. } | Scan::NoImage => Judgement::empty(None, String::new()),
            Scan::Never { status, description } => {
                let said = if description.is_empty() { String::new() } else { format!(": {description}") };
                Judgement::empty(Some(Outcome::Inconclusive), format!("the scan ended as {status}{said}"))
            }
        };
        // What the image itself lacks needs no scan to be known.
        if !broken.is_empty() {
            judgement.outcome = Some(Outcome::Fail);
            let scanned = Some(judgement.reason).filter(|reason| !reason.is_empty());
            judgement.reason = broken.into_iter().chain(scanned).collect::<Vec<_>>().join("; ");
        }
        judgement.allows_release = rules.allow(judgement.outcome);
        judgement
    }

    fn judge_findings(&self, rules: &Rules, repository: &Repository, findings: &[Finding], today: Date) -> Judgement {
        let mut excepted = BTreeSet::new();
        let mut counts: BTreeMap<Severity, u64> = BTreeMap::new();
        let mut counted: Vec<(Severity, &Finding)> = Vec::new();
        for finding in findings {
            let covers = |exception: &&super::Exception| {
                exception.covers(repository, &finding.id, finding.package.as_deref(), today)
            };
            if self.exceptions.iter().any(|exception| covers(&exception)) {
                excepted.insert(finding.id.clone());
                continue;
            }
            if rules.fixable_only && finding.fix == Fix::None {
                continue;
            }
            *counts.entry(finding.severity).or_default() += 1;
            counted.push((rules.level(finding.severity), finding));
        }
        counted.sort_by(|(one, a), (other, b)| other.rank().cmp(&one.rank()).then_with(|| a.id.cmp(&b.id)));

        let mut reasons = Vec::new();
        let allowed = rules.max_severity;
        let too_bad = counted.iter().filter(|(level, _)| allowed.is_exceeded_by(*level)).count();
        if too_bad > 0 {
            let worst = counted.first().map(|(_, finding)| finding.shortened().to_string()).unwrap_or_default();
            let more = if too_bad > 1 { format!(" and {} more", too_bad - 1) } else { String::new() };
            reasons.push(format!("{worst}{more}; {allowed}"));
        }
        for (severity, most) in &rules.max_counts {
            let found = counted.iter().filter(|(level, _)| level == severity).count() as u64;
            if found > *most {
                reasons.push(format!("{found} findings are {severity}; at most {most} are allowed"));
            }
        }
        let outcome = if reasons.is_empty() { Outcome::Pass } else { Outcome::Fail };
        let top = counted.iter().take(limits::TOP_FINDINGS).map(|(_, finding)| finding.shortened()).collect();
        Judgement { counts, top, excepted, ..Judgement::empty(Some(outcome), reasons.join("; ")) }
    }
}

impl Judgement {
    fn empty(outcome: Option<Outcome>, reason: String) -> Self {
        Self {
            outcome,
            allows_release: false,
            reason,
            counts: BTreeMap::new(),
            top: Vec::new(),
            excepted: BTreeSet::new(),
        }
    }
}

impl Rules {
    /// Whether a release may go on with this outcome.
    pub fn allow(&self, outcome: Option<Outcome>) -> bool {
        match outcome {
            Some(Outcome::Pass) => true,
            Some(Outcome::Inconclusive) => self.inconclusive == WhenInconclusive::Pass,
            Some(Outcome::Fail) | None => false,
        }
    }

    /// The level that a finding counts as.
    fn level(&self, severity: Severity) -> Severity {
        if severity == Severity::Undefined { self.undefined_as } else { severity }
    }

    /// What the image itself lacks.
    fn broken_by(&self, subject: Subject<'_>) -> Vec<String> {
        let mut broken = Vec::new();
        for wanted in &self.required_labels {
            let (name, value) = match wanted.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (wanted.as_str(), None),
            };
            match (subject.labels.get(name), value) {
                (None, _) => {
                    broken.push(format!("the label {wanted} is required, and the image has none of that name"));
                }
                (Some(found), Some(value)) if found != value => {
                    broken.push(format!("the label {name} is {found:?}, and {value:?} is required"));
                }
                (Some(_), _) => {}
            }
        }
        if let Some(most) = self.max_size_bytes
            && subject.size_bytes > most
        {
            let (found, most) = (subject.size_bytes >> 20, most >> 20);
            broken.push(format!("the image has {found} MiB of layers, and at most {most} MiB are allowed"));
        }
        broken
    }
}
