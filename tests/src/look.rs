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

/// What `bytes` decompress to, or `bytes` where no codec is recognised.
pub fn decompressed(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let read = match bytes {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut plain))
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            liblzma::read::XzDecoder::new_multi_decoder(bytes).read_to_end(&mut plain)
        }
        [b'B', b'Z', b'h', ..] => bzip2::read::MultiBzDecoder::new(bytes).read_to_end(&mut plain),
        _ => return bytes.to_vec(),
    };
    read.expect("it decompresses");
    plain
}

/// The manifest under `reference`, parsed, after its bytes were checked against its digest.
pub fn manifest(images: &Images, repository: &str, reference: &str) -> Value {
    let (stored, _) = images.image(repository, reference).expect("the image is in the registry");
    let bytes = images.manifest_bytes(&stored).expect("the manifest is readable");
    assert_eq!(digest(&bytes), stored.to_string());
    serde_json::from_slice(&bytes).expect("a manifest is JSON")
}

fn stated(descriptor: &Value) -> emulator::images::Digest {
    descriptor["digest"].as_str().and_then(|digest| digest.parse().ok()).expect("a digest")
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
        // A foreign layer is where its URLs say.
        if layer["urls"].is_array() && images.blob_size_bytes(repository, &stated(layer)).is_none() {
            continue;
        }
        let plain = decompressed(&blob(images, repository, layer));
        assert_eq!(&digest(&plain), diff_id.as_str().expect("a diff ID"));
    }
    manifest["config"]["digest"].as_str().expect("a digest").to_owned()
}
