//! The variables that the template sets, and those that the configuration reads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use emulator::template::Template;
use gantry::config::{ConfigError, ImportConfig, ReactConfig, ReconcileConfig};
use pipeline_tests::TEMPLATE;

use crate::document::{resolved, section};

const IMPORT: &str = "ImportFunction";

const REACT: [&str; 3] = ["OnPushFunction", "OnScanFunction", "ReconcileFunction"];

const ALL: [&str; 4] = [IMPORT, REACT[0], REACT[1], REACT[2]];

/// No function is told.
const NONE: [&str; 0] = [];

fn variables(function: &str, parameters: &[(&str, &str)]) -> BTreeMap<String, String> {
    resolved(parameters).functions[function].environment.clone()
}

/// What `function` makes of the variables that `lookup` gives.
fn config(function: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, ConfigError> {
    if function == IMPORT {
        ImportConfig::from_lookup(lookup).map(|config| format!("{config:?}"))
    } else if function == "ReconcileFunction" {
        ReconcileConfig::from_lookup(lookup).map(|config| format!("{config:?}"))
    } else {
        ReactConfig::from_lookup(lookup).map(|config| format!("{config:?}"))
    }
}

fn config_of(function: &str, parameters: &[(&str, &str)]) -> Result<String, ConfigError> {
    let variables = variables(function, parameters);
    config(function, |name| variables.get(name).cloned())
}

#[test]
fn every_function_of_the_template_is_looked_at() {
    let template = resolved(&[]);
    assert_eq!(template.functions.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(ALL));
}

#[test]
fn every_variable_that_is_needed_is_set() {
    for function in ALL {
        let set = variables(function, &[]);
        // Whatever is asked for is given, one after the other, until nothing is missing any more.
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        while let Err(error) = config(function, |name| given.get(name).cloned()) {
            let ConfigError::Missing { variable } = error else {
                panic!("{function}: the template's own value is refused: {error}")
            };
            let value = set.get(variable).unwrap_or_else(|| panic!("{function}: {variable} is not set"));
            assert!(given.insert(variable.to_owned(), value.clone()).is_none(), "{function}: {variable} is empty");
        }
        assert!(given.contains_key("GANTRY_STATE_BUCKET"), "{function}: {given:?}");
    }
}

#[test]
fn every_variable_that_is_set_is_read() {
    for function in ALL {
        let set = variables(function, &[]);
        let read = RefCell::new(BTreeSet::new());
        config(function, |name| {
            read.borrow_mut().insert(name.to_owned());
            set.get(name).cloned()
        })
        .unwrap();
        let mut read = read.into_inner();
        // What Lambda itself sets.
        read.retain(|name| !name.starts_with("AWS_LAMBDA_"));
        // Only for a registry elsewhere; AWS names its own.
        assert!(read.remove("GANTRY_REGISTRY_ENDPOINT"), "{function}");
        if resolved(&[]).functions[function].source.is_none() {
            assert!(read.remove("GANTRY_MAX_RECEIVES"), "{function}: asked only whether a queue feeds it");
        }
        let set: BTreeSet<String> = set.into_keys().filter(|name| name.starts_with("GANTRY_")).collect();
        assert_eq!(set, read, "{function}");
    }
}

/// Values of each parameter that it must take, and the functions that then do something else.
///
/// The reacting functions only hold their floating tags against the tag mutability.
const VALUES: &[(&str, &[&str], &[&str])] = &[
    ("RepositoryPrefix", &[IMPORT], &["team/", "a/b-c/d__e/"]),
    ("Encryption", &[IMPORT], &["KMS", "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"]),
    ("ScanOnPush", &[IMPORT], &["false"]),
    ("TagMutability", &[IMPORT], &["mutable", "immutable-except:latest", "immutable-except:a,b_,*c,lat*,f-*"]),
    ("ExpireUntaggedDays", &[IMPORT], &["1", "3650"]),
    ("KeepReleases", &[IMPORT], &["1", "30", "99999"]),
    ("PullAccounts", &[IMPORT], &["111122223333", "111122223333,444455556666", "111122223333, 444455556666"]),
    ("FloatingTags", &ALL, &["", "latest,latest-{major}", "latest, latest-{major}.{minor}", "latest.{patch}"]),
    ("CommitTagFromLabel", &REACT, &["true"]),
    ("ReleaseGate", &REACT, &["scan"]),
    ("ScanWaitMinutes", &REACT, &["1", "1440"]),
    ("UploadFolder", &NONE, &["crew", "crew/backend"]),
    ("NotifyEmail", &NONE, &["ops@example.com"]),
    ("Compression", &[IMPORT], &["gzip-1", "gzip-9", "gzip-10", "gzip-12", "zstd", "zstd-1", "zstd-19"]),
    ("Profile", &[IMPORT], &["lambda", "fargate"]),
    ("MemorySize", &NONE, &["512", "10240"]),
    ("Architecture", &[IMPORT], &["arm64"]),
    ("LogRetentionDays", &NONE, &["7", "3653"]),
];

#[test]
fn the_configuration_takes_what_the_parameters_allow() {
    let declared: BTreeSet<String> = section("Parameters").into_iter().map(|(name, _)| name).collect();
    assert_eq!(declared, VALUES.iter().map(|(name, _, _)| (*name).to_owned()).collect());

    for function in ALL {
        let usual = config_of(function, &[]).unwrap();
        for (parameter, told, values) in VALUES {
            for value in *values {
                let changed = config_of(function, &[(parameter, value)]);
                let changed = changed.unwrap_or_else(|error| panic!("{function}: {parameter}={value}: {error}"));
                assert_eq!(changed != usual, told.contains(&function), "{function}: {parameter}={value}");
            }
        }
    }
    let memory = |value| resolved(&[("MemorySize", value)]).functions[IMPORT].memory_mib;
    assert_eq!((memory("512"), memory("10240")), (512, 10_240));
}

#[test]
fn the_parameters_refuse_what_the_configuration_would() {
    for (function, parameter, variable, value) in [
        (IMPORT, "RepositoryPrefix", "GANTRY_REPOSITORY_PREFIX", "team"),
        (IMPORT, "Encryption", "GANTRY_ENCRYPTION", "none"),
        (IMPORT, "ScanOnPush", "GANTRY_SCAN_ON_PUSH", "yes"),
        (IMPORT, "TagMutability", "GANTRY_TAG_MUTABILITY", "frozen"),
        (IMPORT, "TagMutability", "GANTRY_TAG_MUTABILITY", "immutable-except:"),
        (IMPORT, "TagMutability", "GANTRY_TAG_MUTABILITY", "immutable-except:a,b,c,d,e,f"),
        (IMPORT, "ExpireUntaggedDays", "GANTRY_EXPIRE_UNTAGGED_DAYS", "0"),
        (IMPORT, "KeepReleases", "GANTRY_KEEP_RELEASES", "0"),
        (IMPORT, "KeepReleases", "GANTRY_KEEP_RELEASES", "none"),
        (IMPORT, "PullAccounts", "GANTRY_PULL_ACCOUNTS", "1234"),
        (IMPORT, "PullAccounts", "GANTRY_PULL_ACCOUNTS", "111122223333,everybody"),
        (IMPORT, "FloatingTags", "GANTRY_FLOATING_TAGS", "{major}"),
        (REACT[0], "FloatingTags", "GANTRY_FLOATING_TAGS", "latest-{week}"),
        (REACT[0], "FloatingTags", "GANTRY_FLOATING_TAGS", "latest,-x"),
        (IMPORT, "Compression", "GANTRY_COMPRESSION", "gzip-13"),
        (IMPORT, "Compression", "GANTRY_COMPRESSION", "gzip-0"),
        (IMPORT, "Compression", "GANTRY_COMPRESSION", "zstd-20"),
        (IMPORT, "Compression", "GANTRY_COMPRESSION", "brotli"),
        (IMPORT, "Profile", "GANTRY_PROFILE", "ecs"),
        (REACT[0], "TagMutability", "GANTRY_TAG_MUTABILITY", "frozen"),
        (REACT[0], "CommitTagFromLabel", "GANTRY_COMMIT_TAG_FROM_LABEL", "yes"),
        (REACT[1], "ReleaseGate", "GANTRY_RELEASE_GATE", "verification"),
        (REACT[2], "ScanWaitMinutes", "GANTRY_SCAN_WAIT_MINUTES", "0"),
    ] {
        let mut variables = variables(function, &[]);
        variables.insert(variable.to_owned(), value.to_owned());
        let refused = config(function, |name| variables.get(name).cloned()).unwrap_err();
        assert!(refused.to_string().contains(variable), "{refused}");
        let parameters = BTreeMap::from([(parameter.to_owned(), value.to_owned())]);
        assert!(Template::read(TEMPLATE, &parameters, "http://127.0.0.1:1").is_err(), "{parameter}={value}");
    }
}

/// What one parameter allows, another may forbid. Which filter covers which tag no template can say: the functions do, at
/// their start.
#[test]
fn floating_tags_have_to_fit_the_tag_mutability() {
    for (floating, mutability, fits) in [
        ("latest", "immutable-except:latest*", true),
        ("latest,latest-{major}.{minor}", "immutable-except:latest*", true),
        ("latest,edge", "immutable-except:latest*,edge", true),
        ("stable-{major}", "mutable", true),
        ("", "immutable", true),
        ("latest,edge", "immutable-except:latest*", false),
        ("latest-{major}", "immutable-except:latest-1", false),
        ("v{major}", "immutable-except:v*", false),
        ("latest", "immutable-except:*", false),
    ] {
        for function in ALL {
            let found = config_of(function, &[("FloatingTags", floating), ("TagMutability", mutability)]);
            assert_eq!(found.is_ok(), fits, "{function}: {floating:?} with {mutability}: {found:?}");
            if let Err(error) = found {
                assert!(error.to_string().contains("GANTRY_FLOATING_TAGS"), "{error}");
            }
        }
    }
}

/// What a template can say is said before anything is deployed; and the functions would say it too.
#[test]
fn floating_tags_that_could_never_move_are_not_deployed() {
    for (floating, mutability, deploys) in
        [("latest", "immutable", false), ("", "immutable", true), ("latest", "mutable", true)]
    {
        let values = [("FloatingTags", floating), ("TagMutability", mutability)];
        let parameters = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let read = Template::read(TEMPLATE, &parameters, "http://127.0.0.1:1");
        assert_eq!(read.is_ok(), deploys, "{floating:?} with {mutability}");
        if let Err(error) = read {
            assert!(error.to_string().contains("TagMutability=immutable-except:latest*"), "{error}");
        }
    }
    let mut variables = variables(IMPORT, &[("FloatingTags", "")]);
    variables.insert("GANTRY_FLOATING_TAGS".to_owned(), "latest".to_owned());
    variables.insert("GANTRY_TAG_MUTABILITY".to_owned(), "immutable".to_owned());
    assert!(config(IMPORT, |name| variables.get(name).cloned()).is_err());
}

/// Lambda's limit for all variables of a function (Lambda guide, quotas).
#[test]
fn the_environment_fits() {
    let filters = vec!["x".repeat(128); 5].join(",");
    let accounts = vec!["123456789012"; 100].join(",");
    let floating = vec!["x".repeat(128); 5].join(",");
    let mutability = format!("immutable-except:{filters}");
    let longest = [("TagMutability", mutability.as_str()), ("PullAccounts", &accounts), ("FloatingTags", &floating)];
    for function in ALL {
        let variables = variables(function, &longest);
        let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(bytes < 4 << 10, "{function}: {bytes}");
    }
}
