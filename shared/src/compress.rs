//! Layer bytes in, the same compressed bytes out, every time.
//!
//! An uncompressed layer is cut into members of [`limits::MEMBER_BYTES`]; each is compressed by itself, on whatever
//! core is free, and they are emitted in order as one gzip file (RFC 1952, section 2.2: a gzip file is a series of
//! members). The output therefore depends on the bytes, the level and the version of libdeflate in Cargo.lock, and
//! never on timing, on how the bytes arrived, or on the number of cores.
//!
//! A layer that arrives compressed passes through untouched; it is decompressed beside, to check its diff ID. One that
//! no registry would take as it is, is decompressed and compressed again.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, FuturesOrdered};
use futures::{Stream, StreamExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::archive::Stored;
use crate::config::Compression;
use crate::decompress::{Codec, DecodeError, decode};
use crate::disposition::Disposition;
use crate::image::{DiffId, Digest, Hasher};
use crate::limits;
use crate::object::{Body, ObjectError};
use crate::retry::Disposed;

/// Members that may wait, for each core, between being cut and being emitted: one is compressed while the next
/// is read.
const MEMBERS_PER_CORE: usize = 2;

/// Compresses layers on all cores. Cheap to clone; all clones share the cores and the buffers.
#[derive(Debug, Clone)]
pub struct Compressor {
    level: u8,
    cores: usize,
    /// One permit for each core, over all layers at once.
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Worker>>>,
}

/// What one core needs: libdeflate's tables, and room for a member on both sides.
struct Worker {
    codec: libdeflater::Compressor,
    output: Vec<u8>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
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
    /// A compressing thread panicked.
    #[error("a compressing thread failed")]
    Thread(#[source] tokio::task::JoinError),
}

impl Disposed for LayerError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Object(object) => object.disposition(),
            Self::Decode(decode) => decode.disposition(),
            Self::Abandoned | Self::Thread(_) => Disposition::Transient,
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
pub type Output = mpsc::Sender<Result<Bytes, std::io::Error>>;

impl Compressor {
    /// A compressor that uses `cores` threads.
    pub fn new(compression: Compression, cores: usize) -> Self {
        let Compression::Gzip { level } = compression;
        let cores = cores.max(1);
        Self { level, cores, permits: Arc::new(Semaphore::new(cores)), idle: Arc::default() }
    }

    /// What determines the output beside the input: codec, level, member size, and the format's own version, which
    /// changes when a new libdeflate is locked that compresses differently.
    pub fn format(&self) -> String {
        format!("gzip-{}-{}k-v1", self.level, limits::MEMBER_BYTES >> 10)
    }

    /// Takes a layer from `body` and gives what is to be sent to `output`.
    ///
    /// Holds at most two members of [`limits::MEMBER_BYTES`] for each core, whatever the layer's size. `progress`
    /// hears the bytes taken and the bytes given so far.
    ///
    /// # Errors
    ///
    /// [`LayerError`]; what went to `output` until then must not be committed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the work; members under way are finished and thrown away.
    pub async fn run(
        &self,
        body: Body,
        stored: Stored,
        output: Output,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<Sums, LayerError> {
        match stored {
            Stored::Plain => self.compress(body, output, progress).await,
            Stored::Gzip => pass_through(body, Codec::Gzip, output, progress).await,
            Stored::Zstd => pass_through(body, Codec::Zstd, output, progress).await,
            Stored::Recompressed(codec) => {
                let decoded = decode(body, codec, limits::LAYER_WINDOW_BYTES);
                let plain = stream::try_unfold(decoded, |mut decoded| async move {
                    Ok::<_, DecodeError>(decoded.next().await?.map(|chunk| (chunk, decoded)))
                });
                self.compress(plain.boxed(), output, progress).await
            }
        }
    }

    async fn compress<E: Into<LayerError>>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
        output: Output,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<Sums, LayerError> {
        let mut taken = Hasher::default();
        let mut given = Hasher::default();
        let mut members = FuturesOrdered::new();
        let mut member = Vec::with_capacity(limits::MEMBER_BYTES);
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk.map_err(Into::into)?;
            taken.update(&chunk);
            while !chunk.is_empty() {
                let room = limits::MEMBER_BYTES - member.len();
                let part = chunk.split_to(room.min(chunk.len()));
                member.extend_from_slice(&part);
                if member.len() < limits::MEMBER_BYTES {
                    continue;
                }
                let full = std::mem::replace(&mut member, Vec::with_capacity(limits::MEMBER_BYTES));
                members.push_back(self.start(full));
                while members.len() > self.cores * MEMBERS_PER_CORE {
                    emit(members.next().await, &mut given, &output).await?;
                }
                progress(taken.bytes(), given.bytes());
            }
        }
        // An empty layer is one empty member, since a gzip file has at least one.
        if !member.is_empty() || taken.bytes() == 0 {
            members.push_back(self.start(member));
        }
        while let Some(next) = members.next().await {
            emit(Some(next), &mut given, &output).await?;
        }
        progress(taken.bytes(), given.bytes());
        Ok(Sums {
            uncompressed_bytes: taken.bytes(),
            diff_id: DiffId(taken.finish()),
            size_bytes: given.bytes(),
            digest: given.finish(),
        })
    }

    /// Compresses one member on the next free core.
    fn start(&self, member: Vec<u8>) -> AbortOnDropHandle<Result<Bytes, LayerError>> {
        let this = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            // The semaphore is never closed.
            let _permit = this.permits.acquire().await.map_err(|_closed| LayerError::Abandoned)?;
            let idle = Arc::clone(&this.idle);
            let mut worker = lock(&idle).pop().unwrap_or_else(|| Worker::new(this.level));
            let task = tokio::task::spawn_blocking(move || {
                let compressed = worker.compress(&member);
                lock(&idle).push(worker);
                compressed
            });
            task.await.map_err(LayerError::Thread)
        }))
    }
}

/// A panic in another thread leaves the list of idle workers as it was.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn emit(
    member: Option<Result<Result<Bytes, LayerError>, tokio::task::JoinError>>,
    given: &mut Hasher,
    output: &Output,
) -> Result<(), LayerError> {
    let Some(member) = member else { return Ok(()) };
    let member = member.map_err(LayerError::Thread)??;
    given.update(&member);
    output.send(Ok(member)).await.map_err(|_closed| LayerError::Abandoned)
}

impl Worker {
    fn new(level: u8) -> Self {
        let level = libdeflater::CompressionLvl::new(i32::from(level)).unwrap_or_default();
        let mut codec = libdeflater::Compressor::new(level);
        let output = vec![0; codec.gzip_compress_bound(limits::MEMBER_BYTES)];
        Self { codec, output }
    }

    fn compress(&mut self, member: &[u8]) -> Bytes {
        // The bound makes room for any member, so the one error there is cannot happen; an empty answer would be
        // caught by the check of what was sent.
        let written = self.codec.gzip_compress(member, &mut self.output).unwrap_or(0);
        Bytes::copy_from_slice(self.output.get(..written).unwrap_or_default())
    }
}

/// Hands the layer on as it is, and decodes a copy of it to learn what its content hashes to.
async fn pass_through(
    mut body: Body,
    codec: Codec,
    output: Output,
    progress: impl Fn(u64, u64) + Send + Sync,
) -> Result<Sums, LayerError> {
    let (copies, receiver) = mpsc::channel::<Result<Bytes, ObjectError>>(1);
    let copy =
        stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|next| (next, receiver)) });
    let mut decoded = decode(copy.boxed(), codec, limits::LAYER_WINDOW_BYTES);
    let check = async {
        let mut content = Hasher::default();
        while let Some(chunk) = decoded.next().await? {
            content.update(&chunk);
        }
        Ok::<_, LayerError>(content)
    };
    let hand_on = async {
        let mut given = Hasher::default();
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            given.update(&chunk);
            // A decoder that has stopped says why itself.
            copies.send(Ok(chunk.clone())).await.ok();
            output.send(Ok(chunk)).await.map_err(|_closed| LayerError::Abandoned)?;
            progress(given.bytes(), given.bytes());
        }
        drop(copies);
        Ok::<_, LayerError>(given)
    };
    let (content, given) = futures::future::try_join(check, hand_on).await?;
    Ok(Sums {
        uncompressed_bytes: content.bytes(),
        diff_id: DiffId(content.finish()),
        size_bytes: given.bytes(),
        digest: given.finish(),
    })
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

    fn run(bytes: &[u8], stored: Stored, chunk: usize, cores: usize) -> Result<(Sums, Vec<u8>), LayerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let compressor = Compressor::new(Compression::Gzip { level: 4 }, cores);
            let (output, mut sent) = mpsc::channel(1);
            let body = body(bytes, chunk);
            let work = tokio::spawn(async move { compressor.run(body, stored, output, |_, _| {}).await });
            let mut written = Vec::new();
            while let Some(chunk) = sent.recv().await {
                written.extend_from_slice(&chunk.unwrap());
            }
            Ok((work.await.unwrap()?, written))
        })
    }

    fn unzipped(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
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
            length in 0..3 * limits::MEMBER_BYTES, chunk in 1_000..2 * limits::MEMBER_BYTES, cores in 1..5_usize,
        ) {
            let bytes = sample(length);
            let (sums, written) = run(&bytes, Stored::Plain, chunk, cores).unwrap();
            let (reference, expected) = run(&bytes, Stored::Plain, usize::MAX, 1).unwrap();
            prop_assert_eq!(sums, reference);
            prop_assert!(written == expected);
            prop_assert_eq!(sums.digest, Digest::of(&written));
            prop_assert_eq!(sums.diff_id, DiffId(Digest::of(&bytes)));
            prop_assert_eq!(sums.size_bytes, written.len() as u64);
            prop_assert!(unzipped(&written) == bytes);
        }
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
