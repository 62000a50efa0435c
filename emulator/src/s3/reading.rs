//! `GetObject` and `HeadObject`.

use std::ops::Range as Bytes;

use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::{
    S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        ChecksumMode, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, Range,
        StreamingBlob, Timestamp,
    },
    s3_error,
};

use crate::{
    disk,
    s3::{
        operations::{Found, Operations, caller, checksum_fields, etag, named_version, timestamp},
        store::{Bucket, Object},
    },
};

/// What both operations are asked.
struct Asked {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
    range: Option<Range>,
    part: Option<i32>,
    checksum: bool,
}

/// Which bytes of an object an answer has; `None` for all of them, asked for without a range.
type Window = Option<Bytes<u64>>;

impl Operations {
    /// `GetObject`: the bytes are streamed from disk.
    pub(crate) fn get(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let caller = caller(&request.extensions)?;
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let found = self.find(&caller, bucket, &input.key, input.version_id.as_deref())?;
        let asked = Asked {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
            range: input.range,
            part: input.part_number,
            checksum: is_enabled(input.checksum_mode.as_ref()),
        };
        check(&found, &asked)?;
        let window = window(&found.object, &asked)?;
        let head = describe(bucket, &found, &asked, window.clone());
        let size_bytes = found.object.size_bytes();
        let bytes = disk::read(bucket.files(&found.object.segments), window.unwrap_or(0..size_bytes));
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(bytes)),
            accept_ranges: head.accept_ranges,
            cache_control: head.cache_control,
            checksum_crc32: head.checksum_crc32,
            checksum_crc32c: head.checksum_crc32c,
            checksum_crc64nvme: head.checksum_crc64nvme,
            checksum_sha1: head.checksum_sha1,
            checksum_sha256: head.checksum_sha256,
            checksum_type: head.checksum_type,
            content_disposition: head.content_disposition,
            content_encoding: head.content_encoding,
            content_language: head.content_language,
            content_length: head.content_length,
            content_range: head.content_range,
            content_type: head.content_type,
            e_tag: head.e_tag,
            last_modified: head.last_modified,
            metadata: head.metadata,
            parts_count: head.parts_count,
            tag_count: i32::try_from(found.object.tags.len()).ok().filter(|count| *count > 0),
            version_id: head.version_id,
            ..GetObjectOutput::default()
        }))
    }

    /// `HeadObject`.
    pub(crate) fn head(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let caller = caller(&request.extensions)?;
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let found = self.find(&caller, bucket, &input.key, input.version_id.as_deref())?;
        let asked = Asked {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
            range: input.range,
            part: input.part_number,
            checksum: is_enabled(input.checksum_mode.as_ref()),
        };
        check(&found, &asked)?;
        let window = window(&found.object, &asked)?;
        Ok(S3Response::new(describe(bucket, &found, &asked, window)))
    }
}

fn is_enabled(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// The conditional headers, in the order of RFC 9110 section 13.2.2.
fn check(found: &Found, asked: &Asked) -> S3Result<()> {
    let current = etag(&found.object.etag);
    let modified = timestamp(found.version.modified);
    let holds = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.weak_cmp(&current),
    };
    let failed = match (&asked.if_match, &asked.if_unmodified_since) {
        (Some(condition), _) => !holds(condition),
        (None, Some(since)) => modified > *since,
        (None, None) => false,
    };
    if failed {
        return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
    }
    let unchanged = match (&asked.if_none_match, &asked.if_modified_since) {
        (Some(condition), _) => holds(condition),
        (None, Some(since)) => modified <= *since,
        (None, None) => false,
    };
    if unchanged {
        let mut answer = s3_error!(NotModified, "Not Modified");
        let mut headers = HeaderMap::new();
        if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", found.object.etag)) {
            headers.insert("etag", etag);
        }
        answer.set_headers(headers);
        return Err(answer);
    }
    Ok(())
}

/// The bytes that a range or a part number means.
fn window(object: &Object, asked: &Asked) -> S3Result<Window> {
    let size_bytes = object.size_bytes();
    let refused = || s3_error!(InvalidRange, "The requested range is not satisfiable");
    match (asked.range, asked.part) {
        (Some(_), Some(_)) => {
            Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter"))
        }
        // Any range of an empty object is beyond its end, suffixes too.
        (Some(_), None) if size_bytes == 0 => Err(refused()),
        (Some(range), None) => {
            let bytes = range
                .check(size_bytes)
                .map_err(|error| s3_error!(error, InvalidRange, "The requested range is not satisfiable"))?;
            Ok(Some(bytes))
        }
        (None, Some(number)) => {
            let index = usize::try_from(number - 1).map_err(|error| {
                s3_error!(error, InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")
            })?;
            let before: u64 = object.segments.iter().take(index).map(|part| part.size_bytes).sum();
            let part = object.segments.get(index).ok_or_else(no_part)?;
            Ok(Some(before..before + part.size_bytes))
        }
        (None, None) => Ok(None),
    }
}

/// s3s has no name for this one.
fn no_part() -> S3Error {
    let mut refused = S3Error::with_message(
        S3ErrorCode::Custom("InvalidPartNumber".into()),
        "The requested partnumber is not satisfiable",
    );
    refused.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE);
    refused
}

fn describe(bucket: &Bucket, found: &Found, asked: &Asked, window: Window) -> HeadObjectOutput {
    let object = &found.object;
    let described = &object.described;
    let size_bytes = object.size_bytes();
    // A range is not verified end to end: the checksum is the whole object's.
    let checksum = if asked.checksum && window.is_none() {
        checksum_fields(&object.checksum)
    } else {
        s3s::dto::Checksum::default()
    };
    let metadata = described.metadata.clone().into_iter().collect();
    let length = window.as_ref().map_or(size_bytes, |bytes| bytes.end - bytes.start);
    HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: described.cache_control.clone(),
        checksum_crc32: checksum.checksum_crc32,
        checksum_crc32c: checksum.checksum_crc32c,
        checksum_crc64nvme: checksum.checksum_crc64nvme,
        checksum_sha1: checksum.checksum_sha1,
        checksum_sha256: checksum.checksum_sha256,
        checksum_type: checksum.checksum_type,
        content_disposition: described.content_disposition.clone(),
        content_encoding: described.content_encoding.clone(),
        content_language: described.content_language.clone(),
        content_length: i64::try_from(length).ok(),
        content_range: window.and_then(|bytes| {
            let last = bytes.end.checked_sub(1)?;
            Some(format!("bytes {}-{last}/{size_bytes}", bytes.start))
        }),
        content_type: Some(described.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())),
        e_tag: Some(etag(&object.etag)),
        last_modified: Some(timestamp(found.version.modified)),
        metadata: Some(metadata),
        parts_count: asked.part.and(object.parts()).and_then(|parts| i32::try_from(parts).ok()),
        version_id: named_version(bucket, &found.version),
        ..HeadObjectOutput::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::{
        store::{Described, Segment, Tags},
        sums::{Algorithm, Checksum},
    };

    fn object(sizes: &[u64]) -> Object {
        Object {
            segments: sizes.iter().map(|size| Segment { file: String::new(), size_bytes: *size }).collect(),
            etag: "e-2".to_owned(),
            checksum: Checksum { algorithm: Algorithm::Crc32, value: String::new() },
            described: Described::default(),
            tags: Tags::new(),
        }
    }

    fn asked(range: Option<&str>, part: Option<i32>) -> Asked {
        Asked {
            if_match: None,
            if_none_match: None,
            if_modified_since: None,
            if_unmodified_since: None,
            range: range.map(|range| Range::parse(range).unwrap()),
            part,
            checksum: false,
        }
    }

    #[test]
    fn windows() {
        let cases = [
            (None, None, Ok(None)),
            (Some("bytes=0-0"), None, Ok(Some(0..1))),
            (Some("bytes=3-99"), None, Ok(Some(3..10))),
            (Some("bytes=-4"), None, Ok(Some(6..10))),
            (Some("bytes=-99"), None, Ok(Some(0..10))),
            (Some("bytes=9-"), None, Ok(Some(9..10))),
            (Some("bytes=10-"), None, Err("InvalidRange")),
            (Some("bytes=-0"), None, Err("InvalidRange")),
            (None, Some(1), Ok(Some(0..7))),
            (None, Some(2), Ok(Some(7..10))),
            (None, Some(3), Err("InvalidPartNumber")),
            (None, Some(0), Err("InvalidArgument")),
            (Some("bytes=0-0"), Some(1), Err("InvalidRequest")),
        ];
        for (range, part, expected) in cases {
            let got = window(&object(&[7, 3]), &asked(range, part));
            let got = got.map_err(|error| error.code().as_str().to_owned());
            assert_eq!(got, expected.map_err(str::to_owned), "{range:?} part {part:?}");
        }
        for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            let refused = window(&object(&[0]), &asked(Some(range), None)).unwrap_err();
            assert_eq!(refused.code().as_str(), "InvalidRange", "{range} of nothing");
        }
    }
}
