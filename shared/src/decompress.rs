//! Bytes out of what they were compressed with: whole uploads, and layers.
//!
//! The codec is told by the first bytes, never by a name. Decoding runs on a thread of its own, and both sides of it
//! are bounded: a decoder holds a window of bounded size, and what it gives waits for whoever reads it.
//!
//! A stream of several members, frames or streams is one file, as the formats say: gzip (RFC 1952, section 2.2), zstd
//! (RFC 8878, section 3.1, skippable frames included), xz (".xz file format", section 2.1, padding included), bzip2.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::disposition::Disposition;
use crate::limits;
use crate::object::{Body, ObjectError};
use crate::retry::Disposed;

/// Decompressed bytes handed on at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// Chunks that wait on either side of the decoder.
const CHUNKS: usize = 1;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz file format.
    Xz,
    /// bzip2.
    Bzip2,
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        })
    }
}

impl Codec {
    /// What a file that begins with `start` is compressed with; six bytes are enough.
    pub fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // A frame, or a skippable one, which parallel compressors begin with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // Behind the level the first block's magic number begins, or that of the end.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, ..] => {
                Some(Self::Bzip2)
            }
            _ => None,
        }
    }

    /// Decompressed megabytes that one core makes in a second.
    pub fn megabytes_a_second(self) -> u64 {
        match self {
            Self::Gzip => limits::GZIP_MEGABYTES_A_SECOND,
            Self::Zstd => limits::ZSTD_MEGABYTES_A_SECOND,
            Self::Xz => limits::XZ_MEGABYTES_A_SECOND,
            Self::Bzip2 => limits::BZIP2_MEGABYTES_A_SECOND,
        }
    }
}

/// Why bytes could not be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They could not be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// They end too early.
    #[error(
        "the {codec} stream is cut off: it ends at byte {at}, after {given_bytes} decompressed bytes, and is not complete"
    )]
    CutOff {
        /// The codec.
        codec: Codec,
        /// Compressed bytes taken.
        at: u64,
        /// Decompressed bytes given.
        given_bytes: u64,
    },
    /// They are no valid stream.
    #[error("the {codec} stream is damaged near byte {at}, after {given_bytes} decompressed bytes")]
    Damaged {
        /// The codec.
        codec: Codec,
        /// Compressed bytes taken until the error showed.
        at: u64,
        /// Decompressed bytes given.
        given_bytes: u64,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// The decoder would need more memory than there is for it.
    #[error(
        "the {codec} stream needs a window of {}; at most {limit_bytes} bytes of memory are given to one here",
        window(*.needed_bytes)
    )]
    Window {
        /// The codec.
        codec: Codec,
        /// The window, where the stream's first frame says.
        needed_bytes: Option<u64>,
        /// What it would get.
        limit_bytes: u64,
    },
    /// They expand beyond belief.
    #[error(
        "the {codec} stream expands to more than {} times its {taken_bytes} bytes: {given_bytes} bytes and no end",
        limits::EXPANSION_RATIO
    )]
    Expands {
        /// The codec.
        codec: Codec,
        /// Compressed bytes taken.
        taken_bytes: u64,
        /// Decompressed bytes given.
        given_bytes: u64,
    },
    /// The decoding thread ended without a word.
    #[error("the decoding thread failed")]
    Thread,
}

fn window(needed_bytes: Option<u64>) -> String {
    needed_bytes.map_or_else(|| "more than the limit".to_owned(), |bytes| format!("{bytes} bytes"))
}

impl Disposed for DecodeError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Object(object) => object.disposition(),
            Self::CutOff { .. } | Self::Damaged { .. } | Self::Window { .. } | Self::Expands { .. } => {
                Disposition::Permanent
            }
            Self::Thread => Disposition::Transient,
        }
    }
}

/// What comes out of a decoder, in order.
#[derive(Debug)]
pub struct Decoded {
    /// `None` is the end; a channel that closes without it was left by a thread that panicked.
    chunks: mpsc::Receiver<Result<Option<Bytes>, DecodeError>>,
    given_bytes: u64,
    ended: bool,
    /// Dropping it ends the reading, and with it the thread.
    _pump: AbortOnDropHandle<()>,
}

/// Decompresses `body` with at most `window_bytes` of window. Dropping what is returned ends the work.
pub fn decode(mut body: Body, codec: Codec, window_bytes: u64) -> Decoded {
    let (compressed, input) = mpsc::channel(CHUNKS);
    let (output, chunks) = mpsc::channel(CHUNKS);
    let pump = tokio::spawn(async move {
        while let Some(chunk) = body.next().await {
            if compressed.send(chunk).await.is_err() {
                return;
            }
        }
    });
    tokio::task::spawn_blocking(move || Decoder::new(codec, window_bytes, input, output).run());
    Decoded { chunks, given_bytes: 0, ended: false, _pump: AbortOnDropHandle::new(pump) }
}

impl Decoded {
    /// The next bytes; `None` at the end of a stream that is whole.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]
    pub async fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if self.ended {
            return Ok(None);
        }
        let next = self.chunks.recv().await.ok_or(DecodeError::Thread)??;
        self.ended = next.is_none();
        let length = next.as_ref().map_or(0, Bytes::len);
        self.given_bytes = self.given_bytes.saturating_add(length as u64);
        Ok(next)
    }

    /// Decompressed bytes so far.
    pub fn given_bytes(&self) -> u64 {
        self.given_bytes
    }
}

/// What the decoding thread works on.
struct Decoder {
    codec: Codec,
    window_bytes: u64,
    input: ChannelReader,
    taken_bytes: Arc<AtomicU64>,
    output: mpsc::Sender<Result<Option<Bytes>, DecodeError>>,
    given_bytes: u64,
}

/// Why the thread stops before the end.
enum Stop {
    /// Nobody listens any more.
    Unheard,
    Failed(io::Error),
    Error(DecodeError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Decoder {
    fn new(
        codec: Codec,
        window_bytes: u64,
        chunks: mpsc::Receiver<Result<Bytes, ObjectError>>,
        output: mpsc::Sender<Result<Option<Bytes>, DecodeError>>,
    ) -> Self {
        let taken_bytes = Arc::new(AtomicU64::new(0));
        let input =
            ChannelReader { chunks, current: Bytes::new(), taken_bytes: Arc::clone(&taken_bytes), failure: None };
        Self { codec, window_bytes, input, taken_bytes, output, given_bytes: 0 }
    }

    fn run(mut self) {
        let stop = self.decode();
        let last = match stop {
            Ok(()) => Ok(None),
            Err(Stop::Unheard) => return,
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::Failed(source)) => Err(self.name(source)),
        };
        self.output.blocking_send(last).ok();
    }

    fn decode(&mut self) -> Result<(), Stop> {
        let (codec, limit_bytes) = (self.codec, self.window_bytes);
        let needed = window_of(codec, self.input.fill_buf()?);
        if let Some(needed) = needed.filter(|needed| *needed > limit_bytes) {
            return Err(Stop::Error(DecodeError::Window { codec, needed_bytes: Some(needed), limit_bytes }));
        }
        match codec {
            Codec::Gzip => self.members(),
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut self.input)?;
                decoder.window_log_max(limit_bytes.ilog2())?;
                copy(codec, decoder, &self.taken_bytes, &mut self.given_bytes, &self.output)
            }
            Codec::Xz => {
                // Beside the window the decoder holds its tables.
                let memory = limit_bytes.saturating_add(1 << 20);
                let stream = liblzma::stream::Stream::new_stream_decoder(memory, liblzma::stream::CONCATENATED);
                let stream = stream.map_err(io::Error::from)?;
                let decoder = liblzma::bufread::XzDecoder::new_stream(&mut self.input, stream);
                copy(codec, decoder, &self.taken_bytes, &mut self.given_bytes, &self.output)
            }
            Codec::Bzip2 => {
                let decoder = bzip2::bufread::MultiBzDecoder::new(&mut self.input);
                copy(codec, decoder, &self.taken_bytes, &mut self.given_bytes, &self.output)
            }
        }
    }

    /// gzip members one after the other; zeros behind the last are padding, as `gzip` has it.
    fn members(&mut self) -> Result<(), Stop> {
        loop {
            let decoder = flate2::bufread::GzDecoder::new(&mut self.input);
            copy(self.codec, decoder, &self.taken_bytes, &mut self.given_bytes, &self.output)?;
            loop {
                let next = self.input.fill_buf()?;
                let zeros = next.iter().take_while(|byte| **byte == 0).count();
                let (all, none) = (zeros == next.len(), zeros == 0);
                if next.is_empty() {
                    return Ok(());
                }
                if none {
                    break;
                }
                self.input.consume(zeros);
                if !all {
                    let trailing = "something other than zeros or another member follows";
                    return Err(Stop::Failed(io::Error::new(io::ErrorKind::InvalidData, trailing)));
                }
            }
        }
    }

    /// What a decoder's error means.
    fn name(&mut self, source: io::Error) -> DecodeError {
        if let Some(error) = self.input.failure.take() {
            return DecodeError::Object(error);
        }
        let (codec, given_bytes) = (self.codec, self.given_bytes);
        let at = self.taken_bytes.load(Ordering::Relaxed);
        let window = source.to_string();
        if matches!(window.as_str(), "Frame requires too much memory for decoding" | "memory limit reached") {
            return DecodeError::Window { codec, needed_bytes: None, limit_bytes: self.window_bytes };
        }
        // liblzma says "data" for the end of a stream that was to go on; all say it at the end of the input.
        let ended = self.input.current.is_empty() && self.input.chunks.is_closed() && self.input.chunks.is_empty();
        if ended && matches!(source.kind(), io::ErrorKind::UnexpectedEof) {
            return DecodeError::CutOff { codec, at, given_bytes };
        }
        DecodeError::Damaged { codec, at, given_bytes, source }
    }
}

/// Hands on what `decoder` gives until its end.
fn copy(
    codec: Codec,
    mut decoder: impl Read,
    taken_bytes: &AtomicU64,
    given_bytes: &mut u64,
    output: &mpsc::Sender<Result<Option<Bytes>, DecodeError>>,
) -> Result<(), Stop> {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut filled = 0;
        let mut ended = Ok(false);
        while let Some(room) = chunk.get_mut(filled..).filter(|room| !room.is_empty()) {
            match decoder.read(room) {
                Ok(0) => {
                    ended = Ok(true);
                    break;
                }
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        chunk.truncate(filled);
        *given_bytes = given_bytes.saturating_add(filled as u64);
        let taken_bytes = taken_bytes.load(Ordering::Relaxed);
        let most = taken_bytes.saturating_mul(limits::EXPANSION_RATIO).saturating_add(limits::EXPANSION_SLACK_BYTES);
        if *given_bytes > most {
            return Err(Stop::Error(DecodeError::Expands { codec, taken_bytes, given_bytes: *given_bytes }));
        }
        if filled > 0 {
            output.blocking_send(Ok(Some(chunk.into()))).map_err(|_unheard| Stop::Unheard)?;
        }
        if ended? {
            return Ok(());
        }
    }
}

/// A channel as the decoders read it.
struct ChannelReader {
    chunks: mpsc::Receiver<Result<Bytes, ObjectError>>,
    current: Bytes,
    taken_bytes: Arc<AtomicU64>,
    /// Kept here, since a decoder passes on only that there was one.
    failure: Option<ObjectError>,
}

impl BufRead for ChannelReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("the compressed bytes could not be read"));
                }
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        let amount = amount.min(self.current.len());
        self.current.advance(amount);
        self.taken_bytes.fetch_add(amount as u64, Ordering::Relaxed);
    }
}

impl Read for ChannelReader {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(room.len());
        for (at, byte) in room.iter_mut().zip(available) {
            *at = *byte;
        }
        self.consume(read);
        Ok(read)
    }
}

/// The window that the first frame or block asks for, as far as it can be told from `start`: for the message, since
/// the decoders know the limit themselves.
fn window_of(codec: Codec, start: &[u8]) -> Option<u64> {
    match codec {
        Codec::Gzip | Codec::Bzip2 => None,
        // Frame header (RFC 8878, section 3.1.1.1): with the single-segment flag the window is the content's size.
        Codec::Zstd => {
            let [0x28, 0xb5, 0x2f, 0xfd, descriptor, window, ..] = start else { return None };
            if descriptor & 0x20 != 0 {
                return None;
            }
            let base = 1_u64 << 10_u8.saturating_add(window >> 3);
            Some(base.saturating_add((base / 8).saturating_mul(u64::from(window & 7))))
        }
        // Stream header, then a block header whose only filter is LZMA2 (".xz file format", sections 3.1 and 5.3.1).
        Codec::Xz => {
            let [_, flags, rest @ ..] = start.get(12..)? else { return None };
            if flags & 0xc0 != 0 {
                return None;
            }
            let [0x21, 0x01, bits, ..] = rest else { return None };
            let bits = bits & 0x3f;
            match bits {
                40 => Some(u64::from(u32::MAX)),
                0..40 => Some((2 | u64::from(bits & 1)) << (bits / 2).saturating_add(11)),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
