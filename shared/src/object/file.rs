//! A tarball on disk, read as an object is: for `gantry plan`, and for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{Body, ObjectError, Source};

/// Bytes read from disk at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// A file that does not change while it is read.
#[derive(Debug, Clone)]
pub struct FileSource {
    path: Arc<PathBuf>,
    length_bytes: u64,
}

impl FileSource {
    /// Takes the file's length.
    ///
    /// # Errors
    ///
    /// [`ObjectError::File`] (permanent) when it cannot be looked at or is a folder.
    pub async fn open(path: &Path) -> Result<Self, ObjectError> {
        let failed = |source| ObjectError::File { path: path.display().to_string(), source };
        let metadata = tokio::fs::metadata(path).await.map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self { path: Arc::new(path.to_owned()), length_bytes: metadata.len() })
    }

    fn failed(&self, source: std::io::Error) -> ObjectError {
        ObjectError::File { path: self.path.display().to_string(), source }
    }
}

impl Source for FileSource {
    fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    async fn get(&self, offset: u64, length: u64) -> Result<Body, ObjectError> {
        let mut file = tokio::fs::File::open(&*self.path).await.map_err(|error| self.failed(error))?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(|error| self.failed(error))?;
        let this = self.clone();
        let chunks = stream::try_unfold((file.take(length), this), |(mut file, this)| async move {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES.min(usize::try_from(file.limit()).unwrap_or(CHUNK_BYTES)));
            if chunk.capacity() == 0 {
                return Ok(None);
            }
            let read = file.read_buf(&mut chunk).await.map_err(|error| this.failed(error))?;
            Ok((read > 0).then(|| (Bytes::from(chunk), (file, this))))
        });
        Ok(chunks.boxed())
    }
}
