//! The `detail` of every event: one schema, described in `docs/events.md` and in `docs/events.schema.json`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::image::{Digest, Repository, Tag};
use crate::limits;
use crate::react::findings::Finding;
use crate::react::severity::Severity;
use crate::react::verdict::{Outcome, Verdict};
use crate::state::image_record::UploadRecord;

/// Tags that a line names.
const TAGS_READ: usize = 10;

/// What every event says.
#[derive(Debug, Clone, Serialize)]
pub struct Detail {
    /// 1; fields are only ever added.
    pub schema: u32,
    /// The same for duplicates: 32 hex digits.
    pub id: String,
    /// The stack that tells.
    pub stack: String,
    /// Its version.
    pub version: String,
    /// Of the upload or the image; `policy` where it is about the policy file.
    pub state: String,
    /// The image, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageDetail>,
    /// The upload it came from, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadDetail>,
    /// Why, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonDetail>,
    /// What the policy says of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictDetail>,
}

/// An image.
#[derive(Debug, Clone, Serialize)]
pub struct ImageDetail {
    /// Where.
    pub repository: Repository,
    /// Its manifest.
    pub digest: Digest,
    /// The tags that the event is about; the first [`limits::TAGS_TOLD`] of them.
    pub tags: Vec<Tag>,
    /// What can be deployed: registry host, repository and digest.
    pub uri: String,
    /// Such as `linux/amd64`.
    pub platforms: Vec<String>,
    /// The repository's ARN, which is the event's resource.
    #[serde(skip)]
    pub arn: Option<String>,
}

impl ImageDetail {
    /// With as many tags as fit into a message.
    pub(super) fn bounded(mut self) -> Self {
        self.tags.truncate(limits::TAGS_TOLD);
        self
    }

    /// `team/app:1.4.2`, or the beginning of the digest without a tag.
    pub fn name(&self) -> String {
        match self.tags.as_slice() {
            [] => format!("{}@sha256:{}", self.repository, self.digest.short()),
            tags => format!("{}:{}", self.repository, listed(tags, ",")),
        }
    }
}

/// The first tags, and how many there are more: a line that a person reads.
pub(super) fn listed(tags: &[Tag], between: &str) -> String {
    let mut names: Vec<String> = tags.iter().take(TAGS_READ).map(ToString::to_string).collect();
    if tags.len() > TAGS_READ {
        names.push(format!("and {} more", tags.len() - TAGS_READ));
    }
    names.join(between)
}

/// An upload.
#[derive(Debug, Clone, Serialize)]
pub struct UploadDetail {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
}

impl From<&UploadRecord> for UploadDetail {
    fn from(upload: &UploadRecord) -> Self {
        let UploadRecord { bucket, key, version_id } = upload.clone();
        Self { bucket, key, version_id }
    }
}

/// Why, and what to do.
#[derive(Debug, Clone, Serialize)]
pub struct ReasonDetail {
    /// A word that is stable.
    pub kind: String,
    /// Why, within [`limits::REASON_CHARS`].
    pub text: String,
    /// What to do.
    pub fix: String,
}

impl ReasonDetail {
    /// A reason; a text that is too long is cut.
    pub fn new(kind: impl Into<String>, text: &str, fix: impl Into<String>) -> Self {
        let mut cut: String = text.chars().take(limits::REASON_CHARS).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        Self { kind: kind.into(), text: cut, fix: fix.into() }
    }
}

/// What the policy says of an image.
#[derive(Debug, Clone, Serialize)]
pub struct VerdictDetail {
    /// Pass, fail or inconclusive.
    pub outcome: Outcome,
    /// The policy's version.
    pub policy: String,
    /// Since when the outcome is this one.
    pub since: jiff::Timestamp,
    /// Findings that count, by level.
    pub counts: BTreeMap<Severity, u64>,
    /// The worst of them.
    pub findings: Vec<Finding>,
    /// Findings that exceptions took out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excepted: Vec<String>,
    /// The worst level.
    #[serde(skip)]
    pub worst: Option<Severity>,
}

impl From<&Verdict> for VerdictDetail {
    fn from(verdict: &Verdict) -> Self {
        Self {
            outcome: verdict.outcome,
            policy: verdict.policy.clone(),
            since: verdict.since,
            counts: verdict.counts.clone(),
            findings: verdict.top.clone(),
            excepted: verdict.excepted.iter().take(100).cloned().collect(),
            worst: verdict.worst_severity(),
        }
    }
}
