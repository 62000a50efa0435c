//! Small images made on the spot: what `demo` imports, and what the tests of the pipeline do.

use std::io::Write as _;

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// An image before it is written: layers as uncompressed tars, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What it runs on, such as `amd64`.
    pub architecture: &'static str,
    /// Uncompressed tars.
    pub layers: Vec<Vec<u8>>,
}

/// `sha256:<hex>` of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A layer with one file of `size` bytes that compress about as well as programs do; `seed` makes it another one.
pub fn layer(path: &str, seed: u32, size: usize) -> Vec<u8> {
    tar_of(&[(path, filler(seed, size).as_slice())])
}

/// A tar of files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        append(&mut tar, path, content);
    }
    finish(tar)
}

/// A tar in memory cannot fail to be written.
fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content).ok();
}

fn finish(tar: tar::Builder<Vec<u8>>) -> Vec<u8> {
    tar.into_inner().unwrap_or_default()
}

/// Bytes between text and noise, the same for the same seed.
fn filler(seed: u32, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        // Numerical Recipes' linear congruential generator: good enough to be no repetition.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        write!(bytes, "{:x} layer of gantry ", state >> 12).ok();
    }
    bytes.truncate(size);
    bytes
}

impl Image {
    /// An image for `architecture`.
    pub fn new(architecture: &'static str, layers: Vec<Vec<u8>>) -> Self {
        Self { architecture, layers }
    }

    /// The image config; its digest is the image ID.
    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        serde_json::json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Labels": {"org.opencontainers.image.title": "a sample of gantry"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes()
    }
}

/// What `docker save` of Docker 24 writes for `images` with their names: uncompressed layers, `manifest.json` last.
pub fn docker_archive(images: &[(&Image, &[&str])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut manifest = Vec::new();
    let mut written = std::collections::BTreeSet::new();
    for (image, names) in images {
        let config = image.config();
        let config_path = format!("{}.json", hex(&config));
        let mut layer_paths = Vec::new();
        for layer in &image.layers {
            let path = format!("{}/layer.tar", hex(layer));
            if written.insert(path.clone()) {
                append(&mut tar, &path, layer);
            }
            layer_paths.push(path);
        }
        append(&mut tar, &config_path, &config);
        manifest.push(serde_json::json!({"Config": config_path, "RepoTags": names, "Layers": layer_paths}));
    }
    append(&mut tar, "manifest.json", serde_json::Value::from(manifest).to_string().as_bytes());
    finish(tar)
}

/// An OCI layout of one index over `images`, layers compressed with gzip, named `name`; and the index's digest.
pub fn oci_archive(images: &[&Image], name: &str) -> (Vec<u8>, String) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut blob = |content: &[u8], media_type: &str| {
        append(&mut tar, &format!("blobs/sha256/{}", hex(content)), content);
        serde_json::json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
    };
    let mut children = Vec::new();
    for image in images {
        let config = blob(&image.config(), "application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> = image
            .layers
            .iter()
            .map(|layer| blob(&gzipped(layer), "application/vnd.oci.image.layer.v1.tar+gzip"))
            .collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut child = blob(manifest.to_string().as_bytes(), media_type);
        child["platform"] = serde_json::json!({"os": "linux", "architecture": image.architecture});
        children.push(child);
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": children}).to_string();
    let mut top = blob(index.as_bytes(), media_type);
    top["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
    append(&mut tar, "index.json", serde_json::json!({"schemaVersion": 2, "manifests": [top]}).to_string().as_bytes());
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    (finish(tar), digest(index.as_bytes()))
}

/// One gzip member.
pub fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).ok();
    encoder.finish().unwrap_or_default()
}
