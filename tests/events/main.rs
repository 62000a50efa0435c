//! The sample events in `events/in`: what each is read as, and what the functions' processes answer to it; and those in
//! `events/out`: what a stack tells.
//!
//! The former are what Lambda hands over, so that `sam local invoke -e` takes them as well.

mod answers;
mod docs;
mod reading;
mod rows;
mod sample;
mod schema;
mod told;
