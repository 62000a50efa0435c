//! Manifests, indexes and image configs: the bytes as they are, and the little of them that decides anything.
//!
//! The bytes are what is hashed and put; the parsed form is never written back (OCI image spec, `manifest.md`,
//! `image-index.md`, `config.md`; Docker's schema 2 has the same shape).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::digest::{DiffId, Digest};
use super::media_type::{ManifestKind, MediaType};

/// What names a blob or manifest: its media type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are; empty where a writer left it out.
    #[serde(default)]
    pub media_type: MediaType,
    /// The hash of the bytes as stored.
    pub digest: Digest,
    /// Bytes as stored.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// What the image runs on, in an index's entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form notes; names of images in an `index.json`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// Where foreign layers are fetched from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub urls: Vec<String>,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The bytes themselves in base64, where they are few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Descriptor {
    /// A descriptor with nothing but the three things that every one has.
    pub fn new(media_type: &str, digest: Digest, size_bytes: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size_bytes,
            platform: None,
            annotations: BTreeMap::new(),
            urls: Vec::new(),
            artifact_type: None,
            data: None,
        }
    }

    /// The bytes that the descriptor itself carries (OCI image spec, `descriptor.md`, "Embedded Content"), if they are
    /// what it says; the empty JSON object is known without (`manifest.md`, "Guidance for an Empty Descriptor").
    pub fn embedded(&self) -> Option<Bytes> {
        let empty = Bytes::from_static(b"{}");
        let carried = self.data.as_ref().and_then(|data| STANDARD.decode(data).ok()).map(Bytes::from);
        [Some(empty), carried].into_iter().flatten().find(|bytes| Digest::of(bytes) == self.digest)
    }

    /// Whether BuildKit wrote it as an attestation beside the image it speaks of.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
    }

    /// The image that an attestation beside it speaks of.
    pub fn attested(&self) -> Option<Digest> {
        self.annotations.get("vnd.docker.reference.digest").and_then(|digest| digest.parse().ok())
    }
}

/// Operating system and processor of an image (OCI image spec, `image-index.md`, "platform").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Reserved by the spec; ECR refuses an index that uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// One image or artifact: a config and layers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// The image config, or an artifact's.
    pub config: Descriptor,
    /// Lowest first. `null` counts as none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// What an artifact is.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// What a referrer speaks of.
    #[serde(default)]
    pub subject: Option<Descriptor>,
}

/// A manifest of manifests.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// The children. `null`, as Docker 25.0 writes for an untagged image, counts as none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// What an artifact is.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// What a referrer speaks of.
    #[serde(default)]
    pub subject: Option<Descriptor>,
}

/// Reads `null` as the default, since several producers write it for "none".
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Either kind, parsed.
#[derive(Debug, Clone)]
pub enum Parsed {
    /// One image or artifact.
    Image(Box<ImageManifest>),
    /// A manifest of manifests.
    Index(Box<Index>),
}

/// A manifest: its bytes, what they hash to, what they are, what they say.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// As stored and as put.
    pub bytes: Bytes,
    /// The `Content-Type` it is put with.
    pub media_type: MediaType,
    /// The hash of `bytes`.
    pub digest: Digest,
    /// What `bytes` say.
    pub parsed: Parsed,
}

impl Manifest {
    /// Parses `bytes` as the manifest kind that `media_type` names.
    ///
    /// # Errors
    ///
    /// The JSON error, when the bytes are no manifest of that kind.
    pub fn parse(bytes: Bytes, media_type: MediaType) -> Result<Self, serde_json::Error> {
        let parsed = match media_type.manifest_kind() {
            Some(ManifestKind::Index) => Parsed::Index(Box::new(serde_json::from_slice(&bytes)?)),
            Some(ManifestKind::Image) | None => Parsed::Image(Box::new(serde_json::from_slice(&bytes)?)),
        };
        let digest = Digest::of(&bytes);
        Ok(Self { bytes, media_type, digest, parsed })
    }

    /// The manifest of one OCI image around `config` and `layers`.
    ///
    /// # Errors
    ///
    /// None in practice: serialising plain records does not fail.
    pub fn build(config: &Descriptor, layers: &[Descriptor]) -> Result<Self, serde_json::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<'a> {
            schema_version: u8,
            media_type: &'static str,
            config: &'a Descriptor,
            layers: &'a [Descriptor],
        }
        let written = Written { schema_version: 2, media_type: MediaType::OCI_MANIFEST, config, layers };
        Self::parse(serde_json::to_vec(&written)?.into(), MediaType::OCI_MANIFEST.into())
    }

    /// The image manifest, when this is one.
    pub fn as_image(&self) -> Option<&ImageManifest> {
        match &self.parsed {
            Parsed::Image(image) => Some(image),
            Parsed::Index(_) => None,
        }
    }
}

/// The media type that a manifest gives itself.
///
/// # Errors
///
/// The JSON error, when the bytes are no JSON object.
pub fn own_media_type(bytes: &[u8]) -> Result<Option<MediaType>, serde_json::Error> {
    Ok(serde_json::from_slice::<Shape>(bytes)?.media_type.filter(|own| !own.as_str().is_empty()))
}

/// The media type of a manifest that nothing describes: its own, or else what its shape says.
///
/// # Errors
///
/// The JSON error, when the bytes are no manifest.
pub fn sniffed_media_type(bytes: &[u8]) -> Result<MediaType, serde_json::Error> {
    let Shape { media_type, config, manifests } = serde_json::from_slice(bytes)?;
    let shaped = match (config, manifests) {
        (Some(config), _) if config.media_type.as_str() == MediaType::DOCKER_CONFIG => MediaType::DOCKER_MANIFEST,
        (Some(_), _) => MediaType::OCI_MANIFEST,
        (None, Some(manifests)) if manifests.iter().any(|child| child.media_type.is_docker()) => MediaType::DOCKER_LIST,
        (None, Some(_)) => MediaType::OCI_INDEX,
        (None, None) => {
            return Err(<serde_json::Error as serde::de::Error>::custom("it has neither config nor manifests"));
        }
    };
    Ok(media_type.filter(|own| !own.as_str().is_empty()).unwrap_or_else(|| shaped.into()))
}

/// What tells the kinds of manifest apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    media_type: Option<MediaType>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// What we read of an image config (OCI image spec, `config.md`).
#[derive(Debug, Clone, Deserialize)]
pub struct ImageConfig {
    /// Operating system and processor.
    #[serde(flatten)]
    pub platform: Platform,
    /// The layers, uncompressed.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// The layers of an image config.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RootFs {
    /// Lowest first; `null` for an image without layers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_lists_count_as_none() {
        let index: Index = serde_json::from_str(r#"{"schemaVersion":2,"manifests":null}"#).unwrap();
        assert!(index.manifests.is_empty());
        let config: ImageConfig = serde_json::from_str(r#"{"os":"linux","rootfs":{"diff_ids":null}}"#).unwrap();
        assert!(config.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn a_built_manifest_is_the_same_bytes_every_time() {
        let config = Descriptor::new(MediaType::OCI_CONFIG, Digest::of(b"{}"), 2);
        let layer = Descriptor::new(MediaType::OCI_LAYER_GZIP, Digest::of(b"layer"), 5);
        let manifest = Manifest::build(&config, std::slice::from_ref(&layer)).unwrap();
        assert_eq!(
            std::str::from_utf8(&manifest.bytes).unwrap(),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":2}},"layers":[{{"mediaType":"{}","digest":"{}","size":5}}]}}"#,
                MediaType::OCI_MANIFEST,
                MediaType::OCI_CONFIG,
                config.digest,
                MediaType::OCI_LAYER_GZIP,
                layer.digest
            )
        );
        assert_eq!(manifest.digest, Digest::of(&manifest.bytes));
    }

    #[test]
    fn a_platform_prints_as_docker_writes_it() {
        let platform = |variant: Option<&str>| Platform {
            os: "linux".into(),
            architecture: "arm64".into(),
            variant: variant.map(Into::into),
            features: None,
        };
        assert_eq!(platform(None).to_string(), "linux/arm64");
        assert_eq!(platform(Some("v8")).to_string(), "linux/arm64/v8");
    }
}
