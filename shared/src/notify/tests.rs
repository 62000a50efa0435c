use super::*;
use crate::react::findings::{Finding, Fix};
use crate::react::severity::Severity;
use crate::react::verdict::Outcome;

fn held(findings: usize) -> Notice {
    let finding = |n: usize| Finding {
        id: format!("CVE-2026-{n:04}"),
        severity: Severity::Critical,
        package: Some("openssl".into()),
        version: Some("3.0.1".into()),
        fixed_in: Some("3.0.2".into()),
        fix: Fix::Available,
    };
    Notice {
        detail_type: DetailType::ImageHeld,
        fact: "held:policy".into(),
        state: "held",
        needs_a_person: true,
        image: Some(ImageDetail {
            repository: "team/app".parse().unwrap(),
            digest: Digest::of(b"m"),
            tags: vec!["1.4.2".parse().unwrap()],
            uri: "registry/team/app@sha256:0".into(),
            platforms: vec!["linux/amd64".into()],
            arn: None,
        }),
        upload: Some(UploadDetail { bucket: "uploads".into(), key: "team/app/1.4.2.tar".into(), version_id: None }),
        reason: Some(ReasonDetail::new("policy", "critical CVE-2026-0000 in openssl", "Fix it\nor accept it")),
        verdict: Some(VerdictDetail {
            outcome: Outcome::Fail,
            policy: "default".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
            counts: BTreeMap::from([(Severity::High, 3), (Severity::Critical, 2), (Severity::Undefined, 0)]),
            findings: (0..findings).map(finding).collect(),
            excepted: vec![],
            worst: Some(Severity::Critical),
        }),
        headline: "team/app:1.4.2 is in ECR, and must not be used".into(),
    }
}

#[test]
fn a_message_begins_with_what_to_do_and_fits() {
    let text = text::of(&held(2), "gantry");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..lines.len() - 1],
        [
            "Fix it",
            "or accept it",
            "",
            "team/app:1.4.2 is in ECR, and must not be used",
            "critical CVE-2026-0000 in openssl",
            "",
            "image      registry/team/app@sha256:0",
            "tags       1.4.2",
            "platforms  linux/amd64",
            "upload     s3://uploads/team/app/1.4.2.tar",
            "verdict    fail by policy default since 1970-01-01T00:00:00Z",
            "findings   2 critical, 3 high",
            "  critical CVE-2026-0000 in openssl 3.0.1, fixed in 3.0.2",
            "  critical CVE-2026-0001 in openssl 3.0.1, fixed in 3.0.2",
        ]
    );
    assert!(lines[lines.len() - 1].starts_with("stack      gantry, gantry "), "{text}");
    assert!(text::of(&held(500), "gantry").lines().count() <= text::LINES);
}

#[test]
fn a_thousand_tags_fit_into_a_message() {
    let mut notice = held(500);
    let image = notice.image.as_mut().unwrap();
    image.tags = (0..1_000).map(|n| format!("{n:0>128}").parse().unwrap()).collect();
    let text = text::of(&notice, "gantry");
    assert!(text.contains(", and 990 more") && text.len() < 10_000, "{text}");
    let detail = notice.image.clone().unwrap().bounded();
    // Six times in one message, which SNS takes up to 262,144 bytes of.
    assert!(json!(detail).to_string().len() * 6 < 100_000);
}

#[test]
fn subjects_are_what_sns_takes() {
    let mut notice = held(0);
    assert_eq!(subject(&notice), "Image Held: team/app:1.4.2");
    notice.image = None;
    notice.upload =
        Some(UploadDetail { bucket: "b".into(), key: format!("é\n{}", "k".repeat(200)), version_id: None });
    let subject = subject(&notice);
    assert_eq!(subject.len(), SUBJECT_CHARS);
    assert!(subject.starts_with("Image Held: ??kkk"), "{subject}");
}

#[test]
fn a_reason_that_is_too_long_is_cut() {
    let reason = ReasonDetail::new("kind", &"é".repeat(crate::limits::REASON_CHARS + 1), "");
    assert_eq!(reason.text.chars().count(), crate::limits::REASON_CHARS + 1);
    assert!(reason.text.ends_with('…'));
}
