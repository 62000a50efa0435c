//! What ECR and Inspector tell of scans, as events, and the findings in the shape that both use.
//!
//! The ECR user guide, "Amazon ECR events and EventBridge" and "EventBridge events sent for enhanced
//! scanning"; the Inspector user guide, "Amazon EventBridge event schema for Amazon Inspector events".

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Digest, Finding, FindingStatus, Repository, ScanEntry, ScanKind};
use crate::{account, clock, envelope::envelope};

/// The event at the end of a scan; `None` for one that has not ended, or of which nothing is told.
///
/// Of a basic scan that is neither complete nor failed no event is known.
pub(super) fn ended(repository: &Repository, digest: Digest, entry: &ScanEntry) -> Option<Value> {
    match (entry.scan, entry.status()) {
        (ScanKind::Basic, "COMPLETE") => Some(basic(repository, digest, Some(&entry.findings))),
        (ScanKind::Basic, "FAILED") => Some(basic(repository, digest, None)),
        (ScanKind::Basic, _) | (ScanKind::Enhanced, "PENDING" | "IN_PROGRESS") => None,
        (ScanKind::Enhanced, "COMPLETE" | "ACTIVE") => Some(enhanced(repository, digest, &entry.findings)),
        (ScanKind::Enhanced, _) => Some(coverage(repository, digest, entry)),
    }
}

/// How many findings there are of each severity that there is.
pub(crate) fn counts(findings: &[Finding]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for finding in findings {
        *counts.entry(finding.severity.as_str()).or_default() += 1;
    }
    counts
}

/// `ECR Image Scan`; without findings, a failed one.
fn basic(repository: &Repository, digest: Digest, findings: Option<&[Finding]>) -> Value {
    let mut detail = json!({
        "scan-status": if findings.is_some() { "COMPLETE" } else { "FAILED" },
        "repository-name": repository.name,
        "image-digest": digest.to_string(),
        "image-tags": repository.tags_of(&digest),
    });
    if let Some(findings) = findings {
        detail["finding-severity-counts"] = json!(counts(findings));
    }
    envelope("aws.ecr", "ECR Image Scan", &[repository.arn()], &detail)
}

/// `Inspector2 Scan`: the repository's name is its ARN, and the total is a severity like the others.
fn enhanced(repository: &Repository, digest: Digest, findings: &[Finding]) -> Value {
    let counts = counts(findings);
    let count = |severity: &str| counts.get(severity).copied().unwrap_or_default();
    let detail = json!({
        "scan-status": "INITIAL_SCAN_COMPLETE",
        "repository-name": repository.arn(),
        "finding-severity-counts": {
            "CRITICAL": count("CRITICAL"),
            "HIGH": count("HIGH"),
            "MEDIUM": count("MEDIUM"),
            "TOTAL": findings.len(),
        },
        "image-digest": digest.to_string(),
        "image-tags": repository.tags_of(&digest),
        "version": "1.0",
    });
    envelope("aws.inspector2", "Inspector2 Scan", &[repository.arn()], &detail)
}

/// `Inspector2 Coverage` of an image that is not covered.
fn coverage(repository: &Repository, digest: Digest, entry: &ScanEntry) -> Value {
    let in_capitals =
        |reason: &&str| !reason.is_empty() && reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let reason = entry.reason.as_deref().filter(in_capitals).unwrap_or(match entry.status() {
        "UNSUPPORTED_IMAGE" => "UNSUPPORTED_OS",
        status @ ("IMAGE_SIZE_EXCEEDED" | "SCAN_ELIGIBILITY_EXPIRED" | "IMAGE_ARCHIVED") => status,
        _ => "INTERNAL_ERROR",
    });
    let detail = json!({
        "scanStatus": { "reason": reason, "statusCodeValue": "INACTIVE" },
        "scanType": "PACKAGE",
        "eventTimestamp": clock::now(),
        "provider": "AWS",
        "providerAccountId": account::ID,
        "providerRegion": account::REGION,
        "version": "1.0",
    });
    envelope("aws.inspector2", "Inspector2 Coverage", &[image_arn(repository, digest)], &detail)
}

/// `Inspector2 Finding`, whose times are no ISO 8601.
pub(super) fn finding(repository: &Repository, digest: Digest, finding: &Finding, status: FindingStatus) -> Value {
    let time = |time: Timestamp| json!(time.strftime("%b %-d, %Y, %-I:%M:%S %p").to_string());
    let detail = enhanced_finding(repository, digest, finding, status, time);
    envelope("aws.inspector2", "Inspector2 Finding", &[image_arn(repository, digest)], &detail)
}

/// A finding as Inspector tells it, in its events and in `enhancedFindings`; `time` writes times.
pub(crate) fn enhanced_finding(
    repository: &Repository,
    digest: Digest,
    finding: &Finding,
    status: FindingStatus,
    time: impl Fn(Timestamp) -> Value,
) -> Value {
    let found = repository.scans.get(&digest).copied();
    let pushed = repository.images.get(&digest).map(|image| image.pushed_at);
    let first = found.or(pushed).unwrap_or(Timestamp::UNIX_EPOCH);
    let last = clock::now();
    let package = finding.package.as_deref().unwrap_or_default();
    let mut vulnerable = json!({ "name": package, "version": finding.version.as_deref().unwrap_or_default() });
    let mut remedy = "None Provided".to_owned();
    if let Some(fixed_in) = &finding.fixed_in {
        vulnerable["fixedInVersion"] = json!(fixed_in);
        remedy = format!("Upgrade {package} to {fixed_in}");
    }
    json!({
        "awsAccountId": account::ID,
        "findingArn": finding_arn(repository, digest, finding),
        "type": "PACKAGE_VULNERABILITY",
        "title": format!("{} - {package}", finding.name),
        "description": finding.description.as_deref().unwrap_or_default(),
        "severity": finding.severity,
        "status": match status {
            FindingStatus::Active => "ACTIVE",
            FindingStatus::Closed => "CLOSED",
        },
        "fixAvailable": if finding.fixed_in.is_some() { "YES" } else { "NO" },
        "exploitAvailable": "NO",
        "firstObservedAt": time(first),
        "lastObservedAt": time(last),
        "updatedAt": time(last),
        "packageVulnerabilityDetails": {
            "vulnerabilityId": finding.name,
            "source": "NVD",
            "sourceUrl": finding.uri.as_deref().unwrap_or_default(),
            "cvss": [],
            "referenceUrls": finding.uri.iter().collect::<Vec<_>>(),
            "relatedVulnerabilities": [],
            "vulnerablePackages": [vulnerable],
        },
        "remediation": { "recommendation": { "text": remedy } },
        "resources": [{
            "type": "AWS_ECR_CONTAINER_IMAGE",
            "id": image_arn(repository, digest),
            "details": { "awsEcrContainerImage": {
                "repositoryName": repository.name,
                "imageHash": digest.to_string(),
                "imageTags": repository.tags_of(&digest),
                "registry": account::ID,
                "pushedAt": time(pushed.unwrap_or(first)),
            } },
        }],
    })
}

/// The same for the same finding in the same image, so that events can be told apart by it.
fn finding_arn(repository: &Repository, digest: Digest, finding: &Finding) -> String {
    let parts = [&repository.name, &finding.name, finding.package.as_deref().unwrap_or_default()];
    let hash = Digest::of(format!("{} {digest}", parts.join(" ")).as_bytes()).hex();
    account::arn("inspector2", &format!("finding/{}", &hash[..32]))
}

fn image_arn(repository: &Repository, digest: Digest) -> String {
    format!("{}/{digest}", repository.arn())
}
