//! Media types of manifests, configs and layers (OCI image spec, `media-types.md`; Docker's "Image Manifest V 2,
//! Schema 2").

use std::fmt;

use serde::{Deserialize, Serialize};

/// A media type; open, because artifacts use any.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(String);

/// What a manifest's media type says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    /// One image (or artifact): a config and layers.
    Image,
    /// A manifest of manifests: an OCI index or a Docker manifest list.
    Index,
}

impl MediaType {
    /// `application/vnd.oci.image.manifest.v1+json`
    pub const OCI_MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    /// `application/vnd.oci.image.index.v1+json`
    pub const OCI_INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// `application/vnd.docker.distribution.manifest.v2+json`
    pub const DOCKER_MANIFEST: &'static str = "application/vnd.docker.distribution.manifest.v2+json";
    /// `application/vnd.docker.distribution.manifest.list.v2+json`
    pub const DOCKER_LIST: &'static str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// `application/vnd.oci.image.config.v1+json`
    pub const OCI_CONFIG: &'static str = "application/vnd.oci.image.config.v1+json";
    /// `application/vnd.docker.container.image.v1+json`
    pub const DOCKER_CONFIG: &'static str = "application/vnd.docker.container.image.v1+json";
    /// `application/vnd.oci.image.layer.v1.tar`
    pub const OCI_LAYER: &'static str = "application/vnd.oci.image.layer.v1.tar";
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    pub const OCI_LAYER_GZIP: &'static str = "application/vnd.oci.image.layer.v1.tar+gzip";

    /// `application/vnd.oci.image.layer.v1.tar+zstd`
    pub const OCI_LAYER_ZSTD: &'static str = "application/vnd.oci.image.layer.v1.tar+zstd";

    /// Every manifest type that ECR stores, as one `Accept` header: a GET by tag that leaves one out may be
    /// answered with converted bytes (ECR user guide, "image-manifest-formats").
    pub const ACCEPT_MANIFESTS: &'static str = "application/vnd.oci.image.manifest.v1+json, \
         application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
         application/vnd.docker.distribution.manifest.list.v2+json";

    /// A media type as written.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names a manifest, and which kind.
    pub fn manifest_kind(&self) -> Option<ManifestKind> {
        match self.0.as_str() {
            Self::OCI_MANIFEST | Self::DOCKER_MANIFEST => Some(ManifestKind::Image),
            Self::OCI_INDEX | Self::DOCKER_LIST => Some(ManifestKind::Index),
            _ => None,
        }
    }

    /// Whether it names the config of a runnable image, as opposed to an artifact's.
    pub fn is_image_config(&self) -> bool {
        matches!(self.0.as_str(), Self::OCI_CONFIG | Self::DOCKER_CONFIG)
    }

    /// Whether it is one of Docker's manifests.
    pub fn is_docker(&self) -> bool {
        matches!(self.0.as_str(), Self::DOCKER_MANIFEST | Self::DOCKER_LIST)
    }

    /// Whether it names a layer compressed with zstd (OCI image spec, `layer.md`).
    pub fn is_zstd_layer(&self) -> bool {
        self.0.ends_with("zstd")
    }

    /// Whether the blob may lawfully be absent: a foreign (non-distributable) layer, fetched from its URLs.
    pub fn is_foreign_layer(&self) -> bool {
        self.0.contains(".foreign.") || self.0.contains("nondistributable")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
