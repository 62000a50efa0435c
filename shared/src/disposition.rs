//! The one question that decides about retry.

use std::error::Error;
use std::fmt::Write as _;

/// Whether the same work could succeed later, with nothing changed about the upload.
///
/// Every error type has a `disposition()` with an exhaustive match, and nothing else in the program decides about
/// retry. Ordered so that the worst of several is their maximum: one transient failure keeps a message alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disposition {
    /// The upload's own fault (a bad archive, a refused name, a tag conflict): it would fail again.
    Permanent,
    /// Anything else, the operator's faults included (a denied action, a quota, a key): back to the queue.
    Transient,
}

/// An error and its sources in one line, outermost first, as people and logs read it.
///
/// Messages in this crate never contain their source, so nothing is said twice; sources of other crates that do
/// repeat themselves are skipped when what came before already ends with them.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            // Writing to a String cannot fail.
            write!(text, ": {cause_text}").ok();
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn a_chain_names_every_cause_once() {
        let cause = "x".parse::<u8>().unwrap_err();
        assert_eq!(chain(&Outer(cause)), "outer: invalid digit found in string");
    }

    #[test]
    fn the_worst_of_several_is_the_transient_one() {
        assert!(Disposition::Transient > Disposition::Permanent);
    }
}
