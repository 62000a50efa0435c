//! `PutObject` and the deletes; how a body comes to disk.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use s3s::{
    S3Error, S3ErrorCode, S3Request, S3Response, S3Result, TrailingHeaders,
    dto::{
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition,
        Error, PutObjectInput, PutObjectOutput, StreamingBlob,
    },
    s3_error,
};

use crate::{
    disk::Sink,
    s3::{
        access::object_arn,
        operations::{Operations, caller, checksum_fields, disk_failed, etag, missing_key, named_version, not_written},
        store::{Bucket, Condition, Described, Object, Segment},
        sums::{Algorithm, Checksum, Sums},
        tagging,
    },
};

/// The most bytes that one request may bring (S3 User Guide, "Uploading objects"): 5 GiB.
pub(crate) const MAX_BODY_BYTES: u64 = 5 << 30;

/// A body that has arrived whole and is what its sender said it was.
pub(crate) struct Received {
    pub segment: Segment,
    pub md5: [u8; 16],
    pub checksum: Checksum,
}

impl Operations {
    /// `PutObject`.
    pub(crate) async fn put(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let condition = condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let tags = tagging::from_header(input.tagging.as_deref())?;
        let received =
            receive(bucket, input.body, &request.headers, request.trailing_headers.as_ref(), Algorithm::Crc64Nvme)
                .await?;
        let object = Object {
            etag: hex::encode(received.md5),
            segments: vec![received.segment],
            checksum: received.checksum,
            described: Described {
                content_type: input.content_type,
                cache_control: input.cache_control,
                content_disposition: input.content_disposition,
                content_encoding: stored_encoding(input.content_encoding),
                content_language: input.content_language,
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            },
            tags,
        };
        let fields = checksum_fields(&object.checksum);
        let e_tag = Some(etag(&object.etag));
        let version = bucket.put(&input.key, object, &condition).map_err(not_written)?;
        self.announce(bucket, &input.key, &version, "PutObject");
        Ok(S3Response::new(PutObjectOutput {
            checksum_crc32: fields.checksum_crc32,
            checksum_crc32c: fields.checksum_crc32c,
            checksum_crc64nvme: fields.checksum_crc64nvme,
            checksum_sha1: fields.checksum_sha1,
            checksum_sha256: fields.checksum_sha256,
            checksum_type: fields.checksum_type,
            e_tag,
            version_id: named_version(bucket, &version),
            ..PutObjectOutput::default()
        }))
    }

    /// `DeleteObject`.
    pub(crate) fn delete(&self, input: &DeleteObjectInput) -> S3Result<S3Response<DeleteObjectOutput>> {
        let bucket = self.bucket(&input.bucket)?;
        if let Some(wanted) = &input.if_match {
            let current = bucket.current(&input.key).and_then(|version| version.object).ok_or_else(missing_key)?;
            if matches!(wanted, ETagCondition::ETag(wanted) if wanted.value() != current.etag) {
                return Err(s3_error!(
                    PreconditionFailed,
                    "At least one of the pre-conditions you specified did not hold"
                ));
            }
        }
        let deleted = bucket.delete(&input.key, input.version_id.as_deref()).map_err(disk_failed)?;
        self.announce_deletion(bucket, &input.key, &deleted);
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: deleted.marker.then_some(true),
            version_id: deleted.version,
            ..DeleteObjectOutput::default()
        }))
    }

    /// `DeleteObjects`: each key is allowed or denied for itself.
    pub(crate) fn delete_several(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let caller = caller(&request.extensions)?;
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        for object in input.delete.objects {
            let action = match object.version_id {
                Some(_) => "s3:DeleteObjectVersion",
                None => "s3:DeleteObject",
            };
            let resource = object_arn(&input.bucket, &object.key);
            if let Err(refused) = self.gate.check(&caller, action, &resource, &[]) {
                errors.push(Error {
                    code: Some("AccessDenied".to_owned()),
                    key: Some(object.key),
                    message: Some(refused.to_string()),
                    version_id: object.version_id,
                });
                continue;
            }
            let done = bucket.delete(&object.key, object.version_id.as_deref()).map_err(disk_failed)?;
            self.announce_deletion(bucket, &object.key, &done);
            deleted.push(DeletedObject {
                delete_marker: done.marker.then_some(true),
                delete_marker_version_id: done.version.filter(|_| done.marker),
                key: Some(object.key),
                version_id: object.version_id,
            });
        }
        let quiet = input.delete.quiet.unwrap_or_default();
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            request_charged: None,
        }))
    }
}

/// Streams a request's body to disk and checks it against everything that its headers and trailers
/// say about it: length, MD5 and checksum.
///
/// The checksum is of the algorithm that the client uses, or of `default`.
pub(crate) async fn receive(
    bucket: &Bucket,
    body: Option<StreamingBlob>,
    headers: &HeaderMap,
    trailers: Option<&TrailingHeaders>,
    default: Algorithm,
) -> S3Result<Received> {
    let length = ["x-amz-decoded-content-length", "content-length"]
        .into_iter()
        .find_map(|name| text(headers, name))
        .and_then(|value| value.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
    }
    let algorithm = algorithm(headers).unwrap_or(default);
    let mut sink = Sink::create(&bucket.incoming(), Sums::new(algorithm)).map_err(disk_failed)?;
    if let Some(mut body) = body {
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| broken_body(&*error))?;
            sink.push(bytes).await.map_err(disk_failed)?;
            if sink.received_bytes() > MAX_BODY_BYTES {
                return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
            }
        }
    }
    let (file, sums, size_bytes) = sink.finish().await.map_err(disk_failed)?;
    if length.is_some_and(|length| length != size_bytes) {
        return Err(incomplete());
    }
    let (md5, checksum) = sums.finish();
    if text(headers, "content-md5").is_some_and(|wanted| wanted != STANDARD.encode(md5)) {
        return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
    }
    let trailing =
        trailers.and_then(|trailers| trailers.read(|trailers| text(trailers, algorithm.header()).map(str::to_owned)));
    let wanted = text(headers, algorithm.header()).map(str::to_owned).or(trailing.flatten());
    if wanted.is_some_and(|wanted| wanted != checksum.value) {
        return Err(s3_error!(
            BadDigest,
            "The {} you specified did not match the calculated checksum.",
            algorithm.name()
        ));
    }
    let segment = bucket.keep(file, size_bytes).map_err(disk_failed)?;
    Ok(Received { segment, md5, checksum })
}

/// The checksum algorithm that a request's headers name.
pub(crate) fn algorithm(headers: &HeaderMap) -> Option<Algorithm> {
    let trailer = text(headers, "x-amz-trailer").unwrap_or_default();
    Algorithm::ALL
        .into_iter()
        .find(|algorithm| {
            headers.contains_key(algorithm.header()) || trailer.trim().eq_ignore_ascii_case(algorithm.header())
        })
        .or_else(|| {
            ["x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm"]
                .into_iter()
                .find_map(|name| text(headers, name))
                .and_then(Algorithm::parse)
        })
}

/// What `If-Match` and `If-None-Match` of a write mean.
pub(crate) fn condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Always),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::ETag(wanted)), None) => Ok(Condition::Matches(wanted.value().to_owned())),
        _ => Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")),
    }
}

/// `aws-chunked` is an encoding of the transfer and is not kept.
fn stored_encoding(encoding: Option<String>) -> Option<String> {
    let encoding = encoding?;
    let kept: Vec<&str> = encoding
        .split(',')
        .map(str::trim)
        .filter(|encoding| *encoding != "aws-chunked" && !encoding.is_empty())
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn incomplete() -> S3Error {
    s3_error!(IncompleteBody, "You did not provide the number of bytes specified by the Content-Length HTTP header")
}

/// The answer for a body that could not be read. The s3s crate keeps its error types to itself, so
/// the text of the error is all there is.
fn broken_body(error: &(dyn std::error::Error + Send + Sync)) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let mut refused = S3Error::with_message(
            S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        );
        refused.set_status_code(StatusCode::BAD_REQUEST);
        return refused;
    }
    if text.contains("SignatureMismatch") {
        return s3_error!(SignatureDoesNotMatch);
    }
    incomplete()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn the_client_names_the_algorithm_in_three_ways() {
        let cases = [
            ("x-amz-checksum-sha256", "AA==", Some(Algorithm::Sha256)),
            ("x-amz-trailer", "x-amz-checksum-crc32c", Some(Algorithm::Crc32c)),
            ("x-amz-sdk-checksum-algorithm", "CRC32", Some(Algorithm::Crc32)),
            ("x-amz-checksum-algorithm", "SHA1", Some(Algorithm::Sha1)),
            ("x-amz-checksum-algorithm", "MD4", None),
            ("content-type", "text/plain", None),
        ];
        for (name, value, expected) in cases {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            assert_eq!(algorithm(&headers), expected, "{name}: {value}");
        }
    }

    #[test]
    fn conditions_of_writes() {
        let any = "*".parse::<ETagCondition>().unwrap();
        let one = "\"e\"".parse::<ETagCondition>().unwrap();
        assert_eq!(condition(None, None).unwrap(), Condition::Always);
        assert_eq!(condition(None, Some(&any)).unwrap(), Condition::Absent);
        assert_eq!(condition(Some(&one), None).unwrap(), Condition::Matches("e".to_owned()));
        for (if_match, if_none_match) in [(Some(&any), None), (None, Some(&one)), (Some(&one), Some(&any))] {
            let refused = condition(if_match, if_none_match).unwrap_err();
            assert_eq!(refused.code().as_str(), "NotImplemented");
        }
    }

    #[test]
    fn the_transfers_encoding_is_not_kept() {
        let cases = [
            (None, None),
            (Some("aws-chunked"), None),
            (Some("gzip,aws-chunked"), Some("gzip")),
            (Some("gzip"), Some("gzip")),
        ];
        for (given, expected) in cases {
            assert_eq!(stored_encoding(given.map(str::to_owned)).as_deref(), expected, "{given:?}");
        }
    }
}
