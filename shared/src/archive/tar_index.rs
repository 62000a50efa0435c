//! Where every file of a tar archive lies, found by reading headers and skipping bodies.
//!
//! An archive is a row of 512-byte header blocks, each followed by its file's bytes padded to 512 (POSIX.1-2017
//! pax, "ustar Interchange Format"). The crate `tar` parses the headers; the walking is ours, so a 10 GiB archive
//! costs a few small ranged reads for each file in it.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use tar::{EntryType, Header, PaxExtensions};

use super::ArchiveError;
use crate::limits;
use crate::object::{Source, read_exact};

/// A header, and the unit that bodies are padded to.
const BLOCK_BYTES: u64 = 512;

/// First bytes of a body kept from the walk, to tell compressed layers from plain ones without another read.
const MAGIC_BYTES: u64 = 6;

/// A file's bytes in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The entry that holds them, normalised; not the link that led here.
    pub path: String,
    /// Where the body begins.
    pub offset: u64,
    /// Its length.
    pub size_bytes: u64,
    /// Its first bytes: up to six, fewer where the walk's window ended.
    pub magic: Bytes,
}

impl Extent {
    /// Where the bytes lie.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size_bytes)
    }
}

#[derive(Debug, Clone)]
enum Entry {
    File(Extent),
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
#[derive(Debug, Clone, Default)]
pub struct TarIndex {
    entries: HashMap<String, Entry>,
    /// How many headers there were, duplicates included.
    count: usize,
}

impl TarIndex {
    /// Walks the whole archive. Requests are proportional to the files larger than a window, and memory to the
    /// number of entries.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]: not a tar, damaged, cut off, or over a limit (permanent); unreadable (as the object says).
    pub async fn read(source: &impl Source) -> Result<Self, ArchiveError> {
        Walk::new(source).run().await
    }

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
    pub fn file(&self, path: &str) -> Result<&Extent, Option<String>> {
        let mut path = normalised(path).ok_or(None)?;
        let asked = path.clone();
        for _ in 0..limits::LINK_DEPTH {
            let target = match self.entries.get(&path) {
                Some(Entry::File(extent)) => return Ok(extent),
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

    /// The one folder that everything lies in, where there is one: people tar the folder instead of its content.
    pub fn wrapping_folder(&self) -> Option<&str> {
        let mut files = self.entries.iter().filter(|(_, entry)| !matches!(entry, Entry::Folder));
        let (folder, _) = files.next()?.0.split_once('/')?;
        files.all(|(path, _)| path.split_once('/').is_some_and(|(first, _)| first == folder)).then_some(folder)
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        self.count += 1;
        // What lies outside the archive's root can be named by nothing in it.
        if let Some(path) = normalised(path)
            && !path.is_empty()
        {
            self.entries.insert(path, entry);
        }
    }
}

/// A path without `.`, empty components or a leading slash; `None` when `..` leaves the root.
fn normalised(path: &str) -> Option<String> {
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

/// What extension headers say of the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size_bytes: Option<u64>,
    sparse: bool,
}

struct Walk<'a, S> {
    source: &'a S,
    window: Bytes,
    window_start: u64,
    index: TarIndex,
    previous: Option<String>,
}

impl<'a, S: Source> Walk<'a, S> {
    fn new(source: &'a S) -> Self {
        Self { source, window: Bytes::new(), window_start: 0, index: TarIndex::default(), previous: None }
    }

    async fn run(mut self) -> Result<TarIndex, ArchiveError> {
        let length = self.source.length_bytes();
        if length == 0 {
            return Err(ArchiveError::Empty);
        }
        let mut offset = 0;
        let mut extended = Extended::default();
        while offset < length {
            let block = self.bytes(offset..offset.saturating_add(BLOCK_BYTES)).await?;
            if offset == 0 {
                refuse_other_kinds(&block)?;
            }
            if block.len() < 512 {
                return Err(self.truncated("a header", offset, offset.saturating_add(BLOCK_BYTES)));
            }
            if block.iter().all(|byte| *byte == 0) {
                return Ok(self.index);
            }
            offset = self.entry(offset, &block, &mut extended).await?;
        }
        // Some writers leave out the closing zero blocks. If a file was cut off just here, what names it is missing
        // too, and that is refused later.
        Ok(self.index)
    }

    /// Takes in the entry whose header is `block` at `offset`; where the next header is.
    async fn entry(&mut self, offset: u64, block: &Bytes, extended: &mut Extended) -> Result<u64, ArchiveError> {
        let header = Header::from_byte_slice(block);
        let bad =
            |previous: &Option<String>, source| ArchiveError::BadHeader { offset, previous: previous.clone(), source };
        check_sum(block, header).map_err(|source| bad(&self.previous, source))?;
        let written_bytes = header.entry_size().map_err(|source| bad(&self.previous, source))?;
        let kind = header.entry_type();
        let is_extension = matches!(
            kind,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        );

        let mut body = offset.saturating_add(BLOCK_BYTES);
        if kind.is_gnu_sparse() {
            body = self.after_sparse_map(body, header).await?;
        }
        let size_bytes = if is_extension { written_bytes } else { extended.size_bytes.unwrap_or(written_bytes) };
        let path = match extended.path.take() {
            Some(path) if !is_extension => path,
            kept => {
                extended.path = kept;
                String::from_utf8_lossy(&header.path_bytes()).into_owned()
            }
        };
        let end = body.checked_add(size_bytes).filter(|end| *end <= self.source.length_bytes());
        let Some(end) = end else {
            return Err(self.truncated(&path, offset, body.saturating_add(size_bytes)));
        };
        let next = body.saturating_add(size_bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES));

        if is_extension {
            self.extension(kind, body..end, extended).await?;
            return Ok(next);
        }
        let extended = std::mem::take(extended);
        let link = extended.link.unwrap_or_else(|| {
            header.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned()).unwrap_or_default()
        });
        let entry = match kind {
            _ if extended.sparse || kind.is_gnu_sparse() => Entry::Sparse,
            EntryType::Link => Entry::HardLink(link),
            EntryType::Symlink => Entry::SymLink(link),
            EntryType::Directory => Entry::Folder,
            EntryType::Char | EntryType::Block | EntryType::Fifo => Entry::Device,
            // A v7 archive has no type for folders: their names end in a slash.
            _ if path.ends_with('/') => Entry::Folder,
            _ => {
                let magic = self.in_window(body..end.min(body.saturating_add(MAGIC_BYTES)));
                let path = normalised(&path).unwrap_or_default();
                Entry::File(Extent { path, offset: body, size_bytes, magic })
            }
        };
        self.index.insert(&path, entry);
        if self.index.count > limits::ARCHIVE_ENTRIES {
            return Err(ArchiveError::OverLimit {
                what: "the number of entries".to_owned(),
                offset,
                found: self.index.count as u64,
                limit: limits::ARCHIVE_ENTRIES as u64,
            });
        }
        self.previous = Some(path);
        Ok(next)
    }

    /// Reads a pax record set or a GNU long name.
    async fn extension(
        &mut self,
        kind: EntryType,
        body: Range<u64>,
        extended: &mut Extended,
    ) -> Result<(), ArchiveError> {
        let size = body.end - body.start;
        if size > limits::HEADER_EXTENSION_BYTES {
            return Err(ArchiveError::OverLimit {
                what: "an extended header".to_owned(),
                offset: body.start,
                found: size,
                limit: limits::HEADER_EXTENSION_BYTES,
            });
        }
        let bytes = self.bytes(body).await?;
        let text = || {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
        };
        match kind {
            EntryType::GNULongName => extended.path = Some(text()),
            EntryType::GNULongLink => extended.link = Some(text()),
            // Global headers carry comments (git's commit, for one); no writer of images puts paths there.
            EntryType::XHeader => {
                for record in PaxExtensions::new(&bytes).flatten() {
                    let value = String::from_utf8_lossy(record.value_bytes()).into_owned();
                    match record.key() {
                        Ok("path") => extended.path = Some(value),
                        Ok("linkpath") => extended.link = Some(value),
                        Ok("size") => extended.size_bytes = value.parse().ok(),
                        Ok(key) if key.starts_with("GNU.sparse.") => extended.sparse = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Skips the blocks that continue the map of an old GNU sparse file; each says in byte 504 whether another
    /// follows, as the header itself does in byte 482.
    async fn after_sparse_map(&mut self, mut offset: u64, header: &Header) -> Result<u64, ArchiveError> {
        let mut more = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        while more {
            let block = self.bytes(offset..offset.saturating_add(BLOCK_BYTES)).await?;
            more = block.get(504).is_some_and(|flag| *flag != 0);
            offset = offset.saturating_add(BLOCK_BYTES);
        }
        Ok(offset)
    }

    /// The bytes of `range`, as far as the archive goes, through a window read ahead.
    async fn bytes(&mut self, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        let end = range.end.min(self.source.length_bytes());
        let range = range.start.min(end)..end;
        let window_end = self.window_start.saturating_add(self.window.len() as u64);
        if range.start < self.window_start || range.end > window_end {
            let ahead = range.start.saturating_add(limits::HEADER_WINDOW_BYTES);
            let wanted = range.start..ahead.max(range.end).min(self.source.length_bytes());
            self.window_start = wanted.start;
            self.window = read_exact(self.source, wanted).await?;
        }
        Ok(self.in_window(range))
    }

    /// What the window holds of `range`.
    fn in_window(&self, range: Range<u64>) -> Bytes {
        let at = |offset: u64| {
            let inside = offset.saturating_sub(self.window_start);
            usize::try_from(inside).unwrap_or(usize::MAX).min(self.window.len())
        };
        self.window.slice(at(range.start)..at(range.end).max(at(range.start)))
    }

    fn truncated(&self, entry: &str, offset: u64, wanted_bytes: u64) -> ArchiveError {
        let found_bytes = self.source.length_bytes();
        ArchiveError::Truncated { entry: entry.to_owned(), offset, wanted_bytes, found_bytes }
    }
}

/// The header's bytes add up to the sum it names, its own field counted as spaces; old writers summed signed bytes.
fn check_sum(block: &[u8], header: &Header) -> std::io::Result<()> {
    let named = header.cksum()?;
    let byte_at = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
    let unsigned: u32 = block.iter().enumerate().map(|byte| u32::from(byte_at(byte))).sum();
    let signed: i32 = block.iter().enumerate().map(|byte| i32::from(byte_at(byte).cast_signed())).sum();
    if named == unsigned || i64::from(named) == i64::from(signed) {
        return Ok(());
    }
    Err(std::io::Error::other(format!("its bytes add up to {unsigned}, and it says {named}")))
}

/// Names the kinds of file that people upload by mistake.
fn refuse_other_kinds(start: &[u8]) -> Result<(), ArchiveError> {
    const COMPRESSED: [(&[u8], &str); 4] =
        [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];
    const OTHERS: [(&[u8], &str); 6] = [
        (b"PK\x03\x04", "a zip file"),
        (b"PK\x05\x06", "an empty zip file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
        (b"%PDF", "a PDF"),
        (b"hsqs", "a squashfs file system"),
        (b"\x7fELF", "a program (ELF)"),
    ];
    if let Some((_, codec)) = COMPRESSED.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(ArchiveError::Compressed { codec });
    }
    if let Some((_, found)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(ArchiveError::NotTar { found });
    }
    if start.len() < 512 {
        return Err(ArchiveError::NotTar { found: "shorter than one tar header (512 bytes)" });
    }
    if start.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let header = Header::from_byte_slice(start);
    if check_sum(start, header).is_err() {
        let text = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        return Err(ArchiveError::NotTar { found: if text { "text" } else { "some other binary file" } });
    }
    Ok(())
}
