//! What the network, AWS and the clock do to an import: every step with every fault, deaths in the middle, too little
//! time, peers that never answer, and crowds. Nothing is lost, nothing doubled, and no tag names what is not whole.
//!
//! `GANTRY_SEED` chooses other layers, places and orders; a failure names the seed it came with.

mod cells;
mod crash;
mod crowd;
mod deadline;
mod lab;
mod matrix;
mod order;
mod overtaken;
mod peers;

/// The function's process.
const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
