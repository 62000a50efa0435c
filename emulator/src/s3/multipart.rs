//! Multipart uploads: begin, add parts in any order, complete or abort.

use s3s::{
    S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, ListPartsInput, ListPartsOutput, Part as ListedPart, UploadPartInput,
        UploadPartOutput,
    },
    s3_error,
};
use uuid::Uuid;

use crate::{
    clock,
    s3::{
        operations::{Operations, checksum_fields, disk_failed, etag, named_version, not_written, owner, timestamp},
        store::{Bucket, Condition, Described, Object, WriteError},
        sums::{self, Algorithm},
        tagging,
        uploads::{Part, Upload},
        writing::{self, Received},
    },
};

/// S3 User Guide, "Amazon S3 multipart upload limits".
const MIN_PART_BYTES: u64 = 5 << 20;
const MAX_PART_NUMBER: i32 = 10_000;

impl Operations {
    /// `CreateMultipartUpload`.
    pub(crate) fn begin_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let algorithm = input
            .checksum_algorithm
            .as_ref()
            .and_then(|algorithm| Algorithm::parse(algorithm.as_str()))
            .unwrap_or(Algorithm::Crc64Nvme);
        let asked = input.checksum_type.as_ref().map(ChecksumType::as_str);
        let composite = composite(algorithm, asked)?;
        let upload = Upload {
            id: Uuid::new_v4().simple().to_string(),
            key: input.key.clone(),
            initiated: clock::now(),
            algorithm,
            composite,
            described: Described {
                content_type: input.content_type,
                cache_control: input.cache_control,
                content_disposition: input.content_disposition,
                content_encoding: input.content_encoding,
                content_language: input.content_language,
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            },
            tags: tagging::from_header(input.tagging.as_deref())?,
            parts: std::collections::BTreeMap::new(),
        };
        let upload_id = Some(upload.id.clone());
        bucket.uploads.begin(upload).map_err(disk_failed)?;
        let named = input.checksum_algorithm.is_some();
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            checksum_algorithm: named.then(|| ChecksumAlgorithm::from_static(algorithm.name())),
            checksum_type: named.then(|| checksum_type(composite)),
            key: Some(input.key),
            upload_id,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    /// `UploadPart`.
    pub(crate) async fn add_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id)?;
        if let Some(sent) = writing::algorithm(&request.headers)
            && sent != upload.algorithm
        {
            return Err(s3_error!(
                InvalidRequest,
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                upload.algorithm.name().to_lowercase(),
                sent.name().to_lowercase()
            ));
        }
        let received =
            writing::receive(bucket, input.body, &request.headers, request.trailing_headers.as_ref(), upload.algorithm)
                .await?;
        let part = bucket.keep_part(&upload.id, input.part_number, received)?;
        let fields = checksum_fields(&part.checksum);
        Ok(S3Response::new(UploadPartOutput {
            checksum_crc32: fields.checksum_crc32,
            checksum_crc32c: fields.checksum_crc32c,
            checksum_crc64nvme: fields.checksum_crc64nvme,
            checksum_sha1: fields.checksum_sha1,
            checksum_sha256: fields.checksum_sha256,
            e_tag: Some(etag(&part.etag())),
            ..UploadPartOutput::default()
        }))
    }

    /// `CompleteMultipartUpload`: the parts' files become the object's, nothing is copied.
    pub(crate) fn complete_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let begun = bucket.upload(&input.key, &input.upload_id)?;
        let condition = writing::condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let parts = chosen(&begun, &listed)?;
        let object = assemble(&begun, &parts);
        if let Some(wanted) = input.mpu_object_size
            && u64::try_from(wanted) != Ok(object.size_bytes())
        {
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header does not match what was computed"
            ));
        }
        let sent = request.headers.get(begun.algorithm.header());
        if sent.is_some_and(|sent| sent.as_bytes() != object.checksum.value.as_bytes()) {
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                begun.algorithm.name()
            ));
        }
        // Asked before the upload is given up: a refused one may be completed later.
        precondition(bucket, &input.key, &condition).map_err(not_written)?;
        let Some(ended) = bucket.uploads.end(&begun.id).map_err(disk_failed)? else {
            return Err(no_upload());
        };
        let unused: Vec<_> = ended
            .parts
            .into_values()
            .map(|part| part.segment)
            .filter(|segment| !object.segments.contains(segment))
            .collect();
        bucket.discard(&unused);
        let fields = checksum_fields(&object.checksum);
        let e_tag = Some(etag(&object.etag));
        let version = bucket.put(&input.key, object, &condition).map_err(not_written)?;
        self.announce(bucket, &input.key, &version, "CompleteMultipartUpload");
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            checksum_crc32: fields.checksum_crc32,
            checksum_crc32c: fields.checksum_crc32c,
            checksum_crc64nvme: fields.checksum_crc64nvme,
            checksum_sha1: fields.checksum_sha1,
            checksum_sha256: fields.checksum_sha256,
            checksum_type: fields.checksum_type,
            e_tag,
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket.clone()),
            key: Some(input.key),
            version_id: named_version(bucket, &version),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    /// `AbortMultipartUpload`.
    pub(crate) fn abort_upload(
        &self,
        input: &AbortMultipartUploadInput,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let bucket = self.bucket(&input.bucket)?;
        bucket.upload(&input.key, &input.upload_id)?;
        let ended = bucket.uploads.end(&input.upload_id).map_err(disk_failed)?.ok_or_else(no_upload)?;
        let segments: Vec<_> = ended.parts.into_values().map(|part| part.segment).collect();
        bucket.discard(&segments);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    /// `ListParts`, in pages.
    pub(crate) fn list_uploaded_parts(&self, input: ListPartsInput) -> S3Result<S3Response<ListPartsOutput>> {
        let bucket = self.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id)?;
        let after = input.part_number_marker.unwrap_or_default();
        let limit = usize::try_from(input.max_parts.unwrap_or(1000).clamp(0, 1000)).unwrap_or_default();
        let mut parts: Vec<ListedPart> = Vec::new();
        let mut later = upload.parts.range(after.saturating_add(1)..);
        for (number, part) in later.by_ref().take(limit) {
            let fields = checksum_fields(&part.checksum);
            parts.push(ListedPart {
                checksum_crc32: fields.checksum_crc32,
                checksum_crc32c: fields.checksum_crc32c,
                checksum_crc64nvme: fields.checksum_crc64nvme,
                checksum_sha1: fields.checksum_sha1,
                checksum_sha256: fields.checksum_sha256,
                e_tag: Some(etag(&part.etag())),
                last_modified: Some(timestamp(part.modified)),
                part_number: Some(*number),
                size: i64::try_from(part.segment.size_bytes).ok(),
            });
        }
        let truncated = later.next().is_some();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(truncated),
            key: Some(input.key),
            max_parts: i32::try_from(limit).ok(),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            owner: Some(owner()),
            part_number_marker: Some(after),
            parts: Some(parts),
            upload_id: Some(input.upload_id),
            ..ListPartsOutput::default()
        }))
    }
}

impl Bucket {
    /// The unfinished upload `id` of `key`.
    pub(crate) fn upload(&self, key: &str, id: &str) -> S3Result<Upload> {
        self.uploads.get(key, id).ok_or_else(no_upload)
    }

    /// Adds a part that has arrived to the upload `id`, in place of an earlier one of its number.
    pub(crate) fn keep_part(&self, id: &str, number: i32, received: Received) -> S3Result<Part> {
        let Received { segment, md5, checksum } = received;
        if !(1..=MAX_PART_NUMBER).contains(&number) {
            self.discard(&[segment]);
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and {MAX_PART_NUMBER}, inclusive"
            ));
        }
        let part = Part { segment, md5, checksum, modified: clock::now() };
        let replaced = self.uploads.add(id, number, part.clone()).map_err(disk_failed)?;
        let known = replaced.is_some();
        // Of an upload that ended meanwhile, the part itself is what nobody needs.
        self.discard(&replaced.unwrap_or_else(|| vec![part.segment.clone()]));
        if known { Ok(part) } else { Err(no_upload()) }
    }
}

fn no_upload() -> s3s::S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )
}

fn checksum_type(composite: bool) -> ChecksumType {
    ChecksumType::from_static(if composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT })
}

/// Whether the object's checksum is one over its parts': CRC64NVME never, SHA always, else as asked.
fn composite(algorithm: Algorithm, asked: Option<&str>) -> S3Result<bool> {
    let asked = asked.map(|asked| asked == ChecksumType::COMPOSITE);
    match (algorithm, asked) {
        (Algorithm::Crc64Nvme, Some(true)) | (Algorithm::Sha1 | Algorithm::Sha256, Some(false)) => Err(s3_error!(
            InvalidRequest,
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            if asked == Some(true) { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT },
            algorithm.name().to_lowercase()
        )),
        (Algorithm::Crc64Nvme, _) => Ok(false),
        (Algorithm::Crc32 | Algorithm::Crc32c | Algorithm::Sha1 | Algorithm::Sha256, asked) => {
            Ok(asked.unwrap_or(true))
        }
    }
}

/// The parts that the client lists, in order, if they are what was uploaded.
fn chosen(upload: &Upload, listed: &[CompletedPart]) -> S3Result<Vec<Part>> {
    if listed.is_empty() {
        return Err(s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema"
        ));
    }
    let mut parts: Vec<Part> = Vec::with_capacity(listed.len());
    let mut previous = 0;
    for part in listed {
        let number = part.part_number.unwrap_or_default();
        if number <= previous {
            return Err(s3_error!(
                InvalidPartOrder,
                "The list of parts was not in ascending order. Parts must be ordered by part number."
            ));
        }
        previous = number;
        let fields = |uploaded: &Part| {
            let fields = checksum_fields(&uploaded.checksum);
            [
                (&part.checksum_crc32, fields.checksum_crc32),
                (&part.checksum_crc32c, fields.checksum_crc32c),
                (&part.checksum_crc64nvme, fields.checksum_crc64nvme),
                (&part.checksum_sha1, fields.checksum_sha1),
                (&part.checksum_sha256, fields.checksum_sha256),
            ]
            .into_iter()
            .all(|(listed, uploaded)| listed.is_none() || *listed == uploaded)
        };
        let uploaded = upload.parts.get(&number).filter(|uploaded| {
            part.e_tag.as_ref().is_some_and(|listed| listed.value() == uploaded.etag()) && fields(uploaded)
        });
        let Some(uploaded) = uploaded else {
            return Err(s3_error!(
                InvalidPart,
                "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
            ));
        };
        if parts.last().is_some_and(|part| part.segment.size_bytes < MIN_PART_BYTES) {
            return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
        }
        parts.push(uploaded.clone());
    }
    Ok(parts)
}

fn assemble(upload: &Upload, parts: &[Part]) -> Object {
    let md5s: Vec<[u8; 16]> = parts.iter().map(|part| part.md5).collect();
    let checksums: Vec<_> = parts.iter().map(|part| (part.checksum.clone(), part.segment.size_bytes)).collect();
    Object {
        segments: parts.iter().map(|part| part.segment.clone()).collect(),
        etag: sums::multipart_etag(&md5s),
        checksum: sums::multipart_checksum(upload.algorithm, upload.composite, &checksums),
        described: upload.described.clone(),
        tags: upload.tags.clone(),
    }
}

fn precondition(bucket: &Bucket, key: &str, condition: &Condition) -> Result<(), WriteError> {
    let current = bucket.current(key).and_then(|version| version.object);
    match (condition, current) {
        (Condition::Always, _) | (Condition::Absent, None) => Ok(()),
        (Condition::Matches(_), None) => Err(WriteError::Missing),
        (Condition::Matches(etag), Some(object)) if *etag == object.etag => Ok(()),
        _ => Err(WriteError::Precondition),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::s3::{
        store::{Segment, Tags},
        sums::Checksum,
    };

    fn upload_of(sizes: &[u64]) -> Upload {
        let parts = (1..).zip(sizes).map(|(number, size)| {
            let part = Part {
                segment: Segment { file: format!("f{number}"), size_bytes: *size },
                md5: [u8::try_from(number).unwrap(); 16],
                checksum: Checksum { algorithm: Algorithm::Crc32, value: "AAAAAA==".to_owned() },
                modified: clock::now(),
            };
            (number, part)
        });
        Upload {
            id: "u".to_owned(),
            key: "k".to_owned(),
            initiated: clock::now(),
            algorithm: Algorithm::Crc32,
            composite: true,
            described: Described::default(),
            tags: Tags::new(),
            parts: parts.collect::<BTreeMap<_, _>>(),
        }
    }

    fn listed(number: i32, etag_byte: u8) -> CompletedPart {
        CompletedPart {
            e_tag: Some(etag(&hex::encode([etag_byte; 16]))),
            part_number: Some(number),
            ..CompletedPart::default()
        }
    }

    #[test]
    fn parts_are_checked() {
        let upload = upload_of(&[MIN_PART_BYTES, MIN_PART_BYTES, 1, 1]);
        let cases = [
            (vec![listed(1, 1), listed(2, 2), listed(3, 3)], Ok(3)),
            (vec![listed(2, 2), listed(4, 4)], Ok(2)),
            (vec![], Err("MalformedXML")),
            (vec![listed(2, 2), listed(1, 1)], Err("InvalidPartOrder")),
            (vec![listed(1, 1), listed(1, 1)], Err("InvalidPartOrder")),
            (vec![listed(1, 2)], Err("InvalidPart")),
            (vec![listed(9, 9)], Err("InvalidPart")),
            (vec![listed(3, 3), listed(4, 4)], Err("EntityTooSmall")),
        ];
        for (number, (parts, expected)) in cases.into_iter().enumerate() {
            let got = chosen(&upload, &parts).map(|parts| parts.len());
            let got = got.map_err(|error| error.code().as_str().to_owned());
            assert_eq!(got, expected.map_err(str::to_owned), "case {number}");
        }
        let wrong_checksum = CompletedPart { checksum_crc32: Some("AAAAAQ==".to_owned()), ..listed(1, 1) };
        assert!(chosen(&upload, &[wrong_checksum]).is_err());
    }

    #[test]
    fn checksum_types_that_s3_has() {
        let full = Some(ChecksumType::FULL_OBJECT);
        let parts = Some(ChecksumType::COMPOSITE);
        let cases = [
            (Algorithm::Crc64Nvme, None, Ok(false)),
            (Algorithm::Crc64Nvme, full, Ok(false)),
            (Algorithm::Crc64Nvme, parts, Err(())),
            (Algorithm::Crc32, None, Ok(true)),
            (Algorithm::Crc32, full, Ok(false)),
            (Algorithm::Sha256, None, Ok(true)),
            (Algorithm::Sha256, full, Err(())),
        ];
        for (algorithm, asked, expected) in cases {
            let got = composite(algorithm, asked).map_err(drop);
            assert_eq!(got, expected, "{algorithm:?} {asked:?}");
        }
    }
}
