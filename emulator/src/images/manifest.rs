//! Manifests as ECR's validator reads them.
//!
//! It refuses what other registries take: parameters in media types (containers-roadmap issue 2306),
//! `platform.features` (2439), an image without layers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::images::Digest;

/// ECR's limit, 4 MiB.
pub(crate) const MAX_MANIFEST_BYTES: usize = 4 << 20;

const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a manifest describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    Index,
}

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedBlob {
    pub digest: Digest,
    pub size_bytes: u64,
    /// Whether the registry must have it; not so for layers that are fetched from elsewhere.
    pub required: bool,
}

/// A manifest that ECR takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub kind: Kind,
    pub media_type: String,
    pub artifact_media_type: Option<String>,
    /// Config and layers.
    pub blobs: Vec<NamedBlob>,
    pub children: Vec<Digest>,
    pub subject: Option<Digest>,
    pub annotations: BTreeMap<String, String>,
}

/// Why ECR's validator refuses a manifest; the texts are ECR's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'")]
    Syntax,
    #[error("Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Image has to have at least 1 layer'")]
    NoLayers,
    #[error(
        "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Member must have length less than or equal to 4194304'"
    )]
    TooLarge,
    #[error(
        "Invalid parameter at 'ImageManifestMediaType' failed to satisfy constraint: 'Media type of the manifest is required'"
    )]
    NoMediaType,
    #[error(
        "Invalid parameter at 'ImageManifestMediaType' failed to satisfy constraint: 'Media type {0} is not supported'"
    )]
    MediaType(String),
}

impl Manifest {
    /// Reads `bytes`; `stated` is the `Content-Type` or `imageManifestMediaType` they came with.
    pub(crate) fn parse(bytes: &[u8], stated: Option<&str>) -> Result<Self, Refusal> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(Refusal::TooLarge);
        }
        let Ok(Value::Object(json)) = serde_json::from_slice(bytes) else {
            return Err(Refusal::Syntax);
        };
        let own = text(&json, "mediaType")?;
        if own.is_some() && stated.is_some() && own.as_deref() != stated {
            return Err(Refusal::Syntax);
        }
        let media_type = own.or(stated.map(str::to_owned)).ok_or(Refusal::NoMediaType)?;
        let artifact_type = text(&json, "artifactType")?;
        plain(&media_type)?;
        artifact_type.as_deref().map(plain).transpose()?;
        let subject = match json.get("subject") {
            None | Some(Value::Null) => None,
            Some(subject) => Some(descriptor(subject)?.digest),
        };
        let manifest = Self {
            kind: Kind::Image,
            artifact_media_type: artifact_type,
            blobs: Vec::new(),
            children: Vec::new(),
            subject,
            annotations: annotations(&json),
            media_type,
        };
        match manifest.media_type.as_str() {
            DOCKER_IMAGE | OCI_IMAGE => manifest.image(&json),
            DOCKER_LIST | OCI_INDEX => manifest.index(&json),
            _ => Err(Refusal::MediaType(manifest.media_type)),
        }
    }

    fn image(mut self, json: &Map<String, Value>) -> Result<Self, Refusal> {
        let config = json.get("config").ok_or(Refusal::Syntax)?;
        if self.artifact_media_type.is_none() {
            self.artifact_media_type =
                config.as_object().map(|config| text(config, "mediaType")).transpose()?.flatten();
        }
        self.blobs.push(descriptor(config)?);
        let Some(Value::Array(layers)) = json.get("layers") else {
            return Err(Refusal::Syntax);
        };
        if layers.is_empty() {
            return Err(Refusal::NoLayers);
        }
        for layer in layers {
            self.blobs.push(descriptor(layer)?);
        }
        Ok(self)
    }

    fn index(mut self, json: &Map<String, Value>) -> Result<Self, Refusal> {
        self.kind = Kind::Index;
        let Some(Value::Array(children)) = json.get("manifests") else {
            return Err(Refusal::Syntax);
        };
        for child in children {
            if child.pointer("/platform/features").is_some() {
                return Err(Refusal::Syntax);
            }
            self.children.push(descriptor(child)?.digest);
        }
        Ok(self)
    }
}

fn descriptor(json: &Value) -> Result<NamedBlob, Refusal> {
    let json = json.as_object().ok_or(Refusal::Syntax)?;
    let media_type = text(json, "mediaType")?.ok_or(Refusal::Syntax)?;
    plain(&media_type)?;
    if let Some(artifact_type) = text(json, "artifactType")? {
        plain(&artifact_type)?;
    }
    let digest = text(json, "digest")?.and_then(|digest| digest.parse().ok());
    let size_bytes = json.get("size").and_then(Value::as_u64);
    Ok(NamedBlob {
        digest: digest.ok_or(Refusal::Syntax)?,
        size_bytes: size_bytes.ok_or(Refusal::Syntax)?,
        required: !media_type.contains("foreign") && !media_type.contains("nondistributable"),
    })
}

fn text(json: &Map<String, Value>, field: &str) -> Result<Option<String>, Refusal> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::Syntax),
    }
}

/// ECR takes no parameters in media types.
fn plain(media_type: &str) -> Result<(), Refusal> {
    if media_type.contains(';') {
        return Err(Refusal::Syntax);
    }
    Ok(())
}

fn annotations(json: &Map<String, Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(annotations)) = json.get("annotations") else {
        return BTreeMap::new();
    };
    annotations.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn blob(media_type: &str, text: &str) -> Value {
        let digest = Digest::of(text.as_bytes()).to_string();
        json!({"mediaType": media_type, "digest": digest, "size": text.len()})
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "config": blob("application/vnd.oci.image.config.v1+json", "config"),
            "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip", "layer")],
            "annotations": {"a": "b"},
        })
    }

    fn index() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{
                "mediaType": OCI_IMAGE,
                "digest": Digest::of(b"child").to_string(),
                "size": 5,
                "platform": {"os": "linux", "architecture": "arm64"},
            }],
        })
    }

    fn with(mut json: Value, pointer: &str, value: Value) -> Value {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = json.pointer_mut(parent).unwrap();
        parent[field] = value;
        json
    }

    fn parse(json: &Value, stated: Option<&str>) -> Result<Manifest, Refusal> {
        Manifest::parse(json.to_string().as_bytes(), stated)
    }

    #[test]
    fn an_image_and_an_index_are_read() {
        let manifest = parse(&image(), Some(OCI_IMAGE)).unwrap();
        assert_eq!(manifest.blobs.len(), 2);
        assert_eq!(manifest.annotations["a"], "b");
        assert_eq!(manifest.artifact_media_type.as_deref(), Some("application/vnd.oci.image.config.v1+json"));
        let manifest = parse(&index(), None).unwrap();
        assert_eq!(manifest.kind, Kind::Index);
        assert_eq!(manifest.children, [Digest::of(b"child")]);
        let subject = with(image(), "/subject", blob(OCI_IMAGE, "subject"));
        let manifest = parse(&subject, None).unwrap();
        assert_eq!(manifest.subject, Some(Digest::of(b"subject")));
        let foreign =
            with(image(), "/layers/0/mediaType", json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
        assert!(!parse(&foreign, None).unwrap().blobs[1].required);
    }

    #[test]
    fn what_ecr_refuses() {
        let cases = [
            (with(image(), "/layers", json!([])), Refusal::NoLayers),
            (with(image(), "/layers", Value::Null), Refusal::Syntax),
            (with(image(), "/config", Value::Null), Refusal::Syntax),
            (with(image(), "/layers/0/mediaType", json!("a/b; c=d")), Refusal::Syntax),
            (with(image(), "/config/mediaType", json!("a/b;c=d")), Refusal::Syntax),
            (with(image(), "/artifactType", json!("a/b; c=d")), Refusal::Syntax),
            (with(image(), "/layers/0/digest", json!("sha256:12")), Refusal::Syntax),
            (with(image(), "/layers/0/size", json!("1")), Refusal::Syntax),
            (with(image(), "/mediaType", Value::Null), Refusal::NoMediaType),
            (with(image(), "/mediaType", json!("a/b")), Refusal::MediaType("a/b".to_owned())),
            (with(index(), "/manifests/0/platform/features", json!(["sse4"])), Refusal::Syntax),
            (with(index(), "/manifests/0/artifactType", json!("a;b")), Refusal::Syntax),
            (with(index(), "/manifests", Value::Null), Refusal::Syntax),
            (json!([]), Refusal::Syntax),
        ];
        for (manifest, expected) in cases {
            assert_eq!(parse(&manifest, None), Err(expected), "{manifest}");
        }
        assert_eq!(parse(&image(), Some(OCI_INDEX)), Err(Refusal::Syntax));
        assert_eq!(Manifest::parse(b"{", None), Err(Refusal::Syntax));
        let large = vec![b' '; MAX_MANIFEST_BYTES + 1];
        assert_eq!(Manifest::parse(&large, None), Err(Refusal::TooLarge));
        assert_eq!(
            Refusal::NoLayers.to_string(),
            "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Image has to have at least 1 layer'"
        );
    }
}
