//! The template's parameters: defaults, overrides, and what each allows.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::{Map, Value};

use super::resolve::text;

/// Why a parameter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The template has no parameter of that name.
    #[error("there is no parameter {name}; the template has {known}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// The names there are, comma-separated.
        known: String,
    },
    /// A parameter without default was not given.
    #[error("the parameter {name} has no default and was not given")]
    Missing {
        /// The parameter.
        name: String,
    },
    /// The value is not allowed.
    #[error("the parameter {name} cannot be {value:?}: {allowed}")]
    Refused {
        /// The parameter.
        name: String,
        /// The value that was given.
        value: String,
        /// What is allowed, in words.
        allowed: String,
    },
    /// The declaration itself is of a kind that is not read here.
    #[error("the parameter {name} is declared with {what}, which is not supported")]
    Declaration {
        /// The parameter.
        name: String,
        /// What is not supported.
        what: String,
    },
}

/// The value of every declared parameter: a string, or for a list an array of strings.
pub(super) fn resolve(
    declared: &Map<String, Value>,
    overrides: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, ParameterError> {
    if let Some(name) = overrides.keys().find(|name| !declared.contains_key(*name)) {
        return Err(ParameterError::Unknown {
            name: name.clone(),
            known: declared.keys().cloned().collect::<Vec<_>>().join(", "),
        });
    }
    declared
        .iter()
        .map(|(name, declaration)| {
            let value = overrides
                .get(name)
                .cloned()
                .or_else(|| declaration.get("Default").and_then(text))
                .ok_or_else(|| ParameterError::Missing { name: name.clone() })?;
            Ok((name.clone(), typed(name, declaration, value)?))
        })
        .collect()
}

fn typed(name: &str, declaration: &Value, value: String) -> Result<Value, ParameterError> {
    let kind = declaration.get("Type").and_then(Value::as_str).unwrap_or_default();
    let parts: Vec<String> = match kind {
        "String" | "Number" => vec![value.clone()],
        // CloudFormation trims the blanks around each entry.
        "CommaDelimitedList" => value.split(',').map(|part| part.trim().to_owned()).collect(),
        _ => {
            return Err(ParameterError::Declaration { name: name.to_owned(), what: format!("the type {kind:?}") });
        }
    };
    for part in &parts {
        if let Some(allowed) = refusal(name, declaration, kind, part)? {
            return Err(ParameterError::Refused {
                name: name.to_owned(),
                value,
                allowed: declaration.get("ConstraintDescription").and_then(text).unwrap_or(allowed),
            });
        }
    }
    Ok(if kind == "CommaDelimitedList" { parts.into_iter().collect() } else { Value::String(value) })
}

/// What is allowed instead, if `value` is not.
fn refusal(name: &str, declaration: &Value, kind: &str, value: &str) -> Result<Option<String>, ParameterError> {
    if let Some(allowed) = declaration.get("AllowedValues").and_then(Value::as_array) {
        let allowed: Vec<String> = allowed.iter().filter_map(text).collect();
        if !allowed.iter().any(|one| one == value) {
            return Ok(Some(format!("it must be one of {}", allowed.join(", "))));
        }
    }
    if let Some(pattern) = declaration.get("AllowedPattern").and_then(text) {
        // CloudFormation wants the whole value to match.
        let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|error| ParameterError::Declaration {
            name: name.to_owned(),
            what: format!("the pattern {pattern:?} ({error})"),
        })?;
        if !regex.is_match(value) {
            return Ok(Some(format!("it must match {pattern}")));
        }
    }
    if kind == "Number" {
        let Ok(number) = value.parse::<f64>() else {
            return Ok(Some("it must be a number".to_owned()));
        };
        if let Some(least) = bound(declaration, "MinValue").filter(|least| number < *least) {
            return Ok(Some(format!("it must be at least {least}")));
        }
        if let Some(most) = bound(declaration, "MaxValue").filter(|most| number > *most) {
            return Ok(Some(format!("it must be at most {most}")));
        }
    }
    Ok(None)
}

fn bound(declaration: &Value, name: &str) -> Option<f64> {
    declaration.get(name).and_then(text)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn declared() -> Map<String, Value> {
        let declared = json!({
            "Architecture": { "Type": "String", "Default": "arm64", "AllowedValues": ["arm64", "x86_64"] },
            "Memory": { "Type": "Number", "Default": 3008, "MinValue": 512, "MaxValue": 10240 },
            "Prefix": { "Type": "String", "Default": "", "AllowedPattern": "^([a-z]+/)*$" },
            "Described": { "Type": "String", "Default": "a", "AllowedPattern": "a|b", "ConstraintDescription": "an a, or a b." },
            "Accounts": { "Type": "CommaDelimitedList", "Default": "" },
        });
        declared.as_object().unwrap().clone()
    }

    #[test]
    fn defaults_and_overrides_have_their_types() {
        let resolved = resolve(&declared(), &BTreeMap::from([("Accounts".to_owned(), "1, 2".to_owned())])).unwrap();
        assert_eq!(resolved["Architecture"], "arm64");
        assert_eq!(resolved["Memory"], "3008");
        assert_eq!(resolved["Accounts"], json!(["1", "2"]));
    }

    #[test]
    fn refusals_name_the_parameter_and_what_is_allowed() {
        let cases = [
            ("Architecture", "mips", r#"the parameter Architecture cannot be "mips": it must be one of arm64, x86_64"#),
            ("Memory", "much", r#"the parameter Memory cannot be "much": it must be a number"#),
            ("Memory", "511", r#"the parameter Memory cannot be "511": it must be at least 512"#),
            ("Memory", "10241", r#"the parameter Memory cannot be "10241": it must be at most 10240"#),
            ("Prefix", "team", r#"the parameter Prefix cannot be "team": it must match ^([a-z]+/)*$"#),
            ("Described", "xb", r#"the parameter Described cannot be "xb": an a, or a b."#),
            (
                "Nonsense",
                "1",
                "there is no parameter Nonsense; the template has Accounts, Architecture, Described, Memory, Prefix",
            ),
        ];
        for (name, value, want) in cases {
            let overrides = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let error = resolve(&declared(), &overrides).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
        let declared = json!({ "Needed": { "Type": "String" } });
        let error = resolve(declared.as_object().unwrap(), &BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), "the parameter Needed has no default and was not given");
    }
}
