//! The page of `up`: something to look at. It decides nothing, and shows what receipts, records and events already say.
//!
//! `board` is what is known of the uploads, `follow` keeps it up to date, `view` and `bar` make HTML of it, `serve` and
//! `put` answer the browser, and `file` makes one upload's page into one file.

mod bar;
mod board;
mod file;
mod follow;
mod put;
mod serve;
#[cfg(test)]
mod tests;
mod view;
mod words;

pub(crate) use board::Facts;
pub(crate) use file::write;
pub(crate) use follow::{Sources, follow};
pub(crate) use serve::{Page, PageError, Shown};
