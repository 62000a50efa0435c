//! What a repository holds: one image with its tags, and all tags.

use std::collections::BTreeMap;

use aws_sdk_ecr::types::{
    ImageIdentifier, ListImagesFilter, RegistryScanningConfiguration, ScanFrequency, ScanType, TagStatus,
};
use jiff::Timestamp;
use wildmatch::WildMatch;

use super::{Repositories, RepositoryError, Settings};
use crate::aws::CallError;
use crate::image::{Digest, Repository, Tag};
use crate::limits;

/// Tags asked for at once: the most that ECR gives.
const PAGE: i32 = 1_000;

/// An image as ECR lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// What it is.
    pub digest: Digest,
    /// Its tags now.
    pub tags: Vec<Tag>,
    /// When it was first pushed.
    pub pushed_at: Option<Timestamp>,
}

impl Repositories {
    /// The image under a digest or a tag; `None` when it, or the repository, is gone. One request.
    ///
    /// # Errors
    ///
    /// [`RepositoryError::Call`], transient.
    pub async fn image(
        &self,
        repository: &Repository,
        digest: Option<Digest>,
        tag: Option<&Tag>,
    ) -> Result<Option<ListedImage>, RepositoryError> {
        let name = repository.as_str();
        let tag = tag.filter(|_| digest.is_none()).map(ToString::to_string);
        let id =
            ImageIdentifier::builder().set_image_digest(digest.map(|digest| digest.to_string())).set_image_tag(tag);
        let answer = self.client.describe_images().repository_name(name).image_ids(id.build()).send().await;
        let answer = match answer.map_err(|error| CallError::new("ecr:DescribeImages", name, error)) {
            Ok(answer) => answer,
            Err(call) if call.is("ImageNotFoundException") || call.is("RepositoryNotFoundException") => {
                return Ok(None);
            }
            Err(call) => return Err(call.into()),
        };
        let found = answer.image_details().iter().find_map(|image| {
            Some(ListedImage {
                digest: image.image_digest()?.parse().ok()?,
                tags: image.image_tags().iter().filter_map(|tag| tag.parse().ok()).collect(),
                pushed_at: image.image_pushed_at().and_then(|at| Timestamp::from_second(at.secs()).ok()),
            })
        });
        Ok(found)
    }

    /// Every tag of `repository` and where it stands: one request for each thousand of them.
    ///
    /// # Errors
    ///
    /// [`RepositoryError::Call`], transient.
    pub async fn tags(&self, repository: &Repository) -> Result<BTreeMap<Tag, Digest>, RepositoryError> {
        let name = repository.as_str();
        let tagged = ListImagesFilter::builder().tag_status(TagStatus::Tagged).build();
        let request = self.client.list_images().repository_name(name).filter(tagged);
        let mut pages = request.into_paginator().page_size(PAGE).send();
        let mut tags = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| CallError::new("ecr:ListImages", name, error))?;
            tags.extend(page.image_ids().iter().filter_map(|image| {
                // Tags that no client can pull are not followed.
                Some((image.image_tag()?.parse().ok()?, image.image_digest()?.parse().ok()?))
            }));
            if tags.len() > limits::TAGS {
                tracing::warn!(ecr.repository = name, tags = tags.len(), "too many tags; the rest is not looked at");
                break;
            }
        }
        Ok(tags)
    }

    /// Whether images pushed to `repository` are scanned at all, as far as the registry's settings say. One request.
    ///
    /// # Errors
    ///
    /// [`RepositoryError::Call`], transient.
    pub async fn is_scanned(&self, repository: &Repository, settings: &Settings) -> Result<bool, RepositoryError> {
        let answer = self.client.get_registry_scanning_configuration().send().await;
        let answer = answer.map_err(|error| CallError::new("ecr:GetRegistryScanningConfiguration", "*", error))?;
        Ok(answer.scanning_configuration().is_none_or(|registry| covers(registry, repository, settings)))
    }
}

/// Basic scanning covers what a rule or the repository's own setting names; Inspector only what a rule names (ECR user
/// guide, "Image scanning").
fn covers(registry: &RegistryScanningConfiguration, repository: &Repository, settings: &Settings) -> bool {
    let by_rule = registry.rules().iter().any(|rule| {
        *rule.scan_frequency() != ScanFrequency::Manual
            && rule.repository_filters().iter().any(|filter| matches(filter.filter(), repository))
    });
    by_rule || (registry.scan_type() != Some(&ScanType::Enhanced) && settings.scans_on_push())
}

/// A filter without a `*` matches wherever it occurs.
fn matches(filter: &str, repository: &Repository) -> bool {
    if filter.contains('*') {
        WildMatch::new(filter).matches(repository.as_str())
    } else {
        repository.as_str().contains(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scanning_filters_match_as_ecr_s_do() {
        let repository: Repository = "team/my-app".parse().unwrap();
        for (filter, matched) in [("*", true), ("team/*", true), ("my", true), ("app*", false), ("rival", false)] {
            assert_eq!(matches(filter, &repository), matched, "{filter}");
        }
    }
}
