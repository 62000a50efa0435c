//! Why a look at an image did not come to its end.

use crate::aws::CallError;
use crate::disposition::Disposition;
use crate::ecr::{RegistryError, RepositoryError};
use crate::notify::NotifyError;
use crate::retry::Disposed;
use crate::state::StateError;

/// Everything that can end a look.
#[derive(Debug, thiserror::Error)]
pub enum ReactError {
    /// The repository could not be asked.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The registry did not do what was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A record, the policy or a receipt could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The findings could not be read.
    #[error(transparent)]
    Findings(#[from] CallError),
    /// People could not be told.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// Floating tags kept moving.
    #[error("floating tags of {repository} were moved by others {rounds} times in a row")]
    Contended {
        /// The repository.
        repository: crate::image::Repository,
        /// How often they were put.
        rounds: usize,
    },
    /// It was pushed, and is not there.
    #[error("the image was pushed, and ECR does not list it yet")]
    NotThere,
    /// Its scan is said to have ended, and its findings are not there.
    #[error("the scan is said to have ended, and ECR does not give its findings yet")]
    NotScanned,
    /// The time of this delivery is used up.
    #[error("the time of this delivery is used up")]
    OutOfTime,
}

impl Disposed for ReactError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Repository(error) => error.disposition(),
            Self::Registry(error) => error.disposition(),
            Self::State(error) => error.disposition(),
            Self::Findings(error) => error.disposition(),
            Self::Notify(error) => error.disposition(),
            Self::Contended { .. } | Self::NotThere | Self::NotScanned | Self::OutOfTime => Disposition::Transient,
        }
    }
}

impl ReactError {
    /// A stable word for alarms.
    pub fn kind(&self) -> &'static str {
        let denied = match self {
            Self::Repository(RepositoryError::Call(call)) | Self::Findings(call) => call.is_denied(),
            Self::Registry(error) => error.denied_action().is_some(),
            Self::State(error) => error.denied_call().is_some(),
            Self::Notify(error) => error.denied_call().is_some(),
            Self::Repository(_) | Self::Contended { .. } | Self::NotThere | Self::NotScanned | Self::OutOfTime => false,
        };
        match self {
            _ if denied => "operator",
            Self::OutOfTime => "time",
            Self::Repository(_)
            | Self::Registry(_)
            | Self::State(_)
            | Self::Findings(_)
            | Self::Notify(_)
            | Self::NotThere
            | Self::NotScanned
            | Self::Contended { .. } => "network",
        }
    }
}
