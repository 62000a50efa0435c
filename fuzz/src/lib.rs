//! What is fuzzed, as functions: cargo-fuzz calls them with bytes that it finds, a normal test with bytes that it
//! mutates. Each does more than not panic: it says what has to hold whatever the bytes are.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use gantry::archive::{Archive, ArchiveError, ArchiveImage, Contents, LayerBytes, USUAL_DELIVERY};
use gantry::image::manifest::{own_media_type, sniffed_media_type};
use gantry::image::{Manifest, MediaType};
use gantry::naming::{self, ArchiveName, Upload};
use gantry::object::{Body, ObjectError, Source};
use tokio::runtime::Runtime;

/// An upload in memory.
struct Memory(Bytes);

impl Source for Memory {
    fn length_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn get(&self, offset: u64, length: u64) -> Result<Body, ObjectError> {
        let end = offset.saturating_add(length).min(self.length_bytes());
        let start = usize::try_from(offset.min(end)).unwrap_or(usize::MAX);
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        Ok(stream::iter([Ok(self.0.slice(start..end))]).boxed())
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let built = tokio::runtime::Builder::new_current_thread().enable_time().build();
        built.expect("a runtime can be made")
    })
}

fn read(bytes: &[u8]) -> Result<Contents, ArchiveError> {
    let source = Arc::new(Memory(Bytes::copy_from_slice(bytes)));
    runtime().block_on(async {
        let archive = Archive::open(&source, USUAL_DELIVERY).await?;
        Contents::read(&*source, &archive).await
    })
}

/// Any bytes as an upload: an error, or images all of whose blobs lie inside the archive.
pub fn archive(bytes: &[u8]) {
    let compressed = gantry::decompress::Codec::of(bytes).is_some();
    let Ok(contents) = read(bytes) else { return };
    assert!(!contents.images.is_empty(), "an archive that is read has an image");
    for extent in contents.images.iter().flat_map(ArchiveImage::extents) {
        let inside = extent.content.is_some() || compressed || extent.range().end <= bytes.len() as u64;
        assert!(inside, "{extent:?} in {} bytes", bytes.len());
    }
}

/// One file of an archive, without its closing blocks.
fn entry(path: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, path.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(512) - content.len();
    [header.as_slice(), content, &vec![0; padding]].concat()
}

/// Any bytes as one of the JSON files of an archive (the first byte chooses which), and as a manifest.
pub fn manifests(bytes: &[u8]) {
    let Some((which, json)) = bytes.split_first() else { return };
    let name = ["index.json", "manifest.json", "repositories", "c.json", "a/json"][usize::from(*which) % 5];
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"]}}"#;
    let files: [(&str, &[u8]); 6] = [
        ("l.tar", b"aaa"),
        ("c.json", config),
        ("a/layer.tar", b"aaa"),
        ("a/json", br#"{"os":"linux"}"#),
        ("repositories", br#"{"r":{"t":"a"}}"#),
        ("manifest.json", br#"[{"Config":"c.json","Layers":["l.tar"]}]"#),
    ];
    let mut tar: Vec<u8> = files.iter().flat_map(|(path, content)| entry(path, content)).collect();
    if name == "repositories" || name == "a/json" {
        // Only without a manifest.json these are read.
        tar = files[2..5].iter().flat_map(|(path, content)| entry(path, content)).collect();
    }
    tar.extend(entry(name, json));
    tar.extend([0; 1_024]);
    drop(read(&tar));

    let own = own_media_type(json).ok().flatten();
    let sniffed = sniffed_media_type(json).ok();
    if let (Some(own), Some(sniffed)) = (&own, &sniffed) {
        assert_eq!(own, sniffed, "what a manifest says of itself counts");
    }
    for media_type in [MediaType::OCI_MANIFEST, MediaType::OCI_INDEX] {
        if let Ok(manifest) = Manifest::parse(Bytes::copy_from_slice(json), media_type.into()) {
            assert_eq!(manifest.bytes, json, "the bytes are never written anew");
        }
    }
}

/// An image to be named; which one does not matter.
fn image(names: Vec<ArchiveName>) -> ArchiveImage {
    static IMAGE: OnceLock<ArchiveImage> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let mut tar = entry("a/layer.tar", b"aaa");
        tar.extend(entry("a/json", br#"{"os":"linux"}"#));
        tar.extend(entry("repositories", br#"{"r":{"t":"a"}}"#));
        tar.extend([0; 1_024]);
        let contents = read(&tar).expect("a whole archive");
        contents.images.into_iter().next().expect("its image")
    });
    debug_assert!(matches!(&image.content, gantry::archive::Content::Docker(image)
        if matches!(image.layers.first().map(|layer| &layer.bytes), Some(LayerBytes::Here { .. }))));
    ArchiveImage { names, ..image.clone() }
}

/// Lines: a key, metadata, then the archive's own names. Whatever they are, no image leaves the key's first folder.
pub fn naming(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let Some(key) = lines.next() else { return };
    let metadata = lines.next().filter(|line| !line.is_empty());
    let mut images = vec![Vec::new()];
    for line in lines.take(20) {
        match line {
            // A line of its own begins the next image.
            "--" => images.push(Vec::new()),
            name => {
                if let Some(last) = images.last_mut() {
                    last.extend(ArchiveName::parse(name).into_iter().chain(ArchiveName::of_image(name)));
                }
            }
        }
    }
    let images: Vec<ArchiveImage> = images.into_iter().map(image).collect();
    let upload = Upload { bucket: "uploads", key, image: metadata, prefix: "" };
    let targets = match naming::resolve(upload, &images) {
        Ok(targets) => targets,
        Err(error) => return assert!(!error.fix().is_empty()),
    };
    assert_eq!(targets.len(), images.len());
    for target in targets {
        assert!(!target.tags.is_empty());
        if let Some((folder, _)) = key.split_once('/') {
            assert!(target.repository.is_at_or_below(folder), "{} is outside {folder}", target.repository);
        }
    }
}

/// Any text as what woke the function.
pub fn event(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(json) = gantry::event::json(&text) else { return };
    drop(gantry::event::push::parse(&json));
    drop(gantry::event::scan::parse(&json, "state"));
    drop(gantry::event::object::parse(json));
}
