//! One request: who calls, what goes wrong, which service answers.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::{io, sync::Arc};
use tokio::{
    sync::{broadcast, mpsc::UnboundedSender},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::trouble;
use crate::{
    ecr::Ecr,
    events::Events,
    faults::{FaultPlan, Operation, is_form},
    host::LogLine,
    iam::Gate,
    images::Images,
    registry::Registry,
    s3::S3,
    shape::{ConnectionShape, Direction, Shaper},
    sns::{self, Sns, SnsError, Topics},
    sqs::Sqs,
    wire::{Answer, Caller, Dropped, MAX_FORM_BYTES, Request, Response, full},
};

/// The services behind the port.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) s3: S3,
    pub(super) ecr: Ecr,
    pub(super) registry: Registry,
    pub(super) sqs: Sqs,
    pub(super) events: Events,
    pub(super) sns: Sns,
    pub(super) topics: Arc<Topics>,
    pub(super) images: Arc<Images>,
    pub(super) happening: UnboundedSender<Value>,
    pub(super) gate: Arc<Gate>,
    pub(super) faults: FaultPlan,
    pub(super) shaper: Shaper,
    pub(super) log: broadcast::Sender<LogLine>,
    pub(super) description: Value,
    pub(super) closing: CancellationToken,
}

/// Which service a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    S3,
    Registry,
    Ecr,
    Sqs,
    Events,
    Sns,
    Own,
    Unknown,
}

impl Service {
    fn of(operation: &Operation) -> Self {
        match operation.name.split_once(':') {
            Some(("s3", _)) => Self::S3,
            Some(("registry", _)) => Self::Registry,
            Some(("ecr", _)) => Self::Ecr,
            Some(("sqs", _)) => Self::Sqs,
            Some(("events", _)) => Self::Events,
            Some(("sns", _)) => Self::Sns,
            Some(("emulator", _)) => Self::Own,
            _ => Self::Unknown,
        }
    }
}

impl Core {
    /// Answers one request of a connection.
    pub(super) async fn answer(&self, request: http::Request<Incoming>, connection: &ConnectionShape) -> Answer {
        let mut operation = Operation::of(request.method(), request.uri(), request.headers());
        let caller = self.caller(request.uri(), request.headers());
        let mut request: Request = request.map(|body| body.map_err(io::Error::other).boxed_unsync());
        if operation.is_unnamed() {
            let (parts, body) = request.into_parts();
            let Ok(form) = Limited::new(body, MAX_FORM_BYTES).collect().await else {
                return Err(Dropped);
            };
            let form = form.to_bytes();
            operation.read_form(&form);
            request = Request::from_parts(parts, full(form));
        }
        let service = Service::of(&operation);
        let (id, action) = self.faults.meet(&operation, caller.as_ref());
        tracing::debug!(caller = ?caller, "{operation}");

        let shaped = caller
            .as_ref()
            .filter(|caller| **caller != Caller::User)
            .filter(|_| matches!(service, Service::S3 | Service::Registry));
        if let Some(caller) = shaped {
            sleep(self.shaper.first_byte()).await;
            if service == Service::Registry {
                let pace = |body| self.shaper.pace(body, caller, connection, Direction::Write);
                request = request.map(pace);
            }
        }

        let answer = match &action {
            None => self.route(service, &operation, caller.clone(), request).await,
            Some(action) => match trouble::before(action, request).await {
                Err(answer) => answer,
                Ok((request, cut)) => {
                    let answer = self.route(service, &operation, caller.clone(), request).await;
                    trouble::after(action, answer, &cut).await
                }
            },
        };
        if let Ok(response) = &answer {
            self.faults.answered(id, response.status().as_u16());
        }
        match shaped.filter(|_| service == Service::S3) {
            Some(caller) => {
                answer.map(|response| response.map(|body| self.shaper.pace(body, caller, connection, Direction::Read)))
            }
            None => answer,
        }
    }

    async fn route(&self, service: Service, operation: &Operation, caller: Option<Caller>, request: Request) -> Answer {
        match (service, caller) {
            (Service::S3, _) => self.s3.handle(request).await,
            (Service::Registry, _) => self.registry.handle(request).await,
            (Service::Sns, caller) => self.sns.handle(caller, request).await,
            (Service::Own, _) => Ok(self.own(&request)),
            (Service::Ecr, Some(caller)) => self.ecr.handle(caller, request).await,
            (Service::Sqs, Some(caller)) => self.sqs.handle(caller, request).await,
            (Service::Events, Some(caller)) => self.events.handle(caller, request).await,
            (Service::Ecr | Service::Events, None) => Ok(stranger("1.1", StatusCode::BAD_REQUEST, &request)),
            (Service::Sqs, None) => Ok(stranger("1.0", StatusCode::FORBIDDEN, &request)),
            (Service::Unknown, _) => {
                tracing::warn!("{} is not implemented", operation.name);
                if is_form(request.headers()) {
                    let action = operation.name.clone();
                    return Ok(sns::refuse(&SnsError::UnknownAction { action }));
                }
                Ok(refuse(
                    "1.1",
                    StatusCode::BAD_REQUEST,
                    "UnknownOperationException",
                    &format!("{} is not implemented by the embedded AWS", operation.name),
                ))
            }
        }
    }

    /// Who calls, by access key or registry password; signatures are the services' own matter.
    fn caller(&self, uri: &Uri, headers: &HeaderMap) -> Option<Caller> {
        let authorization = headers.get(header::AUTHORIZATION);
        if let Some(authorization) = authorization.and_then(|value| value.to_str().ok()) {
            if let Some(encoded) = authorization.strip_prefix("Basic ") {
                let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
                let (_, password) = decoded.split_once(':')?;
                return self.gate.caller_of_password(password);
            }
            return self.gate.caller_of(access_key_id(authorization)?);
        }
        let query = uri.query().unwrap_or_default();
        let (_, credential) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "X-Amz-Credential")?;
        self.gate.caller_of(credential.split('/').next()?)
    }
}

/// The access key id in a `SigV4` header: `AWS4-HMAC-SHA256 Credential=AKIA…/20260101/…, …`.
fn access_key_id(authorization: &str) -> Option<&str> {
    let (_, rest) = authorization.strip_prefix("AWS4-HMAC-SHA256")?.split_once("Credential=")?;
    rest.split('/').next()
}

/// The answer to a request without a credential, or with one that nobody has.
fn stranger(version: &str, status: StatusCode, request: &Request) -> Response {
    if request.headers().contains_key(header::AUTHORIZATION) {
        refuse(version, status, "UnrecognizedClientException", "The security token included in the request is invalid.")
    } else {
        refuse(version, status, "MissingAuthenticationTokenException", "Missing Authentication Token")
    }
}

fn refuse(version: &str, status: StatusCode, kind: &str, message: &str) -> Response {
    let body = json!({ "__type": kind, "message": message });
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(&format!("application/x-amz-json-{version}")) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_keys_are_found_in_signed_requests() {
        let cases = [
            (
                "AWS4-HMAC-SHA256 Credential=AKIA1/20260101/us-east-1/ecr/aws4_request, SignedHeaders=host, Signature=0",
                Some("AKIA1"),
            ),
            ("AWS4-HMAC-SHA256 SignedHeaders=host,Credential=AKIA2/x", Some("AKIA2")),
            ("Bearer Credential=AKIA3/x", None),
            ("", None),
        ];
        for (authorization, want) in cases {
            assert_eq!(access_key_id(authorization), want, "{authorization}");
        }
    }
}
