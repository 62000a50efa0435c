//! Scans: what they found, starting one, and the registry's configuration.

use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    account, clock,
    ecr::{
        Call, Ecr, Output, epoch,
        error::ApiError,
        image_id::{ImageId, find, not_found},
        limit,
    },
    images::{
        Digest, Finding, FindingStatus, Repository, ScanEntry, ScanKind, ScanType, Scanning, counts, enhanced_finding,
    },
};

/// An image is scanned once in this time (ECR user guide, "Scan images for OS vulnerabilities").
const BETWEEN_SCANS: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    repository_name: String,
    image_id: ImageId,
    next_token: Option<String>,
    max_results: Option<usize>,
}

impl Ecr {
    /// `DescribeImageScanFindings`: what the scan has found, as it is now.
    pub(super) fn describe_image_scan_findings(&self, call: &Call) -> Output {
        let wanted: Subject = call.parse()?;
        let name = &wanted.repository_name;
        self.authorize(call, "ecr:DescribeImageScanFindings", name)?;
        let limit = limit(wanted.max_results)?;
        let from = match &wanted.next_token {
            Some(token) => {
                token.parse::<usize>().ok().ok_or_else(|| ApiError::invalid("nextToken", "Invalid token"))?
            }
            None => 0,
        };
        let digest = self.subject(&wanted)?;
        let scan = self.images.scan_of(name, digest)?.ok_or_else(|| not_scanned(&wanted))?;
        let entry = &scan.entry;
        let mut output = scan_output(&wanted, digest, entry.status(), description(entry));
        if entry.is_complete() {
            let page = entry.findings.iter().skip(from).take(limit);
            let (field, findings) = match entry.scan {
                ScanKind::Basic => ("findings", page.map(basic).collect::<Vec<_>>()),
                ScanKind::Enhanced => {
                    ("enhancedFindings", self.look(name, |repository| enhanced(repository, digest, page))?)
                }
            };
            output["imageScanFindings"] = json!({
                field: findings,
                "findingSeverityCounts": counts(&entry.findings),
                "imageScanCompletedAt": epoch(scan.completed),
                "vulnerabilitySourceUpdatedAt": epoch(scan.completed),
            });
            if from + limit < entry.findings.len() {
                output["nextToken"] = json!((from + limit).to_string());
            }
        }
        Ok(output)
    }

    /// `StartImageScan`: basic scanning only, and once a day for each image.
    pub(super) fn start_image_scan(&self, call: &Call) -> Output {
        let wanted: Subject = call.parse()?;
        let name = &wanted.repository_name;
        self.authorize(call, "ecr:StartImageScan", name)?;
        let digest = self.subject(&wanted)?;
        if self.images.scanning().scan_type == ScanType::Enhanced {
            return Err(ApiError::new("ValidationException", "This feature is disabled"));
        }
        if !self.images.is_scannable(name, digest)? {
            let kind =
                self.look(name, |repository| repository.images.get(&digest).map(|image| image.media_type.clone()))?;
            return Err(ApiError::new(
                "UnsupportedImageTypeException",
                format!("The artifact with media type '{}' cannot be scanned.", kind.unwrap_or_default()),
            ));
        }
        let last = self.look(name, |repository| repository.scans.get(&digest).copied())?;
        if last.is_some_and(|last| clock::now().duration_since(last) < BETWEEN_SCANS) {
            return Err(ApiError::new(
                "LimitExceededException",
                "The scan quota per image has been exceeded. Wait and try again.",
            ));
        }
        for event in self.images.rescan(name, &digest.to_string())? {
            // Nobody listens while the stack is being stopped.
            drop(self.events.send(event));
        }
        Ok(scan_output(&wanted, digest, "IN_PROGRESS", ""))
    }

    /// `GetRegistryScanningConfiguration`.
    pub(super) fn registry_scanning_configuration(&self, call: &Call) -> Output {
        self.authorize_account(call, "ecr:GetRegistryScanningConfiguration")?;
        Ok(json!({ "registryId": account::ID, "scanningConfiguration": self.images.scanning() }))
    }

    /// `PutRegistryScanningConfiguration`.
    pub(super) fn put_registry_scanning_configuration(&self, call: &Call) -> Output {
        let scanning: Scanning = call.parse()?;
        self.authorize_account(call, "ecr:PutRegistryScanningConfiguration")?;
        if scanning.rules.len() > 2 {
            return Err(ApiError::invalid("rules", "Member must have length less than or equal to 2"));
        }
        let allowed: &[&str] = match scanning.scan_type {
            ScanType::Basic => &["SCAN_ON_PUSH", "MANUAL"],
            ScanType::Enhanced => &["SCAN_ON_PUSH", "CONTINUOUS_SCAN", "MANUAL"],
        };
        if let Some(rule) = scanning.rules.iter().find(|rule| !allowed.contains(&rule.scan_frequency.as_str())) {
            return Err(ApiError::invalid(
                "rules.scanFrequency",
                &format!("{} is not one of [{}]", rule.scan_frequency, allowed.join(", ")),
            ));
        }
        self.images.set_scanning(scanning.clone())?;
        Ok(json!({ "registryScanningConfiguration": scanning }))
    }

    fn subject(&self, wanted: &Subject) -> Result<Digest, ApiError> {
        self.look(&wanted.repository_name, |repository| {
            find(repository, &wanted.image_id).ok_or_else(|| not_found(repository, &wanted.image_id))
        })?
    }
}

fn scan_output(wanted: &Subject, digest: Digest, status: &str, description: &str) -> Value {
    let id = ImageId { image_digest: Some(digest.to_string()), image_tag: wanted.image_id.image_tag.clone() };
    json!({
        "registryId": account::ID,
        "repositoryName": wanted.repository_name,
        "imageId": id,
        "imageScanStatus": { "status": status, "description": description },
    })
}

fn not_scanned(wanted: &Subject) -> ApiError {
    ApiError::new(
        "ScanNotFoundException",
        format!(
            "Image scan does not exist for the image with '{}' in the repository with name '{}' in the registry with id '{}'",
            wanted.image_id.text(),
            wanted.repository_name,
            account::ID
        ),
    )
}

fn description(entry: &ScanEntry) -> &str {
    entry.reason.as_deref().unwrap_or(match entry.status() {
        "COMPLETE" => "The scan was completed successfully.",
        "ACTIVE" => "Continuous scan is selected for image.",
        _ => "",
    })
}

/// A basic finding has package and version as attributes, and no fixed version.
fn basic(finding: &Finding) -> Value {
    let attributes = [("package_version", &finding.version), ("package_name", &finding.package)];
    let attributes: Vec<Value> = attributes
        .into_iter()
        .filter_map(|(key, value)| Some(json!({ "key": key, "value": value.as_ref()? })))
        .collect();
    let mut output = json!({ "name": finding.name, "severity": finding.severity, "attributes": attributes });
    for (field, text) in [("description", &finding.description), ("uri", &finding.uri)] {
        if let Some(text) = text {
            output[field] = json!(text);
        }
    }
    output
}

fn enhanced<'a>(repository: &Repository, digest: Digest, findings: impl Iterator<Item = &'a Finding>) -> Vec<Value> {
    findings.map(|finding| enhanced_finding(repository, digest, finding, FindingStatus::Active, epoch)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ecr::tests_support::{call, ecr, put_image},
        images::{ImagesError, Manifest},
    };

    fn finding(name: &str, severity: &str) -> Finding {
        Finding {
            name: name.to_owned(),
            severity: severity.to_owned(),
            package: Some("openssl".to_owned()),
            version: Some("1.0".to_owned()),
            fixed_in: Some("1.1".to_owned()),
            ..Finding::default()
        }
    }

    /// An API with the scanned image `1` and the index `i` of it, and the image's digest.
    fn scanned(folder: &std::path::Path, entry: &ScanEntry) -> (Ecr, String) {
        let ecr = ecr(folder);
        let settings = json!({"repositoryName": "ab", "imageScanningConfiguration": {"scanOnPush": true}});
        ecr.create_repository(&call(settings)).unwrap();
        ecr.images.set_findings(std::slice::from_ref(entry)).unwrap();
        let manifest = put_image(&ecr, "layer", Some("1"));
        let digest = Digest::of(manifest.as_bytes());
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": Manifest::parse(manifest.as_bytes(), None).unwrap().media_type,
                "digest": digest.to_string(),
                "size": manifest.len(),
            }],
        });
        let input = json!({"repositoryName": "ab", "imageManifest": index.to_string(), "imageTag": "i"});
        ecr.put_image(&call(input)).unwrap();
        (ecr, digest.to_string())
    }

    fn describe(ecr: &Ecr, id: &Value, more: &Value) -> Output {
        let mut input = json!({"repositoryName": "ab", "imageId": id});
        for (name, value) in more.as_object().into_iter().flatten() {
            input[name] = value.clone();
        }
        ecr.describe_image_scan_findings(&call(input))
    }

    #[test]
    fn findings_are_told_in_pages_by_tag_and_by_digest() {
        let folder = tempfile::tempdir().unwrap();
        let mut entry = ScanEntry::new("a*", "*");
        entry.findings = vec![
            finding("CVE-1", "CRITICAL"),
            finding("CVE-2", "LOW"),
            finding("CVE-3", "LOW"),
            finding("CVE-4", "LOW"),
        ];
        let (ecr, digest) = scanned(folder.path(), &entry);
        let first = describe(&ecr, &json!({"imageTag": "1"}), &json!({"maxResults": 3})).unwrap();
        assert_eq!(first["imageScanStatus"]["status"], "COMPLETE");
        assert_eq!(first["imageId"], json!({"imageDigest": digest, "imageTag": "1"}));
        let found = &first["imageScanFindings"];
        assert_eq!(found["findingSeverityCounts"], json!({"CRITICAL": 1, "LOW": 3}));
        assert!(found["imageScanCompletedAt"].is_f64());
        assert_eq!(
            found["findings"][0],
            json!({"name": "CVE-1", "severity": "CRITICAL", "attributes": [
                {"key": "package_version", "value": "1.0"}, {"key": "package_name", "value": "openssl"},
            ]})
        );
        let next = json!({"maxResults": 3, "nextToken": first["nextToken"]});
        let second = describe(&ecr, &json!({"imageDigest": digest}), &next).unwrap();
        assert_eq!(second["imageScanFindings"]["findings"][0]["name"], "CVE-4");
        assert_eq!((second["nextToken"].is_null(), found["findings"].as_array().unwrap().len()), (true, 3));
    }

    #[test]
    fn enhanced_findings_say_whether_there_is_a_fix() {
        let folder = tempfile::tempdir().unwrap();
        let mut entry = ScanEntry::new("ab", "1");
        entry.scan = ScanKind::Enhanced;
        entry.findings = vec![finding("CVE-1", "UNTRIAGED")];
        let (ecr, digest) = scanned(folder.path(), &entry);
        let told = describe(&ecr, &json!({"imageTag": "1"}), &json!({})).unwrap();
        assert_eq!(told["imageScanStatus"]["status"], "ACTIVE");
        let one = &told["imageScanFindings"]["enhancedFindings"][0];
        assert_eq!((&one["fixAvailable"], &one["status"]), (&json!("YES"), &json!("ACTIVE")));
        assert!(one["firstObservedAt"].is_f64());
        assert_eq!(one["packageVulnerabilityDetails"]["vulnerablePackages"][0]["fixedInVersion"], "1.1");
        assert_eq!(one["resources"][0]["details"]["awsEcrContainerImage"]["imageHash"], json!(digest));
        // The file is read at every use.
        entry.status = Some("SCAN_ELIGIBILITY_EXPIRED".to_owned());
        entry.reason = Some("too old".to_owned());
        ecr.images.set_findings(&[entry]).unwrap();
        let told = describe(&ecr, &json!({"imageTag": "1"}), &json!({})).unwrap();
        let status = json!({"status": "SCAN_ELIGIBILITY_EXPIRED", "description": "too old"});
        assert_eq!((&told["imageScanStatus"], told["imageScanFindings"].is_null()), (&status, true));
    }

    #[test]
    fn refusals_have_ecrs_names() {
        let folder = tempfile::tempdir().unwrap();
        let (ecr, digest) = scanned(folder.path(), &ScanEntry::new("ab", "*"));
        let one = json!({"imageTag": "1"});
        let cases = [
            (json!({"imageTag": "i"}), json!({}), "ScanNotFoundException"),
            (json!({"imageTag": "2"}), json!({}), "ImageNotFoundException"),
            (one.clone(), json!({"repositoryName": "none"}), "RepositoryNotFoundException"),
            (one.clone(), json!({"maxResults": 0}), "InvalidParameterException"),
            (one.clone(), json!({"maxResults": 1001}), "InvalidParameterException"),
            (one.clone(), json!({"nextToken": "x"}), "InvalidParameterException"),
        ];
        for (id, more, want) in cases {
            assert_eq!(describe(&ecr, &id, &more).unwrap_err().name, want, "{id} {more}");
        }
        ecr.images.set_findings(&[]).unwrap();
        assert_eq!(
            describe(&ecr, &one, &json!({})).unwrap_err().message,
            "Image scan does not exist for the image with '{imageDigest:'null', imageTag:'1'}' in the repository with name 'ab' in the registry with id '123456789012'"
        );
        std::fs::write(folder.path().join("findings.json"), r#"[{"repository": "ab", "imgae": "1"}]"#).unwrap();
        let broken = describe(&ecr, &json!({"imageDigest": digest}), &json!({})).unwrap_err();
        assert!(broken.message.contains("unknown field `imgae`"), "{}", broken.message);
    }

    #[test]
    fn a_scan_is_started_once_a_day_and_only_of_images() {
        let folder = tempfile::tempdir().unwrap();
        let (ecr, digest) = scanned(folder.path(), &ScanEntry::new("ab", "*"));
        let start = |id: Value| ecr.start_image_scan(&call(json!({"repositoryName": "ab", "imageId": id})));
        assert_eq!(start(json!({"imageTag": "1"})).unwrap_err().name, "LimitExceededException");
        assert_eq!(start(json!({"imageTag": "i"})).unwrap_err().name, "UnsupportedImageTypeException");
        ecr.images
            .update("ab", |repository| {
                repository.scans.clear();
                Ok::<_, ImagesError>(())
            })
            .unwrap();
        let started = start(json!({"imageDigest": digest})).unwrap();
        assert_eq!(started["imageScanStatus"]["status"], "IN_PROGRESS");
        let rule = json!({"scanFrequency": "CONTINUOUS_SCAN", "repositoryFilters": [{"filter": "*", "filterType": "WILDCARD"}]});
        let basic = json!({"scanType": "BASIC", "rules": [rule]});
        assert_eq!(
            ecr.put_registry_scanning_configuration(&call(basic)).unwrap_err().name,
            "InvalidParameterException"
        );
        let none = json!({"scanType": "BASIC", "rules": []});
        let got = || ecr.registry_scanning_configuration(&call(json!({}))).unwrap()["scanningConfiguration"].clone();
        assert_eq!(got(), none);
        let enhanced = json!({"scanType": "ENHANCED", "rules": [rule]});
        ecr.put_registry_scanning_configuration(&call(enhanced.clone())).unwrap();
        assert_eq!(got(), enhanced);
        assert_eq!(start(json!({"imageTag": "1"})).unwrap_err().name, "ValidationException");
    }
}
