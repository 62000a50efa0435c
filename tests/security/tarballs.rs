//! What a tarball may try: it is never unpacked, so its paths and links reach nothing but its own entries.

use local::samples::{docker_archive, tar_of};
use pipeline_tests::Pipeline;
use tar::{EntryType, Header};

use crate::{PROGRAM, everything, image, refused};

/// A Docker archive whose only layer is the entry `l.tar`, made by `header` and `target`.
fn with_link(kind: EntryType, target: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    tar.append_link(&mut header, "l.tar", target).unwrap();
    append(tar, "l.tar")
}

fn append(mut tar: tar::Builder<Vec<u8>>, layer: &str) -> Vec<u8> {
    let manifest = format!(r#"[{{"Config":"c.json","Layers":["{layer}"]}}]"#);
    for (path, content) in [("c.json", image(1).config()), ("manifest.json", manifest.into_bytes())] {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[tokio::test]
async fn links_and_paths_lead_nowhere_outside_the_archive() {
    let pipeline = Pipeline::start(PROGRAM).await;
    for (at, body) in [
        with_link(EntryType::Symlink, "/proc/self/environ"),
        with_link(EntryType::Symlink, "../../../../proc/self/environ"),
        with_link(EntryType::Link, "/etc/passwd"),
        with_link(EntryType::Symlink, "l.tar"),
        append(tar::Builder::new(Vec::new()), "/proc/self/environ"),
        append(tar::Builder::new(Vec::new()), "../../proc/self/environ"),
        append(tar::Builder::new(Vec::new()), "file:///proc/self/environ"),
        append(tar::Builder::new(Vec::new()), "http://169.254.169.254/latest/meta-data"),
    ]
    .iter()
    .enumerate()
    {
        let receipt = refused(&pipeline, &format!("team/app/{at}.tar"), body, &[], "nothing was tagged").await;
        let text = receipt.to_string();
        assert!(!text.contains("AWS_") && !text.contains("root:"), "{text}");
        assert_eq!(receipt["import"]["attempt"]["n"], 1, "the archive's own fault: {receipt:#}");
    }
    assert!(everything(&pipeline).iter().all(|(_, tags)| tags.is_empty()));
}

/// Texts of a tarball come back in receipts and messages, as texts and in bounded length.
#[tokio::test]
async fn what_a_tarball_says_stays_text() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let name = format!("{}\\\"\\n{{}}<script>$(reboot)`;", "x".repeat(3_000));
    let manifest = format!(r#"[{{"Config":"c.json","Layers":["{name}"]}}]"#);
    let body = tar_of(&[("c.json", &image(1).config()), ("manifest.json", manifest.as_bytes())]);
    let receipt = refused(&pipeline, "team/app/1.tar", &body, &[], "<script>").await;
    assert!(receipt["summary"].as_str().unwrap().len() < 10_000);
    pipeline.quiet().await;
    let told = pipeline.told();
    let (_, detail) = told.iter().find(|(name, _)| name == "Import Failed").unwrap();
    assert!(detail["reason"]["text"].as_str().unwrap().chars().count() <= gantry::limits::REASON_CHARS + 1);

    // What is fine is fine all the same.
    let receipt = pipeline.import("team/app/2.tar", &docker_archive(&[(&image(1), &[])])).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
}
