//! The variables that the template sets, and those that the configuration reads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use emulator::template::Template;
use gantry::config::{Config, ConfigError};
use pipeline_tests::TEMPLATE;

use crate::document::{resolved, section};

const FUNCTION: &str = "ImportFunction";

fn variables(parameters: &[(&str, &str)]) -> BTreeMap<String, String> {
    resolved(parameters).functions[FUNCTION].environment.clone()
}

fn config(variables: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
    Config::from_lookup(|name| variables.get(name).cloned())
}

#[test]
fn every_variable_that_is_needed_is_set() {
    let set = variables(&[]);
    // Whatever is asked for is given, one after the other, until nothing is missing any more.
    let mut given = BTreeMap::new();
    while let Err(error) = config(&given) {
        let ConfigError::Missing { variable } = error else { panic!("the template's own value is refused: {error}") };
        let value = set.get(variable).unwrap_or_else(|| panic!("template.yaml does not set {variable}"));
        assert!(given.insert(variable.to_owned(), value.clone()).is_none(), "{variable} is empty in template.yaml");
    }
    assert!(given.contains_key("GANTRY_STATE_BUCKET"), "{given:?}");
}

#[test]
fn every_variable_that_is_set_is_read() {
    let set = variables(&[]);
    let read = RefCell::new(BTreeSet::new());
    Config::from_lookup(|name| {
        read.borrow_mut().insert(name.to_owned());
        set.get(name).cloned()
    })
    .unwrap();
    let mut read = read.into_inner();
    // Only for a registry elsewhere; AWS names its own.
    assert!(read.remove("GANTRY_REGISTRY_ENDPOINT"));
    let set: BTreeSet<String> = set.into_keys().filter(|name| name.starts_with("GANTRY_")).collect();
    assert_eq!(set, read);
}

/// Values of each parameter that it must take, and whether the function is told of it.
const VALUES: &[(&str, bool, &[&str])] = &[
    ("RepositoryPrefix", true, &["team/", "a/b-c/d__e/"]),
    ("Encryption", true, &["KMS", "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"]),
    ("ScanOnPush", true, &["false"]),
    ("TagMutability", true, &["mutable", "immutable", "immutable-except:dev-*", "immutable-except:a,b_,*c,d.e,f-*"]),
    ("ExpireUntaggedDays", true, &["1", "3650"]),
    ("PullAccounts", true, &["111122223333", "111122223333,444455556666", "111122223333, 444455556666"]),
    ("Compression", true, &["gzip-1", "gzip-9", "gzip-10", "gzip-12"]),
    ("Profile", true, &["lambda", "fargate"]),
    ("MemorySize", false, &["512", "10240"]),
    ("Architecture", true, &["x86_64"]),
];

#[test]
fn the_configuration_takes_what_the_parameters_allow() {
    let declared: BTreeSet<String> = section("Parameters").into_iter().map(|(name, _)| name).collect();
    assert_eq!(declared, VALUES.iter().map(|(name, _, _)| (*name).to_owned()).collect());

    let usual = format!("{:?}", config(&variables(&[])).unwrap());
    for (parameter, told, values) in VALUES {
        for value in *values {
            let changed = config(&variables(&[(parameter, value)]));
            let changed = changed.unwrap_or_else(|error| panic!("{parameter}={value}: {error}"));
            assert_eq!(format!("{changed:?}") != usual, *told, "{parameter}={value}");
        }
    }
    let memory = |value| resolved(&[("MemorySize", value)]).functions[FUNCTION].memory_mib;
    assert_eq!((memory("512"), memory("10240")), (512, 10_240));
}

#[test]
fn the_parameters_refuse_what_the_configuration_would() {
    for (parameter, variable, value) in [
        ("RepositoryPrefix", "GANTRY_REPOSITORY_PREFIX", "team"),
        ("Encryption", "GANTRY_ENCRYPTION", "none"),
        ("ScanOnPush", "GANTRY_SCAN_ON_PUSH", "yes"),
        ("TagMutability", "GANTRY_TAG_MUTABILITY", "frozen"),
        ("TagMutability", "GANTRY_TAG_MUTABILITY", "immutable-except:"),
        ("TagMutability", "GANTRY_TAG_MUTABILITY", "immutable-except:a,b,c,d,e,f"),
        ("ExpireUntaggedDays", "GANTRY_EXPIRE_UNTAGGED_DAYS", "0"),
        ("Compression", "GANTRY_COMPRESSION", "gzip-13"),
        ("Compression", "GANTRY_COMPRESSION", "gzip-0"),
        ("Compression", "GANTRY_COMPRESSION", "zstd"),
        ("Profile", "GANTRY_PROFILE", "ecs"),
    ] {
        let mut variables = variables(&[]);
        variables.insert(variable.to_owned(), value.to_owned());
        let refused = config(&variables).unwrap_err();
        assert!(refused.to_string().contains(variable), "{refused}");
        let parameters = BTreeMap::from([(parameter.to_owned(), value.to_owned())]);
        assert!(Template::read(TEMPLATE, &parameters, "http://127.0.0.1:1").is_err(), "{parameter}={value}");
    }
}

/// Lambda's limit for all variables of a function (Lambda guide, quotas).
#[test]
fn the_environment_fits() {
    let filters = vec!["x".repeat(128); 5].join(",");
    let accounts = vec!["123456789012"; 100].join(",");
    let variables =
        variables(&[("TagMutability", &format!("immutable-except:{filters}")), ("PullAccounts", &accounts)]);
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes < 4 << 10, "{bytes}");
}
