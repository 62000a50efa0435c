//! Too little time: a delivery ends before its function is stopped, keeps what it finished, and the next goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use emulator::faults::{Action, Fault};
use emulator::shape::Shape;
use gantry::archive::USUAL_DELIVERY;
use gantry::limits;
use gantry::naming::Upload;
use gantry::object::FileSource;
use gantry::plan::{Consumer, Plan, Profile, platform_of};
use local::samples::{Image, docker_archive, layer};
use pipeline_tests::look::{check_image, digest};
use pipeline_tests::{Pipeline, Setup, say};

use crate::PROGRAM;
use crate::lab::{seed, tarball};

/// Without the functions that come after import: the files here are about import's deliveries.
fn import_alone(edits: &[(&str, &str)], shape: Shape) -> Setup {
    let edits = edits.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    let without = vec!["OnPushFunction", "OnScanFunction", "ReconcileFunction"];
    Setup { edits, without, shape, ..Setup::default() }
}

/// Statuses of the invocations so far, as the host's reports have them.
fn reports(log: &mut tokio::sync::broadcast::Receiver<emulator::host::LogLine>) -> Vec<String> {
    let mut statuses = Vec::new();
    while let Ok(line) = log.try_recv() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(&line.text) else { continue };
        if line["type"] == "platform.report" {
            statuses.push(line["record"]["status"].as_str().unwrap_or_default().to_owned());
        }
    }
    statuses
}

/// Layers of which no three fit into one delivery at the network's rate: sent at once, none would ever be finished.
#[tokio::test]
async fn deliveries_that_are_too_short_finish_an_image_together() {
    const BYTES_A_SECOND: u64 = 1_000_000;
    let shape = Shape { caller_read_bytes_per_second: Some(BYTES_A_SECOND), ..Shape::default() };
    let pipeline = Pipeline::with(PROGRAM, import_alone(&[("TimeoutSeconds: 900", "TimeoutSeconds: 12")], shape)).await;
    let sizes = [4_100_000, 4_050_000, 4_000_000, 700_000, 600_000, 500_000, 400_000];
    let layers = sizes.iter().zip(seed()..).map(|(size, seed)| layer("app", seed, *size)).collect();
    let image = Image::new("amd64", layers);
    let mut log = pipeline.stack.log();
    pipeline.put("team/app/1.0.0.tar", &tarball(&image)).await;
    pipeline.stack.queues().drained("import-queue").await.expect("the queue is there");

    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.expect("a receipt");
    assert_eq!(receipt["state"], "imported", "{receipt:#}");
    assert_eq!(check_image(pipeline.stack.images(), "team/app", "1.0.0"), digest(&image.config()));
    let n = receipt["import"]["attempt"]["n"].as_u64().expect("a number");
    assert!((2..=u64::from(limits::DELIVERIES)).contains(&n), "{n} deliveries");
    let statuses = reports(&mut log);
    assert!(statuses.iter().all(|status| status == "success"), "a delivery ran into its timeout: {statuses:?}");
    assert!(pipeline.stack.queues().messages("failed-messages").expect("the queue is there").is_empty());

    // Each blob was closed once, and nothing was said of one that was there before.
    let mut closed: BTreeMap<String, usize> = BTreeMap::new();
    for request in pipeline.faults.requests() {
        let name = request.operation.resource.rsplit_once("digest=");
        if let ("registry:PutUpload", Some(201), Some((_, digest))) =
            (request.operation.name.as_str(), request.status, name)
        {
            *closed.entry(digest.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(closed.len(), sizes.len() + 1, "{closed:?}");
    assert!(closed.values().all(|times| *times == 1), "a finished layer was sent again: {closed:?}");
    let waited = pipeline.stack.queues().skipped();
    assert!(waited < Duration::from_secs(n * 2), "progress does not wait: {waited:?}");
    say(&format!("deadline: {} layers in {n} deliveries", sizes.len()));
}

/// What is not the upload's fault comes back after seconds, then minutes; never after the queue's visibility timeout.
#[tokio::test]
async fn a_transient_failure_comes_back_after_its_backoff() {
    let pipeline = Pipeline::with(PROGRAM, import_alone(&[], Shape::default())).await;
    let denied = Action::Status(403, r#"{"__type":"AccessDeniedException","message":"not yet"}"#.to_owned());
    let (operation, resource) = ("ecr:CreateRepository".to_owned(), None);
    pipeline.faults.add(Fault { operation, resource, skip: 0, times: 3, action: denied });
    pipeline
        .put("team/app/1.0.0.tar", &docker_archive(&[(&Image::new("amd64", vec![layer("app", 1, 1_000)]), &[])]))
        .await;
    pipeline.stack.queues().drained("import-queue").await.expect("the queue is there");
    let receipt = pipeline.receipt("team/app/1.0.0.tar").await.expect("a receipt");
    assert_eq!((&receipt["state"], &receipt["import"]["attempt"]["n"]), (&"imported".into(), &4.into()), "{receipt:#}");
    let backoffs: Duration = (1..=3).map(gantry::retry::redelivery).sum();
    let waited = pipeline.stack.queues().skipped();
    let visibility = pipeline.stack.template().queues["ImportQueue"].visibility;
    // Some of the pauses had passed on the clock.
    assert!(waited <= backoffs && waited + Duration::from_secs(15) > backoffs, "{waited:?} of {backoffs:?}");
    assert!(backoffs < visibility / 10, "{backoffs:?}");
}

/// A tar whose layers are holes: as many bytes as are wanted, on no disk.
fn sparse(layers: &[u64]) -> tempfile::NamedTempFile {
    use std::io::{Seek as _, SeekFrom, Write as _};

    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    let entry = |path: &str, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_path(path).expect("a short path");
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header
    };
    let diff_ids: Vec<String> = (0..layers.len()).map(|at| format!("sha256:{at:064x}")).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string();
    let paths: Vec<String> = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [], "Layers": paths}]).to_string();
    for (path, content) in [("config.json", &config), ("manifest.json", &manifest)] {
        file.write_all(entry(path, content.len() as u64).as_bytes()).expect("written");
        file.write_all(content.as_bytes()).expect("written");
        let padding = content.len().next_multiple_of(512) - content.len();
        file.write_all(&vec![0; padding]).expect("written");
    }
    for (path, size) in paths.iter().zip(layers) {
        file.write_all(entry(path, *size).as_bytes()).expect("written");
        let padded = i64::try_from(size.next_multiple_of(512)).expect("no such file");
        file.seek(SeekFrom::Current(padded)).expect("a hole");
    }
    file.write_all(&[0; 1024]).expect("written");
    file
}

/// What no delivery, or not all of them together, can do is refused before a byte is sent, with the arithmetic.
#[tokio::test]
async fn what_takes_too_long_is_refused_with_the_arithmetic() {
    const GIB: u64 = 1 << 30;
    let consumer = Consumer { profile: Profile::Exact, platform: platform_of("arm64").expect("a platform") };
    for (label, layers, wanted) in [
        ("fits", vec![49 * GIB; 5], None),
        (
            "a layer too large",
            vec![GIB, 51 * GIB],
            Some(
                "the layer \"1/layer.tar\" takes too long: 54760833024 bytes, at 60 MiB/s, are 871 s, and a delivery has \
                 855 s, enough for 53791948800 bytes",
            ),
        ),
        (
            "too many layers",
            vec![32 * GIB; 8],
            Some(
                "bytes, at 60 MiB/s, are 4370 s, and 10 deliveries of 855 s, of which the half may go to waste where layers do not fit, are enough for 268959744000 bytes",
            ),
        ),
    ] {
        let file = sparse(&layers);
        let source = std::sync::Arc::new(FileSource::open(file.path()).await.expect("the file opens"));
        let upload = Upload { bucket: "uploads", key: "team/app/1.0.0.tar", image: None, prefix: "" };
        let planned = Plan::read(&source, upload, &consumer, USUAL_DELIVERY).await;
        let refused = planned.err().map(|error| gantry::disposition::chain(&error));
        match (&refused, wanted) {
            (Some(refused), Some(wanted)) => assert!(refused.contains(wanted), "{label}: {refused}"),
            _ => assert_eq!(refused.as_deref(), wanted, "{label}"),
        }
    }
}
