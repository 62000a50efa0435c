//! One upload's page as one file: no other resource, for a ticket or an archive.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry::version::VERSION;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::bar::{bar, patterns};
use super::board::{Facts, Upload};
use super::{view, words};

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("file.js");

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
