//! The sample events in `events/in`: what each is read as, and what the functions' processes answer to it.
//!
//! They are what Lambda hands over, so that `sam local invoke -e` takes them as well.

mod answers;
mod reading;
mod rows;
mod sample;
