//! CloudFormation's intrinsic functions.

use std::{cell::Cell, collections::BTreeMap};

use serde_json::{Map, Value};

use crate::account;

/// Deeper than any template nests; reached only by expressions that refer to themselves.
const MAX_DEPTH: u32 = 64;

/// Why an expression cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A name that is no parameter, pseudo parameter or resource.
    #[error("{name:?} is no parameter and no resource")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// An attribute that the resource's kind does not have here.
    #[error("the attribute {attribute:?} of {name:?} is not known")]
    UnknownAttribute {
        /// The resource.
        name: String,
        /// The attribute.
        attribute: String,
    },
    /// A condition that the template does not declare.
    #[error("the condition {name:?} is not declared")]
    UnknownCondition {
        /// The condition.
        name: String,
    },
    /// A function that is not read here.
    #[error("the function {name} is not supported")]
    UnknownFunction {
        /// The function, such as `Fn::ImportValue`.
        name: String,
    },
    /// A function whose arguments are not those that CloudFormation gives it.
    #[error("the arguments of {name} are wrong: {arguments}")]
    Arguments {
        /// The function.
        name: String,
        /// The arguments' JSON.
        arguments: String,
    },
    /// An expression that needs itself.
    #[error("the expression refers to itself")]
    Circular,
}

/// Resolves expressions against one template's parameters, mappings, conditions and resources.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    pub(super) endpoint: &'a str,
    parameters: BTreeMap<String, Value>,
    mappings: Map<String, Value>,
    conditions: Map<String, Value>,
    pub(super) resources: &'a Map<String, Value>,
    depth: Cell<u32>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        endpoint: &'a str,
        parameters: BTreeMap<String, Value>,
        mappings: Map<String, Value>,
        conditions: Map<String, Value>,
        resources: &'a Map<String, Value>,
    ) -> Self {
        Self { endpoint, parameters, mappings, conditions, resources, depth: Cell::new(0) }
    }

    /// The value of `expression`; `None` where it is `AWS::NoValue`, which removes the entry.
    pub(super) fn resolve(&self, expression: &Value) -> Result<Option<Value>, ResolveError> {
        if self.depth.get() >= MAX_DEPTH {
            return Err(ResolveError::Circular);
        }
        self.depth.set(self.depth.get() + 1);
        let resolved = self.resolve_one(expression);
        self.depth.set(self.depth.get() - 1);
        resolved
    }

    fn resolve_one(&self, expression: &Value) -> Result<Option<Value>, ResolveError> {
        match expression {
            Value::Array(items) => {
                let mut resolved = Vec::with_capacity(items.len());
                for item in items {
                    resolved.extend(self.resolve(item)?);
                }
                Ok(Some(Value::Array(resolved)))
            }
            Value::Object(map) => {
                if let Some((name, arguments)) = function(map) {
                    return self.call(name, arguments);
                }
                let mut resolved = Map::new();
                for (key, value) in map {
                    if let Some(value) = self.resolve(value)? {
                        resolved.insert(key.clone(), value);
                    }
                }
                Ok(Some(Value::Object(resolved)))
            }
            scalar => Ok(Some(scalar.clone())),
        }
    }

    fn call(&self, name: &str, arguments: &Value) -> Result<Option<Value>, ResolveError> {
        let wrong = || ResolveError::Arguments { name: name.to_owned(), arguments: arguments.to_string() };
        match name {
            "Ref" => self.reference(arguments.as_str().ok_or_else(wrong)?),
            "Fn::GetAtt" => {
                let (resource, attribute) = match arguments {
                    Value::String(text) => text.split_once('.').ok_or_else(wrong)?,
                    Value::Array(parts) => match parts.as_slice() {
                        [Value::String(resource), Value::String(attribute)] => (resource.as_str(), attribute.as_str()),
                        _ => return Err(wrong()),
                    },
                    _ => return Err(wrong()),
                };
                self.attribute(resource, attribute).map(Some)
            }
            "Fn::Sub" => {
                let (template, variables) = match arguments {
                    Value::String(template) => (template, None),
                    Value::Array(parts) => match parts.as_slice() {
                        [Value::String(template), Value::Object(variables)] => (template, Some(variables)),
                        _ => return Err(wrong()),
                    },
                    _ => return Err(wrong()),
                };
                self.substitute(template, variables)?.map(|text| Some(Value::String(text))).ok_or_else(wrong)
            }
            "Fn::If" => match arguments.as_array().map(Vec::as_slice) {
                Some([Value::String(condition), then, otherwise]) => {
                    self.resolve(if self.condition(condition)? { then } else { otherwise })
                }
                _ => Err(wrong()),
            },
            "Fn::Equals" | "Fn::Not" | "Fn::And" | "Fn::Or" | "Condition" => {
                Ok(Some(Value::Bool(self.truth(name, arguments)?)))
            }
            _ => {
                let arguments = self.resolve(arguments)?.ok_or_else(wrong)?;
                let arguments = arguments.as_array().ok_or_else(wrong)?;
                let result = match name {
                    "Fn::Join" => join(arguments),
                    "Fn::Split" => split(arguments),
                    "Fn::Select" => select(arguments),
                    "Fn::FindInMap" => self.find_in_map(arguments),
                    _ => {
                        return Err(ResolveError::UnknownFunction { name: name.to_owned() });
                    }
                };
                result.map(Some).ok_or_else(wrong)
            }
        }
    }

    fn reference(&self, name: &str) -> Result<Option<Value>, ResolveError> {
        let pseudo = match name {
            "AWS::NoValue" => return Ok(None),
            "AWS::Region" => account::REGION,
            "AWS::AccountId" => account::ID,
            "AWS::Partition" => account::PARTITION,
            "AWS::StackName" => account::STACK,
            "AWS::URLSuffix" => "amazonaws.com",
            _ => {
                if let Some(value) = self.parameters.get(name) {
                    return Ok(Some(value.clone()));
                }
                return self.physical_id(name).map(Some);
            }
        };
        Ok(Some(Value::from(pseudo)))
    }

    /// `None` when a variable's value is no scalar or a brace is not closed.
    fn substitute(
        &self,
        template: &str,
        variables: Option<&Map<String, Value>>,
    ) -> Result<Option<String>, ResolveError> {
        let mut text_so_far = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("${") {
            text_so_far.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                return Ok(None);
            };
            rest = after;
            if let Some(literal) = name.strip_prefix('!') {
                text_so_far.push_str("${");
                text_so_far.push_str(literal);
                text_so_far.push('}');
                continue;
            }
            let value = if let Some(expression) = variables.and_then(|map| map.get(name)) {
                self.resolve(expression)?
            } else if let Some((resource, attribute)) = name.split_once('.') {
                Some(self.attribute(resource, attribute)?)
            } else {
                self.reference(name)?
            };
            let Some(value) = value.as_ref().and_then(text) else {
                return Ok(None);
            };
            text_so_far.push_str(&value);
        }
        text_so_far.push_str(rest);
        Ok(Some(text_so_far))
    }

    /// Whether the declared condition `name` holds.
    pub(super) fn condition(&self, name: &str) -> Result<bool, ResolveError> {
        let expression =
            self.conditions.get(name).ok_or_else(|| ResolveError::UnknownCondition { name: name.to_owned() })?;
        self.holds(expression)
    }

    /// Whether a condition, written out, holds.
    pub(super) fn holds(&self, expression: &Value) -> Result<bool, ResolveError> {
        let wrong = || ResolveError::Arguments { name: "a condition".to_owned(), arguments: expression.to_string() };
        self.resolve(expression)?.and_then(|value| value.as_bool()).ok_or_else(wrong)
    }

    fn truth(&self, name: &str, arguments: &Value) -> Result<bool, ResolveError> {
        let wrong = || ResolveError::Arguments { name: name.to_owned(), arguments: arguments.to_string() };
        if name == "Condition" {
            return self.condition(arguments.as_str().ok_or_else(wrong)?);
        }
        let list = arguments.as_array().ok_or_else(wrong)?;
        match (name, list.as_slice()) {
            ("Fn::Equals", [left, right]) => {
                let (left, right) = (self.resolve(left)?, self.resolve(right)?);
                // CloudFormation compares what it would print: 1 equals "1".
                Ok(match (&left, &right) {
                    (Some(left), Some(right)) => {
                        text(left).zip(text(right)).map_or(left == right, |(left, right)| left == right)
                    }
                    _ => left == right,
                })
            }
            ("Fn::Not", [one]) => Ok(!self.holds(one)?),
            ("Fn::And" | "Fn::Or", many) if !many.is_empty() => {
                let want = name == "Fn::Or";
                for one in many {
                    if self.holds(one)? == want {
                        return Ok(want);
                    }
                }
                Ok(!want)
            }
            _ => Err(wrong()),
        }
    }

    fn find_in_map(&self, arguments: &[Value]) -> Option<Value> {
        let [map, first, second] = arguments else {
            return None;
        };
        self.mappings.get(&text(map)?)?.get(text(first)?)?.get(text(second)?).cloned()
    }
}

/// The intrinsic function that `map` is, if it is one.
///
/// `Condition` is one only with a name: policy statements have an element of that name too.
fn function(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, arguments) = map.iter().next().filter(|_| map.len() == 1)?;
    let is_function = name == "Ref" || name.starts_with("Fn::") || (name == "Condition" && arguments.is_string());
    is_function.then_some((name, arguments))
}

fn join(arguments: &[Value]) -> Option<Value> {
    let [separator, Value::Array(parts)] = arguments else {
        return None;
    };
    let parts: Vec<String> = parts.iter().map(text).collect::<Option<_>>()?;
    Some(Value::String(parts.join(separator.as_str()?)))
}

fn split(arguments: &[Value]) -> Option<Value> {
    let [separator, whole] = arguments else {
        return None;
    };
    Some(text(whole)?.split(separator.as_str()?).collect())
}

fn select(arguments: &[Value]) -> Option<Value> {
    let [index, Value::Array(items)] = arguments else {
        return None;
    };
    items.get(text(index)?.parse::<usize>().ok()?).cloned()
}

/// A scalar as CloudFormation prints it; `None` for lists, mappings and null.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(expression: &Value) -> Result<Option<Value>, ResolveError> {
        let object = |value: Value| value.as_object().unwrap().clone();
        let resources = object(json!({
            "Uploads": { "Type": "AWS::S3::Bucket" },
            "ImportQueue": { "Type": "AWS::SQS::Queue" },
            "Rule": { "Type": "AWS::Events::Rule" },
            "Told": { "Type": "AWS::SNS::Topic" },
            "Policy": { "Type": "AWS::IAM::ManagedPolicy" },
            "Logs": { "Type": "AWS::Logs::LogGroup", "Properties": { "LogGroupName": "/aws/lambda/x" } },
            "Import": { "Type": "AWS::Serverless::Function" },
            "Named": { "Type": "AWS::S3::Bucket", "Properties": { "BucketName": { "Fn::Sub": "${Prefix}-x" } } },
            "Self": { "Type": "AWS::S3::Bucket", "Properties": { "BucketName": { "Ref": "Self" } } },
        }));
        let parameters = BTreeMap::from([("Prefix".to_owned(), json!("team")), ("List".to_owned(), json!(["a", "b"]))]);
        let mappings = object(json!({ "M": { "k": { "n": 5400 } } }));
        let conditions = object(json!({
            "Yes": { "Fn::Equals": [1, "1"] },
            "No": { "Fn::Not": [{ "Condition": "Yes" }] },
            "Either": { "Fn::Or": [{ "Condition": "No" }, { "Condition": "Yes" }] },
            "Both": { "Fn::And": [{ "Condition": "No" }, { "Condition": "Yes" }] },
            "Loop": { "Condition": "Loop" },
        }));
        Resolver::new("http://127.0.0.1:1", parameters, mappings, conditions, &resources).resolve(expression)
    }

    #[test]
    fn functions_give_what_cloudformation_gives() {
        let cases = [
            (json!({ "Ref": "AWS::StackName" }), json!("gantry")),
            (json!({ "Ref": "Uploads" }), json!("uploads")),
            (json!({ "Ref": "Named" }), json!("team-x")),
            (json!({ "Ref": "ImportQueue" }), json!("http://127.0.0.1:1/123456789012/import-queue")),
            (json!({ "Fn::GetAtt": ["ImportQueue", "Arn"] }), json!("arn:aws:sqs:us-east-1:123456789012:import-queue")),
            (json!({ "Ref": "Policy" }), json!("arn:aws:iam::123456789012:policy/gantry-Policy")),
            (json!({ "Ref": "Logs" }), json!("/aws/lambda/x")),
            (
                json!({ "Fn::GetAtt": ["Logs", "Arn"] }),
                json!("arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/x:*"),
            ),
            (json!({ "Ref": "Told" }), json!("arn:aws:sns:us-east-1:123456789012:gantry-Told")),
            (json!({ "Fn::GetAtt": ["Told", "TopicArn"] }), json!("arn:aws:sns:us-east-1:123456789012:gantry-Told")),
            (json!({ "Fn::GetAtt": ["Told", "TopicName"] }), json!("gantry-Told")),
            (json!({ "Fn::GetAtt": "Uploads.Arn" }), json!("arn:aws:s3:::uploads")),
            (json!({ "Fn::GetAtt": ["Rule", "Arn"] }), json!("arn:aws:events:us-east-1:123456789012:rule/gantry-Rule")),
            (
                json!({ "Fn::GetAtt": ["Import", "Arn"] }),
                json!("arn:aws:lambda:us-east-1:123456789012:function:gantry-Import"),
            ),
            (
                json!({ "Fn::Sub": "${Uploads.Arn}/${Prefix}/${!Kept}-${AWS::Region}" }),
                json!("arn:aws:s3:::uploads/team/${Kept}-us-east-1"),
            ),
            (
                json!({ "Fn::Sub": ["${a}.${Prefix}", { "a": { "Fn::FindInMap": ["M", "k", "n"] } }] }),
                json!("5400.team"),
            ),
            (json!({ "Fn::Join": [",", { "Ref": "List" }] }), json!("a,b")),
            (json!({ "Fn::Select": ["1", { "Fn::Split": ["-", "x-y"] }] }), json!("y")),
            (json!({ "Fn::If": ["Yes", 1, 2] }), json!(1)),
            (json!([{ "Fn::If": ["No", 1, { "Ref": "AWS::NoValue" }] }, 3]), json!([3])),
            (
                json!({ "a": { "Ref": "AWS::NoValue" }, "b": { "Condition": { "StringEquals": {} } } }),
                json!({ "b": { "Condition": { "StringEquals": {} } } }),
            ),
            (json!({ "Condition": "Either" }), json!(true)),
            (json!({ "Condition": "Both" }), json!(false)),
        ];
        for (expression, want) in cases {
            assert_eq!(check(&expression), Ok(Some(want)), "{expression}");
        }
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let cases = [
            (json!({ "Ref": "Nobody" }), r#""Nobody" is no parameter and no resource"#),
            (json!({ "Fn::GetAtt": ["Uploads", "Colour"] }), r#"the attribute "Colour" of "Uploads" is not known"#),
            (json!({ "Fn::GetAtt": ["Told", "Arn"] }), r#"the attribute "Arn" of "Told" is not known"#),
            (json!({ "Fn::If": ["Maybe", 1, 2] }), r#"the condition "Maybe" is not declared"#),
            (json!({ "Fn::ImportValue": ["x"] }), "the function Fn::ImportValue is not supported"),
            (json!({ "Fn::Sub": "${open" }), r#"the arguments of Fn::Sub are wrong: "${open""#),
            (json!({ "Fn::Sub": "${List}" }), r#"the arguments of Fn::Sub are wrong: "${List}""#),
            (json!({ "Fn::Select": [2, ["x"]] }), r#"the arguments of Fn::Select are wrong: [2,["x"]]"#),
            (json!({ "Ref": "Self" }), "the expression refers to itself"),
            (json!({ "Condition": "Loop" }), "the expression refers to itself"),
        ];
        for (expression, want) in cases {
            assert_eq!(check(&expression).unwrap_err().to_string(), want, "{expression}");
        }
    }
}
