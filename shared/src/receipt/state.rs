//! The state: the one word for what became of an upload, and what it is derived from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reaction::reaction_key;
use super::{ImageReaction, ImageReceipt, ImportOutcome, ImportSection};
use crate::react::release::ReleaseState;

/// What became of an upload. Every upload ends in exactly one final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A delivery has begun.
    Importing,
    /// In ECR under its tag; verification or verdict outstanding.
    Imported,
    /// Verified, and passed where the gate asks: deploy it.
    Released,
    /// In ECR, not to be used.
    Held,
    /// Nothing was tagged.
    Failed,
    /// A newer version of the same key won; nothing was moved.
    Superseded,
}

impl State {
    /// Whether nothing more is to come by itself.
    pub fn is_final(self) -> bool {
        match self {
            Self::Importing | Self::Imported => false,
            Self::Released | Self::Held | Self::Failed | Self::Superseded => true,
        }
    }

    /// The word of the object tag `gantry`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Importing => "importing",
            Self::Imported => "imported",
            Self::Released => "released",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the sections come to: the worst of the images, once they are in ECR.
pub(super) fn state_of(import: &ImportSection, reaction: &BTreeMap<String, ImageReaction>) -> State {
    match import.outcome {
        ImportOutcome::Importing => State::Importing,
        ImportOutcome::Failed => State::Failed,
        ImportOutcome::Superseded => State::Superseded,
        ImportOutcome::Imported => {
            let of = |image: &ImageReceipt| {
                let known = reaction.get(&reaction_key(&image.repository, image.digest));
                known.map_or(ReleaseState::Waiting, |known| known.release.state)
            };
            match import.images.iter().map(of).max() {
                Some(ReleaseState::Released) => State::Released,
                Some(ReleaseState::Held) => State::Held,
                Some(ReleaseState::Waiting) | None => State::Imported,
            }
        }
    }
}
