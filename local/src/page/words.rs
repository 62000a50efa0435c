//! Receipts in the words of the page.

use gantry::receipt::{ImageReaction, ImageReceipt, Receipt, State};
use indicatif::HumanBytes;
use jiff::Timestamp;

use super::board::Upload;
use crate::story::seconds;

/// What became of it, in one word; also the class of its row.
pub(super) fn state(upload: &Upload) -> &'static str {
    upload.state().map_or("waiting", State::as_str)
}

/// What happened, in one sentence. A held upload's begins with its image, a failed one's with why.
pub(super) fn sentence(upload: &Upload) -> String {
    match &upload.receipt {
        Some(receipt) => receipt.summary.clone(),
        None => "uploaded; no delivery has begun yet".to_owned(),
    }
}

/// What to do, one line for each way.
pub(super) fn next(upload: &Upload) -> Vec<String> {
    let Some(receipt) = &upload.receipt else { return Vec::new() };
    let held = receipt.reaction.values().find_map(|reaction| reaction.release.held.as_ref());
    match held.filter(|_| receipt.state == State::Held) {
        Some(held) => held.fix.lines().map(str::to_owned).collect(),
        None => vec![receipt.next.clone()],
    }
}

/// Bytes in and sent, and how long it took.
pub(super) fn work(upload: &Upload) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(bytes) = upload.size_bytes {
        parts.push(format!("{} in", HumanBytes(bytes)));
    }
    let Some(receipt) = &upload.receipt else { return parts };
    let live: u64 = upload.live.values().map(|step| step.sent_bytes).sum();
    let sent = match receipt.import.layers {
        Some(layers) if receipt.state != State::Importing => Some(layers.sent_bytes),
        layers => (live > 0).then_some(live).or(layers.map(|layers| layers.sent_bytes)),
    };
    if let Some(bytes) = sent {
        parts.push(format!("{} sent", HumanBytes(bytes)));
    }
    if receipt.state != State::Importing {
        parts.push(seconds(receipt.import.duration_ms));
    }
    parts
}

/// The stations that it has passed, with their times, in their order.
pub(super) fn times(upload: &Upload) -> Vec<(&'static str, Timestamp)> {
    let mut stations = Vec::new();
    stations.extend(upload.uploaded_at.map(|at| ("uploaded", at)));
    let Some(receipt) = &upload.receipt else { return stations };
    let import = &receipt.import;
    stations.push(("import began", import.started_at));
    match receipt.state {
        State::Importing => {}
        State::Failed => stations.push(("failed", import.updated_at)),
        State::Superseded => stations.push(("superseded", import.updated_at)),
        State::Imported | State::Released | State::Held => stations.push(("imported", import.updated_at)),
    }
    let reactions = || import.images.iter().filter_map(|image| reaction(receipt, image));
    let last = |times: Vec<Timestamp>| times.into_iter().max();
    let verified = reactions().filter_map(|one| one.verification.as_ref()).map(|one| one.at).collect();
    stations.extend(last(verified).map(|at| ("verified", at)));
    let judged = reactions().filter_map(|one| one.verdict.as_ref()).map(|one| one.since).collect();
    stations.extend(last(judged).map(|at| ("judged", at)));
    if receipt.state == State::Released {
        let released = reactions().filter_map(|one| one.release.since).collect();
        stations.extend(last(released).map(|at| ("released", at)));
    }
    stations
}

/// `15:51:20`
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// `2026-11-12`
pub(super) fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// What was made of an image.
pub(super) fn reaction<'a>(receipt: &'a Receipt, image: &ImageReceipt) -> Option<&'a ImageReaction> {
    receipt.reaction(&image.repository, image.digest)
}
