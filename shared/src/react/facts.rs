//! What an image says of itself, kept in its record: so that a later look at its verdict reads nothing but findings.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::image::manifest::{ImageConfig, ImageManifest, Index, Parsed};
use crate::image::{Digest, Manifest};
use crate::limits;

/// The annotation and label that name the commit (OCI image spec, `annotations.md`).
pub const REVISION: &str = "org.opencontainers.image.revision";

/// What a manifest is the manifest of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An image that runs.
    Image,
    /// A manifest of manifests.
    Index,
    /// Anything else: a chart, a signature, an attestation. It gets no verdict, and causes no tags.
    Artifact,
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Such as `linux/amd64`; for an index, of its children.
    pub platforms: Vec<String>,
    /// Its compressed layers together; for an index, those of its largest child.
    pub size_bytes: u64,
    /// The config's labels, within [`limits::LABELS_BYTES`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The commit, as the manifest's or the index's own annotation names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The images of an index; attestations are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
}

/// An image that an index names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its manifest.
    pub digest: Digest,
    /// Such as `linux/arm64`.
    pub platform: String,
}

impl Facts {
    /// What `manifest` says, with its config where it is an image's.
    pub fn of(manifest: &Manifest, config: Option<&ImageConfig>) -> Self {
        match &manifest.parsed {
            Parsed::Index(index) => Self::of_index(index),
            Parsed::Image(image) => Self::of_image(image, config),
        }
    }

    /// Without the children that turned out to be no images: nobody scans them, and an index would wait for them forever.
    pub(super) fn without(mut self, artifacts: &BTreeSet<Digest>) -> Self {
        if self.kind == Kind::Index {
            self.children.retain(|child| !artifacts.contains(&child.digest));
            self.platforms = self.children.iter().map(|child| child.platform.clone()).collect();
            self.kind = if self.children.is_empty() { Kind::Artifact } else { Kind::Index };
        }
        self
    }

    fn of_index(index: &Index) -> Self {
        let children: Vec<Child> = index
            .manifests
            .iter()
            .filter(|child| !child.is_attestation() && child.media_type.manifest_kind().is_some())
            .map(|child| Child {
                digest: child.digest,
                platform: child.platform.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string),
            })
            .collect();
        Self {
            kind: if children.is_empty() { Kind::Artifact } else { Kind::Index },
            platforms: children.iter().map(|child| child.platform.clone()).collect(),
            size_bytes: 0,
            labels: BTreeMap::new(),
            revision: index.annotations.get(REVISION).cloned(),
            children,
        }
    }

    fn of_image(image: &ImageManifest, config: Option<&ImageConfig>) -> Self {
        let labels = config.and_then(|config| config.config.as_ref()).map(|config| config.labels.clone());
        Self {
            kind: kind_of(image, config),
            platforms: config.map(|config| config.platform.to_string()).into_iter().collect(),
            size_bytes: image.layers.iter().map(|layer| layer.size_bytes).sum(),
            labels: bounded(labels.unwrap_or_default()),
            revision: image.annotations.get(REVISION).cloned(),
            children: Vec::new(),
        }
    }
}

/// An image has an image's config and nothing but file system layers; BuildKit's attestations have the former, with an
/// unknown platform, and not the latter.
fn kind_of(image: &ImageManifest, config: Option<&ImageConfig>) -> Kind {
    let runs = image.config.media_type.is_image_config()
        && image.artifact_type.is_none()
        && image.subject.is_none()
        && image.layers.iter().all(|layer| layer.media_type.is_layer())
        && config.is_none_or(|config| config.platform.os != "unknown");
    if runs { Kind::Image } else { Kind::Artifact }
}

/// Whether the config of `image` has to be read.
pub(super) fn has_image_config(image: &ImageManifest) -> bool {
    kind_of(image, None) == Kind::Image
}

/// What an image's config has to say beyond what the registry checks; what is wrong otherwise: what, wanted, found.
pub(super) fn broken(image: &ImageManifest, config: &ImageConfig) -> Option<(&'static str, String, String)> {
    if kind_of(image, Some(config)) != Kind::Image {
        return None;
    }
    let diff_ids = config.rootfs.diff_ids.len();
    if diff_ids != image.layers.len() {
        return Some((
            "the config's list of layers",
            format!("{} diff IDs, one for each layer of the manifest", image.layers.len()),
            diff_ids.to_string(),
        ));
    }
    let platform = &config.platform;
    if platform.os.is_empty() || platform.architecture.is_empty() {
        let found = format!("os {:?}, architecture {:?}", platform.os, platform.architecture);
        return Some(("the config's platform", "an operating system and an architecture".to_owned(), found));
    }
    None
}

/// As many labels as fit, the first by name; long values are cut.
fn bounded(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut room = limits::LABELS_BYTES;
    let mut kept = BTreeMap::new();
    for (name, value) in labels {
        let value: String = value.chars().take(1_024).collect();
        let Some(left) = room.checked_sub(name.len() + value.len()) else { break };
        room = left;
        kept.insert(name, value);
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::image::MediaType;

    fn manifest(json: &serde_json::Value) -> Manifest {
        let media_type = json["mediaType"].as_str().unwrap().into();
        Manifest::parse(json.to_string().into(), media_type).unwrap()
    }

    fn config(text: &str) -> ImageConfig {
        serde_json::from_str(text).unwrap()
    }

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn image(config_type: &str, layer_type: &str, more: &serde_json::Value) -> Manifest {
        let digest = Digest::of(b"x").to_string();
        let mut json = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST,
            "config": {"mediaType": config_type, "digest": digest, "size": 1},
            "layers": [{"mediaType": layer_type, "digest": digest, "size": 100}]});
        for (name, value) in more.as_object().unwrap() {
            json[name] = value.clone();
        }
        manifest(&json)
    }

    #[test]
    fn images_are_told_from_artifacts() {
        let known = config(r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}"#);
        let unknown = config(r#"{"os":"unknown","architecture":"unknown"}"#);
        let subject = json!({"mediaType": MediaType::OCI_MANIFEST, "digest": Digest::of(b"s").to_string(), "size": 1});
        for (what, manifest, config, kind) in [
            ("an image", image(MediaType::OCI_CONFIG, LAYER, &json!({})), Some(&known), Kind::Image),
            (
                "Docker's own types",
                image(MediaType::DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip", &json!({})),
                Some(&known),
                Kind::Image,
            ),
            (
                "a chart",
                image(
                    "application/vnd.cncf.helm.config.v1+json",
                    "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                    &json!({}),
                ),
                None,
                Kind::Artifact,
            ),
            (
                "an attestation",
                image(MediaType::OCI_CONFIG, "application/vnd.in-toto+json", &json!({})),
                Some(&unknown),
                Kind::Artifact,
            ),
            ("a referrer", image(MediaType::OCI_CONFIG, LAYER, &json!({"subject": subject})), None, Kind::Artifact),
            ("typed", image(MediaType::OCI_CONFIG, LAYER, &json!({"artifactType": "a/b"})), None, Kind::Artifact),
        ] {
            assert_eq!(Facts::of(&manifest, config).kind, kind, "{what}");
        }
    }

    #[test]
    fn a_config_that_does_not_fit_its_manifest_is_said_to() {
        let manifest = image(MediaType::OCI_CONFIG, LAYER, &json!({}));
        let one = format!(r#""rootfs":{{"diff_ids":["{}"]}}"#, Digest::of(b"d"));
        for (text, what) in [
            (format!(r#"{{"os":"linux","architecture":"amd64",{one}}}"#), None),
            (r#"{"os":"linux","architecture":"amd64"}"#.to_owned(), Some("the config's list of layers")),
            (format!(r#"{{"os":"linux",{one}}}"#), Some("the config's platform")),
        ] {
            let found = broken(manifest.as_image().unwrap(), &config(&text));
            assert_eq!(found.as_ref().map(|(what, _, _)| *what), what, "{text}");
        }
    }

    #[test]
    fn an_index_names_its_images_and_no_attestation() {
        let child = |seed: u8, os: &str, more: serde_json::Value| {
            json!({"mediaType": MediaType::OCI_MANIFEST, "digest": Digest::of(&[seed]).to_string(), "size": 9,
                "platform": {"os": os, "architecture": os}, "annotations": more})
        };
        let index = manifest(&json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [
            child(1, "linux", json!({})),
            child(2, "unknown", json!({"vnd.docker.reference.type": "attestation-manifest"})),
        ], "annotations": {REVISION: "abc"}}));
        let facts = Facts::of(&index, None);
        assert_eq!((facts.kind, facts.platforms), (Kind::Index, vec!["linux/linux".to_owned()]));
        assert_eq!(facts.revision.as_deref(), Some("abc"));
    }
}
