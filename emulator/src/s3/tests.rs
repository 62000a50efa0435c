//! Operations as s3s calls them, after it has checked the signature.

use std::path::Path;

use futures::TryStreamExt;
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri};
use s3s::{
    S3 as _, S3Request, S3Result,
    dto::{
        CompleteMultipartUploadInput, CompletedMultipartUpload, CompletedPart, CopyObjectInput, CopySource,
        CreateMultipartUploadInput, DeleteObjectInput, GetObjectInput, HeadObjectInput, PutObjectInput,
        PutObjectTaggingInput, Range, StreamingBlob, Tag, Tagging, UploadPartInput,
    },
};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::{
    iam::{Role, Statement},
    wire::Caller,
};

struct Fixture {
    s3: Operations,
    events: UnboundedReceiver<Value>,
    caller: Caller,
}

impl Fixture {
    fn new(folder: &Path) -> Self {
        let statement = json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"});
        let role = Role {
            function: "F".to_owned(),
            session: "f".to_owned(),
            statements: vec![Statement::parse(&statement).unwrap()],
        };
        let settings = BucketSettings { name: "uploads".to_owned(), versioned: true, event_bridge: true };
        let bucket = Bucket::open(folder.to_owned(), settings).unwrap();
        let (sender, events) = unbounded_channel();
        let s3 = Operations {
            buckets: BTreeMap::from([("uploads".to_owned(), Arc::new(bucket))]),
            gate: Arc::new(Gate::new(vec![role])),
            events: sender,
        };
        Self { s3, events, caller: Caller::User }
    }

    fn request<T>(&self, input: T, headers: &[(&'static str, &str)]) -> S3Request<T> {
        let mut extensions = Extensions::new();
        extensions.insert(self.caller.clone());
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        S3Request {
            input,
            method: Method::GET,
            uri: Uri::from_static("/"),
            headers: headers.collect::<HeaderMap>(),
            extensions,
            credentials: None,
            region: None,
            service: None,
            trailing_headers: None,
        }
    }

    async fn put(&self, key: &str, text: &str, headers: &[(&'static str, &str)]) -> S3Result<String> {
        let input = PutObjectInput {
            bucket: "uploads".to_owned(),
            key: key.to_owned(),
            body: Some(body(text)),
            ..PutObjectInput::default()
        };
        let done = self.s3.put_object(self.request(input, headers)).await?;
        Ok(done.output.version_id.unwrap())
    }

    async fn get(&self, key: &str, version: Option<&str>, range: Option<&str>) -> S3Result<String> {
        let input = GetObjectInput {
            bucket: "uploads".to_owned(),
            key: key.to_owned(),
            version_id: version.map(str::to_owned),
            range: range.map(|range| Range::parse(range).unwrap()),
            ..GetObjectInput::default()
        };
        let done = self.s3.get_object(self.request(input, &[])).await?;
        let chunks: Vec<bytes::Bytes> = done.output.body.unwrap().try_collect().await.unwrap();
        Ok(String::from_utf8(chunks.concat()).unwrap())
    }

    async fn code(&self, key: &str, version: Option<&str>) -> String {
        let error = self.get(key, version, None).await.unwrap_err();
        error.code().as_str().to_owned()
    }
}

fn body(text: &str) -> StreamingBlob {
    StreamingBlob::from(s3s::Body::from(text.to_owned()))
}

#[tokio::test]
async fn an_object_is_put_announced_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path());
    let key = "in/my app+1.tar";
    let first = fixture.put(key, "hello", &[]).await.unwrap();
    let second = fixture.put(key, "world", &[]).await.unwrap();
    assert_eq!(fixture.get(key, None, None).await.unwrap(), "world");
    assert_eq!(fixture.get(key, Some(&first), Some("bytes=1-3")).await.unwrap(), "ell");
    let events = [fixture.events.try_recv().unwrap(), fixture.events.try_recv().unwrap()];
    let detail = &events[0]["detail"];
    assert_eq!(events[0]["source"], "aws.s3");
    assert_eq!(events[0]["detail-type"], "Object Created");
    assert_eq!(events[0]["resources"], json!(["arn:aws:s3:::uploads"]));
    assert_eq!(detail["bucket"]["name"], "uploads");
    assert_eq!(detail["object"]["key"], key, "verbatim");
    assert_eq!(detail["object"]["size"], 5);
    assert_eq!(detail["object"]["etag"], "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(detail["object"]["version-id"], json!(first));
    assert_eq!(detail["reason"], "PutObject");
    assert_eq!(events[1]["detail"]["object"]["version-id"], json!(second));
    let sequencer = |event: &Value| event["detail"]["object"]["sequencer"].as_str().unwrap().to_owned();
    assert!(sequencer(&events[0]) < sequencer(&events[1]));
}

#[tokio::test]
async fn bodies_are_checked_against_what_was_said_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path());
    let large = ((5_u64 << 30) + 1).to_string();
    let cases = [
        ("content-length", "5", None),
        ("content-length", "6", Some("IncompleteBody")),
        ("content-length", large.as_str(), Some("EntityTooLarge")),
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==", None),
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkw==", Some("BadDigest")),
        ("x-amz-checksum-crc32", "NhCmhg==", None),
        ("x-amz-checksum-crc32", "NhCmhQ==", Some("BadDigest")),
        ("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00=", None),
        ("x-amz-checksum-sha256", "AAAA", Some("BadDigest")),
    ];
    for (name, value, expected) in cases {
        let got = fixture.put("k", "hello", &[(name, value)]).await;
        let code = got.err().map(|error| error.code().as_str().to_owned());
        assert_eq!(code.as_deref(), expected, "{name}: {value}");
    }
    let left = std::fs::read_dir(folder.path().join("incoming")).unwrap().count();
    assert_eq!(left, 0, "refused bodies must not be left");
}

#[tokio::test]
async fn missing_keys_and_delete_markers() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path());
    let kept = fixture.put("k", "x", &[]).await.unwrap();
    let input = DeleteObjectInput { bucket: "uploads".to_owned(), key: "k".to_owned(), ..DeleteObjectInput::default() };
    let deleted = fixture.s3.delete_object(fixture.request(input, &[])).await.unwrap().output;
    let marker = deleted.version_id.unwrap();
    assert_eq!(fixture.get("k", Some(&kept), None).await.unwrap(), "x");
    let unknown = "x".repeat(32);
    for (version, expected) in
        [(None, "NoSuchKey"), (Some(marker.as_str()), "MethodNotAllowed"), (Some(unknown.as_str()), "NoSuchVersion")]
    {
        assert_eq!(fixture.code("k", version).await, expected, "{version:?}");
    }
    let input = HeadObjectInput { bucket: "uploads".to_owned(), key: "k".to_owned(), ..HeadObjectInput::default() };
    let refused = fixture.s3.head_object(fixture.request(input, &[])).await.unwrap_err();
    let answer = refused.to_http_response().unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["x-amz-delete-marker"], "true");
    // Without s3:ListBucket, nobody is told that a key is missing.
    fixture.caller = Caller::Role("F".to_owned());
    for key in ["k", "nothing"] {
        assert_eq!(fixture.code(key, None).await, "AccessDenied", "{key}");
    }
}

#[tokio::test]
async fn parts_become_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path());
    let large = "a".repeat(5 << 20);
    let (bucket, key) = (|| "uploads".to_owned(), || "k".to_owned());
    let input = CreateMultipartUploadInput { bucket: bucket(), key: key(), ..CreateMultipartUploadInput::default() };
    let begun = fixture.s3.create_multipart_upload(fixture.request(input, &[])).await.unwrap();
    let upload_id = begun.output.upload_id.unwrap();
    let mut parts = Vec::new();
    for (part_number, text) in [(2, "tail"), (1, large.as_str())] {
        let input = UploadPartInput {
            bucket: bucket(),
            key: key(),
            part_number,
            upload_id: upload_id.clone(),
            body: Some(body(text)),
            ..UploadPartInput::default()
        };
        let e_tag = fixture.s3.upload_part(fixture.request(input, &[])).await.unwrap().output.e_tag;
        parts.insert(0, CompletedPart { e_tag, part_number: Some(part_number), ..CompletedPart::default() });
    }
    let complete = || CompleteMultipartUploadInput {
        bucket: bucket(),
        key: key(),
        upload_id: upload_id.clone(),
        multipart_upload: Some(CompletedMultipartUpload { parts: Some(parts.clone()) }),
        ..CompleteMultipartUploadInput::default()
    };
    let done = fixture.s3.complete_multipart_upload(fixture.request(complete(), &[])).await.unwrap().output;
    assert!(done.e_tag.unwrap().value().ends_with("-2"));
    assert_eq!(fixture.get("k", None, Some("bytes=5242878-")).await.unwrap(), "aatail");
    assert_eq!(fixture.events.try_recv().unwrap()["detail"]["reason"], "CompleteMultipartUpload");
    let again = fixture.s3.complete_multipart_upload(fixture.request(complete(), &[])).await.unwrap_err();
    assert_eq!(again.code().as_str(), "NoSuchUpload");
}

#[tokio::test]
async fn a_copy_takes_everything_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path());
    fixture.put("from", "text", &[]).await.unwrap();
    let tag = Tag { key: Some("a".to_owned()), value: Some("b".to_owned()) };
    let input = PutObjectTaggingInput {
        bucket: "uploads".to_owned(),
        key: "from".to_owned(),
        tagging: Tagging { tag_set: vec![tag] },
        checksum_algorithm: None,
        content_md5: None,
        expected_bucket_owner: None,
        request_payer: None,
        version_id: None,
    };
    fixture.s3.put_object_tagging(fixture.request(input, &[])).await.unwrap();
    let source = CopySource::parse("uploads/from").unwrap();
    let mut input = CopyObjectInput::builder();
    input.set_bucket("uploads".to_owned());
    input.set_key("to".to_owned());
    input.set_copy_source(source);
    let input = input.build().unwrap();
    fixture.s3.copy_object(fixture.request(input, &[])).await.unwrap();
    assert_eq!(fixture.get("to", None, None).await.unwrap(), "text");
    let copied = fixture.s3.buckets["uploads"].current("to").unwrap().object.unwrap();
    assert_eq!(copied.tags["a"], "b");
    fixture.events.try_recv().unwrap();
    assert_eq!(fixture.events.try_recv().unwrap()["detail"]["reason"], "CopyObject");
}

#[tokio::test]
async fn deletions_are_announced_when_they_change_something() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path());
    let version = fixture.put("k", "hello", &[]).await.unwrap();
    let created = fixture.events.try_recv().unwrap();
    let delete = async |version_id: Option<&str>| {
        let input = DeleteObjectInput {
            bucket: "uploads".to_owned(),
            key: "k".to_owned(),
            version_id: version_id.map(str::to_owned),
            ..DeleteObjectInput::default()
        };
        fixture.s3.delete_object(fixture.request(input, &[])).await.unwrap().output.version_id
    };
    let marker = delete(None).await.unwrap();
    delete(Some(&version)).await;
    delete(Some(&version)).await;
    let events = [fixture.events.try_recv().unwrap(), fixture.events.try_recv().unwrap()];
    let cases = [
        ("Delete Marker Created", &marker, Value::Null),
        ("Permanently Deleted", &version, json!("5d41402abc4b2a76b9719d911017c592")),
    ];
    let mut last = created["detail"]["object"]["sequencer"].as_str().unwrap().to_owned();
    for (event, (kind, version, etag)) in events.iter().zip(cases) {
        let (detail, object) = (&event["detail"], &event["detail"]["object"]);
        assert_eq!((&event["detail-type"], &detail["deletion-type"]), (&json!("Object Deleted"), &json!(kind)));
        assert_eq!((&detail["reason"], &detail["bucket"]["name"]), (&json!("DeleteObject"), &json!("uploads")));
        assert_eq!((&object["key"], &object["version-id"], &object["etag"]), (&json!("k"), &json!(version), &etag));
        let sequencer = object["sequencer"].as_str().unwrap().to_owned();
        assert!(sequencer > last, "{kind}");
        last = sequencer;
    }
    assert!(fixture.events.try_recv().is_err(), "what was gone already is not told");
}
