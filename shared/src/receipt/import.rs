//! Import's section: how far it is, in which delivery, and why it failed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ImageReceipt;
use crate::plan::Applied;

/// How far the import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// Under way, or waiting for its next delivery.
    Importing,
    /// Everything is in ECR under its tags.
    Imported,
    /// Given up.
    Failed,
    /// Overtaken by a newer version.
    Superseded,
}

/// Import's section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportSection {
    /// How far it is.
    pub outcome: ImportOutcome,
    /// Which delivery this is.
    pub attempt: Attempt,
    /// When this delivery began.
    pub started_at: Timestamp,
    /// When this section was written.
    pub updated_at: Timestamp,
    /// Between the two.
    pub duration_ms: u64,
    /// The upload's size, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Layers done in this delivery, and of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersDone>,
    /// Why it failed, or what the last delivery failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Each image and what was done for it.
    #[serde(default)]
    pub images: Vec<ImageReceipt>,
    /// What the archive names and does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What was made of it for its consumer, where the profile is not `exact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Applied>,
    /// How adopted repositories differ from the stack's settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings_differ: Vec<String>,
    /// Whether people were told of the outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
    /// How often reconcile sent it round again, since nothing was heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resent: Option<Resent>,
}

/// How often an upload was sent round again by reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    /// How often.
    pub times: u32,
    /// When last.
    pub at: Timestamp,
}

/// Delivery `n` of at most `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub n: u32,
    /// After the last one the message goes to the failed queue.
    pub of: u32,
}

/// Progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayersDone {
    /// Layers that ECR has.
    pub done: usize,
    /// Layers of all images.
    pub of: usize,
    /// Bytes read for those that were sent.
    pub read_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// Why, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A word that is stable: `archive`, `naming`, `conflict`, `repository`, `object`, `operator`, `network`, `time`,
    /// `lost` or `superseded`.
    pub kind: String,
    /// The whole chain of causes.
    pub text: String,
    /// What to do.
    pub fix: String,
    /// Whether uploading the same file again can help.
    pub upload_again_helps: bool,
}
