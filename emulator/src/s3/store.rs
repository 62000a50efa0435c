//! Buckets on disk: every version of every key, and which one is current.
//!
//! A bucket is a folder: `content/` has the bytes under random names, `keys/` one JSON file per key
//! (named by the key's hash, since keys may hold anything), `uploads/` one per unfinished multipart
//! upload, and `incoming/` what is being written. Metadata is also held in memory.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use uuid::Uuid;

use crate::{
    clock, disk,
    s3::{
        BucketSettings,
        sums::Checksum,
        uploads::{Upload, Uploads},
    },
};

/// The version id of everything in a bucket without versions.
pub(crate) const NULL_VERSION: &str = "null";

/// One version of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    /// Opaque and unique, or [`NULL_VERSION`].
    pub id: String,
    /// Greater than that of every earlier version of the bucket.
    pub sequence: u64,
    /// When it became visible.
    pub modified: Timestamp,
    /// `None`: a delete marker.
    pub object: Option<Object>,
}

impl Version {
    /// The sequencer as events have it: hexadecimal, comparable as text since all have one length.
    pub(crate) fn sequencer(&self) -> String {
        sequencer(self.sequence)
    }
}

/// What a version that is no delete marker holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    /// The files its bytes are in: one, or one per part.
    pub segments: Vec<Segment>,
    /// Without quotes.
    pub etag: String,
    pub checksum: Checksum,
    pub described: Described,
    pub tags: Tags,
}

/// Tags by key.
pub(crate) type Tags = BTreeMap<String, String>;

impl Object {
    /// How many bytes the object has.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size_bytes).sum()
    }

    /// How many parts it was uploaded in; `None` when it was not.
    pub(crate) fn parts(&self) -> Option<usize> {
        self.etag.contains('-').then_some(self.segments.len())
    }
}

/// A file in the bucket's `content/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub file: String,
    pub size_bytes: u64,
}

/// The headers that an object keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

/// What must be true of a key for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`, the `ETag` without quotes.
    Matches(String),
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the key's current version is not as the condition wants it")]
    Precondition,
    #[error("the key has no current version")]
    Missing,
    #[error("the bucket could not be written")]
    Io(#[from] io::Error),
}

/// What a delete did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// The version made or removed; `None` in a bucket without versions.
    pub version: Option<String>,
    /// Whether that version is a delete marker.
    pub marker: bool,
    /// What was deleted, as events have it; `None` when there was nothing.
    pub event: Option<Deletion>,
}

/// A deletion that changed something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    /// Whether a marker was made, and not a version removed for good.
    pub made_marker: bool,
    /// The sequencer of the change.
    pub sequencer: String,
    /// Without quotes; `None` for a marker.
    pub etag: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: String,
    /// Oldest first.
    versions: Vec<Version>,
}

#[derive(Debug, Default)]
struct Keys {
    entries: BTreeMap<String, Entry>,
    last_sequence: u64,
}

/// One bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) settings: BucketSettings,
    folder: PathBuf,
    pub(crate) created: Timestamp,
    keys: Mutex<Keys>,
    pub(crate) uploads: Uploads,
}

impl Bucket {
    /// Reads the bucket that `folder` holds, or makes it; removes what no key or upload refers to.
    pub(crate) fn open(folder: PathBuf, settings: BucketSettings) -> io::Result<Self> {
        for sub in ["content", "keys", "uploads"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        disk::fresh_folder(&folder.join("incoming"))?;
        let mut keys = Keys::default();
        for path in disk::json_files(&folder.join("keys"))? {
            let entry: Entry = serde_json::from_slice(&fs::read(&path)?)?;
            for version in &entry.versions {
                keys.last_sequence = keys.last_sequence.max(version.sequence);
            }
            keys.entries.insert(entry.key.clone(), entry);
        }
        let uploads = Uploads::open(folder.join("uploads"))?;
        let bucket = Self { created: clock::now(), settings, folder, keys: Mutex::new(keys), uploads };
        bucket.sweep()?;
        Ok(bucket)
    }

    /// Where bodies are written before they have a name.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    /// The files of `segments` with their lengths, as [`disk::read`] takes them.
    pub(crate) fn files(&self, segments: &[Segment]) -> Vec<(PathBuf, u64)> {
        segments.iter().map(|segment| (self.content(&segment.file), segment.size_bytes)).collect()
    }

    /// Gives a written body its place in the bucket.
    pub(crate) fn keep(&self, file: NamedTempFile, size_bytes: u64) -> io::Result<Segment> {
        let name = Uuid::new_v4().simple().to_string();
        file.persist(self.content(&name)).map_err(|error| error.error)?;
        Ok(Segment { file: name, size_bytes })
    }

    /// Gives the bytes of `segments` of the bucket `from` another name here, without copying them.
    pub(crate) fn link(&self, from: &Self, segments: &[Segment]) -> io::Result<Vec<Segment>> {
        segments
            .iter()
            .map(|segment| {
                let name = Uuid::new_v4().simple().to_string();
                fs::hard_link(from.content(&segment.file), self.content(&name))?;
                Ok(Segment { file: name, size_bytes: segment.size_bytes })
            })
            .collect()
    }

    /// Removes the bytes of `segments`, which nothing refers to any more.
    pub(crate) fn discard(&self, segments: &[Segment]) {
        for segment in segments {
            if let Err(error) = fs::remove_file(self.content(&segment.file)) {
                tracing::warn!(%error, file = segment.file, "could not remove an object's bytes");
            }
        }
    }

    /// Makes `object` the current version of `key`, if `condition` holds at that moment.
    ///
    /// Concurrent writers with conditions exclude each other: of two `Absent` ones, one wins. On an
    /// error the object's bytes are removed.
    pub(crate) fn put(&self, key: &str, object: Object, condition: &Condition) -> Result<Version, WriteError> {
        let segments = object.segments.clone();
        let mut keys = self.lock();
        let written =
            check(keys.current(key), condition).and_then(|()| Ok(self.append(&mut keys, key, Some(object))?));
        drop(keys);
        if written.is_err() {
            self.discard(&segments);
        }
        written
    }

    /// The current version of `key`, which may be a delete marker.
    pub(crate) fn current(&self, key: &str) -> Option<Version> {
        let keys = self.lock();
        keys.entries.get(key)?.versions.last().cloned()
    }

    /// The version `id` of `key`.
    pub(crate) fn version(&self, key: &str, id: &str) -> Option<Version> {
        let keys = self.lock();
        let versions = &keys.entries.get(key)?.versions;
        versions.iter().find(|version| version.id == id).cloned()
    }

    /// Deletes `key`: makes a delete marker, or removes the version `id` for good.
    pub(crate) fn delete(&self, key: &str, id: Option<&str>) -> io::Result<Deleted> {
        let mut keys = self.lock();
        if id.is_none() && self.settings.versioned {
            let marker = self.append(&mut keys, key, None)?;
            let event = Deletion { made_marker: true, sequencer: marker.sequencer(), etag: None };
            return Ok(Deleted { version: Some(marker.id), marker: true, event: Some(event) });
        }
        let wanted = id.unwrap_or(NULL_VERSION);
        let mut deleted = Deleted { version: id.map(str::to_owned), marker: false, event: None };
        let Some(entry) = keys.entries.get_mut(key) else {
            return Ok(deleted);
        };
        let Some(position) = entry.versions.iter().position(|version| version.id == wanted) else {
            return Ok(deleted);
        };
        let removed = entry.versions.remove(position);
        deleted.marker = removed.object.is_none();
        if entry.versions.is_empty() {
            keys.entries.remove(key);
            fs::remove_file(self.key_file(key))?;
        } else {
            disk::write_json(&self.key_file(key), entry)?;
        }
        keys.last_sequence = next_sequence(keys.last_sequence, clock::now());
        deleted.event = Some(Deletion {
            made_marker: false,
            sequencer: sequencer(keys.last_sequence),
            etag: removed.object.as_ref().map(|object| object.etag.clone()),
        });
        drop(keys);
        if let Some(object) = removed.object {
            self.discard(&object.segments);
        }
        Ok(deleted)
    }

    /// Replaces the tags of the version `id` of `key`.
    pub(crate) fn tag(&self, key: &str, id: &str, tags: Tags) -> Result<(), WriteError> {
        let mut keys = self.lock();
        let entry = keys.entries.get_mut(key).ok_or(WriteError::Missing)?;
        let object = entry
            .versions
            .iter_mut()
            .find(|version| version.id == id)
            .and_then(|version| version.object.as_mut())
            .ok_or(WriteError::Missing)?;
        object.tags = tags;
        disk::write_json(&self.key_file(key), entry)?;
        Ok(())
    }

    /// Calls `visit` with the keys that are greater than `after` and begin with `prefix`, in order,
    /// each with its versions, oldest first, until it returns `false`.
    pub(crate) fn walk(&self, prefix: &str, after: &str, mut visit: impl FnMut(&str, &[Version]) -> bool) {
        let keys = self.lock();
        for (key, entry) in keys.entries.range(prefix.max(after).to_owned()..) {
            if !key.starts_with(prefix) {
                break;
            }
            if (after.is_empty() || key.as_str() > after) && !visit(key, &entry.versions) {
                break;
            }
        }
    }

    fn append(&self, keys: &mut Keys, key: &str, object: Option<Object>) -> io::Result<Version> {
        let modified = clock::now();
        let sequence = next_sequence(keys.last_sequence, modified);
        let version = Version {
            id: if self.settings.versioned { version_id() } else { NULL_VERSION.to_owned() },
            sequence,
            modified,
            object,
        };
        let mut versions = keys.entries.get(key).map(|entry| entry.versions.clone()).unwrap_or_default();
        let replaced =
            versions.iter().position(|earlier| earlier.id == version.id).map(|position| versions.remove(position));
        versions.push(version.clone());
        let entry = Entry { key: key.to_owned(), versions };
        let path = self.key_file(key);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        disk::write_json(&path, &entry)?;
        keys.last_sequence = sequence;
        keys.entries.insert(key.to_owned(), entry);
        if let Some(object) = replaced.and_then(|version| version.object) {
            self.discard(&object.segments);
        }
        Ok(version)
    }

    fn sweep(&self) -> io::Result<()> {
        let mut used: HashSet<String> = HashSet::new();
        for entry in self.lock().entries.values() {
            for object in entry.versions.iter().filter_map(|v| v.object.as_ref()) {
                used.extend(object.segments.iter().map(|segment| segment.file.clone()));
            }
        }
        self.uploads.visit(|upload: &Upload| {
            used.extend(upload.parts.values().map(|part| part.segment.file.clone()));
        });
        for file in fs::read_dir(self.folder.join("content"))? {
            let file = file?;
            if !file.file_name().to_str().is_some_and(|name| used.contains(name)) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    fn content(&self, file: &str) -> PathBuf {
        self.folder.join("content").join(file)
    }

    fn key_file(&self, key: &str) -> PathBuf {
        let hash = hex::encode(Sha256::digest(key));
        Path::new(&self.folder).join("keys").join(&hash[..2]).join(format!("{hash}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn current(&self, key: &str) -> Option<&Object> {
        self.entries.get(key)?.versions.last()?.object.as_ref()
    }
}

fn sequencer(sequence: u64) -> String {
    format!("{sequence:018X}")
}

/// The time in nanoseconds, or one more than the last.
fn next_sequence(last: u64, now: Timestamp) -> u64 {
    u64::try_from(now.as_nanosecond()).unwrap_or_default().max(last + 1)
}

fn check(current: Option<&Object>, condition: &Condition) -> Result<(), WriteError> {
    match (condition, current) {
        (Condition::Always, _) | (Condition::Absent, None) => Ok(()),
        (Condition::Matches(_), None) => Err(WriteError::Missing),
        (Condition::Matches(etag), Some(object)) if *etag == object.etag => Ok(()),
        (Condition::Absent | Condition::Matches(_), Some(_)) => Err(WriteError::Precondition),
    }
}

/// 32 characters, as S3's are; never a leading `-`, which the AWS CLI would take for an option.
fn version_id() -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    URL_SAFE_NO_PAD.encode(&random[..24]).replace('-', ".")
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use super::*;
    use crate::s3::sums::Algorithm;

    fn bucket(folder: &Path, versioned: bool) -> Bucket {
        let settings = BucketSettings { name: "b".to_owned(), versioned, event_bridge: false };
        Bucket::open(folder.to_owned(), settings).unwrap()
    }

    fn object(bucket: &Bucket, text: &str) -> Object {
        let mut file = NamedTempFile::new_in(bucket.incoming()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Object {
            segments: vec![bucket.keep(file, text.len() as u64).unwrap()],
            etag: format!("etag of {text}"),
            checksum: Checksum { algorithm: Algorithm::Crc64Nvme, value: String::new() },
            described: Described::default(),
            tags: Tags::new(),
        }
    }

    fn text(bucket: &Bucket, version: &Version) -> String {
        let segments = &version.object.as_ref().unwrap().segments;
        fs::read_to_string(&bucket.files(segments)[0].0).unwrap()
    }

    fn contents(folder: &Path) -> usize {
        fs::read_dir(folder.join("content")).unwrap().count()
    }

    #[test]
    fn versions_stay_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let key = "a/../ü\u{1}/ \"x\"//";
        let first = {
            let bucket = bucket(folder.path(), true);
            let first = bucket.put(key, object(&bucket, "one"), &Condition::Always).unwrap();
            bucket.put(key, object(&bucket, "two"), &Condition::Always).unwrap();
            bucket.tag(key, &first.id, Tags::from([("k".into(), "v".into())])).unwrap();
            first
        };
        let bucket = bucket(folder.path(), true);
        let current = bucket.current(key).unwrap();
        assert_eq!(text(&bucket, &current), "two");
        assert!(current.sequencer() > first.sequencer());
        let again = bucket.version(key, &first.id).unwrap();
        assert_eq!(text(&bucket, &again), "one");
        assert_eq!(again.object.unwrap().tags["k"], "v");
        let third = bucket.put(key, object(&bucket, "three"), &Condition::Always).unwrap();
        assert!(third.sequence > current.sequence);
    }

    #[test]
    fn without_versions_the_bytes_of_the_last_one_go() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = bucket(folder.path(), false);
        for text in ["one", "two"] {
            let version = bucket.put("k", object(&bucket, text), &Condition::Always).unwrap();
            assert_eq!(version.id, NULL_VERSION);
        }
        assert_eq!(contents(folder.path()), 1);
        let deleted = bucket.delete("k", None).unwrap();
        assert_eq!((&deleted.version, deleted.marker), (&None, false));
        assert_eq!(bucket.current("k"), None);
        assert_eq!(contents(folder.path()), 0);
    }

    #[test]
    fn delete_markers_hide_and_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = bucket(folder.path(), true);
        let kept = bucket.put("k", object(&bucket, "x"), &Condition::Always).unwrap();
        let marker = bucket.delete("k", None).unwrap();
        assert!(marker.marker);
        assert_eq!(bucket.current("k").unwrap().object, None);
        let removed = bucket.delete("k", marker.version.as_deref()).unwrap();
        assert!(removed.marker);
        assert_eq!(bucket.current("k").unwrap(), kept);
        bucket.delete("k", Some(&kept.id)).unwrap();
        assert_eq!(bucket.current("k"), None);
        assert_eq!(contents(folder.path()), 0);
    }

    #[test]
    fn conditions() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = bucket(folder.path(), true);
        let attempt = |text: &str, condition: &Condition| bucket.put("k", object(&bucket, text), condition).map(drop);
        let matches = |text: &str| Condition::Matches(format!("etag of {text}"));
        assert!(matches!(attempt("a", &matches("a")), Err(WriteError::Missing)));
        attempt("a", &Condition::Absent).unwrap();
        assert!(matches!(attempt("b", &Condition::Absent), Err(WriteError::Precondition)));
        assert!(matches!(attempt("b", &matches("b")), Err(WriteError::Precondition)));
        attempt("b", &matches("a")).unwrap();
        bucket.delete("k", None).unwrap();
        assert!(matches!(attempt("c", &matches("b")), Err(WriteError::Missing)));
        attempt("c", &Condition::Absent).unwrap();
        assert_eq!(contents(folder.path()), 3, "refused bodies must not be left");
    }

    #[test]
    fn of_many_writers_that_want_the_key_absent_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Arc::new(bucket(folder.path(), true));
        let won: usize = (0..8)
            .map(|number| {
                let bucket = Arc::clone(&bucket);
                std::thread::spawn(move || {
                    let object = object(&bucket, &number.to_string());
                    usize::from(bucket.put("k", object, &Condition::Absent).is_ok())
                })
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert_eq!(won, 1);
    }

    #[test]
    fn orphans_are_swept_and_copies_share_bytes() {
        let folder = tempfile::tempdir().unwrap();
        {
            let bucket = bucket(folder.path(), true);
            object(&bucket, "orphan");
            let mut copy = object(&bucket, "kept");
            let source = bucket.put("k", copy.clone(), &Condition::Always).unwrap();
            copy.segments = bucket.link(&bucket, &copy.segments).unwrap();
            bucket.put("l", copy, &Condition::Always).unwrap();
            bucket.delete("k", Some(&source.id)).unwrap();
        }
        let bucket = bucket(folder.path(), true);
        assert_eq!(contents(folder.path()), 1);
        assert_eq!(text(&bucket, &bucket.current("l").unwrap()), "kept");
    }

    #[test]
    fn walking_begins_after_a_key_and_keeps_to_a_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = bucket(folder.path(), true);
        for key in ["a", "b/1", "b/2", "b/3", "c"] {
            bucket.put(key, object(&bucket, key), &Condition::Always).unwrap();
        }
        let cases = [
            ("", "", vec!["a", "b/1", "b/2", "b/3", "c"]),
            ("b/", "", vec!["b/1", "b/2", "b/3"]),
            ("b/", "b/1", vec!["b/2", "b/3"]),
            ("", "b/3", vec!["c"]),
            ("b/", "c", vec![]),
            ("b/", "a", vec!["b/1", "b/2", "b/3"]),
        ];
        for (prefix, after, expected) in cases {
            let mut seen = Vec::new();
            bucket.walk(prefix, after, |key, _| {
                seen.push(key.to_owned());
                true
            });
            assert_eq!(seen, expected, "{prefix:?} after {after:?}");
        }
    }
}
