use std::collections::BTreeMap;

use super::*;

fn variables() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("GANTRY_STACK", "gantry"),
        ("GANTRY_STATE_BUCKET", "state"),
        ("GANTRY_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:gantry"),
        ("GANTRY_MAX_RECEIVES", "10"),
        ("GANTRY_UPLOAD_BUCKET", "uploads"),
        ("GANTRY_ENCRYPTION", "AES256"),
        ("GANTRY_SCAN_ON_PUSH", "true"),
        ("GANTRY_TAG_MUTABILITY", "immutable-except:latest*"),
        ("GANTRY_EXPIRE_UNTAGGED_DAYS", "14"),
        ("GANTRY_KEEP_RELEASES", "all"),
        ("GANTRY_COMPRESSION", "gzip"),
        ("GANTRY_PROFILE", "exact"),
        ("GANTRY_ARCHITECTURE", "arm64"),
    ])
}

fn read(variables: &BTreeMap<&'static str, &'static str>) -> Result<ImportConfig, ConfigError> {
    ImportConfig::from_lookup(|name| variables.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn the_template_s_defaults_are_understood() {
    let config = read(&variables()).unwrap();
    assert_eq!(config.compression, Compression::Gzip { level: DEFAULT_GZIP_LEVEL });
    assert_eq!(config.repository.mutability, Mutability::ImmutableExcept(vec!["latest*".into()]));
    assert_eq!(config.repository.kms_key, None);
}

#[test]
fn each_error_names_the_variable() {
    for missing in variables().keys() {
        let mut variables = variables();
        variables.remove(missing);
        let error = read(&variables).unwrap_err().to_string();
        assert!(error.contains(missing) && error.contains("not set"), "{missing}: {error}");
    }
    for (variable, value) in [
        ("GANTRY_MAX_RECEIVES", "0"),
        ("GANTRY_MAX_RECEIVES", "ten"),
        ("GANTRY_ENCRYPTION", "none"),
        ("GANTRY_SCAN_ON_PUSH", "yes"),
        ("GANTRY_TAG_MUTABILITY", "immutable-except:a,b,c,d,e,f"),
        ("GANTRY_TAG_MUTABILITY", "immutable-except:"),
        ("GANTRY_TAG_MUTABILITY", "frozen"),
        ("GANTRY_KEEP_RELEASES", "0"),
        ("GANTRY_KEEP_RELEASES", "some"),
        ("GANTRY_COMPRESSION", "gzip-13"),
        ("GANTRY_COMPRESSION", "brotli"),
        ("GANTRY_PROFILE", "ecs"),
        ("GANTRY_ARCHITECTURE", "linux/"),
        ("GANTRY_PULL_ACCOUNTS", "1234"),
        ("GANTRY_REPOSITORY_PREFIX", "team"),
        ("GANTRY_REGISTRY_ENDPOINT", "not a url"),
    ] {
        let mut variables = variables();
        variables.insert(variable, value);
        let error = read(&variables).unwrap_err().to_string();
        assert!(error.contains(variable) && error.contains(value), "{variable}={value}: {error}");
    }
}

fn react_variables() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("GANTRY_STACK", "gantry"),
        ("GANTRY_STATE_BUCKET", "state"),
        ("GANTRY_TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:gantry"),
        ("GANTRY_RELEASE_GATE", "none"),
        ("GANTRY_TAG_MUTABILITY", "immutable-except:latest*"),
        ("GANTRY_COMMIT_TAG_FROM_LABEL", "false"),
        ("GANTRY_SCAN_WAIT_MINUTES", "30"),
    ])
}

fn read_react(variables: &BTreeMap<&'static str, &'static str>) -> Result<ReactConfig, ConfigError> {
    ReactConfig::from_lookup(|name| variables.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn a_reacting_function_has_a_queue_or_a_schedule() {
    let mut variables = react_variables();
    let config = read_react(&variables).unwrap();
    assert!(config.queue.is_none() && config.floating.is_empty());
    variables.insert("GANTRY_MAX_RECEIVES", "10");
    variables.insert("GANTRY_FLOATING_TAGS", "latest, latest-{major}");
    let config = read_react(&variables).unwrap();
    assert_eq!((config.queue.unwrap().max_receives, config.floating.len()), (10, 2));
}

#[test]
fn each_error_of_a_reacting_function_names_the_variable() {
    for missing in react_variables().keys() {
        let mut variables = react_variables();
        variables.remove(missing);
        let error = read_react(&variables).unwrap_err().to_string();
        assert!(error.contains(missing) && error.contains("not set"), "{missing}: {error}");
    }
    for (variable, value) in [
        ("GANTRY_RELEASE_GATE", "manual"),
        ("GANTRY_COMMIT_TAG_FROM_LABEL", "yes"),
        ("GANTRY_SCAN_WAIT_MINUTES", "0"),
        ("GANTRY_FLOATING_TAGS", "stable-{major}"),
    ] {
        let mut variables = react_variables();
        variables.insert(variable, value);
        let error = read_react(&variables).unwrap_err();
        let error = crate::disposition::chain(&error);
        assert!(error.contains(variable) && error.contains(value), "{variable}={value}: {error}");
    }
}
