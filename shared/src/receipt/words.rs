//! What a receipt says in words: its `summary` and `next`.

use std::collections::BTreeMap;

use super::reaction::reaction_key;
use super::{Attempt, How, ImageReaction, ImageReceipt, ImportSection, Resent, State, UploadId};
use crate::image::Tag;
use crate::limits::RESENDS;
use crate::react::release::Hold;

/// The receipt's `summary` and `next`.
pub(super) fn in_words(
    state: State,
    upload: &UploadId,
    import: &ImportSection,
    reaction: &BTreeMap<String, ImageReaction>,
) -> (String, String) {
    let wait = || format!("docs/gantry-wait s3://{}/{}", upload.bucket, upload.key);
    let reason = || import.reason.as_ref();
    let text = || reason().map(|reason| reason.text.clone()).unwrap_or_default();
    let fix = || reason().map(|reason| reason.fix.clone()).unwrap_or_default();
    let names = import.images.iter().map(name).collect::<Vec<_>>().join(", ");
    let pull = || import.images.first().map(|image| format!("docker pull {}", image.uri)).unwrap_or_default();
    match state {
        State::Importing => {
            let Attempt { n, of } = import.attempt;
            if let Some(Resent { times, at }) = import.resent
                && at == import.updated_at
            {
                return (
                    format!("nothing was heard of it, and it was sent round again, time {times} of {RESENDS}"),
                    wait(),
                );
            }
            match reason() {
                Some(reason) => {
                    (format!("delivery {n} of {of} failed, and it is tried again: {}", reason.text), reason.fix.clone())
                }
                None => (format!("delivery {n} of {of} is importing it"), wait()),
            }
        }
        State::Imported => (format!("{names} is in ECR; verification or verdict is outstanding"), wait()),
        State::Released => (format!("{names} is in ECR and verified: {}", work(import)), pull()),
        State::Held => {
            let held = import.images.iter().find_map(|image| {
                let known = reaction.get(&reaction_key(&image.repository, image.digest))?;
                Some((name(image), known.release.held.as_ref()?))
            });
            let (image, Hold { text, fix, .. }) = match held {
                Some((image, reason)) => (image, reason.clone()),
                None => (names, Hold::unknown()),
            };
            (format!("{image} is in ECR and must not be used: {text}"), fix.replace('\n', " "))
        }
        State::Failed => (format!("nothing was tagged: {}", text()), fix()),
        State::Superseded => (format!("nothing was moved: {}", text()), wait()),
    }
}

pub(super) fn name(image: &ImageReceipt) -> String {
    let tags: Vec<&str> = image.tags.iter().map(Tag::as_str).collect();
    format!("{}:{}", image.repository, tags.join(","))
}

/// What was done, in a few words.
fn work(import: &ImportSection) -> String {
    let blobs = || import.images.iter().flat_map(|image| &image.blobs);
    let of = |how: How| blobs().filter(move |blob| blob.how == how);
    let sent_bytes: u64 = of(How::Sent).map(|blob| blob.size_bytes).sum();
    let (sent, kept) = (of(How::Sent).count(), of(How::Reused).count() + of(How::Mounted).count());
    if sent == 0 {
        "nothing had to be sent".to_owned()
    } else {
        format!("{sent} blobs ({sent_bytes} bytes) sent, {kept} reused")
    }
}
