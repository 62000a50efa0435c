//! Looking at an image in the registry with nothing of the library: is it whole, and is every layer what the image
//! config says?

use std::io::Read as _;

use emulator::images::Images;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// `sha256:<hex>`
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The manifest under `reference`, parsed, after its bytes were checked against its digest.
pub fn manifest(images: &Images, repository: &str, reference: &str) -> Value {
    let (stored, _) = images.image(repository, reference).expect("the image is in the registry");
    let bytes = images.manifest_bytes(&stored).expect("the manifest is readable");
    assert_eq!(digest(&bytes), stored.to_string());
    serde_json::from_slice(&bytes).expect("a manifest is JSON")
}

/// The bytes of a blob that `repository` holds, checked against the descriptor.
fn blob(images: &Images, repository: &str, descriptor: &Value) -> Vec<u8> {
    let name = descriptor["digest"].as_str().expect("a digest");
    let stored = name.parse().expect("a digest");
    assert_eq!(images.blob_size_bytes(repository, &stored), descriptor["size"].as_u64(), "{repository} holds {name}");
    let bytes = std::fs::read(images.blob_path(&stored)).expect("the blob is readable");
    assert_eq!(digest(&bytes), name);
    bytes
}

/// Checks one image: config and layers are there, and each layer's uncompressed bytes hash to its diff ID. Gives the
/// config's digest.
pub fn check_image(images: &Images, repository: &str, reference: &str) -> String {
    let manifest = manifest(images, repository, reference);
    let config: Value =
        serde_json::from_slice(&blob(images, repository, &manifest["config"])).expect("a config is JSON");
    let layers = manifest["layers"].as_array().expect("layers");
    let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("diff IDs");
    assert_eq!(layers.len(), diff_ids.len());
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let stored = blob(images, repository, layer);
        let plain = if stored.starts_with(b"\x1f\x8b") {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(stored.as_slice()).read_to_end(&mut plain).expect("gzip");
            plain
        } else {
            stored
        };
        assert_eq!(&digest(&plain), diff_id.as_str().expect("a diff ID"));
    }
    manifest["config"]["digest"].as_str().expect("a digest").to_owned()
}
