//! The tags that we set: the commit's, and those that follow the highest release.

use std::collections::BTreeMap;

use semver::Version;

use super::ReactError;
use super::facts::{Kind, REVISION};
use super::floating::{Tags, Template};
use super::look::{Reactor, Subject};
use super::release::Standing;
use crate::ecr::RegistryError;
use crate::image::{Digest, Repository, Tag};
use crate::limits;
use crate::state::ImageRecord;

/// What a commit's tag begins with.
const COMMIT: &str = "sha-";

/// Digits of a commit in its tag.
const COMMIT_DIGITS: usize = 12;

/// The tag of a commit, `None` for what is no commit's hash.
fn commit_tag(revision: &str) -> Option<Tag> {
    let revision = revision.trim();
    let is_hash = revision.len() >= COMMIT_DIGITS && revision.bytes().all(|digit| digit.is_ascii_hexdigit());
    let digits = revision.get(..COMMIT_DIGITS).filter(|_| is_hash)?;
    format!("{COMMIT}{}", digits.to_ascii_lowercase()).parse().ok()
}

/// Whether we set `tag` ourselves, so that it is no release to tell of.
pub(super) fn is_ours(tag: &Tag, templates: &[Template], releases: &[Tag]) -> bool {
    let floats = || {
        releases
            .iter()
            .filter_map(super::floating::release_version)
            .any(|version| templates.iter().any(|template| template.tag(&version).as_ref() == Some(tag)))
    };
    tag.as_str().strip_prefix(COMMIT).and_then(commit_tag).is_some_and(|known| known == *tag) || floats()
}

impl Reactor {
    /// Sets what is missing of the image's commit tag, once it is verified, and of floating tags, once it is released.
    /// Only an image that somebody tagged gets more tags: children of an index do not.
    pub(super) async fn tagged(&self, subject: &mut Subject<'_>, standing: &Standing) -> Result<(), ReactError> {
        let is_verified = subject.record.verification.as_ref().is_some_and(|verification| verification.passed);
        let is_image = matches!(subject.kind(), Some(Kind::Image | Kind::Index));
        if !is_verified || !is_image || subject.listed.tags.is_empty() {
            return Ok(());
        }
        self.tag_commit(subject).await?;
        if matches!(standing, Standing::Released(_)) && !self.config.floating.is_empty() {
            self.float(subject).await?;
        }
        Ok(())
    }

    /// The commit that the upload, the image itself or, if the stack wants so, its label names: labels are inherited
    /// from base images, so they are not believed by default.
    fn commit(&self, subject: &Subject<'_>) -> Option<Tag> {
        let record = &subject.record;
        let facts = record.facts.as_ref()?;
        let label = facts.labels.get(REVISION).filter(|_| self.config.commit_tag_from_label);
        let named = [record.revision.as_ref(), facts.revision.as_ref(), label];
        named.into_iter().flatten().find_map(|revision| commit_tag(revision))
    }

    async fn tag_commit(&self, subject: &Subject<'_>) -> Result<(), ReactError> {
        let Some(tag) = self.commit(subject) else { return Ok(()) };
        if subject.listed.tags.contains(&tag) {
            return Ok(());
        }
        let repository = &subject.record.repository;
        // Two images of one commit: the first keeps the tag, and nothing is wrong with the second.
        if self.repositories.image(repository, None, Some(&tag)).await?.is_some() {
            return Ok(());
        }
        self.retag(repository, subject.record.digest, &tag).await
    }

    /// Puts every floating tag that this image's releases make where it belongs, until nothing is left to put.
    async fn float(&self, subject: &Subject<'_>) -> Result<(), ReactError> {
        let repository = &subject.record.repository;
        for round in 0..limits::TAGGING_ROUNDS {
            if round > 1 {
                // Others are at it, or the list does not show yet what was put.
                tokio::time::sleep(limits::BACKOFF_FIRST * u32::try_from(round).unwrap_or(1)).await;
            }
            let tags = Tags::new(self.repositories.tags(repository).await?);
            let moves = self.moves(subject, &tags).await?;
            if moves.is_empty() {
                return Ok(());
            }
            for (tag, (digest, version)) in moves {
                let put_for = |record: &mut ImageRecord| drop(record.floats.insert(tag.clone(), version.clone()));
                self.records.update(repository, digest, put_for).await?;
                self.retag(repository, digest, &tag).await?;
            }
        }
        Err(ReactError::Contended { repository: repository.clone(), rounds: limits::TAGGING_ROUNDS })
    }

    /// Which tags are to be put where, and for which release.
    async fn moves(&self, subject: &Subject<'_>, tags: &Tags) -> Result<BTreeMap<Tag, (Digest, String)>, ReactError> {
        let mut moves = BTreeMap::new();
        for (tag, template) in tags.floating(&self.config.floating, subject.record.digest) {
            if subject.settings.is_immutable(&tag) {
                tracing::warn!(ecr.repository = %subject.record.repository, ecr.tag = %tag, "immutable here, so it stays");
                continue;
            }
            let put_for = self.put_for(subject, tags, &tag).await?;
            // The highest that is released, wherever it stands now.
            let mut wanted = None;
            for (version, digest) in tags.candidates(&tag, template) {
                // Where the highest may not go, no lower one may.
                if !tags.may_move(&tag, template, version, digest, put_for.as_ref()) {
                    break;
                }
                if self.is_released(subject, digest).await? {
                    wanted = Some((digest, version.to_string()));
                    break;
                }
            }
            moves.extend(wanted.map(|wanted| (tag, wanted)));
        }
        Ok(moves)
    }

    /// The release for which we put `tag` where it stands, if we did.
    async fn put_for(&self, subject: &Subject<'_>, tags: &Tags, tag: &Tag) -> Result<Option<Version>, ReactError> {
        let Some(current) = tags.digest(tag).filter(|current| *current != subject.record.digest) else {
            return Ok(None);
        };
        let record = self.records.find(&subject.record.repository, current).await?;
        Ok(record.and_then(|record| record.floats.get(tag)?.parse().ok()))
    }

    async fn is_released(&self, subject: &Subject<'_>, digest: Digest) -> Result<bool, ReactError> {
        if digest == subject.record.digest {
            return Ok(true);
        }
        let record = self.records.find(&subject.record.repository, digest).await?;
        Ok(record.is_some_and(|record| record.released.is_some()))
    }

    /// Puts the manifest's own bytes under another tag.
    async fn retag(&self, repository: &Repository, digest: Digest, tag: &Tag) -> Result<(), ReactError> {
        match self.registry.retag(repository, digest, tag).await {
            Ok(true) => {
                tracing::info!(ecr.repository = %repository, ecr.tag = %tag, image.digest = %digest, "tagged");
                Ok(())
            }
            // Deleted in between; the next look finds another highest release.
            Ok(false) => Ok(()),
            Err(RegistryError::TagTaken { .. }) => {
                tracing::warn!(ecr.repository = %repository, ecr.tag = %tag, "the tag is taken and immutable");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mutability;

    #[test]
    fn a_commit_is_twelve_digits_of_its_hash() {
        for (revision, tag) in [
            ("0123456789abcdef0123456789abcdef01234567", Some("sha-0123456789ab")),
            (" 0123456789ABCDEF ", Some("sha-0123456789ab")),
            ("0123456789a", None),
            ("main", None),
            ("0123456789ag", None),
            ("éééééééééééé", None),
        ] {
            assert_eq!(commit_tag(revision).as_ref().map(Tag::as_str), tag, "{revision}");
        }
    }

    #[test]
    fn our_own_tags_are_no_releases_to_tell_of() {
        let templates = ["latest", "latest-{major}"].map(|text| Template::parse(text, &Mutability::Mutable).unwrap());
        let releases: Vec<Tag> = vec!["v1.4.2".parse().unwrap()];
        for (tag, ours) in [
            ("latest", true),
            ("latest-1", true),
            ("latest-2", false),
            ("sha-0123456789ab", true),
            ("sha-256", false),
            ("v1.4.2", false),
        ] {
            assert_eq!(is_ours(&tag.parse().unwrap(), &templates, &releases), ours, "{tag}");
        }
    }
}
