//! The registry HTTP API (`/v2`), as ECR speaks it.
//!
//! Every oddity here is ECR's, as its users have reported it: 201 where others answer
//! 202, a `Range` that sticks at the first chunk, no `Location` for a manifest, a connection that is
//! dropped when an upload names a repository that does not exist.

mod blobs;
mod manifests;
mod problem;
mod route;
#[cfg(test)]
mod tests;
mod uploads;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    iam::Gate,
    images::{self, Images, ImagesError},
    registry::{
        problem::{Failure, Problem},
        route::Route,
        uploads::Sessions,
    },
    wire::{Answer, Body, Caller, Dropped, Request, Response, full},
};

/// How much of a refused request's body is read before the answer: a client that is still sending
/// would see a broken connection instead of the refusal.
const DRAIN_BYTES: usize = 32 << 20;

/// The registry HTTP API over an image store.
#[derive(Debug)]
pub struct Registry {
    images: Arc<Images>,
    gate: Arc<Gate>,
    events: UnboundedSender<Value>,
    sessions: Sessions,
}

/// What of a request the handlers need besides its body.
#[derive(Debug)]
struct Call {
    caller: Caller,
    parts: Parts,
}

impl Call {
    fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    fn query(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.parts.uri.query()?.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// `http://HOST` as the client knows it.
    fn origin(&self) -> String {
        format!("http://{}", self.header(header::HOST).unwrap_or_default())
    }
}

impl Registry {
    /// Speaks for `images`; pushed images are announced to `events` as `ECR Image Action`.
    pub fn new(images: Arc<Images>, gate: Arc<Gate>, events: UnboundedSender<Value>) -> Self {
        let sessions = Sessions::default();
        Self { images, gate, events, sessions }
    }

    /// Answers one request below `/v2`, or below `/_blobs/`, where downloads are redirected to.
    ///
    /// Who calls is found from the password, which `GetAuthorizationToken` gave out.
    ///
    /// # Errors
    ///
    /// [`Dropped`] for an upload to a repository that does not exist, and when a body breaks off.
    pub async fn handle(&self, request: Request) -> Answer {
        let (parts, mut body) = request.into_parts();
        let route = Route::parse(parts.uri.path());
        if let Route::Download(digest) = &route {
            return blobs::download(&self.images, &parts, digest);
        }
        let Some(caller) = self.caller(&parts.headers) else {
            drain(body).await;
            return Ok(unauthorized(&parts.headers));
        };
        let call = Call { caller, parts };
        match self.answer(&call, &route, &mut body).await {
            Ok(response) => Ok(response),
            Err(Failure::Dropped) => Err(Dropped),
            Err(Failure::Problem(problem)) => {
                drain(body).await;
                Ok(problem.into_response())
            }
        }
    }

    async fn answer(&self, call: &Call, route: &Route, body: &mut Body) -> Result<Response, Failure> {
        match (&call.parts.method, route) {
            (&Method::GET, Route::Base) => {
                let mut response = json_response("{}");
                response
                    .headers_mut()
                    .insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
                Ok(response)
            }
            (&Method::HEAD | &Method::GET, Route::Blob { repository, digest }) => self.blob(call, repository, digest),
            (&Method::POST, Route::Uploads { repository }) => self.start(call, repository),
            (&Method::PATCH, Route::Upload { repository, id }) => self.append(call, repository, id, body).await,
            (&Method::PUT, Route::Upload { repository, id }) => self.commit(call, repository, id, body).await,
            (&Method::HEAD | &Method::GET, Route::Manifest { repository, reference }) => {
                self.manifest(call, repository, reference)
            }
            (&Method::PUT, Route::Manifest { repository, reference }) => {
                self.put_manifest(call, repository, reference, body).await
            }
            (&Method::GET, Route::Tags { repository }) => self.tags(call, repository),
            (&Method::GET, Route::Referrers { repository, digest }) => self.referrers(call, repository, digest),
            // ECR knows no upload status.
            (&Method::GET, Route::Upload { .. }) | (_, Route::Unknown) => {
                Err(Problem::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "The operation is unsupported.").into())
            }
            (method, _) => {
                let path = call.parts.uri.path();
                tracing::warn!(%method, path, "registry operation is not supported by ECR");
                Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "The operation is unsupported.").into())
            }
        }
    }

    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(token.trim()).ok()?).ok()?;
        let password = decoded.strip_prefix("AWS:")?;
        self.gate.caller_of_password(password)
    }

    /// Asks whether the caller may do `action` on `repository`, whose tags are condition keys.
    fn authorize(&self, call: &Call, action: &str, repository: &str) -> Result<(), Problem> {
        let context = self.images.read(repository, images::Repository::context).unwrap_or_default();
        let resource = images::repository_arn(repository);
        self.gate
            .check(&call.caller, action, &resource, &context)
            .map_err(|denied| Problem::new(StatusCode::FORBIDDEN, "DENIED", &denied.to_string()))
    }

    fn exists(&self, repository: &str) -> Result<(), Problem> {
        self.images.read(repository, |_| ()).map_err(|error| of_store(&error))
    }
}

/// A JSON answer.
fn json_response(json: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(full(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What ECR answers when the store has no such repository, or failed.
fn of_store(error: &ImagesError) -> Problem {
    match error {
        ImagesError::NoRepository(name) => {
            Problem::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", &images::no_repository(name))
        }
        ImagesError::Exists(_) | ImagesError::Io(_) | ImagesError::Damaged { .. } => {
            tracing::error!(?error, "the image store failed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "Internal error")
        }
    }
}

/// ECR's plain-text 401.
fn unauthorized(headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut response = Response::new(full("Not Authorized\n"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let realm = format!("Basic realm=\"http://{host}/\",service=\"ecr.amazonaws.com\"");
    let headers = response.headers_mut();
    if let Ok(realm) = HeaderValue::try_from(realm) {
        headers.insert(header::WWW_AUTHENTICATE, realm);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    response
}

async fn drain(mut body: Body) {
    let mut left = DRAIN_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, bytes::Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => break,
        }
    }
}
