//! Why an archive is refused.

use std::time::Duration;

use crate::decompress::{Codec, DecodeError};
use crate::disposition::Disposition;
use crate::image::{Digest, DigestError};
use crate::limits;
use crate::object::ObjectError;
use crate::retry::Disposed;

/// An archive that cannot be read, or holds nothing that can be imported.
///
/// Apart from [`ArchiveError::Object`] and what [`ArchiveError::Decode`] passes on, all are permanent: the same bytes
/// would be refused again.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No bytes at all.
    #[error("the upload is empty: 0 bytes; wanted an image tarball, as `docker save` writes it")]
    Empty,
    /// Another kind of file.
    #[error(
        "the upload is {}{found}, not a tar archive; wanted an image tarball, as `docker save` writes it",
        around(*.within)
    )]
    NotTar {
        /// What its first bytes look like.
        found: &'static str,
        /// What it was compressed with.
        within: Option<Codec>,
    },
    /// Compressed twice.
    #[error(
        "the upload is compressed twice, with {outer} and inside that with {inner}; wanted a tar archive in {outer}"
    )]
    CompressedTwice {
        /// Around all of it.
        outer: Codec,
        /// Inside that.
        inner: Codec,
    },
    /// The compressed upload does not decompress.
    #[error(transparent)]
    Decode(DecodeError),
    /// Nothing that one delivery can decode.
    #[error(
        "the upload takes too long to decompress: {found_bytes} bytes or more, at {} MB/s of {codec}, are {} s, and each \
         of the two passes over it has {} s, enough for {most_bytes} bytes",
        .codec.megabytes_a_second(), seconds(*.codec, *.found_bytes), .delivery.as_secs()
    )]
    TooSlow {
        /// The codec.
        codec: Codec,
        /// Decompressed bytes, as far as they were seen.
        found_bytes: u64,
        /// Decompressed bytes that one delivery can get through.
        most_bytes: u64,
        /// The time it has.
        delivery: Duration,
    },
    /// A layer that no delivery can finish.
    #[error(
        "the layer {entry:?} takes too long: {found_bytes} bytes, at {} MiB/s, are {} s, and a delivery has {} s, enough \
         for {most_bytes} bytes",
        limits::DELIVERY_BYTES_A_SECOND >> 20, moving_seconds(*.found_bytes), .delivery.as_secs()
    )]
    LayerTooSlow {
        /// The archive's entry.
        entry: String,
        /// Its size.
        found_bytes: u64,
        /// What one delivery can move.
        most_bytes: u64,
        /// The time it has.
        delivery: Duration,
    },
    /// More than all deliveries can move.
    #[error(
        "the upload takes too long: {found_bytes} bytes, at {} MiB/s, are {} s, and {deliveries} deliveries of \
         {} s, of which the half may go to waste where layers do not fit, are enough for {most_bytes} bytes",
        limits::DELIVERY_BYTES_A_SECOND >> 20, moving_seconds(*.found_bytes), .delivery.as_secs()
    )]
    UploadTooSlow {
        /// Bytes of all blobs, each once for each repository.
        found_bytes: u64,
        /// What the deliveries can move, whatever the layers are.
        most_bytes: u64,
        /// How many there are.
        deliveries: u32,
        /// The time that each has.
        delivery: Duration,
    },
    /// A JSON entry of a compressed archive that was passed over.
    #[error(
        "{entry} ({size_bytes} bytes) was not kept from the first pass over the {codec} stream: it does not begin as \
         JSON does, or the archive has more than {limit} bytes of JSON"
    )]
    NotKept {
        /// The entry.
        entry: String,
        /// The codec.
        codec: Codec,
        /// Its size.
        size_bytes: u64,
        /// Bytes that are kept of all of them.
        limit: u64,
    },
    /// A header that is no tar header.
    #[error(
        "the archive is damaged: no tar header at byte {offset}{}; wanted one after the entry before it",
        after(.previous.as_deref())
    )]
    BadHeader {
        /// Where.
        offset: u64,
        /// The entry before it.
        previous: Option<String>,
        /// What the header parser says.
        #[source]
        source: std::io::Error,
    },
    /// The archive ends inside an entry.
    #[error(
        "the archive is cut off: entry {entry:?} at byte {offset} goes to byte {wanted_bytes}, and the upload has \
         {found_bytes}"
    )]
    Truncated {
        /// The entry.
        entry: String,
        /// Where its header is.
        offset: u64,
        /// Where its body should end.
        wanted_bytes: u64,
        /// The upload's length, decompressed.
        found_bytes: u64,
    },
    /// The archive ends between two entries, and something is missing.
    #[error(
        "the archive is cut off: it ends at byte {ends_at} without the block of zeros that closes a tar, and lacks \
         {missing}"
    )]
    CutOff {
        /// Where.
        ends_at: u64,
        /// What it names and does not hold.
        missing: String,
    },
    /// A named limit was met.
    #[error("{what} at byte {offset} is over the limit: found {found}, at most {limit} are read")]
    OverLimit {
        /// What was counted or measured.
        what: String,
        /// Where.
        offset: u64,
        /// How much there is.
        found: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// A filesystem, not an image.
    #[error(
        "the archive holds no image: no index.json, manifest.json or repositories among its {entries} entries{}",
        looks_like(*.filesystem)
    )]
    NoImage {
        /// How many entries there are.
        entries: usize,
        /// Whether it looks like a root filesystem.
        filesystem: bool,
    },
    /// Several layouts in one archive, none of them at the top.
    #[error("the archive holds several image layouts, {one} and {other}; wanted one")]
    SeveralLayouts {
        /// The folder of one.
        one: String,
        /// The folder of another.
        other: String,
    },
    /// `manifest.json` or `index.json` names no image.
    #[error("{entry} names no image: it is an empty list or null")]
    NamesNothing {
        /// The entry.
        entry: String,
    },
    /// An archive of Docker 1.10 or newer without what makes it one.
    #[error(
        "the archive has no manifest.json, though its image config {config:?} is of the form that goes with one: it \
         is incomplete, and no Docker 1.0 archive either (repositories alone)"
    )]
    LostManifest {
        /// The config.
        config: String,
    },
    /// A layout that is not imported.
    #[error("the archive is {layout}, which is not imported")]
    Unsupported {
        /// Which one.
        layout: &'static str,
    },
    /// An entry that should be JSON is not, or lacks what it must have.
    #[error("{entry} does not read as {wanted}")]
    BadJson {
        /// The entry.
        entry: String,
        /// What it should be.
        wanted: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A digest that cannot be checked.
    #[error("{entry} names a digest that cannot be checked")]
    BadDigest {
        /// The entry.
        entry: String,
        /// What is wrong.
        #[source]
        source: DigestError,
    },
    /// Something is named and not there.
    #[error("{named_by} names {entry:?}, and the archive has no such file{}", detail(.why.as_deref()))]
    Missing {
        /// What names it.
        named_by: String,
        /// The path.
        entry: String,
        /// What was found instead: a broken link, a folder, a sparse file.
        why: Option<String>,
    },
    /// Bytes do not hash to what they are stored under.
    #[error("{entry} hashes to {found}; wanted {wanted}: the archive is damaged")]
    WrongDigest {
        /// The entry.
        entry: String,
        /// What its bytes hash to.
        found: Digest,
        /// What it is named.
        wanted: Digest,
    },
    /// A blob's size differs from its descriptor's.
    #[error("{entry} has {found_bytes} bytes; its descriptor says {wanted_bytes}: the archive is damaged")]
    WrongSize {
        /// The entry.
        entry: String,
        /// Its size in the archive.
        found_bytes: u64,
        /// The descriptor's.
        wanted_bytes: u64,
    },
    /// As many layers as diff IDs are wanted.
    #[error("image {config} has {layers} layers and {diff_ids} diff IDs; wanted as many of each")]
    LayerCount {
        /// The config's name.
        config: String,
        /// Layers that the manifest names.
        layers: usize,
        /// Diff IDs that the config lists.
        diff_ids: usize,
    },
    /// What ECR's manifest validator is known to refuse.
    #[error("ECR refuses {image}: {why}")]
    EcrRefuses {
        /// A name or digest.
        image: String,
        /// The rule and the remedy.
        why: String,
    },
    /// The bytes could not be read.
    #[error("the upload could not be read")]
    Object(#[from] ObjectError),
}

impl From<DecodeError> for ArchiveError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Object(error) => Self::Object(error),
            error @ (DecodeError::CutOff { .. }
            | DecodeError::Damaged { .. }
            | DecodeError::Window { .. }
            | DecodeError::Expands { .. }
            | DecodeError::Thread) => Self::Decode(error),
        }
    }
}

fn after(previous: Option<&str>) -> String {
    previous.map(|entry| format!(", after {entry:?}")).unwrap_or_default()
}

fn around(within: Option<Codec>) -> String {
    within.map(|codec| format!("compressed with {codec} and inside ")).unwrap_or_default()
}

/// Whole seconds, rounded up.
fn seconds(codec: Codec, bytes: u64) -> u64 {
    bytes.div_ceil(codec.megabytes_a_second().saturating_mul(1_000_000).max(1))
}

/// Whole seconds that a delivery needs for so many bytes, rounded up.
fn moving_seconds(bytes: u64) -> u64 {
    bytes.div_ceil(limits::DELIVERY_BYTES_A_SECOND)
}

fn detail(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

fn looks_like(filesystem: bool) -> &'static str {
    if filesystem { "; it looks like a root filesystem, as `docker export` writes it" } else { "" }
}

impl ArchiveError {
    /// What the uploader can do.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Empty
            | Self::Truncated { .. }
            | Self::CutOff { .. }
            | Self::BadHeader { .. }
            | Self::WrongDigest { .. } => "write the tarball again and upload the whole file",
            Self::Decode(DecodeError::Window { codec: Codec::Zstd, .. }) => {
                "compress the tar again with `zstd -19` or less, without --long, and upload that"
            }
            Self::Decode(DecodeError::Window { .. }) => "compress the tar again with `xz -9` or less, and upload that",
            Self::Decode(DecodeError::Object(_) | DecodeError::Thread) | Self::Object(_) => "upload the file again",
            Self::Decode(DecodeError::CutOff { .. } | DecodeError::Damaged { .. } | DecodeError::Expands { .. }) => {
                "compress the tarball again and upload the whole file"
            }
            Self::TooSlow { .. } => {
                "upload the tar itself, of which only what ECR lacks is read, or compress it with zstd"
            }
            Self::LayerTooSlow { .. } | Self::UploadTooSlow { .. } => {
                "split the large layers, or push the image with a client that has no time limit"
            }
            Self::CompressedTwice { .. } => "decompress it once and upload that",
            Self::NotKept { .. } => "upload the tar without compression around it",
            Self::WrongSize { .. } | Self::LayerCount { .. } | Self::Missing { .. } | Self::LostManifest { .. } => {
                "save the image again with the tool that wrote the tarball, and upload that file"
            }
            Self::NotTar { .. } => "upload an image tarball, such as `docker save my-app:1.4.2 -o my-app.tar` writes",
            Self::NoImage { filesystem: true, .. } => {
                "use `docker save IMAGE`, which writes an image, instead of `docker export CONTAINER`"
            }
            Self::NoImage { .. } | Self::NamesNothing { .. } | Self::Unsupported { .. } => {
                "save the image with `docker save IMAGE:TAG`, or copy it to an `oci-archive:` with skopeo"
            }
            Self::SeveralLayouts { .. } => "upload each layout as a tarball of its own",
            Self::BadJson { .. } | Self::BadDigest { .. } => {
                "save the image again, or report the tool and its version that wrote this tarball"
            }
            Self::OverLimit { .. } => "split the archive, or build an image with fewer and smaller parts",
            Self::EcrRefuses { .. } => "build the image differently; ECR would refuse it from any client",
        }
    }
}

impl Disposed for ArchiveError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Object(object) => object.disposition(),
            Self::Decode(decode) => decode.disposition(),
            Self::Empty
            | Self::NotTar { .. }
            | Self::CompressedTwice { .. }
            | Self::TooSlow { .. }
            | Self::LayerTooSlow { .. }
            | Self::UploadTooSlow { .. }
            | Self::NotKept { .. }
            | Self::BadHeader { .. }
            | Self::Truncated { .. }
            | Self::CutOff { .. }
            | Self::OverLimit { .. }
            | Self::NoImage { .. }
            | Self::SeveralLayouts { .. }
            | Self::NamesNothing { .. }
            | Self::LostManifest { .. }
            | Self::Unsupported { .. }
            | Self::BadJson { .. }
            | Self::BadDigest { .. }
            | Self::Missing { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::LayerCount { .. }
            | Self::EcrRefuses { .. } => Disposition::Permanent,
        }
    }
}
