//! The receipt: what became of an upload, written beside it as `<key>.receipt.json`.
//!
//! Its first keys are `state`, `summary` and `next`; object tag, exit codes and events are derived from its state and
//! from nothing else. [`Receipts`] is the only writer. This file is the document as a whole; its parts and its writer
//! have their own.

pub mod log;

mod image;
mod import;
mod reaction;
mod state;
mod store;
mod tags;
mod upload_id;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::image::{Digest, Repository};
use crate::version::VERSION;

pub use image::{BlobReceipt, How, ImageReceipt};
pub use import::{Attempt, ImportOutcome, ImportSection, LayersDone, Reason, Resent};
pub use reaction::ImageReaction;
pub use state::State;
pub use store::Receipts;
pub use upload_id::{SUFFIX, UploadId};

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Derived from the sections below.
    pub state: State,
    /// One sentence.
    pub summary: String,
    /// One command, or what to do.
    pub next: String,
    /// Of this document; fields are only ever added.
    pub schema: u32,
    /// The stack.
    pub stack: String,
    /// The version that wrote it.
    pub version: String,
    /// Which upload.
    pub upload: UploadId,
    /// Import's section.
    pub import: ImportSection,
    /// What was made of each image once it was in ECR, by `<repository>@<digest>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reaction: BTreeMap<String, ImageReaction>,
}

impl Receipt {
    /// The document that `stack` writes of these sections: state and words follow from them.
    fn new(stack: &str, upload: &UploadId, import: ImportSection, reaction: BTreeMap<String, ImageReaction>) -> Self {
        let state = state::state_of(&import, &reaction);
        let (summary, next) = words::in_words(state, upload, &import, &reaction);
        Self {
            state,
            summary,
            next,
            schema: 1,
            stack: stack.to_owned(),
            version: VERSION.to_owned(),
            upload: upload.clone(),
            import,
            reaction,
        }
    }

    /// What was made of an image, if anything yet.
    pub fn reaction(&self, repository: &Repository, digest: Digest) -> Option<&ImageReaction> {
        self.reaction.get(&reaction::reaction_key(repository, digest))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn the_first_keys_are_state_summary_and_next() {
        let at = Timestamp::UNIX_EPOCH;
        let import = ImportSection {
            outcome: ImportOutcome::Failed,
            attempt: Attempt { n: 1, of: 10 },
            started_at: at,
            updated_at: at,
            duration_ms: 0,
            size_bytes: None,
            layers: None,
            reason: Some(Reason {
                kind: "archive".into(),
                text: "the upload is empty".into(),
                fix: "upload the whole file".into(),
                upload_again_helps: false,
            }),
            images: vec![],
            left_out: vec![],
            profile: None,
            settings_differ: vec![],
            told: false,
            resent: None,
        };
        let upload = UploadId {
            bucket: "uploads".into(),
            key: "team/app/1.tar".into(),
            version_id: Some("a".into()),
            etag: None,
            sequencer: None,
        };
        let receipt = Receipt::new("gantry", &upload, import, BTreeMap::new());
        let text = serde_json::to_string(&receipt).unwrap();
        let start =
            r#"{"state":"failed","summary":"nothing was tagged: the upload is empty","next":"upload the whole file","#;
        assert!(text.starts_with(start), "{text}");
        assert_eq!(serde_json::from_str::<Receipt>(&text).unwrap(), receipt);
    }
}
