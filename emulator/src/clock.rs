//! The wall clock, read in this one place.

use jiff::Timestamp;

/// The wall clock's time now.
#[expect(
    clippy::disallowed_methods,
    reason = "an emulated service stamps what it stores with the real time; this is the one place that reads it"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}
