//! Archives as users and their tools write them, and as an attacker might.

#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::string_slice,
    reason = "a test that is wrong may panic"
)]

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;
use crate::image::Digest;
use crate::object::{Body, ObjectError, Source};

/// An archive in memory.
#[derive(Clone)]
pub(super) struct Memory(pub(super) Bytes);

impl Source for Memory {
    fn length_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn get(&self, offset: u64, length: u64) -> Result<Body, ObjectError> {
        let end = (offset + length).min(self.length_bytes());
        let range = usize::try_from(offset).unwrap()..usize::try_from(end).unwrap();
        Ok(stream::iter([Ok(self.0.slice(range))]).boxed())
    }
}

/// Writes entries one after the other.
pub(super) struct Tar(tar::Builder<Vec<u8>>);

impl Default for Tar {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Tar {
    pub(super) fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let mut header = Header::new_gnu();
        header.set_size(content.as_ref().len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, path, content.as_ref()).unwrap();
        self
    }

    pub(super) fn link(mut self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    fn folder(mut self, path: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        self.0.append_data(&mut header, path, std::io::empty()).unwrap();
        self
    }

    /// An entry whose path and size stand in pax records, and a header that says otherwise.
    fn pax(mut self, records: &[(&str, &str)], path: &str, content: &[u8]) -> Self {
        self.0.append_pax_extensions(records.iter().map(|(key, value)| (*key, value.as_bytes()))).unwrap();
        self.file(path, content)
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// The config of an image whose layers are these tars, uncompressed.
pub(super) fn config(layers: &[&[u8]]) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
    format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
}

pub(super) fn open(bytes: impl Into<Bytes>) -> Result<(Arc<Memory>, Archive), ArchiveError> {
    let source = Arc::new(Memory(bytes.into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let archive = runtime.block_on(Archive::open(&source, USUAL_DELIVERY))?;
    Ok((source, archive))
}

pub(super) fn read(bytes: impl Into<Bytes>) -> Result<Contents, ArchiveError> {
    let source = Arc::new(Memory(bytes.into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let archive = Archive::open(&source, USUAL_DELIVERY).await?;
        Contents::read(&*source, &archive).await
    })
}

/// The layer's place, and how it is stored.
fn here(layer: &DockerLayer) -> (&Extent, Stored) {
    let LayerBytes::Here { extent, stored } = &layer.bytes else { panic!("the layer is elsewhere") };
    (extent, *stored)
}

fn docker(contents: &Contents, at: usize) -> &DockerImage {
    let Content::Docker(image) = &contents.images[at].content else { panic!("not a Docker image") };
    image
}

pub(super) fn oci(contents: &Contents, at: usize) -> &OciImage {
    let Content::Oci(image) = &contents.images[at].content else { panic!("not an OCI image") };
    image
}

fn simple(manifest: &str) -> Vec<u8> {
    Tar::default()
        .file("l1/layer.tar", b"one")
        .file("c.json", config(&[b"one"]))
        .file("manifest.json", manifest)
        .bytes()
}

const MANIFEST: &str = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l1/layer.tar"]}]"#;

#[test]
fn a_docker_archive_says_where_its_layers_lie() {
    let contents = read(simple(MANIFEST)).unwrap();
    let image = docker(&contents, 0);
    assert_eq!(contents.layout, Layout::Docker);
    assert_eq!(image.config.descriptor.digest, Digest::of(config(&[b"one"]).as_bytes()));
    assert_eq!(image.platform.as_ref().unwrap().to_string(), "linux/amd64");
    let layer = &image.layers[0];
    let (extent, stored) = here(layer);
    assert_eq!((extent.offset, extent.size_bytes, stored), (512, 3, Stored::Plain));
}

#[test]
fn links_lead_to_their_targets_before_or_after() {
    let manifest = r#"[{"Config":"c.json","Layers":["x/sym.tar","x/hard.tar","x/chain.tar","l/new.tar"]}]"#;
    let one: &[u8] = b"one";
    let bytes = Tar::default()
        .link(EntryType::Symlink, "x/sym.tar", "../l/one.tar")
        .link(EntryType::Symlink, "x/chain.tar", "sym.tar")
        .file("./l/one.tar", b"one")
        .link(EntryType::Link, "x/hard.tar", "l/one.tar")
        .file("l/new.tar", b"old")
        .file("l/new.tar", b"two")
        .file("c.json", config(&[one, one, one, b"two"]))
        .file("manifest.json", manifest)
        .bytes();
    let contents = read(bytes).unwrap();
    let paths: Vec<&str> = docker(&contents, 0).layers.iter().map(|layer| here(layer).0.path.as_str()).collect();
    assert_eq!(paths, ["l/one.tar", "l/one.tar", "l/one.tar", "l/new.tar"]);
    let (last, _) = here(&docker(&contents, 0).layers[3]);
    assert!(last.magic.unwrap().starts_with(b"two"), "of two entries with one path the last counts");
}

#[test]
fn a_wrapping_folder_and_a_dot_prefix_do_not_matter() {
    for prefix in ["./", "image/", "./image/"] {
        let bytes = Tar::default()
            .folder(prefix)
            .file(&format!("{prefix}l1/layer.tar"), b"one")
            .file(&format!("{prefix}c.json"), config(&[b"one"]))
            .file(&format!("{prefix}manifest.json"), MANIFEST)
            .bytes();
        assert_eq!(docker(&read(bytes).unwrap(), 0).layers.len(), 1, "{prefix}");
    }
}

#[test]
fn lower_case_keys_nulls_and_compressed_layers_are_read() {
    let bytes = Tar::default()
        .file("l1.tar.gz", b"\x1f\x8bgz")
        .file("config.json", config(&[b"one"]))
        .file("manifest.json", r#"[{"config":"config.json","repoTags":null,"layers":["l1.tar.gz"]}]"#)
        .bytes();
    let contents = read(bytes).unwrap();
    assert!(contents.images[0].names.is_empty());
    assert_eq!(here(&docker(&contents, 0).layers[0]).1, Stored::Gzip);
}

#[test]
fn pax_records_overrule_the_header_they_precede() {
    let long = "l".repeat(200);
    let manifest = format!(r#"[{{"Config":"c.json","Layers":["{long}","sized"]}}]"#);
    let bytes = Tar::default()
        .pax(&[("path", &long), ("comment", "x")], "short", b"one")
        .pax(&[("size", "3")], "sized", b"two")
        .file("c.json", config(&[b"one", b"two"]))
        .file("manifest.json", manifest)
        .bytes();
    let contents = read(bytes).unwrap();
    let sizes: Vec<u64> = docker(&contents, 0).layers.iter().map(|layer| here(layer).0.size_bytes).collect();
    assert_eq!(sizes, [3, 3]);
}

#[test]
fn what_is_no_image_archive_is_refused_in_words_to_act_on() {
    let whole = simple(MANIFEST);
    let filesystem = Tar::default().folder("etc").folder("usr").file("etc/passwd", b"root").bytes();
    let flipped = {
        let mut bytes = whole.clone();
        // The size field of the second header, which no longer adds up to its checksum.
        bytes[1024 + 124 + 8] ^= 1;
        bytes
    };
    for (what, bytes, message) in [
        ("nothing", vec![], "the upload is empty: 0 bytes; wanted an image tarball, as `docker save` writes it"),
        ("text", vec![b'x'; 2000], "the upload is text, not a tar archive"),
        ("a short file", b"hello".to_vec(), "the upload is shorter than one tar header (512 bytes), not a tar archive"),
        ("a zip", [b"PK\x03\x04".as_slice(), &[7; 600]].concat(), "the upload is a zip file, not a tar archive"),
        ("noise", [1, 200].repeat(600), "the upload is some other binary file, not a tar archive"),
        ("no gzip", [b"\x1f\x8b".as_slice(), &[7; 600]].concat(), "the gzip stream is damaged near byte"),
        (
            "zeros",
            vec![0; 1024],
            "the archive holds no image: no index.json, manifest.json or repositories among its 0 entries",
        ),
        ("a filesystem", filesystem, "3 entries; it looks like a root filesystem, as `docker export` writes it"),
        (
            "a cut",
            whole[..512 + 2].to_vec(),
            "the archive is cut off: entry \"l1/layer.tar\" at byte 0 goes to byte 515, and the upload has 514",
        ),
        ("a cut header", whole[..1024 + 100].to_vec(), "the archive is cut off: entry \"a header\" at byte 1024"),
        ("a bit flipped", flipped, "the archive is damaged: no tar header at byte 1024, after \"l1/layer.tar\""),
        ("null", simple("null"), "manifest.json names no image: it is an empty list or null"),
        ("an empty list", simple("[]"), "manifest.json names no image"),
        (
            "an object",
            simple(r#"{"schemaVersion":2}"#),
            "manifest.json does not read as a manifest (of a `dir:` layout",
        ),
        ("no JSON", simple("[{"), "manifest.json does not read as a list of images"),
        (
            "a missing layer",
            simple(r#"[{"Config":"c.json","Layers":["l2/layer.tar"]}]"#),
            "manifest.json names \"l2/layer.tar\", and the archive has no such file",
        ),
        (
            "a missing config",
            simple(r#"[{"Config":"d.json","Layers":["l1/layer.tar"]}]"#),
            "manifest.json names \"d.json\", and the archive has no such file",
        ),
        (
            "too few layers",
            simple(r#"[{"Config":"c.json","Layers":[]}]"#),
            "image c.json has 0 layers and 1 diff IDs; wanted as many of each",
        ),
    ] {
        let error = read(bytes).map(|_| what).unwrap_err();
        assert!(error.to_string().contains(message), "{what}: {error}");
        assert!(!error.fix().is_empty(), "{what}");
    }
}

#[test]
fn entries_that_lead_nowhere_are_named() {
    for (what, tar, why) in [
        ("a loop", Tar::default().link(EntryType::Symlink, "l1/layer.tar", "layer.tar"), "more than 16 links"),
        ("a way out", Tar::default().link(EntryType::Symlink, "l1/layer.tar", "../../x"), "links out of the archive"),
        (
            "a dangling link",
            Tar::default().link(EntryType::Symlink, "l1/layer.tar", "gone"),
            "it links to \"l1/gone\", which is not there",
        ),
        ("a folder", Tar::default().folder("l1/layer.tar"), "it is a folder"),
        ("a pipe", Tar::default().link(EntryType::Fifo, "l1/layer.tar", "x"), "it is a device or a pipe"),
        (
            "a sparse file",
            Tar::default().pax(&[("GNU.sparse.major", "1")], "l1/layer.tar", b"one"),
            "it is a sparse file",
        ),
    ] {
        let bytes = tar.file("c.json", config(&[b"one"])).file("manifest.json", MANIFEST).bytes();
        let error = read(bytes).map(|_| what).unwrap_err();
        assert!(error.to_string().contains(why), "{what}: {error}");
    }
}

#[test]
fn a_config_that_is_not_what_it_is_named_is_refused() {
    let name = format!("{}.json", Digest::of(b"another").hex());
    let manifest = format!(r#"[{{"Config":"{name}","Layers":["l1/layer.tar"]}}]"#);
    let bytes = Tar::default()
        .file("l1/layer.tar", b"one")
        .file(&name, config(&[b"one"]))
        .file("manifest.json", manifest)
        .bytes();
    assert!(matches!(read(bytes), Err(ArchiveError::WrongDigest { .. })));
}

#[test]
fn limits_are_met_before_they_are_believed() {
    let mut many = Tar::default();
    for at in 0..130 {
        many = many.file(&format!("l{at}"), b"one");
    }
    let paths: Vec<String> = (0..130).map(|at| format!("\"l{at}\"")).collect();
    let layers = vec![b"one".as_slice(); 130];
    let manifest = format!(r#"[{{"Config":"c.json","Layers":[{}]}}]"#, paths.join(","));
    let bytes = many.file("c.json", config(&layers)).file("manifest.json", manifest).bytes();
    let error = read(bytes).unwrap_err().to_string();
    assert!(
        error.contains("the number of layers of image c.json") && error.contains("found 130, at most 128"),
        "{error}"
    );

    let huge = Tar::default().file("manifest.json", vec![b' '; 5 << 20]).bytes();
    let error = read(huge).unwrap_err().to_string();
    assert!(error.contains("the JSON entry \"manifest.json\"") && error.contains("found 5242880"), "{error}");
}

/// An OCI layout under construction.
#[derive(Default)]
pub(super) struct Oci {
    pub(super) tar: Tar,
}

impl Oci {
    pub(super) fn blob(&mut self, content: &str) -> String {
        let digest = Digest::of(content.as_bytes());
        let tar = std::mem::take(&mut self.tar);
        self.tar = tar.file(&format!("blobs/sha256/{}", digest.hex()), content);
        format!(r#""digest":"{digest}","size":{}"#, content.len())
    }

    /// A manifest over one layer; its descriptor.
    pub(super) fn image(&mut self, layer: &str, architecture: &str) -> String {
        let config = self.blob(&config(&[layer.as_bytes()]).replace("amd64", architecture));
        let layer = self.blob(layer);
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar",{layer}}}]}}"#
        );
        let manifest = self.blob(&manifest);
        format!(
            r#""mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest},"platform":{{"os":"linux","architecture":"{architecture}"}}"#
        )
    }

    /// An index over descriptors; its own.
    pub(super) fn index(&mut self, children: &[&str]) -> String {
        let children: Vec<String> = children.iter().map(|child| format!("{{{child}}}")).collect();
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            children.join(",")
        );
        let index = self.blob(&index);
        format!(r#""mediaType":"application/vnd.oci.image.index.v1+json",{index}"#)
    }

    pub(super) fn read(self, top: &[&str]) -> Result<Contents, ArchiveError> {
        let children: Vec<String> = top.iter().map(|child| format!("{{{child}}}")).collect();
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","));
        read(self.tar.file("index.json", index).bytes())
    }
}

pub(super) fn digest_in(descriptor: &str) -> Digest {
    let start = descriptor.find("sha256:").unwrap();
    descriptor[start..start + 71].parse().unwrap()
}

fn absent(architecture: &str) -> String {
    let digest = Digest::of(architecture.as_bytes());
    format!(
        r#""mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":7,"platform":{{"os":"linux","architecture":"{architecture}"}}"#
    )
}

#[test]
fn an_index_is_pushed_whole_children_first() {
    let mut oci_layout = Oci::default();
    let (amd, arm) = (oci_layout.image("a", "amd64"), oci_layout.image("b", "arm64"));
    let index = oci_layout.index(&[&amd, &arm]);
    let contents = oci_layout.read(&[&index]).unwrap();
    let image = oci(&contents, 0);
    let order: Vec<Digest> = image.manifests.iter().map(|manifest| manifest.manifest.digest).collect();
    assert_eq!(order, [digest_in(&amd), digest_in(&arm), digest_in(&index)]);
    assert_eq!(image.root().digest, digest_in(&index));
    assert_eq!(contents.images[0].platforms(), ["linux/amd64", "linux/arm64"]);
    assert_eq!(image.blobs.len(), 4);
}

#[test]
fn a_sparse_index_is_pruned_and_says_so() {
    let mut oci_layout = Oci::default();
    let (amd, arm) = (oci_layout.image("a", "amd64"), oci_layout.image("b", "arm64"));
    let index = oci_layout.index(&[&amd, &absent("s390x"), &arm]);
    let contents = oci_layout.read(&[&index]).unwrap();
    assert_ne!(oci(&contents, 0).root().digest, digest_in(&index));
    assert_eq!(contents.left_out, [format!("linux/s390x ({})", Digest::of(b"s390x"))]);

    let mut oci_layout = Oci::default();
    let amd = oci_layout.image("a", "amd64");
    let index = oci_layout.index(&[&absent("arm64"), &amd]);
    let contents = oci_layout.read(&[&index]).unwrap();
    assert_eq!(oci(&contents, 0).root().digest, digest_in(&amd), "the one image that remains, byte for byte");
}

#[test]
fn an_index_of_absent_images_is_refused_with_what_is_missing() {
    let mut oci_layout = Oci::default();
    let index = oci_layout.index(&[&absent("arm64")]);
    let error = oci_layout.read(&[&index]).unwrap_err().to_string();
    assert!(error.contains("linux/arm64") && error.contains("lacks some of its blobs"), "{error}");
}

#[test]
fn one_image_may_have_several_entries_and_names() {
    let mut oci_layout = Oci::default();
    let image = oci_layout.image("a", "amd64");
    let named = |name: &str| format!(r#"{image},"annotations":{{"io.containerd.image.name":"{name}"}}"#);
    let contents = oci_layout.read(&[&named("x.io/a/b:1"), &named("x.io/a/b:2")]).unwrap();
    assert_eq!(contents.images.len(), 1);
    let tags: Vec<_> = contents.images[0].names.iter().map(|name| name.tag.clone().unwrap()).collect();
    assert_eq!(tags, ["1", "2"]);
}

#[test]
fn what_ecr_refuses_is_found_before_a_byte_is_sent() {
    let mut empty = Oci::default();
    let config = empty.blob("{}");
    let manifest = empty.blob(&format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},"layers":[]}}"#
    ));
    let manifest = format!(r#""mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest}"#);
    let error = empty.read(&[&manifest]).unwrap_err().to_string();
    assert!(error.contains("it has no layers"), "{error}");

    let mut features = Oci::default();
    let amd = features.image("a", "amd64").replace("\"os\"", "\"features\":[\"x\"],\"os\"");
    let index = features.index(&[&amd]);
    let error = features.read(&[&index]).unwrap_err().to_string();
    assert!(error.contains("platform.features"), "{error}");

    let mut parameter = Oci::default();
    let layer = parameter.blob("layer");
    let manifest = parameter.blob(&format!(
        r#"{{"config":{{"mediaType":"a/b",{config}}},"layers":[{{"mediaType":"text/plain; charset=utf-8",{layer}}}]}}"#
    ));
    parameter.blob("{}");
    let manifest = format!(r#""mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest}"#);
    let error = parameter.read(&[&manifest]).unwrap_err().to_string();
    assert!(error.contains("has a parameter"), "{error}");
}

#[test]
fn a_blob_of_another_size_or_content_is_refused() {
    let mut oci_layout = Oci::default();
    let image = oci_layout.image("a", "amd64");
    let manifest = oci_layout.index(&[&image]);
    let size = format!("\"size\":{}", 9_999);
    let wrong = manifest.replacen(&manifest[manifest.find("\"size\"").unwrap()..], &size, 1);
    // The index's own size is not what makes it readable, its digest is.
    assert!(oci_layout.read(&[&wrong]).is_ok());

    let bytes = Tar::default()
        .file(&format!("blobs/sha256/{}", Digest::of(b"{}").hex()), "{ }")
        .file("index.json", format!(r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":2}}]}}"#, Digest::of(b"{}")))
        .bytes();
    assert!(matches!(read(bytes), Err(ArchiveError::WrongDigest { .. })));
}

proptest! {
    /// Whatever the writer wrote is found again, wherever the windows fall.
    #[test]
    fn any_files_are_found_where_they_lie(sizes in proptest::collection::vec(0..70_000_usize, 1..12)) {
        let mut tar = Tar::default();
        for (at, size) in sizes.iter().enumerate() {
            tar = tar.file(&format!("f{at}"), vec![u8::try_from(at).unwrap(); *size]);
        }
        let (source, Archive { index, .. }) = open(tar.bytes()).unwrap();
        prop_assert_eq!(index.len(), sizes.len());
        for (at, size) in sizes.iter().enumerate() {
            let extent = index.file(&format!("f{at}")).unwrap();
            let range = usize::try_from(extent.offset).unwrap()..usize::try_from(extent.range().end).unwrap();
            prop_assert_eq!(range.len(), *size);
            prop_assert!(source.0[range].iter().all(|byte| usize::from(*byte) == at));
        }
    }

    /// No bytes make the walk panic.
    #[test]
    fn any_bytes_are_an_index_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        drop(read(bytes));
    }

    /// Nor does an archive with bytes flipped.
    #[test]
    fn any_damage_is_an_answer(flips in proptest::collection::vec((0..4_000_usize, any::<u8>()), 1..8)) {
        let mut bytes = simple(MANIFEST);
        let length = bytes.len();
        for (at, byte) in flips {
            bytes[at % length] = byte;
        }
        drop(read(bytes));
    }
}
