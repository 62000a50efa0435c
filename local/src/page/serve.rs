//! The page's own server: loopback only, read-only but for the drop zone, and for this page alone.
//!
//! It has a port of its own, and so an origin of its own: what lies in the buckets can never be a script of the page.
//! A request has to name this host (against DNS rebinding), and one that uploads has to come from the page itself.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use bytes::Bytes;
use emulator::sns::Topics;
use futures::stream;
use gantry::receipt::SUFFIX;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use maud::Markup;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Facts, Seen, Upload, id};
use super::{file, put, view};

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

/// Nothing but the page's own files; no inline script, style or handler, nobody frames it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Between two messages of the event stream: what changes meanwhile is told once.
const EVERY: Duration = Duration::from_millis(250);

/// Without news a comment goes out, so that a browser that is gone is noticed.
const SILENCE: Duration = Duration::from_secs(15);

/// Event streams at once: more browser windows than anybody has.
const STREAMS: usize = 32;

/// Bytes of a receipt that the page shows; the whole of it is in the bucket.
const SHOWN_BYTES: usize = 256 << 10;

/// An answer's body.
type Body = BoxBody<Bytes, io::Error>;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("port {port} of 127.0.0.1 cannot be opened for the page; choose another with --page-port")]
pub(crate) struct PageError {
    port: u16,
    source: io::Error,
}

/// The page of a stack.
#[derive(Debug)]
pub(crate) struct Page {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the page shows and what it uploads to.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) facts: Facts,
    pub(crate) board: Arc<Board>,
    pub(crate) s3: Client,
    pub(crate) topics: Arc<Topics>,
    /// The topic that events are read back from: it has the same as the bus.
    pub(crate) topic: String,
}

#[derive(Debug)]
struct Server {
    shown: Shown,
    hosts: [String; 2],
    streams: Arc<Semaphore>,
    uploads: Semaphore,
    closing: CancellationToken,
}

impl Page {
    /// Opens `port` on loopback; 0 for any free one.
    ///
    /// # Errors
    ///
    /// [`PageError`]
    pub(crate) async fn open(port: u16) -> Result<Self, PageError> {
        let failed = |source| PageError { port, source };
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until `closing`.
    pub(crate) async fn serve(self, shown: Shown, closing: CancellationToken) {
        let port = self.address.port();
        let server = Arc::new(Server {
            shown,
            hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}")],
            streams: Arc::new(Semaphore::new(STREAMS)),
            uploads: Semaphore::new(put::AT_ONCE),
            closing: closing.clone(),
        });
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = closing.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&server)))),
                // Out of file descriptors, most likely: a moment may free some.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>) {
    let closing = server.closing.clone();
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(guarded(server.answer(request).await)) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A browser that goes away is no error of ours.
        _ = connection => {}
        () = closing.cancelled() => {}
    }
}

/// What every answer says.
fn guarded(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    }
    for (name, value) in [
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if !self.is_for_us(request.headers()) {
            return text(StatusCode::MISDIRECTED_REQUEST, "this page answers to 127.0.0.1 and localhost only\n");
        }
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/") => html(view::page(&self.shown.facts, &self.shown.board.look(0))),
            (&Method::GET, "/page.css") => respond(StatusCode::OK, "text/css; charset=utf-8", CSS),
            (&Method::GET, "/page.js") => respond(StatusCode::OK, "text/javascript; charset=utf-8", JS),
            (&Method::GET, "/icon.svg") => respond(StatusCode::OK, "image/svg+xml", ICON),
            (&Method::GET, "/live") => self.live(&request),
            (&Method::GET, "/events") => {
                let lines: String =
                    self.events().iter().flat_map(|event| [event.to_string(), "\n".to_owned()]).collect();
                respond(StatusCode::OK, "application/x-ndjson", lines)
            }
            (&Method::POST, "/uploads") if !is_from_the_page(request.headers()) => {
                text(StatusCode::FORBIDDEN, "uploads come from the page itself, or from any client of the bucket\n")
            }
            (&Method::POST, "/uploads") => self.upload(request).await,
            (&Method::GET, path) => match path.strip_prefix("/uploads/") {
                Some(rest) => self.one(rest).await,
                None => text(StatusCode::NOT_FOUND, "there is no such page\n"),
            },
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "this page is for looking\n"),
        }
    }

    /// Whether the request names this host: a page elsewhere whose name leads here names itself.
    fn is_for_us(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host)))
    }

    /// The event stream. Each browser remembers the revision it has seen, so nothing is queued for a slow one.
    fn live(&self, request: &Request<Incoming>) -> Response<Body> {
        let Ok(place) = Arc::clone(&self.streams).try_acquire_owned() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        };
        let resumed = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        let asked = query(request, "since");
        let since = resumed.or(asked.as_deref()).and_then(|revision| revision.parse().ok()).unwrap_or(0);
        let state =
            (Arc::clone(&self.shown.board), self.shown.board.changes(), since, true, self.closing.clone(), place);
        let messages = stream::unfold(state, |(board, mut changes, since, first, closing, place)| async move {
            if !first && !news(&mut changes, &closing).await? {
                let comment = Ok(Frame::data(Bytes::from_static(b": still here\n\n")));
                return Some((comment, (board, changes, since, false, closing, place)));
            }
            let seen = board.look(since);
            let revision = seen.revision;
            let message = format!("id: {revision}\ndata: {}\n\n", message(&seen));
            Some((Ok(Frame::data(Bytes::from(message))), (board, changes, revision, false, closing, place)))
        });
        let mut answer = Response::new(StreamBody::new(messages).boxed());
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        answer
    }

    /// Every event of the stack, oldest first, as machines get them.
    fn events(&self) -> Vec<Value> {
        let messages = self.shown.topics.messages(&self.shown.topic).unwrap_or_default();
        messages.iter().filter_map(|message| serde_json::from_str(&message.text_for("sqs")).ok()).collect()
    }

    /// One upload: as a page, or what its row opens.
    async fn one(&self, rest: &str) -> Response<Body> {
        let (id, is_story) = rest.strip_suffix("/story").map_or((rest, false), |id| (id, true));
        let Some(upload) = self.shown.board.row(id) else {
            return text(
                StatusCode::NOT_FOUND,
                "that upload is not on the page any more; `gantry status KEY` tells it\n",
            );
        };
        let receipt = self.receipt(&upload).await;
        let events = file::of_upload(self.events().iter(), &upload);
        if is_story {
            return html(view::story(receipt.as_deref(), &events));
        }
        let file = file::of_one(&self.shown.facts, &upload, receipt.as_deref(), &events);
        let mut answer = respond(StatusCode::OK, "text/html; charset=utf-8", file.html);
        if let Ok(policy) = HeaderValue::from_str(&file.policy) {
            answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        answer
    }

    /// The receipt as it lies in the bucket, the beginning of one that is long.
    async fn receipt(&self, upload: &Upload) -> Option<String> {
        let key = format!("{}{SUFFIX}", upload.key);
        let get = self.shown.s3.get_object().bucket(&self.shown.facts.uploads).key(key).send().await.ok()?;
        let mut body = get.body;
        let mut bytes = Vec::new();
        while let Some(Ok(chunk)) = body.next().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > SHOWN_BYTES {
                bytes.truncate(SHOWN_BYTES);
                bytes.extend_from_slice("\n…".as_bytes());
                break;
            }
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file from the drop zone, on its way to the bucket.
    async fn upload(&self, request: Request<Incoming>) -> Response<Body> {
        let (file, name) = (query(&request, "file").unwrap_or_default(), query(&request, "as"));
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let Ok(_place) = self.uploads.acquire().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the page is closing\n");
        };
        let target = put::Target { s3: &self.shown.s3, bucket: &self.shown.facts.uploads };
        match put::stream(&target, &file, name.as_deref(), length, request.into_body()).await {
            Ok(key) => {
                let answer = json!({"key": key, "id": id(&key)}).to_string();
                respond(StatusCode::CREATED, "application/json", answer)
            }
            Err(error) => text(error.status(), format!("{}\n", gantry::disposition::chain(&error))),
        }
    }
}

/// Whether a browser sent it for this page: its origin is the host that was asked.
fn is_from_the_page(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    origin.is_some() && origin == text(header::HOST) && site.is_none_or(|site| site == "same-origin")
}

/// Waits for a change and then a moment for more; false if there was none for long, nothing when the page closes.
async fn news(changes: &mut watch::Receiver<u64>, closing: &CancellationToken) -> Option<bool> {
    tokio::select! {
        news = tokio::time::timeout(SILENCE, changes.changed()) => match news {
            Ok(Ok(())) => {
                tokio::time::sleep(EVERY).await;
                changes.borrow_and_update();
                Some(true)
            }
            Ok(Err(_)) => None,
            Err(_) => Some(false),
        },
        () = closing.cancelled() => None,
    }
}

fn message(seen: &Seen) -> Value {
    let rows = seen.rows.iter().map(|upload| {
        json!({
            "id": upload.id(), "order": upload.order, "key": upload.key, "state": super::words::state(upload),
            "html": view::row(upload).into_string(),
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({
        "flow": view::flow(seen.counts).into_string(), "more": view::more(seen.counts, super::board::ROWS),
        "oldest": seen.oldest, "rows": rows,
    })
}

fn query(request: &Request<Incoming>, name: &str) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn html(markup: Markup) -> Response<Body> {
    respond(StatusCode::OK, "text/html; charset=utf-8", markup.into_string())
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
