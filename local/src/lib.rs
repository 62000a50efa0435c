//! The program `gantry`: the whole pipeline on one machine, without AWS and without Docker.
//!
//! Each command is a module. All of them talk to a stack over the wire, as any client would: to the one that runs on
//! the data folder, or to one that they start for as long as they run.

pub mod cli;
pub mod samples;

mod demo;
mod import;
mod page;
mod place;
mod plan;
mod policy;
mod progress;
mod retry;
pub mod session;
mod status;
mod story;
mod up;
mod upload;
mod watch;
