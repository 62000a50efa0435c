//! The template's text as plain data, for what the resolved template leaves out.

use std::collections::BTreeMap;

use emulator::template::Template;
use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

use pipeline_tests::TEMPLATE;

/// The template as the stack resolves it, with these parameters.
pub(crate) fn resolved(parameters: &[(&str, &str)]) -> Template {
    let parameters: BTreeMap<String, String> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Template::read(TEMPLATE, &parameters, "http://127.0.0.1:1").expect("the template is understood")
}

/// A section of the template, unresolved; `!Sub x` is only `x`.
pub(crate) fn section(name: &str) -> Map<String, Value> {
    let document: Yaml = serde_yaml_ng::from_str(TEMPLATE).expect("the template is YAML");
    let Value::Object(mut document) = plain(document) else { return Map::new() };
    match document.remove(name) {
        Some(Value::Object(section)) => section,
        _ => Map::new(),
    }
}

/// The resources of one type, with their logical ids.
pub(crate) fn resources(kind: &str) -> Vec<(String, Value)> {
    let found: Vec<(String, Value)> =
        section("Resources").into_iter().filter(|(_, resource)| resource["Type"] == kind).collect();
    assert!(!found.is_empty(), "the template has no {kind}");
    found
}

/// A string or a number as text.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn plain(yaml: Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => value.into(),
        Yaml::Number(number) => number.as_u64().map_or_else(|| number.as_f64().into(), Value::from),
        Yaml::String(text) => text.into(),
        Yaml::Sequence(items) => items.into_iter().map(plain).collect(),
        Yaml::Mapping(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (text(&plain(key)).expect("keys are text or numbers"), plain(value)))
                .collect(),
        ),
        Yaml::Tagged(tagged) => plain(tagged.value),
    }
}
