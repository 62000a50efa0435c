//! What happens once an image is in ECR.

pub mod verify;

pub use verify::{Check, Verification, verify};
