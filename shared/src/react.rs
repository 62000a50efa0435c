//! What happens once an image is in ECR: verified, judged, tagged, released, and told of.
//!
//! [`Reactor::look`] is the whole of it. It reads what is true now, writes down what it found, and does what is left to
//! do; it may be called any number of times, in any order, by several processes at once. Events only say when.

pub mod facts;
pub mod findings;
pub mod floating;
pub mod policy;
pub mod release;
pub mod severity;
pub mod verdict;
pub mod verify;

mod error;
mod judge;
mod look;
mod sweep;
mod tagging;
mod tell;

pub use error::ReactError;
pub use facts::Facts;
pub use look::{Clients, Look, Looked, Reactor};
pub use release::ImageRelease;
pub use sweep::{Sweep, Swept};
pub use verdict::Verdict;
pub use verify::{Check, Verification, Verified, verify};
