//! What a scan found, read as it is now: `DescribeImageScanFindings`, with all pages, for both scanners.
//!
//! Basic scanning ends in `COMPLETE` with `findings`; Inspector is `ACTIVE` for as long as it watches, and gives
//! `enhancedFindings` (ECR API reference, `DescribeImageScanFindings`).

use aws_sdk_ecr::Client;
use aws_sdk_ecr::operation::describe_image_scan_findings::DescribeImageScanFindingsOutput as Page;
use aws_sdk_ecr::types::{
    EnhancedImageScanFinding, ImageIdentifier, ImageScanFinding, ImageScanFindings, PackageVulnerabilityDetails,
};
use serde::{Deserialize, Serialize};

use super::severity::Severity;
use crate::aws::CallError;
use crate::image::{Digest, Repository};
use crate::limits;

/// Findings asked for at once: the most that ECR gives.
const PAGE: i32 = 1_000;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Such as `CVE-2024-3094`.
    pub id: String,
    /// As the scanner sees it.
    pub severity: Severity,
    /// The package it is in; several are joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The package's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version that has it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_in: Option<String>,
    /// Whether there is a fix.
    pub fix: Fix,
}

/// Whether there is a fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fix {
    /// For all of it, or a part.
    Available,
    /// There is none.
    None,
    /// The scanner does not say; basic scanning never does.
    Unknown,
}

impl Finding {
    /// As records, events and messages carry it: texts that are too long are cut.
    #[must_use]
    pub fn shortened(&self) -> Self {
        let cut = |text: &String| text.chars().take(limits::FINDING_CHARS).collect::<String>();
        Self {
            id: cut(&self.id),
            severity: self.severity,
            package: self.package.as_ref().map(cut),
            version: self.version.as_ref().map(cut),
            fixed_in: self.fixed_in.as_ref().map(cut),
            fix: self.fix,
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.severity, self.id)?;
        if let Some(package) = &self.package {
            write!(f, " in {package}")?;
        }
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        match (&self.fixed_in, self.fix) {
            (Some(fixed_in), _) => write!(f, ", fixed in {fixed_in}"),
            (None, Fix::None) => f.write_str(", no fix yet"),
            (None, Fix::Available | Fix::Unknown) => Ok(()),
        }
    }
}

/// How far the scan of an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// It has been scanned; these are its findings now.
    Done(Vec<Finding>),
    /// It is being scanned, or has not been yet.
    Waiting {
        /// ECR's word for it.
        status: String,
    },
    /// There will be no answer.
    Never {
        /// ECR's word for it.
        status: String,
        /// ECR's explanation; may be empty.
        description: String,
    },
    /// The image is gone, or archived: nobody can pull it, so there is nothing to judge.
    NoImage,
}

/// Reads the findings of one image: a request for each thousand of them. `ended` is whether a scan of it was said to have
/// ended.
///
/// # Errors
///
/// [`CallError`], transient.
pub async fn read(client: &Client, repository: &Repository, digest: Digest, ended: bool) -> Result<Scan, CallError> {
    let image = ImageIdentifier::builder().image_digest(digest.to_string()).build();
    let request = client.describe_image_scan_findings().repository_name(repository.as_str()).image_id(image);
    let mut pages = request.into_paginator().page_size(PAGE).send();
    let mut findings = Vec::new();
    let mut complete = false;
    while let Some(page) = pages.next().await {
        let resource = format!("{repository}@{digest}");
        let page = match page.map_err(|error| CallError::new("ecr:DescribeImageScanFindings", resource, error)) {
            Ok(page) => page,
            Err(call) if call.is("ScanNotFoundException") => {
                return Ok(Scan::Waiting { status: "not scanned".to_owned() });
            }
            Err(call) if call.is("ImageNotFoundException") || call.is("RepositoryNotFoundException") => {
                return Ok(Scan::NoImage);
            }
            Err(call) => return Err(call),
        };
        match unfinished(&page, ended) {
            None => complete = true,
            Some(scan) => return Ok(scan),
        }
        if let Some(found) = page.image_scan_findings() {
            findings.extend(found.findings().iter().map(basic));
            findings.extend(found.enhanced_findings().iter().filter_map(enhanced));
        }
        if findings.len() > limits::FINDINGS {
            let status = "too many findings".to_owned();
            return Ok(Scan::Never { status, description: format!("more than {}", limits::FINDINGS) });
        }
    }
    if complete { Ok(Scan::Done(findings)) } else { Ok(Scan::Waiting { status: "no answer".to_owned() }) }
}

/// What the status says, unless it is that the findings are there.
///
/// Inspector may say `ACTIVE` of an image before it has looked: the answer counts when it has the time of a scan or a
/// finding, or when an event told of the scan's end.
fn unfinished(page: &Page, ended: bool) -> Option<Scan> {
    let status = page.image_scan_status();
    let word = status.and_then(|status| status.status()).map_or("unknown", |status| status.as_str()).to_owned();
    let description = status.and_then(|status| status.description()).unwrap_or_default().to_owned();
    match word.as_str() {
        "COMPLETE" => None,
        "ACTIVE" if ended || page.image_scan_findings().is_some_and(has_looked) => None,
        "ACTIVE" => Some(Scan::Waiting { status: format!("{word}, and nothing was scanned yet") }),
        "IN_PROGRESS" | "PENDING" => Some(Scan::Waiting { status: word }),
        // Of an image that nobody can pull nobody needs to hear, and what was said of it before stands.
        "IMAGE_ARCHIVED" => Some(Scan::NoImage),
        // FAILED, UNSUPPORTED_IMAGE, IMAGE_SIZE_EXCEEDED, SCAN_ELIGIBILITY_EXPIRED, FINDINGS_UNAVAILABLE,
        // LIMIT_EXCEEDED, and whatever ECR comes to say: never taken for clean.
        _ => Some(Scan::Never { status: word, description }),
    }
}

fn has_looked(found: &ImageScanFindings) -> bool {
    found.image_scan_completed_at().is_some() || !found.enhanced_findings().is_empty()
}

fn basic(finding: &ImageScanFinding) -> Finding {
    let attribute = |name: &str| {
        let found = finding.attributes().iter().find(|attribute| attribute.key() == name);
        found.and_then(|attribute| attribute.value()).map(str::to_owned)
    };
    Finding {
        id: finding.name().unwrap_or("without a name").to_owned(),
        severity: finding.severity().map_or(Severity::Undefined, |severity| Severity::named(severity.as_str())),
        package: attribute("package_name"),
        version: attribute("package_version"),
        fixed_in: None,
        fix: Fix::Unknown,
    }
}

/// `None` for one that is closed, or suppressed by a rule of Inspector's own.
fn enhanced(finding: &EnhancedImageScanFinding) -> Option<Finding> {
    if matches!(finding.status(), Some("CLOSED" | "SUPPRESSED")) {
        return None;
    }
    let details = finding.package_vulnerability_details();
    let packages = details.map(PackageVulnerabilityDetails::vulnerable_packages).unwrap_or_default();
    let joined = |texts: Vec<&str>| Some(texts.join(",")).filter(|text| !text.is_empty());
    let id = details.and_then(|details| details.vulnerability_id()).or(finding.title()).unwrap_or("without a name");
    let fixed_in: Vec<&str> = packages.iter().filter_map(|package| package.fixed_in_version()).collect();
    Some(Finding {
        id: id.to_owned(),
        severity: Severity::named(finding.severity().unwrap_or_default()),
        package: joined(packages.iter().filter_map(|package| package.name()).collect()),
        version: packages.first().and_then(|package| package.version()).map(str::to_owned),
        // Inspector's word for "there is none".
        fixed_in: joined(fixed_in.into_iter().filter(|version| *version != "NotAvailable").collect()),
        fix: match finding.fix_available() {
            Some("YES" | "PARTIAL") => Fix::Available,
            Some("NO") => Fix::None,
            _ => Fix::Unknown,
        },
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecr::types::{ImageScanStatus, ScanStatus};

    use super::*;

    #[test]
    fn an_active_scan_counts_once_something_was_scanned() {
        let page = |status: ScanStatus, found: Option<ImageScanFindings>| {
            let status = ImageScanStatus::builder().status(status).build();
            Page::builder().image_scan_status(status).set_image_scan_findings(found).build()
        };
        let nothing = || ImageScanFindings::builder();
        let scanned = || nothing().image_scan_completed_at(aws_smithy_types::DateTime::from_secs(1)).build();
        let found = || nothing().enhanced_findings(EnhancedImageScanFinding::builder().build()).build();
        for (status, findings, ended, counts) in [
            (ScanStatus::Active, None, false, false),
            (ScanStatus::Active, Some(nothing().build()), false, false),
            (ScanStatus::Active, Some(scanned()), false, true),
            (ScanStatus::Active, Some(found()), false, true),
            (ScanStatus::Active, Some(nothing().build()), true, true),
            (ScanStatus::Pending, None, true, false),
            (ScanStatus::Complete, Some(nothing().build()), false, true),
        ] {
            let what = format!("{status:?} {findings:?} {ended}");
            let unfinished = unfinished(&page(status, findings), ended);
            assert_eq!(unfinished.is_none(), counts, "{what}");
            assert!(matches!(unfinished, None | Some(Scan::Waiting { .. })), "{what}: {unfinished:?}");
        }
    }

    #[test]
    fn a_finding_says_what_is_wrong_and_what_helps() {
        let finding = |package: Option<&str>, fixed_in: Option<&str>, fix| Finding {
            id: "CVE-2024-3094".into(),
            severity: Severity::Critical,
            package: package.map(Into::into),
            version: package.map(|_| "5.6.0".into()),
            fixed_in: fixed_in.map(Into::into),
            fix,
        };
        for (finding, text) in [
            (finding(Some("xz"), Some("5.6.2"), Fix::Available), "critical CVE-2024-3094 in xz 5.6.0, fixed in 5.6.2"),
            (finding(Some("xz"), None, Fix::None), "critical CVE-2024-3094 in xz 5.6.0, no fix yet"),
            (finding(None, None, Fix::Unknown), "critical CVE-2024-3094"),
        ] {
            assert_eq!(finding.to_string(), text);
        }
    }
}
