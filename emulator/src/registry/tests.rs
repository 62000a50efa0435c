//! The quirks of ECR's registry, through [`Registry::handle`].

use std::{collections::BTreeMap, path::Path};

use http::HeaderMap;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::{
    iam::{Role, Statement},
    images::{Digest, ImagesError, Mutability, Repository, Settings},
    wire::empty,
};

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry with the repository `team/app`, and what it announces.
struct Fixture {
    registry: Registry,
    events: UnboundedReceiver<Value>,
    password: String,
}

/// What came back.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn error(&self) -> (u16, String, String) {
        let json: Value = serde_json::from_str(&self.body).unwrap();
        let error = &json["errors"][0];
        let text = |field: &str| error[field].as_str().unwrap().to_owned();
        (self.status, text("code"), text("message"))
    }
}

impl Fixture {
    fn new(folder: &Path) -> Self {
        Self::with(folder, Gate::new(Vec::new()), &Caller::User)
    }

    fn with(folder: &Path, gate: Gate, caller: &Caller) -> Self {
        let images = Images::open(folder.to_owned(), None).unwrap();
        for name in ["team/app", "other/app"] {
            let tags = BTreeMap::from([("gantry:stack".to_owned(), name[..4].to_owned())]);
            images.create(Repository::new(name, Settings::default(), tags)).unwrap();
        }
        let password = gate.issue_password(caller);
        let (sender, events) = unbounded_channel();
        let registry = Registry::new(Arc::new(images), Arc::new(gate), sender);
        Self { registry, events, password }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Result<Got, Dropped> {
        let credential = STANDARD.encode(format!("AWS:{}", self.password));
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "registry:1")
            .header("authorization", format!("Basic {credential}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.registry.handle(request.body(body).unwrap()).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Ok(Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    async fn get(&self, method: &str, path: &str) -> Got {
        self.send(method, path, &[], empty()).await.unwrap()
    }

    /// Starts an upload and returns its path with its query.
    async fn start(&self) -> String {
        let got = self.get("POST", "/v2/team/app/blobs/uploads/").await;
        assert_eq!(got.status, 202);
        let location = got.header("location").unwrap().to_owned();
        location.strip_prefix("http://registry:1").unwrap().to_owned()
    }

    async fn patch(&self, upload: &str, range: Option<&str>, bytes: Vec<u8>) -> Got {
        let headers: Vec<_> = range.map(|range| ("content-range", range)).into_iter().collect();
        self.send("PATCH", upload, &headers, full(bytes)).await.unwrap()
    }

    async fn commit(&self, upload: &str, digest: &Digest, bytes: Vec<u8>) -> Got {
        let length = bytes.len().to_string();
        let path = format!("{upload}&digest={digest}");
        self.send("PUT", &path, &[("content-length", &length)], full(bytes)).await.unwrap()
    }

    async fn blob(&self, text: &str) -> Digest {
        let digest = Digest::of(text.as_bytes());
        let got = self.commit(&self.start().await, &digest, text.into()).await;
        assert_eq!(got.status, 201, "{got:?}");
        digest
    }

    async fn image(&self) -> String {
        let (config, layer) = (self.blob("config").await, self.blob("layer").await);
        let descriptor = |media_type: &str, digest: &Digest, size: u64| json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config, 6),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer, 5)],
        })
        .to_string()
    }

    async fn put(&self, reference: &str, manifest: &str) -> Got {
        let path = format!("/v2/team/app/manifests/{reference}");
        self.send("PUT", &path, &[("content-type", OCI_IMAGE)], full(manifest.to_owned())).await.unwrap()
    }
}

#[tokio::test]
async fn a_stranger_gets_a_plain_text_401() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path());
    assert_eq!(fixture.get("GET", "/v2/").await.status, 200);
    fixture.password.push('x');
    let got = fixture.get("GET", "/v2/").await;
    assert_eq!(got.status, 401);
    assert_eq!(got.body, "Not Authorized\n");
    assert_eq!(
        got.header("www-authenticate"),
        Some("Basic realm=\"http://registry:1/\",service=\"ecr.amazonaws.com\"")
    );
    assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn one_patch_and_an_empty_put_make_a_blob() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path());
    let upload = fixture.start().await;
    let got = fixture.patch(&upload, None, b"layer".to_vec()).await;
    assert_eq!((got.status, got.header("range")), (201, Some("0-4")));
    let digest = Digest::of(b"layer");
    let path = format!("{upload}&digest={digest}");
    let got = fixture.send("PUT", &path, &[], empty()).await.unwrap();
    assert_eq!(got.status, 201);
    let blob = format!("/v2/team/app/blobs/{digest}");
    let got = fixture.get("HEAD", &blob).await;
    assert_eq!((got.status, got.header("content-length")), (200, Some("5")));
    let got = fixture.get("GET", &blob).await;
    assert_eq!(got.status, 307);
    let location = format!("http://registry:1/_blobs/{digest}");
    assert_eq!(got.header("location"), Some(location.as_str()));
    let range = [("range", "bytes=1-2")];
    let got = fixture.send("GET", &format!("/_blobs/{digest}"), &range, empty()).await.unwrap();
    assert_eq!((got.status, got.body.as_str()), (206, "ay"));
    assert_eq!(got.header("content-range"), Some("bytes 1-2/5"));
    let got = fixture.get("HEAD", &format!("/v2/other/app/blobs/{digest}")).await;
    assert_eq!(got.status, 404, "another repository does not have it");
}

#[tokio::test]
async fn chunks_are_sequential_and_the_range_sticks_at_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path());
    let upload = fixture.start().await;
    let chunk = 5 << 20;
    let first = fixture.patch(&upload, Some("0-5242879"), vec![1; chunk]).await;
    assert_eq!((first.status, first.header("range")), (201, Some("0-5242879")));
    let second = fixture.patch(&upload, Some("bytes 5242880-5242882/*"), vec![2; 3]).await;
    assert_eq!((second.status, second.header("range")), (201, Some("0-5242879")));
    let again = fixture.patch(&upload, None, vec![1; 10]).await;
    assert_eq!(
        again.error(),
        (416, "BLOB_UPLOAD_INVALID".to_owned(), "First byte of the layer part is 0 instead of 5242883".to_owned())
    );
    let third = fixture.patch(&upload, Some("5242883-5242883"), vec![3; 1]).await;
    assert_eq!(third.status, 400, "only the last chunk may be small");
    let got = fixture.get("GET", &upload).await;
    assert_eq!(got.status, 404, "ECR tells no status of an upload");
    let bytes = [vec![1; chunk], vec![2; 3]].concat();
    let path = format!("{upload}&digest={}", Digest::of(&bytes));
    let got = fixture.send("PUT", &path, &[], empty()).await.unwrap();
    assert_eq!(got.status, 201, "{got:?}");
    assert_eq!(fixture.patch(&upload, None, vec![1]).await.error().1, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn refused_uploads() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path());
    let got = fixture.commit(&fixture.start().await, &Digest::of(b"other"), b"layer".to_vec()).await;
    assert_eq!(
        got.error(),
        (
            400,
            "BLOB_UPLOAD_INVALID".to_owned(),
            "None of the provided layer digests match the calculated layer digest".to_owned()
        )
    );
    let got = fixture.commit(&fixture.start().await, &Digest::of(b""), Vec::new()).await;
    assert_eq!((got.status, got.error().1.as_str()), (400, "BLOB_UPLOAD_INVALID"));
    let missing = fixture.send("POST", "/v2/none/blobs/uploads/", &[], empty()).await;
    assert_eq!(missing.unwrap_err(), Dropped);
    let digest = Digest::of(b"layer");
    let got = fixture.get("POST", &format!("/v2/team/app/blobs/uploads/?digest={digest}")).await;
    assert_eq!(got.status, 405);
    let got = fixture.get("GET", "/v2/none/manifests/1").await;
    assert_eq!(
        got.error(),
        (
            404,
            "NAME_UNKNOWN".to_owned(),
            "The repository with name 'none' does not exist in the registry with id '123456789012'".to_owned()
        )
    );
}

#[tokio::test]
async fn a_blob_is_mounted_only_when_enabled_and_named_by_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path());
    let digest = fixture.blob("layer").await;
    let path = format!("/v2/other/app/blobs/uploads/?mount={digest}&from=team/app");
    assert_eq!(fixture.get("POST", &path).await.status, 202);
    fixture.registry.images.set_account_setting("BLOB_MOUNTING", "ENABLED").unwrap();
    assert_eq!(fixture.get("POST", &path).await.status, 202, "no manifest names it");
    let manifest = fixture.image().await;
    assert_eq!(fixture.put("1", &manifest).await.status, 201);
    assert_eq!(fixture.get("POST", &path).await.status, 201);
    assert_eq!(fixture.get("HEAD", &format!("/v2/other/app/blobs/{digest}")).await.status, 200);
    let without = format!("/v2/other/app/blobs/uploads/?mount={digest}");
    assert_eq!(fixture.get("POST", &without).await.status, 202);
}

#[tokio::test]
async fn manifests_are_kept_byte_for_byte_and_announced_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path());
    let manifest = fixture.image().await;
    let digest = Digest::of(manifest.as_bytes()).to_string();
    let got = fixture.put("1.0", &manifest).await;
    assert_eq!((got.status, got.header("location")), (201, None));
    assert_eq!(got.header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!(fixture.put("1.0", &manifest).await.status, 201, "a mutable tag");
    let event = fixture.events.try_recv().unwrap();
    assert_eq!(event["detail"]["image-tag"], "1.0");
    assert!(fixture.events.try_recv().is_err(), "nothing changed the second time");
    for reference in ["1.0", &digest] {
        let got = fixture.get("GET", &format!("/v2/team/app/manifests/{reference}")).await;
        assert_eq!((got.body.as_str(), got.header("content-type")), (manifest.as_str(), Some(OCI_IMAGE)));
        let head = fixture.get("HEAD", &format!("/v2/team/app/manifests/{reference}")).await;
        assert_eq!(head.header("content-length"), Some(manifest.len().to_string().as_str()));
    }
    assert_eq!(fixture.put("0.9", &manifest).await.status, 201);
    let got = fixture.get("GET", "/v2/team/app/tags/list?n=1").await;
    assert_eq!(got.body, r#"{"name":"team/app","tags":["0.9"]}"#);
    assert_eq!(got.header("link"), Some("</v2/team/app/tags/list?last=0.9&n=1>; rel=\"next\""));
    for path in ["/v2/_catalog", "/v2/team/app/manifests/1.0"] {
        let method = if path.ends_with("catalog") { "GET" } else { "DELETE" };
        assert_eq!(fixture.get(method, path).await.status, 405, "{method} {path}");
    }
}

#[tokio::test]
async fn refused_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path());
    let manifest = fixture.image().await;
    let syntax = "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'";
    let lost = manifest.replace(&Digest::of(b"layer").hex(), &Digest::of(b"lost").hex());
    let other = Digest::of(b"other").to_string();
    let cases = [
        ("1", manifest.replace("v1.tar", "v1.tar; x=y"), (405, "UNSUPPORTED"), syntax),
        ("1", "{".to_owned(), (405, "UNSUPPORTED"), syntax),
        ("1", lost, (404, "MANIFEST_BLOB_UNKNOWN"), "do not exist"),
        (&other, manifest.clone(), (400, "DIGEST_INVALID"), "does not match"),
        ("a%20b", manifest.clone(), (400, "TAG_INVALID"), "not valid"),
        ("1", " ".repeat((4 << 20) + 2), (405, "UNSUPPORTED"), "4194304"),
    ];
    for (reference, body, expected, message) in cases {
        let got = fixture.put(reference, &body).await;
        let (status, code, text) = got.error();
        assert_eq!((status, code.as_str()), expected, "{text}");
        assert!(text.contains(message), "wanted {message:?} in {text:?}");
    }
    fixture
        .registry
        .images
        .update("team/app", |repository| {
            repository.settings.mutability = Mutability::ImmutableWithExclusion;
            repository.settings.exclusion_filters = vec!["latest*".to_owned()];
            Ok::<_, ImagesError>(())
        })
        .unwrap();
    for tag in ["1", "latest"] {
        assert_eq!(fixture.put(tag, &manifest).await.status, 201);
    }
    assert_eq!(fixture.put("latest", &manifest).await.status, 201);
    assert_eq!(
        fixture.put("1", &manifest).await.error(),
        (
            400,
            "TAG_INVALID".to_owned(),
            "The image tag '1' already exists in the 'team/app' repository and cannot be overwritten because the repository is immutable.".to_owned()
        )
    );
}

#[tokio::test]
async fn referrers_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path());
    let manifest = fixture.image().await;
    assert_eq!(fixture.put("1", &manifest).await.status, 201);
    let subject = Digest::of(manifest.as_bytes());
    let mut referrer: Value = serde_json::from_str(&manifest).unwrap();
    referrer["artifactType"] = json!("application/x.signature");
    referrer["subject"] = json!({"mediaType": OCI_IMAGE, "digest": subject.to_string(), "size": manifest.len()});
    let referrer = referrer.to_string();
    let got = fixture.put(&Digest::of(referrer.as_bytes()).to_string(), &referrer).await;
    assert_eq!(got.header("oci-subject"), Some(subject.to_string().as_str()));
    for (query, expected) in [("", 1), ("?artifactType=application/x.signature", 1), ("?artifactType=a/b", 0)] {
        let got = fixture.get("GET", &format!("/v2/team/app/referrers/{subject}{query}")).await;
        let index: Value = serde_json::from_str(&got.body).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_role_may_do_what_its_policy_says_of_the_repositorys_tags() {
    let folder = tempfile::tempdir().unwrap();
    let statement = json!({
        "Effect": "Allow",
        "Action": ["ecr:InitiateLayerUpload", "ecr:BatchCheckLayerAvailability"],
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:ResourceTag/gantry:stack": "team"}},
    });
    let role = Role {
        function: "F".to_owned(),
        session: "f".to_owned(),
        statements: vec![Statement::parse(&statement).unwrap()],
    };
    let fixture = Fixture::with(folder.path(), Gate::new(vec![role]), &Caller::Role("F".to_owned()));
    fixture.start().await;
    let (status, code, message) = fixture.get("POST", "/v2/other/app/blobs/uploads/").await.error();
    assert_eq!((status, code.as_str()), (403, "DENIED"));
    assert!(message.contains("is not authorized to perform: ecr:InitiateLayerUpload on resource: arn:aws:ecr:us-east-1:123456789012:repository/other/app"), "{message}");
    let (status, ..) = fixture.get("GET", "/v2/team/app/manifests/1").await.error();
    assert_eq!(status, 403);
    let calls: Vec<String> = fixture.registry.gate.calls().into_iter().map(|call| call.action).collect();
    assert_eq!(calls, ["ecr:InitiateLayerUpload", "ecr:InitiateLayerUpload", "ecr:BatchGetImage"]);
}

#[tokio::test]
async fn thousands_of_tags_come_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path());
    let digest = Digest::of(b"image");
    fixture
        .registry
        .images
        .update("team/app", |repository| {
            repository.tags = (0..2500).map(|number| (format!("t{number:04}"), digest)).collect();
            Ok::<_, ImagesError>(())
        })
        .unwrap();
    let (mut path, mut pages) = ("/v2/team/app/tags/list?n=5000".to_owned(), Vec::new());
    loop {
        let got = fixture.get("GET", &path).await;
        let body: Value = serde_json::from_str(&got.body).unwrap();
        pages.push(body["tags"].as_array().unwrap().len());
        let Some(link) = got.header("link") else { break };
        path = link.strip_prefix('<').unwrap().split_once('>').unwrap().0.to_owned();
    }
    assert_eq!(pages, [1000, 1000, 500]);
}
