//! What the functions are told that look at images once they are in ECR.

use std::time::Duration;

use super::read::{CommonConfig, ConfigError, QueueConfig, Variables, environment, refused};
use crate::react::floating::Template;

/// Everything that on-push, on-scan and reconcile are told by the template.
#[derive(Debug, Clone)]
pub struct ReactConfig {
    /// What every function is told.
    pub common: CommonConfig,
    /// The queue that feeds it; reconcile has a schedule instead.
    pub queue: Option<QueueConfig>,
    /// What a release waits for.
    pub gate: ReleaseGate,
    /// The tags that follow the highest release.
    pub floating: Vec<Template>,
    /// Whether the config's label may name the commit, where no upload and no annotation does.
    pub commit_tag_from_label: bool,
    /// How long a scan may take before its silence is an answer.
    pub scan_wait: Duration,
}

/// What a release waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseGate {
    /// Verification.
    None,
    /// Verification, and a verdict that allows it.
    Scan,
}

impl ReactConfig {
    /// Reads the process's environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(environment())
    }

    /// Reads the variables that `lookup` gives.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variables = Variables::new(&lookup);
        let gate = variables.required("GANTRY_RELEASE_GATE")?;
        let gate = match gate.as_str() {
            "none" => ReleaseGate::None,
            "scan" => ReleaseGate::Scan,
            _ => return Err(refused("GANTRY_RELEASE_GATE", &gate, "none or scan")),
        };
        let mutability = variables.mutability()?;
        let queue = variables.optional("GANTRY_MAX_RECEIVES").map(|_| variables.queue()).transpose()?;
        Ok(Self {
            common: variables.common()?,
            queue,
            gate,
            floating: variables.floating(&mutability)?,
            commit_tag_from_label: variables.boolean("GANTRY_COMMIT_TAG_FROM_LABEL")?,
            scan_wait: Duration::from_mins(variables.number("GANTRY_SCAN_WAIT_MINUTES")?.into()),
        })
    }
}
