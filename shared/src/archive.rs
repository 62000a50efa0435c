//! What the tarball holds, whoever wrote it.
//!
//! [`TarIndex`] walks the headers by ranged reads and skips the bodies; [`Contents`] then reads the few small JSON
//! entries and says which images there are, and where their blobs lie. Nothing is extracted, and no order of
//! entries is assumed: `manifest.json` and `index.json` usually come last.

mod contents;
mod docker;
mod error;
mod oci;
mod tar_index;

#[cfg(test)]
mod tests;

pub use contents::{
    ArchiveImage, Blob, Content, Contents, DockerImage, DockerLayer, Layout, OciImage, OciManifest, Stored,
};
pub use error::ArchiveError;
pub use tar_index::{Extent, TarIndex};
