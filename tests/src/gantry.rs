//! `gantry` itself, built where the tests can name it.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    local::cli::run(local::cli::Cli::parse())
}
