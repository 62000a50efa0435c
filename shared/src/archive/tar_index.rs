//! Where every file of a tar archive lies, by path.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::image::Digest;
use crate::limits;

/// First bytes of a file kept from the walk, to tell compressed layers from plain ones without another read; the
/// longest magic number, xz's, has six.
pub(super) const MAGIC_BYTES: usize = 6;

/// The first bytes of a file, zeros behind a shorter one.
pub type Magic = [u8; MAGIC_BYTES];

/// A file's bytes in the archive; where that is compressed, in what it decompresses to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The entry that holds them, normalised; not the link that led here.
    pub path: String,
    /// Where the body begins.
    pub offset: u64,
    /// Its length.
    pub size_bytes: u64,
    /// Its first bytes, unless the walk's window ended there.
    pub magic: Option<Magic>,
    /// The bytes themselves, where they are small and could not be read again without decoding everything before
    /// them, or where they are of our own making.
    pub content: Option<Bytes>,
    /// Their hash, where the walk had to pass over them anyway and somebody will ask.
    pub hash: Option<Digest>,
}

impl Extent {
    /// Bytes that are in no archive: a config or blob that is made from what the archive says.
    pub(super) fn made(path: &str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let size_bytes = content.len() as u64;
        Self { path: path.to_owned(), offset: 0, size_bytes, magic: None, content: Some(content), hash: None }
    }

    /// Where the bytes lie.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size_bytes)
    }
}

/// What an [`Extent`] says but for its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) size_bytes: u64,
    pub(super) magic: Option<Magic>,
    #[serde(with = "super::stored::content")]
    pub(super) content: Option<Bytes>,
    pub(super) hash: Option<Digest>,
}

/// What kind of entry a header announces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    File(Place),
    /// A hard link's target counts from the root.
    HardLink(String),
    /// A symbolic link's target counts from the link's folder.
    SymLink(String),
    Folder,
    /// Holes are not stored, so its bytes are not the file's.
    Sparse,
    Device,
}

/// Every entry of an archive by path; of several with one path the last counts, as when tar extracts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TarIndex {
    entries: HashMap<String, Entry>,
    /// How many headers there were, duplicates included.
    count: usize,
    /// Bytes of all [`Place::content`].
    kept_bytes: u64,
    /// Where the archive ended, when no block of zeros closed it: some writers leave that out, and a copy that was
    /// cut off between two entries looks the same.
    pub(super) open_end: Option<u64>,
}

impl TarIndex {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The paths, in no order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is an entry of this path, of whatever kind.
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// The file under `path`, links followed; what stands in the way otherwise.
    ///
    /// # Errors
    ///
    /// `None` when there is no such entry; else why the entry is no file with bytes.
    pub fn file(&self, path: &str) -> Result<Extent, Option<String>> {
        let mut path = normalised(path).ok_or(None)?;
        let asked = path.clone();
        for _ in 0..limits::LINK_DEPTH {
            let target = match self.entries.get(&path) {
                Some(Entry::File(place)) => {
                    let Place { offset, size_bytes, magic, content, hash } = place.clone();
                    return Ok(Extent { path, offset, size_bytes, magic, content, hash });
                }
                Some(Entry::HardLink(target)) => normalised(target),
                Some(Entry::SymLink(target)) => beside(&path, target),
                Some(Entry::Folder) => return Err(Some("it is a folder".to_owned())),
                Some(Entry::Sparse) => {
                    return Err(Some("it is a sparse file; write the tar without --sparse".to_owned()));
                }
                Some(Entry::Device) => return Err(Some("it is a device or a pipe".to_owned())),
                None if path == asked => return Err(None),
                None => return Err(Some(format!("it links to {path:?}, which is not there"))),
            };
            path = target.ok_or_else(|| Some(format!("{path:?} links out of the archive")))?;
        }
        Err(Some(format!("more than {} links follow one another", limits::LINK_DEPTH)))
    }

    /// Takes an entry in; one of the same path that came before is forgotten.
    pub(super) fn insert(&mut self, path: &str, entry: Entry) {
        self.count = self.count.saturating_add(1);
        // What lies outside the archive's root can be named by nothing in it.
        let Some(path) = normalised(path).filter(|path| !path.is_empty()) else { return };
        self.kept_bytes = self.kept_bytes.saturating_add(kept_bytes(&entry));
        if let Some(before) = self.entries.insert(path, entry) {
            self.kept_bytes = self.kept_bytes.saturating_sub(kept_bytes(&before));
        }
        if self.kept_bytes > limits::KEPT_JSON_BYTES {
            self.forget_the_largest();
        }
    }

    /// Makes room: manifests and configs are small, and what is large is seldom one of them. A quarter is freed at
    /// once, so that the sorting pays.
    fn forget_the_largest(&mut self) {
        let mut places: Vec<&mut Place> = self
            .entries
            .values_mut()
            .filter_map(|entry| match entry {
                Entry::File(place) if place.content.is_some() => Some(place),
                _ => None,
            })
            .collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.size_bytes));
        for place in places {
            if self.kept_bytes <= limits::KEPT_JSON_BYTES / 4 * 3 {
                return;
            }
            self.kept_bytes = self.kept_bytes.saturating_sub(place.size_bytes);
            place.content = None;
        }
    }
}

fn kept_bytes(entry: &Entry) -> u64 {
    match entry {
        Entry::File(place) => place.content.as_ref().map_or(0, |content| content.len() as u64),
        _ => 0,
    }
}

/// A path without `.`, empty components or a leading slash; `None` when `..` leaves the root.
pub(super) fn normalised(path: &str) -> Option<String> {
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop()?;
            }
            _ => components.push(component),
        }
    }
    Some(components.join("/"))
}

/// What `target`, written in the link `path`, points to.
fn beside(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return normalised(target);
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    normalised(&format!("{folder}/{target}"))
}
