//! Event patterns, as EventBridge evaluates them.
//!
//! The EventBridge user guide, "Comparison operators": a field's alternatives stand in a list;
//! several fields must all match; a pattern on a field does not match an event without it, but for
//! `exists: false`.

use serde_json::{Map, Number, Value};

/// A compiled event pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    fields: Vec<(String, Field)>,
    /// `$or`: of each group, one pattern must match.
    alternatives: Vec<Vec<Self>>,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A field's value is neither a list of alternatives nor a nested pattern.
    #[error("{path} must be a list or a mapping, and not empty")]
    Shape {
        /// The field.
        path: String,
    },
    /// An alternative is no value and no known operator with its arguments.
    #[error("{path} has the alternative {alternative}, which is not supported")]
    Alternative {
        /// The field.
        path: String,
        /// The alternative's JSON.
        alternative: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Field {
    Nested(Pattern),
    AnyOf(Vec<Matcher>),
}

#[derive(Debug, Clone, PartialEq)]
enum Matcher {
    Text(Text),
    /// A number, boolean or null.
    Value(Value),
    Not(Vec<Self>),
    Exists(bool),
    Numeric(Vec<(Comparison, f64)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Text {
    Equals(String),
    EqualsIgnoringCase(String),
    Prefix(String),
    PrefixIgnoringCase(String),
    Suffix(String),
    SuffixIgnoringCase(String),
    /// The literal parts between asterisks.
    Wildcard(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// [`PatternError`], naming the field.
    pub fn parse(pattern: &Value) -> Result<Self, PatternError> {
        Self::parse_at("the pattern", pattern)
    }

    fn parse_at(path: &str, pattern: &Value) -> Result<Self, PatternError> {
        let shape = || PatternError::Shape { path: path.to_owned() };
        let map = pattern.as_object().filter(|map| !map.is_empty()).ok_or_else(shape)?;
        let mut compiled = Self { fields: Vec::new(), alternatives: Vec::new() };
        for (name, value) in map {
            let path = format!("{path}/{name}");
            match value {
                Value::Array(list) if name == "$or" => compiled
                    .alternatives
                    .push(list.iter().map(|alternative| Self::parse_at(&path, alternative)).collect::<Result<_, _>>()?),
                Value::Array(list) if !list.is_empty() => {
                    let any = list
                        .iter()
                        .map(|alternative| {
                            Matcher::parse(alternative).ok_or_else(|| PatternError::Alternative {
                                path: path.clone(),
                                alternative: alternative.to_string(),
                            })
                        })
                        .collect::<Result<_, _>>()?;
                    compiled.fields.push((name.clone(), Field::AnyOf(any)));
                }
                Value::Object(_) => {
                    let nested = Self::parse_at(&path, value)?;
                    compiled.fields.push((name.clone(), Field::Nested(nested)));
                }
                _ => return Err(PatternError::Shape { path }),
            }
        }
        Ok(compiled)
    }

    /// Whether `event` matches.
    pub fn matches(&self, event: &Value) -> bool {
        self.matches_within(&[event])
    }

    /// `parents` are the places where the fields may be: several for a list of mappings.
    fn matches_within(&self, parents: &[&Value]) -> bool {
        self.fields.iter().all(|(name, field)| {
            let mut values = Vec::new();
            for parent in parents {
                if let Some(value) = parent.get(name) {
                    flatten(value, &mut values);
                }
            }
            match field {
                Field::Nested(pattern) => pattern.matches_within(&values),
                Field::AnyOf(any) => {
                    values.retain(|value| !value.is_object());
                    any.iter().any(|matcher| matcher.matches_field(&values))
                }
            }
        }) && self.alternatives.iter().all(|group| group.iter().any(|alternative| alternative.matches_within(parents)))
    }
}

/// A list in an event stands for each of its members.
fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        value => into.push(value),
    }
}

impl Matcher {
    fn parse(alternative: &Value) -> Option<Self> {
        match alternative {
            Value::String(text) => Some(Self::Text(Text::Equals(text.clone()))),
            Value::Number(_) | Value::Bool(_) | Value::Null => Some(Self::Value(alternative.clone())),
            Value::Array(_) => None,
            Value::Object(map) => {
                let (name, argument) = only(map)?;
                match (name, argument) {
                    ("exists", Value::Bool(wanted)) => Some(Self::Exists(*wanted)),
                    ("numeric", Value::Array(list)) => comparisons(list).map(Self::Numeric),
                    ("anything-but", argument) => refused(argument).map(Self::Not),
                    _ => Text::parse(name, argument).map(Self::Text),
                }
            }
        }
    }

    /// `values` are the field's scalars: none where the event has no such field.
    fn matches_field(&self, values: &[&Value]) -> bool {
        match self {
            Self::Exists(wanted) => *wanted != values.is_empty(),
            _ => values.iter().any(|value| self.matches_value(value)),
        }
    }

    fn matches_value(&self, value: &Value) -> bool {
        match self {
            Self::Text(text) => value.as_str().is_some_and(|value| text.matches(value)),
            Self::Value(Value::Number(wanted)) => value.as_number().is_some_and(|value| same(wanted, value)),
            Self::Value(wanted) => wanted == value,
            Self::Not(refused) => !refused.iter().any(|refused| refused.matches_value(value)),
            Self::Exists(wanted) => *wanted,
            Self::Numeric(comparisons) => value
                .as_f64()
                .is_some_and(|value| comparisons.iter().all(|(comparison, wanted)| comparison.holds(value, *wanted))),
        }
    }
}

/// EventBridge compares 3 and 3.0 as equal.
fn same(left: &Number, right: &Number) -> bool {
    left == right || left.as_f64().zip(right.as_f64()).is_some_and(|(left, right)| Comparison::Equal.holds(left, right))
}

/// What `anything-but` refuses: a scalar, a list of scalars, or a text operator on one or several texts.
fn refused(argument: &Value) -> Option<Vec<Matcher>> {
    let list = |value: &Value| match value {
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => Some(items.clone()),
        one => Some(vec![one.clone()]),
    };
    match argument {
        Value::Object(map) => {
            let (name, argument) = only(map)?;
            list(argument)?.iter().map(|argument| Text::parse(name, argument).map(Matcher::Text)).collect()
        }
        other => list(other)?
            .iter()
            .map(|value| match value {
                Value::String(_) | Value::Number(_) => Matcher::parse(value),
                _ => None,
            })
            .collect(),
    }
}

fn only(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, argument) = map.iter().next().filter(|_| map.len() == 1)?;
    Some((name, argument))
}

impl Text {
    fn parse(name: &str, argument: &Value) -> Option<Self> {
        if let Value::Object(map) = argument {
            let ("equals-ignore-case", Value::String(text)) = only(map)? else {
                return None;
            };
            return match name {
                "prefix" => Some(Self::PrefixIgnoringCase(text.to_lowercase())),
                "suffix" => Some(Self::SuffixIgnoringCase(text.to_lowercase())),
                _ => None,
            };
        }
        let text = argument.as_str()?;
        match name {
            "prefix" => Some(Self::Prefix(text.to_owned())),
            "suffix" => Some(Self::Suffix(text.to_owned())),
            "equals-ignore-case" => Some(Self::EqualsIgnoringCase(text.to_lowercase())),
            "wildcard" => wildcard(text).map(Self::Wildcard),
            _ => None,
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Equals(text) => value == text,
            Self::EqualsIgnoringCase(text) => value.to_lowercase() == *text,
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::PrefixIgnoringCase(text) => value.to_lowercase().starts_with(text.as_str()),
            Self::Suffix(text) => value.ends_with(text.as_str()),
            Self::SuffixIgnoringCase(text) => value.to_lowercase().ends_with(text.as_str()),
            Self::Wildcard(parts) => matches_parts(value, parts),
        }
    }
}

/// The literal parts of a wildcard; `None` for two asterisks in a row or an unfinished escape.
fn wildcard(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    let mut after_asterisk = false;
    while let Some(character) = characters.next() {
        if character == '*' {
            if after_asterisk {
                return None;
            }
            parts.push(String::new());
        } else {
            let literal = match character {
                '\\' => characters.next().filter(|next| matches!(next, '*' | '\\'))?,
                other => other,
            };
            parts.last_mut()?.push(literal);
        }
        after_asterisk = character == '*';
    }
    Some(parts)
}

fn matches_parts(value: &str, parts: &[String]) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return false;
    };
    let Some((last, middle)) = rest.split_last() else {
        return value == first;
    };
    let Some(mut left) = value.strip_prefix(first.as_str()).and_then(|left| left.strip_suffix(last.as_str())) else {
        return false;
    };
    for part in middle {
        let Some((_, after)) = left.split_once(part.as_str()) else {
            return false;
        };
        left = after;
    }
    true
}

impl Comparison {
    fn holds(self, value: f64, wanted: f64) -> bool {
        match self {
            Self::Equal => value.total_cmp(&wanted).is_eq(),
            Self::Less => value < wanted,
            Self::LessOrEqual => value <= wanted,
            Self::Greater => value > wanted,
            Self::GreaterOrEqual => value >= wanted,
        }
    }
}

/// `[">", 0, "<=", 5]`.
fn comparisons(list: &[Value]) -> Option<Vec<(Comparison, f64)>> {
    let pairs = list.chunks(2).map(|pair| {
        let [Value::String(operator), number] = pair else {
            return None;
        };
        let comparison = match operator.as_str() {
            "=" => Comparison::Equal,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        };
        Some((comparison, number.as_f64()?))
    });
    pairs.collect::<Option<Vec<_>>>().filter(|pairs| !pairs.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operators_match_as_eventbridges_do() {
        // The alternatives of the field `f`, the event's value of it, whether they match.
        let cases = [
            (json!(["a", "b"]), json!("b"), true),
            (json!(["a"]), json!("ab"), false),
            (json!([3]), json!(3.0), true),
            (json!([3]), json!("3"), false),
            (json!([true]), json!(true), true),
            (json!([null]), json!(null), true),
            (json!([null]), json!(""), false),
            (json!([""]), json!(""), true),
            (json!([{ "prefix": "ab" }]), json!("abc"), true),
            (json!([{ "prefix": "ab" }]), json!("xab"), false),
            (json!([{ "prefix": { "equals-ignore-case": "AB" } }]), json!("aBc"), true),
            (json!([{ "suffix": ".tar" }]), json!("a.tar"), true),
            (json!([{ "suffix": ".tar" }]), json!("a.tar.gz"), false),
            (json!([{ "suffix": { "equals-ignore-case": ".TAR" } }]), json!("a.tAr"), true),
            (json!([{ "equals-ignore-case": "Push" }]), json!("PUSH"), true),
            (json!([{ "wildcard": "team/*/app*.tar" }]), json!("team/x/y/app-1.tar"), true),
            (json!([{ "wildcard": "a*a" }]), json!("a"), false),
            (json!([{ "wildcard": "a?" }]), json!("ab"), false),
            (json!([{ "wildcard": "a\\*" }]), json!("a*"), true),
            (json!([{ "wildcard": "a\\*" }]), json!("ab"), false),
            (json!([{ "anything-but": "a" }]), json!("b"), true),
            (json!([{ "anything-but": "a" }]), json!("a"), false),
            (json!([{ "anything-but": ["a", "b"] }]), json!("b"), false),
            (json!([{ "anything-but": [1, 2] }]), json!(3), true),
            (json!([{ "anything-but": { "prefix": "verified-" } }]), json!("verified-1"), false),
            (json!([{ "anything-but": { "suffix": [".receipt.json", "/"] } }]), json!("a/"), false),
            (json!([{ "anything-but": { "suffix": [".receipt.json", "/"] } }]), json!("a.tar"), true),
            (json!([{ "anything-but": { "wildcard": "*/x" } }]), json!("a/x"), false),
            (json!([{ "anything-but": { "equals-ignore-case": ["A"] } }]), json!("a"), false),
            // Alternatives are or-ed, so two of these match everything.
            (json!([{ "anything-but": "a" }, { "anything-but": "b" }]), json!("a"), true),
            (json!([{ "exists": true }]), json!(""), true),
            (json!([{ "exists": false }]), json!(""), false),
            (json!([{ "exists": true }]), json!([]), false),
            (json!([{ "exists": true }]), json!({ "g": 1 }), false),
            (json!([{ "numeric": [">", 0, "<=", 5] }]), json!(5), true),
            (json!([{ "numeric": [">", 0, "<=", 5] }]), json!(0), false),
            (json!([{ "numeric": ["=", 5] }]), json!("5"), false),
            (json!(["a"]), json!(["x", "a"]), true),
            (json!({ "g": ["a"] }), json!({ "g": "a" }), true),
            (json!({ "g": ["a"] }), json!([{ "g": "x" }, { "g": "a" }]), true),
            (json!({ "g": ["a"] }), json!("a"), false),
        ];
        for (alternatives, value, want) in cases {
            let pattern = Pattern::parse(&json!({ "f": alternatives })).unwrap();
            let event = json!({ "f": value, "other": 1 });
            assert_eq!(pattern.matches(&event), want, "{alternatives} on {value}");
        }
    }

    #[test]
    fn an_absent_field_matches_only_exists_false() {
        let cases = [
            (json!(["a"]), false),
            (json!([null]), false),
            (json!([{ "anything-but": "a" }]), false),
            (json!([{ "prefix": "" }]), false),
            (json!([{ "exists": true }]), false),
            (json!([{ "exists": false }]), true),
            (json!({ "g": [{ "exists": false }] }), true),
        ];
        for (alternatives, want) in cases {
            let pattern = Pattern::parse(&json!({ "f": alternatives })).unwrap();
            assert_eq!(pattern.matches(&json!({ "other": 1 })), want, "{alternatives}");
        }
    }

    #[test]
    fn all_fields_must_match_and_or_takes_one() {
        let pattern = Pattern::parse(&json!({
            "source": ["aws.s3"],
            "$or": [{ "a": [1] }, { "b": { "c": [2] } }],
        }))
        .unwrap();
        for (event, want) in [
            (json!({ "source": "aws.s3", "a": 1 }), true),
            (json!({ "source": "aws.s3", "b": { "c": 2 } }), true),
            (json!({ "source": "aws.s3", "a": 2 }), false),
            (json!({ "source": "aws.ecr", "a": 1 }), false),
        ] {
            assert_eq!(pattern.matches(&event), want, "{event}");
        }
    }

    #[test]
    fn what_eventbridge_refuses_is_refused() {
        let cases = [
            (json!({}), "the pattern must be a list or a mapping, and not empty"),
            (json!({ "f": "a" }), "the pattern/f must be a list or a mapping, and not empty"),
            (json!({ "f": [] }), "the pattern/f must be a list or a mapping, and not empty"),
            (json!({ "f": { "g": {} } }), "the pattern/f/g must be a list or a mapping, and not empty"),
            (
                json!({ "f": [{ "cidr": "10.0.0.0/8" }] }),
                r#"the pattern/f has the alternative {"cidr":"10.0.0.0/8"}, which is not supported"#,
            ),
            (
                json!({ "f": [{ "wildcard": "a**" }] }),
                r#"the pattern/f has the alternative {"wildcard":"a**"}, which is not supported"#,
            ),
            (
                json!({ "f": [{ "numeric": [">"] }] }),
                r#"the pattern/f has the alternative {"numeric":[">"]}, which is not supported"#,
            ),
            (
                json!({ "f": [{ "anything-but": [] }] }),
                r#"the pattern/f has the alternative {"anything-but":[]}, which is not supported"#,
            ),
            (
                json!({ "f": [{ "prefix": "a", "suffix": "b" }] }),
                r#"the pattern/f has the alternative {"prefix":"a","suffix":"b"}, which is not supported"#,
            ),
        ];
        for (pattern, want) in cases {
            assert_eq!(Pattern::parse(&pattern).unwrap_err().to_string(), want);
        }
    }
}
