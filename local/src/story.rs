//! What became of an upload: as plain data ([`Story`]), and in words.

mod data;
mod stations;
mod text;

pub(crate) use data::{Step, Story};
pub(crate) use stations::{judged, stations, verified};
pub(crate) use text::{name, say, seconds, tell, work};
