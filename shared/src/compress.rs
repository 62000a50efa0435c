//! Layer bytes in, the same compressed bytes out, every time.
//!
//! An uncompressed layer is cut into members of fixed size; each is compressed by itself, on whatever core is free, and
//! they are emitted in order as one file (RFC 1952, section 2.2: a gzip file is a series of members; RFC 8878, section
//! 3: so are zstd's frames). The output therefore depends on the bytes, the level and the codec's version in Cargo.lock,
//! and never on timing, on how the bytes arrived, or on the number of cores.
//!
//! A layer that arrives compressed passes through untouched; it is decompressed beside, to check its diff ID. One that
//! no registry would take as it is, is decompressed and compressed again.

mod cores;
mod member;
mod spent;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, FuturesOrdered};
use futures::{Stream, StreamExt as _};
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{Semaphore, mpsc};

use crate::archive::Stored;
use crate::config::Compression;
use crate::decompress::{Codec, DecodeError, decode};
use crate::disposition::Disposition;
use crate::image::{DiffId, Digest, Hasher, MediaType};
use crate::limits;
use crate::object::{Body, ObjectError};
use crate::retry::Disposed;

use cores::{Cores, Done, Member, Slot};
pub use spent::Spent;
use spent::{awaited, timed};

/// Members, for each core, that are compressed or wait for their turn to be emitted, over all layers at once; each layer
/// may have one more. With fewer, a core would wait while a slow member holds up the finished ones behind it.
const MEMBERS_PER_CORE: usize = 2;

/// Compresses layers on all cores. Cheap to clone; all clones share the cores and the buffers.
#[derive(Debug, Clone)]
pub struct Compressor {
    compression: Compression,
    cores: Cores,
    /// One for each member between being cut and being emitted.
    slots: Arc<Semaphore>,
}

/// Both hashes and sizes of a layer that went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// The hash of the bytes uncompressed.
    pub diff_id: DiffId,
    /// How many those are.
    pub uncompressed_bytes: u64,
    /// The hash of the bytes as sent.
    pub digest: Digest,
    /// How many those are.
    pub size_bytes: u64,
}

/// Why a layer did not go through.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It could not be read.
    #[error("the layer could not be read")]
    Object(#[from] ObjectError),
    /// Its own compression is broken, or expands beyond belief.
    #[error("the layer cannot be decompressed")]
    Decode(#[source] Box<DecodeError>),
    /// The receiving side went away; it knows why.
    #[error("the upload ended before the layer did")]
    Abandoned,
    /// The codec failed.
    #[error("the layer could not be compressed")]
    Encode(#[source] io::Error),
    /// A compressing thread panicked.
    #[error("a compressing thread failed")]
    Core,
    /// The task that moves the layer panicked.
    #[error("the layer's own task failed")]
    Thread(#[source] tokio::task::JoinError),
}

impl Disposed for LayerError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Object(object) => object.disposition(),
            Self::Decode(decode) => decode.disposition(),
            Self::Abandoned | Self::Encode(_) | Self::Core | Self::Thread(_) => Disposition::Transient,
        }
    }
}

impl From<DecodeError> for LayerError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Object(object) => Self::Object(object),
            other => Self::Decode(Box::new(other)),
        }
    }
}

/// Where the bytes to be sent go; bounded, so that sending slows down reading.
pub type Output = mpsc::Sender<Result<Bytes, io::Error>>;

impl Compressor {
    /// A compressor that uses `cores` threads.
    pub fn new(compression: Compression, cores: usize) -> Self {
        let cores = cores.max(1);
        Self {
            compression,
            cores: Cores::new(compression, cores),
            slots: Arc::new(Semaphore::new(cores * MEMBERS_PER_CORE)),
        }
    }

    /// What determines the output beside the input: codec, level, member size, and the format's own version.
    pub fn format(&self) -> String {
        member::format(self.compression)
    }

    /// The media type of what comes out.
    pub fn media_type(&self) -> &'static str {
        match self.compression {
            Compression::Gzip { .. } => MediaType::OCI_LAYER_GZIP,
            Compression::Zstd { .. } => MediaType::OCI_LAYER_ZSTD,
        }
    }

    /// Takes a layer from `body` and gives what is to be sent to `output`. Returns both hashes, and where the time went.
    ///
    /// Holds one member for each layer that is being read, and a few for each core, whatever the layers' sizes.
    /// `progress` hears the bytes taken and the bytes given so far.
    ///
    /// # Errors
    ///
    /// [`LayerError`]; what went to `output` until then must not be committed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the work; members under way are finished and thrown away, and those that wait left out.
    pub async fn run(
        &self,
        body: Body,
        stored: Stored,
        output: Output,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<(Sums, Spent), LayerError> {
        let going = Going { given: Hasher::default(), output, spent: Spent::default() };
        match stored {
            Stored::Plain => self.compress(body, going, progress).await,
            Stored::Gzip => pass_through(body, Codec::Gzip, going, progress).await,
            Stored::Zstd => pass_through(body, Codec::Zstd, going, progress).await,
            Stored::Recompressed(codec) => {
                let decoded = decode(body, codec, limits::LAYER_WINDOW_BYTES);
                let plain = stream::try_unfold(decoded, |mut decoded| async move {
                    Ok::<_, DecodeError>(decoded.next().await?.map(|chunk| (chunk, decoded)))
                });
                self.compress(plain.boxed(), going, progress).await
            }
        }
    }

    async fn compress<E: Into<LayerError>>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
        mut going: Going,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<(Sums, Spent), LayerError> {
        let size = member::member_bytes(self.compression);
        let mut taken = Hasher::default();
        let mut members: FuturesOrdered<Member> = FuturesOrdered::new();
        let mut member = self.cores.buffer(size);
        loop {
            let started = Instant::now();
            // What is done is emitted while more is awaited: its place may be what somebody else waits for.
            let chunk = tokio::select! {
                biased;
                Some(done) = members.next(), if !members.is_empty() => {
                    going.spent.reading += started.elapsed();
                    going.emit(done).await?;
                    continue;
                }
                chunk = body.next() => chunk,
            };
            going.spent.reading += started.elapsed();
            let Some(chunk) = chunk else { break };
            let mut chunk = chunk.map_err(Into::into)?;
            going.spent.hashing += timed(|| taken.update(&chunk)).1;
            while !chunk.is_empty() {
                let part = chunk.split_to(chunk.len().min(size - member.len()));
                member.extend_from_slice(&part);
                if member.len() == size {
                    let slot = self.slot(&mut members, &mut going).await?;
                    let full = std::mem::replace(&mut member, self.cores.buffer(size));
                    members.push_back(self.cores.start(full, slot));
                    progress(taken.bytes(), going.given.bytes());
                }
            }
        }
        // An empty layer is one empty member, since a compressed file has at least one.
        if !member.is_empty() || taken.bytes() == 0 {
            let slot = self.slot(&mut members, &mut going).await?;
            members.push_back(self.cores.start(member, slot));
        }
        while let Some(next) = awaited(&mut going.spent.waiting, members.next()).await {
            going.emit(next).await?;
        }
        progress(taken.bytes(), going.given.bytes());
        Ok(going.sums(taken))
    }

    /// Waits for a place for one more member, and meanwhile emits what is done of this layer, which makes places.
    async fn slot(&self, members: &mut FuturesOrdered<Member>, going: &mut Going) -> Result<Slot, LayerError> {
        let mut slot = std::pin::pin!(Arc::clone(&self.slots).acquire_owned());
        while !members.is_empty() {
            let started = Instant::now();
            let done = tokio::select! {
                biased;
                Some(done) = members.next() => Ok(done),
                slot = &mut slot => Err(slot),
            };
            going.spent.waiting += started.elapsed();
            match done {
                Ok(done) => going.emit(done).await?,
                // The semaphore is never closed.
                Err(slot) => return slot.map(Some).map_err(|_closed| LayerError::Abandoned),
            }
        }
        Ok(None)
    }
}

/// What becomes of one layer, on its way to the registry.
struct Going {
    given: Hasher,
    output: Output,
    spent: Spent,
}

impl Going {
    /// Hands on a member that is done; its place is free once it is on its way.
    async fn emit(&mut self, member: Result<io::Result<Done>, RecvError>) -> Result<(), LayerError> {
        let Done { bytes, slot: _slot, compressing } =
            member.map_err(|_gone| LayerError::Core)?.map_err(LayerError::Encode)?;
        self.spent.compressing += compressing;
        self.send(bytes).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), LayerError> {
        self.spent.hashing += timed(|| self.given.update(&bytes)).1;
        let sent = awaited(&mut self.spent.sending, self.output.send(Ok(bytes))).await;
        sent.map_err(|_closed| LayerError::Abandoned)
    }

    /// Everything is sent, and `content` is what it was made from.
    fn sums(self, content: Hasher) -> (Sums, Spent) {
        let sums = Sums {
            uncompressed_bytes: content.bytes(),
            diff_id: DiffId(content.finish()),
            size_bytes: self.given.bytes(),
            digest: self.given.finish(),
        };
        (sums, self.spent)
    }
}

/// Hands the layer on as it is, and decodes a copy of it to learn what its content hashes to.
async fn pass_through(
    mut body: Body,
    codec: Codec,
    mut going: Going,
    progress: impl Fn(u64, u64) + Send + Sync,
) -> Result<(Sums, Spent), LayerError> {
    let (copies, receiver) = mpsc::channel::<Result<Bytes, ObjectError>>(1);
    let copy =
        stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|next| (next, receiver)) });
    let mut decoded = decode(copy.boxed(), codec, limits::LAYER_WINDOW_BYTES);
    let check = async {
        let (mut content, mut hashing) = (Hasher::default(), Duration::ZERO);
        while let Some(chunk) = decoded.next().await? {
            hashing += timed(|| content.update(&chunk)).1;
        }
        Ok::<_, LayerError>((content, hashing))
    };
    let hand_on = async {
        while let Some(chunk) = awaited(&mut going.spent.reading, body.next()).await {
            let chunk = chunk?;
            // A decoder that has stopped says why itself.
            awaited(&mut going.spent.waiting, copies.send(Ok(chunk.clone()))).await.ok();
            going.send(chunk).await?;
            progress(going.given.bytes(), going.given.bytes());
        }
        drop(copies);
        Ok::<_, LayerError>(going)
    };
    let ((content, hashing), mut going) = futures::future::try_join(check, hand_on).await?;
    going.spent.hashing += hashing;
    Ok(going.sums(content))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn body(bytes: &[u8], chunk: usize) -> Body {
        let chunks: Vec<_> = bytes.chunks(chunk.max(1)).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        stream::iter(chunks).boxed()
    }

    const GZIP: Compression = Compression::Gzip { level: 4 };
    const ZSTD: Compression = Compression::Zstd { level: 2 };

    fn run(bytes: &[u8], stored: Stored, chunk: usize, cores: usize) -> Result<(Sums, Vec<u8>), LayerError> {
        run_by(GZIP, bytes, stored, chunk, cores)
    }

    fn run_by(
        compression: Compression,
        bytes: &[u8],
        stored: Stored,
        chunk: usize,
        cores: usize,
    ) -> Result<(Sums, Vec<u8>), LayerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let compressor = Compressor::new(compression, cores);
            let (output, mut sent) = mpsc::channel(1);
            let body = body(bytes, chunk);
            let work = tokio::spawn(async move { compressor.run(body, stored, output, |_, _| {}).await });
            let mut written = Vec::new();
            while let Some(chunk) = sent.recv().await {
                written.extend_from_slice(&chunk.unwrap());
            }
            Ok((work.await.unwrap()?.0, written))
        })
    }

    fn unzipped(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        if bytes.starts_with(b"\x1f\x8b") {
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
        } else {
            zstd::stream::Decoder::new(bytes).unwrap().read_to_end(&mut plain).unwrap();
        }
        plain
    }

    /// Bytes that compress a little, with a period that no member shares.
    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at * at / 7 + at % 13) % 251).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// The output depends on the bytes alone: not on how they arrived, nor on the cores.
        #[test]
        fn any_chunking_on_any_cores_gives_the_same_bytes(
            length in 0..3 * limits::GZIP_MEMBER_BYTES, chunk in 1_000..2 * limits::GZIP_MEMBER_BYTES,
            cores in 1..5_usize, codec in 0..3_usize,
        ) {
            let codec = [GZIP, Compression::Gzip { level: 1 }, ZSTD][codec];
            // Twice as many frames as fit into one of zstd, of bytes as few as can be.
            let bytes = if codec == ZSTD { sample(length).repeat(3) } else { sample(length) };
            let (sums, written) = run_by(codec, &bytes, Stored::Plain, chunk, cores).unwrap();
            let (reference, expected) = run_by(codec, &bytes, Stored::Plain, usize::MAX, 1).unwrap();
            prop_assert_eq!(sums, reference);
            prop_assert!(written == expected);
            prop_assert_eq!(sums.digest, Digest::of(&written));
            prop_assert_eq!(sums.diff_id, DiffId(Digest::of(&bytes)));
            prop_assert_eq!(sums.size_bytes, written.len() as u64);
            prop_assert!(unzipped(&written) == bytes);
        }
    }

    /// Two layers on one core with fewer places than members: each waits for the other's, and neither for ever.
    #[test]
    fn layers_that_share_the_places_for_members_both_end() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let compressor = Compressor::new(GZIP, 1);
            let bytes = sample(8 * limits::GZIP_MEMBER_BYTES);
            let (outputs, works): (Vec<_>, Vec<_>) = (0..2)
                .map(|_| {
                    let (output, sent) = mpsc::channel(1);
                    let (compressor, body) = (compressor.clone(), body(&bytes, 100_000));
                    let run = async move { compressor.run(body, Stored::Plain, output, |_, _| {}).await };
                    (sent, tokio::spawn(run))
                })
                .unzip();
            // The second is listened to only after the first is whole.
            for (mut sent, work) in outputs.into_iter().zip(works).rev() {
                while sent.recv().await.is_some() {}
                work.await.unwrap().unwrap();
            }
        });
    }

    /// What a layer that was given up leaves waiting takes no core and no place from the next.
    #[test]
    fn a_layer_given_up_leaves_nothing_behind() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let compressor = Compressor::new(GZIP, 1);
            let bytes = sample(6 * limits::GZIP_MEMBER_BYTES);
            let run = |output| compressor.run(body(&bytes, 100_000), Stored::Plain, output, |_, _| {});
            for _ in 0..3 {
                // Nobody takes what comes out, so its members take every place.
                let (output, _sent) = mpsc::channel(1);
                let full = async {
                    while compressor.slots.available_permits() > 0 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    ended = run(output) => panic!("{ended:?}"),
                    () = full => {}
                }
            }
            let (output, mut sent) = mpsc::channel(1);
            let taken = async { while sent.recv().await.is_some() {} };
            let (ended, ()) = tokio::join!(run(output), taken);
            assert_eq!(ended.unwrap().0.diff_id, DiffId(Digest::of(&bytes)));
            assert_eq!(compressor.slots.available_permits(), MEMBERS_PER_CORE);
        });
    }

    /// Level 1 is libdeflate's level 2 where that pays, and elsewhere nearly as small as its level 1.
    #[test]
    fn level_1_takes_more_care_where_that_pays() {
        // Words of a vocabulary, in an order without a period; and hexadecimal digits, in which there is nothing to find.
        let scattered = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
        let words =
            (0..250_000).flat_map(|at| format!("{:x} ", scattered(scattered(at) % 200) % 4096).into_bytes()).collect();
        let digits = (0..500_000).flat_map(|at| format!("{:x}", scattered(at)).into_bytes()).collect();
        let libdeflate = |level, bytes: &Vec<u8>| {
            let mut encoder = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(level).unwrap());
            let mut output = vec![0; encoder.gzip_compress_bound(limits::GZIP_MEMBER_BYTES)];
            let members = bytes.chunks(limits::GZIP_MEMBER_BYTES);
            members.map(|member| encoder.gzip_compress(member, &mut output).unwrap() as u64).sum::<u64>()
        };
        let ours = |bytes: &Vec<u8>| {
            let (sums, _) = run_by(Compression::Gzip { level: 1 }, bytes, Stored::Plain, usize::MAX, 2).unwrap();
            sums.size_bytes
        };
        let [of_words, of_digits]: [Vec<u8>; 2] = [words, digits];
        assert_eq!(ours(&of_words), libdeflate(2, &of_words));
        assert!(ours(&of_words) < libdeflate(1, &of_words));
        let (ours, first, second) = (ours(&of_digits), libdeflate(1, &of_digits), libdeflate(2, &of_digits));
        assert!(ours != second && ours < first + first / 50, "{ours}, {first} and {second}");
    }

    #[test]
    fn a_compressed_layer_passes_untouched_and_its_diff_id_is_that_of_its_content() {
        let bytes = sample(700_000);
        let (_, zipped) = run(&bytes, Stored::Plain, 10_000, 2).unwrap();
        let (sums, written) = run(&zipped, Stored::Gzip, 4_096, 2).unwrap();
        assert!(written == zipped);
        assert_eq!((sums.diff_id, sums.uncompressed_bytes), (DiffId(Digest::of(&bytes)), 700_000));
        assert_eq!((sums.digest, sums.size_bytes), (Digest::of(&zipped), zipped.len() as u64));
    }

    #[test]
    fn a_zstd_layer_passes_untouched_and_what_no_registry_takes_becomes_gzip() {
        let bytes = sample(700_000);
        let zstd = zstd::stream::encode_all(bytes.as_slice(), 3).unwrap();
        let (sums, written) = run(&zstd, Stored::Zstd, 4_096, 2).unwrap();
        assert!(written == zstd);
        assert_eq!((sums.diff_id, sums.uncompressed_bytes), (DiffId(Digest::of(&bytes)), 700_000));
        let (plain, expected) = run(&bytes, Stored::Plain, 10_000, 2).unwrap();
        let (again, written) = run(&zstd, Stored::Recompressed(Codec::Zstd), 4_096, 2).unwrap();
        assert!(written == expected, "the same bytes as from the layer itself");
        assert_eq!(again, plain);
    }

    #[test]
    fn a_layer_s_window_and_expansion_have_limits() {
        use std::io::Write as _;
        let windowed = |log: u32, mebibytes: usize| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            for _ in 0..mebibytes {
                encoder.write_all(&vec![0; 1 << 20]).unwrap();
            }
            encoder.finish().unwrap()
        };
        let log = limits::LAYER_WINDOW_BYTES.ilog2();
        assert!(run(&windowed(log, 1), Stored::Zstd, 1_000, 2).is_ok());
        for (what, layer) in [("window", windowed(log + 1, 1)), ("expands", windowed(20, 300))] {
            for stored in [Stored::Zstd, Stored::Recompressed(Codec::Zstd)] {
                let error = run(&layer, stored, 1_000, 2).map(|(sums, _)| sums).unwrap_err();
                let text = crate::disposition::chain(&error);
                assert!(text.contains(what), "{what}: {text}");
                assert_eq!(error.disposition(), Disposition::Permanent, "{what}");
            }
        }
    }

    #[test]
    fn broken_gzip_is_the_upload_s_fault() {
        let (_, zipped) = run(&sample(300_000), Stored::Plain, 10_000, 2).unwrap();
        let mut flipped = zipped.clone();
        flipped[zipped.len() / 2] ^= 0xff;
        for (what, bytes) in
            [("cut off", &zipped[..zipped.len() - 9]), ("flipped", &flipped), ("no gzip", b"\x1f\x8bxxxxxxxxxxxxxxxx")]
        {
            let error = run(bytes, Stored::Gzip, 1_000, 2).unwrap_err();
            assert_eq!(error.disposition(), Disposition::Permanent, "{what}: {error}");
        }
    }
}
