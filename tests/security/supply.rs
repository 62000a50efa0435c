//! What the program is built from: `deny.toml` says what may be, and this holds the locked crates against it, for
//! whoever has no `cargo deny` at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// How cargo names a registry, as against a repository or a folder.
const REGISTRY: &str = "registry+";

/// Every crate of the lock file, our own among them.
fn crates() -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"]);
    let metadata: Value = serde_json::from_slice(&cargo.output().unwrap().stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 200, "there are more: {}", packages.len());
    packages
}

fn policy() -> toml::Table {
    include_str!("../../deny.toml").parse().unwrap()
}

/// Whether a licence expression (SPDX, or the older form with slashes) is met by what is allowed.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression =
        expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "+WITH+");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut at = 0;
    let met = any_of(&words, &mut at, allowed);
    assert_eq!(at, words.len(), "{expression} does not read as a licence");
    met
}

fn any_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at, allowed);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let word = words[*at];
    *at += 1;
    if word != "(" {
        return allowed.contains(&word.replace("+WITH+", " WITH "));
    }
    let met = any_of(words, at, allowed);
    assert_eq!(words.get(*at), Some(&")"));
    *at += 1;
    met
}

#[test]
fn licences_read_as_spdx_means_them() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND (GPL-3.0 OR Apache-2.0)", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-2.0 WITH Classpath-exception-2.0", false),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn every_crate_is_one_that_deny_toml_allows() {
    let policy = policy();
    let allowed: BTreeSet<String> = policy["licenses"]["allow"].as_array().unwrap().iter().map(text).collect();
    let wrappers =
        |ban: &toml::Value| ban.get("wrappers").map(|all| all.as_array().unwrap().iter().map(text).collect());
    let banned: BTreeMap<String, Option<BTreeSet<String>>> =
        policy["bans"]["deny"].as_array().unwrap().iter().map(|ban| (text(&ban["crate"]), wrappers(ban))).collect();
    let crates = crates();
    let mut only: Option<String> = None;
    for package in &crates {
        let name = package["name"].as_str().unwrap();
        if !package["source"].is_null() {
            let source = package["source"].as_str().unwrap();
            assert!(source.starts_with(REGISTRY), "{name} comes from {source}");
            assert_eq!(*only.get_or_insert_with(|| source.to_owned()), source, "{name} comes from another registry");
            let licence = package["license"].as_str().unwrap_or_default();
            assert!(is_met(licence, &allowed), "{name} is licensed under {licence:?}");
            assert_ne!(banned.get(name), Some(&None), "{name} is banned");
            // What it may need and does not is in its manifest all the same.
            continue;
        }
        for needed in package["dependencies"].as_array().unwrap().iter().filter_map(|needed| needed["name"].as_str()) {
            let Some(Some(wrappers)) = banned.get(needed) else { continue };
            assert!(wrappers.contains(name), "{name} may not depend on {needed}");
        }
    }
    pipeline_tests::say(&format!("checked {} crates against deny.toml", crates.len()));
}

fn text(value: &toml::Value) -> String {
    value.as_str().unwrap().to_owned()
}
