//! The EventBridge endpoint: JSON 1.1, `X-Amz-Target: AWSEvents.PutEvents`.
//!
//! Limits, codes and texts are those of the EventBridge API reference, `PutEvents` and
//! `PutEventsResultEntry`.

use std::sync::Arc;

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    account,
    envelope::envelope,
    iam::Gate,
    wire::{Answer, Caller, Dropped, Request, Response, json_1_1},
};

/// What `X-Amz-Target` begins with.
const TARGET: &str = "AWSEvents.";

/// The most entries of one call.
const MAX_ENTRIES: usize = 10;

/// The most bytes of one call's entries: 1 MB since January 2026 (EventBridge quotas).
const MAX_BYTES: usize = 1 << 20;

/// Escaped as JSON, entries can be several times as long.
const MAX_REQUEST_BYTES: usize = 8 * MAX_BYTES;

/// What a time stamp counts for in an entry's size (EventBridge user guide, "Calculating event entry size").
const TIME_BYTES: usize = 14;

/// The EventBridge endpoint.
#[derive(Debug)]
pub struct Events {
    gate: Arc<Gate>,
    bus: UnboundedSender<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    source: Option<String>,
    detail_type: Option<String>,
    detail: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
    /// Seconds since 1970.
    time: Option<f64>,
    event_bus_name: Option<String>,
}

/// A refused call.
#[derive(Debug)]
struct Refused {
    kind: &'static str,
    message: String,
}

/// A refused entry, by its code and text.
type EntryError = (&'static str, String);

impl Events {
    /// The endpoint, guarded by `gate`; accepted events go onto `bus` beside those of the services.
    pub fn new(gate: Arc<Gate>, bus: UnboundedSender<Value>) -> Self {
        Self { gate, bus }
    }

    /// Answers one call of `caller`.
    ///
    /// # Errors
    ///
    /// [`Dropped`] when the request's body cannot be read.
    pub async fn handle(&self, caller: Caller, request: Request) -> Answer {
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
        let operation = target.and_then(|target| target.strip_prefix(TARGET)).unwrap_or_default().to_owned();
        let Ok(body) = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect().await else {
            return Err(Dropped);
        };
        let answer = self.call(&caller, &operation, &body.to_bytes());
        Ok(match answer {
            Ok(output) => json_1_1(StatusCode::OK, &output),
            Err(refused) => refused.into_response(),
        })
    }

    fn call(&self, caller: &Caller, operation: &str, body: &[u8]) -> Result<Value, Refused> {
        if operation != "PutEvents" {
            tracing::warn!("events:{operation} is not implemented");
            let message = format!("The embedded EventBridge has no operation {operation:?}.");
            return Err(Refused { kind: "UnknownOperationException", message });
        }
        let input: Input = serde_json::from_slice(body)
            .map_err(|error| Refused { kind: "SerializationException", message: error.to_string() })?;
        self.put(caller, &input.entries)
    }

    /// `PutEvents`: every entry is taken or refused for itself; a denied one refuses the whole call.
    fn put(&self, caller: &Caller, entries: &[Entry]) -> Result<Value, Refused> {
        if !(1..=MAX_ENTRIES).contains(&entries.len()) {
            return Err(invalid(format!(
                "1 validation error detected: Value at 'entries' failed to satisfy constraint: \
                 Member must have length between 1 and {MAX_ENTRIES}"
            )));
        }
        if entries.iter().map(Entry::size_bytes).sum::<usize>() > MAX_BYTES {
            return Err(invalid("Total size of the entries in the request is over the limit.".to_owned()));
        }
        for entry in entries {
            let context = [("events:source", &entry.source), ("events:detail-type", &entry.detail_type)]
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
                .collect::<Vec<_>>();
            self.gate
                .check(caller, "events:PutEvents", &entry.bus_arn(), &context)
                .map_err(|denied| Refused { kind: "AccessDeniedException", message: denied.to_string() })?;
        }
        let (mut outcomes, mut failed) = (Vec::new(), 0);
        for entry in entries {
            outcomes.push(match entry.event() {
                Ok(event) => {
                    let outcome = json!({ "EventId": event["id"] });
                    self.announce(entry, event);
                    outcome
                }
                Err((code, message)) => {
                    failed += 1;
                    json!({ "ErrorCode": code, "ErrorMessage": message })
                }
            });
        }
        Ok(json!({ "FailedEntryCount": failed, "Entries": outcomes }))
    }

    /// What is sent to a bus that does not exist is accepted and lost, as EventBridge does it.
    fn announce(&self, entry: &Entry, event: Value) {
        if entry.bus_arn() != bus_arn("default") {
            tracing::warn!("an event for the bus {} is lost: there is only the default one", entry.bus_arn());
            return;
        }
        // Nobody listens while the stack is being stopped.
        drop(self.bus.send(event));
    }
}

impl Entry {
    fn size_bytes(&self) -> usize {
        let texts = [&self.source, &self.detail_type, &self.detail].into_iter().flatten().chain(&self.resources);
        let time = if self.time.is_some() { TIME_BYTES } else { 0 };
        time + texts.map(String::len).sum::<usize>()
    }

    fn bus_arn(&self) -> String {
        match self.event_bus_name.as_deref() {
            None | Some("") => bus_arn("default"),
            Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
            Some(name) => bus_arn(name),
        }
    }

    /// The event as the rules see it.
    fn event(&self) -> Result<Value, EntryError> {
        let required = |value: &Option<String>, name: &str| {
            value.clone().filter(|value| !value.is_empty()).ok_or_else(|| {
                ("InvalidArgument", format!("Parameter {name} is not valid. Reason: {name} is a required argument."))
            })
        };
        let source = required(&self.source, "Source")?;
        let detail_type = required(&self.detail_type, "DetailType")?;
        let detail = required(&self.detail, "Detail")?;
        if source.starts_with("aws.") {
            return Err(("NotAuthorizedForSourceException", "Not authorized for the source.".to_owned()));
        }
        let detail = serde_json::from_str::<Value>(&detail)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| ("MalformedDetail", "Detail is malformed.".to_owned()))?;
        let mut event = envelope(&source, &detail_type, &self.resources, &detail);
        if let Some(time) = self.time.and_then(timestamp) {
            event["time"] = json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        Ok(event)
    }
}

impl Refused {
    fn into_response(self) -> Response {
        json_1_1(StatusCode::BAD_REQUEST, &json!({ "__type": self.kind, "message": self.message }))
    }
}

fn invalid(message: String) -> Refused {
    Refused { kind: "ValidationException", message }
}

fn bus_arn(name: &str) -> String {
    account::arn("events", &format!("event-bus/{name}"))
}

fn timestamp(seconds: f64) -> Option<Timestamp> {
    let since = SignedDuration::try_from_secs_f64(seconds).ok()?;
    Timestamp::UNIX_EPOCH.checked_add(since).ok()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::{
        iam::{Role, Statement},
        wire::full,
    };

    struct Fixture {
        events: Events,
        bus: UnboundedReceiver<Value>,
    }

    fn fixture() -> Fixture {
        let statement = json!({
            "Effect": "Allow", "Action": "events:PutEvents", "Resource": account::arn("events", "event-bus/default"),
            "Condition": { "StringEquals": { "events:source": "gantry" } },
        });
        let role = Role {
            function: "Push".to_owned(),
            session: "gantry-Push".to_owned(),
            statements: vec![Statement::parse(&statement).unwrap()],
        };
        let (sender, bus) = unbounded_channel();
        Fixture { events: Events::new(Arc::new(Gate::new(vec![role])), sender), bus }
    }

    impl Fixture {
        async fn call(&self, caller: &Caller, operation: &str, input: &Value) -> (u16, Value) {
            let request = http::Request::post("/")
                .header("x-amz-target", format!("{TARGET}{operation}"))
                .body(full(input.to_string()))
                .unwrap();
            let response = self.events.handle(caller.clone(), request).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&body).unwrap())
        }
    }

    fn entry(source: &str) -> Value {
        json!({ "Source": source, "DetailType": "Image Released", "Detail": "{\"a\":1}" })
    }

    #[tokio::test]
    async fn an_accepted_event_is_on_the_bus_as_eventbridge_makes_it() {
        let mut fixture = fixture();
        let mut full = entry("gantry");
        full["Resources"] = json!(["arn:aws:ecr:us-east-1:123456789012:repository/team/app"]);
        full["Time"] = json!(1_795_472_400.25);
        full["EventBusName"] = json!("arn:aws:events:us-east-1:123456789012:event-bus/default");
        let input = json!({ "Entries": [full, entry("gantry")] });
        let (status, output) = fixture.call(&Caller::Role("Push".to_owned()), "PutEvents", &input).await;
        assert_eq!((status, &output["FailedEntryCount"]), (200, &json!(0)));
        let event = fixture.bus.try_recv().unwrap();
        assert_eq!(event["id"], output["Entries"][0]["EventId"]);
        assert_eq!(event["source"], "gantry");
        assert_eq!(event["detail-type"], "Image Released");
        assert_eq!(event["detail"], json!({ "a": 1 }));
        assert_eq!(event["account"], account::ID);
        assert_eq!(event["region"], account::REGION);
        assert_eq!(event["time"], "2026-11-23T22:20:00Z");
        assert_eq!(event["resources"][0], "arn:aws:ecr:us-east-1:123456789012:repository/team/app");
        assert_eq!(fixture.bus.try_recv().unwrap()["id"], output["Entries"][1]["EventId"]);
    }

    #[tokio::test]
    async fn entries_are_refused_one_by_one() {
        let mut fixture = fixture();
        let without = |field: &str| {
            let mut entry = entry("gantry");
            entry.as_object_mut().unwrap().remove(field);
            entry
        };
        let with = |field: &str, value: &str| {
            let mut entry = entry("gantry");
            entry[field] = json!(value);
            entry
        };
        let cases = [
            (without("Source"), Some("InvalidArgument")),
            (without("DetailType"), Some("InvalidArgument")),
            (without("Detail"), Some("InvalidArgument")),
            (with("Source", ""), Some("InvalidArgument")),
            (with("Source", "aws.ecr"), Some("NotAuthorizedForSourceException")),
            (with("Detail", "["), Some("MalformedDetail")),
            (with("Detail", "[]"), Some("MalformedDetail")),
            (with("EventBusName", "default"), None),
            (with("EventBusName", "other"), None),
        ];
        let entries: Vec<&Value> = cases.iter().map(|(entry, _)| entry).collect();
        let (status, output) = fixture.call(&Caller::User, "PutEvents", &json!({ "Entries": entries })).await;
        assert_eq!((status, &output["FailedEntryCount"]), (200, &json!(7)));
        for (number, (entry, want)) in cases.iter().enumerate() {
            let outcome = &output["Entries"][number];
            assert_eq!(outcome["ErrorCode"].as_str(), *want, "{entry}");
            assert_eq!(outcome["EventId"].is_string(), want.is_none(), "{entry}");
        }
        assert!(fixture.bus.try_recv().is_ok(), "the one for the default bus");
        assert!(fixture.bus.try_recv().is_err(), "and no other");
    }

    #[tokio::test]
    async fn a_refused_call_puts_nothing() {
        let mut fixture = fixture();
        let role = Caller::Role("Push".to_owned());
        let mut large = entry("gantry");
        large["Detail"] = json!(format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BYTES)));
        let other_bus = json!({ "Source": "gantry", "DetailType": "d", "Detail": "{}", "EventBusName": "other" });
        let cases = [
            (&Caller::User, "PutEvents", json!({ "Entries": [] }), "ValidationException"),
            (&Caller::User, "PutEvents", json!({ "Entries": vec![entry("gantry"); 11] }), "ValidationException"),
            (&Caller::User, "PutEvents", json!({ "Entries": [large] }), "ValidationException"),
            (&Caller::User, "PutEvents", json!({}), "SerializationException"),
            (&Caller::User, "PutRule", json!({}), "UnknownOperationException"),
            (&role, "PutEvents", json!({ "Entries": [entry("gantry"), entry("other")] }), "AccessDeniedException"),
            (&role, "PutEvents", json!({ "Entries": [other_bus] }), "AccessDeniedException"),
        ];
        for (caller, operation, input, want) in cases {
            let (status, output) = fixture.call(caller, operation, &input).await;
            assert_eq!((status, output["__type"].as_str()), (400, Some(want)), "{operation}");
        }
        assert!(fixture.bus.try_recv().is_err());
    }
}
