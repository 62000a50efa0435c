//! One line of the log for each step of an upload: what the dashboard's tables are made from.

use super::{How, Receipt};

/// The target of the lines, by which the dashboard's queries choose them.
pub const TARGET: &str = "gantry::upload";

/// Says where the upload is now. Fields have plain names, and none is nested: CloudWatch Logs Insights reads a dot as
/// the way into an object.
pub(super) fn step(receipt: &Receipt) {
    let Receipt { state, summary, next, upload, import, .. } = receipt;
    let image = import.images.first();
    let blobs = || import.images.iter().flat_map(|image| &image.blobs);
    let reused_bytes: u64 = blobs().filter(|blob| blob.how != How::Sent).map(|blob| blob.size_bytes).sum();
    tracing::info!(
        target: "gantry::upload",
        key = upload.key,
        version = upload.version_id,
        state = state.as_str(),
        kind = import.reason.as_ref().map(|reason| reason.kind.as_str()),
        image = image.map(super::words::name),
        digest = image.map(|image| tracing::field::display(image.digest)),
        began = %import.started_at,
        upload_bytes = import.size_bytes,
        read_bytes = import.layers.map(|layers| layers.read_bytes),
        sent_bytes = import.layers.map(|layers| layers.sent_bytes),
        reused_bytes,
        duration_ms = import.duration_ms,
        summary,
        next,
        "upload"
    );
}
