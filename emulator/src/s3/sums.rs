//! What S3 computes over an object's bytes: the MD5 that makes the `ETag`, and one checksum.
//!
//! S3 keeps one checksum per object, CRC64NVME over the whole object when the client names none
//! (S3 User Guide, "Checking object integrity").

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use s3s::crypto::{Checksum as _, Sha1};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::disk::Absorb;

/// A checksum algorithm that S3 knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// The name in `x-amz-checksum-algorithm`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header or trailer that carries a value.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The algorithm of that name, in any case.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// How many bytes a value has.
    fn width(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// A computed checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checksum {
    /// Which one it is.
    pub algorithm: Algorithm,
    /// Base64; a composite one ends in `-` and the number of parts.
    pub value: String,
}

impl Checksum {
    fn of(algorithm: Algorithm, raw: &[u8]) -> Self {
        Self { algorithm, value: STANDARD.encode(raw) }
    }

    /// Whether this is a checksum over the parts' checksums, not over the object.
    pub(crate) fn is_composite(&self) -> bool {
        self.value.contains('-')
    }

    fn raw(&self) -> Vec<u8> {
        STANDARD.decode(&self.value).unwrap_or_default()
    }
}

/// The hashes of one body, growing as it arrives.
pub(crate) struct Sums {
    md5: Md5,
    algorithm: Algorithm,
    running: Running,
}

enum Running {
    Crc(Box<crc_fast::Digest>),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Sums {
    /// MD5 and `algorithm`, over nothing so far.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let running = match algorithm.crc() {
            Some(crc) => Running::Crc(Box::new(crc_fast::Digest::new(crc))),
            None if algorithm == Algorithm::Sha1 => Running::Sha1(Sha1::new()),
            None => Running::Sha256(Sha256::new()),
        };
        Self { md5: Md5::new(), algorithm, running }
    }

    /// The MD5 and the checksum of all bytes.
    pub(crate) fn finish(self) -> ([u8; 16], Checksum) {
        let checksum = match self.running {
            Running::Crc(digest) => of_crc(self.algorithm, digest.finalize()),
            Running::Sha1(sha1) => Checksum::of(self.algorithm, &sha1.finalize()),
            Running::Sha256(sha256) => Checksum::of(self.algorithm, &sha256.finalize()),
        };
        (self.md5.finalize().into(), checksum)
    }
}

impl Absorb for Sums {
    fn absorb(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        match &mut self.running {
            Running::Crc(digest) => digest.update(bytes),
            Running::Sha1(sha1) => sha1.update(bytes),
            Running::Sha256(sha256) => sha256.update(bytes),
        }
    }
}

fn of_crc(algorithm: Algorithm, value: u64) -> Checksum {
    let bytes = value.to_be_bytes();
    let skipped = bytes.len() - algorithm.width().min(bytes.len());
    Checksum::of(algorithm, &bytes[skipped..])
}

/// The `ETag` of an object made of parts: the MD5 of the parts' MD5s, `-`, and their number.
pub(crate) fn multipart_etag(parts: &[[u8; 16]]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    format!("{}-{}", hex::encode(md5.finalize()), parts.len())
}

/// The checksum of an object whose parts, in order, have these checksums and lengths.
///
/// SHA checksums of multipart uploads are always composite; CRCs are combined unless `composite`.
pub(crate) fn multipart_checksum(algorithm: Algorithm, composite: bool, parts: &[(Checksum, u64)]) -> Checksum {
    if let Some(crc) = algorithm.crc().filter(|_| !composite) {
        let mut combined = None;
        for (checksum, size_bytes) in parts {
            let value = checksum.raw().iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
            combined =
                Some(combined.map_or(value, |so_far| crc_fast::checksum_combine(crc, so_far, value, *size_bytes)));
        }
        return of_crc(algorithm, combined.unwrap_or_default());
    }
    let mut sums = Sums::new(algorithm);
    for (checksum, _) in parts {
        sums.absorb(&checksum.raw());
    }
    let (_, checksum) = sums.finish();
    Checksum { algorithm, value: format!("{}-{}", checksum.value, parts.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(algorithm: Algorithm, bytes: &[u8]) -> (String, Checksum) {
        let mut sums = Sums::new(algorithm);
        sums.absorb(bytes);
        let (md5, checksum) = sums.finish();
        (hex::encode(md5), checksum)
    }

    #[test]
    fn known_values() {
        // The check values of the CRC catalogue, and of FIPS 180, for "123456789".
        let cases = [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
            (Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (Algorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ];
        for (algorithm, expected) in cases {
            let (md5, checksum) = sums(algorithm, b"123456789");
            assert_eq!(md5, "25f9e794323b453885f5181f1b624d0b");
            assert_eq!(hex::encode(checksum.raw()), expected, "{algorithm:?}");
            assert_eq!(Algorithm::parse(algorithm.name()), Some(algorithm));
        }
    }

    #[test]
    fn crcs_of_parts_combine_to_the_crc_of_the_whole() {
        let whole: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts: Vec<(Checksum, u64)> =
                whole.chunks(3_333).map(|part| (sums(algorithm, part).1, part.len() as u64)).collect();
            let combined = multipart_checksum(algorithm, false, &parts);
            assert_eq!(combined, sums(algorithm, &whole).1, "{algorithm:?}");
            assert!(!combined.is_composite());
        }
    }

    #[test]
    fn composite_sums_count_their_parts() {
        let parts = [(sums(Algorithm::Sha256, b"a").1, 1), (sums(Algorithm::Sha256, b"b").1, 1)];
        let composite = multipart_checksum(Algorithm::Sha256, false, &parts);
        assert!(composite.is_composite());
        assert_eq!(composite.value, "5aAf7hTg7VxIcU8iGA8lrYNltT+XefedxKPX6Tlj+Uo=-2".to_owned(),);
        let md5s = [Md5::digest(b"a").into(), Md5::digest(b"b").into()];
        assert_eq!(multipart_etag(&md5s), "96e024ba2074fe77e8e965ba43a704be-2");
    }
}
