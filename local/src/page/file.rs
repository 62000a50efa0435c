//! One upload's page as one file: no other resource, for a ticket or an archive.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry::uploads::Known;
use gantry::version::VERSION;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::bar::{bar, patterns};
use super::board::{Facts, Upload};
use super::{view, words};
use crate::cli::CommandError;
use crate::session::SessionError;

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("file.js");

/// Events of one upload that a page shows, the latest.
const SHOWN_EVENTS: usize = 50;

/// Writes the page of `known`, a stack's upload, to `path`. Events are asked for where they are kept: of a stack on this
/// machine, that listens at `endpoint`.
pub(crate) async fn write(known: Known, endpoint: Option<&str>, path: &Path) -> Result<(), CommandError> {
    let upload = Upload::from(known);
    let events = match endpoint {
        Some(endpoint) => told(endpoint, &upload).await?,
        None => Vec::new(),
    };
    let events = of_upload(events.iter(), &upload);
    let receipt = upload.receipt.as_ref();
    // Plain records always serialise.
    let text = receipt.map(|receipt| serde_json::to_string_pretty(receipt).unwrap_or_default());
    let stack = receipt.map(|receipt| receipt.stack.clone()).unwrap_or_default();
    let facts = Facts { stack, endpoint: String::new(), uploads: upload.bucket.clone() };
    let file = of_one(&facts, &upload, text.as_deref(), &events);
    let unwritable = |source| CommandError::Write { path: path.to_owned(), source };
    tokio::fs::write(path, file.html).await.map_err(unwritable)
}

/// What was told of `upload`; of all other events one line at a time is in memory.
async fn told(endpoint: &str, upload: &Upload) -> Result<Vec<Value>, SessionError> {
    let failed = |error| SessionError::request("asking for the events", error);
    let mut answer = reqwest::get(format!("{endpoint}/_emulator/messages")).await.map_err(failed)?;
    let (mut events, mut line) = (Vec::new(), Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        for byte in chunk {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let event: Option<Value> = serde_json::from_slice(&std::mem::take(&mut line)).ok();
            events.extend(event.filter(|event| is_of(event, upload)));
        }
    }
    Ok(events)
}

/// Whether `event` is about this version of an upload.
fn is_of(event: &Value, upload: &Upload) -> bool {
    let of = |name: &str| event.pointer(&format!("/detail/upload/{name}")).and_then(Value::as_str);
    of("key") == Some(upload.key.as_str())
        && (upload.version_id.is_none() || of("version_id") == upload.version_id.as_deref())
}

/// The events about this version of an upload, the latest of them, as they were sent.
pub(super) fn of_upload<'a>(events: impl Iterator<Item = &'a Value>, upload: &Upload) -> Vec<String> {
    let events: Vec<&Value> = events.filter(|event| is_of(event, upload)).collect();
    let shown = events.iter().skip(events.len().saturating_sub(SHOWN_EVENTS));
    shown.map(|event| serde_json::to_string_pretty(event).unwrap_or_default()).collect()
}

/// A page and the policy that it is to be served with; the policy stands in the page too.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) html: String,
    pub(crate) policy: String,
}

/// The page of `upload`.
pub(crate) fn of_one(facts: &Facts, upload: &Upload, receipt: Option<&str>, events: &[String]) -> File {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        hash(CSS),
        hash(JS)
    );
    let id = upload.id();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (upload.key) ": " (words::state(upload)) }
                style { (own(CSS)) }
            }
            body.file {
                (patterns())
                header {
                    h1 { "Gantry" }
                    p.facts {
                        span { "stack " b { (facts.stack) } }
                        span { (VERSION) }
                        span { "s3://" (facts.uploads) }
                    }
                }
                main {
                    article.(words::state(upload)) aria-labelledby=(format!("key-{id}")) {
                        (view::head(upload))
                        (view::what_to_do(upload))
                        @if let Some(receipt) = &upload.receipt { (view::images(&id, receipt)) }
                        (bar(upload))
                        (view::times(upload))
                        div.story { (view::story(receipt, events)) }
                    }
                }
                footer { span { "Times are UTC." } }
                script { (own(JS)) }
            }
        }
    };
    File { html: page.into_string(), policy }
}

/// A file of this program's own, which is not to be escaped: its hash is in the policy.
fn own(text: &'static str) -> Markup {
    PreEscaped(text.to_owned())
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}
