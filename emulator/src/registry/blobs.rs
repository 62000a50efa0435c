//! Blobs out: existence, and downloads by redirection.

use http::{HeaderValue, Method, StatusCode, header, request::Parts};

use crate::{
    disk,
    images::{Digest, Images},
    registry::{
        Call, Registry,
        problem::{Failure, Problem},
    },
    wire::{Answer, Response, empty, full},
};

impl Registry {
    /// `HEAD` tells the size; `GET` is redirected to an address that needs no credential, as ECR
    /// redirects to S3.
    pub(super) fn blob(&self, call: &Call, repository: &str, digest: &Digest) -> Result<Response, Failure> {
        let head = call.parts.method == Method::HEAD;
        let action = if head { "ecr:BatchCheckLayerAvailability" } else { "ecr:GetDownloadUrlForLayer" };
        self.authorize(call, action, repository)?;
        self.exists(repository)?;
        let Some(size_bytes) = self.images.blob_size_bytes(repository, digest) else {
            return Err(Problem::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry").into());
        };
        let mut response = Response::new(empty());
        let headers = response.headers_mut();
        if let Ok(digest) = HeaderValue::try_from(digest.to_string()) {
            headers.insert("docker-content-digest", digest);
        }
        if head {
            headers.insert(header::CONTENT_LENGTH, size_bytes.into());
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        } else {
            let location = format!("{}/_blobs/{digest}", call.origin());
            if let Ok(location) = HeaderValue::try_from(location) {
                headers.insert(header::LOCATION, location);
            }
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        }
        Ok(response)
    }
}

/// The bytes of a blob, or one range of them, to whoever asks.
#[expect(clippy::unnecessary_wraps, reason = "an answer like any other")]
pub(super) fn download(images: &Images, parts: &Parts, digest: &Digest) -> Answer {
    let path = images.blob_path(digest);
    let readable = matches!(parts.method, Method::GET | Method::HEAD);
    let Some(size_bytes) = std::fs::metadata(&path).ok().filter(|_| readable).map(|metadata| metadata.len()) else {
        let mut response = Response::new(full("<Error><Code>NoSuchKey</Code></Error>"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    };
    let asked = parts.headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let mut status = StatusCode::OK;
    let mut range = 0..size_bytes;
    if let Some(asked) = asked {
        let parsed = s3s::dto::Range::parse(asked).ok().and_then(|range| range.check(size_bytes).ok());
        let Some(parsed) = parsed else {
            let mut response = Response::new(full("<Error><Code>InvalidRange</Code></Error>"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(response);
        };
        status = StatusCode::PARTIAL_CONTENT;
        range = parsed;
    }
    let length = range.end - range.start;
    let last = range.end.saturating_sub(1);
    let content_range = format!("bytes {}-{last}/{size_bytes}", range.start);
    let body = if parts.method == Method::HEAD { empty() } else { disk::body(vec![(path, size_bytes)], range) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(content_range) = HeaderValue::try_from(content_range)
    {
        headers.insert(header::CONTENT_RANGE, content_range);
    }
    Ok(response)
}
