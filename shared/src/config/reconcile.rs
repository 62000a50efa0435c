//! What reconcile is told.

use super::react::ReactConfig;
use super::read::{ConfigError, Variables, environment};

/// Everything that reconcile is told by the template.
#[derive(Debug, Clone)]
pub struct ReconcileConfig {
    /// What it is told of images.
    pub react: ReactConfig,
    /// The bucket that people write to.
    pub upload_bucket: String,
    /// The URL of the queue that import is fed from.
    pub import_queue_url: String,
    /// The URL of the queue of messages that no delivery could finish.
    pub failed_queue_url: String,
    /// Its ARN, for the command that sends its messages round again.
    pub failed_queue_arn: String,
}

impl ReconcileConfig {
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
        Ok(Self {
            upload_bucket: variables.required("GANTRY_UPLOAD_BUCKET")?,
            import_queue_url: variables.required("GANTRY_IMPORT_QUEUE_URL")?,
            failed_queue_url: variables.required("GANTRY_FAILED_QUEUE_URL")?,
            failed_queue_arn: variables.required("GANTRY_FAILED_QUEUE_ARN")?,
            react: ReactConfig::from_lookup(&lookup)?,
        })
    }
}
