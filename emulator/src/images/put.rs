//! Putting a manifest, by either API.

use std::io::{self, Write};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    account, clock,
    envelope::envelope,
    images::{Digest, Image, Images, ImagesError, Kind, Manifest, Refusal, Repository},
};

/// A manifest to put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewImage<'a> {
    pub repository: &'a str,
    pub bytes: &'a [u8],
    /// The media type that came with it.
    pub media_type: Option<&'a str>,
    pub tag: Option<&'a str>,
    /// The digest that the bytes must have.
    pub digest: Option<Digest>,
}

/// What a put did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    pub digest: Digest,
    pub image: Image,
    /// Whether the image or the tag is new, or the tag was moved.
    pub changed: bool,
}

/// Why a manifest was not put; the texts are ECR's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error("Rate exceeded")]
    Throttled,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("The provided image digest does not match the calculated digest: wanted {wanted}, got {got}")]
    DigestMismatch { wanted: Digest, got: Digest },
    #[error(
        "The image tag '{tag}' already exists in the '{repository}' repository and cannot be overwritten because the repository is immutable."
    )]
    TagImmutable { repository: String, tag: String },
    #[error(
        "Layers with digests '{}' required for pushing image into repository with name '{repository}' in the registry with id '{}' do not exist",
        list(digests),
        account::ID
    )]
    LayersMissing { repository: String, digests: Vec<Digest> },
    #[error(
        "Images with digests '{}' required for pushing image into repository with name '{repository}' in the registry with id '{}' do not exist",
        list(digests),
        account::ID
    )]
    ChildrenMissing { repository: String, digests: Vec<Digest> },
    #[error(transparent)]
    Store(#[from] ImagesError),
}

fn list(digests: &[Digest]) -> String {
    let digests: Vec<String> = digests.iter().map(Digest::to_string).collect();
    format!("[{}]", digests.join(", "))
}

impl Images {
    /// Puts a manifest, and the tag on it.
    ///
    /// An immutable tag that exists is refused even when it is on the same image already
    /// (containers-roadmap issue 2179); the control API asks before it calls this.
    pub(crate) fn put(&self, new: NewImage<'_>) -> Result<Put, PutError> {
        if !self.may_put() {
            return Err(PutError::Throttled);
        }
        self.read(new.repository, |_| ())?;
        let manifest = Manifest::parse(new.bytes, new.media_type)?;
        let digest = Digest::of(new.bytes);
        if let Some(wanted) = new.digest
            && wanted != digest
        {
            return Err(PutError::DigestMismatch { wanted, got: digest });
        }
        self.write_manifest(&digest, new.bytes).map_err(ImagesError::Io)?;
        self.update(new.repository, |repository| add(repository, new, &manifest, digest))
    }

    fn write_manifest(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(self.incoming())?;
        file.write_all(bytes)?;
        file.persist(self.blob_path(digest)).map_err(|error| error.error)?;
        Ok(())
    }
}

fn add(repository: &mut Repository, new: NewImage<'_>, manifest: &Manifest, digest: Digest) -> Result<Put, PutError> {
    if let Some(tag) = new.tag
        && repository.tags.contains_key(tag)
        && !repository.is_mutable(tag)
    {
        return Err(PutError::TagImmutable { repository: repository.name.clone(), tag: tag.to_owned() });
    }
    let missing = |wanted: Vec<Digest>, has: &dyn Fn(&Digest) -> bool| -> Vec<Digest> {
        wanted.into_iter().filter(|digest| !has(digest)).collect()
    };
    let required = manifest.blobs.iter().filter(|blob| blob.required);
    let layers = missing(required.map(|blob| blob.digest).collect(), &|digest| repository.blobs.contains(digest));
    if !layers.is_empty() {
        return Err(PutError::LayersMissing { repository: repository.name.clone(), digests: layers });
    }
    let children = missing(manifest.children.clone(), &|digest| repository.images.contains_key(digest));
    if !children.is_empty() {
        return Err(PutError::ChildrenMissing { repository: repository.name.clone(), digests: children });
    }
    let known = repository.images.get(&digest).cloned();
    let mut changed = known.is_none();
    let image = known.unwrap_or_else(|| describe(repository, manifest, new.bytes.len() as u64));
    repository.images.insert(digest, image.clone());
    if let Some(tag) = new.tag {
        changed |= repository.tags.insert(tag.to_owned(), digest) != Some(digest);
        repository.past_tags.entry(digest).or_default().insert(tag.to_owned());
    }
    Ok(Put { digest, image, changed })
}

fn describe(repository: &Repository, manifest: &Manifest, manifest_bytes: u64) -> Image {
    let size_bytes = match manifest.kind {
        Kind::Image => manifest.blobs.iter().map(|blob| blob.size_bytes).sum(),
        Kind::Index => manifest
            .children
            .iter()
            .filter_map(|child| Some(repository.images.get(child)?.size_bytes))
            .max()
            .unwrap_or_default(),
    };
    Image {
        media_type: manifest.media_type.clone(),
        artifact_media_type: manifest.artifact_media_type.clone(),
        size_bytes,
        pushed_at: clock::now(),
        blobs: manifest.blobs.iter().map(|blob| blob.digest).collect(),
        children: manifest.children.clone(),
        subject: manifest.subject,
        annotations: manifest.annotations.clone(),
        manifest_bytes,
    }
}

/// The `ECR Image Action` event of a push or a deletion (ECR user guide, "Amazon ECR events"): `resources` is
/// empty, and a push by digest has an empty tag.
pub(crate) fn image_action(action: &str, repository: &str, digest: &Digest, tag: Option<&str>, image: &Image) -> Value {
    let mut detail = json!({
        "result": "SUCCESS",
        "repository-name": repository,
        "image-digest": digest.to_string(),
        "action-type": action,
        "image-tag": tag.unwrap_or_default(),
        "manifest-media-type": image.media_type,
    });
    if let Some(artifact) = &image.artifact_media_type {
        detail["artifact-media-type"] = json!(artifact);
    }
    envelope("aws.ecr", "ECR Image Action", &[], &detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{
        Mutability,
        tests::{blob, store},
    };

    const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

    fn manifest(config: &Digest, layer: &Digest) -> Vec<u8> {
        let descriptor = |media_type: &str, digest: &Digest, size: u64| json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config, 6),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer, 50)],
        })
        .to_string()
        .into_bytes()
    }

    fn new<'a>(bytes: &'a [u8], tag: Option<&'a str>) -> NewImage<'a> {
        NewImage { repository: "r", bytes, media_type: Some(OCI_IMAGE), tag, digest: None }
    }

    #[test]
    fn an_image_is_put_tagged_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let images = store(folder.path(), "r");
        let bytes = manifest(&blob(&images, "r", "config"), &blob(&images, "r", "layer"));
        let put = images.put(new(&bytes, Some("1"))).unwrap();
        assert!(put.changed);
        assert_eq!(put.image.size_bytes, 56);
        assert!(!images.put(new(&bytes, Some("1"))).unwrap().changed);
        assert!(!images.put(new(&bytes, None)).unwrap().changed);
        assert!(images.put(new(&bytes, Some("2"))).unwrap().changed);
        let images = store(folder.path(), "r");
        let (digest, image) = images.image("r", "2").unwrap();
        assert_eq!(digest, put.digest);
        assert_eq!(image, put.image);
        assert_eq!(images.manifest_bytes(&digest).unwrap(), bytes);
        let repository = images.repository("r").unwrap();
        assert_eq!(repository.tags_of(&digest), ["1", "2"]);
        let event = image_action("PUSH", "r", &digest, None, &image);
        assert_eq!(event["detail"]["image-tag"], "");
        assert_eq!(event["detail"]["action-type"], "PUSH");
        assert_eq!(event["resources"], json!([]));
    }

    #[test]
    fn an_index_is_as_large_as_its_largest_child() {
        let folder = tempfile::tempdir().unwrap();
        let images = store(folder.path(), "r");
        let child = manifest(&blob(&images, "r", "config"), &blob(&images, "r", "layer"));
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": OCI_IMAGE,
                "digest": Digest::of(&child).to_string(),
                "size": child.len(),
            }],
        })
        .to_string();
        let new_index = NewImage { media_type: None, ..new(index.as_bytes(), Some("i")) };
        let refused = images.put(new_index).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "Images with digests '[{}]' required for pushing image into repository with name 'r' \
                 in the registry with id '123456789012' do not exist",
                Digest::of(&child)
            )
        );
        images.put(new(&child, None)).unwrap();
        assert_eq!(images.put(new_index).unwrap().image.size_bytes, 56);
    }

    #[test]
    fn refusals() {
        let folder = tempfile::tempdir().unwrap();
        let images = store(folder.path(), "r");
        let config = blob(&images, "r", "config");
        let lost = manifest(&config, &Digest::of(b"lost"));
        let refused = images.put(new(&lost, None)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "Layers with digests '[{}]' required for pushing image into repository with name 'r' \
                 in the registry with id '123456789012' do not exist",
                Digest::of(b"lost")
            )
        );
        let bytes = manifest(&config, &blob(&images, "r", "layer"));
        let wrong = NewImage { digest: Some(Digest::of(b"other")), ..new(&bytes, None) };
        assert!(matches!(images.put(wrong), Err(PutError::DigestMismatch { .. })));
        images
            .update("r", |repository| {
                repository.settings.mutability = Mutability::Immutable;
                Ok::<_, ImagesError>(())
            })
            .unwrap();
        images.put(new(&bytes, Some("1"))).unwrap();
        let refused = images.put(new(&bytes, Some("1"))).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "The image tag '1' already exists in the 'r' repository and cannot be overwritten because the repository is immutable."
        );
        let elsewhere = NewImage { repository: "none", ..new(&bytes, None) };
        assert!(matches!(images.put(elsewhere), Err(PutError::Store(ImagesError::NoRepository(_)))));
    }

    #[test]
    fn only_blobs_that_a_manifest_names_can_be_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let images = store(folder.path(), "r");
        let (config, layer) = (blob(&images, "r", "config"), blob(&images, "r", "layer"));
        assert!(!images.can_mount("r", &layer));
        images.put(new(&manifest(&config, &layer), None)).unwrap();
        assert!(images.can_mount("r", &layer));
        assert!(!images.can_mount("none", &layer));
    }
}
