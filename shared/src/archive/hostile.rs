//! Archives that mean harm, and the limits that they meet: each at its limit, and one past it.

#![expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test that is wrong may panic")]

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tar::{EntryType, Header};

use super::tests::{Memory, Oci, Tar, config, digest_in, oci as oci_image, open, read};
use super::*;
use crate::decompress::DecodeError;
use crate::disposition::{Disposition, chain};
use crate::image::Digest;
use crate::naming::Upload;
use crate::object::{Body, ObjectError};
use crate::plan::{Consumer, Plan, Profile, platform_of};
use crate::retry::Disposed as _;

const MANIFEST: &str = r#"[{"Config":"c.json","Layers":["l.tar"]}]"#;

/// A small archive around whatever comes before it.
fn image_after(front: Vec<u8>) -> Vec<u8> {
    let image =
        Tar::default().file("l.tar", b"one").file("c.json", config(&[b"one"])).file("manifest.json", MANIFEST).bytes();
    [front, image].concat()
}

/// One entry without the end of an archive, its header changed by `change`.
fn entry(path: &str, kind: EntryType, content: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = Header::new_gnu();
    // The crate refuses paths that lead out, so they are written past it.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    change(&mut header);
    header.set_cksum();
    let padding = content.len().next_multiple_of(512) - content.len();
    [header.as_bytes().as_slice(), content, &vec![0; padding]].concat()
}

fn plain(path: &str, content: &[u8]) -> Vec<u8> {
    entry(path, EntryType::Regular, content, |_| {})
}

/// A pax header with these records, as they stand.
fn pax(kind: EntryType, records: &str) -> Vec<u8> {
    entry("pax", kind, records.as_bytes(), |_| {})
}

/// `<length> <key>=<value>\n`, with the length counted.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length += 1;
    }
    format!("{length}{rest}")
}

fn refusal(bytes: Vec<u8>) -> String {
    let error = read(bytes).map(|found| found.images.len()).unwrap_err();
    assert_eq!(error.disposition(), Disposition::Permanent, "{error}");
    assert!(!error.fix().is_empty(), "{error}");
    chain(&error)
}

fn over(bytes: Vec<u8>, what: &str, found: u64, limit: u64) {
    let text = refusal(bytes);
    assert!(text.contains(what) && text.contains(&format!("found {found}, at most {limit}")), "{what}: {text}");
}

#[test]
fn the_number_of_entries_has_a_limit() {
    let header = plain("f", b"");
    let many = |count: usize| [header.repeat(count), vec![0; 1_024]].concat();
    let limit = limits::ARCHIVE_ENTRIES as u64;
    over(many(limits::ARCHIVE_ENTRIES + 1), "the number of entries", limit + 1, limit);
}

#[test]
fn as_many_entries_as_the_limit_are_indexed() {
    let mut bytes = Vec::with_capacity(limits::ARCHIVE_ENTRIES * 512 + 4_096);
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(0);
    for at in 0..limits::ARCHIVE_ENTRIES - 3 {
        header.set_path(format!("blobs/sha256/{at:064x}")).unwrap();
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
    }
    let (source, archive) = open(image_after(bytes)).unwrap();
    assert_eq!(archive.index.len(), limits::ARCHIVE_ENTRIES);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert_eq!(runtime.block_on(Contents::read(&*source, &archive)).unwrap().images.len(), 1);
}

#[test]
fn json_entries_have_a_limit() {
    let padded = |length: u64| {
        let mut manifest = MANIFEST.as_bytes().to_vec();
        manifest.resize(usize::try_from(length).unwrap(), b' ');
        Tar::default().file("l.tar", b"one").file("c.json", config(&[b"one"])).file("manifest.json", manifest).bytes()
    };
    assert!(read(padded(limits::JSON_BYTES)).is_ok());
    over(
        padded(limits::JSON_BYTES + 1),
        "the JSON entry \"manifest.json\"",
        limits::JSON_BYTES + 1,
        limits::JSON_BYTES,
    );
    over(padded(100 << 20), "the JSON entry \"manifest.json\"", 100 << 20, limits::JSON_BYTES);
    let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
    let deep = Tar::default().file("manifest.json", deep).bytes();
    assert!(refusal(deep).contains("manifest.json does not read"), "nesting");
}

#[test]
fn extended_headers_have_a_limit() {
    let limit = usize::try_from(limits::HEADER_EXTENSION_BYTES).unwrap();
    let padded = |length: usize| {
        let comment = record("comment", &"x".repeat(length - 20));
        let rest = length - comment.len();
        image_after(pax(EntryType::XHeader, &format!("{comment}{}", "\0".repeat(rest))))
    };
    assert!(read(padded(limit)).is_ok());
    over(padded(limit + 1), "an extended header", limits::HEADER_EXTENSION_BYTES + 1, limits::HEADER_EXTENSION_BYTES);
}

#[test]
fn paths_have_limits_one_by_one_and_together() {
    let named = |length: usize| {
        let front = pax(EntryType::XHeader, &record("path", &"p".repeat(length)));
        image_after([front, plain("short", b"x")].concat())
    };
    let limit = usize::try_from(limits::PATH_BYTES).unwrap();
    assert!(read(named(limit)).is_ok());
    over(named(limit + 1), "the length of a path", limits::PATH_BYTES + 1, limits::PATH_BYTES);
    let one = [pax(EntryType::XHeader, &record("path", &"p".repeat(limit))), plain("s", b"")].concat();
    let count = usize::try_from(limits::ALL_PATHS_BYTES / limits::PATH_BYTES).unwrap();
    assert!(open([one.repeat(count), vec![0; 512]].concat()).is_ok());
    let found = limits::ALL_PATHS_BYTES + limits::PATH_BYTES;
    over(one.repeat(count + 1), "the length of all paths together", found, limits::ALL_PATHS_BYTES);
}

#[test]
fn links_have_a_depth() {
    let chain = |links: usize| {
        let mut tar = Tar::default().file("l0", b"one");
        for at in 1..=links {
            tar = tar.link(EntryType::Symlink, &format!("l{at}"), &format!("l{}", at - 1));
        }
        let manifest = format!(r#"[{{"Config":"c.json","Layers":["l{links}"]}}]"#);
        tar.file("c.json", config(&[b"one"])).file("manifest.json", manifest).bytes()
    };
    assert!(read(chain(limits::LINK_DEPTH - 1)).is_ok());
    assert!(refusal(chain(limits::LINK_DEPTH)).contains("more than 16 links follow one another"));
}

#[test]
fn layers_and_images_have_limits() {
    let layered = |count: usize| {
        let layers = vec![b"one".as_slice(); count];
        let paths = vec!["\"l.tar\""; count].join(",");
        let manifest = format!(r#"[{{"Config":"c.json","Layers":[{paths}]}}]"#);
        Tar::default().file("l.tar", b"one").file("c.json", config(&layers)).file("manifest.json", manifest).bytes()
    };
    assert!(read(layered(limits::LAYERS)).is_ok());
    over(
        layered(limits::LAYERS + 1),
        "the number of layers of image",
        limits::LAYERS as u64 + 1,
        limits::LAYERS as u64,
    );

    let many_images = |count: usize| {
        let manifest = vec![r#"{"Config":"c.json","Layers":["l.tar"]}"#; count].join(",");
        let tar = Tar::default().file("l.tar", b"one").file("c.json", config(&[b"one"]));
        tar.file("manifest.json", format!("[{manifest}]")).bytes()
    };
    assert!(read(many_images(limits::IMAGES)).is_ok());
    over(many_images(limits::IMAGES + 1), "the number of images", limits::IMAGES as u64 + 1, limits::IMAGES as u64);

    let listed = |count: usize| {
        let mut oci = Oci::default();
        let images: Vec<String> = (0..count).map(|at| oci.image(&format!("layer {at}"), "amd64")).collect();
        oci.read(&images.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(listed(limits::IMAGES).unwrap().images.len(), limits::IMAGES);
    let error = listed(limits::IMAGES + 1).unwrap_err().to_string();
    assert!(error.contains("the number of images in index.json"), "{error}");
}

#[test]
fn indexes_have_limits_in_depth_and_in_number() {
    let nested = |depth: usize| {
        let mut oci = Oci::default();
        let mut descriptor = oci.image("a", "amd64");
        for _ in 0..depth {
            descriptor = oci.index(&[&descriptor]);
        }
        oci.read(&[&descriptor])
    };
    assert!(nested(limits::INDEX_DEPTH).is_ok());
    let error = nested(limits::INDEX_DEPTH + 1).unwrap_err().to_string();
    assert!(error.contains("the depth of indexes in indexes"), "{error}");

    // The index itself counts.
    let wide = |count: usize| {
        let mut oci = Oci::default();
        let image = oci.image("a", "amd64");
        let index = oci.index(&vec![image.as_str(); count - 1]);
        oci.read(&[&index])
    };
    assert!(wide(limits::MANIFESTS).is_ok());
    let error = wide(limits::MANIFESTS + 1).unwrap_err().to_string();
    assert!(error.contains("the number of manifests"), "{error}");
}

/// A layout of one image for each of `layers`, which says how many layers it has.
fn layered(layers: &[u64]) -> Result<Contents, ArchiveError> {
    let mut oci = Oci::default();
    let config = oci.blob("{}");
    let layer = oci.blob("layer");
    let layer = format!(r"{{{layer}}}").replace("size", "mediaType\":\"a/b\",\"size");
    let manifests: Vec<String> = layers
        .iter()
        .map(|count| {
            let layers = vec![layer.as_str(); usize::try_from(*count).unwrap()].join(",");
            let manifest = oci.blob(&format!(r#"{{"config":{{"mediaType":"a/b",{config}}},"layers":[{layers}]}}"#));
            format!(r#""mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest}"#)
        })
        .collect();
    oci.read(&manifests.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn blobs_and_manifests_of_a_layout_have_limits_together() {
    // Each names its config, too.
    let half = limits::BLOBS / 2;
    assert!(layered(&[half - 1, half - 2, 0]).is_err_and(|error| matches!(error, ArchiveError::EcrRefuses { .. })));
    let error = layered(&[half - 1, half - 2, 1]).unwrap_err().to_string();
    assert!(error.contains("the number of blobs that manifests name") && error.contains("at most 50000"), "{error}");

    let heavy = |bytes: &[u64]| {
        let mut oci = Oci::default();
        let (config, layer) = (oci.blob("{}"), oci.blob("layer"));
        let mut manifests = Vec::new();
        for (at, bytes) in bytes.iter().enumerate() {
            let manifest = format!(
                r#"{{"at":{at},"config":{{"mediaType":"a/b",{config}}},"layers":[{{"mediaType":"a/b",{layer}}}]}}"#
            );
            let padding = usize::try_from(*bytes).unwrap() - manifest.len();
            let manifest = oci.blob(&format!("{manifest}{}", " ".repeat(padding)));
            manifests.push(format!(r#""mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest}"#));
        }
        oci.read(&manifests.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let half = limits::ALL_MANIFESTS_BYTES / 2;
    assert!(heavy(&[half, half]).is_ok());
    let error = heavy(&[half, half, 1_000]).unwrap_err().to_string();
    assert!(error.contains("the size of all manifests together"), "{error}");
}

#[test]
fn a_docker_1_0_history_has_a_limit() {
    let archive = |comment: u64| {
        let comment = "c".repeat(usize::try_from(comment).unwrap() / 2);
        Tar::default()
            .file("a/json", format!(r#"{{"os":"linux","comment":"{comment}"}}"#))
            .file("a/layer.tar", b"one")
            .file("b/json", format!(r#"{{"os":"linux","parent":"a","comment":"{comment}"}}"#))
            .file("b/layer.tar", b"two")
            .file("repositories", r#"{"x":{"1":"b"}}"#)
            .bytes()
    };
    assert!(read(archive(limits::JSON_BYTES)).is_ok());
    over(archive(limits::JSON_BYTES + 2), "the history of the layers", limits::JSON_BYTES + 2, limits::JSON_BYTES);
    let looped = Tar::default()
        .file("a/json", r#"{"parent":"a"}"#)
        .file("a/layer.tar", b"one")
        .file("repositories", r#"{"x":{"1":"a"}}"#)
        .bytes();
    over(looped, "the number of layers below a", limits::LAYERS as u64 + 1, limits::LAYERS as u64);
}

/// An archive of files that are all larger than a window, so that each header takes a read.
struct Wide {
    files: u64,
    /// One of them.
    file: Bytes,
}

const WIDE_BYTES: u64 = limits::HEADER_WINDOW_BYTES + 512;

impl Source for Wide {
    fn length_bytes(&self) -> u64 {
        self.files * self.file.len() as u64
    }

    async fn get(&self, offset: u64, length: u64) -> Result<Body, ObjectError> {
        // Every read begins with a header, and none is longer than a file.
        assert_eq!(offset % self.file.len() as u64, 0);
        let length = usize::try_from(length.min(self.length_bytes() - offset)).unwrap();
        Ok(stream::iter([Ok(self.file.slice(..length))]).boxed())
    }
}

#[test]
fn the_reads_that_headers_take_have_a_limit() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let content = vec![0; usize::try_from(WIDE_BYTES).unwrap()];
    let file = Bytes::from(plain("f", &content));
    let wide = |files: u64| Arc::new(Wide { files, file: file.clone() });
    let opened = |files: u64| runtime.block_on(Archive::open(&wide(files), USUAL_DELIVERY));
    // The first comes with the archive's start.
    assert_eq!(opened(limits::HEADER_READS + 1).unwrap().index.len() as u64, limits::HEADER_READS + 1);
    let error = opened(limits::HEADER_READS + 2).unwrap_err().to_string();
    assert!(error.contains("the number of reads that its headers take"), "{error}");
}

#[test]
fn a_hundred_thousand_folders_with_layouts_are_told_apart_in_time() {
    let folders: Vec<u8> = (0..40_000).flat_map(|at| plain(&format!("f{at}/index.json"), b"")).collect();
    let error = read([folders, plain("f7/blobs/x", b""), plain("f8/blobs/x", b""), vec![0; 512]].concat()).unwrap_err();
    assert!(matches!(error, ArchiveError::SeveralLayouts { .. }), "{error}");
}

#[test]
fn unindexed_blobs_are_looked_at_in_bounded_number_and_size() {
    let with = |blobs: usize, size: usize| {
        let mut oci = Oci::default();
        let image = oci.image("a", "amd64");
        let subject = digest_in(&image);
        let pad = " ".repeat(size);
        for at in 0..blobs {
            oci.blob(&format!("{{\"at\":{at}}}"));
        }
        let (config, layer) = (oci.blob("{}"), oci.blob("bundle"));
        let referrer = format!(
            r#"{{"config":{{"mediaType":"a/b",{config}}},"layers":[{{"mediaType":"a/b",{layer}}}],"subject":{{"mediaType":"a/b","digest":"{subject}","size":1}}{pad}}}"#
        );
        oci.blob(&referrer);
        let contents = oci.read(&[&image]).unwrap();
        (oci_image(&contents, 0).manifests.len(), contents.left_out)
    };
    assert_eq!(with(0, 0), (2, vec![]), "found by its subject");
    let (manifests, left_out) = with(0, usize::try_from(limits::REFERRER_BYTES).unwrap());
    assert_eq!((manifests, left_out.len()), (1, 0), "too large to be one");
    let (_, left_out) = with(limits::REFERRERS + 1, 0);
    assert_eq!(left_out, [format!("blobs that no index names, beyond the first {}", limits::REFERRERS)]);
}

#[test]
fn pax_sizes_decide_and_have_to_be_numbers() {
    // The header says 0 bytes; by it, the content would be read as headers (CVE-2025-62518 and its kind).
    let hidden = plain("manifest.json", br#"[{"Config":"evil.json","Layers":[]}]"#);
    let smuggled = [
        pax(EntryType::XHeader, &record("size", &hidden.len().to_string())),
        entry("outer", EntryType::Regular, b"", |_| {}),
        hidden.clone(),
    ]
    .concat();
    let (_, archive) = open(image_after(smuggled)).unwrap();
    assert_eq!(archive.index.len(), 4, "outer and the image; what lies inside outer is no entry");
    assert_eq!(archive.index.file("outer").unwrap().size_bytes, hidden.len() as u64);
    // In reverse: the header claims the next entry as its body, pax says there is none.
    let claimed = [
        pax(EntryType::XHeader, &record("size", "0")),
        entry("outer", EntryType::Regular, b"", |header| header.set_size(1_024)),
    ];
    assert_eq!(open(image_after(claimed.concat())).unwrap().1.index.len(), 4);
    for size in ["x", "-1", "+3", "3.0", "0x10", " 3", "18446744073709551616"] {
        let bytes = [pax(EntryType::XHeader, &record("size", size)), plain("f", b"abc")].concat();
        let text = refusal(image_after(bytes));
        assert!(text.contains(&format!("its pax size {size:?} is no number of bytes")), "{text}");
    }
    let huge = [pax(EntryType::XHeader, &record("size", &u64::MAX.to_string())), plain("f", b"abc")].concat();
    assert!(refusal(image_after(huge)).contains("the archive is cut off"));
}

#[test]
fn pax_records_that_do_not_read_are_refused() {
    for records in ["x", "5 a=b\n", "99 path=x\n", "0 a=b\n", "7 path=\n", "-5 a=b\n", "6 ab=\n5 a\n"] {
        let text = refusal(image_after([pax(EntryType::XHeader, records), plain("f", b"")].concat()));
        assert!(text.contains("pax records do not read") || text.contains("no tar header"), "{records:?}: {text}");
    }
    let binary = format!("{}{}", record("SCHILY.xattr.user.x", "a\nb\0c\n"), record("path", "renamed"));
    let (_, archive) = open(image_after([pax(EntryType::XHeader, &binary), plain("f", b"x")].concat())).unwrap();
    assert!(archive.index.file("renamed").is_ok(), "a value may have line ends in it");
    for (key, value) in [("path", "a\0b"), ("linkpath", "\0")] {
        let bytes = [pax(EntryType::XHeader, &record(key, value)), plain("f", b"")].concat();
        assert!(refusal(image_after(bytes)).contains("is no text"), "{key}");
    }
    let global = [pax(EntryType::XGlobalHeader, &record("path", "everything")), plain("f", b"")].concat();
    assert!(refusal(image_after(global)).contains("a global pax header sets a path or size"));
    let comment = pax(EntryType::XGlobalHeader, &record("comment", "harmless"));
    assert!(read(image_after(comment)).is_ok());
}

#[test]
fn sizes_in_headers_are_octal_or_binary_and_never_negative() {
    let sized = |field: &[u8; 12]| {
        let field = *field;
        image_after(entry("f", EntryType::Regular, b"abc", move |header| header.as_old_mut().size = field))
    };
    assert!(read(sized(b"00000000003\0")).is_ok());
    assert!(read(sized(b"         3 \0")).is_ok());
    assert!(read(sized(b"\x80\0\0\0\0\0\0\0\0\0\0\x03")).is_ok(), "binary");
    for (what, field) in [
        ("negative", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfd"),
        ("above 64 bits", b"\x80\0\0\x01\0\0\0\0\0\0\0\x03"),
        ("no number", b"abc\0\0\0\0\0\0\0\0\0"),
        ("minus", b"-0000000003\0"),
    ] {
        assert!(refusal(sized(field)).contains("no tar header at byte 0"), "{what}");
    }
    assert!(refusal(sized(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")).contains("the archive is cut off"), "huge");
}

#[test]
fn links_and_folders_have_no_body_whatever_their_size() {
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Directory, EntryType::Fifo] {
        let front = entry("x", kind, b"", |header| header.set_size(1_024));
        let (_, archive) = open(image_after(front)).unwrap();
        assert_eq!(archive.index.len(), 4, "{kind:?}");
    }
}

#[test]
fn of_entries_with_one_path_the_last_counts_whatever_the_kinds() {
    let last = |front: Vec<u8>| read(image_after(front));
    for front in [
        plain("manifest.json", b"garbage"),
        plain("./manifest.json", b"garbage"),
        plain("a/../manifest.json", b"garbage"),
        entry("l.tar", EntryType::Directory, b"", |_| {}),
        entry("c.json", EntryType::Symlink, b"", |header| header.set_link_name("/etc/passwd").unwrap()),
    ] {
        assert!(last(front).is_ok());
    }
    let hidden = [image_after(vec![]), plain("manifest.json", b"[{}]")].concat();
    assert!(read(hidden).is_ok(), "what follows the end of the archive is no part of it");
}

#[test]
fn paths_that_leave_the_archive_name_nothing() {
    let front = [plain("../../l.tar", b"evil"), plain("/manifest.json", b"garbage"), plain("..", b"x")].concat();
    assert!(read(image_after(front)).is_ok());
    for path in ["../l.tar", "/../../etc/passwd", "x/../../l.tar"] {
        let manifest = format!(r#"[{{"Config":"c.json","Layers":["{path}"]}}]"#);
        let bytes =
            Tar::default().file("l.tar", b"one").file("c.json", config(&[b"one"])).file("manifest.json", manifest);
        assert!(refusal(bytes.bytes()).contains("the archive has no such file"), "{path}");
    }
}

/// At no cut is there a panic, or an image of which something is missing.
#[test]
fn an_archive_cut_at_any_block_is_refused_or_whole() {
    let docker = image_after(plain("VERSION", b"1.0"));
    let mut layout = Oci::default();
    let (amd, arm) = (layout.image("a", "amd64"), layout.image("b", "arm64"));
    let index = layout.index(&[&amd, &arm]);
    // `index.json` comes first, so that a cut leaves an index that looks sparse.
    let top = format!(r#"{{"manifests":[{{{index}}}]}}"#);
    let front = plain("index.json", top.as_bytes());
    let oci = [front, layout.tar.bytes()].concat();
    for (what, whole) in [("docker", docker), ("oci", oci)] {
        let complete = format!("{:?}", read(whole.clone()).unwrap().images);
        for cut in (0..whole.len()).step_by(512).chain([1, 511, 513, 600, whole.len() - 1]) {
            let kept = &whole[..cut];
            let closed = kept.ends_with(&[0; 512]);
            match read(kept.to_vec()) {
                Ok(contents) => {
                    // What is left away are the blocks that close it.
                    assert_eq!(format!("{:?}", contents.images), complete, "{what} cut at {cut}");
                    assert!(whole[cut..].iter().all(|byte| *byte == 0), "{what} cut at {cut}");
                    assert!(contents.left_out.is_empty());
                }
                Err(error) => {
                    assert_eq!(error.disposition(), Disposition::Permanent, "{what} cut at {cut}: {error}");
                    let text = error.to_string();
                    assert!(
                        text.contains("cut off") || text.contains("empty") || text.contains("shorter") || closed,
                        "{what} cut at {cut}: {text}"
                    );
                }
            }
        }
    }
}

/// An archive that is mostly a hole: `front`, so many zeros, `back`.
struct Hole {
    front: Bytes,
    zeros: u64,
    back: Bytes,
}

impl Source for Hole {
    fn length_bytes(&self) -> u64 {
        self.front.len() as u64 + self.zeros + self.back.len() as u64
    }

    async fn get(&self, offset: u64, length: u64) -> Result<Body, ObjectError> {
        let back_at = self.front.len() as u64 + self.zeros;
        let byte = |at: u64| {
            let back = at.checked_sub(back_at).and_then(|at| self.back.get(usize::try_from(at).unwrap()));
            self.front.get(usize::try_from(at).unwrap()).or(back).copied().unwrap_or(0)
        };
        let bytes: Vec<u8> = (offset..(offset + length).min(self.length_bytes())).map(byte).collect();
        Ok(stream::iter([Ok(Bytes::from(bytes))]).boxed())
    }
}

#[test]
fn a_layer_of_the_size_that_ecr_takes_is_planned_and_one_byte_more_is_refused() {
    // So long that the delivery is not what limits it.
    let delivery = Duration::from_hours(2);
    let planned = |size_bytes: u64| {
        let front = entry("l.tar", EntryType::Regular, b"", |header| header.set_size(size_bytes));
        let back = Tar::default().file("c.json", config(&[b"one"])).file("manifest.json", MANIFEST).bytes();
        let zeros = size_bytes.next_multiple_of(512);
        let source = Arc::new(Hole { front: front.into(), zeros, back: back.into() });
        let upload = Upload { bucket: "uploads", key: "team/app/1.tar", image: None, prefix: "" };
        let consumer = Consumer { profile: Profile::Exact, platform: platform_of("arm64").unwrap() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(Plan::read(&source, upload, &consumer, delivery)).map(|plan| plan.size_bytes)
    };
    assert!(planned(limits::LAYER_BYTES).is_ok());
    let error = planned(limits::LAYER_BYTES + 1).unwrap_err().to_string();
    assert!(error.contains("the layer \"l.tar\"") && error.contains("at most 214748364800"), "{error}");
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The same of a compressed archive, at every byte: a stream without its end is not whole.
#[test]
fn a_compressed_archive_cut_anywhere_is_refused() {
    let whole = gzipped(&image_after(plain("VERSION", b"1.0")));
    assert!(read(whole.clone()).is_ok());
    for cut in 1..whole.len() {
        let error = read(whole[..cut].to_vec()).map(|found| found.images.len()).unwrap_err();
        assert_eq!(error.disposition(), Disposition::Permanent, "cut at {cut}: {error}");
    }
}

#[test]
fn a_compressed_archive_is_the_same_archive() {
    let plain_bytes = image_after(plain("VERSION", b"1.0"));
    let (plain, packed) = (read(plain_bytes.clone()).unwrap(), read(gzipped(&plain_bytes)).unwrap());
    assert_eq!(plain.images[0].id(), packed.images[0].id());
    let offsets = |contents: &Contents| contents.images[0].extents().iter().map(|e| e.range()).collect::<Vec<_>>();
    assert_eq!(offsets(&plain), offsets(&packed));
    // Its index survives the state bucket.
    let (_, archive) = open(gzipped(&plain_bytes)).unwrap();
    let stored = serde_json::to_string(&StoredIndex::new(&archive).unwrap()).unwrap();
    let read: StoredIndex = serde_json::from_str(&stored).unwrap();
    assert_eq!(read.read().unwrap(), archive);
    assert_eq!(
        serde_json::from_str::<StoredIndex>(&stored.replace("\"format\":1", "\"format\":0")).unwrap().read(),
        None
    );
}

#[test]
fn json_of_a_compressed_archive_is_kept_within_bounds_the_smallest_first() {
    let sbom = |length: usize| format!("{{\"x\":\"{}\"}}", "s".repeat(length)).into_bytes();
    let mut front = Vec::new();
    // Four of them fit into what is kept; ten do not, and the small ones that are needed stay.
    for at in 0..10 {
        front.extend(plain(&format!("sbom{at}"), &sbom(2 << 20)));
    }
    let bytes = gzipped(&image_after(front));
    let (_, archive) = open(bytes.clone()).unwrap();
    let kept = |path: &str| archive.index.file(path).unwrap().content.is_some();
    assert!(kept("manifest.json") && kept("c.json"));
    assert!((0..10).filter(|at| kept(&format!("sbom{at}"))).count() <= 4);
    assert!(read(bytes).is_ok());
    // A manifest that is larger than all of them is the one that goes.
    let mut manifest = MANIFEST.as_bytes().to_vec();
    manifest.resize(4 << 20, b' ');
    let mut tar =
        Tar::default().file("l.tar", b"one").file("c.json", config(&[b"one"])).file("manifest.json", manifest);
    for at in 0..3 {
        tar = tar.file(&format!("sbom{at}"), sbom(2 << 20));
    }
    let text = refusal(gzipped(&tar.bytes()));
    assert!(
        text.contains("manifest.json (4194304 bytes) was not kept from the first pass over the gzip stream"),
        "{text}"
    );
}

#[test]
fn what_one_delivery_cannot_decode_is_refused_with_the_arithmetic() {
    let archive = image_after(plain("zeros", &vec![0; 60_000_000]));
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &archive).unwrap();
    let bytes = encoder.finish().unwrap();
    let source = Arc::new(Memory(Bytes::from(bytes)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let opened = |seconds: u64| runtime.block_on(Archive::open(&source, Duration::from_secs(seconds)));
    assert!(opened(3).is_ok(), "63 MB");
    let error = opened(2).unwrap_err();
    assert_eq!(error.disposition(), Disposition::Permanent);
    let text = error.to_string();
    assert!(text.contains("at 21 MB/s of bzip2, are 3 s, and each of the two passes over it has 2 s"), "{text}");
    assert!(error.fix().contains("upload the tar itself"));
    // One that is too large as it is, is not even begun.
    let noise = Memory(Bytes::from([b"BZh91AY&SY".as_slice(), &vec![0x5a; 22_000_000]].concat()));
    let error = runtime.block_on(Archive::open(&Arc::new(noise), Duration::from_secs(1))).unwrap_err();
    assert!(matches!(error, ArchiveError::TooSlow { found_bytes: 22_000_010, .. }), "{error}");
}

#[test]
fn a_bomb_around_the_archive_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0; 1 << 20];
    let header = entry("zeros", EntryType::Regular, b"", |header| header.set_size(1 << 40));
    std::io::Write::write_all(&mut encoder, &header).unwrap();
    for _ in 0..400 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    let error = read(encoder.finish().unwrap()).map(|found| found.images.len()).unwrap_err();
    assert!(matches!(error, ArchiveError::Decode(DecodeError::Expands { .. })), "{error}");
}

#[test]
fn a_manifest_of_the_size_that_ecr_takes_is_taken_and_one_byte_more_is_not() {
    let sized = |bytes: usize| {
        let mut oci = Oci::default();
        let (config, layer) = (oci.blob("{}"), oci.blob("layer"));
        let manifest = format!(
            r#"{{"config":{{"mediaType":"a/b",{config}}},"layers":[{{"mediaType":"a/b",{layer}}}],"annotations":{{"x":"y"}}}}"#
        );
        let manifest = format!("{manifest}{}", " ".repeat(bytes - manifest.len()));
        let digest = Digest::of(manifest.as_bytes());
        oci.blob(&manifest);
        oci.read(&[&format!(
            r#""mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1"#
        )])
    };
    let limit = usize::try_from(limits::MANIFEST_BYTES).unwrap();
    assert!(sized(limit).is_ok());
    // The limit on JSON entries is the same number, and met first.
    assert!(sized(limit + 1).is_err());
}

#[test]
fn blobs_of_no_bytes_and_types_with_parameters_are_refused_in_a_child_and_left_out_as_a_referrer() {
    for (what, layer_type, content) in [("empty", "a/b", ""), ("parameter", "text/x; charset=utf-8", "bytes")] {
        for referrer in [false, true] {
            let mut oci = Oci::default();
            let image = oci.image("a", "amd64");
            let (config, layer) = (oci.blob("{}"), oci.blob(content));
            let subject = if referrer {
                format!(r#","subject":{{"mediaType":"a/b","digest":"{}","size":1}}"#, digest_in(&image))
            } else {
                String::new()
            };
            let other = oci.blob(&format!(
                r#"{{"config":{{"mediaType":"a/b",{config}}},"layers":[{{"mediaType":"{layer_type}",{layer}}}]{subject}}}"#
            ));
            let other = format!(r#""mediaType":"application/vnd.oci.image.manifest.v1+json",{other}"#);
            if referrer {
                let contents = oci.read(&[&image, &other]).unwrap();
                assert_eq!(contents.left_out.len(), 1, "{what}");
                assert!(contents.left_out[0].contains("which ECR refuses"), "{what}: {:?}", contents.left_out);
            } else {
                let index = oci.index(&[&image, &other]);
                let error = oci.read(&[&index]).unwrap_err();
                assert!(matches!(error, ArchiveError::EcrRefuses { .. }), "{what}: {error}");
                assert!(error.to_string().contains("leave"), "{what}: the remedy: {error}");
            }
        }
    }
}
