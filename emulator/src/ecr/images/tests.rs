use super::*;
use crate::ecr::tests_support::{call, ecr, ecr_and_events, manifest as image};

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
    ecr.put_image_tag_mutability(&call(json!({"repositoryName": "ab", "imageTagMutability": "IMMUTABLE"}))).unwrap();
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

#[test]
fn pages_and_filters_list_every_image_once() {
    let folder = tempfile::tempdir().unwrap();
    let ecr = with_repository(folder.path());
    for number in 0..7 {
        let tag = format!("t{number}");
        put(&ecr, &image(&ecr, &tag), (number < 5).then_some(&tag)).unwrap();
    }
    put(&ecr, &image(&ecr, "t0"), Some("again")).unwrap();
    // The field of the answer, the filter, and how many there are.
    let cases = [
        ("imageDetails", json!({}), 7),
        ("imageDetails", json!({"tagStatus": "TAGGED"}), 5),
        ("imageDetails", json!({"tagStatus": "UNTAGGED"}), 2),
        ("imageDetails", json!({"imageStatus": "ACTIVE"}), 7),
        ("imageDetails", json!({"imageStatus": "ARCHIVED"}), 0),
        ("imageIds", json!({}), 8),
        ("imageIds", json!({"tagStatus": "TAGGED"}), 6),
        ("imageIds", json!({"tagStatus": "UNTAGGED"}), 2),
    ];
    for (field, filter, want) in cases {
        let mut seen = HashSet::new();
        let mut input = json!({"repositoryName": "ab", "filter": filter, "maxResults": 3});
        loop {
            let page = match field {
                "imageDetails" => ecr.describe_images(&call(input.clone())).unwrap(),
                _ => ecr.list_images(&call(input.clone())).unwrap(),
            };
            let items = page[field].as_array().unwrap();
            assert!(items.len() <= 3, "{field} {filter}");
            seen.extend(items.iter().map(Value::to_string));
            if page["nextToken"].is_null() {
                break;
            }
            input["nextToken"] = page["nextToken"].clone();
        }
        assert_eq!(seen.len(), want, "{field} {filter}");
    }
    for wrong in [json!({"maxResults": 0}), json!({"maxResults": 1001}), json!({"filter": {"imageStatus": "GONE"}})] {
        let mut input = json!({"repositoryName": "ab"});
        input.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let refused = ecr.describe_images(&call(input)).unwrap_err();
        assert_eq!(refused.name, "InvalidParameterException", "{wrong}");
    }
}

#[test]
fn an_id_that_gives_no_image_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let ecr = with_repository(folder.path());
    let (first, second) = (image(&ecr, "layer"), image(&ecr, "other"));
    put(&ecr, &first, Some("1")).unwrap();
    put(&ecr, &second, Some("2")).unwrap();
    let digest = Digest::of(first.as_bytes()).to_string();
    let cases = [
        (json!({}), "MissingDigestAndTag"),
        (json!({"imageDigest": "sha256:1"}), "InvalidImageDigest"),
        (json!({"imageDigest": digest, "imageTag": "2"}), "ImageTagDoesNotMatchDigest"),
        (json!({"imageDigest": digest, "imageTag": "3"}), "ImageNotFound"),
        (json!({"imageTag": "3"}), "ImageNotFound"),
    ];
    for (id, want) in cases {
        let input = json!({"repositoryName": "ab", "imageIds": [id]});
        let got = ecr.batch_get_image(&call(input)).unwrap();
        assert_eq!(got["failures"][0]["failureCode"], want, "{id}");
    }
    for (accepted, images) in [(json!([]), 1), (json!([OCI_INDEX, OCI_IMAGE]), 1), (json!([OCI_INDEX]), 0)] {
        let ids = json!([{"imageDigest": digest, "imageTag": "1"}]);
        let input = json!({"repositoryName": "ab", "imageIds": ids, "acceptedMediaTypes": accepted});
        let got = ecr.batch_get_image(&call(input)).unwrap();
        assert_eq!(got["images"].as_array().unwrap().len(), images, "{accepted}");
    }
}

#[test]
fn puts_and_deletions_are_told_tag_by_tag() {
    let folder = tempfile::tempdir().unwrap();
    let (ecr, mut events) = ecr_and_events(folder.path());
    ecr.create_repository(&call(json!({"repositoryName": "ab"}))).unwrap();
    let manifest = image(&ecr, "layer");
    let digest = Digest::of(manifest.as_bytes()).to_string();
    put(&ecr, &manifest, None).unwrap();
    put(&ecr, &manifest, Some("1")).unwrap();
    put(&ecr, &manifest, Some("2")).unwrap();
    put(&ecr, &manifest, Some("2")).unwrap_err();
    let delete = |ids: Value| ecr.batch_delete_image(&call(json!({"repositoryName": "ab", "imageIds": ids}))).unwrap();
    delete(json!([{"imageTag": "1"}]));
    delete(json!([{"imageDigest": digest}]));
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let detail = &event["detail"];
        assert_eq!((&detail["image-digest"], &detail["result"]), (&json!(digest), &json!("SUCCESS")));
        told.push(format!("{} {}", detail["action-type"].as_str().unwrap(), detail["image-tag"].as_str().unwrap()));
    }
    assert_eq!(told, ["PUSH ", "PUSH 1", "PUSH 2", "DELETE 1", "DELETE 2"]);
}
