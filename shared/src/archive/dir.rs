//! The `dir:` transport of skopeo and podman, tarred: `manifest.json` is the manifest itself, blobs lie beside it as
//! `<hex>`, manifests of an index as `<hex>.manifest.json`.

use super::contents::{ArchiveImage, Content, Contents, Files, Layout};
use super::oci::{BlobNames, Reader};
use super::{ArchiveError, docker};
use crate::image::manifest::sniffed_media_type;
use crate::image::{Descriptor, Digest};
use crate::object::Source;

/// Whether `manifest.json` is a manifest, not a list of images.
pub(super) async fn is_dir<S: Source>(files: &Files<'_, S>) -> Result<bool, ArchiveError> {
    let bytes = files.json(docker::MANIFEST, "an image archive").await?;
    Ok(bytes.trim_ascii_start().starts_with(b"{"))
}

pub(super) async fn read<S: Source>(files: &Files<'_, S>) -> Result<Contents, ArchiveError> {
    let bytes = files.json(docker::MANIFEST, "a dir: layout").await?;
    let media_type = sniffed_media_type(&bytes).map_err(|source| ArchiveError::BadJson {
        entry: docker::MANIFEST.to_owned(),
        wanted: "a manifest (of a `dir:` layout of skopeo or podman, since it is no list of images)",
        source,
    })?;
    let entry = Descriptor::new(media_type.as_str(), Digest::of(&bytes), bytes.len() as u64);
    let mut reader = Reader::new(files, BlobNames::Dir);
    let tree = reader.tree_of(bytes, docker::MANIFEST, &entry, 0).await?;
    let Some(tree) = tree else {
        return Err(reader.nothing_left(docker::MANIFEST));
    };
    let image = reader.image(&entry, tree).await?;
    let images = vec![ArchiveImage { names: Vec::new(), content: Content::Oci(Box::new(image)) }];
    Ok(Contents { layout: Layout::Dir, images, left_out: reader.left_out })
}
