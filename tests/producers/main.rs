//! Tarballs of every producer, through the whole pipeline: those of `rows`, built here as each tool writes them, and
//! real ones, which are not part of the project: `GANTRY_TARBALLS` names the folder that holds them, and without it
//! none is checked. The last line says how many were.
//!
//! `docs/conformance.md` is what these tests expect, and a test fails when the file says something else;
//! `GANTRY_WRITE_DOCS=1` writes it anew.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

mod builder;
mod fuzzing;
mod matrix;
mod rows;
#[expect(unreachable_pub, reason = "cargo-fuzz sees them from another package")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gantry::archive::{Archive, Contents, Layout, USUAL_DELIVERY};
use gantry::object::FileSource;
use pipeline_tests::look::{check_image, decompressed, digest, manifest};
use pipeline_tests::{Pipeline, Uploaded};
use serde_json::Value;

/// What becomes of one file.
pub(crate) enum Expected {
    /// So many images, released.
    Released(usize),
    /// Refused, in words that contain these.
    Refused(&'static str),
}

use Expected::{Refused, Released};

pub(crate) const FILES: [(&str, Expected); 23] = [
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
        pipeline_tests::say("checked 0 tarballs: GANTRY_TARBALLS is not set");
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    let expected: BTreeMap<&str, &Expected> = FILES.iter().map(|(name, expected)| (*name, expected)).collect();
    let (mut checked, mut skopeo_agrees) = (0, 0);
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
                    skopeo_agrees += usize::from(check(&pipeline, &name, image, &path).await);
                }
            }
        }
        checked += 1;
    }
    assert_eq!(checked, expected.len(), "a tarball is missing");
    pipeline_tests::say(&format!("checked {checked} tarballs; skopeo agrees on {skopeo_agrees} of their images"));
}

/// Every platform of the image is whole, under every tag; an OCI layout's digest is the one in the archive; and what
/// skopeo says of the archive is what is in the registry, where it is installed and can read it.
///
/// Whether skopeo was asked.
async fn check(pipeline: &Pipeline, name: &str, image: &Value, path: &Path) -> bool {
    for tag in image["tags"].as_array().unwrap() {
        runnable(pipeline, image, tag.as_str().unwrap());
        assert_eq!(
            pipeline.tagged(image["repository"].as_str().unwrap())[tag.as_str().unwrap()],
            image["digest"],
            "{name}"
        );
    }
    let source = Arc::new(FileSource::open(path).await.unwrap());
    let archive = Archive::open(&source, USUAL_DELIVERY).await.unwrap();
    let contents = Contents::read(&*source, &archive).await.unwrap();
    let plain = tempfile::NamedTempFile::new().unwrap();
    let bytes = decompressed(&std::fs::read(path).unwrap());
    std::fs::write(plain.path(), &bytes).unwrap();
    if contents.layout == Layout::Oci && contents.left_out.is_empty() {
        let hex = image["digest"].as_str().unwrap().trim_start_matches("sha256:");
        let named = bytes.windows(hex.len()).any(|window| window == hex.as_bytes());
        assert!(named, "{name}: the digest in ECR is the digest in the archive");
        if contents.images.len() == 1
            && let Some(raw) = skopeo(&["inspect", "--raw"], "oci-archive", plain.path())
        {
            assert_eq!(image["digest"], digest(&raw), "{name}: skopeo");
            return true;
        }
    } else if contents.images.len() == 1
        && let Some(raw) = skopeo(&["inspect", "--config", "--raw"], "docker-archive", plain.path())
    {
        assert_eq!(image["image_id"], digest(&raw), "{name}: skopeo");
        return true;
    }
    false
}

/// What skopeo prints of an archive; nothing where it is not installed or cannot read it.
fn skopeo(arguments: &[&str], transport: &str, path: &Path) -> Option<Vec<u8>> {
    let output = Command::new("skopeo").args(arguments).arg(format!("{transport}:{}", path.display())).output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// Checks every platform of an image and gives the digests of their configs and manifests; what does not run is passed
/// over.
fn runnable(pipeline: &Pipeline, image: &Value, reference: &str) -> Vec<(String, String)> {
    let images = pipeline.stack.images();
    let repository = image["repository"].as_str().unwrap();
    let top = manifest(images, repository, reference);
    if let Some(children) = top["manifests"].as_array() {
        let runs = children.iter().filter(|child| child["platform"]["os"] != "unknown");
        return runs.flat_map(|child| runnable(pipeline, image, child["digest"].as_str().unwrap())).collect();
    }
    let config = top["config"]["mediaType"].as_str().unwrap();
    if !matches!(config, builder::OCI_CONFIG | builder::DOCKER_CONFIG) {
        return vec![];
    }
    let (digest, _) = images.image(repository, reference).unwrap();
    vec![(check_image(images, repository, reference), digest.to_string())]
}

#[tokio::test]
async fn every_row_becomes_what_it_should() {
    let pipeline = Pipeline::start(env!("CARGO_BIN_EXE_gantry-under-test")).await;
    for (at, row) in rows::rows().iter().enumerate() {
        let what = format!("{}: {}", row.producer, row.layout);
        let key = format!("rows/r{at:02}/1.tar");
        let receipt = pipeline.import_with(&key, &row.bytes, &row.metadata).await;
        let expected = match &row.outcome {
            rows::Outcome::Refused(words) => {
                assert_eq!(receipt["state"], "failed", "{what}: {receipt:#}");
                assert!(receipt["summary"].as_str().unwrap().contains(words), "{what}: {receipt:#}");
                assert!(pipeline.tagged(&format!("rows/r{at:02}")).is_empty(), "{what}");
                continue;
            }
            rows::Outcome::Released(expected) => expected,
        };
        assert_eq!(receipt["state"], "released", "{what}: {receipt:#}");
        let found = receipt["import"]["images"].as_array().unwrap();
        assert_eq!(found.len(), expected.images, "{what}: {receipt:#}");
        let left_out = receipt["import"]["left_out"].as_array().map_or(0, Vec::len);
        assert_eq!(left_out, expected.left_out, "{what}: {receipt:#}");
        let mut configs = Vec::new();
        for image in found {
            let tags = image["tags"].as_array().unwrap();
            for (config, manifest) in runnable(&pipeline, image, tags[0].as_str().unwrap()) {
                configs.push(config);
                assert!(expected.leaves.is_empty() || expected.leaves.contains(&manifest), "{what}: {receipt:#}");
            }
        }
        configs.sort_unstable();
        let mut wanted = expected.configs.clone();
        wanted.sort_unstable();
        assert_eq!(configs, wanted, "{what}: {receipt:#}");
        if let Some(wanted) = &expected.manifest {
            assert_eq!(found[0]["digest"], wanted.as_str(), "{what}: {receipt:#}");
        }
        let repository = found[0]["repository"].as_str().unwrap();
        for beside in &expected.beside {
            assert!(pipeline.stack.images().image(repository, beside).is_some(), "{what}: {beside} is not there");
        }
        match row.metadata.first() {
            Some(("profile", name)) => {
                let profile = &receipt["import"]["profile"];
                assert_eq!(profile["name"], *name, "{what}: {receipt:#}");
                assert!(!profile["changes"].as_array().unwrap().is_empty(), "{what}: {receipt:#}");
                let top = manifest(pipeline.stack.images(), repository, "1").to_string();
                assert!(!top.contains("attestation") && !top.contains("zstd"), "{what}: {top}");
            }
            _ => assert!(receipt["import"]["profile"].is_null(), "{what}: {receipt:#}"),
        }
    }
}

#[test]
fn the_conformance_matrix_is_what_is_tested() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let generated = matrix::written(&rows::rows(), &FILES);
    if std::env::vars_os().any(|(name, _)| name == "GANTRY_WRITE_DOCS") {
        std::fs::write(&path, &generated).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == generated, "docs/conformance.md is out of date; GANTRY_WRITE_DOCS=1 cargo test writes it");
}
