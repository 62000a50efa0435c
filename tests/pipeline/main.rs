//! The whole pipeline: an upload, the real function process, and what is in the registry afterwards.

mod compressed;
mod good;
mod refused;
mod trouble;

/// The function's process.
const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
