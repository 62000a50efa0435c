//! Layers: whether they are here, and where to get them.

use serde::Deserialize;
use serde_json::json;

use crate::{
    account,
    ecr::{Call, Ecr, Output, error::ApiError},
    images::Digest,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layers {
    repository_name: String,
    layer_digests: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    repository_name: String,
    layer_digest: String,
}

impl Ecr {
    /// `BatchCheckLayerAvailability`.
    pub(super) fn batch_check_layer_availability(&self, call: &Call) -> Output {
        let wanted: Layers = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:BatchCheckLayerAvailability", &name)?;
        self.look(&name, |_| ())?;
        let mut layers = Vec::new();
        let mut failures = Vec::new();
        for text in wanted.layer_digests {
            let Ok(digest) = text.parse::<Digest>() else {
                failures.push(json!({
                    "layerDigest": text,
                    "failureCode": "InvalidLayerDigest",
                    "failureReason": "Invalid layer digest",
                }));
                continue;
            };
            layers.push(match self.images.blob_size_bytes(&name, &digest) {
                Some(size_bytes) => json!({
                    "layerDigest": text,
                    "layerAvailability": "AVAILABLE",
                    "layerSize": size_bytes,
                }),
                None => json!({"layerDigest": text, "layerAvailability": "UNAVAILABLE"}),
            });
        }
        Ok(json!({"layers": layers, "failures": failures}))
    }

    /// `GetDownloadUrlForLayer`: an address on this server that needs no credential.
    pub(super) fn download_url_for_layer(&self, call: &Call) -> Output {
        let wanted: Layer = call.parse()?;
        let name = wanted.repository_name;
        self.authorize(call, "ecr:GetDownloadUrlForLayer", &name)?;
        self.look(&name, |_| ())?;
        let digest = wanted.layer_digest;
        let parsed = digest.parse::<Digest>().map_err(|error| ApiError::invalid("layerDigest", &error.to_string()))?;
        if self.images.blob_size_bytes(&name, &parsed).is_none() {
            return Err(ApiError::new(
                "LayersNotFoundException",
                format!(
                    "The layer with digest '{digest}' does not exist in the repository with name '{name}' in the registry with id '{}'",
                    account::ID
                ),
            ));
        }
        let url = format!("{}/_blobs/{digest}", self.endpoint);
        Ok(json!({"downloadUrl": url, "layerDigest": digest}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ecr::tests_support::{call, ecr},
        images::tests::blob,
    };

    #[test]
    fn layers_are_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        let ecr = ecr(folder.path());
        ecr.create_repository(&call(json!({"repositoryName": "ab"}))).unwrap();
        let digest = blob(&ecr.images, "ab", "layer").to_string();
        let lost = Digest::of(b"lost").to_string();
        let checked = ecr
            .batch_check_layer_availability(&call(json!({"repositoryName": "ab", "layerDigests": [digest, lost, "x"]})))
            .unwrap();
        assert_eq!(checked["layers"][0]["layerAvailability"], "AVAILABLE");
        assert_eq!(checked["layers"][0]["layerSize"], 5);
        assert_eq!(checked["layers"][1]["layerAvailability"], "UNAVAILABLE");
        assert_eq!(checked["failures"][0]["failureCode"], "InvalidLayerDigest");
        let url = ecr.download_url_for_layer(&call(json!({"repositoryName": "ab", "layerDigest": digest}))).unwrap();
        assert_eq!(url["downloadUrl"], json!(format!("http://127.0.0.1:1/_blobs/{digest}")));
        let missing =
            ecr.download_url_for_layer(&call(json!({"repositoryName": "ab", "layerDigest": lost}))).unwrap_err();
        assert_eq!(missing.name, "LayersNotFoundException");
    }
}
