//! `docs/events.md`: its examples are what they say they are, and it leaves no field out.

use std::collections::BTreeSet;

use emulator::events::Pattern;
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;

use crate::schema::Schema;
use crate::told::{SAMPLES, fields_of, sample};

const TEXT: &str = include_str!("../../docs/events.md");

/// The blocks of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let open = format!("```{language}\n");
    let found: Vec<&str> = TEXT.split(&open).skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!found.is_empty(), "no block of {language}");
    found
}

/// The samples that `pattern` takes, each as `look` sees it.
fn taken(pattern: &Value, look: impl Fn(&str) -> Value) -> Vec<&'static str> {
    let pattern = Pattern::parse(pattern).expect("the pattern is understood");
    SAMPLES.iter().map(|(file, ..)| *file).filter(|file| pattern.matches(&look(file))).collect()
}

/// The attributes of a sample's message.
fn attributes(file: &str) -> Value {
    let event = sample(file);
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("none");
    let needs = SAMPLES.iter().find_map(|(name, _, _, needs)| (*name == file).then_some(*needs));
    json!({
        "event": text("/detail-type"),
        "state": text("/detail/state"),
        "repository": text("/detail/image/repository"),
        "severity": text("/detail/verdict/findings/0/severity"),
        "needs": needs,
    })
}

#[test]
fn its_json_is_an_event_or_a_filter_policy_that_chooses() {
    let schema = Schema::read();
    let (mut events, mut filters) = (0, 0);
    for block in blocks("json") {
        let block: Value = serde_json::from_str(block).unwrap_or_else(|error| panic!("{block}: {error}"));
        if block.get("detail").is_some() {
            events += 1;
            assert_eq!(schema.refusal(&block), None);
            assert_eq!(block, sample("image-released"));
        } else {
            filters += 1;
            let taken = taken(&block, attributes).len();
            assert!(taken > 0 && taken < SAMPLES.len(), "{block} takes {taken}");
        }
    }
    assert!(events > 0 && filters > 0, "{events} {filters}");
}

#[test]
fn its_rules_deploy_releases_and_nothing_else() {
    for block in blocks("yaml") {
        let template: Yaml = serde_yaml_ng::from_str(block).unwrap();
        let pattern = plain(&template["Resources"]["DeployReleases"]["Properties"]["EventPattern"]);
        assert_eq!(taken(&pattern, sample), ["image-released"], "{pattern}");
    }
    let commands: Vec<&str> = blocks("sh").into_iter().filter(|block| block.contains("--event-pattern")).collect();
    assert_eq!(commands.len(), 1);
    let arguments: Vec<Value> = commands[0]
        .split('\'')
        .skip(1)
        .step_by(2)
        .map(|argument| serde_json::from_str(argument).unwrap_or_else(|error| panic!("{argument}: {error}")))
        .collect();
    assert_eq!(taken(&arguments[0], sample), ["image-released"]);
    let path = arguments[1][0]["InputTransformer"]["InputPathsMap"]["uri"].as_str().unwrap();
    let pointer = path.trim_start_matches('$').replace('.', "/");
    assert!(sample("image-released").pointer(&pointer).is_some_and(Value::is_string), "{path}");
}

/// A pattern as JSON; what refers to the stack's name is its usual one.
fn plain(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Mapping(map) => {
            let fields = map.iter().map(|(name, value)| (name.as_str().unwrap_or_default().to_owned(), plain(value)));
            Value::Object(fields.collect())
        }
        Yaml::Sequence(items) => items.iter().map(plain).collect(),
        Yaml::Tagged(_) => "gantry".into(),
        other => other.as_str().unwrap_or_default().into(),
    }
}

#[test]
fn it_names_every_field_event_and_reason() {
    let named = |text: &str| assert!(TEXT.contains(&format!("`{text}`")), "docs/events.md does not name {text}");
    for (file, event, reason, _) in SAMPLES {
        named(event);
        if !reason.is_empty() {
            named(reason);
        }
        let fields = fields_of(&sample(file));
        let is_leaf = |field: &&String| !fields.iter().any(|other| other.starts_with(&format!("{field}/")));
        for field in fields.iter().filter(is_leaf) {
            named(&field.trim_start_matches('/').replace('/', ".").replace("findings.", "findings[]."));
        }
    }
    let schema: Value = serde_json::from_str(include_str!("../../docs/events.schema.json")).unwrap();
    let mut words = BTreeSet::new();
    enums(&schema, &mut words);
    assert!(words.contains("inconclusive") && words.contains("Policy Problem"), "{words:?}");
    for word in &words {
        named(word);
    }
}

/// Every word of the closed sets.
fn enums(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            let words = map.get("enum").and_then(Value::as_array);
            found.extend(words.into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)));
            map.values().for_each(|value| enums(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| enums(value, found)),
        _ => {}
    }
}
