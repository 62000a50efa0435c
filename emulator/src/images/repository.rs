//! A repository: its settings, its images, and which blobs it has.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use crate::{account, clock, images::Digest};

/// Which tags can be moved, as `imageTagMutability` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mutability {
    /// All.
    #[default]
    Mutable,
    /// None.
    Immutable,
    /// Only those that match an exclusion filter.
    ImmutableWithExclusion,
    /// All but those that match an exclusion filter.
    MutableWithExclusion,
}

/// How the repository is encrypted, as `encryptionConfiguration` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// `AES256` or `KMS`.
    pub encryption_type: String,
    /// The ARN of the key, with `KMS`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kms_key: Option<String>,
}

impl Default for Encryption {
    fn default() -> Self {
        Self { encryption_type: "AES256".to_owned(), kms_key: None }
    }
}

/// What a repository is created with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Which tags can be moved.
    pub mutability: Mutability,
    /// Wildcards of tags that are the other way round than [`Self::mutability`] says.
    pub exclusion_filters: Vec<String>,
    /// How it is encrypted; never changes.
    pub encryption: Encryption,
    /// Whether images are scanned when they are pushed.
    pub scan_on_push: bool,
}

/// One manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The manifest's media type.
    pub media_type: String,
    /// The config's media type, or the manifest's own `artifactType`.
    pub artifact_media_type: Option<String>,
    /// The compressed size in bytes as ECR tells it: config and layers; of an index the largest child.
    pub size_bytes: u64,
    /// When it was first pushed.
    pub pushed_at: Timestamp,
    /// The config and the layers.
    pub blobs: Vec<Digest>,
    /// The manifests that an index names.
    pub children: Vec<Digest>,
    /// The manifest that this one refers to.
    pub subject: Option<Digest>,
    /// The manifest's annotations, which a referrers listing repeats.
    pub annotations: BTreeMap<String, String>,
    /// How many bytes the manifest has.
    pub manifest_bytes: u64,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Such as `team/my-app`.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// What it was created with, and what was changed since.
    pub settings: Settings,
    /// The resource tags.
    pub resource_tags: BTreeMap<String, String>,
    /// The text of the lifecycle policy.
    pub lifecycle: Option<String>,
    /// The text of the repository policy.
    pub policy: Option<String>,
    /// The blobs that it has.
    pub blobs: BTreeSet<Digest>,
    /// Its images, indexes and artifacts.
    pub images: BTreeMap<Digest, Image>,
    /// Which image each tag names.
    pub tags: BTreeMap<String, Digest>,
    /// Every tag that an image has had.
    #[serde(default)]
    pub past_tags: BTreeMap<Digest, BTreeSet<String>>,
    /// When each image was last scanned.
    #[serde(default)]
    pub scans: BTreeMap<Digest, Timestamp>,
}

impl Repository {
    /// An empty repository, created now.
    pub fn new(name: &str, settings: Settings, resource_tags: BTreeMap<String, String>) -> Self {
        Self {
            name: name.to_owned(),
            created_at: clock::now(),
            settings,
            resource_tags,
            lifecycle: None,
            policy: None,
            blobs: BTreeSet::new(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            past_tags: BTreeMap::new(),
            scans: BTreeMap::new(),
        }
    }

    /// The digest that `reference`, a tag or a digest, means here.
    pub fn resolve(&self, reference: &str) -> Option<Digest> {
        match reference.parse::<Digest>() {
            Ok(digest) => self.images.contains_key(&digest).then_some(digest),
            Err(_) => self.tags.get(reference).copied(),
        }
    }

    /// The tags of an image, in order.
    pub fn tags_of(&self, digest: &Digest) -> Vec<String> {
        self.tags.iter().filter(|(_, tagged)| *tagged == digest).map(|(tag, _)| tag.clone()).collect()
    }

    /// Whether a tag of this name, once set, can be moved.
    pub fn is_mutable(&self, tag: &str) -> bool {
        let excluded = || self.settings.exclusion_filters.iter().any(|filter| WildMatch::new(filter).matches(tag));
        match self.settings.mutability {
            Mutability::Mutable => true,
            Mutability::Immutable => false,
            Mutability::ImmutableWithExclusion => excluded(),
            Mutability::MutableWithExclusion => !excluded(),
        }
    }

    /// The ARN.
    pub fn arn(&self) -> String {
        repository_arn(&self.name)
    }

    /// The condition keys that a policy sees for a call on this repository.
    pub(crate) fn context(&self) -> Vec<(String, String)> {
        self.resource_tags
            .iter()
            .flat_map(|(key, value)| {
                ["aws", "ecr"].map(|service| (format!("{service}:ResourceTag/{key}"), value.clone()))
            })
            .collect()
    }
}

/// The ARN of the repository of that name.
pub(crate) fn repository_arn(name: &str) -> String {
    account::arn("ecr", &format!("repository/{name}"))
}

/// Whether ECR takes `name` for a repository: 2 to 256 characters of
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` components between slashes.
pub(crate) fn is_name(name: &str) -> bool {
    (2..=256).contains(&name.len()) && name.split('/').all(is_component)
}

fn is_component(component: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !is_letter(*first) || !is_letter(*last) {
        return false;
    }
    bytes
        .split(|byte| is_letter(*byte))
        .all(|between| matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-'))
}

/// Whether `tag` is a tag as registries and clients have them.
pub(crate) fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("ab", true),
            ("team/my-app", true),
            ("a.b_c__d--e/f", true),
            ("a", false),
            ("", false),
            ("Team/app", false),
            ("a..b", false),
            ("a___b", false),
            ("a._b", false),
            ("-ab", false),
            ("ab-", false),
            ("a//b", false),
            ("/ab", false),
            ("ab/", false),
            ("a b", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_name(name), expected, "{name:?}");
        }
        assert!(is_name(&"a".repeat(256)));
        assert!(!is_name(&"a".repeat(257)));
    }

    #[test]
    fn tags() {
        for (tag, expected) in
            [("1.4.2", true), ("_x-Y", true), ("", false), (".a", false), ("-a", false), ("a b", false), ("a:b", false)]
        {
            assert_eq!(is_tag(tag), expected, "{tag:?}");
        }
        assert!(is_tag(&"a".repeat(128)));
        assert!(!is_tag(&"a".repeat(129)));
    }

    #[test]
    fn mutability_and_its_exclusions() {
        let filters = vec!["latest*".to_owned(), "dev-*-x".to_owned()];
        let cases = [
            (Mutability::Mutable, "1.0", true),
            (Mutability::Immutable, "latest", false),
            (Mutability::ImmutableWithExclusion, "latest-1", true),
            (Mutability::ImmutableWithExclusion, "latest", true),
            (Mutability::ImmutableWithExclusion, "dev-1-x", true),
            (Mutability::ImmutableWithExclusion, "1.0", false),
            (Mutability::MutableWithExclusion, "latest", false),
            (Mutability::MutableWithExclusion, "1.0", true),
        ];
        for (mutability, tag, expected) in cases {
            let settings = Settings { mutability, exclusion_filters: filters.clone(), ..Settings::default() };
            let repository = Repository::new("r", settings, BTreeMap::new());
            assert_eq!(repository.is_mutable(tag), expected, "{mutability:?} {tag}");
        }
    }
}
