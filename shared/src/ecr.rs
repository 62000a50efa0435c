//! Amazon ECR: the registry that holds the blobs (OCI distribution API), the token that opens it, and the
//! repositories it is divided into, with what they list (control API).

mod error;
mod listing;
mod registry;
mod repository;
mod token;

pub use error::RegistryError;
pub use listing::ListedImage;
pub use registry::{Chunks, Registry, StoredManifest, Upload};
pub use repository::{Repositories, RepositoryError, Settings};
pub use token::TokenSource;
