//! How an import looks while it runs: a bar for each layer on a terminal, a line for each finished one elsewhere.

use std::collections::HashMap;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::watch::{BlobStep, Step};

/// Bars for at most this many blobs at once; the finished ones make room.
const NAME_WIDTH: usize = 28;

/// The bars of one import.
pub(crate) struct Bars {
    all: MultiProgress,
    open: HashMap<usize, ProgressBar>,
    /// Whether anybody sees bars; otherwise finished blobs are lines.
    drawn: bool,
}

impl Bars {
    /// On standard error, so that standard output stays clean for what is asked for.
    pub(crate) fn new() -> Self {
        let all = MultiProgress::new();
        let drawn = !all.is_hidden();
        Self { all, open: HashMap::new(), drawn }
    }

    /// Shows one step.
    pub(crate) fn show(&mut self, step: Step) {
        match step {
            Step::Blob(blob) if self.drawn => self.draw(&blob),
            Step::Blob(blob) if blob.how != "sending" => line(&finished(&blob)),
            Step::Blob(_) => {}
            Step::Again(summary) | Step::Waiting(summary) => {
                let text = format!("  {summary}");
                if self.drawn {
                    self.all.println(text).ok();
                } else {
                    line(&text);
                }
            }
        }
    }

    fn draw(&mut self, blob: &BlobStep) {
        let bar = self.open.entry(blob.at).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(blob.entry_bytes));
            // The template is constant, and parses.
            if let Ok(style) = ProgressStyle::with_template(
                "  {prefix:28} [{bar:24}] {bytes:>11} of {total_bytes:11} {bytes_per_sec:>13} {msg}",
            ) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(shortened(&blob.entry));
            bar
        });
        bar.set_position(blob.read_bytes);
        if blob.how == "sending" {
            bar.set_message(format!("{} sent", HumanBytes(blob.sent_bytes)));
        } else {
            let text = finished(blob);
            bar.finish_and_clear();
            self.all.println(text).ok();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.all.clear().ok();
    }
}

/// The line of a blob that is done.
fn finished(blob: &BlobStep) -> String {
    let done = match blob.how.as_str() {
        "sent" => format!("{} read, {} sent", HumanBytes(blob.read_bytes), HumanBytes(blob.sent_bytes)),
        how => format!("{how}: nothing read, nothing sent"),
    };
    format!("  {:>3} of {:<3} {:28} {done}", blob.at + 1, blob.of, shortened(&blob.entry))
}

/// Digests in paths are long; their beginning is enough.
fn shortened(entry: &str) -> String {
    let entry = entry.strip_prefix("blobs/sha256/").unwrap_or(entry);
    let mut short: String = entry
        .split('/')
        .map(|part| if part.len() > 16 { part.chars().take(12).collect::<String>() + "…" } else { part.to_owned() })
        .collect::<Vec<_>>()
        .join("/");
    if short.chars().count() > NAME_WIDTH {
        short = short.chars().take(NAME_WIDTH - 1).collect::<String>() + "…";
    }
    short
}

#[expect(clippy::print_stderr, reason = "progress is for people")]
fn line(text: &str) {
    eprintln!("{text}");
}
