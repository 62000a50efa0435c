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

use super::ArchiveError;
use super::contents::{ArchiveImage, Blob, Content, Contents, Files, Layout, OciImage, OciManifest};
use crate::image::manifest::{ImageConfig, ImageManifest, Index, Parsed, Platform};
use crate::image::{Descriptor, Digest, Manifest, MediaType};
use crate::limits;
use crate::naming::ArchiveName;
use crate::object::Source;

const INDEX: &str = "index.json";

/// Where containerd and Docker keep the full name.
const FULL_NAME: &str = "io.containerd.image.name";
/// Where everyone keeps a name or a tag (OCI image spec, `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) async fn read<S: Source>(files: &Files<'_, S>) -> Result<Contents, ArchiveError> {
    let bytes = files.json(INDEX, "an OCI layout").await?;
    let top: Index = parse(&bytes, INDEX, "an OCI index")?;
    let mut reader = Reader { files, manifests: 0, left_out: Vec::new() };
    let mut images: Vec<ArchiveImage> = Vec::new();
    let mut at: HashMap<Digest, usize> = HashMap::new();
    let mut referrers: Vec<(Digest, Tree)> = Vec::new();
    for entry in &top.manifests {
        let name = name_of(entry);
        if let Some(image) = at.get(&entry.digest).and_then(|at| images.get_mut(*at)) {
            // One entry for each tag: the same image again.
            image.names.extend(name.filter(|name| !image.names.contains(name)));
            continue;
        }
        let Some(tree) = reader.tree(entry, 0).await? else { continue };
        if let (None, Some(subject)) = (&name, tree.subject()) {
            referrers.push((subject, tree));
            continue;
        }
        if images.len() == limits::IMAGES {
            return Err(ArchiveError::OverLimit {
                what: "the number of images in index.json".to_owned(),
                offset: files.file(INDEX, "an OCI layout")?.offset,
                found: top.manifests.len() as u64,
                limit: limits::IMAGES as u64,
            });
        }
        at.insert(entry.digest, images.len());
        let image = reader.image(entry, tree).await?;
        images.push(ArchiveImage { names: name.into_iter().collect(), content: Content::Oci(Box::new(image)) });
    }
    attach(&mut images, referrers, &mut reader.left_out);
    Ok(Contents { layout: Layout::Oci, images, left_out: reader.left_out })
}

/// Puts each referrer behind the image whose manifests hold its subject.
fn attach(images: &mut [ArchiveImage], referrers: Vec<(Digest, Tree)>, left_out: &mut Vec<String>) {
    for (subject, tree) in referrers {
        let holder = images.iter_mut().find_map(|image| match &mut image.content {
            Content::Oci(image) => image.manifests.iter().any(|m| m.manifest.digest == subject).then_some(image),
            Content::Docker(_) => None,
        });
        match holder {
            Some(image) => {
                let referrer = |manifest| OciManifest { manifest, referrer: true };
                image.manifests.extend(tree.manifests.into_iter().map(referrer));
                extend_blobs(&mut image.blobs, tree.blobs);
            }
            None => left_out.push(format!("a referrer of {subject}, which the archive does not hold")),
        }
    }
}

fn extend_blobs(blobs: &mut Vec<Blob>, more: Vec<Blob>) {
    let mut known: HashSet<Digest> = blobs.iter().map(|blob| blob.descriptor.digest).collect();
    blobs.extend(more.into_iter().filter(|blob| known.insert(blob.descriptor.digest)));
}

fn name_of(entry: &Descriptor) -> Option<ArchiveName> {
    [FULL_NAME, REF_NAME].iter().find_map(|key| entry.annotations.get(*key).and_then(|name| ArchiveName::parse(name)))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &Bytes, entry: &str, wanted: &'static str) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|source| ArchiveError::BadJson { entry: entry.to_owned(), wanted, source })
}

fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A manifest with everything below it that the archive holds: children first, itself last.
struct Tree {
    manifests: Vec<Arc<Manifest>>,
    blobs: Vec<Blob>,
    platforms: Vec<Platform>,
}

impl Tree {
    fn top(&self) -> Option<&Arc<Manifest>> {
        self.manifests.last()
    }

    fn subject(&self) -> Option<Digest> {
        let subject = match &self.top()?.parsed {
            Parsed::Image(image) => image.subject.as_ref(),
            Parsed::Index(index) => index.subject.as_ref(),
        };
        subject.map(|subject| subject.digest)
    }
}

struct Reader<'a, 'b, S> {
    files: &'a Files<'b, S>,
    manifests: usize,
    left_out: Vec<String>,
}

/// A recursive future has to be boxed.
type TreeFuture<'f> = Pin<Box<dyn Future<Output = Result<Option<Tree>, ArchiveError>> + Send + 'f>>;

impl<S: Source> Reader<'_, '_, S> {
    /// What the archive holds of `entry`; `None`, with a note, when it holds too little of it to be used.
    fn tree<'f>(&'f mut self, entry: &'f Descriptor, depth: usize) -> TreeFuture<'f> {
        Box::pin(async move {
            self.manifests += 1;
            for (what, found, limit) in [
                ("the number of manifests", self.manifests, limits::MANIFESTS),
                ("the depth of indexes in indexes", depth, limits::INDEX_DEPTH),
            ] {
                if found > limit {
                    let offset = self.files.file(INDEX, "an OCI layout")?.offset;
                    let (what, found, limit) = (what.to_owned(), found as u64, limit as u64);
                    return Err(ArchiveError::OverLimit { what, offset, found, limit });
                }
            }
            let path = blob_path(entry.digest);
            if !self.files.has(&path) {
                self.left_out.push(described(entry));
                return Ok(None);
            }
            let bytes = self.files.json(&path, INDEX).await?;
            let found = Digest::of(&bytes);
            if found != entry.digest {
                return Err(ArchiveError::WrongDigest { entry: path, found, wanted: entry.digest });
            }
            let manifest = Manifest::parse(bytes, entry.media_type.clone())
                .map_err(|source| ArchiveError::BadJson { entry: path, wanted: "a manifest", source })?;
            match &manifest.parsed {
                Parsed::Image(image) => {
                    let Some(blobs) = self.blobs(image, &manifest)? else {
                        self.left_out.push(described(entry));
                        return Ok(None);
                    };
                    let runs = !entry.is_attestation() && image.config.media_type.is_image_config();
                    let platforms = entry.platform.clone().filter(|_| runs).into_iter().collect();
                    refuse_what_ecr_refuses(&manifest)?;
                    Ok(Some(Tree { manifests: vec![Arc::new(manifest)], blobs, platforms }))
                }
                Parsed::Index(index) => {
                    let mut children = Vec::new();
                    for child in &index.manifests {
                        if let Some(tree) = self.tree(child, depth + 1).await? {
                            children.push((child.clone(), tree));
                        }
                    }
                    assemble(&manifest, index.manifests.len(), children)
                }
            }
        })
    }

    /// The config and layers of `image` that the archive holds; `None` when one is absent that has to be there.
    fn blobs(&self, image: &ImageManifest, manifest: &Manifest) -> Result<Option<Vec<Blob>>, ArchiveError> {
        let mut blobs = Vec::new();
        for descriptor in std::iter::once(&image.config).chain(&image.layers) {
            let path = blob_path(descriptor.digest);
            if !self.files.has(&path) {
                if descriptor.media_type.is_foreign_layer() && !descriptor.urls.is_empty() {
                    continue;
                }
                return Ok(None);
            }
            let extent = self.files.file(&path, &manifest.digest.to_string())?.clone();
            if extent.size_bytes != descriptor.size_bytes {
                let (found_bytes, wanted_bytes) = (extent.size_bytes, descriptor.size_bytes);
                return Err(ArchiveError::WrongSize { entry: path, found_bytes, wanted_bytes });
            }
            extend_blobs(&mut blobs, vec![Blob { descriptor: descriptor.clone(), extent }]);
        }
        Ok(Some(blobs))
    }

    async fn image(&self, entry: &Descriptor, tree: Tree) -> Result<OciImage, ArchiveError> {
        let config = tree.top().and_then(|top| top.as_image()).map(|image| image.config.clone());
        let mut platforms = tree.platforms;
        if let (true, Some(config)) = (platforms.is_empty(), &config)
            && config.media_type.is_image_config()
            && !entry.is_attestation()
        {
            let path = blob_path(config.digest);
            let bytes = self.files.json(&path, INDEX).await?;
            let read: ImageConfig = parse(&bytes, &path, "an image config")?;
            platforms.extend(Some(read.platform).filter(|platform| !platform.architecture.is_empty()));
        }
        let root_at = tree.manifests.len().saturating_sub(1);
        let manifests = tree.manifests.into_iter().map(|manifest| OciManifest { manifest, referrer: false }).collect();
        Ok(OciImage { manifests, root_at, blobs: tree.blobs, config: config.map(|config| config.digest), platforms })
    }
}

/// An index over the children that are there: itself when all are, pruned when some are not, the only child
/// itself when one image remains, nothing when none does.
fn assemble(
    manifest: &Manifest,
    listed: usize,
    children: Vec<(Descriptor, Tree)>,
) -> Result<Option<Tree>, ArchiveError> {
    let complete = children.len() == listed;
    let images = children.iter().filter(|(child, _)| !child.is_attestation()).count();
    if !complete && images == 0 {
        return Ok(None);
    }
    if !complete && images == 1 {
        return Ok(children.into_iter().find(|(child, _)| !child.is_attestation()).map(|(_, tree)| tree));
    }
    let kept: HashSet<Digest> = children.iter().map(|(child, _)| child.digest).collect();
    let index = if complete { manifest.clone() } else { pruned(manifest, &kept)? };
    refuse_what_ecr_refuses(&index)?;
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

/// The index with only the children in `kept`; everything else about it stays.
fn pruned(manifest: &Manifest, kept: &HashSet<Digest>) -> Result<Manifest, ArchiveError> {
    let bad = |source| ArchiveError::BadJson { entry: manifest.digest.to_string(), wanted: "an OCI index", source };
    let mut index: Value = serde_json::from_slice(&manifest.bytes).map_err(bad)?;
    if let Some(children) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        children.retain(|child| {
            let digest = child.get("digest").and_then(Value::as_str).and_then(|digest| digest.parse().ok());
            digest.is_some_and(|digest: Digest| kept.contains(&digest))
        });
    }
    let bytes = serde_json::to_vec(&index).map_err(bad)?;
    Manifest::parse(bytes.into(), manifest.media_type.clone()).map_err(bad)
}

fn described(entry: &Descriptor) -> String {
    match &entry.platform {
        Some(platform) => format!("{platform} ({})", entry.digest),
        None => entry.digest.to_string(),
    }
}

/// What ECR's validator is known to refuse, found before a byte is sent (containers-roadmap issues 2306 and 2439).
fn refuse_what_ecr_refuses(manifest: &Manifest) -> Result<(), ArchiveError> {
    let refused = |why: String| Err(ArchiveError::EcrRefuses { image: manifest.digest.to_string(), why });
    let size = manifest.bytes.len() as u64;
    if size > limits::MANIFEST_BYTES {
        return refused(format!("its manifest has {size} bytes, and at most {} are taken", limits::MANIFEST_BYTES));
    }
    let (types, artifact_type): (Vec<&MediaType>, _) = match &manifest.parsed {
        Parsed::Image(image) if image.layers.is_empty() => {
            return refused(
                "it has no layers, and an image in ECR has to have at least one; add a file to it".to_owned(),
            );
        }
        Parsed::Image(image) => (
            std::iter::once(&image.config).chain(&image.layers).map(|blob| &blob.media_type).collect(),
            &image.artifact_type,
        ),
        Parsed::Index(index) => {
            if let Some(child) =
                index.manifests.iter().find(|child| child.platform.as_ref().is_some_and(|p| p.features.is_some()))
            {
                return refused(format!(
                    "platform.features of {} is not accepted in an index; leave it out",
                    child.digest
                ));
            }
            (index.manifests.iter().map(|child| &child.media_type).collect(), &index.artifact_type)
        }
    };
    let written = types.into_iter().map(MediaType::as_str).chain(artifact_type.as_deref());
    for media_type in written {
        if media_type.contains(';') {
            return refused(format!("the media type {media_type:?} has a parameter; leave out what follows the ;"));
        }
    }
    Ok(())
}
