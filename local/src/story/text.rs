//! Stories in words.

use gantry::receipt::{How, ImageReceipt};
use indicatif::HumanBytes;
use jiff::Timestamp;

use super::{Step, Story};

/// Prints to standard output.
#[expect(clippy::print_stdout, reason = "this is what the program was asked for")]
pub(crate) fn say(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// `team/app:1.4.2`, with every tag.
pub(crate) fn name(image: &ImageReceipt) -> String {
    let tags: Vec<&str> = image.tags.iter().map(gantry::image::Tag::as_str).collect();
    format!("{}:{}", image.repository, tags.join(","))
}

/// What was sent and what was not, in one phrase.
pub(crate) fn work(image: &ImageReceipt) -> String {
    let of = |how: How| image.blobs.iter().filter(move |blob| blob.how == how);
    let mut parts = Vec::new();
    let sent = of(How::Sent).count();
    if sent > 0 {
        let bytes = of(How::Sent).map(|blob| blob.size_bytes).sum();
        parts.push(format!("{} in {} sent", HumanBytes(bytes), blobs(sent)));
    }
    for (how, word) in [(How::Reused, "reused"), (How::Mounted, "mounted")] {
        let count = of(how).count();
        if count > 0 {
            parts.push(format!("{} {word}", blobs(count)));
        }
    }
    if sent == 0 {
        parts.push("nothing sent".to_owned());
    }
    parts.join(", ")
}

fn blobs(count: usize) -> String {
    if count == 1 { "1 blob".to_owned() } else { format!("{count} blobs") }
}

/// A delivery's time.
pub(crate) fn seconds(milliseconds: u64) -> String {
    let tenths = milliseconds.saturating_add(50) / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

/// The whole story of one upload.
pub(crate) fn tell(story: &Story) {
    say(format!("{:10} s3://{}/{}", story.state, story.bucket, story.key));
    say(format!("  {}", story.summary));
    for image in &story.images {
        say(format!("  {}", image.name));
        say(format!("    digest    {}", image.digest));
        if let Some(id) = image.image_id {
            say(format!("    image ID  {id}"));
        }
        if !image.platforms.is_empty() {
            say(format!("    platform  {}", image.platforms.join(", ")));
        }
        say(format!("    work      {}", image.work));
        for step in &image.steps {
            tell_step(step, "    ");
        }
    }
    if let Some(receipt) = &story.receipt {
        for left_out in &receipt.import.left_out {
            say(format!("  left out: {left_out}"));
        }
        for difference in &receipt.import.settings_differ {
            say(format!("  differs: {difference}"));
        }
    }
    for step in &story.steps {
        tell_step(step, "  ");
    }
    say(format!("  next: {}", story.next));
}

fn tell_step(step: &Step, indent: &str) {
    let at = step.at.map(|at| format!("  ({})", whole_seconds(at))).unwrap_or_default();
    say(format!("{indent}{:9} {}{at}", step.what, step.text));
}

/// As the receipts have it, without the fraction.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
