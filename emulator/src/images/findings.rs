//! Scans. The embedded ECR has no scanner, and says so: what a scan finds stands in a file.
//!
//! The file is `findings.json` in the data folder, read anew at every use, so that a person can
//! edit it while the stack runs. It is a list; of the entries that match an image the first counts:
//!
//! ```json
//! [{
//!   "repository": "team/*",
//!   "image": "1.*",
//!   "scan": "enhanced",
//!   "status": "COMPLETE",
//!   "reason": "told as the status's description",
//!   "findings": [{
//!     "name": "CVE-2026-0001", "severity": "CRITICAL",
//!     "package": "openssl", "version": "3.0.1", "fixed_in": "3.0.2",
//!     "description": "what is wrong", "uri": "https://example.com/CVE-2026-0001"
//!   }]
//! }]
//! ```
//!
//! `repository` is a glob. `image` is a glob over tags, or a digest; without it the entry is for
//! every image. It matches by any tag that the image has had, by its digest, and by the tags and
//! digests of the indexes that name it. `scan` is `basic` unless it says otherwise; `status` is one
//! of ECR's, and without it the scan is complete. Of a finding only `name` and `severity` must be
//! there.
//!
//! A scan runs when an image comes to a repository that scans on push and an entry matches it; an
//! image that no entry matches is never scanned, and no event tells of it. An image without any tag
//! waits for one when an entry before the one that it matches names tags, since manifests are put
//! by digest first.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::{Digest, Images, ImagesError, Repository};
use crate::disk;

/// `ScanStatus` of the ECR API reference.
const STATUSES: [&str; 11] = [
    "IN_PROGRESS",
    "COMPLETE",
    "FAILED",
    "UNSUPPORTED_IMAGE",
    "ACTIVE",
    "PENDING",
    "SCAN_ELIGIBILITY_EXPIRED",
    "FINDINGS_UNAVAILABLE",
    "LIMIT_EXCEEDED",
    "IMAGE_ARCHIVED",
    "IMAGE_SIZE_EXCEEDED",
];

/// `FindingSeverity` of the ECR API reference, and Inspector's one more.
const SEVERITIES: [&str; 7] = ["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED", "UNTRIAGED"];

/// What a scan finds in the images that an entry matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanEntry {
    /// A glob over repository names.
    pub repository: String,
    /// A glob over tags, or a digest.
    #[serde(default = "any")]
    pub image: String,
    /// Who scans.
    #[serde(default)]
    pub scan: ScanKind,
    /// One of ECR's; `COMPLETE` of a basic scan and `ACTIVE` of an enhanced one when it is `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The status's description; in capitals it is also the reason of a coverage event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is found.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// Who scans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanKind {
    /// ECR itself, once.
    #[default]
    Basic,
    /// Inspector, again and again.
    Enhanced,
}

/// One finding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Such as `CVE-2026-0001`.
    pub name: String,
    /// One of ECR's, such as `CRITICAL`.
    pub severity: String,
    /// The package that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The package's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version without it. Basic scanning does not tell this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_in: Option<String>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// Why scans cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum FindingsError {
    /// The file could not be read or written.
    #[error("{} could not be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not as the module describes it.
    #[error("{} is no list of scan entries", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A value that ECR does not have.
    #[error("the entry for {repository} has the {field} {value:?}, which ECR does not have")]
    Value {
        /// The entry's repository glob.
        repository: String,
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// There is no such image.
    #[error("there is no image {reference} in the repository {repository}")]
    NoImage {
        /// The repository.
        repository: String,
        /// The tag or digest.
        reference: String,
    },
    /// The image store failed.
    #[error("the image store failed")]
    Images(#[from] ImagesError),
}

/// Whether a finding is there or gone, as `Inspector2 Finding` events tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingStatus {
    /// It is there.
    Active,
    /// It is no longer there.
    Closed,
}

impl ScanEntry {
    /// A complete basic scan without findings, of the images of `repository` that `image` names.
    pub fn new(repository: &str, image: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            image: image.to_owned(),
            scan: ScanKind::Basic,
            status: None,
            reason: None,
            findings: Vec::new(),
        }
    }

    /// The status as `DescribeImageScanFindings` tells it.
    pub(crate) fn status(&self) -> &str {
        match (&self.status, self.scan) {
            (Some(status), _) => status,
            (None, ScanKind::Basic) => "COMPLETE",
            (None, ScanKind::Enhanced) => "ACTIVE",
        }
    }

    /// Whether there are results.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.status(), "COMPLETE" | "ACTIVE")
    }

    fn check(&self) -> Result<(), FindingsError> {
        let unknown = |field, value: &str| FindingsError::Value {
            repository: self.repository.clone(),
            field,
            value: value.to_owned(),
        };
        if !STATUSES.contains(&self.status()) {
            return Err(unknown("status", self.status()));
        }
        match self.findings.iter().find(|finding| !SEVERITIES.contains(&finding.severity.as_str())) {
            Some(finding) => Err(unknown("severity", &finding.severity)),
            None => Ok(()),
        }
    }

    fn names_tags(&self) -> bool {
        self.image != "*" && !self.image.starts_with("sha256:")
    }

    fn matches(&self, names: &Names) -> bool {
        if self.image == "*" {
            return true;
        }
        let glob = WildMatch::new(&self.image);
        names.tags.iter().any(|tag| glob.matches(tag))
            || names.digests.iter().any(|digest| glob.matches(&digest.to_string()))
    }
}

/// What an image is called: it and the indexes that name it.
#[derive(Debug, Default)]
struct Names {
    digests: BTreeSet<Digest>,
    tags: BTreeSet<String>,
}

impl Names {
    fn of(repository: &Repository, digest: Digest) -> Self {
        let mut names = Self::default();
        let mut left = vec![digest];
        while let Some(digest) = left.pop() {
            if !names.digests.insert(digest) {
                continue;
            }
            names.tags.extend(repository.tags_of(&digest));
            names.tags.extend(repository.past_tags.get(&digest).into_iter().flatten().cloned());
            let parents = repository.images.iter().filter(|(_, image)| image.children.contains(&digest));
            left.extend(parents.map(|(parent, _)| *parent));
        }
        names
    }
}

impl Images {
    /// The entries of the findings file, in order; none without the file.
    ///
    /// # Errors
    ///
    /// [`FindingsError`] for a file that cannot be read or is not as the module describes it.
    pub fn findings(&self) -> Result<Vec<ScanEntry>, FindingsError> {
        let path = self.findings.clone();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(FindingsError::Io { path, source }),
        };
        let entries: Vec<ScanEntry> =
            serde_json::from_slice(&bytes).map_err(|source| FindingsError::Json { path, source })?;
        entries.iter().try_for_each(ScanEntry::check)?;
        Ok(entries)
    }

    /// Replaces the findings file. No event comes of it before the next push or rescan.
    ///
    /// # Errors
    ///
    /// [`FindingsError`]; the file is then as it was.
    pub fn set_findings(&self, entries: &[ScanEntry]) -> Result<(), FindingsError> {
        entries.iter().try_for_each(ScanEntry::check)?;
        disk::write_json(&self.findings, &entries)
            .map_err(|source| FindingsError::Io { path: self.findings.clone(), source })
    }
}

/// The first entry that matches the image, unless a tag could still make an earlier one match.
pub(super) fn find<'a>(entries: &'a [ScanEntry], repository: &Repository, digest: Digest) -> Option<&'a ScanEntry> {
    let names = Names::of(repository, digest);
    let mut own = entries.iter().filter(|entry| WildMatch::new(&entry.repository).matches(&repository.name));
    own.find(|entry| entry.matches(&names) || (names.tags.is_empty() && entry.names_tags()))
        .filter(|entry| entry.matches(&names))
}

fn any() -> String {
    "*".to_owned()
}
