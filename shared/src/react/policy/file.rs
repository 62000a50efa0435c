//! `policy.toml` as it is written.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;
use wildmatch::WildMatch;

use super::{Allowed, Changes, Exception, Policy, Rules, WhenInconclusive};
use crate::image::Digest;
use crate::limits;
use crate::react::severity::Severity;

/// Why a policy file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct PolicyError {
    /// Where, counted from 1.
    pub line: usize,
    /// What is wrong, and what was wanted.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    max_severity: Option<Level>,
    #[serde(default)]
    max_counts: Option<BTreeMap<Severity, u64>>,
    fixable_only: Option<bool>,
    inconclusive: Option<WhenInconclusive>,
    undefined_as: Option<Severity>,
    required_labels: Option<Vec<String>>,
    max_size_mib: Option<u64>,
    #[serde(default)]
    repository: Vec<Spanned<OverrideTable>>,
    #[serde(default)]
    exception: Vec<Spanned<ExceptionTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideTable {
    #[serde(rename = "match")]
    glob: String,
    max_severity: Option<Level>,
    max_counts: Option<BTreeMap<Severity, u64>>,
    fixable_only: Option<bool>,
    inconclusive: Option<WhenInconclusive>,
    undefined_as: Option<Severity>,
    required_labels: Option<Vec<String>>,
    max_size_mib: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptionTable {
    id: String,
    repository: String,
    package: Option<String>,
    reason: String,
    owner: String,
    expires: Datetime,
}

/// The worst level that is allowed, as it is written.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    None,
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl From<Level> for Allowed {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::Nothing,
            Level::Informational => Self::UpTo(Severity::Informational),
            Level::Low => Self::UpTo(Severity::Low),
            Level::Medium => Self::UpTo(Severity::Medium),
            Level::High => Self::UpTo(Severity::High),
            Level::Critical => Self::UpTo(Severity::Critical),
        }
    }
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], with the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > limits::POLICY_BYTES {
            let reason = format!("the file has more than {} bytes, and at most so many are read", limits::POLICY_BYTES);
            return Err(PolicyError { line: 1, reason });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| PolicyError {
            line: line_at(bytes, error.valid_up_to()),
            reason: "this is not UTF-8 text".to_owned(),
        })?;
        let file: File = toml::from_str(text).map_err(|error| PolicyError {
            line: error.span().map_or(1, |span| line_at(bytes, span.start)),
            reason: error.message().replace('\n', " "),
        })?;
        let mut overrides = Vec::with_capacity(file.repository.len());
        for table in file.repository {
            let line = line_at(bytes, table.span().start);
            let table = table.into_inner();
            let glob = glob(&table.glob, "match", line)?;
            overrides.push((glob, table.changes(line)?));
        }
        let mut exceptions = Vec::with_capacity(file.exception.len());
        for table in file.exception {
            let line = line_at(bytes, table.span().start);
            exceptions.push(table.into_inner().exception(line)?);
        }
        let own = OverrideTable {
            glob: "*".to_owned(),
            max_severity: file.max_severity,
            max_counts: file.max_counts,
            fixable_only: file.fixable_only,
            inconclusive: file.inconclusive,
            undefined_as: file.undefined_as,
            required_labels: file.required_labels,
            max_size_mib: file.max_size_mib,
        };
        let mut rules = Rules::default();
        own.changes(1)?.apply(&mut rules);
        Ok(Self { version: Digest::of(bytes).short(), rules, overrides, exceptions })
    }
}

impl OverrideTable {
    fn changes(self, line: usize) -> Result<Changes, PolicyError> {
        if self.undefined_as == Some(Severity::Undefined) {
            let reason = "undefined_as wants informational, low, medium, high or critical".to_owned();
            return Err(PolicyError { line, reason });
        }
        if self.max_counts.as_ref().is_some_and(|counts| counts.contains_key(&Severity::Undefined)) {
            let reason =
                "max_counts has undefined; say with undefined_as which level such findings count as".to_owned();
            return Err(PolicyError { line, reason });
        }
        Ok(Changes {
            max_severity: self.max_severity.map(Into::into),
            max_counts: self.max_counts,
            fixable_only: self.fixable_only,
            inconclusive: self.inconclusive,
            undefined_as: self.undefined_as,
            required_labels: self.required_labels,
            max_size_bytes: self.max_size_mib.map(|mib| mib.saturating_mul(1 << 20)),
        })
    }
}

impl ExceptionTable {
    fn exception(self, line: usize) -> Result<Exception, PolicyError> {
        let Self { id, repository, package, reason, owner, expires } = self;
        for (field, value) in [("id", &id), ("reason", &reason), ("owner", &owner)] {
            if value.trim().is_empty() {
                let reason = format!("this exception's {field} is empty; somebody has to answer for it");
                return Err(PolicyError { line, reason });
            }
        }
        let date = expires.date.and_then(|date| {
            let (year, month, day) =
                (date.year.try_into().ok()?, date.month.try_into().ok()?, date.day.try_into().ok()?);
            Date::new(year, month, day).ok()
        });
        let Some(expires) = date else {
            let reason = format!("this exception's expires is {expires}; wanted a day such as 2027-01-31");
            return Err(PolicyError { line, reason });
        };
        let matcher = glob(&repository, "repository", line)?;
        Ok(Exception { id, repository, matcher, package, reason, owner, expires })
    }
}

fn glob(text: &str, field: &str, line: usize) -> Result<WildMatch, PolicyError> {
    if text.is_empty() {
        let reason = format!("{field} is empty; wanted a repository such as team/app, or a pattern such as team/*");
        return Err(PolicyError { line, reason });
    }
    Ok(WildMatch::new(text))
}

/// The line of the byte at `offset`, counted from 1.
fn line_at(bytes: &[u8], offset: usize) -> usize {
    let before = bytes.get(..offset.min(bytes.len())).unwrap_or_default();
    before.split(|byte| *byte == b'\n').count()
}
