//! Why an import did not end with an image under its tags.

use crate::archive::ArchiveError;
use crate::compress::LayerError;
use crate::decompress::DecodeError;
use crate::disposition::Disposition;
use crate::ecr::{RegistryError, RepositoryError};
use crate::image::{Digest, Repository, Tag};
use crate::naming::NamingError;
use crate::notify::NotifyError;
use crate::object::{ObjectError, ObjectId};
use crate::plan::{PlanError, ProfileError};
use crate::receipt::LayersDone;
use crate::retry::Disposed;
use crate::state::StateError;

/// Everything that can end an import.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive is refused or could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The names are refused.
    #[error(transparent)]
    Naming(#[from] NamingError),
    /// The image is not what its consumer takes.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The object could not be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The registry did not do what was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The ledger, a record or the receipt could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another delivery of the same upload has claimed the telling, and not done it yet.
    #[error("another delivery is telling that the upload is in ECR")]
    BeingTold,
    /// People could not be told.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// A layer did not go through.
    #[error("the layer {entry:?} cannot be imported")]
    Layer {
        /// The archive's entry.
        entry: String,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// A layer's content is not what the image config says.
    #[error("the layer {entry:?} has the diff ID {found}; the image config wants {wanted}: the archive is damaged")]
    WrongDiffId {
        /// The archive's entry.
        entry: String,
        /// What its uncompressed bytes hash to.
        found: Digest,
        /// What the config lists.
        wanted: Digest,
    },
    /// A blob's bytes are not what its manifest says.
    #[error("the blob {entry:?} hashes to {found}; its manifest wants {wanted}: the archive is damaged")]
    WrongBlob {
        /// The archive's entry.
        entry: String,
        /// What its bytes hash to.
        found: Digest,
        /// What the manifest names.
        wanted: Digest,
    },
    /// An immutable tag names another image.
    #[error("the tag {repository}:{tag} is immutable and names another image, {found}; this upload holds {wanted}")]
    TagConflict {
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
        /// What it names.
        found: String,
        /// What the upload holds.
        wanted: String,
    },
    /// A newer version of the key is there.
    #[error("a newer version of the key, {version}, has been uploaded")]
    Superseded {
        /// Its id.
        version: String,
    },
    /// The key was deleted.
    #[error("{object} was deleted after it was uploaded")]
    Deleted {
        /// The object.
        object: ObjectId,
    },
    /// The delivery's time is used up.
    #[error("the time of this delivery is used up{}", so_far(.layers.as_ref()))]
    OutOfTime {
        /// How far it got.
        layers: Option<LayersDone>,
    },
    /// A plan without images; planning refuses such, so this is a mistake of ours.
    #[error("there was nothing to import")]
    Nothing,
}

fn so_far(layers: Option<&LayersDone>) -> String {
    layers.map(|layers| format!(" after {} of {} blobs", layers.done, layers.of)).unwrap_or_default()
}

impl From<PlanError> for ImportError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Archive(error) => Self::Archive(error),
            PlanError::Naming(error) => Self::Naming(error),
            PlanError::Profile(error) => Self::Profile(error),
        }
    }
}

/// What there is to do about an upload that was overtaken.
const NOTHING_TO_DO: &str = "nothing: the newest version counts";

/// What there is to do about trouble that is nobody's here.
const ROUND_AGAIN: &str = "not the upload's fault: send it round again once the cause is gone";

impl ImportError {
    /// A stable word for programs and alarms.
    pub fn kind(&self) -> &'static str {
        match self {
            _ if self.denied().is_some() => "operator",
            _ if self.is_overtaken() => "superseded",
            _ if matches!(self.object(), Some(ObjectError::Changed { .. } | ObjectError::Archived { .. })) => "object",
            _ if self.object().is_some() => "network",
            Self::Archive(_) | Self::Layer { .. } | Self::WrongDiffId { .. } | Self::WrongBlob { .. } => "archive",
            Self::Naming(_) => "naming",
            Self::Profile(_) => "profile",
            Self::TagConflict { .. } | Self::Registry(RegistryError::TagTaken { .. }) => "conflict",
            Self::Repository(RepositoryError::NotOurs { .. }) => "repository",
            Self::OutOfTime { .. } => "time",
            Self::Superseded { .. }
            | Self::Deleted { .. }
            | Self::Object(_)
            | Self::Repository(_)
            | Self::Registry(_)
            | Self::State(_)
            | Self::Notify(_)
            | Self::BeingTold
            | Self::Nothing => "network",
        }
    }

    /// What is wrong with the object itself, whoever was reading it.
    fn object(&self) -> Option<&ObjectError> {
        match self {
            Self::Object(object)
            | Self::Archive(ArchiveError::Object(object) | ArchiveError::Decode(DecodeError::Object(object)))
            | Self::Layer { source: LayerError::Object(object), .. } => Some(object),
            _ => None,
        }
    }

    /// Whether another version counts by now, or none: this one is nobody's any more.
    pub fn is_overtaken(&self) -> bool {
        matches!(self, Self::Superseded { .. } | Self::Deleted { .. })
            || matches!(self.object(), Some(ObjectError::Gone { .. }))
    }

    /// The action that the operator has to allow and the resource it is about, when that is what is wrong.
    fn denied(&self) -> Option<(&str, &str)> {
        let call = match self {
            _ if let Some(ObjectError::Call(call)) = self.object() => Some(call).filter(|call| call.is_denied()),
            Self::Repository(RepositoryError::Call(call)) => Some(call).filter(|call| call.is_denied()),
            Self::State(state) => state.denied_call(),
            Self::Notify(notify) => notify.denied_call(),
            Self::Registry(registry) => {
                return registry.denied_action().map(|action| (action, "the repository"));
            }
            _ => None,
        };
        call.map(|call| (call.action, call.resource.as_str()))
    }

    /// What to do, for the uploader or, where it is not the upload's fault, the operator.
    pub fn fix(&self) -> String {
        if let Some((action, resource)) = self.denied() {
            return format!(
                "not the upload's fault: allow {action} on {resource} to the function's role, then send the upload \
                 round again"
            );
        }
        if let Some(object) = self.object() {
            return match object {
                ObjectError::Gone { .. } => NOTHING_TO_DO,
                ObjectError::Changed { .. } | ObjectError::Archived { .. } => "upload the file again",
                _ => ROUND_AGAIN,
            }
            .to_owned();
        }
        match self {
            Self::Archive(archive) => archive.fix().to_owned(),
            Self::Naming(naming) => naming.fix(),
            Self::Profile(profile) => profile.fix(),
            Self::Repository(repository) => repository.fix(),
            Self::TagConflict { repository, .. } => {
                format!("upload it under a new tag: aws s3 cp FILE s3://BUCKET/{repository}/NEW-TAG.tar")
            }
            Self::WrongDiffId { .. } | Self::WrongBlob { .. } | Self::Layer { .. } => {
                "save the image again with the tool that wrote the tarball, and upload that file".to_owned()
            }
            Self::Superseded { .. } | Self::Deleted { .. } => NOTHING_TO_DO.to_owned(),
            Self::OutOfTime { .. } => "nothing: the next delivery goes on where this one stopped".to_owned(),
            Self::Registry(RegistryError::ManifestRefused { .. }) => {
                "build the image differently; ECR would refuse it from any client".to_owned()
            }
            Self::BeingTold => "nothing: another delivery is about to tell it".to_owned(),
            Self::Object(_) | Self::Registry(_) | Self::State(_) | Self::Notify(_) | Self::Nothing => {
                ROUND_AGAIN.to_owned()
            }
        }
    }

    /// Whether the same file, uploaded again, could succeed.
    pub fn upload_again_helps(&self) -> bool {
        match self {
            Self::Archive(ArchiveError::Truncated { .. } | ArchiveError::Empty) => false,
            other if other.object().is_some() => true,
            other => other.disposition() == Disposition::Transient,
        }
    }
}

impl Disposed for ImportError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Archive(error) => error.disposition(),
            Self::Object(error) => error.disposition(),
            Self::Repository(error) => error.disposition(),
            Self::Registry(error) => error.disposition(),
            Self::State(error) => error.disposition(),
            Self::Notify(error) => error.disposition(),
            Self::Layer { source, .. } => source.disposition(),
            Self::Naming(_)
            | Self::Profile(_)
            | Self::WrongDiffId { .. }
            | Self::WrongBlob { .. }
            | Self::TagConflict { .. }
            | Self::Superseded { .. }
            | Self::Deleted { .. } => Disposition::Permanent,
            Self::OutOfTime { .. } | Self::BeingTold | Self::Nothing => Disposition::Transient,
        }
    }
}
