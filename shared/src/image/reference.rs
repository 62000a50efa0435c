//! Names that ECR accepts: repositories and tags.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Shortest repository name, in bytes (ECR API reference, `CreateRepository`).
const REPOSITORY_SHORTEST: usize = 2;
/// Longest repository name, in bytes (ECR API reference, `CreateRepository`).
const REPOSITORY_LONGEST: usize = 256;
/// Longest tag, in bytes: ECR's API takes 300, but Docker and OCI clients could not pull it (OCI distribution
/// spec, "Pulling manifests").
const TAG_LONGEST: usize = 128;

/// A repository name as ECR has them: path components of lower-case letters and digits, joined inside by `.`, `_`,
/// `__` or hyphens, and by `/`; 2 to 256 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

/// A tag: a letter, digit or `_`, then up to 127 letters, digits, `_`, `.` or `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// A name that ECR would refuse, with the nearest one that it would take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "ECR refuses the repository name {found:?}: wanted 2 to 256 of a-z, 0-9 and single . _ - between them, in \
         components separated by /{}", suggested(.suggestion.as_ref().map(Repository::as_str))
    )]
    Repository {
        /// The text.
        found: String,
        /// A valid name near it, where there is one.
        suggestion: Option<Repository>,
    },
    /// Not a tag.
    #[error(
        "ECR refuses the tag {found:?}: wanted a letter, digit or _, then up to 127 of letters, digits, . _ -{}",
        suggested(.suggestion.as_ref().map(Tag::as_str))
    )]
    Tag {
        /// The text.
        found: String,
        /// A valid tag near it, where there is one.
        suggestion: Option<Tag>,
    },
}

fn suggested(name: Option<&str>) -> String {
    name.map(|name| format!("; {name:?} would do")).unwrap_or_default()
}

impl Repository {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first path component: the folder whose uploader may give and take blobs here.
    pub fn first_folder(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// The last path component.
    pub fn last_component(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether this is `folder` itself or lies below it.
    pub fn is_at_or_below(&self, folder: &str) -> bool {
        self.0.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether `text` has the form of a repository name.
    fn is_valid(text: &str) -> bool {
        (REPOSITORY_SHORTEST..=REPOSITORY_LONGEST).contains(&text.len()) && text.split('/').all(is_component)
    }
}

/// One path component: alphanumeric runs joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well = bytes.first().copied().is_some_and(alphanumeric) && bytes.last().copied().is_some_and(alphanumeric);
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_well
        && separators
            .into_iter()
            .all(|run| run.is_empty() || matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
}

/// The nearest repository name: lower case, what is not allowed replaced by `-`.
fn repository_near(text: &str) -> Option<Repository> {
    let components = text.split('/').map(|component| {
        let mut near = String::new();
        for c in component.to_lowercase().chars() {
            match c {
                'a'..='z' | '0'..='9' => near.push(c),
                '.' | '_' if !near.ends_with(['.', '_', '-']) => near.push(c),
                _ if !near.ends_with(['.', '_', '-']) => near.push('-'),
                _ => {}
            }
        }
        near.trim_matches(['.', '_', '-']).to_owned()
    });
    let near = components.filter(|component| !component.is_empty()).collect::<Vec<_>>().join("/");
    Repository::is_valid(&near).then_some(Repository(near))
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if Self::is_valid(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Repository { found: text.to_owned(), suggestion: repository_near(text) })
        }
    }
}

impl Tag {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_valid(text: &str) -> bool {
        let follows = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        text.len() <= TAG_LONGEST
            && text.as_bytes().first().is_some_and(|first| first.is_ascii_alphanumeric() || *first == b'_')
            && text.bytes().all(follows)
    }
}

/// The nearest tag: what is not allowed replaced by `-` (so `1.4.2+build.7` becomes `1.4.2-build.7`).
fn tag_near(text: &str) -> Option<Tag> {
    let near: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' })
        .skip_while(|c| matches!(c, '.' | '-'))
        .take(TAG_LONGEST)
        .collect();
    Tag::is_valid(&near).then_some(Tag(near))
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if Self::is_valid(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Tag { found: text.to_owned(), suggestion: tag_near(text) })
        }
    }
}

/// What every validated name shares: it prints, debugs and serialises as its text.
macro_rules! name_as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name_as_text!(Repository);
name_as_text!(Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_what_ecr_takes() {
        for good in ["ab", "a1/b2", "team/my-app", "a__b", "a--b", "a.b_c/d", "0a"] {
            assert!(good.parse::<Repository>().is_ok(), "{good}");
        }
        for (bad, near) in [
            ("a", None),
            ("", None),
            ("Team/App", Some("team/app")),
            ("team//app", Some("team/app")),
            ("/team", Some("team")),
            ("team/", Some("team")),
            ("a..b", Some("a.b")),
            ("a___b", Some("a_b")),
            ("my app", Some("my-app")),
            ("-ab", Some("ab")),
            ("été/app", Some("t/app")),
            (&"a".repeat(257), None),
        ] {
            let Err(NameError::Repository { found, suggestion }) = bad.parse::<Repository>() else {
                panic!("{bad:?} was taken");
            };
            assert_eq!(found, bad);
            assert_eq!(suggestion.as_ref().map(Repository::as_str), near, "{bad:?}");
        }
    }

    #[test]
    fn tags_are_what_clients_can_pull() {
        for good in ["1.4.2", "latest", "_x", "A-b.c", &"t".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for (bad, near) in [
            ("", None),
            (".1", Some("1")),
            ("1.4.2+build.7", Some("1.4.2-build.7")),
            ("my tag", Some("my-tag")),
            (&"t".repeat(129), Some(&*"t".repeat(128))),
        ] {
            let Err(NameError::Tag { suggestion, .. }) = bad.parse::<Tag>() else { panic!("{bad:?} was taken") };
            assert_eq!(suggestion.as_ref().map(Tag::as_str), near, "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_names_what_would_do() {
        let error = "Team/App".parse::<Repository>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "ECR refuses the repository name \"Team/App\": wanted 2 to 256 of a-z, 0-9 and single . _ - between \
             them, in components separated by /; \"team/app\" would do"
        );
    }

    #[test]
    fn a_folder_holds_what_is_at_or_below_it() {
        let repository: Repository = "team/my-app".parse().unwrap();
        for (folder, holds) in [("team", true), ("team/my-app", true), ("tea", false), ("team/my", false)] {
            assert_eq!(repository.is_at_or_below(folder), holds, "{folder}");
        }
    }
}
