//! Multipart uploads that are not finished yet.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    disk,
    s3::{
        store::{Described, Segment, Tags},
        sums::{Algorithm, Checksum},
    },
};

/// One multipart upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub id: String,
    pub key: String,
    pub initiated: Timestamp,
    pub algorithm: Algorithm,
    /// Whether the object's checksum will be one over the parts' checksums.
    pub composite: bool,
    pub described: Described,
    pub tags: Tags,
    /// By part number.
    pub parts: BTreeMap<i32, Part>,
}

/// One uploaded part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub segment: Segment,
    pub md5: [u8; 16],
    pub checksum: Checksum,
    pub modified: Timestamp,
}

impl Part {
    /// The part's `ETag`, without quotes.
    pub(crate) fn etag(&self) -> String {
        hex::encode(self.md5)
    }
}

/// The unfinished uploads of one bucket, each in a JSON file of its own.
#[derive(Debug)]
pub(crate) struct Uploads {
    folder: PathBuf,
    by_id: Mutex<BTreeMap<String, Upload>>,
}

impl Uploads {
    /// Reads what `folder` holds.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        let mut by_id = BTreeMap::new();
        for path in disk::json_files(&folder)? {
            let upload: Upload = serde_json::from_slice(&fs::read(path)?)?;
            by_id.insert(upload.id.clone(), upload);
        }
        Ok(Self { folder, by_id: Mutex::new(by_id) })
    }

    /// Begins an upload.
    pub(crate) fn begin(&self, upload: Upload) -> io::Result<()> {
        let mut by_id = self.lock();
        disk::write_json(&self.file(&upload.id), &upload)?;
        by_id.insert(upload.id.clone(), upload);
        Ok(())
    }

    /// The upload `id` of `key`.
    pub(crate) fn get(&self, key: &str, id: &str) -> Option<Upload> {
        let by_id = self.lock();
        by_id.get(id).filter(|upload| upload.key == key).cloned()
    }

    /// Adds a part; returns the bytes of the part that it replaces, `None` if the upload is gone.
    pub(crate) fn add(&self, id: &str, number: i32, part: Part) -> io::Result<Option<Vec<Segment>>> {
        let mut by_id = self.lock();
        let Some(upload) = by_id.get_mut(id) else {
            return Ok(None);
        };
        let replaced = upload.parts.insert(number, part);
        disk::write_json(&self.file(id), upload)?;
        Ok(Some(replaced.into_iter().map(|part| part.segment).collect()))
    }

    /// Ends an upload and returns it; its parts' bytes are the caller's now. Only one caller gets it.
    pub(crate) fn end(&self, id: &str) -> io::Result<Option<Upload>> {
        let mut by_id = self.lock();
        let Some(upload) = by_id.remove(id) else {
            return Ok(None);
        };
        fs::remove_file(self.file(id))?;
        Ok(Some(upload))
    }

    /// Calls `visit` with every unfinished upload.
    pub(crate) fn visit(&self, visit: impl FnMut(&Upload)) {
        self.lock().values().for_each(visit);
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Upload>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn an_upload_survives_a_restart_and_ends_once() {
        let folder = tempfile::tempdir().unwrap();
        let part = |file: &str| Part {
            segment: Segment { file: file.to_owned(), size_bytes: 1 },
            md5: [7; 16],
            checksum: Checksum { algorithm: Algorithm::Crc32, value: String::new() },
            modified: clock::now(),
        };
        {
            let uploads = Uploads::open(folder.path().to_owned()).unwrap();
            let upload = Upload {
                id: "u".to_owned(),
                key: "k".to_owned(),
                initiated: clock::now(),
                algorithm: Algorithm::Crc32,
                composite: true,
                described: Described::default(),
                tags: Tags::new(),
                parts: BTreeMap::new(),
            };
            uploads.begin(upload).unwrap();
            assert_eq!(uploads.add("u", 2, part("a")).unwrap(), Some(vec![]));
            let replaced = uploads.add("u", 2, part("b")).unwrap().unwrap();
            assert_eq!(replaced[0].file, "a");
            assert_eq!(uploads.add("other", 1, part("c")).unwrap(), None);
        }
        let uploads = Uploads::open(folder.path().to_owned()).unwrap();
        assert!(uploads.get("other key", "u").is_none());
        let upload = uploads.get("k", "u").unwrap();
        assert_eq!(upload.parts[&2].etag(), "07".repeat(16));
        assert!(uploads.end("u").unwrap().is_some());
        assert!(uploads.end("u").unwrap().is_none());
        let reopened = Uploads::open(folder.path().to_owned()).unwrap();
        assert!(reopened.get("k", "u").is_none());
    }
}
