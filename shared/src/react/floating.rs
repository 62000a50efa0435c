//! Floating tags: `latest` and its like, which follow the highest release.
//!
//! ECR has no compare-and-swap on tags. What makes any order of events end the same is that the wanted place of a tag
//! is computed from the whole repository each time, that an image is marked released *before* its tags move, and that
//! whoever moved a tag looks again afterwards: the last one to do so sees every other.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use semver::Version;

use crate::config::Mutability;
use crate::image::{Digest, Tag};

/// Versions with which a template is tried out: one digit, several, and zeros.
const SAMPLES: [(u64, u64, u64); 3] = [(1, 2, 3), (10, 20, 30), (0, 0, 0)];

/// `latest`, `latest-{major}`, `latest-{major}.{minor}`: a literal prefix, then parts of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

/// Why a floating tag's template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It begins with a part of a version, or makes no valid tag.
    #[error(
        "{template:?} is no floating tag; wanted a literal beginning and {{major}}, {{minor}} or {{patch}}, such as latest-{{major}}"
    )]
    NotATag {
        /// The template.
        template: String,
    },
    /// New repositories would not let it move.
    #[error("{template:?} could not move: no exclusion filter of the tag mutability covers {tag}")]
    Immutable {
        /// The template.
        template: String,
        /// A tag it makes.
        tag: Tag,
    },
    /// Its filter would let releases move too.
    #[error(
        "{template:?} needs the exclusion filter {filter:?}, which would let plain releases such as {tag} move as well"
    )]
    TooWide {
        /// The template.
        template: String,
        /// The filter.
        filter: String,
        /// A release that it matches.
        tag: String,
    },
}

impl Template {
    /// Reads a template, and makes sure that repositories made with `mutability` let its tags move, and only its.
    ///
    /// # Errors
    ///
    /// [`TemplateError`]
    pub fn parse(text: &str, mutability: &Mutability) -> Result<Self, TemplateError> {
        let template = Self(text.to_owned());
        let refused = || TemplateError::NotATag { template: text.to_owned() };
        if text.starts_with('{') {
            return Err(refused());
        }
        for (major, minor, patch) in SAMPLES {
            let tag = template.tag(&Version::new(major, minor, patch)).ok_or_else(refused)?;
            match mutability {
                Mutability::Mutable => {}
                Mutability::Immutable => return Err(TemplateError::Immutable { template: text.to_owned(), tag }),
                Mutability::ImmutableExcept(filters) => {
                    let matches = |filter: &str, tag: &str| wildmatch::WildMatch::new(filter).matches(tag);
                    let covering = filters.iter().find(|filter| matches(filter, tag.as_str()));
                    let Some(filter) = covering else {
                        return Err(TemplateError::Immutable { template: text.to_owned(), tag });
                    };
                    if let Some(tag) = release_that_matches(filter) {
                        let (template, filter) = (text.to_owned(), filter.clone());
                        return Err(TemplateError::TooWide { template, filter, tag });
                    }
                }
            }
        }
        Ok(template)
    }

    /// What matches all its tags, as ECR's lifecycle policies write it: `*` for each part of a version.
    pub fn pattern(&self) -> String {
        self.0.replace("{major}", "*").replace("{minor}", "*").replace("{patch}", "*")
    }

    /// The tag for `version`; `None` when that would be no tag.
    pub(super) fn tag(&self, version: &Version) -> Option<Tag> {
        let text = self
            .0
            .replace("{major}", &version.major.to_string())
            .replace("{minor}", &version.minor.to_string())
            .replace("{patch}", &version.patch.to_string());
        text.parse().ok()
    }
}

/// A plain release that a filter of ECR's matches, where `*` stands for any characters; a filter must leave all of them
/// immutable. Walks the filter and the form of a release, `v`, digits and two dots, side by side.
fn release_that_matches(filter: &str) -> Option<String> {
    /// Where in a release `c` leads to: 0 is its beginning, 6 its last number.
    fn next(place: u8, c: char) -> Option<u8> {
        match (place, c) {
            (0, 'v') => Some(1),
            (0 | 1, '0'..='9') => Some(2),
            (2 | 4 | 6, '0'..='9') => Some(place),
            (3 | 5, '0'..='9') | (2 | 4, '.') => Some(place + 1),
            _ => None,
        }
    }
    let filter: Vec<char> = filter.chars().collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut open = std::collections::VecDeque::from([(0, 0, String::new())]);
    while let Some((at, place, text)) = open.pop_front() {
        if !seen.insert((at, place)) {
            continue;
        }
        let mut go = |at: usize, c: char| {
            open.extend(next(place, c).map(|place| (at, place, format!("{text}{c}"))));
        };
        match filter.get(at) {
            None if place == 6 => return Some(text),
            None => {}
            Some('*') => {
                for c in ['v', '1', '.'] {
                    go(at, c);
                }
                open.push_front((at + 1, place, text));
            }
            Some(c) => go(at + 1, *c),
        }
    }
    None
}

/// The release that `tag` names: semver, a leading `v` allowed; `None` for a prerelease and for anything else.
pub fn release_version(tag: &Tag) -> Option<Version> {
    let text = tag.as_str();
    let version = Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()?;
    version.pre.is_empty().then_some(version)
}

/// What a repository holds, as far as floating tags go.
#[derive(Debug)]
pub struct Tags {
    by_tag: BTreeMap<Tag, Digest>,
    /// Highest first; of `1.5.0` and `v1.5.0` the plain one first, so that whatever comes last, the same one counts.
    releases: Vec<(Version, Digest)>,
}

impl Tags {
    /// Every tag of a repository.
    pub fn new(by_tag: BTreeMap<Tag, Digest>) -> Self {
        // A digit comes before a `v` in the order of tags, and sorting keeps that order among equals.
        let mut releases: Vec<(Version, Digest)> =
            by_tag.iter().filter_map(|(tag, digest)| Some((release_version(tag)?, *digest))).collect();
        releases.sort_by(|(one, _), (other, _)| other.cmp(one));
        Self { by_tag, releases }
    }

    /// Where a tag stands.
    pub fn digest(&self, tag: &Tag) -> Option<Digest> {
        self.by_tag.get(tag).copied()
    }

    /// The floating tags that releases of `digest` make, each with the template it comes from.
    pub fn floating<'t>(&self, templates: &'t [Template], digest: Digest) -> BTreeMap<Tag, &'t Template> {
        let versions = self.releases.iter().filter(|(_, of)| *of == digest);
        versions
            .flat_map(|(version, _)| templates.iter().filter_map(|template| Some((template.tag(version)?, template))))
            .collect()
    }

    /// The floating tags of `digest`, which is released, that are nowhere or stand at a lower release. Whether we put
    /// them there for a release whose own tag is gone is left open.
    pub fn too_low(&self, templates: &[Template], digest: Digest) -> Vec<Tag> {
        let is_too_low = |(tag, template): &(Tag, &Template)| {
            let highest = self.candidates(tag, template).find(|(_, of)| *of == digest);
            highest.is_some_and(|(version, _)| self.may_move(tag, template, version, digest, None))
        };
        self.floating(templates, digest).into_iter().filter(is_too_low).map(|(tag, _)| tag).collect()
    }

    /// Images whose releases make `tag`, highest first: the first that is released should have it.
    pub fn candidates<'t>(
        &'t self,
        tag: &'t Tag,
        template: &'t Template,
    ) -> impl Iterator<Item = (&'t Version, Digest)> {
        let made = move |version: &Version| template.tag(version).as_ref() == Some(tag);
        self.releases.iter().filter(move |(version, _)| made(version)).map(|(version, digest)| (version, *digest))
    }

    /// Whether `tag` may move to `wanted`, a release of `version`: from nothing or from a lower release; never from
    /// what somebody else put there, never back. `put_for` is the release for which we put it where it stands, if we
    /// did: its own tag may have been deleted or moved since.
    pub fn may_move(
        &self,
        tag: &Tag,
        template: &Template,
        version: &Version,
        wanted: Digest,
        put_for: Option<&Version>,
    ) -> bool {
        let Some(current) = self.digest(tag) else { return true };
        if current == wanted {
            return false;
        }
        let place = |of: Digest| self.candidates(tag, template).position(|(_, digest)| digest == of);
        match place(current) {
            Some(there) => place(wanted).is_some_and(|here| here < there),
            None => put_for.is_some_and(|there| there.cmp(version) != Ordering::Greater),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn except(filters: &[&str]) -> Mutability {
        Mutability::ImmutableExcept(filters.iter().map(|&filter| filter.to_owned()).collect())
    }

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn digest(seed: u8) -> Digest {
        Digest::of(&[seed])
    }

    #[test]
    fn templates_that_could_not_move_or_would_move_too_much_are_refused() {
        for (template, mutability, refusal) in [
            ("latest", except(&["latest*"]), ""),
            ("latest-{major}.{minor}", except(&["latest*"]), ""),
            ("edge", except(&["latest*", "edge"]), ""),
            ("{major}", Mutability::Mutable, "is no floating tag"),
            ("latest-{weekday}", Mutability::Mutable, "is no floating tag"),
            ("latest {major}", Mutability::Mutable, "is no floating tag"),
            ("", Mutability::Mutable, "is no floating tag"),
            ("latest", Mutability::Immutable, "no exclusion filter of the tag mutability covers latest"),
            ("stable-{major}", except(&["latest*"]), "covers stable-1"),
            ("latest-{major}", except(&["latest-1"]), "covers latest-10"),
            ("v{major}", except(&["v*"]), "would let plain releases such as v1.1.1 move"),
            ("latest", except(&["*"]), "would let plain releases such as 1.1.1 move"),
            ("2-latest", except(&["2*"]), "would let plain releases such as 2.1.1 move"),
            ("7-latest", except(&["7*t"]), ""),
            ("v3.1-latest", except(&["v3.1*"]), "would let plain releases such as v3.1"),
        ] {
            match Template::parse(template, &mutability) {
                Ok(_) => assert_eq!(refusal, "", "{template} with {mutability:?}"),
                Err(error) => {
                    assert!(!refusal.is_empty() && error.to_string().contains(refusal), "{template}: {error}");
                }
            }
        }
    }

    #[test]
    fn releases_are_told_from_everything_else() {
        for (text, version) in [
            ("1.4.2", Some((1, 4, 2))),
            ("v1.4.2", Some((1, 4, 2))),
            ("1.4.2-rc.1", None),
            ("1.4", None),
            ("latest", None),
            ("vv1.0.0", None),
            ("sha-0123456789ab", None),
        ] {
            let wanted = version.map(|(major, minor, patch)| Version::new(major, minor, patch));
            assert_eq!(release_version(&tag(text)), wanted, "{text}");
        }
    }

    #[test]
    fn a_tag_moves_forward_only_and_never_from_somebody_else_s_place() {
        let latest = Template::parse("latest", &Mutability::Mutable).unwrap();
        let minor = Template::parse("latest-{major}.{minor}", &Mutability::Mutable).unwrap();
        let at = |place: Option<u8>| {
            let mut tags: BTreeMap<Tag, Digest> =
                [("1.4.2", 1), ("1.5.0", 2), ("2.0.0-rc.1", 3), ("mine", 4), ("1.4.1", 5)]
                    .map(|(text, seed)| (tag(text), digest(seed)))
                    .into();
            if let Some(place) = place {
                tags.insert(tag("latest"), digest(place));
            }
            Tags::new(tags)
        };
        let (low, high) = (Version::new(1, 4, 2), Version::new(1, 5, 0));
        for (place, version, wanted, put_for, moves) in [
            (None, &low, 1, None, true),
            (Some(5), &low, 1, None, true),
            (Some(1), &low, 1, None, false),
            (Some(2), &low, 1, None, false),
            (Some(1), &high, 2, None, true),
            (Some(4), &high, 2, None, false),
            (Some(3), &high, 2, None, false),
            // Its release's own tag is gone, or names another image now.
            (Some(4), &high, 2, Some(&low), true),
            (Some(4), &high, 2, Some(&high), true),
            (Some(4), &low, 1, Some(&high), false),
        ] {
            let found = at(place).may_move(&tag("latest"), &latest, version, digest(wanted), put_for);
            assert_eq!(found, moves, "{place:?} {version} {put_for:?}");
        }
        // Two spellings of one release: the plain one counts, wherever the tag stands.
        let spelt = |place: u8| {
            let tags = [("1.5.0", 2), ("v1.5.0", 6), ("latest", place)].map(|(text, seed)| (tag(text), digest(seed)));
            Tags::new(tags.into())
        };
        for (place, wanted, moves) in [(6, 2, true), (2, 6, false)] {
            assert_eq!(spelt(place).may_move(&tag("latest"), &latest, &high, digest(wanted), None), moves, "{place}");
        }
        let tags = at(None);
        let order: Vec<String> =
            tags.candidates(&tag("latest"), &latest).map(|(version, _)| version.to_string()).collect();
        assert_eq!(order, ["1.5.0", "1.4.2", "1.4.1"]);
        let order: Vec<String> =
            tags.candidates(&tag("latest-1.4"), &minor).map(|(version, _)| version.to_string()).collect();
        assert_eq!(order, ["1.4.2", "1.4.1"], "each line of releases has a tag of its own");
        let templates = [latest, minor];
        let made: Vec<Tag> = tags.floating(&templates, digest(1)).into_keys().collect();
        assert_eq!(made, [tag("latest"), tag("latest-1.4")]);
        assert!(tags.floating(&templates, digest(3)).is_empty(), "a prerelease makes none");
        assert_eq!(tags.too_low(&templates, digest(1)), made, "they are nowhere");
        let too_low = |place, seed| at(Some(place)).too_low(&templates[..1], digest(seed)).len();
        for (place, seed, found) in [(1, 2, 1), (2, 2, 0), (2, 1, 0), (5, 1, 1), (4, 2, 0), (5, 3, 0)] {
            assert_eq!(too_low(place, seed), found, "latest at {place}, seen from {seed}");
        }
    }
}
