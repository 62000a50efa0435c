//! Uploads that are compressed as a whole: what is read, how often, and what is kept for the next delivery.

use std::io::Write as _;

use emulator::faults::{Action, Fault};
use local::samples::{Image, docker_archive, gzipped, layer};
use pipeline_tests::look::{check_image, digest};
use pipeline_tests::{Pipeline, Setup};

use crate::PROGRAM;

fn image(seed: u32) -> Image {
    Image::new("amd64", vec![layer("base", 1, 1_500_000), layer("app", seed, 300_000)])
}

/// Not compressed by much, so that it is read in several ranges.
fn bytes_of(image: &Image, names: &[&str]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(&docker_archive(&[(image, names)])).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// How many ranges of uploads were read.
fn reads(pipeline: &Pipeline) -> usize {
    let of_upload = |resource: &str| resource.ends_with(".tar.gz");
    let requests = pipeline.faults.requests().into_iter().map(|request| request.operation);
    requests.filter(|operation| operation.name == "s3:GetObject" && of_upload(&operation.resource)).count()
}

/// What stands in the state bucket below `indexes/`.
async fn indexes(pipeline: &Pipeline) -> usize {
    let state =
        pipeline.s3.list_objects_v2().bucket("state").prefix("indexes/").send().await.expect("the bucket is listed");
    state.contents().len()
}

#[tokio::test]
async fn a_second_pass_is_made_only_when_something_is_to_be_sent() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let body = bytes_of(&image(2), &[]);
    let first = pipeline.import("team/app/1.tar.gz", &body).await;
    assert_eq!(first["state"], "released", "{first:#}");
    assert_eq!(indexes(&pipeline).await, 1);
    let first_reads = reads(&pipeline);
    let again = pipeline.import("team/app/2.tar.gz", &body).await;
    assert_eq!(again["state"], "released", "{again:#}");
    assert_eq!(again["import"]["layers"]["read_bytes"], 0, "{again:#}");
    let reads_again = reads(&pipeline) - first_reads;
    assert!(reads_again < first_reads, "{reads_again} of {first_reads}: no second pass");
    check_image(pipeline.stack.images(), "team/app", "2");
}

#[tokio::test]
async fn only_what_ecr_lacks_is_sent_and_the_pass_ends_behind_it() {
    let pipeline = Pipeline::start(PROGRAM).await;
    pipeline.import("team/app/1.tar.gz", &bytes_of(&image(2), &[])).await;
    let receipt = pipeline.import("team/app/2.tar.gz", &bytes_of(&image(3), &[])).await;
    let how = |at: usize| receipt["import"]["images"][0]["blobs"][at]["how"].clone();
    assert_eq!([how(0), how(1), how(2)], ["sent", "reused", "sent"], "{receipt:#}");
    assert_eq!(check_image(pipeline.stack.images(), "team/app", "2"), digest(&image(3).config()));
}

#[tokio::test]
async fn one_layer_of_several_repositories_is_decoded_once_for_all() {
    let pipeline = Pipeline::start(PROGRAM).await;
    let one = image(2);
    let others: Vec<Image> =
        (3..8).map(|seed| Image::new("amd64", vec![one.layers[0].clone(), layer("app", seed, 9_000)])).collect();
    let names: Vec<String> = (0..5).map(|at| format!("team/app-{at}:1")).collect();
    let names: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
    let images: Vec<(&Image, &[&str])> =
        others.iter().zip(&names).map(|(image, name)| (image, name.as_slice())).collect();
    let receipt = pipeline.import("all.tar.gz", &gzipped(&docker_archive(&images))).await;
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    for (at, image) in others.iter().enumerate() {
        let config = check_image(pipeline.stack.images(), &format!("team/app-{at}"), "1");
        assert_eq!(config, digest(&image.config()));
    }
}

#[tokio::test]
async fn faults_during_a_pass_cost_another_pass_and_change_nothing() {
    let fault = |operation: &str, skip, times, action| Fault {
        operation: operation.to_owned(),
        resource: None,
        skip,
        times,
        action,
    };
    for (what, fault) in [
        ("a read is dropped", fault("s3:GetObject", 8, 1, Action::Reset)),
        ("a body is cut", fault("registry:PatchUpload", 0, 1, Action::DropAfterRequestBytes(20_000))),
        ("a body is refused", fault("registry:PatchUpload", 1, 2, Action::Status(500, String::new()))),
        ("the closing PUT's answer is lost", fault("registry:PutUpload", 0, 1, Action::CloseAfterHandling)),
        ("a session does not start", fault("registry:StartUpload", 0, 1, Action::Reset)),
    ] {
        let pipeline = Pipeline::start(PROGRAM).await;
        let id = pipeline.faults.add(fault);
        let receipt = pipeline.import("team/app/1.tar.gz", &bytes_of(&image(2), &[])).await;
        assert!(pipeline.faults.fired(id) > 0, "{what}: the fault never fired");
        assert_eq!(receipt["state"], "released", "{what}: {receipt:#}");
        assert_eq!(check_image(pipeline.stack.images(), "team/app", "1"), digest(&image(2).config()), "{what}");
    }
}

/// The index of the first delivery is found by the second, which does not read the archive to its end again.
#[tokio::test]
async fn a_later_delivery_skips_the_first_pass() {
    let edits = vec![(r#"MaxReceives: "10""#.to_owned(), r#"MaxReceives: "3""#.to_owned())];
    let pipeline = Pipeline::with(PROGRAM, Setup { edits, ..Setup::default() }).await;
    // The first delivery fails after its first pass: the repository call does not come through.
    let fault = Fault {
        operation: "ecr:DescribeRepositories".into(),
        resource: None,
        skip: 0,
        times: 4,
        action: Action::Status(500, String::new()),
    };
    let id = pipeline.faults.add(fault);
    let mut log = pipeline.stack.log();
    let uploaded = pipeline.put("team/app/1.tar.gz", &bytes_of(&image(2), &[])).await;
    let receipt = pipeline.decided(&mut log, &uploaded).await;
    assert!(pipeline.faults.fired(id) > 0);
    assert_eq!(receipt["state"], "released", "{receipt:#}");
    assert!(receipt["import"]["attempt"]["n"].as_u64().unwrap() > 1, "{receipt:#}");
    assert_eq!(indexes(&pipeline).await, 1);
    // The second delivery did not index again, or it would have written what it found.
    let writes = pipeline.faults.requests().into_iter().map(|request| request.operation);
    let writes = writes.filter(|write| write.name == "s3:PutObject" && write.resource.starts_with("state/indexes/"));
    assert_eq!(writes.count(), 1);
}
