//! The data folder's lock, and `stack.json`, by which other processes find the stack.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::StackError;
use crate::{account, disk};

/// How long a second process waits for the first one's endpoint.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it looks.
const GLANCE: Duration = Duration::from_millis(50);

/// The content of `stack.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Published {
    pid: u32,
    endpoint: String,
    version: String,
    account: String,
    region: String,
}

impl Published {
    pub(super) fn new(endpoint: &str) -> Self {
        Self {
            pid: std::process::id(),
            endpoint: endpoint.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            account: account::ID.to_owned(),
            region: account::REGION.to_owned(),
        }
    }
}

/// The locked folder. The lock ends with the process, whatever happens to it.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    published: bool,
    _lock: File,
}

impl Record {
    /// Makes the folder and locks it.
    pub(super) async fn lock(folder: &Path) -> Result<Self, StackError> {
        let unusable = |source: io::Error| StackError::Data { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(unusable)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(folder.join("lock")).map_err(unusable)?;
        let path = folder.join("stack.json");
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(holder(folder, &path).await),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        // Left behind by a process that was killed.
        remove(&path);
        Ok(Self { path, published: false, _lock: lock })
    }

    /// Writes `stack.json`.
    pub(super) fn publish(&mut self, endpoint: &str) -> io::Result<()> {
        disk::write_json(&self.path, &Published::new(endpoint))?;
        self.published = true;
        Ok(())
    }

    /// Removes `stack.json`.
    pub(super) fn withdraw(&mut self) {
        if std::mem::take(&mut self.published) {
            remove(&self.path);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Who holds the folder, as soon as it says so.
async fn holder(folder: &Path, path: &Path) -> StackError {
    let published = async {
        loop {
            let published = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Published>(&bytes).ok());
            if let Some(published) = published {
                return published;
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    match tokio::time::timeout(PATIENCE, published).await {
        Ok(published) => StackError::Running { endpoint: published.endpoint },
        Err(_) => StackError::Busy { folder: folder.to_owned() },
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "{} could not be removed", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_stack_hears_where_the_first_one_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("stack.json"), r#"{"stale":true}"#).unwrap();
        let mut first = Record::lock(folder.path()).await.unwrap();
        assert!(!folder.path().join("stack.json").exists());
        first.publish("http://127.0.0.1:4566").unwrap();
        let second = Record::lock(folder.path()).await.unwrap_err();
        assert_eq!(second.to_string(), "a stack is already running at http://127.0.0.1:4566");
        drop(first);
        assert!(!folder.path().join("stack.json").exists());
        Record::lock(folder.path()).await.unwrap();
    }
}
