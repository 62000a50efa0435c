//! Resources: their names and attributes, and what their properties say.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{
    Bucket, Queue, Redrive, Rule, Target, TemplateError,
    resolve::{ResolveError, Resolver, text},
};
use crate::{account, iam::Statement};

/// The kinds of resources that are read; those of any other kind are left out.
const KINDS: [&str; 9] = [
    "AWS::S3::Bucket",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
    "AWS::SNS::Topic",
    "AWS::SNS::Subscription",
    "AWS::Events::Rule",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Role",
    "AWS::Serverless::Function",
];

impl Resolver<'_> {
    /// What `Ref` gives for a resource.
    pub(super) fn physical_id(&self, logical_id: &str) -> Result<Value, ResolveError> {
        let (kind, name) = self.kind_and_name(logical_id)?;
        Ok(Value::String(match kind {
            "AWS::SQS::Queue" => self.queue_url(&name),
            "AWS::SNS::Topic" => account::arn("sns", &name),
            "AWS::IAM::ManagedPolicy" => iam_arn("policy", &name),
            _ => name,
        }))
    }

    /// What `Fn::GetAtt` gives for a resource.
    pub(super) fn attribute(&self, logical_id: &str, attribute: &str) -> Result<Value, ResolveError> {
        let (kind, name) = self.kind_and_name(logical_id)?;
        let value = match (kind, attribute) {
            ("AWS::S3::Bucket", "Arn") => format!("arn:{}:s3:::{name}", account::PARTITION),
            ("AWS::SQS::Queue", "Arn") => account::arn("sqs", &name),
            ("AWS::SQS::Queue", "QueueName") | ("AWS::SNS::Topic", "TopicName") => name,
            ("AWS::SQS::Queue", "QueueUrl") => self.queue_url(&name),
            ("AWS::SNS::Topic", "TopicArn") => account::arn("sns", &name),
            ("AWS::Events::Rule", "Arn") => account::arn("events", &format!("rule/{name}")),
            ("AWS::Logs::LogGroup", "Arn") => account::arn("logs", &format!("log-group:{name}:*")),
            ("AWS::IAM::ManagedPolicy", "PolicyArn") => iam_arn("policy", &name),
            ("AWS::IAM::Role", "Arn") => iam_arn("role", &name),
            ("AWS::CloudWatch::Alarm", "Arn") => account::arn("cloudwatch", &format!("alarm:{name}")),
            ("AWS::Serverless::Function", "Arn") => account::arn("lambda", &format!("function:{name}")),
            _ => {
                return Err(ResolveError::UnknownAttribute {
                    name: logical_id.to_owned(),
                    attribute: attribute.to_owned(),
                });
            }
        };
        Ok(Value::String(value))
    }

    fn kind_and_name(&self, logical_id: &str) -> Result<(&str, String), ResolveError> {
        let resource =
            self.resources.get(logical_id).ok_or_else(|| ResolveError::UnknownName { name: logical_id.to_owned() })?;
        let kind = resource.get("Type").and_then(Value::as_str).unwrap_or_default();
        let property = match kind {
            "AWS::S3::Bucket" => "BucketName",
            "AWS::SQS::Queue" => "QueueName",
            "AWS::SNS::Topic" => "TopicName",
            "AWS::Serverless::Function" => "FunctionName",
            "AWS::Logs::LogGroup" => "LogGroupName",
            "AWS::IAM::ManagedPolicy" => "ManagedPolicyName",
            "AWS::IAM::Role" => "RoleName",
            "AWS::CloudWatch::Alarm" => "AlarmName",
            "AWS::CloudWatch::Dashboard" => "DashboardName",
            _ => "Name",
        };
        let given = match resource.pointer(&format!("/Properties/{property}")) {
            Some(expression) => self.resolve(expression)?.as_ref().and_then(text),
            None => None,
        };
        let name = given.unwrap_or_else(|| match kind {
            "AWS::S3::Bucket" | "AWS::SQS::Queue" => kebab_case(logical_id),
            _ => format!("{}-{logical_id}", account::STACK),
        });
        Ok((kind, name))
    }

    fn queue_url(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.endpoint, account::ID)
    }
}

/// A resource whose properties are resolved.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) logical_id: String,
    pub(super) kind: String,
    pub(super) properties: Value,
    pub(super) name: String,
    arn: Option<String>,
    endpoint: String,
}

impl Resource {
    /// `None` for a resource that its condition leaves out, or of a kind that is not emulated.
    pub(super) fn resolve(logical_id: &str, resolver: &Resolver<'_>) -> Result<Option<Self>, TemplateError> {
        let failed = |source| TemplateError::Resolve { logical_id: logical_id.to_owned(), source };
        let Some(declared) = resolver.resources.get(logical_id) else {
            return Ok(None);
        };
        if let Some(condition) = declared.get("Condition").and_then(Value::as_str)
            && !resolver.condition(condition).map_err(failed)?
        {
            return Ok(None);
        }
        let kind = declared.get("Type").and_then(Value::as_str).unwrap_or_default();
        if !KINDS.contains(&kind) {
            return Ok(None);
        }
        let (kind, name) = resolver.kind_and_name(logical_id).map_err(failed)?;
        let properties = match declared.get("Properties") {
            Some(properties) => resolver.resolve(properties).map_err(failed)?,
            None => None,
        };
        let attribute = match kind {
            "AWS::SNS::Topic" => "TopicArn",
            "AWS::IAM::ManagedPolicy" => "PolicyArn",
            _ => "Arn",
        };
        let arn = resolver.attribute(logical_id, attribute).ok().as_ref().and_then(text);
        Ok(Some(Self {
            logical_id: logical_id.to_owned(),
            kind: kind.to_owned(),
            properties: properties.unwrap_or_else(|| Value::Object(Map::new())),
            name,
            arn,
            endpoint: resolver.endpoint.to_owned(),
        }))
    }

    pub(super) fn bucket(&self) -> Bucket {
        let event_bridge = "/NotificationConfiguration/EventBridgeConfiguration";
        Bucket {
            name: self.name.clone(),
            versioned: self
                .properties
                .pointer("/VersioningConfiguration/Status")
                .is_some_and(|status| status == "Enabled"),
            event_bridge: match self.properties.pointer(event_bridge) {
                // Present means on: EventBridgeEnabled is true unless it says otherwise.
                Some(configuration) => {
                    configuration.get("EventBridgeEnabled").and_then(text).is_none_or(|enabled| enabled == "true")
                }
                None => false,
            },
        }
    }

    pub(super) fn queue(&self) -> Result<Queue, TemplateError> {
        if self.text("/FifoQueue").is_some_and(|fifo| fifo == "true") {
            return Err(self.unsupported("a FIFO queue"));
        }
        let redrive = match self.properties.get("RedrivePolicy") {
            Some(_) => Some(Redrive {
                dead_letter_arn: self
                    .text("/RedrivePolicy/deadLetterTargetArn")
                    .ok_or_else(|| self.property("RedrivePolicy.deadLetterTargetArn", "an ARN"))?,
                max_receives: self
                    .number("RedrivePolicy.maxReceiveCount", "/RedrivePolicy/maxReceiveCount")?
                    .ok_or_else(|| self.property("RedrivePolicy.maxReceiveCount", "a number"))?,
            }),
            None => None,
        };
        Ok(Queue {
            name: self.name.clone(),
            arn: self.arn()?,
            url: format!("{}/{}/{}", self.endpoint, account::ID, self.name),
            visibility: self.seconds("VisibilityTimeout", "/VisibilityTimeout")?.unwrap_or(Duration::from_secs(30)),
            delay: self.seconds("DelaySeconds", "/DelaySeconds")?.unwrap_or_default(),
            redrive,
            policy: Vec::new(),
        })
    }

    /// Queue URLs, each with the statements that this policy attaches to it.
    pub(super) fn queue_policy(&self) -> Result<Vec<(String, Vec<Statement>)>, TemplateError> {
        let statements = self.document()?;
        let queues = self
            .properties
            .get("Queues")
            .and_then(Value::as_array)
            .ok_or_else(|| self.property("Queues", "a list of queue URLs"))?;
        Ok(queues.iter().filter_map(text).map(|url| (url, statements.clone())).collect())
    }

    /// The statements of a policy's document.
    pub(super) fn document(&self) -> Result<Vec<Statement>, TemplateError> {
        let statements = self
            .properties
            .pointer("/PolicyDocument/Statement")
            .ok_or_else(|| self.property("PolicyDocument.Statement", "a statement or a list of them"))?;
        self.statements(statements)
    }

    pub(super) fn rule(&self) -> Result<Rule, TemplateError> {
        if self.text("/EventBusName").is_some_and(|bus| bus != "default") {
            return Err(self.unsupported("another bus than the default one"));
        }
        let pattern = self
            .properties
            .get("EventPattern")
            .filter(|pattern| pattern.is_object())
            .cloned()
            .ok_or_else(|| self.property("EventPattern", "a mapping"))?;
        let targets = match self.properties.get("Targets") {
            // A rule that is switched off is kept, and sends nothing.
            _ if self.text("/State").is_some_and(|state| state == "DISABLED") => &[][..],
            Some(Value::Array(targets)) => targets.as_slice(),
            _ => return Err(self.property("Targets", "a list")),
        };
        let targets = targets
            .iter()
            .map(|target| {
                if ["Input", "InputPath", "InputTransformer"].iter().any(|key| target.get(key).is_some()) {
                    return Err(self.unsupported("a target with transformed input"));
                }
                let arn = target.get("Arn").and_then(text).ok_or_else(|| self.property("Targets.Arn", "an ARN"))?;
                if !arn.starts_with("arn:aws:sqs:") {
                    return Err(self.unsupported(&format!("the rule target {arn}")));
                }
                Ok(Target { arn, dead_letter_arn: target.pointer("/DeadLetterConfig/Arn").and_then(text) })
            })
            .collect::<Result<_, _>>()?;
        Ok(Rule { arn: self.arn()?, pattern, targets })
    }

    pub(super) fn statements(&self, list: &Value) -> Result<Vec<Statement>, TemplateError> {
        let list = match list {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        list.iter()
            .map(|statement| {
                Statement::parse(statement)
                    .map_err(|source| TemplateError::Policy { logical_id: self.logical_id.clone(), source })
            })
            .collect()
    }

    pub(super) fn arn(&self) -> Result<String, TemplateError> {
        self.arn.clone().ok_or_else(|| self.property("Arn", "an ARN"))
    }

    pub(super) fn text(&self, pointer: &str) -> Option<String> {
        self.properties.pointer(pointer).and_then(text)
    }

    pub(super) fn number(&self, property: &'static str, pointer: &str) -> Result<Option<u32>, TemplateError> {
        self.text(pointer)
            .map(|text| text.parse().ok().ok_or_else(|| self.property(property, "a whole number")))
            .transpose()
    }

    pub(super) fn seconds(&self, property: &'static str, pointer: &str) -> Result<Option<Duration>, TemplateError> {
        let seconds = self.number(property, pointer)?;
        Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
    }

    pub(super) fn property(&self, property: &'static str, want: &'static str) -> TemplateError {
        TemplateError::Property { logical_id: self.logical_id.clone(), property, want }
    }

    pub(super) fn unsupported(&self, what: &str) -> TemplateError {
        TemplateError::Unsupported { logical_id: self.logical_id.clone(), what: what.to_owned() }
    }
}

/// The ARN of an IAM resource, which has no region.
fn iam_arn(kind: &str, name: &str) -> String {
    format!("arn:{}:iam::{}:{kind}/{name}", account::PARTITION, account::ID)
}

/// `ImportQueue` → `import-queue`; bucket names know no capitals.
fn kebab_case(logical_id: &str) -> String {
    let letters: Vec<char> = logical_id.chars().collect();
    let mut name = String::new();
    for (position, letter) in letters.iter().enumerate() {
        let before = position.checked_sub(1).and_then(|before| letters.get(before));
        let starts_word = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                !before.is_ascii_uppercase() || letters.get(position + 1).is_some_and(char::is_ascii_lowercase)
            });
        if starts_word {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_ids_become_names() {
        for (logical_id, want) in [
            ("Uploads", "uploads"),
            ("ImportQueue", "import-queue"),
            ("ImportDLQ", "import-dlq"),
            ("SQSQueue2Go", "sqs-queue2-go"),
        ] {
            assert_eq!(kebab_case(logical_id), want);
        }
    }
}
