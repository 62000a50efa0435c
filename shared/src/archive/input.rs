//! The two ways to walk an archive: by ranges, where its bytes lie as they are, and in one pass, where they come out
//! of a decoder.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::ArchiveError;
use super::tar_index::{MAGIC_BYTES, Magic};
use crate::decompress::{Codec, Decoded};
use crate::image::{Digest, Hasher};
use crate::limits;
use crate::object::{Source, read_exact};

/// Bytes of an archive from front to back.
pub(super) trait Input: Send {
    /// The bytes of `range`, as far as the archive goes. Ranges never begin before an earlier one did.
    fn bytes(&mut self, range: Range<u64>) -> impl Future<Output = Result<Bytes, ArchiveError>> + Send;

    /// What is to be remembered of the file `path`; `None` when the archive ends before `body` does.
    fn file(
        &mut self,
        path: &str,
        body: Range<u64>,
    ) -> impl Future<Output = Result<Option<Remembered>, ArchiveError>> + Send;

    /// Hears that nothing more is wanted.
    fn finish(&mut self) -> impl Future<Output = Result<(), ArchiveError>> + Send;

    /// How many bytes the archive has, as far as is known.
    fn found_bytes(&self) -> u64;
}

/// What is remembered of a file beside where it lies.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) magic: Option<Magic>,
    pub(super) content: Option<Bytes>,
    pub(super) hash: Option<Digest>,
}

/// An archive that can be read anywhere, through a window read ahead: bodies are skipped, not read.
pub(super) struct Ranged<'a, S> {
    source: &'a S,
    window: Bytes,
    window_start: u64,
    reads: u64,
}

impl<'a, S: Source> Ranged<'a, S> {
    /// Begins with `start`, the archive's first bytes.
    pub(super) fn new(source: &'a S, start: Bytes) -> Self {
        Self { source, window: start, window_start: 0, reads: 0 }
    }

    /// What the window holds of `range`.
    fn in_window(&self, range: Range<u64>) -> Bytes {
        let at = |offset: u64| {
            let inside = offset.saturating_sub(self.window_start);
            usize::try_from(inside).unwrap_or(usize::MAX).min(self.window.len())
        };
        self.window.slice(at(range.start)..at(range.end).max(at(range.start)))
    }
}

impl<S: Source> Input for Ranged<'_, S> {
    async fn bytes(&mut self, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        let end = range.end.min(self.source.length_bytes());
        let range = range.start.min(end)..end;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let window_end = self.window_start.saturating_add(self.window.len() as u64);
        if range.start < self.window_start || range.end > window_end {
            self.reads = self.reads.saturating_add(1);
            if self.reads > limits::HEADER_READS {
                return Err(ArchiveError::OverLimit {
                    what: "the number of reads that its headers take".to_owned(),
                    offset: range.start,
                    found: self.reads,
                    limit: limits::HEADER_READS,
                });
            }
            let ahead = range.start.saturating_add(limits::HEADER_WINDOW_BYTES);
            let wanted = range.start..ahead.max(range.end).min(self.source.length_bytes());
            self.window_start = wanted.start;
            self.window = read_exact(self.source, wanted).await?;
        }
        Ok(self.in_window(range))
    }

    async fn file(&mut self, _path: &str, body: Range<u64>) -> Result<Option<Remembered>, ArchiveError> {
        if body.end > self.source.length_bytes() {
            return Ok(None);
        }
        let wanted = (body.end.saturating_sub(body.start)).min(MAGIC_BYTES as u64);
        let start = self.in_window(body.start..body.start.saturating_add(wanted));
        let magic = (start.len() as u64 == wanted).then(|| magic(&start));
        Ok(Some(Remembered { magic, ..Remembered::default() }))
    }

    async fn finish(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn found_bytes(&self) -> u64 {
        self.source.length_bytes()
    }
}

fn magic(start: &[u8]) -> Magic {
    let mut magic = Magic::default();
    for (at, byte) in magic.iter_mut().zip(start) {
        *at = *byte;
    }
    magic
}

/// An archive that comes out of a decoder, once: what will be wanted later is kept while it passes.
pub(super) struct InOnePass {
    decoded: Decoded,
    codec: Codec,
    /// Decompressed bytes that a delivery can get through, in the time that it has.
    most_bytes: u64,
    delivery: Duration,
    buffer: BytesMut,
    /// Where `buffer` begins.
    position: u64,
}

impl InOnePass {
    pub(super) fn new(decoded: Decoded, codec: Codec, most_bytes: u64, delivery: Duration) -> Self {
        Self { decoded, codec, most_bytes, delivery, buffer: BytesMut::new(), position: 0 }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        let next = self.decoded.next().await?;
        let found_bytes = self.decoded.given_bytes();
        if found_bytes > self.most_bytes {
            let (codec, most_bytes, delivery) = (self.codec, self.most_bytes, self.delivery);
            return Err(ArchiveError::TooSlow { codec, found_bytes, most_bytes, delivery });
        }
        Ok(next)
    }

    /// Reads on until the buffer has `length` bytes, or there are no more.
    async fn fill(&mut self, length: usize) -> Result<(), ArchiveError> {
        while self.buffer.len() < length {
            let Some(chunk) = self.next().await? else { return Ok(()) };
            self.buffer.extend_from_slice(&chunk);
        }
        Ok(())
    }

    /// Passes over everything before `offset`, which `see` is shown; whether there was that much.
    async fn pass(&mut self, offset: u64, mut see: impl FnMut(&[u8]) + Send) -> Result<bool, ArchiveError> {
        let left = |position: u64| usize::try_from(offset.saturating_sub(position)).unwrap_or(usize::MAX);
        while self.position < offset {
            if self.buffer.is_empty() {
                let Some(chunk) = self.next().await? else { return Ok(false) };
                let passed = left(self.position).min(chunk.len());
                let mut chunk = chunk;
                see(&chunk.split_to(passed));
                self.buffer.extend_from_slice(&chunk);
                self.position = self.position.saturating_add(passed as u64);
            } else {
                let passed = left(self.position).min(self.buffer.len());
                see(&self.buffer.split_to(passed));
                self.position = self.position.saturating_add(passed as u64);
            }
        }
        Ok(true)
    }
}

impl Input for InOnePass {
    async fn bytes(&mut self, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        self.pass(range.start, |_| {}).await?;
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        self.fill(length).await?;
        let end = length.min(self.buffer.len());
        Ok(Bytes::copy_from_slice(self.buffer.get(..end).unwrap_or_default()))
    }

    async fn file(&mut self, path: &str, body: Range<u64>) -> Result<Option<Remembered>, ArchiveError> {
        let size_bytes = body.end.saturating_sub(body.start);
        let start = self.bytes(body.start..body.end.min(body.start.saturating_add(MAGIC_BYTES as u64))).await?;
        let mut remembered = Remembered { magic: Some(magic(&start)), ..Remembered::default() };
        if size_bytes <= limits::JSON_BYTES && looks_like_json(&start) {
            let content = self.bytes(body.clone()).await?;
            let whole = content.len() as u64 == size_bytes;
            remembered.content = Some(content);
            return Ok(whole.then_some(remembered));
        }
        // Docker 1.0 archives do not say what their layers hash to.
        if path.ends_with("layer.tar") {
            let mut hasher = Hasher::default();
            let whole = self.pass(body.end, |bytes| hasher.update(bytes)).await?;
            remembered.hash = Some(hasher.finish());
            return Ok(whole.then_some(remembered));
        }
        Ok(self.pass(body.end, |_| {}).await?.then_some(remembered))
    }

    /// Decodes what is left, since only at its end a compressed stream says whether it is whole.
    async fn finish(&mut self) -> Result<(), ArchiveError> {
        while let Some(chunk) = self.next().await? {
            drop(chunk);
        }
        Ok(())
    }

    fn found_bytes(&self) -> u64 {
        self.decoded.given_bytes()
    }
}

/// Whether a file that begins so may be one of those that are read as JSON: an object, a list, or null.
fn looks_like_json(start: &[u8]) -> bool {
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    // A file that begins with blanks alone is told by nothing here; it is small enough to be kept.
    first.is_none_or(|first| matches!(first, b'{' | b'[' | b'n'))
}
