//! The upload bucket as a whole: which uploads lie in it, how each of them stands, and sending one round again.
//!
//! An upload is a key that is neither a folder nor a receipt; what counts is its current version. How it stands is what
//! the receipt beside it says, if that speaks of this version.

mod failed;
mod list;
mod queue;
mod reconcile;

pub use failed::FailedQueue;
pub use list::{Known, Listed, Page, Uploads};
pub use queue::{ImportQueue, QueueState, Why};
pub use reconcile::{Parts, ReconcileError, Reconciled, Reconciler};
