//! What the documentation shows, held against what the code does: examples cannot rot.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

use std::process::Command;

use gantry::react::policy::Policy;

const GANTRY: &str = env!("CARGO_BIN_EXE_gantry-under-test");

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const POLICY: &str = include_str!("../../docs/policy.md");

const EXAMPLE: &str = include_str!("../../docs/policy.example.toml");

/// Every key of the file, of a `[[repository]]` and of an `[[exception]]`.
const KEYS: [&str; 14] = [
    "max_severity",
    "max_counts",
    "fixable_only",
    "inconclusive",
    "undefined_as",
    "required_labels",
    "max_size_mib",
    "match",
    "id",
    "repository",
    "package",
    "reason",
    "owner",
    "expires",
];

/// The blocks of `docs/policy.md` whose fence names `language`.
fn blocks(language: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut rest = POLICY;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (fence, after) = after.split_once('\n').unwrap();
        let (block, after) = after.split_once("```").unwrap();
        if fence == language {
            found.push(block);
        }
        rest = after;
    }
    assert!(!found.is_empty(), "no block of {language:?}");
    found
}

#[test]
fn every_policy_shown_is_one() {
    for block in blocks("toml") {
        let parsed = Policy::parse(block.as_bytes());
        assert!(parsed.is_ok(), "{parsed:?} in\n{block}");
    }
    let example = Policy::parse(EXAMPLE.as_bytes()).unwrap();
    for key in KEYS {
        let is_set = |line: &str| line.starts_with(&format!("{key} = "));
        assert!(EXAMPLE.lines().any(is_set), "the example does not set {key}");
        assert!(POLICY.contains(&format!("`{key}`")), "docs/policy.md does not name {key}");
    }
    assert_eq!((example.overrides().count(), example.exceptions().len()), (2, 1));
}

/// The list of keys is the code's own: it names them when one is wrong.
#[test]
fn no_key_is_left_out() {
    for (text, tables) in [
        ("x = 1", &["repository", "exception"][..]),
        ("[[repository]]\nmatch = \"a\"\nx = 1", &[]),
        ("[[exception]]\nx = 1", &[]),
    ] {
        let refused = Policy::parse(text.as_bytes()).unwrap_err().reason;
        let named: Vec<&str> = refused.split('`').skip(3).step_by(2).collect();
        assert!(named.len() > 4, "{refused}");
        for key in named {
            assert!(KEYS.contains(&key) || tables.contains(&key), "{key} of {refused}");
        }
    }
}

#[test]
fn the_default_that_is_shown_is_the_default() {
    let shown = Policy::parse(blocks("toml")[0].as_bytes()).unwrap();
    assert_eq!(shown.everywhere(), Policy::default().everywhere());
}

#[test]
fn the_refusal_that_is_shown_is_what_people_read() {
    let broken = blocks("toml broken")[0];
    let refused = Policy::parse(broken.as_bytes()).unwrap_err().to_string();
    assert!(blocks("").contains(&format!("{refused}\n").as_str()), "{refused}");
}

#[test]
fn the_check_that_is_shown_is_what_it_prints() {
    let check = ["policy", "check", "docs/policy.example.toml"];
    let printed = Command::new(GANTRY).current_dir(ROOT).args(check).output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let printed = String::from_utf8(printed.stdout).unwrap();
    // The days that an exception has left are others every day.
    let (rules, exceptions) = printed.split_once("exception for ").unwrap();
    assert!(exceptions.contains("CVE-2026-0001 in team/my-app, package openssl"), "{exceptions}");
    assert!(blocks("").contains(&rules), "docs/policy.md shows something else than\n{rules}");
}
