//! Policy statements: parsing and evaluation, as far as the template uses them.

use serde_json::Value;

use super::condition::{Condition, arn_like, like};

/// One statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    effect: Effect,
    actions: Vec<String>,
    resources: Vec<String>,
    conditions: Vec<Condition>,
    services: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// Why a policy statement of the template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// `Effect`, `Action` or another element is absent or has another shape than IAM gives it.
    #[error("policy statement {statement}: {element} is missing or malformed")]
    Malformed {
        /// The element.
        element: &'static str,
        /// The statement's JSON.
        statement: String,
    },
    /// An element that this evaluator does not know; ignoring it could allow too much.
    #[error("policy statement {statement}: the element {element} is not supported")]
    Unsupported {
        /// The element.
        element: String,
        /// The statement's JSON.
        statement: String,
    },
}

impl Statement {
    /// Reads a statement whose intrinsic functions are resolved.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] for an element that is missing, malformed or not supported
    /// (`NotAction`, `NotResource`, policy variables).
    pub fn parse(statement: &Value) -> Result<Self, PolicyError> {
        let malformed = |element| PolicyError::Malformed { element, statement: statement.to_string() };
        let unsupported =
            |element: &str| PolicyError::Unsupported { element: element.to_owned(), statement: statement.to_string() };
        let map = statement.as_object().ok_or_else(|| malformed("Statement"))?;
        if let Some(element) = map
            .keys()
            .find(|key| !matches!(key.as_str(), "Sid" | "Effect" | "Action" | "Resource" | "Condition" | "Principal"))
        {
            return Err(unsupported(element));
        }
        let effect = match map.get("Effect").and_then(Value::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(malformed("Effect")),
        };
        let required = |element: &'static str| {
            map.get(element).and_then(one_or_many).filter(|list| !list.is_empty()).ok_or_else(|| malformed(element))
        };
        let actions = required("Action")?;
        let resources = required("Resource")?;
        if resources.iter().any(|resource| resource.contains("${")) {
            return Err(unsupported("policy variable"));
        }
        let mut conditions = Vec::new();
        if let Some(blocks) = map.get("Condition") {
            let blocks = blocks.as_object().ok_or_else(|| malformed("Condition"))?;
            for (operator, keys) in blocks {
                for (key, values) in keys.as_object().ok_or_else(|| malformed("Condition"))? {
                    let values = one_or_many(values).ok_or_else(|| malformed("Condition"))?;
                    if values.iter().any(|value| value.contains("${")) {
                        return Err(unsupported("policy variable"));
                    }
                    conditions.push(Condition::parse(operator, key, values).ok_or_else(|| unsupported(operator))?);
                }
            }
        }
        let services = map
            .get("Principal")
            .and_then(|principal| principal.get("Service"))
            .and_then(one_or_many)
            .unwrap_or_default();
        Ok(Self { effect, actions, resources, conditions, services })
    }

    /// Whether the statement's principal is the AWS service `service` (`events.amazonaws.com`).
    pub(crate) fn names_service(&self, service: &str) -> bool {
        self.services.iter().any(|name| name == service)
    }

    fn applies(&self, action: &str, resource: &str, context: &[(String, String)]) -> bool {
        // IAM compares actions without regard to case and resources with it.
        let wanted = action.to_ascii_lowercase();
        self.actions.iter().any(|pattern| like(&pattern.to_ascii_lowercase(), &wanted))
            && self.resources.iter().any(|pattern| pattern == "*" || arn_like(pattern, resource))
            && self.conditions.iter().all(|condition| condition.holds(context))
    }
}

/// Whether `statements` allow the call: some allow applies and no deny does.
pub(crate) fn allows(statements: &[Statement], action: &str, resource: &str, context: &[(String, String)]) -> bool {
    let applies = |effect: Effect| {
        statements.iter().any(|statement| statement.effect == effect && statement.applies(action, resource, context))
    };
    applies(Effect::Allow) && !applies(Effect::Deny)
}

/// IAM lets a single value stand for a list of one.
fn one_or_many(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        // YAML reads `"aws:SecureTransport": false` as a boolean.
        Value::Bool(_) | Value::Number(_) => Some(vec![value.to_string()]),
        Value::Array(many) => {
            let one = |value: &Value| one_or_many(value).filter(|_| !value.is_array());
            many.iter().map(one).collect::<Option<Vec<_>>>().map(|many| many.concat())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A label, the statements, the call's action, resource and context, and whether it is allowed.
    type Case<'a> = (&'a str, &'a Value, &'a str, &'a str, &'a [(String, String)], bool);

    const REPOSITORY: &str = "arn:aws:ecr:us-east-1:123456789012:repository/team/app";

    #[test]
    fn statements_allow_what_they_say_and_nothing_else() {
        let tagged = [("aws:ResourceTag/gantry:stack".to_owned(), "gantry".to_owned())];
        let foreign = [("aws:ResourceTag/gantry:stack".to_owned(), "other".to_owned())];
        let plain = json!([{ "Effect": "Allow", "Action": "ecr:Put*", "Resource": "arn:aws:ecr:*:123456789012:repository/team/*" }]);
        let conditional = |operator: &str, value: &str| {
            json!([{ "Effect": "Allow", "Action": ["ecr:PutImage"], "Resource": "*",
                "Condition": { operator: { "aws:resourcetag/gantry:stack": value } } }])
        };
        let denying = json!([
            { "Effect": "Allow", "Action": "*", "Resource": "*" },
            { "Effect": "Deny", "Action": "ecr:PutImage", "Resource": REPOSITORY },
        ]);
        let spanning = json!([{ "Effect": "Allow", "Action": "*", "Resource": "arn:aws:ecr:*" }]);
        let cases: &[Case<'_>] = &[
            ("wildcard action", &plain, "ecr:PutImage", REPOSITORY, &[], true),
            ("action in another case", &plain, "ecr:putimage", REPOSITORY, &[], true),
            ("another action", &plain, "ecr:BatchGetImage", REPOSITORY, &[], false),
            (
                "another repository",
                &plain,
                "ecr:PutImage",
                "arn:aws:ecr:us-east-1:123456789012:repository/other",
                &[],
                false,
            ),
            (
                "another account",
                &plain,
                "ecr:PutImage",
                "arn:aws:ecr:us-east-1:210987654321:repository/team/app",
                &[],
                false,
            ),
            ("StringEquals", &conditional("StringEquals", "gantry"), "ecr:PutImage", REPOSITORY, &tagged, true),
            (
                "StringEquals, other value",
                &conditional("StringEquals", "gantry"),
                "ecr:PutImage",
                REPOSITORY,
                &foreign,
                false,
            ),
            (
                "StringEquals, no such key",
                &conditional("StringEquals", "gantry"),
                "ecr:PutImage",
                REPOSITORY,
                &[],
                false,
            ),
            (
                "StringEquals knows no wildcard",
                &conditional("StringEquals", "gan*"),
                "ecr:PutImage",
                REPOSITORY,
                &tagged,
                false,
            ),
            ("StringLike", &conditional("StringLike", "g?n*"), "ecr:PutImage", REPOSITORY, &tagged, true),
            ("Null", &conditional("Null", "false"), "ecr:PutImage", REPOSITORY, &tagged, true),
            ("deny wins", &denying, "ecr:PutImage", REPOSITORY, &[], false),
            ("deny of one only", &denying, "ecr:BatchGetImage", REPOSITORY, &[], true),
            ("a wildcard stays within its part", &spanning, "ecr:PutImage", REPOSITORY, &[], false),
        ];
        for (label, statements, action, resource, context, want) in cases {
            let statements: Vec<Statement> =
                statements.as_array().unwrap().iter().map(|statement| Statement::parse(statement).unwrap()).collect();
            assert_eq!(allows(&statements, action, resource, context), *want, "{label}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused() {
        let cases = [
            (
                json!({ "Effect": "Allow", "NotAction": "s3:*", "Resource": "*" }),
                "the element NotAction is not supported",
            ),
            (json!({ "Effect": "Maybe", "Action": "s3:*", "Resource": "*" }), "Effect is missing or malformed"),
            (json!({ "Effect": "Allow", "Action": "s3:*" }), "Resource is missing or malformed"),
            (json!({ "Effect": "Allow", "Action": [], "Resource": "*" }), "Action is missing or malformed"),
            (
                json!({ "Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${aws:userid}" }),
                "the element policy variable is not supported",
            ),
            (
                json!({ "Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": { "IpAddress": { "aws:SourceIp": "1.2.3.4" } } }),
                "the element IpAddress is not supported",
            ),
            (json!("Allow"), "Statement is missing or malformed"),
        ];
        for (statement, want) in cases {
            let message = Statement::parse(&statement).unwrap_err().to_string();
            assert!(message.ends_with(want), "{message}");
        }
    }
}
