//! Images: described, read, put, tagged and deleted.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    account,
    ecr::{
        Call, Ecr, Output, epoch,
        error::ApiError,
        image_id::{ImageId, check_count, failure, find, id_name, not_found},
        limit, page,
    },
    images::{Digest, Image, NewImage, Repository, image_action, is_tag},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    repository_name: String,
    image_ids: Vec<ImageId>,
    #[serde(default)]
    accepted_media_types: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    repository_name: String,
    image_ids: Option<Vec<ImageId>>,
    next_token: Option<String>,
    max_results: Option<usize>,
    filter: Option<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    tag_status: Option<String>,
    image_status: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PutImage {
    repository_name: String,
    image_manifest: String,
    image_manifest_media_type: Option<String>,
    image_tag: Option<String>,
    image_digest: Option<String>,
}

impl Ecr {
    /// `DescribeImages`: those that are named, else all, in pages of at most 1,000.
    ///
    /// Scan results are not in it, as with the current basic scanner (ECR API reference, `ImageDetail`).
    pub(super) fn describe_images(&self, call: &Call) -> Output {
        let wanted: Listing = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:DescribeImages", &name)?;
        if let Some(ids) = wanted.image_ids {
            check_count(&ids)?;
            let details = self.look(&name, |repository| {
                let mut digests: Vec<Digest> = Vec::new();
                for id in &ids {
                    let digest = find(repository, id).ok_or_else(|| not_found(repository, id))?;
                    if !digests.contains(&digest) {
                        digests.push(digest);
                    }
                }
                Ok::<_, ApiError>(details(repository, &digests))
            })??;
            return Ok(json!({"imageDetails": details}));
        }
        let status = status(wanted.filter.as_ref())?;
        let limit = limit(wanted.max_results)?;
        let active = is_active(wanted.filter.as_ref())?;
        let (details, next) = self.look(&name, |repository| {
            let tagged: HashSet<&Digest> = repository.tags.values().collect();
            let all: Vec<Digest> = repository
                .images
                .keys()
                .filter(|digest| active && status.admits(tagged.contains(digest)))
                .copied()
                .collect();
            let (digests, next) = page(all, wanted.next_token.as_deref(), limit, Digest::to_string);
            (details(repository, &digests), next)
        })?;
        let mut output = json!({"imageDetails": details});
        if let Some(next) = next {
            output["nextToken"] = json!(next);
        }
        Ok(output)
    }

    /// `ListImages`: one id per tag, and one per image without a tag.
    pub(super) fn list_images(&self, call: &Call) -> Output {
        let wanted: Listing = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:ListImages", &name)?;
        let status = status(wanted.filter.as_ref())?;
        let ids = self.look(&name, |repository| {
            let with_tag: HashSet<&Digest> = repository.tags.values().collect();
            let tagged = repository
                .tags
                .iter()
                .map(|(tag, digest)| ImageId { image_digest: Some(digest.to_string()), image_tag: Some(tag.clone()) });
            let untagged = repository
                .images
                .keys()
                .filter(|digest| !with_tag.contains(digest))
                .map(|digest| ImageId { image_digest: Some(digest.to_string()), image_tag: None });
            let mut ids: Vec<ImageId> =
                tagged.chain(untagged).filter(|id| status.admits(id.image_tag.is_some())).collect();
            ids.sort_by_key(id_name);
            ids
        })?;
        let limit = limit(wanted.max_results)?;
        let (ids, next) = page(ids, wanted.next_token.as_deref(), limit, id_name);
        let mut output = json!({"imageIds": ids});
        if let Some(next) = next {
            output["nextToken"] = json!(next);
        }
        Ok(output)
    }

    /// `BatchGetImage`: manifests, byte for byte.
    ///
    /// ECR converts a manifest whose type is not accepted, or does not find it; here it is not found,
    /// so that whoever forgets a type notices.
    pub(super) fn batch_get_image(&self, call: &Call) -> Output {
        let wanted: Named = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:BatchGetImage", &name)?;
        check_count(&wanted.image_ids)?;
        let found = self.look(&name, |repository| {
            let accepted = |image: &Image| {
                wanted.accepted_media_types.is_empty() || wanted.accepted_media_types.contains(&image.media_type)
            };
            let find = |id: &ImageId| {
                let digest = find(repository, id).ok_or_else(|| failure(repository, id))?;
                let image = repository.images.get(&digest).filter(|image| accepted(image));
                Ok((digest, image.ok_or_else(|| failure(repository, id))?.clone()))
            };
            let ids = wanted.image_ids.iter();
            ids.map(|id| (id.clone(), find(id))).collect::<Vec<(ImageId, Result<_, Value>)>>()
        })?;
        let mut images = Vec::new();
        let mut failures = Vec::new();
        for (id, found) in found {
            let (digest, image) = match found {
                Ok(found) => found,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            let manifest = self.images.manifest_bytes(&digest)?;
            let id = ImageId { image_digest: Some(digest.to_string()), image_tag: id.image_tag };
            images.push(described(&name, &id, &manifest, &image.media_type));
        }
        Ok(json!({"images": images, "failures": failures}))
    }

    /// `PutImage`: a manifest whose layers are here, or another tag for one that is.
    pub(super) fn put_image(&self, call: &Call) -> Output {
        let wanted: PutImage = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:PutImage", &name)?;
        let tag = wanted.image_tag.as_deref();
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ApiError::invalid("imageTag", "The tag is not valid"));
        }
        let expected = wanted
            .image_digest
            .as_deref()
            .map(str::parse::<Digest>)
            .transpose()
            .map_err(|error| ApiError::invalid("imageDigest", &error.to_string()))?;
        let bytes = wanted.image_manifest.as_bytes();
        let digest = Digest::of(bytes);
        let known = self.look(&name, |repository| match tag {
            Some(tag) => repository.tags.get(tag) == Some(&digest),
            None => repository.images.contains_key(&digest),
        })?;
        if known {
            let tag = tag.unwrap_or("null");
            return Err(ApiError::new(
                "ImageAlreadyExistsException",
                format!(
                    "Image with digest '{digest}' and tag '{tag}' already exists in the repository with name '{name}' in registry with id '{}'",
                    account::ID
                ),
            ));
        }
        let put = self.images.put(NewImage {
            repository: &name,
            bytes,
            media_type: wanted.image_manifest_media_type.as_deref(),
            tag,
            digest: expected,
        })?;
        for event in self.images.events_of(&name, &put, tag) {
            // Nobody listens while the stack is being stopped.
            drop(self.events.send(event));
        }
        let id = ImageId { image_digest: Some(put.digest.to_string()), image_tag: wanted.image_tag.clone() };
        let image = described(&name, &id, bytes, &put.image.media_type);
        Ok(json!({"image": image}))
    }

    /// `BatchDeleteImage`: an image goes with its last tag; a child of an index stays. Each tag that
    /// goes is told, and an image without one.
    pub(super) fn batch_delete_image(&self, call: &Call) -> Output {
        let wanted: Named = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:BatchDeleteImage", &name)?;
        check_count(&wanted.image_ids)?;
        let outcomes = self.change(&name, |repository| {
            let delete = |id| delete(repository, &id);
            wanted.image_ids.into_iter().map(delete).collect::<Vec<_>>()
        })?;
        let mut deleted = Vec::new();
        let mut failures = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok((ids, digest, image)) => {
                    for id in &ids {
                        let event = image_action("DELETE", &name, &digest, id.image_tag.as_deref(), &image);
                        // Nobody listens while the stack is being stopped.
                        drop(self.events.send(event));
                    }
                    deleted.extend(ids);
                }
                Err(failure) => failures.push(failure),
            }
        }
        Ok(json!({"imageIds": deleted, "failures": failures}))
    }
}

/// Which images a `tagStatus` filter admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Any,
    Tagged,
    Untagged,
}

impl Status {
    fn admits(self, tagged: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Tagged => tagged,
            Self::Untagged => !tagged,
        }
    }
}

fn status(filter: Option<&Filter>) -> Result<Status, ApiError> {
    match filter.and_then(|filter| filter.tag_status.as_deref()) {
        None | Some("ANY") => Ok(Status::Any),
        Some("TAGGED") => Ok(Status::Tagged),
        Some("UNTAGGED") => Ok(Status::Untagged),
        Some(_) => {
            Err(ApiError::invalid("filter.tagStatus", "Member must satisfy enum value set: [ANY, TAGGED, UNTAGGED]"))
        }
    }
}

/// Whether a filter admits images that are not archived; there are no others here.
fn is_active(filter: Option<&Filter>) -> Result<bool, ApiError> {
    match filter.and_then(|filter| filter.image_status.as_deref()) {
        None | Some("ANY" | "ACTIVE") => Ok(true),
        Some("ARCHIVED" | "ACTIVATING") => Ok(false),
        Some(_) => Err(ApiError::invalid(
            "filter.imageStatus",
            "Member must satisfy enum value set: [ANY, ACTIVE, ARCHIVED, ACTIVATING]",
        )),
    }
}

fn described(repository: &str, id: &ImageId, manifest: &[u8], media_type: &str) -> Value {
    json!({
        "registryId": account::ID,
        "repositoryName": repository,
        "imageId": id,
        "imageManifest": String::from_utf8_lossy(manifest),
        "imageManifestMediaType": media_type,
    })
}

fn details(repository: &Repository, digests: &[Digest]) -> Vec<Value> {
    let mut tags: BTreeMap<Digest, Vec<&String>> = BTreeMap::new();
    for (tag, digest) in &repository.tags {
        tags.entry(*digest).or_default().push(tag);
    }
    digests
        .iter()
        .filter_map(|digest| Some((digest, repository.images.get(digest)?)))
        .map(|(digest, image)| detail(&repository.name, digest, image, tags.get(digest)))
        .collect()
}

fn detail(repository: &str, digest: &Digest, image: &Image, tags: Option<&Vec<&String>>) -> Value {
    let mut detail = json!({
        "registryId": account::ID,
        "repositoryName": repository,
        "imageDigest": digest.to_string(),
        "imageSizeInBytes": image.size_bytes,
        "imagePushedAt": epoch(image.pushed_at),
        "imageManifestMediaType": image.media_type,
        "imageStatus": "ACTIVE",
    });
    if let Some(tags) = tags {
        detail["imageTags"] = json!(tags);
    }
    if let Some(artifact) = &image.artifact_media_type {
        detail["artifactMediaType"] = json!(artifact);
    }
    if let Some(subject) = &image.subject {
        detail["subjectManifestDigest"] = json!(subject.to_string());
    }
    detail
}

/// The ids that are gone, and whose they were.
type Deleted = (Vec<ImageId>, Digest, Image);

fn delete(repository: &mut Repository, id: &ImageId) -> Result<Deleted, Value> {
    let digest = find(repository, id).ok_or_else(|| failure(repository, id))?;
    let image = repository.images.get(&digest).cloned().ok_or_else(|| failure(repository, id))?;
    let tags = repository.tags_of(&digest);
    let gone = match &id.image_tag {
        Some(tag) => vec![tag.clone()],
        None => tags.clone(),
    };
    if gone.len() == tags.len() {
        let parent = repository.images.iter().find(|(_, image)| image.children.contains(&digest));
        if let Some((parent, _)) = parent {
            return Err(json!({
                "imageId": id,
                "failureCode": "ImageReferencedByManifestList",
                "failureReason": format!("Requested image referenced by manifest list: [{parent}]"),
            }));
        }
    }
    for tag in &gone {
        repository.tags.remove(tag);
    }
    if gone.len() == tags.len() {
        repository.images.remove(&digest);
        repository.past_tags.remove(&digest);
        repository.scans.remove(&digest);
    }
    let with = |image_tag| ImageId { image_digest: Some(digest.to_string()), image_tag };
    let ids = if gone.is_empty() { vec![with(None)] } else { gone.into_iter().map(|tag| with(Some(tag))).collect() };
    Ok((ids, digest, image))
}

#[cfg(test)]
mod tests;
