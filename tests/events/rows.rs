//! One row for each sample.

use Function::{Import, OnPush, OnScan, Reconcile};
use Made::{Ignored, NoUpload, PolicyChanged, Pushed, ReleasedByHand, Scanned, Swept, Unreadable, Uploads};
use Shape::{Bare, Batch};

/// What the samples with EventBridge's shape give as version.
const BUS_VERSION: Option<&str> = Some("IYV3p45BT0ac8hjHg1houSdS1a.Mro8e");

/// What S3's own records give as version.
const RECORD_VERSION: Option<&str> = Some("096fKKXTRTtl3on89fVO.nfljtsv6qko");

/// The repository of every image that a sample names.
pub(crate) const REPOSITORY: &str = "team/my-app";

/// The digest of every image that a sample names.
pub(crate) const DIGEST: &str = "sha256:3014637776d42a85266a46eecaa689d23eed6e49a3cea1f282afce1001b796c7";

/// A sample and what becomes of it.
#[derive(Debug)]
pub(crate) struct Row {
    /// The file's name, without `.json`.
    pub(crate) file: &'static str,
    /// The function that it is for: the one that its rule wakes, or that is nearest to what it looks like.
    pub(crate) function: Function,
    /// How it comes.
    pub(crate) shape: Shape,
    /// What that function makes of it, or of each message of it in their order.
    pub(crate) made: &'static [Made],
}

/// A function of the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// Objects become images.
    Import,
    /// Images that were pushed are looked at.
    OnPush,
    /// Images that were scanned are judged.
    OnScan,
    /// What no event brought.
    Reconcile,
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
    /// The image is looked at, by this digest and under this tag.
    Pushed(Option<&'static str>, Option<&'static str>),
    /// The image's findings are read.
    Scanned,
    /// Every image is judged anew.
    PolicyChanged,
    /// The image is released in spite of its verdict.
    ReleasedByHand,
    /// Whatever is left to do is done.
    Swept,
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

impl Function {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Import, OnPush, OnScan, Reconcile];

    /// As the template calls it.
    pub(crate) fn logical_id(self) -> &'static str {
        match self {
            Import => "ImportFunction",
            OnPush => "OnPushFunction",
            OnScan => "OnScanFunction",
            Reconcile => "ReconcileFunction",
        }
    }
}

impl Row {
    /// Every upload of the sample.
    pub(crate) fn uploads(&self) -> impl Iterator<Item = &'static Upload> {
        self.made.iter().flat_map(|made| match made {
            Uploads(uploads) => *uploads,
            _ => &[],
        })
    }

    /// The samples of one function.
    pub(crate) fn of(function: Function) -> impl Iterator<Item = &'static Self> {
        ROWS.iter().filter(move |row| row.function == function)
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

const fn row(file: &'static str, function: Function, shape: Shape, made: &'static [Made]) -> Row {
    Row { file, function, shape, made }
}

const TEST_EVENT: &str = "the test message S3 sends when notifications are configured";

const NOT_JSON: &str = "the message is no JSON";

/// All of them, by who sends them. No two name the same upload.
pub(crate) static ROWS: &[Row] = &[
    row("s3-object-created", Import, Bare, &[Uploads(&[bus("team/my-app/1.0.0.tar")])]),
    row("s3-object-created-odd-key", Import, Bare, &[Uploads(&[bus("team/odd/Größe 1+1 100%20.tar")])]),
    row("s3-object-created-multipart", Import, Bare, &[Uploads(&[bus("team/my-app/1.1.0.tar")])]),
    row("s3-object-created-unversioned", Import, Bare, &[Uploads(&[unversioned("team/my-app/1.2.0.tar")])]),
    row("s3-object-created-receipt-ignored", Import, Bare, &[NoUpload("team/my-app/1.0.0.tar.receipt.json")]),
    row("s3-object-created-folder-ignored", Import, Bare, &[NoUpload("team/new-folder/")]),
    row(
        "s3-object-created-without-key-refused",
        Import,
        Bare,
        &[Unreadable("the event is named Object Created but does not read as one")],
    ),
    row("s3-object-tags-added-ignored", Import, Bare, &[Ignored(r#""Object Tags Added" from "aws.s3""#)]),
    row("s3-policy-changed", OnScan, Bare, &[PolicyChanged]),
    row("s3-released-by-hand", OnScan, Bare, &[ReleasedByHand]),
    row(
        "s3-state-object-ignored",
        OnScan,
        Bare,
        &[Ignored(
            r#"the object "images/team/my-app/sha256:3014637776d42a85266a46eecaa689d23eed6e49a3cea1f282afce1001b796c7.json" of the state bucket, which nobody waits for"#,
        )],
    ),
    row("s3-records-object-created", Import, Bare, &[Uploads(&[record("team/my-app/2.0.0.tar")])]),
    row(
        "s3-records-object-created-encoded-key",
        Import,
        Bare,
        &[Uploads(&[record("team/odd/Übergröße 2+2 50%25.tar")])],
    ),
    row("s3-records-object-created-null-version", Import, Bare, &[Uploads(&[unversioned("team/my-app/2.1.0.tar")])]),
    row(
        "s3-records-two-objects-created",
        Import,
        Bare,
        &[Uploads(&[record("team/my-app/2.2.0.tar"), record("team/my-app/2.3.0.tar")])],
    ),
    row(
        "s3-records-object-removed-ignored",
        Import,
        Bare,
        &[Ignored(r#"S3 records of ["ObjectRemoved:DeleteMarkerCreated"]"#)],
    ),
    row("s3-test-event-ignored", Import, Bare, &[Ignored(TEST_EVENT)]),
    row("sns-s3-records-ignored", Import, Bare, &[Ignored(r#"records from "aws:sns""#)]),
    row("ecr-image-push", OnPush, Bare, &[Pushed(Some(DIGEST), Some("1.0.0"))]),
    row("ecr-image-push-untagged", OnPush, Bare, &[Pushed(Some(DIGEST), None)]),
    row("ecr-image-push-without-optional-fields", OnPush, Bare, &[Pushed(None, Some("1.0.0"))]),
    row("ecr-image-delete-ignored", OnPush, Bare, &[Ignored("an image action DELETE with the result SUCCESS")]),
    row("ecr-image-push-failure-ignored", OnPush, Bare, &[Ignored("an image action PUSH with the result FAILURE")]),
    row(
        "ecr-image-push-short-digest-refused",
        OnPush,
        Bare,
        &[Unreadable("the event is named ECR Image Action but does not read as one")],
    ),
    row("ecr-replication-ignored", OnPush, Bare, &[Ignored(r#""ECR Replication Action" from "aws.ecr""#)]),
    row(
        "ecr-pull-through-cache-ignored",
        OnPush,
        Bare,
        &[Ignored(r#""ECR Pull Through Cache Action" from "aws.ecr""#)],
    ),
    row("gantry-image-imported", OnPush, Bare, &[Pushed(Some(DIGEST), None)]),
    row("ecr-image-scan-complete", OnScan, Bare, &[Scanned]),
    row("ecr-image-scan-failed", OnScan, Bare, &[Scanned]),
    row("ecr-image-scan-no-counts", OnScan, Bare, &[Scanned]),
    row(
        "ecr-image-scan-without-digest-refused",
        OnScan,
        Bare,
        &[Unreadable("the event is named ECR Image Scan but does not read as one")],
    ),
    row("inspector2-scan", OnScan, Bare, &[Scanned]),
    row(
        "inspector2-scan-of-an-instance-ignored",
        OnScan,
        Bare,
        &[Ignored(r#""Inspector2 Scan" from "aws.inspector2""#)],
    ),
    row("inspector2-finding", OnScan, Bare, &[Scanned]),
    row(
        "inspector2-finding-of-a-function-ignored",
        OnScan,
        Bare,
        &[Ignored(r#""Inspector2 Finding" from "aws.inspector2""#)],
    ),
    row("inspector2-coverage", OnScan, Bare, &[Scanned]),
    row("scheduled", Reconcile, Bare, &[Swept]),
    row("sqs-s3-object-created", Import, Batch, &[Uploads(&[bus("team/my-app/3.0.0.tar")])]),
    row("sqs-s3-object-created-odd-key", Import, Batch, &[Uploads(&[bus("team/odd/naïve+3 3%2B3.tar")])]),
    row(
        "sqs-s3-object-created-second-malformed",
        Import,
        Batch,
        &[Uploads(&[bus("team/my-app/3.1.0.tar")]), Unreadable(NOT_JSON)],
    ),
    row("sqs-s3-records", Import, Batch, &[Uploads(&[record("team/my-app/3.2.0.tar")])]),
    row("sqs-s3-test-event-ignored", Import, Batch, &[Ignored(TEST_EVENT)]),
    row(
        "sqs-two-pushes-of-one-image",
        OnPush,
        Batch,
        &[Pushed(Some(DIGEST), None), Pushed(Some(DIGEST), Some("1.0.0"))],
    ),
    row("sqs-scan-events-second-malformed", OnScan, Batch, &[Scanned, Unreadable(NOT_JSON)]),
    row("empty-document-ignored", Import, Bare, &[Ignored("a document with the fields []")]),
];
