//! A notice as people read it: what to do first, then what happened, where, and why. At most [`LINES`] lines.

use super::detail::listed;
use super::{Notice, VerdictDetail};
use crate::version::VERSION;

/// What fits on a phone's screen twice.
pub(super) const LINES: usize = 25;

/// The message's text.
pub(super) fn of(notice: &Notice, stack: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    match &notice.reason {
        Some(reason) if !reason.fix.is_empty() => lines.extend(reason.fix.lines().map(str::to_owned)),
        _ => lines.push("Nothing to do.".to_owned()),
    }
    lines.push(String::new());
    lines.push(notice.headline.clone());
    if let Some(reason) = &notice.reason {
        lines.extend(reason.text.lines().map(str::to_owned));
    }
    lines.push(String::new());
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{name:10} {value}"));
        }
    };
    if let Some(image) = &notice.image {
        fact("image", image.uri.clone());
        fact("tags", listed(&image.tags, ", "));
        fact("platforms", image.platforms.join(", "));
    }
    if let Some(upload) = &notice.upload {
        let version = upload.version_id.as_deref().map(|version| format!(" (version {version})"));
        fact("upload", format!("s3://{}/{}{}", upload.bucket, upload.key, version.unwrap_or_default()));
    }
    if let Some(verdict) = &notice.verdict {
        fact("verdict", format!("{} by policy {} since {}", verdict.outcome.as_str(), verdict.policy, verdict.since));
        fact("excepted", verdict.excepted.join(", "));
        fact("findings", counts(verdict));
    }
    if let Some(verdict) = &notice.verdict {
        // The last line is the stack's.
        let room = LINES.saturating_sub(lines.len() + 1);
        lines.extend(verdict.findings.iter().take(room).map(|finding| format!("  {finding}")));
    }
    lines.truncate(LINES - 1);
    lines.push(format!("{:10} {stack}, gantry {VERSION}", "stack"));
    lines.join("\n")
}

/// `2 critical, 3 high`, the worst first.
fn counts(verdict: &VerdictDetail) -> String {
    let mut counts: Vec<_> = verdict.counts.iter().filter(|(_, count)| **count > 0).collect();
    counts.sort_by_key(|(severity, _)| std::cmp::Reverse(severity.rank()));
    counts.iter().map(|(severity, count)| format!("{count} {severity}")).collect::<Vec<_>>().join(", ")
}
