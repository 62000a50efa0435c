use std::collections::BTreeMap;

use super::*;
use crate::react::findings::{Finding, Fix, Scan};
use crate::react::verdict::Outcome;

const TODAY: Date = jiff::civil::date(2026, 11, 12);

fn finding(id: &str, severity: Severity, package: &str, fix: Fix) -> Finding {
    Finding { id: id.into(), severity, package: Some(package.into()), version: None, fixed_in: None, fix }
}

fn judge(policy: &Policy, repository: &str, scan: &Scan) -> Judgement {
    let labels = BTreeMap::from([("team".to_owned(), "core".to_owned())]);
    let subject = Subject { repository: &repository.parse().unwrap(), labels: &labels, size_bytes: 300 << 20 };
    policy.judge(subject, scan, TODAY)
}

fn done(findings: &[(&str, Severity)]) -> Scan {
    Scan::Done(findings.iter().map(|(id, severity)| finding(id, *severity, "openssl", Fix::Unknown)).collect())
}

#[test]
fn the_default_holds_critical_findings_and_inconclusive_scans() {
    let policy = Policy::default();
    let never = Scan::Never { status: "UNSUPPORTED_IMAGE".into(), description: "unknown OS".into() };
    for (scan, outcome, allows, reason) in [
        (done(&[]), Some(Outcome::Pass), true, ""),
        (done(&[("CVE-1", Severity::High)]), Some(Outcome::Pass), true, ""),
        (
            done(&[("CVE-1", Severity::High), ("CVE-2", Severity::Critical)]),
            Some(Outcome::Fail),
            false,
            "critical CVE-2 in openssl; at most high is allowed",
        ),
        (Scan::Waiting { status: "PENDING".into() }, None, false, ""),
        (never, Some(Outcome::Inconclusive), false, "the scan ended as UNSUPPORTED_IMAGE: unknown OS"),
        (Scan::NoImage, None, false, ""),
    ] {
        let found = judge(&policy, "team/app", &scan);
        assert_eq!((found.outcome, found.allows_release, found.reason.as_str()), (outcome, allows, reason), "{scan:?}");
    }
}

#[test]
fn each_rule_decides() {
    let fixes = |fix| Scan::Done(vec![finding("CVE-1", Severity::Critical, "xz", fix)]);
    let two_high = done(&[("CVE-1", Severity::High), ("CVE-2", Severity::High)]);
    for (text, scan, outcome, reason) in [
        ("max_severity = \"none\"", done(&[("CVE-1", Severity::Informational)]), Outcome::Fail, "none is allowed"),
        ("max_severity = \"critical\"", fixes(Fix::Available), Outcome::Pass, ""),
        ("max_counts = { high = 1 }", two_high.clone(), Outcome::Fail, "2 findings are high; at most 1 are allowed"),
        ("max_counts = { high = 2 }", two_high, Outcome::Pass, ""),
        ("fixable_only = true", fixes(Fix::None), Outcome::Pass, ""),
        ("fixable_only = true", fixes(Fix::Available), Outcome::Fail, "critical CVE-1"),
        ("fixable_only = true", fixes(Fix::Unknown), Outcome::Fail, "critical CVE-1"),
        ("undefined_as = \"critical\"", done(&[("CVE-1", Severity::Undefined)]), Outcome::Fail, "undefined CVE-1"),
        ("", done(&[("CVE-1", Severity::Undefined)]), Outcome::Pass, ""),
        ("required_labels = [\"team\"]", done(&[]), Outcome::Pass, ""),
        ("required_labels = [\"team=core\"]", done(&[]), Outcome::Pass, ""),
        ("required_labels = [\"team=web\"]", done(&[]), Outcome::Fail, "the label team is \"core\""),
        ("required_labels = [\"owner\"]", done(&[]), Outcome::Fail, "the label owner is required"),
        ("max_size_mib = 300", done(&[]), Outcome::Pass, ""),
        ("max_size_mib = 299", done(&[]), Outcome::Fail, "300 MiB of layers, and at most 299 MiB"),
    ] {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let found = judge(&policy, "team/app", &scan);
        assert_eq!(found.outcome, Some(outcome), "{text}: {found:?}");
        assert!(found.reason.contains(reason), "{text}: {}", found.reason);
    }
    // A label is missing whether or not a scan ever comes.
    let policy = Policy::parse(b"required_labels = [\"owner\"]").unwrap();
    assert_eq!(judge(&policy, "a/b", &Scan::Waiting { status: "PENDING".into() }).outcome, Some(Outcome::Fail));
    let policy = Policy::parse(b"inconclusive = \"pass\"").unwrap();
    let found = judge(&policy, "a/b", &Scan::Never { status: "FAILED".into(), description: String::new() });
    assert_eq!((found.outcome, found.allows_release), (Some(Outcome::Inconclusive), true));
}

#[test]
fn repositories_change_the_rules_in_the_order_of_the_file() {
    let text = "max_severity = \"low\"\n[[repository]]\nmatch = \"team/*\"\nmax_severity = \"critical\"\n\
                max_size_mib = 1\n[[repository]]\nmatch = \"team/strict\"\nmax_severity = \"none\"\n";
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let most = |repository: &str| policy.rules(&repository.parse().unwrap()).max_severity;
    assert_eq!(most("other/app"), Allowed::UpTo(Severity::Low));
    assert_eq!(most("team/app"), Allowed::UpTo(Severity::Critical));
    assert_eq!(most("team/strict"), Allowed::Nothing);
    assert_eq!(policy.rules(&"team/strict".parse().unwrap()).max_size_bytes, Some(1 << 20));
}

fn exception(more: &str, expires: &str) -> Policy {
    let text = format!(
        "[[exception]]\nid = \"CVE-1\"\nrepository = \"team/*\"\n{more}\nreason = \"not reachable\"\n\
         owner = \"ann\"\nexpires = {expires}\n"
    );
    Policy::parse(text.as_bytes()).unwrap()
}

#[test]
fn an_exception_takes_out_its_finding_where_and_while_it_holds() {
    let critical = done(&[("cve-1", Severity::Critical)]);
    for (policy, repository, outcome) in [
        (exception("", "2026-11-12"), "team/app", Outcome::Pass),
        (exception("", "2026-11-11"), "team/app", Outcome::Fail),
        (exception("", "2026-11-12"), "rival/app", Outcome::Fail),
        (exception("package = \"openssl\"", "2026-12-01"), "team/app", Outcome::Pass),
        (exception("package = \"xz\"", "2026-12-01"), "team/app", Outcome::Fail),
    ] {
        let found = judge(&policy, repository, &critical);
        assert_eq!(found.outcome, Some(outcome), "{policy:?}");
        assert_eq!(found.excepted.len(), usize::from(outcome == Outcome::Pass), "{policy:?}");
    }
}

#[test]
fn a_verdict_that_used_an_exception_is_made_anew_when_that_ends() {
    let policy = exception("", "2026-11-11");
    let day = |day: i8| jiff::civil::date(2026, 11, day);
    for (excepted, then, today, ended) in [
        ("cve-1", 10, 12, true),
        ("CVE-1", 11, 12, true),
        ("CVE-1", 10, 11, false),
        ("CVE-1", 12, 13, false),
        ("CVE-2", 10, 12, false),
    ] {
        let found = policy.has_ended(&[excepted.to_owned()].into(), day(then), day(today));
        assert_eq!(found, ended, "{excepted} {then} {today}");
    }
}

#[test]
fn people_hear_of_an_end_fourteen_days_before_it() {
    for (expires, days, ending) in
        [("2026-11-11", -1, true), ("2026-11-12", 0, true), ("2026-11-26", 14, true), ("2026-11-27", 15, false)]
    {
        let policy = exception("", expires);
        assert_eq!(policy.exceptions()[0].days_left(TODAY), days, "{expires}");
        assert_eq!(policy.ending(TODAY).count(), usize::from(ending), "{expires}");
    }
}

#[test]
fn a_file_that_is_wrong_says_where_and_what_was_wanted() {
    let exception = "[[exception]]\nid = \"CVE-1\"\nrepository = \"team/*\"\n";
    for (text, line, reason) in [
        ("max_severity = \"hgih\"", 1, "unknown variant `hgih`"),
        ("\n\nmax_severty = \"high\"", 3, "unknown field `max_severty`"),
        ("max_severity = ", 1, "string values must be quoted"),
        ("fixable_only = true\nfixable_only = false", 2, "duplicate key"),
        ("max_counts = { grave = 1 }", 1, "unknown variant `grave`"),
        ("max_counts = { high = -1 }", 1, "invalid value: integer `-1`"),
        (exception, 1, "missing field `reason`"),
        (&format!("{exception}reason = \"\"\nowner = \"ann\"\nexpires = 2026-12-01"), 1, "reason is empty"),
        (
            &format!("{exception}reason = \"r\"\nowner = \"ann\"\nexpires = 10:00:00"),
            1,
            "wanted a day such as 2027-01-31",
        ),
        (&format!("{exception}reason = \"r\"\nowner = \"ann\"\nexpires = \"soon\""), 6, "datetime"),
        ("[[repository]]\nmatch = \"\"", 1, "match is empty"),
        ("undefined_as = \"undefined\"", 1, "undefined_as wants"),
        ("max_counts = { undefined = 3 }", 1, "say with undefined_as which level"),
    ] {
        let error = Policy::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("line {line}: ")), "{text:?}: {error}");
        assert!(error.reason.contains(reason), "{text:?}: {error}");
    }
    assert_eq!(Policy::parse(b"# \xff").unwrap_err().to_string(), "line 1: this is not UTF-8 text");
    let long = vec![b'#'; crate::limits::POLICY_BYTES + 1];
    assert!(Policy::parse(&long).unwrap_err().reason.contains("more than"), "too long");
}

#[test]
fn globs_that_may_match_the_same_name_are_told() {
    for (one, other, both) in [
        ("team/*", "*/base", true),
        ("team/*", "rival/*", false),
        ("team/*", "team/app", true),
        ("team/app", "team/app2", false),
        ("team/?pp", "team/a*", true),
        ("team/?pp", "team/app2", false),
        ("*", "*", true),
        ("a*b", "b*a", false),
        ("a*b*c", "ab*bc", true),
        ("", "*", true),
        ("", "a", false),
    ] {
        assert_eq!(may_both_match(one, other), both, "{one} {other}");
        assert_eq!(may_both_match(other, one), both, "{other} {one}");
    }
    let text = "max_severity = \"low\"\n[[repository]]\nmatch = \"team/*\"\nmax_severity = \"high\"\nfixable_only = true\n\
                [[repository]]\nmatch = \"*/base\"\nmax_severity = \"none\"\n[[repository]]\nmatch = \"rival/app\"\n";
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let overlaps: Vec<_> = policy.overlaps().collect();
    let [(first, second, rules)] = overlaps.as_slice() else { panic!("{overlaps:?}") };
    assert_eq!((first.as_str(), second.as_str()), ("team/*", "*/base"));
    let found = policy.rules(&"team/base".parse().unwrap());
    assert_eq!((rules.max_severity, rules.fixable_only), (found.max_severity, found.fixable_only));
    assert_eq!((rules.max_severity, rules.fixable_only), (Allowed::Nothing, true));
}
