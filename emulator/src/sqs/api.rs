//! The JSON protocol of SQS: `X-Amz-Target: AmazonSQS.<Operation>`.

mod input;

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use input::Input;

use super::{Ask, Extras, MAX_MESSAGE_BYTES, Queues, Received, error::SqsError};
use crate::{
    account,
    iam::Gate,
    wire::{Answer, Caller, Dropped, Request, Response, full},
};

/// What `X-Amz-Target` begins with.
pub(crate) const TARGET: &str = "AmazonSQS.";

/// A batch is at most 1 MiB of messages; escaped as JSON it can be several times as long.
const MAX_REQUEST_BYTES: usize = 8 * MAX_MESSAGE_BYTES;

/// What is implemented, besides the batches of three of them.
const OPERATIONS: [&str; 9] = [
    "SendMessage",
    "ReceiveMessage",
    "DeleteMessage",
    "ChangeMessageVisibility",
    "GetQueueAttributes",
    "GetQueueUrl",
    "ListQueues",
    "PurgeQueue",
    "StartMessageMoveTask",
];

/// The SQS endpoint.
#[derive(Debug, Clone)]
pub struct Sqs {
    queues: Arc<Queues>,
    gate: Arc<Gate>,
}

impl Sqs {
    /// The endpoint of `queues`, guarded by `gate`.
    pub fn new(queues: Arc<Queues>, gate: Arc<Gate>) -> Self {
        Self { queues, gate }
    }

    /// Answers one call.
    ///
    /// # Errors
    ///
    /// [`Dropped`] when the request's body cannot be read.
    pub async fn handle(&self, caller: Caller, request: Request) -> Answer {
        let operation = request
            .headers()
            .get("x-amz-target")
            .and_then(|target| target.to_str().ok())
            .and_then(|target| target.strip_prefix(TARGET))
            .unwrap_or_default()
            .to_owned();
        let Ok(body) = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect().await else {
            return Err(Dropped);
        };
        let answer = match serde_json::from_slice(&body.to_bytes()) {
            Ok(input) => self.call(&caller, &operation, &Input(input)).await,
            Err(error) => Err(SqsError::Body(error)),
        };
        Ok(match answer {
            Ok(output) => respond(http::StatusCode::OK, &output),
            Err(error) => refuse(&error),
        })
    }

    async fn call(&self, caller: &Caller, operation: &str, input: &Input) -> Result<Value, SqsError> {
        if let Some(single) = operation.strip_suffix("Batch") {
            return self.batch(caller, single, input).await;
        }
        if !OPERATIONS.contains(&operation) {
            tracing::warn!("sqs:{operation} is not implemented");
            return Err(SqsError::UnknownOperation { operation: operation.to_owned() });
        }
        let resource = match operation {
            "ListQueues" => account::arn("sqs", "*"),
            "GetQueueUrl" => account::arn("sqs", input.text("QueueName")?),
            "StartMessageMoveTask" => input.text("SourceArn")?.to_owned(),
            _ => account::arn("sqs", &self.queue(input)?),
        };
        self.gate.check(caller, &format!("sqs:{operation}"), &resource, &[])?;
        match operation {
            "SendMessage" => self.send(&self.queue(input)?, input),
            "ReceiveMessage" => self.receive(&self.queue(input)?, input).await,
            "DeleteMessage" => {
                self.queues.delete(&self.queue(input)?, input.text("ReceiptHandle")?)?;
                Ok(json!({}))
            }
            "ChangeMessageVisibility" => {
                let visibility =
                    input.seconds("VisibilityTimeout")?.ok_or(SqsError::Missing { parameter: "VisibilityTimeout" })?;
                self.queues.change_visibility(&self.queue(input)?, input.text("ReceiptHandle")?, visibility)?;
                Ok(json!({}))
            }
            "GetQueueAttributes" => self.attributes(&self.queue(input)?, input),
            "GetQueueUrl" => {
                let name = self.queues.name(input.text("QueueName")?)?;
                Ok(json!({ "QueueUrl": self.url(&name) }))
            }
            "ListQueues" => {
                let prefix = input.text("QueueNamePrefix").unwrap_or_default();
                let urls: Vec<String> = self
                    .queues
                    .settings()
                    .into_iter()
                    .filter(|queue| queue.name.starts_with(prefix))
                    .map(|queue| queue.url)
                    .collect();
                Ok(json!({ "QueueUrls": urls }))
            }
            "PurgeQueue" => {
                self.queues.purge(&self.queue(input)?)?;
                Ok(json!({}))
            }
            _ => self.redrive(input),
        }
    }

    /// Each entry is one call of its own; a refused one does not hinder the others.
    async fn batch(&self, caller: &Caller, single: &str, input: &Input) -> Result<Value, SqsError> {
        if !matches!(single, "SendMessage" | "DeleteMessage" | "ChangeMessageVisibility") {
            return Err(SqsError::UnknownOperation { operation: format!("{single}Batch") });
        }
        let entries = input.0.get("Entries").and_then(Value::as_array);
        let entries = entries.ok_or(SqsError::Missing { parameter: "Entries" })?;
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in entries {
            let id = entry.get("Id").cloned().unwrap_or_default();
            let mut call = entry.as_object().cloned().unwrap_or_default();
            call.insert("QueueUrl".to_owned(), input.text("QueueUrl")?.into());
            // Boxed, since a batch calls what calls it.
            match Box::pin(self.call(caller, single, &Input(call))).await {
                Ok(mut output) => {
                    output["Id"] = id;
                    successful.push(output);
                }
                Err(error) => failed.push(json!({
                    "Id": id,
                    "Code": error.wire().2,
                    "Message": error.to_string(),
                    "SenderFault": error.wire().0.is_client_error(),
                })),
            }
        }
        let mut output = json!({ "Successful": successful });
        if !failed.is_empty() {
            output["Failed"] = failed.into();
        }
        Ok(output)
    }

    fn send(&self, queue: &str, input: &Input) -> Result<Value, SqsError> {
        let extras = Extras {
            delay: input.seconds("DelaySeconds")?,
            attributes: input.map("MessageAttributes"),
            trace_header: input
                .0
                .get("MessageSystemAttributes")
                .and_then(|attributes| attributes.pointer("/AWSTraceHeader/StringValue"))
                .and_then(Value::as_str)
                .map(str::to_owned),
        };
        let message = self.queues.send(queue, input.text("MessageBody")?, extras)?;
        let mut output = json!({
            "MessageId": message.id,
            "MD5OfMessageBody": message.body_md5(),
        });
        if let Some(md5) = message.attributes_md5() {
            output["MD5OfMessageAttributes"] = md5.into();
        }
        Ok(output)
    }

    async fn receive(&self, queue: &str, input: &Input) -> Result<Value, SqsError> {
        let most = input.number("MaxNumberOfMessages")?.unwrap_or(1);
        if !(1..=10).contains(&most) {
            return Err(SqsError::Parameter {
                parameter: "MaxNumberOfMessages",
                reason: "Must be between 1 and 10, if provided.".to_owned(),
            });
        }
        let wait = input.seconds("WaitTimeSeconds")?.unwrap_or_default();
        if wait > Duration::from_secs(20) {
            return Err(SqsError::Parameter {
                parameter: "WaitTimeSeconds",
                reason: "Must be >= 0 and <= 20, if provided.".to_owned(),
            });
        }
        let ask = Ask {
            most: usize::try_from(most).unwrap_or(1),
            visibility: input.seconds("VisibilityTimeout")?,
            wait: Some(wait),
        };
        let received = self.queues.receive(queue, ask).await?;
        if received.is_empty() {
            return Ok(json!({}));
        }
        let mut wanted = input.list("MessageSystemAttributeNames");
        wanted.extend(input.list("AttributeNames"));
        let named = input.list("MessageAttributeNames");
        let messages: Vec<Value> = received.iter().map(|received| message(received, &wanted, &named)).collect();
        Ok(json!({ "Messages": messages }))
    }

    fn attributes(&self, queue: &str, input: &Input) -> Result<Value, SqsError> {
        let counts = self.queues.counts(queue)?;
        let settings =
            self.queues.settings().into_iter().find(|settings| settings.name == queue).ok_or(SqsError::NoQueue)?;
        let mut all = vec![
            ("QueueArn", settings.arn),
            ("ApproximateNumberOfMessages", counts.visible.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string()),
            ("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string()),
            ("VisibilityTimeout", settings.visibility.as_secs().to_string()),
            ("DelaySeconds", settings.delay.as_secs().to_string()),
            ("MaximumMessageSize", MAX_MESSAGE_BYTES.to_string()),
        ];
        if let Some(redrive) = settings.redrive {
            let policy = json!({
                "deadLetterTargetArn": redrive.dead_letter_arn,
                "maxReceiveCount": redrive.max_receives,
            });
            all.push(("RedrivePolicy", policy.to_string()));
        }
        let wanted = input.list("AttributeNames");
        let attributes: Map<String, Value> = all
            .into_iter()
            .filter(|(name, _)| wanted.iter().any(|wanted| wanted == "All" || wanted == name))
            .map(|(name, value)| (name.to_owned(), Value::String(value)))
            .collect();
        Ok(json!({ "Attributes": attributes }))
    }

    fn redrive(&self, input: &Input) -> Result<Value, SqsError> {
        let source = input.text("SourceArn")?;
        let queue = self.queues.name(source)?;
        let is_dead_letter = self
            .queues
            .settings()
            .iter()
            .any(|settings| settings.redrive.as_ref().is_some_and(|redrive| redrive.dead_letter_arn == source));
        if !is_dead_letter {
            return Err(SqsError::NotDeadLetter);
        }
        self.queues.redrive(&queue, input.text("DestinationArn").ok())?;
        Ok(json!({ "TaskHandle": Uuid::new_v4() }))
    }

    fn queue(&self, input: &Input) -> Result<String, SqsError> {
        self.queues.name(input.text("QueueUrl")?)
    }

    fn url(&self, name: &str) -> Option<String> {
        let settings = self.queues.settings();
        settings.into_iter().find(|queue| queue.name == name).map(|queue| queue.url)
    }
}

fn message(received: &Received, wanted: &[String], named: &[String]) -> Value {
    let message = &received.message;
    let mut output = json!({
        "MessageId": message.id,
        "ReceiptHandle": received.receipt,
        "Body": message.body,
        "MD5OfBody": message.body_md5(),
    });
    let asked =
        |list: &[String], name: &str| list.iter().any(|wanted| wanted == "All" || wanted == ".*" || wanted == name);
    let attributes: Map<String, Value> =
        message.system_attributes().into_iter().filter(|(name, _)| asked(wanted, name)).collect();
    if !attributes.is_empty() {
        output["Attributes"] = attributes.into();
    }
    // Its checksum is over what is returned, so all or none keeps it right.
    if !message.attributes.is_empty() && message.attributes.keys().any(|name| asked(named, name)) {
        output["MessageAttributes"] = message.attributes.clone().into();
        output["MD5OfMessageAttributes"] = message.attributes_md5().into();
    }
    output
}

/// An answer of the JSON protocol, version 1.0.
fn respond(status: http::StatusCode, output: &Value) -> Response {
    let mut response = Response::new(full(output.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// The answer to a refused call.
fn refuse(error: &SqsError) -> Response {
    let (status, kind, code) = error.wire();
    let body = json!({ "__type": kind, "message": error.to_string() });
    let mut response = respond(status, &body);
    let fault = if status.is_client_error() { "Sender" } else { "Receiver" };
    if let Ok(value) = HeaderValue::from_str(&format!("{code};{fault}")) {
        response.headers_mut().insert("x-amzn-query-error", value);
    }
    response
}

#[cfg(test)]
mod tests;
