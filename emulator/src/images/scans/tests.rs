use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;

use super::*;
use crate::images::{Finding, NewImage, Repository, ScanKind, Settings, tests::blob};

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A store with the repository `team/app`, which scans on push.
fn store(folder: &Path) -> Images {
    let images = Images::open(folder.to_owned(), None).unwrap();
    let settings = Settings { scan_on_push: true, ..Settings::default() };
    images.create(Repository::new("team/app", settings, BTreeMap::new())).unwrap();
    images
}

fn manifest(images: &Images, config: &str, layer: &str, text: &str) -> String {
    let descriptor = |media_type: &str, text: &str| {
        let digest = blob(images, "team/app", text).to_string();
        json!({"mediaType": media_type, "digest": digest, "size": text.len()})
    };
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": descriptor(config, "config"),
        "layers": [descriptor(layer, text)],
    })
    .to_string()
}

fn image(images: &Images, text: &str) -> String {
    manifest(images, CONFIGS[0], "application/vnd.oci.image.layer.v1.tar+gzip", text)
}

fn index(children: &[&str]) -> String {
    let children: Vec<Value> = children
        .iter()
        .map(|child| json!({"mediaType": OCI_IMAGE, "digest": digest(child).to_string(), "size": child.len()}))
        .collect();
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children})
        .to_string()
}

fn digest(manifest: &str) -> Digest {
    Digest::of(manifest.as_bytes())
}

/// Puts a manifest; what is told of it besides the push itself.
fn put(images: &Images, manifest: &str, tag: Option<&str>) -> Vec<Value> {
    let new = NewImage { repository: "team/app", bytes: manifest.as_bytes(), media_type: None, tag, digest: None };
    let put = images.put(new).unwrap();
    let events = images.events_of("team/app", &put, tag);
    events.into_iter().filter(|event| event["detail-type"] != "ECR Image Action").collect()
}

fn finding(name: &str, severity: &str) -> Finding {
    Finding { name: name.to_owned(), severity: severity.to_owned(), ..Finding::default() }
}

fn entry(image: &str, findings: &[(&str, &str)]) -> ScanEntry {
    let findings = findings.iter().map(|(name, severity)| finding(name, severity)).collect();
    ScanEntry { findings, ..ScanEntry::new("team/*", image) }
}

#[test]
fn a_scan_is_told_by_whoever_scanned() {
    type Case<'a> = (ScanKind, Option<&'a str>, Option<&'a str>, Option<Value>);
    let cases: [Case<'_>; 11] = [
        (ScanKind::Basic, None, None, Some(json!(["ECR Image Scan", "COMPLETE", { "CRITICAL": 1, "LOW": 2 }]))),
        (ScanKind::Basic, Some("FAILED"), None, Some(json!(["ECR Image Scan", "FAILED", null]))),
        (ScanKind::Basic, Some("UNSUPPORTED_IMAGE"), None, None),
        (ScanKind::Basic, Some("IN_PROGRESS"), None, None),
        (
            ScanKind::Enhanced,
            None,
            None,
            Some(
                json!(["Inspector2 Scan", "INITIAL_SCAN_COMPLETE", { "CRITICAL": 1, "HIGH": 0, "MEDIUM": 0, "TOTAL": 3 }]),
            ),
        ),
        (
            ScanKind::Enhanced,
            Some("COMPLETE"),
            None,
            Some(
                json!(["Inspector2 Scan", "INITIAL_SCAN_COMPLETE", { "CRITICAL": 1, "HIGH": 0, "MEDIUM": 0, "TOTAL": 3 }]),
            ),
        ),
        (ScanKind::Enhanced, Some("PENDING"), None, None),
        (
            ScanKind::Enhanced,
            Some("IMAGE_SIZE_EXCEEDED"),
            Some("it is too large"),
            Some(json!(["Inspector2 Coverage", "IMAGE_SIZE_EXCEEDED", null])),
        ),
        (
            ScanKind::Enhanced,
            Some("UNSUPPORTED_IMAGE"),
            None,
            Some(json!(["Inspector2 Coverage", "UNSUPPORTED_OS", null])),
        ),
        (
            ScanKind::Enhanced,
            Some("UNSUPPORTED_IMAGE"),
            Some("UNSUPPORTED_MEDIA_TYPE"),
            Some(json!(["Inspector2 Coverage", "UNSUPPORTED_MEDIA_TYPE", null])),
        ),
        (ScanKind::Enhanced, Some("FAILED"), None, Some(json!(["Inspector2 Coverage", "INTERNAL_ERROR", null]))),
    ];
    for (scan, status, reason, want) in cases {
        let folder = tempfile::tempdir().unwrap();
        let images = store(folder.path());
        let mut entry = entry("*", &[("CVE-1", "CRITICAL"), ("CVE-2", "LOW"), ("CVE-3", "LOW")]);
        entry.scan = scan;
        entry.status = status.map(str::to_owned);
        entry.reason = reason.map(str::to_owned);
        images.set_findings(&[entry]).unwrap();
        let events = put(&images, &image(&images, "layer"), Some("1"));
        let got = events.first().map(|event| {
            let detail = &event["detail"];
            let status = detail.get("scan-status").or(detail.pointer("/scanStatus/reason"));
            json!([event["detail-type"], status, detail["finding-severity-counts"]])
        });
        assert_eq!(got, want, "{scan:?} {status:?}");
        assert!(events.len() < 2);
    }
}

#[test]
fn events_name_the_image_as_aws_does() {
    let folder = tempfile::tempdir().unwrap();
    let images = store(folder.path());
    images.set_findings(&[entry("*", &[])]).unwrap();
    let manifest = image(&images, "layer");
    let events = put(&images, &manifest, None);
    let (event, detail) = (&events[0], &events[0]["detail"]);
    let arn = "arn:aws:ecr:us-east-1:123456789012:repository/team/app";
    assert_eq!((&event["source"], &event["resources"]), (&json!("aws.ecr"), &json!([arn])));
    assert_eq!(detail["repository-name"], "team/app");
    assert_eq!(detail["image-digest"], digest(&manifest).to_string());
    assert_eq!((&detail["image-tags"], &detail["finding-severity-counts"]), (&json!([]), &json!({})));
    images.set_findings(&[ScanEntry { scan: ScanKind::Enhanced, ..entry("*", &[("CVE-1", "HIGH")]) }]).unwrap();
    put(&images, &manifest, Some("1"));
    let again = images.rescan("team/app", "1").unwrap();
    assert_eq!(again[0]["detail"]["repository-name"], arn);
    assert_eq!(again[0]["detail"]["image-tags"], json!(["1"]));
    let told = images.finding_events("team/app", "1", FindingStatus::Closed).unwrap();
    let detail = &told[0]["detail"];
    assert_eq!(told[0]["resources"][0], format!("{arn}/{}", digest(&manifest)));
    assert_eq!((&detail["status"], &detail["severity"]), (&json!("CLOSED"), &json!("HIGH")));
    let first = detail["firstObservedAt"].as_str().unwrap();
    assert!(first.ends_with('M') && first.contains(", "), "{first}");
}

#[test]
fn the_first_entry_that_matches_counts() {
    let other = Digest::of(b"other").to_string();
    // The image is put by digest, tagged 1.0, and named by the index 2.0.
    let cases = [
        (vec!["*"], 0),
        (vec!["1.*"], 1),
        (vec!["2.0"], 2),
        (vec!["own digest"], 0),
        (vec!["index digest"], 2),
        (vec![other.as_str(), "*"], 0),
        (vec!["1.0", "*"], 1),
        (vec!["3.0", "1.?"], 1),
        (vec!["*", "1.0"], 0),
        (vec!["3.0"], 3),
    ];
    for (globs, scanned_at) in cases {
        let folder = tempfile::tempdir().unwrap();
        let images = store(folder.path());
        let manifest = image(&images, "layer");
        let index = index(&[&manifest]);
        let entries: Vec<ScanEntry> = globs
            .iter()
            .map(|glob| match *glob {
                "own digest" => entry(&digest(&manifest).to_string(), &[]),
                "index digest" => entry(&digest(&index).to_string(), &[]),
                glob => entry(glob, &[]),
            })
            .collect();
        images.set_findings(&entries).unwrap();
        let steps =
            [put(&images, &manifest, None), put(&images, &manifest, Some("1.0")), put(&images, &index, Some("2.0"))];
        let got = steps.iter().position(|events| !events.is_empty()).unwrap_or(steps.len());
        assert_eq!(got, scanned_at, "{globs:?}");
        assert!(steps.concat().len() < 2, "{globs:?}: once is enough");
    }
}

#[test]
fn what_is_not_scanned_is_never_told() {
    let folder = tempfile::tempdir().unwrap();
    let images = store(folder.path());
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let cases = [
        ("an attestation", manifest(&images, CONFIGS[0], "application/vnd.in-toto+json", "a")),
        ("an artifact", manifest(&images, "application/vnd.oci.empty.v1+json", layer, "b")),
        ("no entry", image(&images, "c")),
    ];
    images.set_findings(&[entry("scanned", &[]), ScanEntry::new("other/*", "*")]).unwrap();
    for (label, manifest) in cases {
        let tag = if label == "no entry" { "unscanned" } else { "scanned" };
        assert_eq!(put(&images, &manifest, Some(tag)), Vec::<Value>::new(), "{label}");
        assert_eq!(images.scan_of("team/app", digest(&manifest)).unwrap(), None, "{label}");
    }
    images
        .update("team/app", |repository| {
            repository.settings.scan_on_push = false;
            Ok::<_, ImagesError>(())
        })
        .unwrap();
    let manifest = image(&images, "d");
    assert!(put(&images, &manifest, Some("scanned")).is_empty(), "the repository does not scan on push");
    assert_eq!(images.scan_of("team/app", digest(&manifest)).unwrap(), None);
    assert_eq!(images.rescan("team/app", "scanned").unwrap().len(), 1);
    assert!(images.scan_of("team/app", digest(&manifest)).unwrap().is_some());
}

#[test]
fn a_moved_tag_still_names_what_had_it() {
    let folder = tempfile::tempdir().unwrap();
    let images = store(folder.path());
    images.set_findings(&[entry("1", &[])]).unwrap();
    let (first, second) = (image(&images, "a"), image(&images, "b"));
    put(&images, &first, Some("1"));
    put(&images, &second, Some("1"));
    for manifest in [&first, &second] {
        assert!(images.scan_of("team/app", digest(manifest)).unwrap().is_some());
    }
}

#[test]
fn the_file_is_a_persons() {
    let folder = tempfile::tempdir().unwrap();
    let images = store(folder.path());
    assert_eq!(images.findings().unwrap(), []);
    let written =
        r#"[{"repository": "team/*", "scan": "enhanced", "findings": [{"name": "CVE-1", "severity": "HIGH"}]}]"#;
    fs::write(folder.path().join("findings.json"), written).unwrap();
    let read = images.findings().unwrap();
    let want = ScanEntry { scan: ScanKind::Enhanced, ..entry("*", &[("CVE-1", "HIGH")]) };
    assert_eq!(read, [want]);
    assert_eq!((read[0].status(), read[0].is_complete()), ("ACTIVE", true));
    let cases = [
        ("{", "findings.json is no list of scan entries"),
        (
            r#"[{"repository": "a", "status": "DONE"}]"#,
            r#"the entry for a has the status "DONE", which ECR does not have"#,
        ),
        (
            r#"[{"repository": "a", "findings": [{"name": "C", "severity": "high"}]}]"#,
            r#"the entry for a has the severity "high", which ECR does not have"#,
        ),
    ];
    for (text, want) in cases {
        fs::write(folder.path().join("findings.json"), text).unwrap();
        let error = images.findings().unwrap_err().to_string();
        assert!(error.ends_with(want), "{error}");
        assert!(put(&images, &image(&images, text), Some("1")).is_empty(), "the push itself succeeds");
    }
    let error = images.rescan("team/app", "none").unwrap_err();
    assert_eq!(error.to_string(), "there is no image none in the repository team/app");
}
