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
use serde_json::{Value, json};
use wildmatch::WildMatch;

use crate::aws::CallError;
use crate::config::{RepositorySettings, STACK_TAG};
use crate::disposition::Disposition;
use crate::image::{Repository, Tag};
use crate::limits::IMAGES_IN_A_REPOSITORY;
use crate::react::floating::Template;
use crate::retry::Disposed;

/// The repositories of one stack.
#[derive(Debug, Clone)]
pub struct Repositories {
    pub(super) client: Client,
    stack: String,
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
    scan_on_push: bool,
    encryption: Option<EncryptionType>,
}

impl Settings {
    /// Whether the repository's own setting has images scanned when they are pushed.
    pub fn scans_on_push(&self) -> bool {
        self.scan_on_push
    }

    /// How an adopted repository differs from what the stack would have made, in words; nothing of it is changed.
    pub fn differences(&self, wanted: &RepositorySettings) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, found: String, wanted: String| {
            if found != wanted {
                differences.push(format!("{what} is {found}; the stack's setting is {wanted}"));
            }
        };
        let named = |mutability: Option<&ImageTagMutability>, filters: &[String]| {
            let name = mutability.map_or("unknown", ImageTagMutability::as_str);
            if filters.is_empty() { name.to_owned() } else { format!("{name} of {}", filters.join(", ")) }
        };
        compare(
            "tag mutability",
            named(self.mutability.as_ref(), &self.filters),
            named(Some(&wanted.mutability.as_ecr()), wanted.mutability.filters()),
        );
        compare("scan on push", self.scan_on_push.to_string(), wanted.scan_on_push.to_string());
        compare(
            "encryption",
            self.encryption.as_ref().map_or("AES256", EncryptionType::as_str).to_owned(),
            wanted.encryption.as_str().to_owned(),
        );
        differences
    }

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
    /// The repositories of `stack`.
    pub fn new(client: Client, stack: String) -> Self {
        Self { client, stack }
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
        Ok(Some(Settings::of(described)))
    }

    /// Makes sure that `repository` exists, made as `wanted`, and has its policies. Up to four requests more than
    /// [`Self::find`].
    ///
    /// # Errors
    ///
    /// As [`Self::find`]; what was made until then stays, and is completed by the next call.
    pub async fn ensure(
        &self,
        repository: &Repository,
        wanted: &RepositorySettings,
    ) -> Result<Settings, RepositoryError> {
        let settings = match self.find(repository).await? {
            Some(settings) => settings,
            None => match self.create(repository, wanted).await? {
                Some(settings) => settings,
                // Another import was faster.
                None => self.find(repository).await?.unwrap_or_else(|| assumed(repository, wanted)),
            },
        };
        self.set_missing_policies(repository, wanted).await?;
        Ok(settings)
    }

    async fn create(
        &self,
        repository: &Repository,
        wanted: &RepositorySettings,
    ) -> Result<Option<Settings>, RepositoryError> {
        let name = repository.as_str();
        let encryption = EncryptionConfiguration::builder()
            .encryption_type(wanted.encryption.clone())
            .set_kms_key(wanted.kms_key.clone())
            .build()?;
        let mut filters = Vec::new();
        for filter in wanted.mutability.filters() {
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
            .image_tag_mutability(wanted.mutability.as_ecr())
            .set_image_tag_mutability_exclusion_filters(Some(filters).filter(|filters| !filters.is_empty()))
            .image_scanning_configuration(
                ImageScanningConfiguration::builder().scan_on_push(wanted.scan_on_push).build(),
            )
            .tags(ResourceTag::builder().key(STACK_TAG).value(&self.stack).build()?)
            .send()
            .await;
        match answer.map_err(|error| CallError::new("ecr:CreateRepository", name, error)) {
            Ok(answer) => {
                tracing::info!(ecr.repository = name, "created the repository");
                Ok(answer.repository().map(Settings::of))
            }
            Err(call) if call.is("RepositoryAlreadyExistsException") => Ok(None),
            Err(call) => Err(call.into()),
        }
    }

    async fn set_missing_policies(
        &self,
        repository: &Repository,
        wanted: &RepositorySettings,
    ) -> Result<(), RepositoryError> {
        let name = repository.as_str();
        let answer = self.client.get_lifecycle_policy().repository_name(name).send().await;
        match answer.map_err(|error| CallError::new("ecr:GetLifecyclePolicy", name, error)) {
            Ok(_) => {}
            Err(call) if call.is("LifecyclePolicyNotFoundException") => {
                let text = lifecycle_policy(wanted);
                let put = self.client.put_lifecycle_policy().repository_name(name).lifecycle_policy_text(text);
                put.send().await.map_err(|error| CallError::new("ecr:PutLifecyclePolicy", name, error))?;
            }
            Err(call) => return Err(call.into()),
        }
        if wanted.pull_accounts.is_empty() {
            return Ok(());
        }
        let answer = self.client.get_repository_policy().repository_name(name).send().await;
        match answer.map_err(|error| CallError::new("ecr:GetRepositoryPolicy", name, error)) {
            Ok(_) => Ok(()),
            Err(call) if call.is("RepositoryPolicyNotFoundException") => {
                let text = access_policy(wanted);
                let put = self.client.set_repository_policy().repository_name(name).policy_text(text);
                put.send().await.map_err(|error| CallError::new("ecr:SetRepositoryPolicy", name, error))?;
                Ok(())
            }
            Err(call) => Err(call.into()),
        }
    }
}

/// Expires untagged images by age, and tagged ones by number only where the operator says so.
///
/// An image that a rule selects by its tags is never expired by a later rule (ECR user guide, "How lifecycle policies
/// work"). So what a floating tag names is selected first, by a rule that never has enough of it.
fn lifecycle_policy(wanted: &RepositorySettings) -> String {
    let rule = |priority: u32, description: &str, mut selection: Value, most: u32| {
        selection["countNumber"] = most.into();
        let action = json!({"type": "expire"});
        json!({"rulePriority": priority, "description": description, "selection": selection, "action": action})
    };
    let untagged = json!({"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days"});
    let mut rules = vec![rule(1, "Gantry: expire images that no tag names", untagged, wanted.expire_untagged_days)];
    let tagged = |patterns: Vec<String>| json!({"tagStatus": "tagged", "tagPatternList": patterns, "countType": "imageCountMoreThan"});
    if let Some(most) = wanted.keep_releases {
        let floating: Vec<String> = wanted.floating.iter().map(Template::pattern).collect();
        if !floating.is_empty() {
            rules.push(rule(2, "Gantry: keep what floating tags name", tagged(floating), IMAGES_IN_A_REPOSITORY));
        }
        rules.push(rule(3, "Gantry: keep only the newest tagged images", tagged(vec!["*".to_owned()]), most));
    }
    json!({"rules": rules}).to_string()
}

/// Lets other accounts pull (ECR user guide, "Repository policy examples").
fn access_policy(wanted: &RepositorySettings) -> String {
    let principals: Vec<String> =
        wanted.pull_accounts.iter().map(|account| format!("arn:aws:iam::{account}:root")).collect();
    json!({"Version": "2012-10-17", "Statement": [{
        "Sid": "GantryPull",
        "Effect": "Allow",
        "Principal": {"AWS": principals},
        "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"],
    }]})
    .to_string()
}

impl Settings {
    fn of(described: &Described) -> Self {
        let filters = described.image_tag_mutability_exclusion_filters().iter();
        Self {
            arn: described.repository_arn().unwrap_or_default().to_owned(),
            uri: described.repository_uri().unwrap_or_default().to_owned(),
            mutability: described.image_tag_mutability().cloned(),
            filters: filters.map(|filter| filter.filter().to_owned()).collect(),
            scan_on_push: described
                .image_scanning_configuration()
                .is_some_and(ImageScanningConfiguration::scan_on_push),
            encryption: described.encryption_configuration().map(|encryption| encryption.encryption_type().clone()),
        }
    }
}

/// `DescribeRepositories` may not see a repository for a moment after it was made; it was made by an import of this
/// stack then, with these settings.
fn assumed(repository: &Repository, wanted: &RepositorySettings) -> Settings {
    Settings {
        arn: String::new(),
        uri: repository.to_string(),
        mutability: Some(wanted.mutability.as_ecr()),
        filters: wanted.mutability.filters().to_vec(),
        scan_on_push: wanted.scan_on_push,
        encryption: Some(wanted.encryption.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mutability;

    #[test]
    fn releases_expire_only_where_the_operator_says_so_and_never_what_a_floating_tag_names() {
        let mutability = Mutability::ImmutableExcept(vec!["latest*".to_owned()]);
        let floating = ["latest", "latest-{major}.{minor}"];
        let mut wanted = RepositorySettings {
            encryption: EncryptionType::Aes256,
            kms_key: None,
            scan_on_push: true,
            floating: floating.map(|text| Template::parse(text, &mutability).unwrap()).to_vec(),
            mutability,
            expire_untagged_days: 14,
            keep_releases: None,
            pull_accounts: Vec::new(),
        };
        // Each rule's tags and number, in the order in which ECR follows them.
        let rules = |wanted: &RepositorySettings| -> Vec<(Value, Value)> {
            let policy: Value = serde_json::from_str(&lifecycle_policy(wanted)).unwrap();
            let rules = policy["rules"].as_array().unwrap();
            assert!(rules.is_sorted_by_key(|rule| rule["rulePriority"].as_u64()), "{policy}");
            let selections = rules.iter().map(|rule| &rule["selection"]);
            selections.map(|one| (one["tagPatternList"].clone(), one["countNumber"].clone())).collect()
        };
        let untagged = (Value::Null, json!(14));
        let named = (json!(["latest", "latest-*.*"]), json!(IMAGES_IN_A_REPOSITORY));
        let newest = (json!(["*"]), json!(30));
        assert_eq!(rules(&wanted), std::slice::from_ref(&untagged));
        wanted.keep_releases = Some(30);
        assert_eq!(rules(&wanted), [untagged.clone(), named, newest.clone()]);
        wanted.floating.clear();
        assert_eq!(rules(&wanted), [untagged, newest]);
    }

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
                scan_on_push: true,
                encryption: None,
            };
            assert_eq!(settings.is_immutable(&tag.parse().unwrap()), immutable, "{mutability:?} {filters:?} {tag}");
        }
    }
}
