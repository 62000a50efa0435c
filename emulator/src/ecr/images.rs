//! Images: described, read, put, tagged and deleted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    account,
    ecr::{
        Call, Ecr, Output, epoch,
        error::ApiError,
        image_id::{ImageId, check_count, find, id_name, missing_image, not_found},
        page,
    },
    images::{Digest, Image, NewImage, Repository, image_action, is_tag},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ids {
    repository_name: String,
    image_ids: Vec<ImageId>,
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
    /// Scan results are not in it, as with the current basic scanner (`aws-facts` section 3).
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
        let limit = wanted.max_results.unwrap_or(100).clamp(1, 1000);
        let (details, next) = self.look(&name, |repository| {
            let all: Vec<Digest> = repository
                .images
                .keys()
                .filter(|digest| status.admits(!repository.tags_of(digest).is_empty()))
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
            let tagged = repository
                .tags
                .iter()
                .map(|(tag, digest)| ImageId { image_digest: Some(digest.to_string()), image_tag: Some(tag.clone()) });
            let untagged = repository
                .images
                .keys()
                .filter(|digest| repository.tags_of(digest).is_empty())
                .map(|digest| ImageId { image_digest: Some(digest.to_string()), image_tag: None });
            let mut ids: Vec<ImageId> =
                tagged.chain(untagged).filter(|id| status.admits(id.image_tag.is_some())).collect();
            ids.sort_by_key(id_name);
            ids
        })?;
        let limit = wanted.max_results.unwrap_or(100).clamp(1, 1000);
        let (ids, next) = page(ids, wanted.next_token.as_deref(), limit, id_name);
        let mut output = json!({"imageIds": ids});
        if let Some(next) = next {
            output["nextToken"] = json!(next);
        }
        Ok(output)
    }

    /// `BatchGetImage`: manifests, byte for byte.
    pub(super) fn batch_get_image(&self, call: &Call) -> Output {
        let wanted: Ids = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:BatchGetImage", &name)?;
        check_count(&wanted.image_ids)?;
        let found = self.look(&name, |repository| {
            let find = |id: ImageId| {
                let digest = find(repository, &id)?;
                Some((digest, repository.images.get(&digest)?.clone()))
            };
            let ids = wanted.image_ids.into_iter();
            ids.map(|id| (id.clone(), find(id))).collect::<Vec<_>>()
        })?;
        let mut images = Vec::new();
        let mut failures = Vec::new();
        for (id, found) in found {
            let Some((digest, image)) = found else {
                failures.push(missing_image(&id));
                continue;
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

    /// `BatchDeleteImage`: an image goes with its last tag; a child of an index stays.
    pub(super) fn batch_delete_image(&self, call: &Call) -> Output {
        let wanted: Ids = call.parse()?;
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
                Ok((ids, gone)) => {
                    if let Some((digest, image)) = gone {
                        let tag = ids.first().and_then(|id| id.image_tag.as_deref());
                        let event = image_action("DELETE", &name, &digest, tag, &image);
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

/// The ids that are gone, and the image, if it went with its last tag.
type Deleted = (Vec<ImageId>, Option<(Digest, Image)>);

fn delete(repository: &mut Repository, id: &ImageId) -> Result<Deleted, Value> {
    let digest = find(repository, id).ok_or_else(|| missing_image(id))?;
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
    let image = if gone.len() == tags.len() { repository.images.remove(&digest) } else { None };
    if image.is_some() {
        repository.past_tags.remove(&digest);
        repository.scans.remove(&digest);
    }
    let with = |image_tag| ImageId { image_digest: Some(digest.to_string()), image_tag };
    let ids = if gone.is_empty() { vec![with(None)] } else { gone.into_iter().map(|tag| with(Some(tag))).collect() };
    Ok((ids, image.map(|image| (digest, image))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecr::tests_support::{call, ecr, manifest as image};

    const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn index(child: &str) -> String {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{
                "mediaType": OCI_IMAGE,
                "digest": Digest::of(child.as_bytes()).to_string(),
                "size": child.len(),
            }],
        })
        .to_string()
    }

    fn put(ecr: &Ecr, manifest: &str, tag: Option<&str>) -> Output {
        let mut input = json!({"repositoryName": "ab", "imageManifest": manifest});
        if let Some(tag) = tag {
            input["imageTag"] = json!(tag);
        }
        ecr.put_image(&call(input))
    }

    fn with_repository(folder: &std::path::Path) -> Ecr {
        let ecr = ecr(folder);
        ecr.create_repository(&call(json!({"repositoryName": "ab"}))).unwrap();
        ecr
    }

    fn ids(ecr: &Ecr, filter: &str) -> usize {
        let listed = ecr.list_images(&call(json!({"repositoryName": "ab", "filter": {"tagStatus": filter}}))).unwrap();
        listed["imageIds"].as_array().unwrap().len()
    }

    #[test]
    fn images_are_put_retagged_described_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = with_repository(folder.path());
        let manifest = image(&ecr, "layer");
        let digest = Digest::of(manifest.as_bytes()).to_string();
        put(&ecr, &manifest, Some("1")).unwrap();
        put(&ecr, &manifest, Some("2")).unwrap();
        let again = put(&ecr, &manifest, Some("2")).unwrap_err();
        assert_eq!(again.name, "ImageAlreadyExistsException");
        assert_eq!(
            again.message,
            format!(
                "Image with digest '{digest}' and tag '2' already exists in the repository with name 'ab' in registry with id '123456789012'"
            )
        );
        let described =
            ecr.describe_images(&call(json!({"repositoryName": "ab", "imageIds": [{"imageTag": "2"}]}))).unwrap();
        let detail = &described["imageDetails"][0];
        assert_eq!(detail["imageTags"], json!(["1", "2"]));
        assert_eq!(detail["imageSizeInBytes"], 11);
        assert_eq!(detail["imageDigest"], json!(digest));
        assert!(detail["imagePushedAt"].is_f64());
        let got = ecr
            .batch_get_image(&call(json!({
                "repositoryName": "ab",
                "imageIds": [{"imageDigest": digest}, {"imageTag": "3"}],
            })))
            .unwrap();
        assert_eq!(got["images"][0]["imageManifest"], json!(manifest));
        assert_eq!(got["failures"][0]["failureCode"], "ImageNotFound");
        let missing =
            ecr.describe_images(&call(json!({"repositoryName": "ab", "imageIds": [{"imageTag": "3"}]}))).unwrap_err();
        assert_eq!(
            missing.message,
            "The image with imageId {imageDigest:'null', imageTag:'3'} does not exist within the repository with name 'ab' in the registry with id '123456789012'"
        );
        assert_eq!(ids(&ecr, "TAGGED"), 2);
        assert_eq!(ids(&ecr, "UNTAGGED"), 0);
    }

    #[test]
    fn refusals_have_ecrs_names() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = with_repository(folder.path());
        let manifest = image(&ecr, "layer");
        let other = image(&ecr, "other");
        let lost = manifest.replace(&Digest::of(b"layer").to_string(), &Digest::of(b"lost").to_string());
        let cases = [
            (lost, None, "LayersNotFoundException"),
            (index(&manifest), None, "ReferencedImagesNotFoundException"),
            ("{}".to_owned(), None, "InvalidParameterException"),
            (manifest.clone(), Some("a b"), "InvalidParameterException"),
        ];
        for (manifest, tag, expected) in cases {
            assert_eq!(put(&ecr, &manifest, tag).unwrap_err().name, expected);
        }
        ecr.put_image_tag_mutability(&call(json!({"repositoryName": "ab", "imageTagMutability": "IMMUTABLE"})))
            .unwrap();
        put(&ecr, &manifest, Some("1")).unwrap();
        let refused = put(&ecr, &other, Some("1")).unwrap_err();
        assert_eq!(refused.name, "ImageTagAlreadyExistsException");
        let same = put(&ecr, &manifest, Some("1")).unwrap_err();
        assert_eq!(same.name, "ImageAlreadyExistsException");
    }

    #[test]
    fn an_image_goes_with_its_last_tag_and_a_child_stays() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = with_repository(folder.path());
        let manifest = image(&ecr, "layer");
        put(&ecr, &manifest, Some("1")).unwrap();
        put(&ecr, &manifest, Some("2")).unwrap();
        put(&ecr, &index(&manifest), Some("i")).unwrap();
        let delete = |tag: &str| {
            ecr.batch_delete_image(&call(json!({"repositoryName": "ab", "imageIds": [{"imageTag": tag}]}))).unwrap()
        };
        assert_eq!(delete("1")["imageIds"][0]["imageTag"], "1");
        assert_eq!(ids(&ecr, "ANY"), 2);
        let refused = delete("2");
        assert_eq!(refused["failures"][0]["failureCode"], "ImageReferencedByManifestList");
        delete("i");
        delete("2");
        assert_eq!(ids(&ecr, "ANY"), 0);
        assert_eq!(delete("2")["failures"][0]["failureCode"], "ImageNotFound");
    }
}
