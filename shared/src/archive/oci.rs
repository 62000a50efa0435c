//! OCI layouts: `index.json` names manifests, manifests name blobs, all under `blobs/sha256/<hex>` (OCI image spec,
//! `image-layout.md`).
//!
//! Everything is taken byte for byte. A sparse index, which lists platforms that the archive does not hold (Docker
//! writes such by design), is pruned to what is there; if one image remains, its own manifest takes its place.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::contents::{ArchiveImage, Blob, Content, Contents, Files, Layout, OciImage, OciManifest};
use super::referrers::{self, Companion, Of};
use super::{ArchiveError, Extent, ecr_rules};
use crate::image::manifest::{ImageConfig, ImageManifest, Index, Parsed, Platform, sniffed_media_type};
use crate::image::{Descriptor, Digest, Manifest, MediaType};
use crate::limits;
use crate::naming::ArchiveName;
use crate::object::Source;

pub(super) const INDEX: &str = "index.json";

/// Where containerd and Docker keep the full name.
const FULL_NAME: &str = "io.containerd.image.name";
/// Where everyone keeps a name or a tag (OCI image spec, `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where old zarf packages keep the only name they have; elsewhere it is what the image was built on.
const BASE_NAME: &str = "org.opencontainers.image.base.name";

pub(super) async fn read<S: Source>(files: &Files<'_, S>) -> Result<Contents, ArchiveError> {
    let bytes = files.json(INDEX, "an OCI layout").await?;
    let top: Index = parse(&bytes, INDEX, "an OCI index")?;
    if top.manifests.is_empty() {
        return Err(ArchiveError::NamesNothing { entry: INDEX.to_owned() });
    }
    let mut reader = Reader::new(files, BlobNames::Oci);
    let mut images: Vec<ArchiveImage> = Vec::new();
    let mut at: HashMap<Digest, usize> = HashMap::new();
    let mut companions: Vec<Companion> = Vec::new();
    for entry in &top.manifests {
        let name = name_of(entry);
        if let Some(image) = at.get(&entry.digest).and_then(|at| images.get_mut(*at)) {
            // One entry for each tag: the same image again.
            image.names.extend(name.filter(|name| !image.names.contains(name)));
            continue;
        }
        let cosign = referrers::cosign_ending(entry);
        let subject = if name.is_none() { reader.subject(entry).await? } else { None };
        let of = match (cosign, subject) {
            (_, Some(subject)) => Some(Of::Subject(subject)),
            (Some(ending), None) => Some(Of::Named(name.clone(), ending)),
            (None, None) => None,
        };
        if let Some(of) = of {
            companions.extend(reader.companion(entry).await?.map(|tree| Companion { of, tree }));
            continue;
        }
        let Some(tree) = reader.tree(entry, 0).await? else { continue };
        if images.len() == limits::IMAGES {
            return Err(ArchiveError::OverLimit {
                what: "the number of images in index.json".to_owned(),
                offset: files.file(INDEX, "an OCI layout")?.offset,
                found: top.manifests.len() as u64,
                limit: limits::IMAGES as u64,
            });
        }
        let image = reader.image(entry, tree).await?;
        // A sparse index and an entry of its own may come to the same image.
        let root = image.root().digest;
        let same = |known: &&mut ArchiveImage| matches!(&known.content, Content::Oci(it) if it.root().digest == root);
        if let Some(known) = images.iter_mut().find(same) {
            known.names.extend(name.filter(|name| !known.names.contains(name)));
        } else {
            at.insert(entry.digest, images.len());
            images.push(ArchiveImage { names: name.into_iter().collect(), content: Content::Oci(image.into()) });
        }
    }
    referrers::attach(&mut images, companions, &mut reader.left_out);
    referrers::unindexed(files, &mut reader, &mut images).await?;
    Ok(Contents { layout: Layout::Oci, images, left_out: reader.left_out })
}

/// Adds the blobs that are not known yet.
pub(super) fn extend_blobs(blobs: &mut Vec<Blob>, more: Vec<Blob>) {
    let mut known: HashSet<Digest> = blobs.iter().map(|blob| blob.descriptor.digest).collect();
    blobs.extend(more.into_iter().filter(|blob| known.insert(blob.descriptor.digest)));
}

fn name_of(entry: &Descriptor) -> Option<ArchiveName> {
    let named = |key: &&str| entry.annotations.get(*key).and_then(|name| ArchiveName::parse(name));
    [FULL_NAME, REF_NAME, BASE_NAME].iter().find_map(named)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &Bytes, entry: &str, wanted: &'static str) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|source| ArchiveError::BadJson { entry: entry.to_owned(), wanted, source })
}

/// What a blob's file is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlobNames {
    /// `blobs/sha256/<hex>`
    Oci,
    /// `<hex>`, and `<hex>.manifest.json` for the manifests of an index; `<hex>.tar` in old versions.
    Dir,
}

/// A manifest with everything below it that the archive holds: children first, itself last.
pub(super) struct Tree {
    pub(super) manifests: Vec<Arc<Manifest>>,
    pub(super) blobs: Vec<Blob>,
    platforms: Vec<Platform>,
}

impl Tree {
    fn top(&self) -> Option<&Arc<Manifest>> {
        self.manifests.last()
    }
}

/// Reads manifests and what lies below them.
pub(super) struct Reader<'a, 'b, S> {
    files: &'a Files<'b, S>,
    names: BlobNames,
    manifests: usize,
    /// Bytes of all of them.
    manifests_bytes: u64,
    /// Configs and layers that they name, each as often as it is named.
    blobs_named: u64,
    /// Every manifest that was asked for, also those that came to nothing.
    pub(super) met: HashSet<Digest>,
    pub(super) left_out: Vec<String>,
}

/// A recursive future has to be boxed.
type TreeFuture<'f> = Pin<Box<dyn Future<Output = Result<Option<Tree>, ArchiveError>> + Send + 'f>>;

impl<'a, 'b, S: Source> Reader<'a, 'b, S> {
    pub(super) fn new(files: &'a Files<'b, S>, names: BlobNames) -> Self {
        Self {
            files,
            names,
            manifests: 0,
            manifests_bytes: 0,
            blobs_named: 0,
            met: HashSet::new(),
            left_out: Vec::new(),
        }
    }

    /// The file of a blob, whether it is there or not.
    pub(super) fn path(&self, digest: Digest) -> String {
        let hex = digest.hex();
        match self.names {
            BlobNames::Oci => format!("blobs/sha256/{hex}"),
            BlobNames::Dir => {
                let other = ["manifest.json", "tar"].map(|ending| format!("{hex}.{ending}"));
                other.into_iter().find(|path| self.files.has(path)).unwrap_or(hex)
            }
        }
    }

    /// Why a layout whose only manifest came to nothing cannot be imported.
    pub(super) fn nothing_left(&self, named_by: &str) -> ArchiveError {
        let entry = self.left_out.first().cloned().unwrap_or_default();
        let why = Some("some of its blobs are not in the archive".to_owned());
        ArchiveError::Missing { named_by: named_by.to_owned(), entry, why }
    }

    /// What `entry` speaks of, when it is a referrer.
    async fn subject(&self, entry: &Descriptor) -> Result<Option<Digest>, ArchiveError> {
        let path = self.path(entry.digest);
        if !self.files.has(&path) {
            return Ok(None);
        }
        let bytes = self.files.json(&path, INDEX).await?;
        // What is no manifest has no subject; it is refused when it is read as one.
        let subject = serde_json::from_slice(&bytes).ok().and_then(|manifest: Value| {
            manifest.pointer("/subject/digest").and_then(Value::as_str).and_then(|digest| digest.parse().ok())
        });
        Ok(subject)
    }

    /// What the archive holds of a referrer; `None`, with a note, when it is not whole or ECR would refuse it: the
    /// image it speaks of is no worse for that.
    pub(super) async fn companion(&mut self, entry: &Descriptor) -> Result<Option<Tree>, ArchiveError> {
        let before = self.left_out.len();
        match self.tree(entry, 0).await {
            Ok(Some(tree)) => Ok(Some(tree)),
            Ok(None) => {
                self.left_out.truncate(before);
                self.left_out.push(format!("the referrer {}, some of whose blobs are missing", entry.digest));
                Ok(None)
            }
            Err(ArchiveError::EcrRefuses { why, .. }) => {
                self.left_out.push(format!("the referrer {}, which ECR refuses: {why}", entry.digest));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What the archive holds of `entry`; `None`, with a note, when it holds too little of it to be used.
    pub(super) fn tree<'f>(&'f mut self, entry: &'f Descriptor, depth: usize) -> TreeFuture<'f> {
        Box::pin(async move {
            self.manifests = self.manifests.saturating_add(1);
            for (what, found, limit) in [
                ("the number of manifests", self.manifests, limits::MANIFESTS),
                ("the depth of indexes in indexes", depth, limits::INDEX_DEPTH),
            ] {
                if found > limit {
                    let offset = self.files.file(INDEX, "an OCI layout").map_or(0, |index| index.offset);
                    let (what, found, limit) = (what.to_owned(), found as u64, limit as u64);
                    return Err(ArchiveError::OverLimit { what, offset, found, limit });
                }
            }
            self.met.insert(entry.digest);
            let path = self.path(entry.digest);
            if !self.files.has(&path) {
                self.left_out.push(described(entry));
                return Ok(None);
            }
            let bytes = self.files.json(&path, INDEX).await?;
            let found = Digest::of(&bytes);
            if found != entry.digest {
                return Err(ArchiveError::WrongDigest { entry: path, found, wanted: entry.digest });
            }
            self.tree_of(bytes, &path, entry, depth).await
        })
    }

    /// The same for a manifest that is read already.
    pub(super) async fn tree_of(
        &mut self,
        bytes: Bytes,
        path: &str,
        entry: &Descriptor,
        depth: usize,
    ) -> Result<Option<Tree>, ArchiveError> {
        let bad = |source| ArchiveError::BadJson { entry: path.to_owned(), wanted: "a manifest", source };
        // All of them are held until they are put.
        self.manifests_bytes = self.manifests_bytes.saturating_add(bytes.len() as u64);
        over("the size of all manifests together", self.manifests_bytes, limits::ALL_MANIFESTS_BYTES)?;
        // What the manifest says of itself is what ECR compares the `Content-Type` with; without it (it was optional
        // in OCI 1.0) its descriptor counts, and without that its shape.
        let own: MediaType = match crate::image::manifest::own_media_type(&bytes).map_err(bad)? {
            Some(own) => own,
            None if entry.media_type.manifest_kind().is_some() => entry.media_type.clone(),
            None => sniffed_media_type(&bytes).map_err(bad)?,
        };
        if own.manifest_kind().is_none() {
            return Err(ArchiveError::EcrRefuses {
                image: format!("manifest {}", entry.digest),
                why: format!(
                    "it is of a type that it does not store, {own}; wanted an OCI or Docker (schema 2) manifest or index"
                ),
            });
        }
        let manifest = Manifest::parse(bytes, own).map_err(bad)?;
        match &manifest.parsed {
            Parsed::Image(image) => {
                let Some(blobs) = self.blobs(image, &manifest)? else {
                    self.left_out.push(described(entry));
                    return Ok(None);
                };
                let runs = !entry.is_attestation() && image.config.media_type.is_image_config();
                let platforms = entry.platform.clone().filter(|_| runs).into_iter().collect();
                ecr_rules::check(&manifest)?;
                Ok(Some(Tree { manifests: vec![Arc::new(manifest)], blobs, platforms }))
            }
            Parsed::Index(index) => {
                let mut children = Vec::new();
                for child in &index.manifests {
                    if let Some(tree) = self.tree(child, depth.saturating_add(1)).await? {
                        children.push((child.clone(), tree));
                    }
                }
                self.assemble(&manifest, index.manifests.len(), children)
            }
        }
    }

    /// The config and layers of `image` that the archive holds; `None` when one is absent that has to be there.
    fn blobs(&mut self, image: &ImageManifest, manifest: &Manifest) -> Result<Option<Vec<Blob>>, ArchiveError> {
        self.blobs_named = self.blobs_named.saturating_add(image.layers.len() as u64).saturating_add(1);
        over("the number of blobs that manifests name", self.blobs_named, limits::BLOBS)?;
        let mut blobs = Vec::new();
        let mut known = HashSet::new();
        for descriptor in std::iter::once(&image.config).chain(&image.layers) {
            if !known.insert(descriptor.digest) {
                continue;
            }
            let path = self.path(descriptor.digest);
            let extent = if self.files.has(&path) {
                self.files.file(&path, &manifest.digest.to_string())?
            } else if descriptor.media_type.is_foreign_layer() && !descriptor.urls.is_empty() {
                continue;
            } else if let Some(content) = descriptor.embedded() {
                Extent::made(&path, content)
            } else {
                return Ok(None);
            };
            if extent.size_bytes != descriptor.size_bytes {
                let (found_bytes, wanted_bytes) = (extent.size_bytes, descriptor.size_bytes);
                return Err(ArchiveError::WrongSize { entry: path, found_bytes, wanted_bytes });
            }
            blobs.push(Blob { descriptor: descriptor.clone(), extent });
        }
        Ok(Some(blobs))
    }

    /// An index over the children that are there: itself when all are, pruned when some are not, the only child
    /// itself when one image remains, nothing when none does.
    fn assemble(
        &mut self,
        manifest: &Manifest,
        listed: usize,
        mut children: Vec<(Descriptor, Tree)>,
    ) -> Result<Option<Tree>, ArchiveError> {
        let complete = children.len() == listed;
        if !complete {
            // What speaks of an image that is not there would speak of nothing.
            let there: HashSet<Digest> = children.iter().map(|(child, _)| child.digest).collect();
            children.retain(|(child, _)| child.attested().is_none_or(|image| there.contains(&image)));
            let images = children.iter().filter(|(child, _)| !child.is_attestation()).count();
            if images == 0 {
                return Ok(None);
            }
            if images == 1 {
                let mut only = None;
                for (child, tree) in children {
                    if child.is_attestation() {
                        self.left_out.push(format!("the attestation {}, since one image remains", child.digest));
                    } else {
                        only = Some(tree);
                    }
                }
                return Ok(only);
            }
        }
        // A child that was pruned itself is another manifest by now.
        let same = children.iter().all(|(child, tree)| tree.top().is_some_and(|top| top.digest == child.digest));
        let tops =
            || children.iter().filter_map(|(child, tree)| Some((child.digest, Arc::clone(tree.top()?)))).collect();
        let index = if complete && same { manifest.clone() } else { rewritten(manifest, &tops())? };
        ecr_rules::check(&index)?;
        let mut whole = Tree { manifests: Vec::new(), blobs: Vec::new(), platforms: Vec::new() };
        let mut known = HashSet::new();
        for (_, tree) in children {
            whole.manifests.extend(tree.manifests.into_iter().filter(|manifest| known.insert(manifest.digest)));
            whole.platforms.extend(tree.platforms);
            extend_blobs(&mut whole.blobs, tree.blobs);
        }
        whole.manifests.push(Arc::new(index));
        Ok(Some(whole))
    }

    pub(super) async fn image(&self, entry: &Descriptor, tree: Tree) -> Result<OciImage, ArchiveError> {
        let config = tree.top().and_then(|top| top.as_image()).map(|image| image.config.clone());
        let mut platforms = tree.platforms;
        if let (true, Some(config)) = (platforms.is_empty(), &config)
            && config.media_type.is_image_config()
            && !entry.is_attestation()
        {
            let blob = tree.blobs.iter().find(|blob| blob.descriptor.digest == config.digest);
            if let Some(blob) = blob {
                let bytes = self.files.small(&blob.extent).await?;
                let read: ImageConfig = parse(&bytes, &blob.extent.path, "an image config")?;
                platforms.extend(Some(read.platform).filter(|platform| !platform.architecture.is_empty()));
            }
        }
        let root_at = tree.manifests.len().saturating_sub(1);
        let plain = |manifest| OciManifest { manifest, referrer: false, tag: None };
        let manifests = tree.manifests.into_iter().map(plain).collect();
        Ok(OciImage { manifests, root_at, blobs: tree.blobs, config: config.map(|config| config.digest), platforms })
    }
}

/// The index with only the children in `tops`, each as it is by now; everything else about it stays.
///
/// # Errors
///
/// [`ArchiveError::BadJson`], were it no JSON.
pub(crate) fn rewritten(manifest: &Manifest, tops: &HashMap<Digest, Arc<Manifest>>) -> Result<Manifest, ArchiveError> {
    let bad = |source| ArchiveError::BadJson { entry: manifest.digest.to_string(), wanted: "an OCI index", source };
    let mut index: Value = serde_json::from_slice(&manifest.bytes).map_err(bad)?;
    if let Some(written) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        written.retain_mut(|child| {
            let digest = child.get("digest").and_then(Value::as_str).and_then(|digest| digest.parse().ok());
            let Some((digest, top)) = digest.and_then(|digest: Digest| Some((digest, tops.get(&digest)?))) else {
                return false;
            };
            if let (true, Some(child)) = (top.digest != digest, child.as_object_mut()) {
                child.insert("mediaType".to_owned(), top.media_type.as_str().into());
                child.insert("digest".to_owned(), top.digest.to_string().into());
                child.insert("size".to_owned(), (top.bytes.len() as u64).into());
            }
            true
        });
    }
    let bytes = serde_json::to_vec(&index).map_err(bad)?;
    Manifest::parse(bytes.into(), manifest.media_type.clone()).map_err(bad)
}

fn over(what: &str, found: u64, limit: u64) -> Result<(), ArchiveError> {
    let what = what.to_owned();
    // What was counted lies in many places; none of them is to blame.
    if found > limit { Err(ArchiveError::OverLimit { what, offset: 0, found, limit }) } else { Ok(()) }
}

fn described(entry: &Descriptor) -> String {
    match &entry.platform {
        Some(platform) => format!("{platform} ({})", entry.digest),
        None => entry.digest.to_string(),
    }
}
