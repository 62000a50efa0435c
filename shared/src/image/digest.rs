//! SHA-256 digests as values: the hash of bytes as stored, and the diff ID, which is the hash of a layer's bytes
//! uncompressed (OCI image spec, `config.md`, "Layer `DiffID`").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// The SHA-256 of some bytes, printed as `sha256:<64 hex digits>` (OCI image spec, `descriptor.md`, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Why a text is no digest that we can check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `<algorithm>:` in front.
    #[error("{found:?} is no digest: wanted sha256:<64 hex digits>")]
    NoAlgorithm {
        /// The text.
        found: String,
    },
    /// Another algorithm than SHA-256; ECR knows no other.
    #[error("digest algorithm {found:?} is not supported: wanted sha256")]
    Algorithm {
        /// The algorithm's name.
        found: String,
    },
    /// Not 64 lower-case hex digits.
    #[error("{found:?} is no sha256: wanted 64 lower-case hex digits")]
    Hex {
        /// The text after the colon.
        found: String,
    },
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first 12 hex digits, as people quote a digest.
    pub fn short(&self) -> String {
        let mut digits = self.hex();
        digits.truncate(12);
        digits
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some((algorithm, digits)) = text.split_once(':') else {
            return Err(DigestError::NoAlgorithm { found: text.to_owned() });
        };
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm { found: algorithm.to_owned() });
        }
        let refused = || DigestError::Hex { found: digits.to_owned() };
        if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        match hex::decode_to_slice(digits, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(_) => Err(refused()),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// The digest of a layer's bytes before compression; a type of its own, so that the two hashes cannot be swapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Hashes bytes as they pass and counts them.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    state: sha2::Sha256,
    bytes: u64,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_prints_as_it_parses() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Hasher::default().finish());
    }

    #[test]
    fn texts_that_are_no_digest_are_refused_with_what_was_wanted() {
        let upper = EMPTY.replace('e', "E");
        let hex = &EMPTY[7..];
        for (text, message) in [
            ("", r#""" is no digest: wanted sha256:<64 hex digits>"#.to_owned()),
            (hex, format!("{hex:?} is no digest: wanted sha256:<64 hex digits>")),
            ("md5:00", r#"digest algorithm "md5" is not supported: wanted sha256"#.to_owned()),
            ("sha256:00", r#""00" is no sha256: wanted 64 lower-case hex digits"#.to_owned()),
            (upper.as_str(), format!("{:?} is no sha256: wanted 64 lower-case hex digits", &upper[7..])),
        ] {
            let error = text.parse::<Digest>().unwrap_err();
            assert_eq!(error.to_string(), message, "{text}");
        }
    }
}
