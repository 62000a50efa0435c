//! Resource tags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    ecr::{Call, Ecr, Output, error::ApiError},
    images::{Repository, repository_arn},
};

/// ECR API reference, `Tag` and `CreateRepository`.
const MAX_TAGS: usize = 50;
const MAX_KEY_CHARS: usize = 128;
const MAX_VALUE_CHARS: usize = 256;

/// A resource tag.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(rename = "resourceArn")]
    arn: String,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    tag_keys: Vec<String>,
}

impl Ecr {
    /// `TagResource`.
    pub(super) fn tag_resource(&self, call: &Call) -> Output {
        let wanted: Resource = call.parse()?;
        let name = repository_of(&wanted.arn)?;
        let tags = checked_tags(wanted.tags)?;
        let mut context = self.images.read(name, Repository::context).unwrap_or_default();
        context.extend(request_context(&tags));
        self.gate.check(&call.caller, "ecr:TagResource", &repository_arn(name), &context)?;
        let all = self.look(name, |repository| {
            let mut all = repository.resource_tags.clone();
            all.extend(tags);
            all
        })?;
        if all.len() > MAX_TAGS {
            return Err(too_many());
        }
        self.change(name, |repository| repository.resource_tags = all)?;
        Ok(json!({}))
    }

    /// `UntagResource`.
    pub(super) fn untag_resource(&self, call: &Call) -> Output {
        let wanted: Resource = call.parse()?;
        let name = repository_of(&wanted.arn)?;
        self.authorize(call, "ecr:UntagResource", name)?;
        self.change(name, |repository| {
            for key in &wanted.tag_keys {
                repository.resource_tags.remove(key);
            }
        })?;
        Ok(json!({}))
    }

    /// `ListTagsForResource`.
    pub(super) fn list_tags_for_resource(&self, call: &Call) -> Output {
        let wanted: Resource = call.parse()?;
        let name = repository_of(&wanted.arn)?;
        self.authorize(call, "ecr:ListTagsForResource", name)?;
        let tags: Vec<Tag> = self.look(name, |repository| {
            let tags = repository.resource_tags.clone();
            tags.into_iter().map(|(key, value)| Tag { key, value }).collect()
        })?;
        Ok(json!({"tags": tags}))
    }
}

/// The repository's name in its ARN.
fn repository_of(arn: &str) -> Result<&str, ApiError> {
    arn.strip_prefix(&repository_arn(""))
        .filter(|name| !name.is_empty())
        .ok_or_else(|| ApiError::invalid("resourceArn", "Invalid ARN of a repository in this registry"))
}

fn too_many() -> ApiError {
    ApiError::new("TooManyTagsException", format!("A repository can have at most {MAX_TAGS} tags"))
}

/// Tags within ECR's limits.
pub(super) fn checked_tags(tags: Vec<Tag>) -> Result<BTreeMap<String, String>, ApiError> {
    if tags.len() > MAX_TAGS {
        return Err(too_many());
    }
    let mut checked = BTreeMap::new();
    for Tag { key, value } in tags {
        let fits = (1..=MAX_KEY_CHARS).contains(&key.chars().count()) && value.chars().count() <= MAX_VALUE_CHARS;
        if !fits || key.starts_with("aws:") {
            return Err(ApiError::new("InvalidTagParameterException", format!("The tag '{key}' is not valid")));
        }
        if checked.insert(key.clone(), value).is_some() {
            return Err(ApiError::new("InvalidTagParameterException", format!("The tag key '{key}' is given twice")));
        }
    }
    Ok(checked)
}

/// The condition keys of a call that brings tags.
pub(super) fn request_context(tags: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let keys = tags.keys().map(|key| ("aws:TagKeys".to_owned(), key.clone()));
    tags.iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), value.clone())).chain(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecr::tests_support::{call, ecr};

    #[test]
    fn tags_are_added_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = ecr(folder.path());
        ecr.create_repository(&call(json!({"repositoryName": "ab", "tags": [{"Key": "a", "Value": "1"}]}))).unwrap();
        let arn = "arn:aws:ecr:us-east-1:123456789012:repository/ab";
        let tags = json!([{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}]);
        ecr.tag_resource(&call(json!({"resourceArn": arn, "tags": tags}))).unwrap();
        let listed = || ecr.list_tags_for_resource(&call(json!({"resourceArn": arn}))).unwrap();
        assert_eq!(listed()["tags"], tags);
        ecr.untag_resource(&call(json!({"resourceArn": arn, "tagKeys": ["b", "c"]}))).unwrap();
        assert_eq!(listed()["tags"], json!([{"Key": "a", "Value": "2"}]));
        let many: Vec<_> = (0..50).map(|number| json!({"Key": format!("k{number}"), "Value": ""})).collect();
        let refused = ecr.tag_resource(&call(json!({"resourceArn": arn, "tags": many}))).unwrap_err();
        assert_eq!(refused.name, "TooManyTagsException");
        let context = request_context(&BTreeMap::from([("a".to_owned(), "1".to_owned())]));
        let want = [("aws:RequestTag/a", "1"), ("aws:TagKeys", "a")];
        assert!(context.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(want));
        for arn in ["", "ab", "arn:aws:ecr:us-east-1:123456789012:repository/"] {
            let refused = ecr.list_tags_for_resource(&call(json!({"resourceArn": arn}))).unwrap_err();
            assert_eq!(refused.name, "InvalidParameterException", "{arn}");
        }
    }
}
