//! How events name a repository: by its name, or by its ARN.

use serde::{Deserialize, Deserializer, de};

use crate::image::{Digest, Repository};

/// What stands before the name in a repository's ARN (ECR user guide, "IAM resource ARNs").
const IN_ARN: &str = ":repository/";

/// Reads a repository's name from its name or its ARN: ECR's own events have the one, Inspector's the other.
pub(super) fn repository<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Repository, D::Error> {
    let text = String::deserialize(deserializer)?;
    let name = match text.split_once(IN_ARN) {
        Some((arn, name)) if arn.starts_with("arn:") => name,
        _ => &text,
    };
    name.parse().map_err(de::Error::custom)
}

/// An empty text as absent: ECR gives `""` for the tag of an image that was pushed by digest.
pub(super) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
}

/// As [`optional`], and a text that is none counts as absent: a tag that no client could pull is no reason to lose the
/// event of an image.
pub(super) fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
{
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

/// Repository and digest in the ARN of an image, as Inspector's events carry it: the digest comes after the
/// repository's ARN and a slash.
pub(super) fn in_image_arn(arn: &str) -> Option<(Repository, Digest)> {
    let (_, name) = arn.split_once(IN_ARN).filter(|(arn, _)| arn.starts_with("arn:"))?;
    let (repository, digest) = name.rsplit_once('/')?;
    Some((repository.parse().ok()?, digest.parse().ok()?))
}
