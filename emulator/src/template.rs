//! `template.yaml` as the embedded AWS needs it: buckets, queues, rules and functions, resolved.
//!
//! Reads the CloudFormation and SAM subset that the project's template uses. What it does not
//! know is an error at start, never silently ignored, unless it is a resource of a kind that the
//! embedded AWS does not have (an alarm, a bucket policy): those are skipped.

mod functions;
mod links;
mod parameters;
mod resolve;
mod resources;
mod rules;
mod schedules;
mod topics;
mod yaml;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

pub use parameters::ParameterError;
pub use resolve::ResolveError;
pub use schedules::{Schedule, Scheduler};

use crate::iam::{PolicyError, Statement};
use links::Links;
use resolve::Resolver;

/// The resolved template.
#[derive(Debug, Clone)]
pub struct Template {
    /// S3 buckets, by logical id.
    pub buckets: BTreeMap<String, Bucket>,
    /// SQS queues, by logical id.
    pub queues: BTreeMap<String, Queue>,
    /// SNS topics, by logical id.
    pub topics: BTreeMap<String, Topic>,
    /// EventBridge rules, by logical id.
    pub rules: BTreeMap<String, Rule>,
    /// Lambda functions, by logical id.
    pub functions: BTreeMap<String, Function>,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Whether it keeps every version of an object.
    pub versioned: bool,
    /// Whether it sends its events to EventBridge.
    pub event_bridge: bool,
}

/// A standard queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its URL, on the stack's own port.
    pub url: String,
    /// How long a received message stays invisible; 30 s where the template says nothing, as SQS has it.
    pub visibility: Duration,
    /// How long a sent message stays invisible.
    pub delay: Duration,
    /// Where messages go that were received too often.
    pub redrive: Option<Redrive>,
    /// What the queue's resource policy says.
    pub policy: Vec<Statement>,
}

/// A queue's redrive policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// The dead-letter queue's ARN.
    pub dead_letter_arn: String,
    /// How often a message may be received before it moves there.
    pub max_receives: u32,
}

/// An SNS topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Who listens.
    pub subscriptions: Vec<Subscription>,
}

/// A topic's subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// How messages would be sent: `email`, `https`, `sqs`, …
    pub protocol: String,
    /// Where they would be sent.
    pub endpoint: String,
    /// Which messages it gets, as JSON; all without one.
    pub filter: Option<Value>,
    /// What the filter looks at.
    pub filter_scope: FilterScope,
}

/// What a subscription's filter policy looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FilterScope {
    /// The message attributes.
    #[default]
    Attributes,
    /// The message itself, which must be JSON.
    Body,
}

/// An EventBridge rule on the default bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its ARN.
    pub arn: String,
    /// The event pattern's JSON.
    pub pattern: Value,
    /// The queues it sends matching events to.
    pub targets: Vec<Target>,
}

/// One target of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The target queue's ARN.
    pub arn: String,
    /// The queue for events that could not be handed to the target.
    pub dead_letter_arn: Option<String>,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The handler, which AWS gives the process as `_HANDLER`.
    pub handler: String,
    /// How long one invocation may take.
    pub timeout: Duration,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// The environment variables that the template sets.
    pub environment: BTreeMap<String, String>,
    /// The queue that feeds it.
    pub source: Option<QueueSource>,
    /// When it runs by itself.
    pub schedules: Vec<Schedule>,
    /// What its role may do.
    pub statements: Vec<Statement>,
}

/// A function's event source mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSource {
    /// The queue's ARN.
    pub queue_arn: String,
    /// The most messages of one invocation.
    pub batch_size: usize,
    /// How long messages are gathered before an invocation with fewer.
    pub batching_window: Duration,
    /// The most invocations at a time.
    pub maximum_concurrency: Option<usize>,
    /// Whether the answer's `batchItemFailures` are honoured; without it Lambda ignores them.
    pub reports_failures: bool,
}

/// Why the template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The text is no YAML.
    #[error("the template is no YAML")]
    Yaml(#[source] serde_yaml_ng::Error),
    /// The document lacks a section or has it in another shape.
    #[error("the template's {section} is missing or no mapping")]
    Section {
        /// The section.
        section: &'static str,
    },
    /// A parameter is unknown or its value is refused.
    #[error("a parameter of the template cannot be used")]
    Parameter(#[from] ParameterError),
    /// The template's own rules forbid these parameters.
    #[error("the template's rule {rule} forbids these parameters: {reason}")]
    Forbidden {
        /// The rule.
        rule: String,
        /// What it says of itself.
        reason: String,
    },
    /// A rule cannot be evaluated.
    #[error("the rule {rule} of the template cannot be evaluated")]
    Rule {
        /// The rule.
        rule: String,
        /// What is wrong.
        source: ResolveError,
    },
    /// A resource's expressions cannot be resolved.
    #[error("the resource {logical_id} of the template cannot be resolved")]
    Resolve {
        /// The resource.
        logical_id: String,
        /// What is wrong.
        source: ResolveError,
    },
    /// A property of a resource is missing or has another type than CloudFormation gives it.
    #[error("the resource {logical_id} of the template: {property} must be {want}")]
    Property {
        /// The resource.
        logical_id: String,
        /// The property.
        property: &'static str,
        /// What it must be.
        want: &'static str,
    },
    /// The embedded AWS does not have what a resource asks for.
    #[error("the resource {logical_id} of the template asks for {what}, which the embedded AWS does not have")]
    Unsupported {
        /// The resource.
        logical_id: String,
        /// What it asks for.
        what: String,
    },
    /// A policy statement cannot be evaluated.
    #[error("a policy of the resource {logical_id} of the template cannot be evaluated")]
    Policy {
        /// The resource.
        logical_id: String,
        /// What is wrong.
        source: PolicyError,
    },
}

impl Template {
    /// Reads the template's YAML text.
    ///
    /// `overrides` replace parameters' defaults; `endpoint` (`http://127.0.0.1:PORT`) is where queue
    /// URLs lead.
    ///
    /// # Errors
    ///
    /// [`TemplateError`], naming the parameter, resource or expression that cannot be used.
    pub fn read(text: &str, overrides: &BTreeMap<String, String>, endpoint: &str) -> Result<Self, TemplateError> {
        let document = yaml::read(text).map_err(TemplateError::Yaml)?;
        let section = |name: &'static str| match document.get(name) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(_) => Err(TemplateError::Section { section: name }),
        };
        let resources = section("Resources")?;
        if resources.is_empty() {
            return Err(TemplateError::Section { section: "Resources" });
        }
        let parameters = parameters::resolve(&section("Parameters")?, overrides)?;
        let globals = section("Globals")?;
        let resolver = Resolver::new(endpoint, parameters, section("Mappings")?, section("Conditions")?, &resources);

        rules::check(&section("Rules")?, &resolver)?;

        let mut template = Self {
            buckets: BTreeMap::new(),
            queues: BTreeMap::new(),
            topics: BTreeMap::new(),
            rules: BTreeMap::new(),
            functions: BTreeMap::new(),
        };
        let mut links = Links::default();
        for logical_id in resources.keys() {
            let Some(resource) = resources::Resource::resolve(logical_id, &resolver)? else {
                continue;
            };
            if links.read(&resource)? {
                continue;
            }
            let id = logical_id.clone();
            match resource.kind.as_str() {
                "AWS::S3::Bucket" => {
                    template.buckets.insert(id, resource.bucket());
                }
                "AWS::SQS::Queue" => {
                    template.queues.insert(id, resource.queue()?);
                }
                "AWS::SNS::Topic" => {
                    template.topics.insert(id, resource.topic()?);
                }
                "AWS::Events::Rule" => {
                    template.rules.insert(id, resource.rule()?);
                }
                "AWS::Serverless::Function" => {
                    let (function, policies) = resource.function(globals.get("Function"))?;
                    links.attached.extend(policies.into_iter().map(|arn| (id.clone(), arn)));
                    template.functions.insert(id, function);
                }
                _ => {}
            }
        }
        links.tie(&mut template)?;
        Ok(template)
    }
}

#[cfg(test)]
mod tests;
