//! Configuration: the environment that `template.yaml` gives a function, read once at start.
//!
//! What every function is told is [`CommonConfig`]; import, the reacting functions and reconcile have more of
//! their own.

mod import;
mod react;
mod read;
mod reconcile;

pub use import::{Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, ImportConfig, RepositorySettings};
pub use react::{ReactConfig, ReleaseGate};
pub use read::{CommonConfig, ConfigError, Mutability, QueueConfig, STACK_TAG, names_certificates};
pub use reconcile::ReconcileConfig;

#[cfg(test)]
mod tests;
