//! The page as HTML. `maud` escapes every value; nothing here is marked as escaped already.

use gantry::receipt::{ImageReceipt, Receipt, State};
use gantry::version::VERSION;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::bar::{bar, patterns};
use super::board::{Counts, Facts, ROWS, Seen, Upload};
use super::words;
use crate::story::{judged, name, verified};

/// Images that a row names; a row has to fit on a screen.
const IMAGES: usize = 4;

/// The whole page.
pub(super) fn page(facts: &Facts, seen: &Seen) -> Markup {
    let copy_to = format!("s3://{}/team/my-app/1.4.2.tar", facts.uploads);
    let command = format!("aws --endpoint-url {} s3 cp my-app.tar {copy_to}", facts.endpoint);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Gantry: " (facts.stack) }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/page.css";
                script src="/page.js" defer {}
            }
            body data-revision=(seen.revision) data-rows=(ROWS) {
                (patterns())
                header {
                    h1 { "Gantry" }
                    p.facts {
                        span { "stack " b { (facts.stack) } }
                        span { (VERSION) }
                        span { (facts.endpoint) }
                    }
                    p #live .live { "as of now; reload for more" }
                }
                main {
                    section.drop #drop aria-labelledby="drop-title" {
                        h2 #drop-title { "Drop an image tarball" }
                        p.hint { "From docker save, podman, skopeo, kaniko, bazel or nix; compressed or not." }
                        div.choose.scripted hidden {
                            label.button for="file" { "Choose files" }
                            input #file type="file" multiple;
                            label.as for="as" { "as" }
                            input #as type="text" placeholder="team/my-app:1.4.2" autocomplete="off" spellcheck="false"
                                aria-describedby="as-hint";
                            span.hint #as-hint { "or leave it empty for the archive’s own name" }
                        }
                        div.line {
                            code #command { (command) }
                            (copy("command", &command))
                        }
                        ul #sending .sending aria-label="Uploads on their way" {}
                    }
                    div #flow { (flow(seen.counts)) }
                    p #said .quiet role="status" {}
                    section.uploads aria-labelledby="uploads-title" {
                        h2 #uploads-title { "Uploads" }
                        ol #rows { @for upload in &seen.rows { li #(format!("li-{}", upload.id())) data-order=(upload.order) { (row(upload)) } } }
                        p.none { "Nothing has been uploaded yet. Drop a file above." }
                        p #more .hint { (more(seen.counts, ROWS)) }
                    }
                }
                footer {
                    a href="/events" { "Events as JSON lines" }
                    span { "Times are UTC." }
                }
            }
        }
    }
}

/// What the page leaves out.
pub(super) fn more(counts: Counts, rows: usize) -> String {
    let Counts { waiting, importing, imported, released, held, failed, superseded } = counts;
    let all = waiting + importing + imported + released + held + failed + superseded;
    match all.saturating_sub(rows) {
        0 => String::new(),
        more => format!("And {more} older uploads; `gantry status` lists those that are not released."),
    }
}

/// The flow with its counts.
pub(super) fn flow(counts: Counts) -> Markup {
    let Counts { waiting, importing, imported, released, held, failed, superseded } = counts;
    let stations = [
        ("waiting", waiting, "uploaded", "uploaded, and no delivery has begun"),
        ("importing", importing, "importing", "being read and sent to ECR"),
        ("imported", imported, "imported", "in ECR; verification or verdict is outstanding"),
        ("released", released, "released", "verified, and allowed: deploy it"),
    ];
    let beside = [
        ("held", held, "held", "in ECR, and must not be used"),
        ("failed", failed, "failed", "nothing was tagged"),
        ("superseded", superseded, "superseded", "a newer upload of the same key won"),
    ];
    let station = |(class, count, word, title): (&str, usize, &str, &str)| {
        html! {
            li.(class).empty[count == 0] title=(title) { b { (count) } span { (word) } }
        }
    };
    html! {
        ol.flow aria-label="Where the uploads are" { @for one in stations { (station(one)) } }
        ul.beside aria-label="Uploads that need a person, or that were overtaken" { @for one in beside { (station(one)) } }
    }
}

/// One upload.
pub(super) fn row(upload: &Upload) -> Markup {
    let id = upload.id();
    let state = words::state(upload);
    html! {
        article.(state) #(id) aria-labelledby=(format!("key-{id}")) {
            (head(upload))
            (what_to_do(upload))
            @if let Some(receipt) = &upload.receipt { (images(&id, receipt)) }
            (bar(upload))
            (times(upload))
            details.story data-story=(format!("/uploads/{id}/story")) {
                summary { "Receipt and events" }
                div data-keep="" { a href=(format!("/uploads/{id}")) { "Open them as one page" } }
            }
        }
    }
}

/// State, key, and the work in numbers.
pub(super) fn head(upload: &Upload) -> Markup {
    html! {
        div.head {
            span.state { (words::state(upload)) }
            h3 #(format!("key-{}", upload.id())) { (upload.key) }
            ul.work { @for part in words::work(upload) { li { (part) } } }
        }
    }
}

/// For what needs a person, what to do comes first; for all others one sentence.
pub(super) fn what_to_do(upload: &Upload) -> Markup {
    let sentence = words::sentence(upload);
    let next = words::next(upload);
    let failing = upload.receipt.as_ref().is_some_and(|receipt| receipt.import.reason.is_some());
    match upload.state() {
        Some(State::Held | State::Failed) => html! {
            div.todo {
                @for (at, line) in next.iter().enumerate() { p { @if at == 0 { b { "What to do: " } } (line) } }
                p.why { (sentence) }
                (findings(upload))
            }
        },
        Some(State::Importing) if failing => html! {
            div.todo { p.why { (sentence) } @for line in &next { p { (line) } } }
        },
        Some(State::Released) => html! {},
        _ => html! { p.sentence { (sentence) } },
    }
}

fn findings(upload: &Upload) -> Markup {
    let Some(receipt) = &upload.receipt else { return html! {} };
    let verdicts = receipt.reaction.values().filter_map(|reaction| reaction.verdict.as_ref());
    let findings: Vec<_> = verdicts.flat_map(|verdict| &verdict.top).take(gantry::limits::TOP_FINDINGS).collect();
    html! {
        @if !findings.is_empty() {
            ul.findings aria-label="Findings" {
                @for finding in findings {
                    li {
                        b { (finding.severity.as_str()) } " " (finding.id)
                        @if let Some(package) = &finding.package { " in " (package) }
                        @if let Some(version) = &finding.version { " " (version) }
                        @if let Some(fixed) = &finding.fixed_in { ", fixed in " (fixed) }
                    }
                }
            }
        }
    }
}

/// Each image: its name, its digest, what verification and scan say.
pub(super) fn images(id: &str, receipt: &Receipt) -> Markup {
    let all = &receipt.import.images;
    html! {
        @for (at, image) in all.iter().take(IMAGES).enumerate() { (one_image(&format!("{id}-{at}"), receipt, image)) }
        @if all.len() > IMAGES { p.hint { "and " (all.len() - IMAGES) " more images" } }
    }
}

fn one_image(id: &str, receipt: &Receipt, image: &ImageReceipt) -> Markup {
    let reaction = words::reaction(receipt, image);
    let digest = image.digest.to_string();
    let repository = image.uri.rsplit_once(':').map_or(image.uri.as_str(), |(repository, _)| repository);
    let pinned = format!("{repository}@{digest}");
    let short: String = digest.chars().take(19).collect();
    html! {
        dl.image {
            div.name {
                dt { "image" }
                dd { code #(format!("image-{id}")) { (name(image)) } (copy_text(&image.uri, "Copy the image’s name", "Copy name")) }
            }
            div {
                dt { "digest" }
                dd { code title=(digest) { (short) "…" } (copy_text(&pinned, "Copy the image by its digest", "Copy digest")) }
            }
            @if !image.platforms.is_empty() { div { dt { "runs on" } dd { (image.platforms.join(", ")) } } }
            div { dt { "verified" } dd { (verified(reaction)) } }
            div { dt { "scan" } dd { (judged(reaction)) } }
        }
    }
}

/// One line of times.
pub(super) fn times(upload: &Upload) -> Markup {
    let times = words::times(upload);
    html! {
        @if let Some((_, first)) = times.first() {
            ol.times aria-label="When" {
                li.day { (words::day(*first)) }
                @for (station, at) in &times { li { (station) " " (time(*at)) } }
            }
        }
    }
}

fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) title=(at) { (words::clock(at)) } }
}

fn copy(of: &str, text: &str) -> Markup {
    copy_text(text, &format!("Copy the {of}"), "Copy")
}

/// A button that copies; without scripts it stays hidden.
pub(super) fn copy_text(text: &str, label: &str, word: &str) -> Markup {
    html! { button.copy.scripted type="button" data-copy=(text) aria-label=(label) hidden { (word) } }
}

/// The receipt and the events as they were sent.
pub(super) fn story(receipt: Option<&str>, events: &[String]) -> Markup {
    html! {
        h4 { "Receipt" }
        @match receipt {
            Some(receipt) => pre tabindex="0" { (receipt) },
            None => p.hint { "There is none yet." },
        }
        h4 { "Events" }
        @if events.is_empty() { p.hint { "None were told, or none are kept here." } }
        @for event in events { pre tabindex="0" { (event) } }
    }
}
