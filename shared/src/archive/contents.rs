//! Which images an archive holds, and where each of their blobs lies in it.

use std::sync::Arc;

use bytes::Bytes;

use super::tar_index::{Extent, TarIndex};
use super::{ArchiveError, docker, oci};
use crate::image::manifest::Platform;
use crate::image::{Descriptor, DiffId, Digest, Manifest};
use crate::limits;
use crate::naming::ArchiveName;
use crate::object::{Source, read_exact};

/// The images of one archive.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Which of the two forms was taken.
    pub layout: Layout,
    /// At least one, in the order the archive names them.
    pub images: Vec<ArchiveImage>,
    /// What the archive names and does not hold, in words: platforms of a sparse index, for one.
    pub left_out: Vec<String>,
}

/// The two forms in which images are archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `manifest.json` (Docker image spec v1.2): a manifest is built around the config.
    Docker,
    /// `index.json` (OCI image spec, `image-layout.md`): manifests are taken byte for byte.
    Oci,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker archive",
            Self::Oci => "OCI layout",
        })
    }
}

/// One image, artifact or index with everything below it.
#[derive(Debug, Clone)]
pub struct ArchiveImage {
    /// The archive's own names for it.
    pub names: Vec<ArchiveName>,
    /// What it is made of.
    pub content: Content,
}

impl ArchiveImage {
    /// The image ID for a Docker archive, the manifest's digest for an OCI layout: stable over repeated uploads.
    pub fn id(&self) -> Digest {
        match &self.content {
            Content::Docker(image) => image.config.descriptor.digest,
            Content::Oci(image) => image.config.unwrap_or_else(|| image.root().digest),
        }
    }

    /// The platforms it runs on, as far as the archive says.
    pub fn platforms(&self) -> Vec<String> {
        match &self.content {
            Content::Docker(image) => image.platform.iter().map(ToString::to_string).collect(),
            Content::Oci(image) => image.platforms.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What an image is made of.
#[derive(Debug, Clone)]
pub enum Content {
    /// A config and layers, for which a manifest is to be made.
    Docker(Box<DockerImage>),
    /// Manifests as they are.
    Oci(Box<OciImage>),
}

/// An image of a Docker archive.
#[derive(Debug, Clone)]
pub struct DockerImage {
    /// The image config, unchanged.
    pub config: Blob,
    /// What the config says it runs on.
    pub platform: Option<Platform>,
    /// Lowest first.
    pub layers: Vec<DockerLayer>,
}

/// A layer of a Docker archive.
#[derive(Debug, Clone)]
pub struct DockerLayer {
    /// What the config says its uncompressed bytes hash to.
    pub diff_id: DiffId,
    /// Where it lies.
    pub extent: Extent,
    /// How.
    pub stored: Stored,
}

/// How a layer is stored in the archive, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// An uncompressed tar: to be compressed.
    Plain,
    /// Compressed with gzip: passed through untouched.
    Gzip,
}

/// An image, artifact or index of an OCI layout.
#[derive(Debug, Clone)]
pub struct OciImage {
    /// In the order in which they are put: children, then the root, then referrers.
    pub manifests: Vec<OciManifest>,
    /// Where the root stands in `manifests`.
    pub root_at: usize,
    /// Every config and layer that they name and the archive holds, each once.
    pub blobs: Vec<Blob>,
    /// The config's digest, when the root is one image.
    pub config: Option<Digest>,
    /// The platforms that the root covers.
    pub platforms: Vec<Platform>,
}

impl OciImage {
    /// The manifest that gets the tags.
    pub fn root(&self) -> &Manifest {
        // `root_at` is set by the only constructor, from the position it pushed the root to.
        self.manifests.get(self.root_at).map_or_else(|| unreachable!("an OCI image has a root"), |m| &m.manifest)
    }
}

/// A manifest on its way to the registry.
#[derive(Debug, Clone)]
pub struct OciManifest {
    /// Its bytes and what they say.
    pub manifest: Arc<Manifest>,
    /// Whether it speaks of another manifest and is put after it.
    pub referrer: bool,
}

/// A config or layer whose digest is known before it is read.
#[derive(Debug, Clone)]
pub struct Blob {
    /// What its manifest says of it.
    pub descriptor: Descriptor,
    /// Where it lies.
    pub extent: Extent,
}

impl Contents {
    /// Finds the images by reading the JSON entries: one or two ranged reads, and one or two for each image.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; permanent unless the object could not be read.
    pub async fn read(source: &impl Source, index: &TarIndex) -> Result<Self, ArchiveError> {
        let files = Files { source, index, root: root(index)? };
        let oci = if files.has("index.json") { Some(oci::read(&files).await?) } else { None };
        match oci {
            Some(found) if !found.images.is_empty() => Ok(found),
            sparse if files.has("manifest.json") => {
                let mut found = docker::read(&files).await?;
                found.left_out = sparse.map(|found| found.left_out).unwrap_or_default();
                Ok(found)
            }
            Some(empty) => Err(match empty.left_out.first() {
                Some(missing) => ArchiveError::Missing {
                    named_by: "index.json".to_owned(),
                    entry: missing.clone(),
                    why: Some("every image of the index lacks some of its blobs".to_owned()),
                },
                None => ArchiveError::NamesNothing { entry: "index.json".to_owned() },
            }),
            None => Err(ArchiveError::Unsupported {
                layout: "a Docker 1.0 archive (repositories, but neither manifest.json nor index.json)",
            }),
        }
    }
}

/// Where `index.json` or its like lies: at the top, or in the one folder around everything.
fn root(index: &TarIndex) -> Result<String, ArchiveError> {
    const MARKS: [&str; 3] = ["index.json", "manifest.json", "repositories"];
    let folder = index.wrapping_folder().map(|folder| format!("{folder}/"));
    for root in std::iter::once(String::new()).chain(folder) {
        if MARKS.iter().any(|mark| index.contains(&format!("{root}{mark}"))) {
            return Ok(root);
        }
    }
    // What `docker export` writes is recognised by the folders that every root filesystem has.
    let filesystem = ["etc", "usr", "bin"].iter().filter(|folder| index.contains(folder)).count() >= 2;
    Err(ArchiveError::NoImage { entries: index.len(), filesystem })
}

/// The archive's files as the parsers of both layouts see them: paths below the layout's root.
pub(super) struct Files<'a, S> {
    source: &'a S,
    index: &'a TarIndex,
    root: String,
}

impl<S: Source> Files<'_, S> {
    pub(super) fn has(&self, path: &str) -> bool {
        self.index.contains(&format!("{}{path}", self.root))
    }

    /// The file under `path`, which `named_by` names.
    pub(super) fn file(&self, path: &str, named_by: &str) -> Result<&Extent, ArchiveError> {
        self.index.file(&format!("{}{path}", self.root)).map_err(|why| ArchiveError::Missing {
            named_by: named_by.to_owned(),
            entry: path.to_owned(),
            why,
        })
    }

    /// The bytes of a small file.
    pub(super) async fn json(&self, path: &str, named_by: &str) -> Result<Bytes, ArchiveError> {
        let extent = self.file(path, named_by)?;
        if extent.size_bytes > limits::JSON_BYTES {
            return Err(ArchiveError::OverLimit {
                what: format!("the JSON entry {path:?}"),
                offset: extent.offset,
                found: extent.size_bytes,
                limit: limits::JSON_BYTES,
            });
        }
        Ok(read_exact(self.source, extent.range()).await?)
    }

    /// How the layer at `extent` is stored, by its first bytes.
    pub(super) async fn stored(&self, extent: &Extent) -> Result<Stored, ArchiveError> {
        const GZIP: &[u8] = b"\x1f\x8b";
        let magic = if (extent.magic.len() as u64) < extent.size_bytes.min(GZIP.len() as u64) {
            read_exact(self.source, extent.offset..extent.offset + GZIP.len() as u64).await?
        } else {
            extent.magic.clone()
        };
        Ok(if magic.starts_with(GZIP) { Stored::Gzip } else { Stored::Plain })
    }
}
