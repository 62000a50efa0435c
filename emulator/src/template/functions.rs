//! SAM functions: settings, environment, event source, schedules and role.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::{Function, QueueSource, Schedule, Scheduler, TemplateError, resolve::text, resources::Resource};
use crate::iam::Statement;

/// What SAM adds to the role of a function with an SQS event: `AWSLambdaSQSQueueExecutionRole`.
const QUEUE_ACTIONS: [&str; 3] = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"];

impl Resource {
    /// The function, and the ARNs of its managed policies, or that of its role; `defaults` is the template's
    /// `Globals.Function`, which it overrides.
    pub(super) fn function(&self, defaults: Option<&Value>) -> Result<(Function, Vec<String>), TemplateError> {
        let global = |name: &str| defaults.and_then(|defaults| defaults.get(name)).and_then(text);
        let setting = |name: &str| self.text(&format!("/{name}")).or_else(|| global(name));
        let number = |name: &'static str, default: u32| match setting(name) {
            Some(text) => text.parse::<u32>().ok().ok_or_else(|| self.property(name, "a whole number")),
            None => Ok(default),
        };

        let mut environment = variables(defaults);
        environment.extend(variables(Some(&self.properties)));
        let (source, schedules) = self.events()?;
        let (mut statements, mut policies) = self.policies()?;
        if let Some(role) = setting("Role") {
            // SAM makes no role then, and takes no policies.
            (statements, policies) = (Vec::new(), vec![role]);
        } else if source.is_some() {
            statements.extend(self.statements(&json!({
                "Effect": "Allow", "Action": QUEUE_ACTIONS, "Resource": "*",
            }))?);
        }
        let function = Function {
            name: self.name.clone(),
            arn: self.arn()?,
            handler: setting("Handler").unwrap_or_else(|| "bootstrap".to_owned()),
            // Lambda's own defaults: 3 s and 128 MB.
            timeout: Duration::from_secs(number("Timeout", 3)?.into()),
            memory_mib: number("MemorySize", 128)?,
            environment,
            source,
            schedules,
            statements,
        };
        Ok((function, policies))
    }

    /// What `Events` says: the queue that feeds the function, and its schedules.
    fn events(&self) -> Result<(Option<QueueSource>, Vec<Schedule>), TemplateError> {
        let Some(events) = self.properties.get("Events") else {
            return Ok((None, Vec::new()));
        };
        let events = events.as_object().ok_or_else(|| self.property("Events", "a mapping"))?;
        let (mut source, mut schedules) = (None, Vec::new());
        for (name, event) in events {
            let properties = event.get("Properties").cloned().unwrap_or_default();
            match event.get("Type").and_then(Value::as_str).unwrap_or_default() {
                "SQS" if source.is_some() => return Err(self.unsupported("a second queue for one function")),
                "SQS" => source = Some(self.queue_source(&properties)?),
                "Schedule" => schedules.extend(self.schedule(name, &properties, Scheduler::Rule)?),
                "ScheduleV2" => schedules.extend(self.schedule(name, &properties, Scheduler::Scheduler)?),
                kind => return Err(self.unsupported(&format!("an event of type {kind:?}"))),
            }
        }
        Ok((source, schedules))
    }

    /// An event source mapping, within Lambda's limits (Lambda developer guide, "Configuring scaling
    /// behavior for SQS event source mappings" and the API reference, `CreateEventSourceMapping`).
    fn queue_source(&self, properties: &Value) -> Result<QueueSource, TemplateError> {
        if properties.get("FilterCriteria").is_some() {
            return Err(self.unsupported("a filtered event source"));
        }
        let number = |pointer: &str, property: &'static str, least: usize, most: usize, want: &'static str| {
            let Some(value) = properties.pointer(pointer) else {
                return Ok(None);
            };
            let number = text(value).and_then(|text| text.parse::<usize>().ok());
            number
                .filter(|number| (least..=most).contains(number))
                .map(Some)
                .ok_or_else(|| self.property(property, want))
        };
        let batch_size = number("/BatchSize", "Events.BatchSize", 1, 10_000, "a number from 1 to 10000")?.unwrap_or(10);
        let window = "Events.MaximumBatchingWindowInSeconds";
        let seconds = number("/MaximumBatchingWindowInSeconds", window, 0, 300, "a number from 0 to 300")?;
        let batching_window = Duration::from_secs(seconds.unwrap_or_default() as u64);
        if batch_size > 10 && batching_window.is_zero() {
            return Err(self.property(window, "at least 1, since Events.BatchSize is above 10"));
        }
        let maximum_concurrency = number(
            "/ScalingConfig/MaximumConcurrency",
            "Events.ScalingConfig.MaximumConcurrency",
            2,
            1000,
            "a number from 2 to 1000",
        )?;
        let types = properties.get("FunctionResponseTypes").and_then(Value::as_array);
        Ok(QueueSource {
            queue_arn: properties
                .get("Queue")
                .and_then(text)
                .ok_or_else(|| self.property("Events.Queue", "a queue's ARN"))?,
            batch_size,
            batching_window,
            maximum_concurrency,
            reports_failures: types.is_some_and(|types| types.iter().any(|kind| kind == "ReportBatchItemFailures")),
        })
    }

    /// The statements of the policy documents in `Policies`, and the ARNs of managed policies; of AWS's
    /// own only those for logs and traces are taken.
    fn policies(&self) -> Result<(Vec<Statement>, Vec<String>), TemplateError> {
        let list = match self.properties.get("Policies") {
            None => return Ok((Vec::new(), Vec::new())),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let (mut statements, mut managed) = (Vec::new(), Vec::new());
        for policy in list {
            match (policy, policy.get("Statement")) {
                (_, Some(list)) => statements.extend(self.statements(list)?),
                // Logs and traces are no calls here: the host reads the process's output.
                (Value::String(name), _)
                    if name.ends_with("AWSLambdaBasicExecutionRole") || name.ends_with("AWSXRayDaemonWriteAccess") => {}
                (Value::String(arn), _) if arn.starts_with("arn:") => managed.push(arn.clone()),
                (other, _) => return Err(self.unsupported(&format!("the policy {other}"))),
            }
        }
        Ok((statements, managed))
    }

    /// The statements of a role's own policies, and the ARNs of its managed ones.
    pub(super) fn role(&self) -> Result<(Vec<Statement>, Vec<String>), TemplateError> {
        let list = |name| self.properties.get(name).and_then(Value::as_array).into_iter().flatten();
        let mut statements = Vec::new();
        for policy in list("Policies") {
            let of_policy = policy.pointer("/PolicyDocument/Statement");
            let want = "policy documents with statements";
            statements.extend(self.statements(of_policy.ok_or_else(|| self.property("Policies", want))?)?);
        }
        Ok((statements, list("ManagedPolicyArns").filter_map(text).collect()))
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
