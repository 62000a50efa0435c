//! What a request asks for, from its line and headers alone.

use http::{HeaderMap, Method, Uri, header};
use std::fmt;

/// What a request asks for.
///
/// - `s3:` and the S3 API's name: `GetObject`, `HeadObject`, `PutObject`, `PutObjectTagging`, …
/// - `ecr:`, `sqs:`, `events:` and the JSON API's name; `sns:` and the query API's.
/// - `registry:` `Base`, `HeadBlob`, `GetBlob`, `StartUpload`, `PatchUpload`, `PutUpload`,
///   `GetUpload`, `HeadManifest`, `GetManifest`, `PutManifest`, `ListTags`, `ListReferrers`,
///   `Download` (where a blob's GET is redirected to).
/// - `emulator:` for the stack's own paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Service and operation.
    pub name: String,
    /// `bucket/key` for S3, the path after `/v2/` with its query for the registry, empty for the
    /// JSON APIs, whose resource is in the body; of `sns:` the topic's ARN.
    pub resource: String,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.resource)
    }
}

impl Operation {
    /// Classifies a request.
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        if let Some(target) = target {
            let (api, operation) = target.split_once('.').unwrap_or((target, ""));
            let service = match api {
                "AmazonSQS" => "sqs",
                "AWSEvents" => "events",
                api if api.starts_with("AmazonEC2ContainerRegistry") => "ecr",
                other => other,
            };
            return Self { name: format!("{service}:{operation}"), resource: String::new() };
        }
        let path = uri.path();
        if *method == Method::POST && path == "/" && is_form(headers) {
            return Self { name: format!("{}:", signed_for(headers).unwrap_or("query")), resource: String::new() };
        }
        if path.starts_with("/_emulator/") {
            return Self { name: "emulator:Own".to_owned(), resource: path.to_owned() };
        }
        if path.starts_with("/_blobs/") {
            return Self { name: "registry:Download".to_owned(), resource: path.to_owned() };
        }
        if path == "/v2" || path.starts_with("/v2/") {
            let resource = uri
                .path_and_query()
                .map_or(path, |both| both.as_str())
                .trim_start_matches("/v2")
                .trim_start_matches('/');
            return Self { name: format!("registry:{}", registry(method, path)), resource: resource.to_owned() };
        }
        Self {
            name: format!("s3:{}", s3(method, path, uri.query().unwrap_or_default(), headers)),
            resource: decode(path.trim_start_matches('/')),
        }
    }

    /// Whether the operation is named in the request's body.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.name.ends_with(':')
    }

    /// Takes the operation and its topic from a form.
    pub(crate) fn read_form(&mut self, body: &[u8]) {
        for (field, value) in form_urlencoded::parse(body) {
            match &*field {
                "Action" if self.is_unnamed() => self.name.push_str(&value),
                "TopicArn" | "TargetArn" => self.resource = value.into_owned(),
                _ => {}
            }
        }
    }
}

/// Whether the request is of the query protocol: who asks for what is in its body.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

/// The service in a `SigV4` header: `… Credential=AKIA…/20260101/us-east-1/sns/aws4_request, …`.
fn signed_for(headers: &HeaderMap) -> Option<&str> {
    let (_, scope) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once("Credential=")?;
    scope.split('/').nth(3)
}

fn registry(method: &Method, path: &str) -> &'static str {
    let rest = path.trim_start_matches("/v2").trim_matches('/');
    if rest.is_empty() {
        return "Base";
    }
    if rest.contains("/blobs/uploads") {
        return match *method {
            Method::POST => "StartUpload",
            Method::PATCH => "PatchUpload",
            Method::PUT => "PutUpload",
            Method::GET => "GetUpload",
            _ => "Unknown",
        };
    }
    if rest.contains("/blobs/") {
        return match *method {
            Method::HEAD => "HeadBlob",
            Method::GET => "GetBlob",
            _ => "Unknown",
        };
    }
    if rest.contains("/manifests/") {
        return match *method {
            Method::HEAD => "HeadManifest",
            Method::GET => "GetManifest",
            Method::PUT => "PutManifest",
            _ => "Unknown",
        };
    }
    if rest.ends_with("/tags/list") {
        return "ListTags";
    }
    if rest.contains("/referrers/") {
        return "ListReferrers";
    }
    "Unknown"
}

fn s3(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> &'static str {
    let asks = |name: &str| form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == name);
    let path = path.trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    if bucket.is_empty() {
        return "ListBuckets";
    }
    if key.is_empty() {
        return match *method {
            Method::HEAD => "HeadBucket",
            Method::GET if asks("versions") => "ListObjectVersions",
            Method::GET if asks("uploads") => "ListMultipartUploads",
            Method::GET if asks("location") => "GetBucketLocation",
            Method::GET if asks("versioning") => "GetBucketVersioning",
            Method::GET if asks("list-type") => "ListObjectsV2",
            Method::GET => "ListObjects",
            Method::POST if asks("delete") => "DeleteObjects",
            Method::PUT => "CreateBucket",
            Method::DELETE => "DeleteBucket",
            _ => "Unknown",
        };
    }
    match *method {
        Method::HEAD => "HeadObject",
        Method::GET if asks("tagging") => "GetObjectTagging",
        Method::GET if asks("uploadId") => "ListParts",
        Method::GET if asks("attributes") => "GetObjectAttributes",
        Method::GET => "GetObject",
        Method::PUT if asks("tagging") => "PutObjectTagging",
        Method::PUT if asks("uploadId") && headers.contains_key("x-amz-copy-source") => "UploadPartCopy",
        Method::PUT if asks("uploadId") => "UploadPart",
        Method::PUT if headers.contains_key("x-amz-copy-source") => "CopyObject",
        Method::PUT => "PutObject",
        Method::POST if asks("uploads") => "CreateMultipartUpload",
        Method::POST if asks("uploadId") => "CompleteMultipartUpload",
        Method::DELETE if asks("tagging") => "DeleteObjectTagging",
        Method::DELETE if asks("uploadId") => "AbortMultipartUpload",
        Method::DELETE => "DeleteObject",
        _ => "Unknown",
    }
}

/// Undoes percent escapes; a plus is a plus in a path.
fn decode(path: &str) -> String {
    let escaped = path.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes()).next().map(|(key, _)| key.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn requests_are_known_by_line_and_headers() {
        let cases = [
            ("GET", "/", "", "s3:ListBuckets", ""),
            ("GET", "/uploads?list-type=2&prefix=a", "", "s3:ListObjectsV2", "uploads"),
            ("HEAD", "/uploads/a%20b%2Bc+d%26.tar", "", "s3:HeadObject", "uploads/a b+c+d&.tar"),
            ("GET", "/uploads/a.tar?versionId=1", "", "s3:GetObject", "uploads/a.tar"),
            ("GET", "/uploads/a.tar?tagging&versionId=1", "", "s3:GetObjectTagging", "uploads/a.tar"),
            ("PUT", "/uploads/a.tar?tagging=", "", "s3:PutObjectTagging", "uploads/a.tar"),
            ("PUT", "/uploads/a.tar?partNumber=1&uploadId=x", "", "s3:UploadPart", "uploads/a.tar"),
            ("PUT", "/uploads/a.tar", "x-amz-copy-source", "s3:CopyObject", "uploads/a.tar"),
            ("POST", "/uploads/a.tar?uploads", "", "s3:CreateMultipartUpload", "uploads/a.tar"),
            ("GET", "/v2/", "", "registry:Base", ""),
            ("HEAD", "/v2/team/app/blobs/sha256:1", "", "registry:HeadBlob", "team/app/blobs/sha256:1"),
            ("POST", "/v2/team/app/blobs/uploads/", "", "registry:StartUpload", "team/app/blobs/uploads/"),
            ("PATCH", "/v2/team/app/blobs/uploads/7", "", "registry:PatchUpload", "team/app/blobs/uploads/7"),
            (
                "PUT",
                "/v2/team/app/blobs/uploads/7?digest=sha256:1",
                "",
                "registry:PutUpload",
                "team/app/blobs/uploads/7?digest=sha256:1",
            ),
            ("PUT", "/v2/team/app/manifests/1.0", "", "registry:PutManifest", "team/app/manifests/1.0"),
            ("GET", "/v2/team/app/tags/list", "", "registry:ListTags", "team/app/tags/list"),
            ("GET", "/_blobs/sha256:1", "", "registry:Download", "/_blobs/sha256:1"),
            ("GET", "/_emulator/stack", "", "emulator:Own", "/_emulator/stack"),
            ("POST", "/", "x-amz-target: AmazonSQS.SendMessage", "sqs:SendMessage", ""),
            ("POST", "/", "x-amz-target: AWSEvents.PutEvents", "events:PutEvents", ""),
            ("DELETE", "/uploads/a.tar", "", "s3:DeleteObject", "uploads/a.tar"),
            (
                "POST",
                "/",
                "x-amz-target: AmazonEC2ContainerRegistry_V20150921.DescribeImageScanFindings",
                "ecr:DescribeImageScanFindings",
                "",
            ),
            (
                "POST",
                "/",
                "x-amz-target: AmazonEC2ContainerRegistry_V20150921.CreateRepository",
                "ecr:CreateRepository",
                "",
            ),
        ];
        for (method, uri, header, name, resource) in cases {
            let mut headers = HeaderMap::new();
            let (header, value) = header.split_once(": ").unwrap_or((header, "x"));
            if !header.is_empty() {
                headers.insert(http::HeaderName::try_from(header).unwrap(), HeaderValue::from_str(value).unwrap());
            }
            let operation = Operation::of(&method.parse().unwrap(), &uri.parse().unwrap(), &headers);
            assert_eq!((operation.name.as_str(), operation.resource.as_str()), (name, resource), "{method} {uri}");
        }
    }

    #[test]
    fn a_forms_operation_is_in_its_body() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"));
        let of = |headers: &HeaderMap| Operation::of(&Method::POST, &Uri::from_static("/"), headers);
        assert_eq!(of(&headers).name, "query:");
        let scope = "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/sns/aws4_request, SignedHeaders=host";
        headers.insert("authorization", HeaderValue::from_static(scope));
        let mut operation = of(&headers);
        assert!(operation.is_unnamed());
        operation.read_form(b"Action=Publish&TopicArn=arn%3Aaws%3Asns&Message=m");
        assert_eq!(operation.to_string(), "sns:Publish arn:aws:sns");
    }
}
