//! The stack's own paths below `/_emulator/`.

use std::io;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{dispatch::Core, record::Published};
use crate::{
    host::LogLine,
    template::Template,
    wire::{Request, Response, full},
};

/// What `GET /_emulator/stack` answers: the content of `stack.json`, and names by logical id.
pub(super) fn description(endpoint: &str, template: &Template) -> Value {
    let buckets: Map<String, Value> =
        template.buckets.iter().map(|(logical_id, bucket)| (logical_id.clone(), json!(bucket.name))).collect();
    let queues: Map<String, Value> =
        template.queues.iter().map(|(logical_id, queue)| (logical_id.clone(), json!(queue.url))).collect();
    let topics: Map<String, Value> =
        template.topics.iter().map(|(logical_id, topic)| (logical_id.clone(), json!(topic.arn))).collect();
    let functions: Vec<&String> = template.functions.keys().collect();
    let mut description = json!(Published::new(endpoint));
    description["functions"] = json!(functions);
    description["buckets"] = buckets.into();
    description["queues"] = queues.into();
    description["topics"] = topics.into();
    description
}

impl Core {
    /// Answers one of the stack's own paths; they ask for no credential.
    pub(super) fn own(&self, request: &Request) -> Response {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/_emulator/stack") => {
                respond(StatusCode::OK, "application/json", full(self.description.to_string()))
            }
            (&Method::GET, "/_emulator/log") => {
                let lines = follow(self.log.subscribe(), self.closing.clone());
                respond(StatusCode::OK, "application/x-ndjson", lines)
            }
            (&Method::GET, "/_emulator/messages") => {
                respond(StatusCode::OK, "application/x-ndjson", full(self.topics.machine_texts()))
            }
            (&Method::POST, "/_emulator/rescan") => self.rescan(request.uri().query().unwrap_or_default()),
            (_, path) => respond(StatusCode::NOT_FOUND, "text/plain", full(format!("there is no {path}\n"))),
        }
    }
}

impl Core {
    /// `POST /_emulator/rescan?repository=R&image=TAG-OR-DIGEST`: for whoever has edited the findings.
    fn rescan(&self, query: &str) -> Response {
        let field = |name: &str| {
            let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        match self.images.rescan(&field("repository"), &field("image")) {
            Ok(events) => {
                let count = events.len();
                for event in events {
                    // Nobody listens while the stack is being stopped.
                    drop(self.happening.send(event));
                }
                respond(StatusCode::OK, "application/json", full(json!({ "events": count }).to_string()))
            }
            Err(error) => respond(StatusCode::BAD_REQUEST, "text/plain", full(format!("{error}\n"))),
        }
    }
}

/// Log lines as they come, one JSON object a line, until the stack stops.
fn follow(lines: Receiver<LogLine>, closing: CancellationToken) -> crate::wire::Body {
    let lines = stream::unfold((lines, closing), |(mut lines, closing)| async move {
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                () = closing.cancelled() => return None,
            };
            let line = match line {
                Ok(line) => line,
                // The reader is slow: it misses some.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return None,
            };
            let text = serde_json::to_string(&line)
                .map(|text| Frame::data(Bytes::from(text + "\n")))
                .map_err(io::Error::other);
            return Some((text, (lines, closing)));
        }
    });
    StreamBody::new(lines).boxed_unsync()
}

fn respond(status: StatusCode, kind: &'static str, body: crate::wire::Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
