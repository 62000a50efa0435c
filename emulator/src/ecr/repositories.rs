//! Repositories and their settings.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    account,
    ecr::{
        Call, Ecr, Output, epoch,
        error::ApiError,
        limit, page,
        tags::{Tag, checked_tags, request_context},
    },
    images::{Encryption, Mutability, Repository, Settings, is_name, repository_arn},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateRepository {
    repository_name: String,
    image_tag_mutability: Option<String>,
    image_tag_mutability_exclusion_filters: Option<Vec<Filter>>,
    image_scanning_configuration: Option<Scanning>,
    encryption_configuration: Option<Encryption>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    filter_type: String,
    filter: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scanning {
    #[serde(default)]
    scan_on_push: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeRepositories {
    repository_names: Option<Vec<String>>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteRepository {
    repository_name: String,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PutImageTagMutability {
    repository_name: String,
    image_tag_mutability: String,
    image_tag_mutability_exclusion_filters: Option<Vec<Filter>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PutImageScanningConfiguration {
    repository_name: String,
    image_scanning_configuration: Scanning,
}

impl Ecr {
    /// `CreateRepository`. With tags, `ecr:TagResource` is asked for too.
    pub(super) fn create_repository(&self, call: &Call) -> Output {
        let wanted: CreateRepository = call.parse()?;
        let name = wanted.repository_name;
        let tags = checked_tags(wanted.tags)?;
        let context = request_context(&tags);
        let resource = repository_arn(&name);
        let mut actions = vec!["ecr:CreateRepository"];
        if !tags.is_empty() {
            actions.push("ecr:TagResource");
        }
        for action in actions {
            self.gate.check(&call.caller, action, &resource, &context)?;
        }
        if !is_name(&name) {
            return Err(invalid_name());
        }
        let (mutability, exclusion_filters) =
            mutability(wanted.image_tag_mutability.as_deref(), wanted.image_tag_mutability_exclusion_filters)?;
        let settings = Settings {
            mutability,
            exclusion_filters,
            encryption: encryption(wanted.encryption_configuration)?,
            scan_on_push: wanted.image_scanning_configuration.is_some_and(|scanning| scanning.scan_on_push),
        };
        let created = self.images.create(Repository::new(&name, settings, tags))?;
        Ok(json!({"repository": self.describe(&created)}))
    }

    /// `DescribeRepositories`, in pages of at most 1,000, or those that are named.
    pub(super) fn describe_repositories(&self, call: &Call) -> Output {
        let wanted: DescribeRepositories = call.parse()?;
        let Some(names) = wanted.repository_names else {
            self.authorize(call, "ecr:DescribeRepositories", "*")?;
            let limit = limit(wanted.max_results)?;
            let names = self.images.repositories();
            let (names, next) = page(names, wanted.next_token.as_deref(), limit, Clone::clone);
            let repositories: Vec<Value> =
                names.iter().filter_map(|name| self.look(name, |repository| self.describe(repository)).ok()).collect();
            let mut output = json!({"repositories": repositories});
            if let Some(next) = next {
                output["nextToken"] = json!(next);
            }
            return Ok(output);
        };
        if !(1..=100).contains(&names.len()) {
            return Err(ApiError::invalid("repositoryNames", "Member must have length between 1 and 100"));
        }
        let mut repositories = Vec::with_capacity(names.len());
        for name in &names {
            if !is_name(name) {
                return Err(invalid_name());
            }
            self.authorize(call, "ecr:DescribeRepositories", name)?;
            repositories.push(self.look(name, |repository| self.describe(repository))?);
        }
        Ok(json!({"repositories": repositories}))
    }

    /// `DeleteRepository`.
    pub(super) fn delete_repository(&self, call: &Call) -> Output {
        let wanted: DeleteRepository = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:DeleteRepository", &name)?;
        let empty = self.look(&name, |repository| repository.images.is_empty())?;
        if !empty && !wanted.force {
            return Err(ApiError::new(
                "RepositoryNotEmptyException",
                format!(
                    "The repository with name '{name}' in registry with id '{}' cannot be deleted because it still contains images",
                    account::ID
                ),
            ));
        }
        let removed = self.images.remove(&name)?;
        Ok(json!({"repository": self.describe(&removed)}))
    }

    /// `PutImageTagMutability`.
    pub(super) fn put_image_tag_mutability(&self, call: &Call) -> Output {
        let wanted: PutImageTagMutability = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:PutImageTagMutability", &name)?;
        let (mutability, filters) =
            mutability(Some(&wanted.image_tag_mutability), wanted.image_tag_mutability_exclusion_filters)?;
        let mut output = json!({
            "registryId": account::ID,
            "repositoryName": name,
            "imageTagMutability": mutability,
        });
        if !filters.is_empty() {
            output["imageTagMutabilityExclusionFilters"] = listed(&filters);
        }
        self.change(&name, |repository| {
            repository.settings.mutability = mutability;
            repository.settings.exclusion_filters = filters;
        })?;
        Ok(output)
    }

    /// `PutImageScanningConfiguration`.
    pub(super) fn put_image_scanning_configuration(&self, call: &Call) -> Output {
        let wanted: PutImageScanningConfiguration = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:PutImageScanningConfiguration", &name)?;
        let scan_on_push = wanted.image_scanning_configuration.scan_on_push;
        self.change(&name, |repository| {
            repository.settings.scan_on_push = scan_on_push;
        })?;
        Ok(json!({
            "registryId": account::ID,
            "repositoryName": name,
            "imageScanningConfiguration": {"scanOnPush": scan_on_push},
        }))
    }

    fn describe(&self, repository: &Repository) -> Value {
        let settings = &repository.settings;
        let host = self.endpoint.split_once("://").map_or(self.endpoint.as_str(), |(_, host)| host);
        let mut described = json!({
            "repositoryArn": repository.arn(),
            "registryId": account::ID,
            "repositoryName": repository.name,
            "repositoryUri": format!("{host}/{}", repository.name),
            "createdAt": epoch(repository.created_at),
            "imageTagMutability": settings.mutability,
            "imageScanningConfiguration": {"scanOnPush": settings.scan_on_push},
            "encryptionConfiguration": settings.encryption,
        });
        if !settings.exclusion_filters.is_empty() {
            described["imageTagMutabilityExclusionFilters"] = listed(&settings.exclusion_filters);
        }
        described
    }
}

fn listed(filters: &[String]) -> Value {
    filters.iter().map(|filter| json!({"filterType": "WILDCARD", "filter": filter})).collect()
}

fn invalid_name() -> ApiError {
    ApiError::invalid(
        "repositoryName",
        r"must satisfy regular expression '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*'",
    )
}

/// Mutability with its exclusion filters, which only the two `…_WITH_EXCLUSION` have: 1 to 5 of them.
fn mutability(name: Option<&str>, filters: Option<Vec<Filter>>) -> Result<(Mutability, Vec<String>), ApiError> {
    let mutability = match name {
        None | Some("MUTABLE") => Mutability::Mutable,
        Some("IMMUTABLE") => Mutability::Immutable,
        Some("IMMUTABLE_WITH_EXCLUSION") => Mutability::ImmutableWithExclusion,
        Some("MUTABLE_WITH_EXCLUSION") => Mutability::MutableWithExclusion,
        Some(_) => {
            return Err(ApiError::invalid(
                "imageTagMutability",
                "Member must satisfy enum value set: [IMMUTABLE, IMMUTABLE_WITH_EXCLUSION, MUTABLE, MUTABLE_WITH_EXCLUSION]",
            ));
        }
    };
    let filters = filters.unwrap_or_default();
    let excludes = match mutability {
        Mutability::ImmutableWithExclusion | Mutability::MutableWithExclusion => 1..=5,
        Mutability::Immutable | Mutability::Mutable => 0..=0,
    };
    if !excludes.contains(&filters.len()) {
        return Err(ApiError::invalid(
            "imageTagMutabilityExclusionFilters",
            "1 to 5 filters with IMMUTABLE_WITH_EXCLUSION or MUTABLE_WITH_EXCLUSION, none otherwise",
        ));
    }
    for filter in &filters {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'*' | b'-');
        if filter.filter_type != "WILDCARD"
            || !(1..=128).contains(&filter.filter.len())
            || !filter.filter.bytes().all(allowed)
        {
            return Err(ApiError::invalid(
                "imageTagMutabilityExclusionFilters",
                "Member must satisfy regular expression pattern: ^[0-9a-zA-Z._*-]{1,128}$",
            ));
        }
    }
    let filters = filters.into_iter().map(|filter| filter.filter).collect();
    Ok((mutability, filters))
}

fn encryption(wanted: Option<Encryption>) -> Result<Encryption, ApiError> {
    let Some(mut wanted) = wanted else {
        return Ok(Encryption::default());
    };
    match (wanted.encryption_type.as_str(), &wanted.kms_key) {
        ("AES256", None) | ("KMS", Some(_)) => {}
        // The key that AWS keeps for ECR.
        ("KMS", None) => wanted.kms_key = Some(account::arn("kms", "alias/aws/ecr")),
        ("AES256", Some(_)) => {
            return Err(ApiError::invalid("encryptionConfiguration", "kmsKey is only for the encryption type KMS"));
        }
        _ => {
            return Err(ApiError::invalid(
                "encryptionConfiguration.encryptionType",
                "Member must satisfy enum value set: [AES256, KMS]",
            ));
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecr::tests_support::{call, ecr};

    #[test]
    fn a_repository_is_created_as_asked_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = ecr(folder.path());
        let input = json!({
            "repositoryName": "team/app",
            "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
            "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "latest*"}],
            "imageScanningConfiguration": {"scanOnPush": true},
            "encryptionConfiguration": {"encryptionType": "KMS"},
            "tags": [{"Key": "gantry:stack", "Value": "gantry"}],
        });
        let created = ecr.create_repository(&call(input.clone())).unwrap();
        let created = &created["repository"];
        assert_eq!(created["repositoryArn"], "arn:aws:ecr:us-east-1:123456789012:repository/team/app");
        assert_eq!(created["repositoryUri"], "127.0.0.1:1/team/app");
        assert_eq!(created["imageTagMutability"], "IMMUTABLE_WITH_EXCLUSION");
        assert_eq!(created["imageTagMutabilityExclusionFilters"][0]["filter"], "latest*");
        assert_eq!(created["imageScanningConfiguration"]["scanOnPush"], true);
        assert_eq!(
            created["encryptionConfiguration"],
            json!({"encryptionType": "KMS", "kmsKey": "arn:aws:kms:us-east-1:123456789012:alias/aws/ecr"})
        );
        assert!(created["createdAt"].as_f64().unwrap() > 1.7e9);
        let described = ecr.describe_repositories(&call(json!({"repositoryNames": ["team/app"]}))).unwrap();
        assert_eq!(&described["repositories"][0], created);
        let again = ecr.create_repository(&call(input)).unwrap_err();
        assert_eq!(again.name, "RepositoryAlreadyExistsException");
        assert_eq!(
            again.message,
            "The repository with name 'team/app' already exists in the registry with id '123456789012'"
        );
    }

    #[test]
    fn what_the_api_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = ecr(folder.path());
        let filter = |filter: &str| json!({"filterType": "WILDCARD", "filter": filter});
        let cases = [
            (json!({}), "SerializationException"),
            (json!({"repositoryName": "A"}), "InvalidParameterException"),
            (json!({"repositoryName": "ab", "imageTagMutability": "X"}), "InvalidParameterException"),
            (
                json!({"repositoryName": "ab", "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"}),
                "InvalidParameterException",
            ),
            (
                json!({"repositoryName": "ab", "imageTagMutability": "IMMUTABLE",
                       "imageTagMutabilityExclusionFilters": [filter("a")]}),
                "InvalidParameterException",
            ),
            (
                json!({"repositoryName": "ab", "imageTagMutability": "MUTABLE_WITH_EXCLUSION",
                       "imageTagMutabilityExclusionFilters": vec![filter("a"); 6]}),
                "InvalidParameterException",
            ),
            (
                json!({"repositoryName": "ab", "imageTagMutability": "MUTABLE_WITH_EXCLUSION",
                       "imageTagMutabilityExclusionFilters": [filter("a b")]}),
                "InvalidParameterException",
            ),
            (
                json!({"repositoryName": "ab",
                       "encryptionConfiguration": {"encryptionType": "AES256", "kmsKey": "k"}}),
                "InvalidParameterException",
            ),
            (
                json!({"repositoryName": "ab",
                       "encryptionConfiguration": {"encryptionType": "KMS_DSSE"}}),
                "InvalidParameterException",
            ),
            (
                json!({"repositoryName": "ab", "tags": vec![json!({"Key": "k", "Value": ""}); 51]}),
                "TooManyTagsException",
            ),
            (json!({"repositoryName": "ab", "tags": [{"Key": "aws:k", "Value": ""}]}), "InvalidTagParameterException"),
        ];
        for (input, expected) in cases {
            let refused = ecr.create_repository(&call(input.clone())).unwrap_err();
            assert_eq!(refused.name, expected, "{input}");
        }
        let missing = ecr.describe_repositories(&call(json!({"repositoryNames": ["ab"]}))).unwrap_err();
        assert_eq!(missing.name, "RepositoryNotFoundException");
        assert_eq!(
            missing.message,
            "The repository with name 'ab' does not exist in the registry with id '123456789012'"
        );
    }

    #[test]
    fn repositories_are_listed_changed_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = ecr(folder.path());
        for name in ["aa", "bb", "cc"] {
            ecr.create_repository(&call(json!({"repositoryName": name}))).unwrap();
        }
        let first = ecr.describe_repositories(&call(json!({"maxResults": 2}))).unwrap();
        assert_eq!(first["repositories"].as_array().unwrap().len(), 2);
        let rest = ecr.describe_repositories(&call(json!({"nextToken": first["nextToken"]}))).unwrap();
        assert_eq!(rest["repositories"][0]["repositoryName"], "cc");
        assert_eq!(rest.get("nextToken"), None);
        ecr.put_image_tag_mutability(&call(json!({"repositoryName": "aa", "imageTagMutability": "IMMUTABLE"})))
            .unwrap();
        ecr.put_image_scanning_configuration(&call(
            json!({"repositoryName": "aa", "imageScanningConfiguration": {"scanOnPush": true}}),
        ))
        .unwrap();
        let settings = ecr.images.repository("aa").unwrap().settings;
        assert_eq!(settings.mutability, Mutability::Immutable);
        assert!(settings.scan_on_push);
        ecr.delete_repository(&call(json!({"repositoryName": "aa"}))).unwrap();
        assert_eq!(ecr.images.repositories(), ["bb", "cc"]);
    }
}
