//! Who depends on whom, and who reads the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const ENCODER: &str = "deflate";

/// A package of the workspace.
struct Package {
    /// Below the workspace's folder.
    folder: PathBuf,
    /// What it names, for its tests and its build as well.
    dependencies: BTreeSet<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--locked"])
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("metadata is JSON");
    let root = metadata["workspace_root"].as_str().expect("the workspace's folder");
    let package = |package: &Value| {
        let manifest = Path::new(package["manifest_path"].as_str()?).strip_prefix(root).ok()?.to_owned();
        let names = package["dependencies"].as_array()?.iter();
        let dependencies = names.filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned())).collect();
        let folder = manifest.parent()?.to_owned();
        Some((package["name"].as_str()?.to_owned(), Package { folder, dependencies }))
    };
    let list = metadata["packages"].as_array().expect("packages").iter();
    list.map(|one| package(one).expect("a package has a name, a manifest and dependencies")).collect()
}

/// What `package` depends on within the workspace, whatever lies between.
fn reached(packages: &BTreeMap<String, Package>, package: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![package.to_owned()];
    while let Some(name) = open.pop() {
        for next in packages[&name].dependencies.iter().filter(|next| packages.contains_key(*next)) {
            if reached.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    reached
}

/// The embedded AWS shares no code with what it tests, so that one mistake cannot pass on both sides of the wire.
#[test]
fn the_emulator_shares_no_code_with_what_it_tests() {
    let packages = packages();
    assert_eq!(reached(&packages, "emulator"), BTreeSet::new());
    // The library has nothing but its own encoder, which knows nothing.
    assert_eq!(reached(&packages, "gantry"), BTreeSet::from([ENCODER.to_owned()]));
    assert_eq!(reached(&packages, ENCODER), BTreeSet::new());
    // The look-up does find what is there.
    assert!(reached(&packages, "pipeline-tests").contains("import"));
}

/// Only `functions/` knows Lambda, and there only the library that its functions share: they share through that one and
/// `gantry`, never through each other.
#[test]
fn only_functions_know_lambda() {
    const RUNTIME: &str = "runtime";
    let packages = packages();
    let functions: Vec<&String> =
        packages.keys().filter(|name| packages[*name].folder.starts_with("functions")).collect();
    assert!(functions.len() > 1 && functions.contains(&&RUNTIME.to_owned()), "{functions:?}");
    for (name, package) in &packages {
        let lambda =
            package.dependencies.iter().any(|name| name.starts_with("lambda") || name.starts_with("aws_lambda"));
        assert_eq!(lambda, name == RUNTIME, "{name}");
    }
    for name in functions {
        let shared: &[&str] = if name == RUNTIME { &["gantry", ENCODER] } else { &["gantry", ENCODER, RUNTIME] };
        assert_eq!(reached(&packages, name), shared.iter().map(|name| (*name).to_owned()).collect(), "{name}");
    }
}

/// Every source file below `folder`.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The environment is read once, at start: by the configuration, by the log before there is one, and by the program.
#[test]
fn only_the_configuration_reads_the_environment() {
    let mut readers = BTreeSet::new();
    for (name, package) in packages() {
        // The program people start, and the tests, may.
        if name == "local" || name == "pipeline-tests" {
            continue;
        }
        let mut files = Vec::new();
        let folder = Path::new(ROOT).join(&package.folder);
        sources(&folder.join("src"), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source file is text");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            if code.into_iter().any(|line| line.contains("std::env") || line.contains(" env::")) {
                let file = file.strip_prefix(&folder).expect("it was found there");
                readers.insert(format!("{}/{}", package.folder.display(), file.display()));
            }
        }
    }
    let allowed =
        ["emulator/src/host/tests.rs", "functions/runtime/src/log.rs", "shared/src/config/read.rs"].map(str::to_owned);
    assert_eq!(readers, BTreeSet::from(allowed));
}

/// A table of a TOML file, by its dotted name.
fn table(file: &str, name: &str) -> toml::Table {
    let text = std::fs::read_to_string(Path::new(ROOT).join(file)).expect("the file is there");
    let mut table: toml::Table = text.parse().expect("the file is TOML");
    for part in name.split('.') {
        table = table.remove(part).and_then(|value| value.try_into().ok()).unwrap_or_default();
    }
    assert!(!table.is_empty(), "{file} has no {name}");
    table
}

/// `sam build` knows only the profile `release`, and runs in a function's folder.
#[test]
fn what_sam_builds_is_what_is_measured() {
    let mut measured = table("Cargo.toml", "profile.lambda");
    assert_eq!(measured.remove("inherits"), Some("release".into()));
    assert_eq!(table("functions/.cargo/config.toml", "profile.release"), measured);
    // A panic becomes an answer only by unwinding; where a profile does not say so, cargo-lambda takes `abort`.
    assert_eq!(table("Cargo.toml", "profile.release")["panic"], "unwind".into());
    for (function, resource) in crate::document::resources("AWS::Serverless::Function") {
        let code = resource["Properties"]["CodeUri"].as_str().expect("a folder");
        let binary = &resource["Metadata"]["BuildProperties"]["Binary"];
        assert_eq!(code, format!("functions/{}", binary.as_str().expect("a name")), "{function}");
        assert!(Path::new(ROOT).join(code).join("Cargo.toml").exists(), "{function}: {code}");
    }
}
