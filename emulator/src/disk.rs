//! Bytes on disk: bodies streamed into scratch files, files streamed back out, small JSON files.
//!
//! Whatever the size of a body, one mebibyte of it is being written or read while the next travels.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::task::{self, JoinHandle};

use crate::wire::Body;

/// How much is read or written at once: enough to make the hand-over to another thread cheap.
const CHUNK_BYTES: usize = 1 << 20;

/// Something that looks at every byte on its way to disk, such as a hash.
pub(crate) trait Absorb: Send + 'static {
    /// Takes the next bytes.
    fn absorb(&mut self, bytes: &[u8]);
}

/// A scratch file that a body streams into, one chunk being hashed and written while the next arrives.
///
/// The file is removed when this is dropped before [`Self::finish`].
#[derive(Debug)]
pub(crate) struct Sink<H> {
    work: Work<H>,
    pending: Vec<Bytes>,
    pending_bytes: u64,
    received_bytes: u64,
}

#[derive(Debug)]
enum Work<H> {
    Idle(Box<(NamedTempFile, H)>),
    Busy(JoinHandle<io::Result<Box<(NamedTempFile, H)>>>),
    Failed,
}

impl<H: Absorb> Sink<H> {
    /// A new, empty file in `folder`; every byte also goes through `hash`.
    pub(crate) fn create(folder: &Path, hash: H) -> io::Result<Self> {
        let file = NamedTempFile::new_in(folder)?;
        Ok(Self { work: Work::Idle(Box::new((file, hash))), pending: Vec::new(), pending_bytes: 0, received_bytes: 0 })
    }

    /// How many bytes have been pushed.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Takes the next bytes; waits when the disk is behind.
    ///
    /// After an error, or when the future is dropped, the sink may still be pushed to or dropped.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        let length = bytes.len() as u64;
        self.received_bytes += length;
        self.pending_bytes += length;
        self.pending.push(bytes);
        if self.pending_bytes >= CHUNK_BYTES as u64 {
            self.flush().await?;
        }
        Ok(())
    }

    /// Waits for the disk and returns the file, what hashed it, and its length in bytes.
    pub(crate) async fn finish(mut self) -> io::Result<(NamedTempFile, H, u64)> {
        self.flush().await?;
        let (file, hash) = *self.settle().await?;
        Ok((file, hash, self.received_bytes))
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut written = self.settle().await?;
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.work = Work::Busy(task::spawn_blocking(move || {
            for bytes in pending {
                written.1.absorb(&bytes);
                written.0.write_all(&bytes)?;
            }
            Ok(written)
        }));
        Ok(())
    }

    /// Waits until nothing is being written; leaves [`Work::Failed`] behind.
    async fn settle(&mut self) -> io::Result<Box<(NamedTempFile, H)>> {
        if let Work::Busy(handle) = &mut self.work {
            let written = handle.await;
            self.work = match written {
                Ok(Ok(written)) => Work::Idle(written),
                Ok(Err(error)) => {
                    self.work = Work::Failed;
                    return Err(error);
                }
                Err(error) => {
                    self.work = Work::Failed;
                    return Err(io::Error::other(error));
                }
            };
        }
        match std::mem::replace(&mut self.work, Work::Failed) {
            Work::Idle(written) => Ok(written),
            Work::Busy(_) | Work::Failed => Err(io::Error::other("an earlier write failed")),
        }
    }
}

/// Bytes `range` of the concatenation of `files` (each with its length), as they are read.
///
/// Files are opened when their turn comes. A file that is shorter than it should be ends the stream
/// with an error.
pub(crate) fn read(
    files: Vec<(PathBuf, u64)>,
    range: Range<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + use<> {
    let mut extents = VecDeque::new();
    let mut start = 0;
    for (path, size_bytes) in files {
        let end = start + size_bytes;
        let from = range.start.max(start);
        let to = range.end.min(end);
        if from < to {
            extents.push_back(Extent { path, offset: from - start, left: to - from });
        }
        start = end;
    }
    let reader = Reader { extents, open: None };
    stream::try_unfold(reader, |mut reader| async move {
        task::spawn_blocking(move || Ok(reader.next()?.map(|bytes| (bytes, reader)))).await.map_err(io::Error::other)?
    })
}

/// The stream of [`read`] as the body of an answer.
pub(crate) fn body(files: Vec<(PathBuf, u64)>, range: Range<u64>) -> Body {
    StreamBody::new(read(files, range).map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

#[derive(Debug)]
struct Extent {
    path: PathBuf,
    offset: u64,
    left: u64,
}

#[derive(Debug)]
struct Reader {
    extents: VecDeque<Extent>,
    open: Option<File>,
}

impl Reader {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(extent) = self.extents.front_mut() else {
            return Ok(None);
        };
        let file = match &mut self.open {
            Some(file) => file,
            closed => {
                let mut file = File::open(&extent.path)?;
                file.seek(SeekFrom::Start(extent.offset))?;
                closed.insert(file)
            }
        };
        let wanted = extent.left.min(CHUNK_BYTES as u64);
        let mut chunk = Chunk::empty();
        let got = file.take(wanted).read_to_end(&mut chunk.0)? as u64;
        if got < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        extent.left -= got;
        if extent.left == 0 {
            self.extents.pop_front();
            self.open = None;
        }
        Ok(Some(Bytes::from_owner(chunk)))
    }
}

/// Room for [`CHUNK_BYTES`], used again when its bytes have been sent: pages that the system has to find and clear cost
/// as much as a copy.
#[derive(Debug)]
struct Chunk(Vec<u8>);

/// Chunks that are not in use. At most [`IDLE_CHUNKS`].
static IDLE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// As many as are on their way when a few functions read several ranges each; more are made anew.
const IDLE_CHUNKS: usize = 16;

impl Chunk {
    fn empty() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(idle.unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES)))
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.0.clear();
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CHUNKS {
            idle.push(std::mem::take(&mut self.0));
        }
    }
}

/// Writes `value` as JSON to `path`, replacing what is there in one step.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a file without a folder"))?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The paths of all files below `folder` whose name ends in `.json`, in no order.
pub(crate) fn json_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|end| end == "json") {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Makes `folder` and empties it of what an earlier process left unfinished.
pub(crate) fn fresh_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[derive(Debug, Default)]
    struct Count(u64);

    impl Absorb for Count {
        fn absorb(&mut self, bytes: &[u8]) {
            self.0 += bytes.len() as u64;
        }
    }

    #[tokio::test]
    async fn a_sink_keeps_every_byte_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = Sink::create(folder.path(), Count::default()).unwrap();
        let mut expected = Vec::new();
        for round in 0..40_u8 {
            let bytes = vec![round; 100_003];
            expected.extend_from_slice(&bytes);
            sink.push(bytes.into()).await.unwrap();
        }
        let (file, count, length) = sink.finish().await.unwrap();
        assert_eq!(length, expected.len() as u64);
        assert_eq!(count.0, length);
        assert_eq!(std::fs::read(file.path()).unwrap(), expected);
    }

    #[tokio::test]
    async fn a_dropped_sink_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let sink = Sink::create(folder.path(), Count::default()).unwrap();
        drop(sink);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn ranges_cross_files() {
        let folder = tempfile::tempdir().unwrap();
        let parts = ["abc", "", "defgh", "i"];
        let files: Vec<(PathBuf, u64)> = parts
            .iter()
            .enumerate()
            .map(|(number, text)| {
                let path = folder.path().join(number.to_string());
                std::fs::write(&path, text).unwrap();
                (path, text.len() as u64)
            })
            .collect();
        let cases = [(0..9, "abcdefghi"), (0..1, "a"), (2..4, "cd"), (3..8, "defgh"), (8..9, "i"), (5..5, "")];
        for (range, expected) in cases {
            let chunks: Vec<Bytes> = read(files.clone(), range.clone()).try_collect().await.unwrap();
            assert_eq!(chunks.concat(), expected.as_bytes(), "{range:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_lost_bytes_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short");
        std::fs::write(&path, "abc").unwrap();
        let read: io::Result<Vec<Bytes>> = read(vec![(path, 4)], 0..4).try_collect().await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn json_is_replaced_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_json(&path, &1).unwrap();
        write_json(&path, &2).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2");
        assert_eq!(json_files(folder.path()).unwrap(), [path]);
        fresh_folder(folder.path()).unwrap();
        assert!(json_files(folder.path()).unwrap().is_empty());
    }
}
