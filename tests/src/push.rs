//! Pushing as another client does: `docker push` and its like, over the registry's HTTP API.

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::Pipeline;
use crate::look::digest;

/// `application/vnd.oci.image.manifest.v1+json`
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.image.config.v1+json`
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `application/vnd.oci.image.layer.v1.tar`
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Another client of the registry, with the user's credentials.
#[derive(Debug)]
pub struct Pusher {
    http: Client,
    authorization: String,
    endpoint: String,
}

impl Pusher {
    /// Logs in.
    pub async fn new(pipeline: &Pipeline) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let endpoint = pipeline.stack.endpoint().to_owned();
        let answer = local::session::ecr_client(&endpoint).get_authorization_token().send().await;
        let answer = answer.expect("there is a token");
        let token = answer.authorization_data()[0].authorization_token().expect("there is a token").to_owned();
        Self { http: Client::new(), authorization: format!("Basic {token}"), endpoint }
    }

    /// Sends a blob; gives its descriptor.
    pub async fn blob(&self, repository: &str, media_type: &str, bytes: &[u8]) -> Value {
        let start = format!("{}/v2/{repository}/blobs/uploads/", self.endpoint);
        let started = self.http.post(&start).header("authorization", &self.authorization).send().await;
        let started = started.expect("the registry answers");
        assert_eq!(started.status(), StatusCode::ACCEPTED);
        let location = started.headers()["location"].to_str().expect("a location").to_owned();
        let address = started.url().join(&location).expect("an address");
        let address = format!("{address}{}digest={}", if location.contains('?') { '&' } else { '?' }, digest(bytes));
        let put = self.http.put(address).header("authorization", &self.authorization).body(bytes.to_vec()).send().await;
        assert_eq!(put.expect("the registry answers").status(), StatusCode::CREATED);
        json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
    }

    /// Puts a manifest under a tag, or by its digest; gives its descriptor.
    pub async fn manifest(&self, repository: &str, tag: Option<&str>, manifest: &Value) -> Value {
        let bytes = manifest.to_string();
        let name = digest(bytes.as_bytes());
        let media_type = manifest["mediaType"].as_str().expect("a media type");
        let address = format!("{}/v2/{repository}/manifests/{}", self.endpoint, tag.unwrap_or(&name));
        let put =
            self.http.put(address).header("authorization", &self.authorization).header("content-type", media_type);
        let put = put.body(bytes.clone()).send().await.expect("the registry answers");
        assert_eq!(put.status(), StatusCode::CREATED, "{bytes}");
        json!({"mediaType": media_type, "digest": name, "size": bytes.len()})
    }

    /// Pushes an image of one layer; `more` is added to its manifest. Gives its descriptor.
    pub async fn image(&self, repository: &str, tag: Option<&str>, seed: u32, more: &Value) -> Value {
        let layer = local::samples::layer("app", seed, 2_000);
        let config = local::samples::Image::new("amd64", vec![layer.clone()]).config();
        let config = self.blob(repository, CONFIG, &config).await;
        let layer = self.blob(repository, LAYER, &layer).await;
        let mut manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer]});
        for (name, value) in more.as_object().into_iter().flatten() {
            manifest[name] = value.clone();
        }
        self.manifest(repository, tag, &manifest).await
    }

    /// Pushes an image whose config has these labels.
    pub async fn labelled(&self, repository: &str, tag: &str, labels: &Value) -> Value {
        let layer = local::samples::layer("app", 7, 2_000);
        let config = json!({"os": "linux", "architecture": "amd64", "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}});
        let config = self.blob(repository, CONFIG, config.to_string().as_bytes()).await;
        let layer = self.blob(repository, LAYER, &layer).await;
        let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer]});
        self.manifest(repository, Some(tag), &manifest).await
    }

    /// Pushes an index over `children`, descriptors with a platform each.
    pub async fn index(&self, repository: &str, tag: &str, children: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
        self.manifest(repository, Some(tag), &index).await
    }
}

/// `descriptor` with a platform.
pub fn on(descriptor: &Value, architecture: &str) -> Value {
    let mut child = descriptor.clone();
    child["platform"] = json!({"os": "linux", "architecture": architecture});
    child
}
