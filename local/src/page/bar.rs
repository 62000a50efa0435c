//! The bar of an upload: one segment for each blob, as wide as its bytes.
//!
//! How a blob got to ECR is told by colour and by pattern (plain, striped, dotted), and in words: no one of them is
//! needed. Segments are SVG with geometry in attributes, which a strict content security policy lets pass.

use std::collections::BTreeSet;

use gantry::receipt::{How, ImportOutcome, State};
use indicatif::HumanBytes;
use maud::{Markup, html};

use super::board::Upload;

/// Segments at most; of more blobs the smallest are drawn as one for each way.
const SEGMENTS: usize = 40;

/// The narrowest segment, in hundredths of the bar: one that cannot be seen says nothing.
const NARROWEST: f64 = 0.6;

/// How a segment is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Sent,
    Reused,
    Mounted,
    /// So much of it was read, in hundredths.
    Sending(u8),
    /// Not begun, or its size is not known yet.
    Waiting,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Reused => "reused",
            Self::Mounted => "mounted",
            Self::Sending(_) => "being sent",
            Self::Waiting => "to come",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Reused => "reused",
            Self::Mounted => "mounted",
            Self::Sending(_) => "sending",
            Self::Waiting => "waiting",
        }
    }

    fn fill(self) -> Option<&'static str> {
        match self {
            Self::Reused => Some("url(#reused)"),
            Self::Mounted => Some("url(#mounted)"),
            Self::Sent | Self::Sending(_) | Self::Waiting => None,
        }
    }
}

#[derive(Debug, Clone)]
struct Segment {
    way: Way,
    bytes: u64,
    /// Blobs that it stands for.
    blobs: usize,
}

impl From<How> for Way {
    fn from(how: How) -> Self {
        match how {
            How::Sent => Self::Sent,
            How::Reused => Self::Reused,
            How::Mounted => Self::Mounted,
        }
    }
}

/// The patterns that bars refer to; once in a page.
pub(super) fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                pattern id="reused" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.ground-reused width="6" height="6" {}
                    rect.line-reused width="2.5" height="6" {}
                }
                pattern id="mounted" width="6" height="6" patternUnits="userSpaceOnUse" {
                    rect.ground-mounted width="6" height="6" {}
                    circle.line-mounted cx="3" cy="3" r="1.4" {}
                }
            }
        }
    }
}

/// The bar and its legend; nothing before the first byte.
pub(super) fn bar(upload: &Upload) -> Markup {
    let segments = shortened(segments(upload));
    if segments.is_empty() {
        return html! {};
    }
    let words = in_words(&segments);
    let widths = widths(&segments);
    let begins = widths.iter().scan(0.0, |next, width| Some(std::mem::replace(next, *next + width)));
    let begins: Vec<f64> = begins.collect();
    html! {
        div.bar {
            svg width="100%" height="14" role="img" aria-label=(format!("Layers by size: {}", plain(&words))) {
                @for ((segment, width), at) in segments.iter().zip(&widths).zip(begins) {
                    rect.(segment.way.class()) x=(percent(at)) width=(percent(*width)) height="100%"
                        fill=[segment.way.fill()] {
                        title { (title(segment)) }
                    }
                    @if let Way::Sending(done) = segment.way {
                        rect.sent x=(percent(at)) width=(percent(width * f64::from(done) / 100.0)) height="100%" {}
                    }
                }
            }
            ul.legend {
                @for (way, text) in &words {
                    li { span.key.(way.class()) aria-hidden="true" {} (text) }
                }
            }
        }
    }
}

fn plain(words: &[(Way, String)]) -> String {
    words.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(", ")
}

fn percent(hundredths: f64) -> String {
    format!("{hundredths:.2}%")
}

fn title(segment: &Segment) -> String {
    let what = if segment.blobs == 1 { String::new() } else { format!("{} blobs, ", segment.blobs) };
    let done = match segment.way {
        Way::Sending(done) => format!(", {done} % read"),
        _ => String::new(),
    };
    format!("{what}{} {}{done}", HumanBytes(segment.bytes), segment.way.word())
}

/// `3 sent, 12 MiB`, for each way there is.
fn in_words(segments: &[Segment]) -> Vec<(Way, String)> {
    let same = |one: Way, other: Way| one.class() == other.class();
    [Way::Sent, Way::Sending(0), Way::Reused, Way::Mounted, Way::Waiting]
        .into_iter()
        .filter_map(|way| {
            let of: Vec<&Segment> = segments.iter().filter(|segment| same(segment.way, way)).collect();
            let bytes: u64 = of.iter().map(|segment| segment.bytes).sum();
            let blobs: usize = of.iter().map(|segment| segment.blobs).sum();
            let size = HumanBytes(bytes);
            match way {
                _ if of.is_empty() => None,
                Way::Waiting => Some((way, format!("{size} to come"))),
                _ => Some((way, format!("{blobs} {}, {size}", way.word()))),
            }
        })
        .collect()
}

/// In hundredths of the bar; together 100.
fn widths(segments: &[Segment]) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a share of a picture's width")]
    let share = |bytes: u64, of: u64| if of == 0 { 1.0 } else { bytes as f64 / of as f64 };
    let total = segments.iter().map(|segment| segment.bytes).sum();
    let wide: Vec<f64> = segments.iter().map(|segment| (share(segment.bytes, total) * 100.0).max(NARROWEST)).collect();
    let sum: f64 = wide.iter().sum();
    wide.into_iter().map(|width| width * 100.0 / sum).collect()
}

/// What the receipt says once import is done, and before that what the progress records say.
fn segments(upload: &Upload) -> Vec<Segment> {
    let import = upload.receipt.as_ref().map(|receipt| &receipt.import);
    if let Some(import) = import.filter(|import| import.outcome == ImportOutcome::Imported) {
        let mut seen = BTreeSet::new();
        let blobs = import.images.iter().flat_map(|image| &image.blobs).filter(|blob| seen.insert(blob.digest));
        return blobs.map(|blob| Segment { way: blob.how.into(), bytes: blob.size_bytes, blobs: 1 }).collect();
    }
    let mut segments: Vec<Segment> = upload.live.values().map(of_step).collect();
    let is_over = upload.state().is_some_and(State::is_final);
    if !segments.is_empty() && !is_over {
        let known: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let rest = upload.size_bytes.unwrap_or(0).saturating_sub(known);
        if upload.live.len() < upload.blobs && rest > 0 {
            segments.push(Segment { way: Way::Waiting, bytes: rest, blobs: upload.blobs - upload.live.len() });
        }
    }
    segments
}

fn of_step(step: &crate::watch::BlobStep) -> Segment {
    let done = || {
        let hundredths = step.read_bytes.saturating_mul(100) / step.entry_bytes.max(1);
        u8::try_from(hundredths.min(100)).unwrap_or(100)
    };
    let way = match step.how.as_str() {
        "sent" => Way::Sent,
        "reused" => Way::Reused,
        "mounted" => Way::Mounted,
        _ => Way::Sending(done()),
    };
    Segment { way, bytes: step.entry_bytes, blobs: 1 }
}

/// The largest stay; the others become one for each way.
fn shortened(segments: Vec<Segment>) -> Vec<Segment> {
    if segments.len() <= SEGMENTS {
        return segments;
    }
    let mut by_size: Vec<usize> = (0..segments.len()).collect();
    by_size.sort_by_key(|at| std::cmp::Reverse(segments.get(*at).map(|segment| segment.bytes)));
    let largest: BTreeSet<usize> = by_size.into_iter().take(SEGMENTS).collect();
    let (kept, small): (Vec<_>, Vec<_>) = segments.into_iter().enumerate().partition(|(at, _)| largest.contains(at));
    let mut kept: Vec<Segment> = kept.into_iter().map(|(_, segment)| segment).collect();
    let mut rest: Vec<Segment> = Vec::new();
    for (_, segment) in small {
        match rest.iter_mut().find(|one| one.way.class() == segment.way.class()) {
            Some(one) => {
                one.bytes += segment.bytes;
                one.blobs += segment.blobs;
            }
            None => rest.push(segment),
        }
    }
    kept.extend(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_shares_and_nothing_is_invisible() {
        let segment = |bytes| Segment { way: Way::Sent, bytes, blobs: 1 };
        for (bytes, narrowest) in [(vec![1_u64, 1 << 40], 0.5), (vec![0, 0], 49.0), (vec![5; 300], 0.3)] {
            let widths = widths(&bytes.iter().copied().map(segment).collect::<Vec<_>>());
            assert!((widths.iter().sum::<f64>() - 100.0).abs() < 1e-6, "{bytes:?}");
            assert!(widths.iter().all(|width| *width > narrowest), "{bytes:?}: {widths:?}");
        }
    }

    #[test]
    fn many_blobs_are_few_segments_and_none_is_lost() {
        let way = |at: u64| if at.is_multiple_of(2) { Way::Sent } else { Way::Reused };
        let many: Vec<Segment> = (0..1_000).map(|at| Segment { way: way(at), bytes: at % 7, blobs: 1 }).collect();
        let bytes: u64 = many.iter().map(|segment| segment.bytes).sum();
        let few = shortened(many);
        assert_eq!(few.len(), SEGMENTS + 2);
        assert_eq!(few.iter().map(|segment| segment.blobs).sum::<usize>(), 1_000);
        assert_eq!(few.iter().map(|segment| segment.bytes).sum::<u64>(), bytes);
        assert_eq!(shortened(few.clone()[..10].to_vec()).len(), 10);
    }
}
