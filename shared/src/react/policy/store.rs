//! The policy file in the state bucket, and the last good one beside it.

use jiff::Timestamp;

use super::{GOOD_KEY, KEY, Policy, PolicyError};
use crate::image::Digest;
use crate::limits;
use crate::state::{Documents, StateError};

/// Reads the policy that is in force.
#[derive(Debug, Clone)]
pub struct Policies {
    documents: Documents,
}

/// The policy in force, and what is wrong with the file if it is not that one.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// In force.
    pub policy: Policy,
    /// Why the newest file is not.
    pub problem: Option<Problem>,
    /// When it was in force for certain: by the clock, just before it was read.
    pub read_at: Timestamp,
}

/// A file that is not used.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The first twelve hex digits of its SHA-256: one file is told of once.
    pub file: String,
    /// Where and why.
    pub error: PolicyError,
}

impl Policies {
    /// The policy of the stack whose state is in `documents`.
    pub fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// The policy in force now: the file, if it parses; else the last one that did; the default without a file. A file
    /// that parses is kept as the last good one. `now` is the time before this call. Two requests at most, three when the
    /// file is new.
    ///
    /// # Errors
    ///
    /// [`StateError`], transient.
    pub async fn load(&self, now: Timestamp) -> Result<Loaded, StateError> {
        let Some(bytes) = self.documents.beginning(KEY, limits::POLICY_BYTES).await? else {
            return Ok(Loaded { read_at: now, ..Loaded::default() });
        };
        let loaded = Loaded { read_at: now, ..self.parse(&bytes).await? };
        if loaded.problem.is_none() && self.documents.bytes(GOOD_KEY).await?.is_none_or(|known| known != bytes) {
            self.documents.put_bytes(GOOD_KEY, bytes, "application/toml").await?;
            tracing::info!(policy = loaded.policy.version, "the policy file is in force");
        }
        Ok(loaded)
    }

    /// The policy in force now, and nothing written.
    ///
    /// # Errors
    ///
    /// [`StateError`], transient.
    pub async fn peek(&self) -> Result<Loaded, StateError> {
        match self.documents.beginning(KEY, limits::POLICY_BYTES).await? {
            Some(bytes) => self.parse(&bytes).await,
            None => Ok(Loaded::default()),
        }
    }

    async fn parse(&self, bytes: &[u8]) -> Result<Loaded, StateError> {
        match Policy::parse(bytes) {
            Ok(policy) => Ok(Loaded { policy, ..Loaded::default() }),
            Err(error) => {
                let last = self.documents.bytes(GOOD_KEY).await?.and_then(|bytes| Policy::parse(&bytes).ok());
                let policy = last.unwrap_or_default();
                tracing::error!(policy = policy.version, error = %error, "the policy file does not parse");
                let problem = Some(Problem { file: Digest::of(bytes).short(), error });
                Ok(Loaded { policy, problem, ..Loaded::default() })
            }
        }
    }
}
