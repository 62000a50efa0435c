//! One row for each sample.

use Made::{Ignored, NoUpload, Unreadable, Uploads};
use Shape::{Bare, Batch};

/// What the samples with EventBridge's shape give as version.
const BUS_VERSION: Option<&str> = Some("IYV3p45BT0ac8hjHg1houSdS1a.Mro8e");

/// What S3's own records give as version.
const RECORD_VERSION: Option<&str> = Some("096fKKXTRTtl3on89fVO.nfljtsv6qko");

/// A sample and what becomes of it.
#[derive(Debug)]
pub(crate) struct Row {
    /// The file's name, without `.json`.
    pub(crate) file: &'static str,
    /// How it comes.
    pub(crate) shape: Shape,
    /// What is made of it, or of each message of it in their order.
    pub(crate) made: &'static [Made],
}

/// How an event comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// By itself.
    Bare,
    /// In the messages of a queue.
    Batch,
}

/// What the function makes of one event.
#[derive(Debug)]
pub(crate) enum Made {
    /// These are imported.
    Uploads(&'static [Upload]),
    /// An object of this key, which is left alone.
    NoUpload(&'static str),
    /// Acknowledged; this is how the log names it.
    Ignored(&'static str),
    /// Acknowledged; this is the error in the log.
    Unreadable(&'static str),
}

/// An object that a sample names.
#[derive(Debug)]
pub(crate) struct Upload {
    /// The key, decoded.
    pub(crate) key: &'static str,
    /// The version.
    pub(crate) version: Option<&'static str>,
}

impl Row {
    /// Every upload of the sample.
    pub(crate) fn uploads(&self) -> impl Iterator<Item = &'static Upload> {
        self.made.iter().flat_map(|made| match made {
            Uploads(uploads) => *uploads,
            NoUpload(_) | Ignored(_) | Unreadable(_) => &[],
        })
    }
}

const fn bus(key: &'static str) -> Upload {
    Upload { key, version: BUS_VERSION }
}

const fn record(key: &'static str) -> Upload {
    Upload { key, version: RECORD_VERSION }
}

const fn unversioned(key: &'static str) -> Upload {
    Upload { key, version: None }
}

const fn row(file: &'static str, shape: Shape, made: &'static [Made]) -> Row {
    Row { file, shape, made }
}

const TEST_EVENT: &str = "the test message S3 sends when notifications are configured";

/// All of them. No two name the same upload.
pub(crate) static ROWS: &[Row] = &[
    row("eventbridge-object-created", Bare, &[Uploads(&[bus("team/my-app/1.0.0.tar")])]),
    row("eventbridge-object-created-odd-key", Bare, &[Uploads(&[bus("team/odd/Größe 1+1 100%20.tar")])]),
    row("eventbridge-object-created-multipart", Bare, &[Uploads(&[bus("team/my-app/1.1.0.tar")])]),
    row("eventbridge-object-created-unversioned", Bare, &[Uploads(&[unversioned("team/my-app/1.2.0.tar")])]),
    row("eventbridge-object-created-receipt-ignored", Bare, &[NoUpload("team/my-app/1.0.0.tar.receipt.json")]),
    row("eventbridge-object-created-folder-ignored", Bare, &[NoUpload("team/new-folder/")]),
    row(
        "eventbridge-object-created-without-key-refused",
        Bare,
        &[Unreadable("the event is named Object Created but does not read as one")],
    ),
    row("eventbridge-object-tags-added-ignored", Bare, &[Ignored(r#""Object Tags Added" from "aws.s3""#)]),
    row("eventbridge-ecr-image-push-ignored", Bare, &[Ignored(r#""ECR Image Action" from "aws.ecr""#)]),
    row("s3-object-created", Bare, &[Uploads(&[record("team/my-app/2.0.0.tar")])]),
    row("s3-object-created-encoded-key", Bare, &[Uploads(&[record("team/odd/Übergröße 2+2 50%25.tar")])]),
    row("s3-object-created-null-version", Bare, &[Uploads(&[unversioned("team/my-app/2.1.0.tar")])]),
    row("s3-two-records", Bare, &[Uploads(&[record("team/my-app/2.2.0.tar"), record("team/my-app/2.3.0.tar")])]),
    row("s3-object-removed-ignored", Bare, &[Ignored(r#"S3 records of ["ObjectRemoved:DeleteMarkerCreated"]"#)]),
    row("s3-test-event-ignored", Bare, &[Ignored(TEST_EVENT)]),
    row("sns-wrapped-s3-ignored", Bare, &[Ignored(r#"records from "aws:sns""#)]),
    row("sqs-eventbridge-object-created", Batch, &[Uploads(&[bus("team/my-app/3.0.0.tar")])]),
    row("sqs-eventbridge-object-created-odd-key", Batch, &[Uploads(&[bus("team/odd/naïve+3 3%2B3.tar")])]),
    row(
        "sqs-two-messages-second-malformed",
        Batch,
        &[Uploads(&[bus("team/my-app/3.1.0.tar")]), Unreadable("the message is no JSON")],
    ),
    row("sqs-s3-records", Batch, &[Uploads(&[record("team/my-app/3.2.0.tar")])]),
    row("sqs-s3-test-event-ignored", Batch, &[Ignored(TEST_EVENT)]),
    row("empty-document-ignored", Bare, &[Ignored("a document with the fields []")]),
];
