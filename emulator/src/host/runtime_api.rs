//! The Runtime API of one environment, on a port of its own.
//!
//! The Lambda developer guide, "Using the Lambda runtime API": the process asks for the next
//! invocation, which waits until there is one, and posts its answer or error.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc, oneshot, watch},
    task::JoinSet,
};

/// The largest answer of a synchronous invocation: 6 MB (Lambda quotas).
const MAX_ANSWER_BYTES: usize = 6 << 20;

type Response = http::Response<Full<Bytes>>;

/// One invocation on its way to the process.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) request_id: String,
    pub(super) payload: Bytes,
    pub(super) deadline: Timestamp,
    pub(super) function_arn: String,
    pub(super) trace_id: String,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// What the process posted.
#[derive(Debug)]
pub(super) enum Reply {
    /// The answer's bytes.
    Answer(Bytes),
    /// The error's JSON.
    Error(Bytes),
}

/// The server's side that the environment keeps. Dropping it closes the port.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    pub(super) address: SocketAddr,
    work: mpsc::Sender<Work>,
    ready: watch::Receiver<bool>,
    state: Arc<State>,
    _server: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    work: AsyncMutex<mpsc::Receiver<Work>>,
    pending: Mutex<HashMap<String, oneshot::Sender<Reply>>>,
    ready: watch::Sender<bool>,
    init_error: Mutex<Option<Bytes>>,
}

impl RuntimeApi {
    /// Opens a port on loopback.
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (work, receiver) = mpsc::channel(1);
        let (ready, is_ready) = watch::channel(false);
        let state = Arc::new(State {
            work: AsyncMutex::new(receiver),
            pending: Mutex::default(),
            ready,
            init_error: Mutex::default(),
        });
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { address, work, ready: is_ready, state, _server: server })
    }

    /// Waits until the process has asked for its first invocation.
    pub(super) async fn ready(&mut self) {
        // The sender lives in `state`, so this ends only when the process is ready.
        let _ready = self.ready.wait_for(|ready| *ready).await;
    }

    /// Hands an invocation to the process; `false` when the server is gone.
    pub(super) async fn hand_over(&self, work: Work) -> bool {
        self.work.send(work).await.is_ok()
    }

    /// What the process posted as its initialisation error.
    pub(super) fn init_error(&self) -> Option<Bytes> {
        self.state.init_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let state = Arc::clone(&state);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                });
                connections.spawn(async move {
                    // A process that ends closes its connection; nothing is lost by it.
                    let _closed = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl State {
    async fn answer(&self, request: http::Request<Incoming>) -> Response {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => self.next().await,
            (&Method::POST, ["2018-06-01", "runtime", "invocation", id, kind @ ("response" | "error")]) => {
                let Some(body) = read(request.into_body()).await else {
                    return respond(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
                };
                let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(*id);
                let Some(reply) = pending else {
                    return respond(StatusCode::BAD_REQUEST, UNKNOWN_ID);
                };
                // The invocation may have timed out in between.
                let _sent = reply.send(if *kind == "response" { Reply::Answer(body) } else { Reply::Error(body) });
                respond(StatusCode::ACCEPTED, r#"{"status":"OK"}"#)
            }
            (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => {
                let body = read(request.into_body()).await.unwrap_or_default();
                *self.init_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
                respond(StatusCode::ACCEPTED, r#"{"status":"OK"}"#)
            }
            _ => respond(StatusCode::NOT_FOUND, NOT_FOUND),
        }
    }

    async fn next(&self) -> Response {
        self.ready.send_replace(true);
        let Some(work) = self.work.lock().await.recv().await else {
            return respond(StatusCode::GONE, GONE);
        };
        let headers = [
            ("lambda-runtime-aws-request-id", work.request_id.clone()),
            ("lambda-runtime-deadline-ms", work.deadline.as_millisecond().to_string()),
            ("lambda-runtime-invoked-function-arn", work.function_arn),
            ("lambda-runtime-trace-id", work.trace_id),
        ];
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(work.request_id, work.reply);
        let mut response = respond(StatusCode::OK, work.payload);
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

const TOO_LARGE: &str =
    r#"{"errorType":"RequestEntityTooLarge","errorMessage":"Exceeded maximum allowed payload size."}"#;
const UNKNOWN_ID: &str = r#"{"errorType":"InvalidRequestID","errorMessage":"Invalid request ID"}"#;
const NOT_FOUND: &str = r#"{"errorType":"NotFound","errorMessage":"Unknown path"}"#;
const GONE: &str = r#"{"errorType":"Gone","errorMessage":"The environment ends"}"#;

async fn read(body: Incoming) -> Option<Bytes> {
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.ok()?;
    Some(body.to_bytes())
}

fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
