//! What ECR holds: repositories, and one content-addressed folder of blobs and manifests.
//!
//! A blob's file is shared by all repositories; whether a repository *has* it is the repository's
//! own record. Each repository is one JSON file, held in memory and rewritten on every change.

mod digest;
mod findings;
mod manifest;
mod put;
mod repository;
mod scan_events;
mod scan_settings;
mod scans;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

pub use digest::{Digest, DigestError};
pub use findings::{Finding, FindingStatus, FindingsError, ScanEntry, ScanKind};
pub(crate) use manifest::{Kind, MAX_MANIFEST_BYTES, Manifest, Refusal};
pub(crate) use put::{NewImage, Put, PutError, image_action};
pub use repository::{Encryption, Image, Mutability, Repository, Settings};
pub(crate) use repository::{is_name, is_tag, repository_arn};
pub(crate) use scan_events::{counts, enhanced_finding};
pub use scan_settings::{ScanFilter, ScanRule, ScanType, Scanning};

use crate::{account, disk};

/// Why the image store could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// There is no repository of that name.
    #[error("there is no repository {0}")]
    NoRepository(String),
    /// There is one already.
    #[error("there is already a repository {0}")]
    Exists(String),
    /// The folder could not be read or written.
    #[error("the image store could not be read or written")]
    Io(#[from] io::Error),
    /// A file of the store is not what this program writes.
    #[error("{} is not a repository", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Settings of the account, as `PutAccountSetting` has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    /// Only what was set; ECR's defaults are elsewhere.
    settings: BTreeMap<String, String>,
    #[serde(default)]
    scanning: Scanning,
}

/// Repositories, images and blobs, in one folder.
#[derive(Debug)]
pub struct Images {
    folder: PathBuf,
    state: Mutex<State>,
    put_rate: Option<PutRate>,
    /// What scans find.
    findings: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    account: Account,
}

/// How many manifests may be put per second, counted in whole seconds.
#[derive(Debug)]
struct PutRate {
    per_second: u32,
    window: Mutex<(Instant, u32)>,
}

impl Images {
    /// Opens the store in `folder`, making it if it is missing.
    ///
    /// With `put_images_per_second`, further puts within the same second are throttled (ECR's quota
    /// is 10; ECR user guide, "Service quotas").
    ///
    /// # Errors
    ///
    /// [`ImagesError::Io`] or [`ImagesError::Damaged`].
    pub fn open(folder: PathBuf, put_images_per_second: Option<u32>) -> Result<Self, ImagesError> {
        for sub in ["blobs/sha256", "repositories"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        disk::fresh_folder(&folder.join("incoming"))?;
        let mut state = State::default();
        for path in disk::json_files(&folder.join("repositories"))? {
            let repository: Repository = read_json(&path)?;
            state.repositories.insert(repository.name.clone(), repository);
        }
        let account = folder.join("account.json");
        if account.exists() {
            state.account = read_json(&account)?;
        }
        Ok(Self {
            findings: folder.join("findings.json"),
            folder,
            state: Mutex::new(state),
            put_rate: put_images_per_second
                .map(|per_second| PutRate { per_second, window: Mutex::new((Instant::now(), 0)) }),
        })
    }

    /// The same store, with what scans find in the file `findings`.
    #[must_use]
    pub fn with_findings(self, findings: PathBuf) -> Self {
        Self { findings, ..self }
    }

    /// The names of all repositories, in order.
    pub fn repositories(&self) -> Vec<String> {
        self.lock().repositories.keys().cloned().collect()
    }

    /// A copy of the repository's record.
    pub fn repository(&self, name: &str) -> Option<Repository> {
        self.lock().repositories.get(name).cloned()
    }

    /// The image that `reference`, a tag or a digest, names.
    pub fn image(&self, repository: &str, reference: &str) -> Option<(Digest, Image)> {
        self.read(repository, |repository| {
            let digest = repository.resolve(reference)?;
            Some((digest, repository.images.get(&digest)?.clone()))
        })
        .ok()
        .flatten()
    }

    /// The exact bytes of a manifest.
    ///
    /// # Errors
    ///
    /// [`ImagesError::Io`] when there is none with this digest.
    pub fn manifest_bytes(&self, digest: &Digest) -> Result<Vec<u8>, ImagesError> {
        Ok(fs::read(self.blob_path(digest))?)
    }

    /// Where the bytes of a blob or manifest are, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    /// How many bytes the blob has, if the repository has it.
    pub fn blob_size_bytes(&self, repository: &str, digest: &Digest) -> Option<u64> {
        let has = self.read(repository, |repository| repository.blobs.contains(digest)).ok()?;
        if !has {
            return None;
        }
        Some(fs::metadata(self.blob_path(digest)).ok()?.len())
    }

    /// Makes the repository lose a blob, as ECR may any blob that no manifest names.
    ///
    /// # Errors
    ///
    /// [`ImagesError::NoRepository`] or [`ImagesError::Io`].
    pub fn forget_blob(&self, repository: &str, digest: &Digest) -> Result<(), ImagesError> {
        self.update(repository, |repository| {
            repository.blobs.remove(digest);
            Ok(())
        })
    }

    /// Sets tags on an image at once, and tells nobody: for repositories with thousands of them.
    ///
    /// # Errors
    ///
    /// [`ImagesError::NoRepository`] or [`ImagesError::Io`].
    pub fn set_tags(
        &self,
        repository: &str,
        digest: Digest,
        tags: impl IntoIterator<Item = String>,
    ) -> Result<(), ImagesError> {
        self.update(repository, |repository| {
            repository.tags.extend(tags.into_iter().map(|tag| (tag, digest)));
            Ok(())
        })
    }

    /// Makes an image as old as if it had been pushed at `at`: for what happens only when time has passed.
    ///
    /// # Errors
    ///
    /// [`ImagesError::NoRepository`] or [`ImagesError::Io`].
    pub fn set_pushed_at(&self, repository: &str, digest: &Digest, at: jiff::Timestamp) -> Result<(), ImagesError> {
        self.update(repository, |repository| {
            if let Some(image) = repository.images.get_mut(digest) {
                image.pushed_at = at;
            }
            Ok(())
        })
    }

    /// Creates a repository.
    ///
    /// # Errors
    ///
    /// [`ImagesError::Exists`] or [`ImagesError::Io`].
    pub fn create(&self, repository: Repository) -> Result<Repository, ImagesError> {
        let mut state = self.lock();
        if state.repositories.contains_key(&repository.name) {
            return Err(ImagesError::Exists(repository.name));
        }
        self.save(&repository)?;
        state.repositories.insert(repository.name.clone(), repository.clone());
        Ok(repository)
    }

    /// Removes a repository with everything that it alone refers to; blobs stay until then unseen.
    ///
    /// # Errors
    ///
    /// [`ImagesError::NoRepository`] or [`ImagesError::Io`].
    pub(crate) fn remove(&self, name: &str) -> Result<Repository, ImagesError> {
        let mut state = self.lock();
        let removed = state.repositories.remove(name).ok_or_else(|| ImagesError::NoRepository(name.to_owned()))?;
        fs::remove_file(self.repository_path(name))?;
        Ok(removed)
    }

    /// Looks at a repository without copying it.
    pub(crate) fn read<T>(&self, name: &str, look: impl FnOnce(&Repository) -> T) -> Result<T, ImagesError> {
        let state = self.lock();
        let repository = state.repositories.get(name).ok_or_else(|| ImagesError::NoRepository(name.to_owned()))?;
        Ok(look(repository))
    }

    /// Changes a repository and saves it; nothing is changed when `change` or saving fails.
    pub(crate) fn update<T, E: From<ImagesError>>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Repository) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.lock();
        let repository = state.repositories.get_mut(name).ok_or_else(|| ImagesError::NoRepository(name.to_owned()))?;
        let mut changed = repository.clone();
        let done = change(&mut changed)?;
        self.save(&changed).map_err(ImagesError::Io)?;
        *repository = changed;
        Ok(done)
    }

    /// Where bodies are written before their digest is known.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    /// Keeps a written body as the blob `digest`, which its bytes hash to, and notes that the
    /// repository has it.
    pub(crate) fn keep_blob(&self, repository: &str, digest: Digest, file: NamedTempFile) -> Result<(), ImagesError> {
        file.persist(self.blob_path(&digest)).map_err(|error| error.error)?;
        self.note_blob(repository, digest)
    }

    /// Notes that the repository has the blob, whose bytes are here already.
    pub(crate) fn note_blob(&self, repository: &str, digest: Digest) -> Result<(), ImagesError> {
        self.update(repository, |repository| {
            repository.blobs.insert(digest);
            Ok(())
        })
    }

    /// Whether `from` may give the blob to another repository: it has it, and one of its manifests
    /// names it (containers-roadmap issue 2860).
    pub(crate) fn can_mount(&self, from: &str, digest: &Digest) -> bool {
        let named = self.read(from, |repository| {
            repository.blobs.contains(digest) && repository.images.values().any(|image| image.blobs.contains(digest))
        });
        named.unwrap_or(false)
    }

    /// The value of an account setting, or ECR's default.
    pub fn account_setting(&self, name: &str) -> Option<String> {
        let default = match name {
            "BASIC_SCAN_TYPE_VERSION" => "AWS_NATIVE",
            "REGISTRY_POLICY_SCOPE" => "V2",
            "BLOB_MOUNTING" => "DISABLED",
            _ => return None,
        };
        let state = self.lock();
        let set = state.account.settings.get(name).cloned();
        Some(set.unwrap_or_else(|| default.to_owned()))
    }

    /// Changes an account setting.
    ///
    /// # Errors
    ///
    /// [`ImagesError::Io`].
    pub fn set_account_setting(&self, name: &str, value: &str) -> Result<(), ImagesError> {
        self.change_account(|account| {
            account.settings.insert(name.to_owned(), value.to_owned());
        })?;
        Ok(())
    }

    /// Whether another manifest may be put in this second.
    pub(crate) fn may_put(&self) -> bool {
        let Some(rate) = &self.put_rate else {
            return true;
        };
        let mut window = rate.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0.elapsed() >= Duration::from_secs(1) {
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        window.1 <= rate.per_second
    }

    fn save(&self, repository: &Repository) -> io::Result<()> {
        disk::write_json(&self.repository_path(&repository.name), repository)
    }

    /// `+` is in no repository name.
    fn repository_path(&self, name: &str) -> PathBuf {
        let file = format!("{}.json", name.replace('/', "+"));
        Path::new(&self.folder).join("repositories").join(file)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ECR's text for a repository that does not exist.
pub(crate) fn no_repository(name: &str) -> String {
    format!("The repository with name '{name}' does not exist in the registry with id '{}'", account::ID)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ImagesError> {
    serde_json::from_slice(&fs::read(path)?).map_err(|source| ImagesError::Damaged { path: path.to_owned(), source })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// A store with one empty repository.
    pub(crate) fn store(folder: &Path, repository: &str) -> Images {
        let images = Images::open(folder.to_owned(), None).unwrap();
        if images.repository(repository).is_none() {
            let settings = Settings::default();
            images.create(Repository::new(repository, settings, BTreeMap::new())).unwrap();
        }
        images
    }

    /// Puts `text` into the repository as a blob.
    pub(crate) fn blob(images: &Images, repository: &str, text: &str) -> Digest {
        let mut file = NamedTempFile::new_in(images.incoming()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let digest = Digest::of(text.as_bytes());
        images.keep_blob(repository, digest, file).unwrap();
        digest
    }

    #[test]
    fn everything_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let digest = {
            let images = store(folder.path(), "team/app");
            images.set_account_setting("BLOB_MOUNTING", "ENABLED").unwrap();
            blob(&images, "team/app", "bytes")
        };
        let images = store(folder.path(), "team/app");
        assert_eq!(images.repositories(), ["team/app"]);
        assert_eq!(images.blob_size_bytes("team/app", &digest), Some(5));
        assert_eq!(images.account_setting("BLOB_MOUNTING").as_deref(), Some("ENABLED"));
        assert_eq!(images.account_setting("OTHER"), None);
        images.forget_blob("team/app", &digest).unwrap();
        assert_eq!(images.blob_size_bytes("team/app", &digest), None);
        images.remove("team/app").unwrap();
        let again = Images::open(folder.path().to_owned(), None).unwrap();
        assert!(again.repositories().is_empty());
    }

    #[test]
    fn a_failed_change_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let images = store(folder.path(), "r");
        let failed: Result<(), ImagesError> = images.update("r", |repository| {
            repository.policy = Some("{}".to_owned());
            Err(ImagesError::Exists("r".to_owned()))
        });
        assert!(failed.is_err());
        assert_eq!(images.repository("r").unwrap().policy, None);
        let missing: Result<(), ImagesError> = images.update("other", |_| Ok(()));
        assert!(matches!(missing, Err(ImagesError::NoRepository(_))));
    }

    #[test]
    fn puts_are_counted_per_second() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(folder.path().to_owned(), Some(0)).unwrap();
        assert!(!images.may_put());
        let images = Images::open(folder.path().to_owned(), None).unwrap();
        assert!((0..100).all(|_| images.may_put()));
    }
}
