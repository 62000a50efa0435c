//! YAML with CloudFormation's short-form tags, as JSON with the long forms.

use serde_json::{Map, Number, Value};
use serde_yaml_ng::Value as Yaml;

/// Parses `text`; `!Sub x` becomes `{"Fn::Sub": "x"}`, `!Ref x` becomes `{"Ref": "x"}`.
pub(super) fn read(text: &str) -> Result<Value, serde_yaml_ng::Error> {
    serde_yaml_ng::from_str::<Yaml>(text).map(json)
}

fn json(yaml: Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => {
            if let Some(value) = number.as_i64() {
                Value::from(value)
            } else if let Some(value) = number.as_u64() {
                Value::from(value)
            } else {
                number.as_f64().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
            }
        }
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => items.into_iter().map(json).collect(),
        Yaml::Mapping(map) => {
            map.into_iter().map(|(key, value)| (key_text(key), json(value))).collect::<Map<_, _>>().into()
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let tag = tag.trim_start_matches('!');
            let value = match (tag, json(tagged.value)) {
                // `!GetAtt Queue.Arn` is short for `["Queue", "Arn"]`; attributes may have dots.
                ("GetAtt", Value::String(text)) => match text.split_once('.') {
                    Some((resource, attribute)) => [resource, attribute].into_iter().collect(),
                    None => Value::String(text),
                },
                (_, value) => value,
            };
            let name = match tag {
                "Ref" | "Condition" => tag.to_owned(),
                _ => format!("Fn::{tag}"),
            };
            Value::Object(Map::from_iter([(name, value)]))
        }
    }
}

/// CloudFormation's keys are strings; YAML reads an account number as a number.
fn key_text(key: Yaml) -> String {
    match json(key) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn short_forms_become_long_forms() {
        let cases = [
            ("a: !Ref B", json!({ "a": { "Ref": "B" } })),
            ("a: !GetAtt B.C.D", json!({ "a": { "Fn::GetAtt": ["B", "C.D"] } })),
            ("a: !GetAtt [B, C]", json!({ "a": { "Fn::GetAtt": ["B", "C"] } })),
            (
                "a: !If [C, !Sub 'x${Y}', !Ref AWS::NoValue]",
                json!({ "a": { "Fn::If": ["C", { "Fn::Sub": "x${Y}" }, { "Ref": "AWS::NoValue" }] } }),
            ),
            (
                "a: !And [!Condition X, !Not [!Equals [1, '1']]]",
                json!({ "a": { "Fn::And": [{ "Condition": "X" }, { "Fn::Not": [{ "Fn::Equals": [1, "1"] }] }] } }),
            ),
            ("{123456789012: 1.5, b: ~, c: true}", json!({ "123456789012": 1.5, "b": null, "c": true })),
        ];
        for (text, want) in cases {
            assert_eq!(read(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        for text in ["a: [", "a: 1\na: 2", "\tx"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
