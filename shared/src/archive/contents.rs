//! Which images an archive holds, and where each of their blobs lies in it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::tar_index::Extent;
use super::{Archive, ArchiveError, dir, docker, docker_v1, oci};
use crate::decompress::Codec;
use crate::image::manifest::Platform;
use crate::image::{Descriptor, DiffId, Digest, Manifest, Tag};
use crate::naming::ArchiveName;
use crate::object::Source;

/// The images of one archive.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Which of the forms was taken.
    pub layout: Layout,
    /// At least one, in the order the archive names them.
    pub images: Vec<ArchiveImage>,
    /// What the archive names or holds and does not come along, in words: platforms of a sparse index, for one.
    pub left_out: Vec<String>,
}

/// The forms in which images are archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `manifest.json` is a list (Docker image spec v1.2): a manifest is built around the config.
    Docker,
    /// `repositories` alone (Docker image spec v1.0): config and manifest are built.
    DockerV1,
    /// `index.json` (OCI image spec, `image-layout.md`): manifests are taken byte for byte.
    Oci,
    /// `manifest.json` is a manifest, its blobs lie beside it (the `dir:` transport of skopeo and podman).
    Dir,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker archive",
            Self::DockerV1 => "Docker 1.0 archive",
            Self::Oci => "OCI layout",
            Self::Dir => "dir: layout",
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

    /// Everything of it that lies in the archive.
    pub fn extents(&self) -> Vec<&Extent> {
        match &self.content {
            Content::Docker(image) => std::iter::once(&image.config.extent)
                .chain(image.layers.iter().filter_map(|layer| layer.bytes.extent()))
                .collect(),
            Content::Oci(image) => image.blobs.iter().map(|blob| &blob.extent).collect(),
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

/// An image for which a manifest is to be made.
#[derive(Debug, Clone)]
pub struct DockerImage {
    /// The image config, unchanged.
    pub config: Blob,
    /// What the config says it runs on.
    pub platform: Option<Platform>,
    /// Lowest first.
    pub layers: Vec<DockerLayer>,
}

/// A layer for which a descriptor is to be made.
#[derive(Debug, Clone)]
pub struct DockerLayer {
    /// What the config says its uncompressed bytes hash to.
    pub diff_id: DiffId,
    /// Its bytes.
    pub bytes: LayerBytes,
}

/// Where the bytes of a layer are.
#[derive(Debug, Clone)]
pub enum LayerBytes {
    /// In the archive.
    Here {
        /// Where it lies.
        extent: Extent,
        /// How.
        stored: Stored,
    },
    /// Behind the descriptor's URLs: a foreign layer (OCI image spec, `layer.md`, "Non-Distributable Layers").
    Elsewhere(Descriptor),
}

impl LayerBytes {
    /// Where it lies, if it does.
    pub fn extent(&self) -> Option<&Extent> {
        match self {
            Self::Here { extent, .. } => Some(extent),
            Self::Elsewhere(_) => None,
        }
    }
}

/// How a layer is stored in the archive, by its first bytes, and so what is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// An uncompressed tar: compressed with gzip.
    Plain,
    /// Compressed with gzip: passed through untouched.
    Gzip,
    /// Compressed with zstd: passed through untouched.
    Zstd,
    /// Compressed in a way that no registry knows, or that the image is not to have: decompressed, and compressed with
    /// gzip.
    Recompressed(Codec),
}

impl Stored {
    pub(super) fn of(magic: &[u8]) -> Self {
        match Codec::of(magic) {
            None => Self::Plain,
            Some(Codec::Gzip) => Self::Gzip,
            Some(Codec::Zstd) => Self::Zstd,
            Some(codec @ (Codec::Xz | Codec::Bzip2)) => Self::Recompressed(codec),
        }
    }
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
    /// The tag by which it is found: cosign's `sha256-<hex>.sig` for a signature that has no subject.
    pub tag: Option<Tag>,
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
    /// An OCI layout is taken where it is complete, since it is pushed byte for byte; otherwise `manifest.json`.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; permanent unless the object could not be read.
    pub async fn read(source: &impl Source, archive: &Archive) -> Result<Self, ArchiveError> {
        let found = Self::find(source, archive).await;
        // What is missing from an archive that nothing closes was probably cut off.
        let Some(ends_at) = archive.index.open_end else { return found };
        let cut = |missing: String| Err(ArchiveError::CutOff { ends_at, missing });
        if let Ok(Self { left_out, .. }) = &found
            && let Some(missing) = left_out.first()
        {
            return cut(missing.clone());
        }
        match found {
            Err(ArchiveError::NoImage { filesystem: false, .. }) => {
                cut("index.json, manifest.json or repositories".to_owned())
            }
            Err(ArchiveError::LostManifest { .. }) => cut("manifest.json".to_owned()),
            Err(ArchiveError::Missing { entry, .. }) => cut(format!("{entry:?}")),
            found => found,
        }
    }

    async fn find(source: &impl Source, archive: &Archive) -> Result<Self, ArchiveError> {
        let files = Files { source, archive, root: root(archive)? };
        let has_manifest = files.has(docker::MANIFEST);
        if !files.has(oci::INDEX) {
            return if !has_manifest {
                docker_v1::read(&files).await
            } else if dir::is_dir(&files).await? {
                dir::read(&files).await
            } else {
                docker::read(&files).await
            };
        }
        let mut found = oci::read(&files).await;
        if has_manifest {
            let listed = docker::listed(&files).await;
            if let (Ok(found), Ok(listed)) = (&mut found, &listed) {
                docker::add_names(&mut found.images, listed);
            }
            let better = match (&found, &listed) {
                // Docker 25.0.0 wrote an index whose manifests have no layers (moby issue 47065), and every 25.0 an
                // empty one for an image without a name.
                (Err(ArchiveError::EcrRefuses { .. } | ArchiveError::Missing { .. }), Ok(_))
                | (Err(ArchiveError::NamesNothing { .. }), _) => true,
                (Ok(found), Ok(listed)) => found.images.is_empty() || found.images.len() < listed.len(),
                (Ok(found), Err(_)) => found.images.is_empty(),
                (Err(_), _) => false,
            };
            if better {
                match docker::read(&files).await {
                    Ok(mut docker) => {
                        // What the index lists beyond it is named all the same.
                        if let Ok(found) = &mut found {
                            docker.left_out.append(&mut found.left_out);
                        }
                        return Ok(docker);
                    }
                    Err(error) if !matches!(&found, Ok(found) if !found.images.is_empty()) => {
                        return Err(match found {
                            Err(first) if !matches!(first, ArchiveError::NamesNothing { .. }) => first,
                            _ => error,
                        });
                    }
                    Err(_) => {}
                }
            }
        }
        let found = found?;
        if found.images.is_empty() {
            return Err(match found.left_out.first() {
                Some(missing) => ArchiveError::Missing {
                    named_by: oci::INDEX.to_owned(),
                    entry: missing.clone(),
                    why: Some("every image of the index lacks some of its blobs".to_owned()),
                },
                None => ArchiveError::NamesNothing { entry: oci::INDEX.to_owned() },
            });
        }
        Ok(found)
    }
}

/// Folders inside folders in which a layout is looked for.
const ROOT_DEPTH: usize = 4;

/// Where `index.json` or its like lies: at the top, in the one folder around everything, or (packages that hold a
/// layout beside other things) in whichever folder has `index.json` beside `blobs`.
fn root(archive: &Archive) -> Result<String, ArchiveError> {
    const MARKS: [&str; 3] = [oci::INDEX, docker::MANIFEST, docker_v1::REPOSITORIES];
    let index = &archive.index;
    if MARKS.iter().any(|mark| index.contains(mark)) {
        return Ok(String::new());
    }
    // What `docker export` writes is recognised by the folders that every root filesystem has. Whatever lies in it, an
    // image in one of its folders is not what was meant.
    let has =
        |folder: &str| index.contains(folder) || index.paths().any(|path| path.starts_with(&format!("{folder}/")));
    let filesystem = ["etc", "usr", "bin", "var", "sbin"].iter().filter(|folder| has(folder)).count() >= 2;
    if filesystem {
        return Err(ArchiveError::NoImage { entries: index.len(), filesystem });
    }
    let with_blobs: HashSet<&str> =
        index.paths().filter_map(|path| path.split_once("/blobs/").map(|(folder, _)| folder)).collect();
    let mut layouts: Vec<&str> = index
        .paths()
        .filter_map(|path| path.strip_suffix(oci::INDEX)?.strip_suffix('/'))
        .filter(|folder| folder.split('/').count() <= ROOT_DEPTH)
        .filter(|folder| with_blobs.contains(folder) || index.contains(&format!("{folder}/oci-layout")))
        .collect();
    layouts.sort_unstable_by_key(|folder| (folder.split('/').count(), *folder));
    // A layout above others holds them.
    let shallowest = layouts.first().map_or(0, |folder| folder.split('/').count());
    layouts.retain(|folder| folder.split('/').count() == shallowest);
    match layouts.as_slice() {
        [] => {}
        [only] => return Ok(format!("{only}/")),
        [one, other, ..] => {
            return Err(ArchiveError::SeveralLayouts { one: (*one).to_owned(), other: (*other).to_owned() });
        }
    }
    let mut folders: Vec<&str> = index
        .paths()
        .filter_map(|path| path.split_once('/'))
        .filter(|(_, name)| MARKS.contains(name))
        .map(|(folder, _)| folder)
        .collect();
    folders.sort_unstable();
    folders.dedup();
    match folders.as_slice() {
        [] => Err(ArchiveError::NoImage { entries: index.len(), filesystem }),
        [only] => Ok(format!("{only}/")),
        [one, other, ..] => Err(ArchiveError::SeveralLayouts { one: (*one).to_owned(), other: (*other).to_owned() }),
    }
}

/// The archive's files as the parsers of all layouts see them: paths below the layout's root.
pub(super) struct Files<'a, S> {
    pub(super) source: &'a S,
    archive: &'a Archive,
    root: String,
}

impl<S: Source> Files<'_, S> {
    pub(super) fn has(&self, path: &str) -> bool {
        self.archive.index.contains(&format!("{}{path}", self.root))
    }

    /// The paths below the root, in no order.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.archive.index.paths().filter_map(|path| path.strip_prefix(&self.root))
    }

    /// The file under `path`, which `named_by` names.
    pub(super) fn file(&self, path: &str, named_by: &str) -> Result<Extent, ArchiveError> {
        self.archive.index.file(&format!("{}{path}", self.root)).map_err(|why| ArchiveError::Missing {
            named_by: named_by.to_owned(),
            entry: path.to_owned(),
            why,
        })
    }

    /// The bytes of a small file.
    pub(super) async fn json(&self, path: &str, named_by: &str) -> Result<Bytes, ArchiveError> {
        let extent = self.file(path, named_by)?;
        self.small(&extent).await
    }

    /// The bytes of a small file.
    pub(super) async fn small(&self, extent: &Extent) -> Result<Bytes, ArchiveError> {
        self.archive.small(self.source, extent).await
    }

    /// How the layer at `extent` is stored, by its first bytes.
    pub(super) async fn stored(&self, extent: &Extent) -> Result<Stored, ArchiveError> {
        self.archive.how_stored(self.source, extent).await
    }
}
