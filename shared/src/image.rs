//! The nouns: digests, references, media types, manifests.

pub mod digest;
pub mod manifest;
pub mod media_type;
pub mod reference;

pub use digest::{DiffId, Digest, DigestError, Hasher};
pub use manifest::{Descriptor, Manifest};
pub use media_type::MediaType;
pub use reference::{NameError, Repository, Tag};
