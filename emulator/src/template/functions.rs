//! SAM functions: settings, environment, event source and role.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::{Function, QueueSource, TemplateError, resolve::text, resources::Resource};
use crate::iam::Statement;

/// What SAM adds to the role of a function with an SQS event: `AWSLambdaSQSQueueExecutionRole`.
const QUEUE_ACTIONS: [&str; 3] = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"];

impl Resource {
    /// The function; `defaults` is the template's `Globals.Function`, which it overrides.
    pub(super) fn function(&self, defaults: Option<&Value>) -> Result<Function, TemplateError> {
        let global = |name: &str| defaults.and_then(|defaults| defaults.get(name)).and_then(text);
        let setting = |name: &str| self.text(&format!("/{name}")).or_else(|| global(name));
        let number = |name: &'static str, default: u32| match setting(name) {
            Some(text) => text.parse::<u32>().ok().ok_or_else(|| self.property(name, "a whole number")),
            None => Ok(default),
        };

        let mut environment = variables(defaults);
        environment.extend(variables(Some(&self.properties)));
        let source = self.source()?;
        let mut statements = self.role()?;
        if source.is_some() {
            statements.extend(self.statements(&json!({
                "Effect": "Allow", "Action": QUEUE_ACTIONS, "Resource": "*",
            }))?);
        }
        Ok(Function {
            name: self.name.clone(),
            arn: self.arn()?,
            handler: setting("Handler").unwrap_or_else(|| "bootstrap".to_owned()),
            // Lambda's own defaults: 3 s and 128 MB.
            timeout: Duration::from_secs(number("Timeout", 3)?.into()),
            memory_mib: number("MemorySize", 128)?,
            environment,
            source,
            statements,
        })
    }

    fn source(&self) -> Result<Option<QueueSource>, TemplateError> {
        let Some(events) = self.properties.get("Events") else {
            return Ok(None);
        };
        let events = events.as_object().ok_or_else(|| self.property("Events", "a mapping"))?;
        let mut source = None;
        for event in events.values() {
            let kind = event.get("Type").and_then(Value::as_str).unwrap_or_default();
            if kind != "SQS" {
                return Err(self.unsupported(&format!("an event of type {kind:?}")));
            }
            if source.is_some() {
                return Err(self.unsupported("a second queue for one function"));
            }
            let get = |pointer: &str| event.pointer(&format!("/Properties/{pointer}"));
            if get("FilterCriteria").is_some() {
                return Err(self.unsupported("a filtered event source"));
            }
            let number = |pointer: &str, property: &'static str| {
                get(pointer)
                    .map(|value| {
                        text(value)
                            .and_then(|text| text.parse::<usize>().ok())
                            .filter(|number| *number > 0)
                            .ok_or_else(|| self.property(property, "a number above 0"))
                    })
                    .transpose()
            };
            let types = get("FunctionResponseTypes").and_then(Value::as_array);
            source = Some(QueueSource {
                queue_arn: get("Queue").and_then(text).ok_or_else(|| self.property("Events.Queue", "a queue's ARN"))?,
                batch_size: number("BatchSize", "Events.BatchSize")?.unwrap_or(10),
                maximum_concurrency: number(
                    "ScalingConfig/MaximumConcurrency",
                    "Events.ScalingConfig.MaximumConcurrency",
                )?,
                reports_failures: types.is_some_and(|types| types.iter().any(|kind| kind == "ReportBatchItemFailures")),
            });
        }
        Ok(source)
    }

    /// The statements of `Policies`: policy documents; of managed policies only those for logs.
    fn role(&self) -> Result<Vec<Statement>, TemplateError> {
        let list = match self.properties.get("Policies") {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let mut statements = Vec::new();
        for policy in list {
            match (policy, policy.get("Statement")) {
                (_, Some(list)) => statements.extend(self.statements(list)?),
                // Logs are no calls here: the host reads the process's output.
                (Value::String(name), _) if name.ends_with("AWSLambdaBasicExecutionRole") => {}
                (other, _) => return Err(self.unsupported(&format!("the policy {other}"))),
            }
        }
        Ok(statements)
    }
}

fn variables(properties: Option<&Value>) -> BTreeMap<String, String> {
    properties
        .and_then(|properties| properties.pointer("/Environment/Variables"))
        .and_then(Value::as_object)
        .map(Map::iter)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
        .collect()
}
