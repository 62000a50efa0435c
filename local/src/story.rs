//! Receipts in words.

use gantry::receipt::{How, ImageReaction, ImageReceipt, Receipt};
use indicatif::HumanBytes;

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

/// What was made of an image once it was in ECR.
fn tell_reaction(reaction: &ImageReaction) {
    if let Some(verification) = &reaction.verification {
        let outcome = if verification.passed { "passed" } else { "failed" };
        say(format!("    verified  {outcome}, {} blobs, {}", verification.blobs, verification.at));
    }
    if let Some(verdict) = &reaction.verdict {
        let reason = if verdict.reason.is_empty() { String::new() } else { format!(": {}", verdict.reason) };
        say(format!("    verdict   {} by policy {}{reason}", verdict.outcome.as_str(), verdict.policy));
    }
}

/// The whole story of one upload.
pub(crate) fn tell(receipt: &Receipt) {
    say(format!("{:10} s3://{}/{}", receipt.state.as_str(), receipt.upload.bucket, receipt.upload.key));
    say(format!("  {}", receipt.summary));
    for image in &receipt.import.images {
        say(format!("  {}", name(image)));
        say(format!("    digest    {}", image.digest));
        if let Some(id) = image.image_id {
            say(format!("    image ID  {id}"));
        }
        if !image.platforms.is_empty() {
            say(format!("    platform  {}", image.platforms.join(", ")));
        }
        say(format!("    work      {}", work(image)));
        if let Some(reaction) = receipt.reaction(&image.repository, image.digest) {
            tell_reaction(reaction);
        }
    }
    for left_out in &receipt.import.left_out {
        say(format!("  left out: {left_out}"));
    }
    for difference in &receipt.import.settings_differ {
        say(format!("  differs: {difference}"));
    }
    let attempt = receipt.import.attempt;
    say(format!(
        "  delivery {} of {}, {}, {}",
        attempt.n,
        attempt.of,
        receipt.import.updated_at,
        seconds(receipt.import.duration_ms)
    ));
    say(format!("  next: {}", receipt.next));
}
