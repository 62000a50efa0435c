//! One upload's story as plain data: what text, JSON and pages are made from.

use gantry::image::Digest;
use gantry::react::{Check, Verdict, Verification, verdict};
use gantry::receipt::{ImageReceipt, ImportOutcome, ImportSection, LayersDone, Receipt, Resent};
use gantry::state::image_record::ReleasedBy;
use gantry::state::{ImageRecord, ImageRecords, StateError};
use gantry::uploads::Known;
use indicatif::HumanBytes;
use jiff::Timestamp;
use serde::Serialize;

use super::text::{name, seconds, work};

/// The state of an upload that no delivery has begun with.
const WAITING: &str = "waiting";

/// One upload's story.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Story {
    /// The receipt's, or `waiting` as long as no delivery has begun.
    pub(crate) state: String,
    /// One sentence.
    pub(crate) summary: String,
    /// One command, or what to do.
    pub(crate) next: String,
    /// The bucket.
    pub(crate) bucket: String,
    /// The key.
    pub(crate) key: String,
    /// The version, on a versioned bucket.
    pub(crate) version_id: Option<String>,
    /// When this version was put.
    pub(crate) uploaded_at: Timestamp,
    /// The upload's size.
    pub(crate) size_bytes: u64,
    /// What happened to the upload, in its order.
    pub(crate) steps: Vec<Step>,
    /// Each image that is in ECR.
    pub(crate) images: Vec<ImageStory>,
    /// The receipt of this version, as it is.
    pub(crate) receipt: Option<Receipt>,
}

/// What became of one image of an upload.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ImageStory {
    /// `team/app:1.4.2`, with every tag.
    pub(crate) name: String,
    /// The manifest's digest.
    pub(crate) digest: Digest,
    /// The config's digest, where it is one image.
    pub(crate) image_id: Option<Digest>,
    /// What it runs on.
    pub(crate) platforms: Vec<String>,
    /// What `docker pull` takes.
    pub(crate) uri: String,
    /// What was sent and what was not.
    pub(crate) work: String,
    /// What was made of it, in its order.
    pub(crate) steps: Vec<Step>,
}

/// One thing that happened, or is to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// A word: `uploaded`, `resent`, `delivery`, `verified`, `verdict`, `released` or `told`.
    pub(crate) what: &'static str,
    /// How it went.
    pub(crate) outcome: Outcome,
    /// When; absent for what is yet to come.
    pub(crate) at: Option<Timestamp>,
    /// What there is to say.
    pub(crate) text: String,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// As it should.
    Done,
    /// It is being done, or tried again.
    UnderWay,
    /// It did not.
    Failed,
}

impl Story {
    /// The story of `known`; what the pipeline's records add is read where they may be: one request for each image.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub(crate) async fn read(known: Known, records: Option<&ImageRecords>) -> Result<Self, StateError> {
        let mut story = Self::new(known);
        let (Some(receipt), Some(records)) = (&story.receipt, records) else { return Ok(story) };
        for (image, told) in receipt.import.images.iter().zip(&mut story.images) {
            if let Some(record) = records.find(&image.repository, image.digest).await? {
                told.steps.extend(of_record(&record));
            }
        }
        Ok(story)
    }

    /// The story as the receipt alone tells it.
    pub(crate) fn new(known: Known) -> Self {
        let receipt = known.receipt().cloned();
        let (state, summary, next) = match &receipt {
            Some(receipt) => (receipt.state.as_str().to_owned(), receipt.summary.clone(), receipt.next.clone()),
            None => (
                WAITING.to_owned(),
                "no delivery has begun".to_owned(),
                format!("docs/gantry-wait s3://{}/{}", known.upload.bucket, known.upload.key),
            ),
        };
        let mut steps = vec![Step {
            what: "uploaded",
            outcome: Outcome::Done,
            at: Some(known.uploaded_at),
            text: HumanBytes(known.size_bytes).to_string(),
        }];
        if let Some(receipt) = &receipt {
            steps.extend(receipt.import.resent.map(resent));
            steps.push(delivery(&receipt.import));
        }
        let images =
            receipt.iter().flat_map(|receipt| receipt.import.images.iter().map(|image| of_image(receipt, image)));
        Self {
            images: images.collect(),
            state,
            summary,
            next,
            uploaded_at: known.uploaded_at,
            size_bytes: known.size_bytes,
            steps,
            receipt,
            bucket: known.upload.bucket,
            key: known.upload.key,
            version_id: known.upload.version_id,
        }
    }
}

fn resent(Resent { times, at }: Resent) -> Step {
    let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
    Step {
        what: "resent",
        outcome: Outcome::Done,
        at: Some(at),
        text: format!("{times}, since nothing was heard of it"),
    }
}

/// How far the deliveries are.
fn delivery(import: &ImportSection) -> Step {
    let outcome = match import.outcome {
        ImportOutcome::Importing => Outcome::UnderWay,
        ImportOutcome::Imported | ImportOutcome::Superseded => Outcome::Done,
        ImportOutcome::Failed => Outcome::Failed,
    };
    let mut parts = vec![format!("{} of {}", import.attempt.n, import.attempt.of)];
    if let Some(LayersDone { done, of, read_bytes, sent_bytes }) = import.layers {
        let (read, sent) = (HumanBytes(read_bytes), HumanBytes(sent_bytes));
        parts.push(format!("{done} of {of} blobs, {read} read, {sent} sent"));
    }
    parts.push(seconds(import.duration_ms));
    let why = import.reason.as_ref().map(|reason| format!(": {}", reason.text)).unwrap_or_default();
    let text = format!("{}{why}", parts.join(", "));
    Step { what: "delivery", outcome, at: Some(import.updated_at), text }
}

fn of_image(receipt: &Receipt, image: &ImageReceipt) -> ImageStory {
    let reaction = receipt.reaction(&image.repository, image.digest);
    let verification = reaction.and_then(|reaction| reaction.verification.as_ref());
    let verdict = reaction.and_then(|reaction| reaction.verdict.as_ref());
    ImageStory {
        name: name(image),
        digest: image.digest,
        image_id: image.image_id,
        platforms: image.platforms.clone(),
        uri: image.uri.clone(),
        work: work(image),
        steps: verification.map(verified).into_iter().chain(verdict.map(judged)).collect(),
    }
}

fn verified(verification: &Verification) -> Step {
    let Verification { passed, at, blobs, failures, .. } = verification;
    let (outcome, word) = if *passed { (Outcome::Done, "passed") } else { (Outcome::Failed, "failed") };
    let failed = |check: &Check| format!("; {}: wanted {}, found {}", check.what, check.wanted, check.found);
    let failures: String = failures.iter().map(failed).collect();
    let text = format!("{word}, {blobs} blobs{failures}");
    Step { what: "verified", outcome, at: Some(*at), text }
}

fn judged(verdict: &Verdict) -> Step {
    let outcome = match verdict.outcome {
        verdict::Outcome::Pass => Outcome::Done,
        verdict::Outcome::Inconclusive | verdict::Outcome::Fail if verdict.allows_release => Outcome::Done,
        verdict::Outcome::Inconclusive | verdict::Outcome::Fail => Outcome::Failed,
    };
    let reason = if verdict.reason.is_empty() { String::new() } else { format!(": {}", verdict.reason) };
    let text = format!("{} by policy {}{reason}", verdict.outcome.as_str(), verdict.policy);
    Step { what: "verdict", outcome, at: Some(verdict.read_at), text }
}

/// What only the image's record says: what let it go, which floating tags it has, and what people were told.
fn of_record(record: &ImageRecord) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(released) = &record.released {
        let by = match released.by {
            ReleasedBy::Verification => "by verification",
            ReleasedBy::Verdict => "by its verdict",
            ReleasedBy::Hand => "by hand",
        };
        let floats: Vec<&str> = record.floats.keys().map(gantry::image::Tag::as_str).collect();
        let floats = if floats.is_empty() { String::new() } else { format!("; {} was moved to it", floats.join(", ")) };
        let text = format!("{by}{floats}");
        steps.push(Step { what: "released", outcome: Outcome::Done, at: Some(released.at), text });
    }
    let mut told: Vec<_> = record.told.iter().collect();
    told.sort_by_key(|(_, told)| told.claimed_at);
    for (fact, told) in told {
        let outcome = if told.done { Outcome::Done } else { Outcome::UnderWay };
        steps.push(Step { what: "told", outcome, at: Some(told.claimed_at), text: what_was_told(record, fact) });
    }
    steps
}

/// A fact names its image first, or its kind: `imported` of one upload, `released:1.4.2` of an image.
fn what_was_told(record: &ImageRecord, fact: &str) -> String {
    let of_image = fact.strip_prefix(&format!("{}@{}:", record.repository, record.digest));
    let kind = || fact.split_once(':').map_or(fact, |(kind, _)| kind);
    of_image.unwrap_or_else(kind).replacen(':', " ", 1)
}
