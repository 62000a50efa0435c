//! Repositories: made as the template says, left alone when they are not ours.
//!
//! `CreateRepository` sets encryption, mutability, scanning and tags; lifecycle and access policy are calls of their
//! own, so a half-made repository is possible. Whichever import comes next sets what is missing.

use aws_sdk_ecr::Client;
use aws_sdk_ecr::types::{
    EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability,
    ImageTagMutabilityExclusionFilter, ImageTagMutabilityExclusionFilterType, Repository as Described,
    Tag as ResourceTag,
};
use aws_smithy_types::error::operation::BuildError;
use serde_json::json;
use wildmatch::WildMatch;

use crate::aws::CallError;
use crate::config::{RepositorySettings, STACK_TAG};
use crate::disposition::Disposition;
use crate::image::{Repository, Tag};
use crate::retry::Disposed;

/// The repositories of one stack.
#[derive(Debug, Clone)]
pub struct Repositories {
    client: Client,
    stack: String,
    settings: RepositorySettings,
}

/// What a repository is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its ARN.
    pub arn: String,
    /// Where clients find it: registry host and name.
    pub uri: String,
    mutability: Option<ImageTagMutability>,
    filters: Vec<String>,
    /// How an adopted repository differs from the stack's settings, in words; nothing of it is changed.
    pub differences: Vec<String>,
}

impl Settings {
    /// Whether `tag`, once set, may not be moved to another image.
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        let excluded = self.filters.iter().any(|filter| WildMatch::new(filter).matches(tag.as_str()));
        match self.mutability {
            Some(ImageTagMutability::Immutable) => true,
            Some(ImageTagMutability::ImmutableWithExclusion) => !excluded,
            Some(ImageTagMutability::MutableWithExclusion) => excluded,
            _ => false,
        }
    }
}

/// Why a repository cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// It exists, and does not carry the stack's tag.
    #[error(
        "repository {repository} exists and does not belong to this stack: wanted the resource tag \
         {STACK_TAG}={stack}, found {found:?}"
    )]
    NotOurs {
        /// The repository.
        repository: Repository,
        /// Its ARN.
        arn: String,
        /// The stack.
        stack: String,
        /// What the tag says, where there is one.
        found: Option<String>,
    },
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A request lacks something; a mistake of ours.
    #[error("a repository request could not be built")]
    Build(#[from] BuildError),
}

impl Disposed for RepositoryError {
    fn disposition(&self) -> Disposition {
        match self {
            // The operator can adopt the repository, but nothing will change by itself.
            Self::NotOurs { .. } | Self::Build(_) => Disposition::Permanent,
            Self::Call(call) => call.disposition(),
        }
    }
}

impl RepositoryError {
    /// What can be done.
    pub fn fix(&self) -> String {
        match self {
            Self::NotOurs { arn, stack, .. } => {
                format!("to adopt it: aws ecr tag-resource --resource-arn {arn} --tags Key={STACK_TAG},Value={stack}")
            }
            Self::Call(call) if call.is_denied() => {
                format!("allow {} on {} to the function's role", call.action, call.resource)
            }
            Self::Call(_) | Self::Build(_) => "it is tried again".to_owned(),
        }
    }
}

impl Repositories {
    /// The repositories of `stack`, made with `settings`.
    pub fn new(client: Client, stack: String, settings: RepositorySettings) -> Self {
        Self { client, stack, settings }
    }

    /// What `repository` is like, `None` when there is none. Two requests for one that exists.
    ///
    /// # Errors
    ///
    /// [`RepositoryError::NotOurs`] (permanent), [`RepositoryError::Call`] (transient).
    pub async fn find(&self, repository: &Repository) -> Result<Option<Settings>, RepositoryError> {
        let name = repository.as_str();
        let answer = self.client.describe_repositories().repository_names(name).send().await;
        let answer = match answer.map_err(|error| CallError::new("ecr:DescribeRepositories", name, error)) {
            Ok(answer) => answer,
            Err(call) if call.is("RepositoryNotFoundException") => return Ok(None),
            Err(call) => return Err(call.into()),
        };
        let Some(described) = answer.repositories().first() else { return Ok(None) };
        let arn = described.repository_arn().unwrap_or_default();
        let tags = self.client.list_tags_for_resource().resource_arn(arn).send().await;
        let tags = tags.map_err(|error| CallError::new("ecr:ListTagsForResource", arn, error))?;
        let ours = tags.tags().iter().find(|tag| tag.key() == STACK_TAG).map(ResourceTag::value);
        if ours != Some(self.stack.as_str()) {
            return Err(RepositoryError::NotOurs {
                repository: repository.clone(),
                arn: arn.to_owned(),
                stack: self.stack.clone(),
                found: ours.map(str::to_owned),
            });
        }
        Ok(Some(self.settings_of(described)))
    }

    /// Makes sure that `repository` exists and has its policies. Up to four requests more than [`Self::find`].
    ///
    /// # Errors
    ///
    /// As [`Self::find`]; what was made until then stays, and is completed by the next call.
    pub async fn ensure(&self, repository: &Repository) -> Result<Settings, RepositoryError> {
        let settings = match self.find(repository).await? {
            Some(settings) => settings,
            None => match self.create(repository).await? {
                Some(settings) => settings,
                // Another import was faster.
                None => self.find(repository).await?.unwrap_or_else(|| self.assumed(repository)),
            },
        };
        self.set_missing_policies(repository).await?;
        Ok(settings)
    }

    async fn create(&self, repository: &Repository) -> Result<Option<Settings>, RepositoryError> {
        let name = repository.as_str();
        let encryption = EncryptionConfiguration::builder()
            .encryption_type(self.settings.encryption.clone())
            .set_kms_key(self.settings.kms_key.clone())
            .build()?;
        let mut filters = Vec::new();
        for filter in self.settings.mutability.filters() {
            filters.push(
                ImageTagMutabilityExclusionFilter::builder()
                    .filter_type(ImageTagMutabilityExclusionFilterType::Wildcard)
                    .filter(filter)
                    .build()?,
            );
        }
        let answer = self
            .client
            .create_repository()
            .repository_name(name)
            .encryption_configuration(encryption)
            .image_tag_mutability(self.settings.mutability.as_ecr())
            .set_image_tag_mutability_exclusion_filters(Some(filters).filter(|filters| !filters.is_empty()))
            .image_scanning_configuration(
                ImageScanningConfiguration::builder().scan_on_push(self.settings.scan_on_push).build(),
            )
            .tags(ResourceTag::builder().key(STACK_TAG).value(&self.stack).build()?)
            .send()
            .await;
        match answer.map_err(|error| CallError::new("ecr:CreateRepository", name, error)) {
            Ok(answer) => {
                tracing::info!(ecr.repository = name, "created the repository");
                Ok(answer.repository().map(|described| self.settings_of(described)))
            }
            Err(call) if call.is("RepositoryAlreadyExistsException") => Ok(None),
            Err(call) => Err(call.into()),
        }
    }

    async fn set_missing_policies(&self, repository: &Repository) -> Result<(), RepositoryError> {
        let name = repository.as_str();
        let answer = self.client.get_lifecycle_policy().repository_name(name).send().await;
        match answer.map_err(|error| CallError::new("ecr:GetLifecyclePolicy", name, error)) {
            Ok(_) => {}
            Err(call) if call.is("LifecyclePolicyNotFoundException") => {
                let text = self.lifecycle_policy();
                let put = self.client.put_lifecycle_policy().repository_name(name).lifecycle_policy_text(text);
                put.send().await.map_err(|error| CallError::new("ecr:PutLifecyclePolicy", name, error))?;
            }
            Err(call) => return Err(call.into()),
        }
        if self.settings.pull_accounts.is_empty() {
            return Ok(());
        }
        let answer = self.client.get_repository_policy().repository_name(name).send().await;
        match answer.map_err(|error| CallError::new("ecr:GetRepositoryPolicy", name, error)) {
            Ok(_) => Ok(()),
            Err(call) if call.is("RepositoryPolicyNotFoundException") => {
                let text = self.access_policy();
                let put = self.client.set_repository_policy().repository_name(name).policy_text(text);
                put.send().await.map_err(|error| CallError::new("ecr:SetRepositoryPolicy", name, error))?;
                Ok(())
            }
            Err(call) => Err(call.into()),
        }
    }

    /// Expires untagged images by age; rules on tagged ones are the operator's own business.
    fn lifecycle_policy(&self) -> String {
        json!({"rules": [{
            "rulePriority": 1,
            "description": "Gantry: expire images that no tag names",
            "selection": {
                "tagStatus": "untagged",
                "countType": "sinceImagePushed",
                "countUnit": "days",
                "countNumber": self.settings.expire_untagged_days,
            },
            "action": {"type": "expire"},
        }]})
        .to_string()
    }

    /// Lets other accounts pull (ECR user guide, "Repository policy examples").
    fn access_policy(&self) -> String {
        let principals: Vec<String> =
            self.settings.pull_accounts.iter().map(|account| format!("arn:aws:iam::{account}:root")).collect();
        json!({"Version": "2012-10-17", "Statement": [{
            "Sid": "GantryPull",
            "Effect": "Allow",
            "Principal": {"AWS": principals},
            "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"],
        }]})
        .to_string()
    }

    fn settings_of(&self, described: &Described) -> Settings {
        let filters: Vec<String> = described
            .image_tag_mutability_exclusion_filters()
            .iter()
            .map(|filter| filter.filter().to_owned())
            .collect();
        let mut differences = Vec::new();
        let mut compare = |what: &str, found: String, wanted: String| {
            if found != wanted {
                differences.push(format!("{what} is {found}; the stack's setting is {wanted}"));
            }
        };
        let mutability = described.image_tag_mutability().cloned();
        let named = |mutability: Option<&ImageTagMutability>, filters: &[String]| {
            let name = mutability.map_or("unknown", ImageTagMutability::as_str);
            if filters.is_empty() { name.to_owned() } else { format!("{name} of {}", filters.join(", ")) }
        };
        compare(
            "tag mutability",
            named(mutability.as_ref(), &filters),
            named(Some(&self.settings.mutability.as_ecr()), self.settings.mutability.filters()),
        );
        let scans = described.image_scanning_configuration().is_some_and(ImageScanningConfiguration::scan_on_push);
        compare("scan on push", scans.to_string(), self.settings.scan_on_push.to_string());
        let encryption = described.encryption_configuration().map(EncryptionConfiguration::encryption_type);
        compare(
            "encryption",
            encryption.map_or("AES256", EncryptionType::as_str).to_owned(),
            self.settings.encryption.as_str().to_owned(),
        );
        Settings {
            arn: described.repository_arn().unwrap_or_default().to_owned(),
            uri: described.repository_uri().unwrap_or_default().to_owned(),
            mutability,
            filters,
            differences,
        }
    }

    /// `DescribeRepositories` may not see a repository for a moment after it was made; it was made by an import of
    /// this stack then, with these settings.
    fn assumed(&self, repository: &Repository) -> Settings {
        Settings {
            arn: String::new(),
            uri: repository.to_string(),
            mutability: Some(self.settings.mutability.as_ecr()),
            filters: self.settings.mutability.filters().to_vec(),
            differences: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_tags_may_move() {
        use ImageTagMutability::{Immutable, ImmutableWithExclusion, Mutable, MutableWithExclusion};
        for (mutability, filters, tag, immutable) in [
            (Mutable, &[][..], "1.0", false),
            (Immutable, &[], "latest", true),
            (ImmutableWithExclusion, &["latest*"], "latest", false),
            (ImmutableWithExclusion, &["latest*"], "latest-1", false),
            (ImmutableWithExclusion, &["latest*"], "1.0", true),
            (ImmutableWithExclusion, &["*-dev", "edge"], "1-dev", false),
            (MutableWithExclusion, &["v*"], "v1", true),
            (MutableWithExclusion, &["v*"], "latest", false),
        ] {
            let settings = Settings {
                arn: String::new(),
                uri: String::new(),
                mutability: Some(mutability.clone()),
                filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
                differences: vec![],
            };
            assert_eq!(settings.is_immutable(&tag.parse().unwrap()), immutable, "{mutability:?} {filters:?} {tag}");
        }
    }
}
