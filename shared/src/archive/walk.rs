//! Reading headers and passing over bodies.
//!
//! An archive is a row of 512-byte header blocks, each followed by its file's bytes padded to 512 (POSIX.1-2017
//! pax, "ustar Interchange Format"). The crate `tar` parses the fields of a header; the walking is ours, so a plain
//! 10 GiB archive costs a few small ranged reads for each file in it.
//!
//! Where tar programs read the same bytes differently, an archive could show one image to a scanner and another to
//! us. So there is one reading of everything, Go's (which is `docker load`'s), and what Go refuses is refused.

use std::ops::Range;

use bytes::Bytes;
use tar::{EntryType, Header};

use super::ArchiveError;
use super::input::Input;
use super::tar_index::{Entry, Place, TarIndex};
use crate::decompress::Codec;
use crate::limits;

/// A header, and the unit that bodies are padded to.
pub(super) const BLOCK_BYTES: u64 = 512;

/// Walks the whole archive. Memory is proportional to the number of entries.
///
/// # Errors
///
/// [`ArchiveError`]: not a tar, damaged, cut off, or over a limit (permanent); unreadable (as the object says).
pub(super) async fn walk(input: &mut impl Input, within: Option<Codec>) -> Result<TarIndex, ArchiveError> {
    Walk { input, within, index: TarIndex::default(), names_bytes: 0, previous: None }.run().await
}

/// What extension headers say of the entry that follows them.
#[derive(Default, PartialEq, Eq)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size_bytes: Option<u64>,
    sparse: bool,
}

struct Walk<'a, I> {
    input: &'a mut I,
    within: Option<Codec>,
    index: TarIndex,
    /// Of all paths and link targets.
    names_bytes: u64,
    previous: Option<String>,
}

impl<I: Input> Walk<'_, I> {
    async fn run(mut self) -> Result<TarIndex, ArchiveError> {
        let mut offset = 0;
        let mut extended = Extended::default();
        loop {
            let block = self.input.bytes(offset..offset.saturating_add(BLOCK_BYTES)).await?;
            if offset == 0 {
                refuse_other_kinds(&block, self.within)?;
            }
            let short = (block.len() as u64) < BLOCK_BYTES;
            if short && (!block.is_empty() || extended != Extended::default()) {
                return Err(self.truncated("a header", offset, offset.saturating_add(BLOCK_BYTES)));
            }
            if short {
                // Whether that is an end or a cut is told by what is missing.
                self.index.open_end = Some(offset);
                return Ok(self.index);
            }
            if block.iter().all(|byte| *byte == 0) {
                self.input.finish().await?;
                return Ok(self.index);
            }
            offset = self.entry(offset, &block, &mut extended).await?;
        }
    }

    /// Takes in the entry whose header is `block` at `offset`; where the next header is.
    async fn entry(&mut self, offset: u64, block: &Bytes, extended: &mut Extended) -> Result<u64, ArchiveError> {
        let header = Header::from_byte_slice(block);
        let previous = self.previous.clone();
        let bad = |source| ArchiveError::BadHeader { offset, previous: previous.clone(), source };
        check_sum(block, header).map_err(bad)?;
        let kind = header.entry_type();
        let is_extension = matches!(
            kind,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        );
        // Links, folders and devices have no body whatever their size field says: so Go and Python read them, and a
        // reader that skipped one would see other entries than they do.
        let written_bytes = if is_header_only(kind) { 0 } else { size_field(header).map_err(bad)? };
        let mut body = offset.saturating_add(BLOCK_BYTES);
        if kind.is_gnu_sparse() {
            body = self.after_sparse_map(body, header).await?;
        }
        let size_bytes = match extended.size_bytes {
            Some(size_bytes) if !is_extension && !is_header_only(kind) => size_bytes,
            _ => written_bytes,
        };
        let path = match extended.path.take() {
            Some(path) if !is_extension => path,
            kept => {
                extended.path = kept;
                String::from_utf8_lossy(&header.path_bytes()).into_owned()
            }
        };
        let Some(end) = body.checked_add(size_bytes) else {
            return Err(self.truncated(&path, offset, u64::MAX));
        };
        let next = body.saturating_add(size_bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES));
        if is_extension {
            self.extension(kind, offset, body..end, extended).await?;
            return Ok(next);
        }
        let extended = std::mem::take(extended);
        let link = extended.link.unwrap_or_else(|| {
            header.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned()).unwrap_or_default()
        });
        self.count(offset, &path, &link)?;
        let entry = match kind {
            EntryType::Link => Entry::HardLink(link),
            EntryType::Symlink => Entry::SymLink(link),
            EntryType::Directory => Entry::Folder,
            EntryType::Char | EntryType::Block | EntryType::Fifo => Entry::Device,
            _ => {
                let Some(remembered) = self.input.file(&path, body..end).await? else {
                    return Err(self.truncated(&path, offset, end));
                };
                if extended.sparse || kind.is_gnu_sparse() {
                    Entry::Sparse
                } else if path.ends_with('/') {
                    // A v7 archive has no type for folders: their names end in a slash.
                    Entry::Folder
                } else {
                    Entry::File(Place {
                        offset: body,
                        size_bytes,
                        magic: remembered.magic,
                        content: remembered.content,
                        hash: remembered.hash,
                    })
                }
            }
        };
        self.index.insert(&path, entry);
        self.previous = Some(path);
        Ok(next)
    }

    /// Counts an entry and its names before they are believed.
    fn count(&mut self, offset: u64, path: &str, link: &str) -> Result<(), ArchiveError> {
        let over = |what: &str, found: u64, limit: u64| {
            let what = what.to_owned();
            if found > limit { Err(ArchiveError::OverLimit { what, offset, found, limit }) } else { Ok(()) }
        };
        let longest = path.len().max(link.len()) as u64;
        over("the length of a path", longest, limits::PATH_BYTES)?;
        self.names_bytes = self.names_bytes.saturating_add(path.len() as u64).saturating_add(link.len() as u64);
        over("the length of all paths together", self.names_bytes, limits::ALL_PATHS_BYTES)?;
        let count = self.index.len().saturating_add(1) as u64;
        over("the number of entries", count, limits::ARCHIVE_ENTRIES as u64)
    }

    /// Reads a pax record set or a GNU long name.
    async fn extension(
        &mut self,
        kind: EntryType,
        offset: u64,
        body: Range<u64>,
        extended: &mut Extended,
    ) -> Result<(), ArchiveError> {
        let size = body.end.saturating_sub(body.start);
        if size > limits::HEADER_EXTENSION_BYTES {
            return Err(ArchiveError::OverLimit {
                what: "an extended header".to_owned(),
                offset: body.start,
                found: size,
                limit: limits::HEADER_EXTENSION_BYTES,
            });
        }
        let bytes = self.input.bytes(body.clone()).await?;
        if (bytes.len() as u64) < size {
            return Err(self.truncated("an extended header", offset, body.end));
        }
        let text = || {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
        };
        let global = kind == EntryType::XGlobalHeader;
        match kind {
            EntryType::GNULongName => extended.path = Some(text()),
            EntryType::GNULongLink => extended.link = Some(text()),
            _ => records(&bytes, extended, global).map_err(|source| ArchiveError::BadHeader {
                offset,
                previous: self.previous.clone(),
                source,
            })?,
        }
        Ok(())
    }

    /// Skips the blocks that continue the map of an old GNU sparse file; each says in byte 504 whether another
    /// follows, as the header itself does in byte 482.
    async fn after_sparse_map(&mut self, mut offset: u64, header: &Header) -> Result<u64, ArchiveError> {
        let mut more = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        while more {
            let block = self.input.bytes(offset..offset.saturating_add(BLOCK_BYTES)).await?;
            more = block.get(504).is_some_and(|flag| *flag != 0);
            offset = offset.saturating_add(BLOCK_BYTES);
        }
        Ok(offset)
    }

    fn truncated(&self, entry: &str, offset: u64, wanted_bytes: u64) -> ArchiveError {
        let found_bytes = self.input.found_bytes();
        ArchiveError::Truncated { entry: entry.to_owned(), offset, wanted_bytes, found_bytes }
    }
}

fn is_header_only(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Directory
            | EntryType::Char
            | EntryType::Block
            | EntryType::Fifo
    )
}

/// The size field: octal, or (GNU) binary with the first bit set. Binary numbers that are negative or above 64 bits
/// are refused, which the crate `tar` would cut down to something else.
fn size_field(header: &Header) -> std::io::Result<u64> {
    let field = &header.as_old().size;
    if let [first, high @ ..] = field
        && first & 0x80 != 0
    {
        // Eleven more bytes follow, of which the last eight are the number.
        let too_large = *first != 0x80 || high.iter().take(3).any(|byte| *byte != 0);
        if too_large {
            return Err(std::io::Error::other("its size is negative or has more than 64 bits"));
        }
    }
    header.entry_size()
}

/// Takes in a set of pax records, each `<length> <key>=<value>\n` (POSIX.1-2017 pax, "pax Extended Header").
fn records(mut bytes: &[u8], extended: &mut Extended, global: bool) -> std::io::Result<()> {
    // Some writers pad the last record with zeros.
    while bytes.iter().any(|byte| *byte != 0) {
        let (key, value, rest) =
            record(bytes).ok_or_else(|| std::io::Error::other("its pax records do not read as `length key=value`"))?;
        bytes = rest;
        let deciding = matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
        if global && deciding {
            // Python applies it to every entry that follows, Go to none: two archives in one.
            return Err(std::io::Error::other("a global pax header sets a path or size, which tools read differently"));
        }
        if !deciding {
            continue;
        }
        let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
        let name = String::from_utf8_lossy(key);
        let text = text.ok_or_else(|| std::io::Error::other(format!("its pax record {name} is no text")))?;
        // An empty value takes the record back.
        let given = Some(text).filter(|text| !text.is_empty());
        match key {
            b"path" => extended.path = given.map(str::to_owned),
            b"linkpath" => extended.link = given.map(str::to_owned),
            b"size" => {
                let digits = given.is_none_or(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let size = given.map(str::parse).transpose().ok().filter(|_| digits);
                let wrong = || std::io::Error::other(format!("its pax size {text:?} is no number of bytes"));
                extended.size_bytes = size.ok_or_else(wrong)?;
            }
            _ => extended.sparse = true,
        }
    }
    Ok(())
}

/// The first record of `bytes`, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..digits)?).ok()?.parse().ok()?;
    let record = bytes.get(digits.checked_add(1)?..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals.checked_add(1)?..)?, bytes.get(length..)?))
}

/// The header's bytes add up to the sum it names, its own field counted as spaces; old writers summed signed bytes.
fn check_sum(block: &[u8], header: &Header) -> std::io::Result<()> {
    let named = header.cksum()?;
    let byte_at = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
    let unsigned: u32 = block.iter().enumerate().map(|byte| u32::from(byte_at(byte))).sum();
    if named == unsigned {
        return Ok(());
    }
    let signed: i32 = block.iter().enumerate().map(|byte| i32::from(byte_at(byte).cast_signed())).sum();
    if i64::from(named) == i64::from(signed) {
        return Ok(());
    }
    Err(std::io::Error::other(format!("its bytes add up to {unsigned}, and it says {named}")))
}

/// Whether `start` is a tar header: then it is one, whatever magic number the first file's name imitates.
pub(super) fn is_header(start: &[u8]) -> bool {
    start.len() as u64 >= BLOCK_BYTES
        && start.get(..512).is_some_and(|block| check_sum(block, Header::from_byte_slice(block)).is_ok())
}

/// Names the kinds of file that people upload by mistake; `within` is the codec they came out of.
fn refuse_other_kinds(start: &[u8], within: Option<Codec>) -> Result<(), ArchiveError> {
    const OTHERS: [(&[u8], &str); 11] = [
        (b"PK\x03\x04", "a zip file"),
        (b"PK\x05\x06", "an empty zip file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
        (b"%PDF", "a PDF"),
        (b"hsqs", "a squashfs file system"),
        (b"\x7fELF", "a program (ELF)"),
        (b"\x04\x22\x4d\x18", "compressed with lz4 (gzip, zstd, xz and bzip2 are read)"),
        (b"LZIP", "compressed with lzip (gzip, zstd, xz and bzip2 are read)"),
        (b"\x1f\x9d", "compressed with compress (gzip, zstd, xz and bzip2 are read)"),
        (b"\x5d\0\0", "compressed with lzma (gzip, zstd, xz and bzip2 are read)"),
        (b"SIF", "a Singularity image"),
    ];
    if is_header(start) || (start.len() as u64 >= BLOCK_BYTES && start.iter().all(|byte| *byte == 0)) {
        return Ok(());
    }
    if start.is_empty() {
        return Err(match within {
            None => ArchiveError::Empty,
            Some(_) => ArchiveError::NotTar { found: "nothing", within },
        });
    }
    if let (Some(outer), Some(inner)) = (within, Codec::of(start)) {
        return Err(ArchiveError::CompressedTwice { outer, inner });
    }
    if let Some((_, found)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(ArchiveError::NotTar { found, within });
    }
    if (start.len() as u64) < BLOCK_BYTES {
        return Err(ArchiveError::NotTar { found: "shorter than one tar header (512 bytes)", within });
    }
    let text = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    Err(ArchiveError::NotTar { found: if text { "text" } else { "some other binary file" }, within })
}
