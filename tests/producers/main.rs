//! Real tarballs of many tools, through the whole pipeline.
//!
//! They are not part of the project: `GANTRY_TARBALLS` names the folder that holds them, and without it nothing is
//! checked. The last line says how many were.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry::archive::{Archive, Contents, USUAL_DELIVERY};
use gantry::object::FileSource;
use pipeline_tests::look::{check_image, decompressed, manifest};
use pipeline_tests::{Pipeline, Uploaded};
use serde_json::Value;

/// What becomes of one file.
enum Expected {
    /// So many images, released.
    Released(usize),
    /// Refused, in words that contain these.
    Refused(&'static str),
}

use Expected::{Refused, Released};

const FILES: [(&str, Expected); 23] = [
    ("buildah-index-oci.tar", Released(1)),
    ("cdk-ecr-deployment-empty-image.tar", Released(1)),
    ("containerd-hybrid.tar", Released(1)),
    ("docker-29-graph-driver.tar", Released(1)),
    ("docker-legacy-symlink.tar", Released(2)),
    ("docker-legacy.tar.gz", Released(1)),
    ("ggcr-hello-world-v25.tar", Released(1)),
    ("ggcr-no_manifest.tar", Refused("the archive has no manifest.json, though its image config")),
    ("ggcr-null_manifest.tar", Refused("manifest.json names no image")),
    ("ggcr-test_bundle.tar", Released(2)),
    ("ggcr-test_link.tar", Released(2)),
    ("jib-extraction-docker-save.tar", Released(1)),
    ("jib-extraction-jib-image.tar", Released(1)),
    ("libimage-buildkit-docker.tar", Refused("it has no layers")),
    ("libimage-buildkit-oci.tar", Refused("it has no layers")),
    ("libimage-docker-two-images.tar.xz", Released(2)),
    ("libimage-docker-unnamed.tar.xz", Released(1)),
    ("libimage-oci-registry-name.tar.gz", Released(1)),
    ("libimage-oci-unnamed.tar.gz", Released(1)),
    ("oras-hello-world.tar", Released(1)),
    ("podman-multi.tar", Released(2)),
    ("skopeo-oci-zstd.tar", Released(1)),
    ("umoci-oci-dotslash.tar", Released(1)),
];

#[tokio::test]
async fn tarballs_of_many_tools_become_what_they_should() {
    let Some(folder) = std::env::var_os("GANTRY_TARBALLS") else {
        println!("checked 0 tarballs: GANTRY_TARBALLS is not set");
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    let expected: BTreeMap<&str, &Expected> = FILES.iter().map(|(name, expected)| (*name, expected)).collect();
    let mut checked = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(".tar") {
            continue;
        }
        let wanted = expected.get(name.as_str()).unwrap_or_else(|| panic!("no row for {name}"));
        // Each has a registry of its own: several were saved under the same names.
        let pipeline = Pipeline::start(env!("CARGO_BIN_EXE_gantry-under-test")).await;
        let mut log = pipeline.stack.log();
        let uploaded: Uploaded = pipeline.put(&name, &std::fs::read(&path).expect("readable")).await;
        let receipt = pipeline.decided(&mut log, &uploaded).await;
        match wanted {
            Refused(words) => {
                assert_eq!(receipt["state"], "failed", "{name}: {receipt:#}");
                assert!(receipt.to_string().contains(words), "{name}: {receipt:#}");
            }
            Released(images) => {
                assert_eq!(receipt["state"], "released", "{name}: {receipt:#}");
                let found = receipt["import"]["images"].as_array().unwrap();
                assert_eq!(found.len(), *images, "{name}: {receipt:#}");
                for image in found {
                    check(&pipeline, &name, image, &path).await;
                }
            }
        }
        checked += 1;
    }
    assert_eq!(checked, expected.len(), "a tarball is missing");
    println!("checked {checked} tarballs");
}

/// Every platform of the image is whole, under every tag; and an OCI layout's digest is the one in the archive.
async fn check(pipeline: &Pipeline, name: &str, image: &Value, path: &std::path::Path) {
    let images = pipeline.stack.images();
    let repository = image["repository"].as_str().unwrap();
    for tag in image["tags"].as_array().unwrap() {
        let tag = tag.as_str().unwrap();
        assert_eq!(pipeline.tagged(repository)[tag], image["digest"], "{name}");
        let top = manifest(images, repository, tag);
        let children = top["manifests"].as_array().cloned().unwrap_or_default();
        let platforms: Vec<String> = if children.is_empty() {
            vec![tag.to_owned()]
        } else {
            let images = children.iter().filter(|child| child["platform"]["os"] != "unknown");
            images.map(|child| child["digest"].as_str().unwrap().to_owned()).collect()
        };
        for reference in &platforms {
            check_image(images, repository, reference);
        }
    }
    let source = Arc::new(FileSource::open(path).await.unwrap());
    let archive = Archive::open(&source, USUAL_DELIVERY).await.unwrap();
    let contents = Contents::read(&*source, &archive).await.unwrap();
    if contents.layout == gantry::archive::Layout::Oci && contents.left_out.is_empty() {
        let bytes = decompressed(&std::fs::read(path).unwrap());
        let hex = image["digest"].as_str().unwrap().trim_start_matches("sha256:");
        let named = bytes.windows(hex.len()).any(|window| window == hex.as_bytes());
        assert!(named, "{name}: the digest in ECR is the digest in the archive");
    }
}
