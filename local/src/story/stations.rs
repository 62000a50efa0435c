//! The stations of an upload, each with what was done there and how long it took.

use gantry::react::Verdict;
use gantry::receipt::{ImageReaction, Receipt};
use jiff::Timestamp;

use super::text::{seconds, work};

/// One line for each station that the upload has passed in this order: import, and for each image verification, verdict
/// and release. The times of the last three count from the end of the import; an image that was there before has none.
pub(crate) fn stations(receipt: &Receipt) -> Vec<(&'static str, String)> {
    let import = &receipt.import;
    let mut lines = Vec::new();
    for image in &import.images {
        lines.push(("import", format!("{}, in {}", work(image), seconds(import.duration_ms))));
        let Some(reaction) = receipt.reaction(&image.repository, image.digest) else { continue };
        let after = |at: Timestamp| later(import.updated_at, at);
        if let Some(verification) = &reaction.verification {
            lines.push(("verify", format!("{}{}", verified(Some(reaction)), after(verification.at))));
        }
        if let Some(verdict) = &reaction.verdict {
            lines.push(("judge", format!("{}{}", in_words(verdict), after(verdict.since))));
        }
        if let Some(since) = reaction.release.since {
            lines.push(("release", format!("it may be used{}", after(since))));
        }
    }
    lines
}

fn later(from: Timestamp, at: Timestamp) -> String {
    match u64::try_from(at.duration_since(from).as_millis()) {
        Ok(milliseconds) => format!(", {} after the import", seconds(milliseconds)),
        Err(_) => String::new(),
    }
}

/// What was found when the image was read back.
pub(crate) fn verified(reaction: Option<&ImageReaction>) -> String {
    match reaction.and_then(|reaction| reaction.verification.as_ref()) {
        None => "not read back yet".to_owned(),
        Some(found) => match found.failures.first() {
            None => format!("read back whole, {} blobs", found.blobs),
            Some(check) => format!("{}: wanted {}, found {}", check.what, check.wanted, check.found),
        },
    }
}

/// What the policy says of what the scan found.
pub(crate) fn judged(reaction: Option<&ImageReaction>) -> String {
    reaction.and_then(|reaction| reaction.verdict.as_ref()).map_or("no verdict yet".to_owned(), in_words)
}

fn in_words(verdict: &Verdict) -> String {
    let counts: Vec<String> =
        verdict.counts.iter().rev().map(|(severity, count)| format!("{count} {}", severity.as_str())).collect();
    let findings = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
    format!("{} by policy {}, {findings}", verdict.outcome.as_str(), verdict.policy)
}
