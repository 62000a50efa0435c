//! `CopyObject` and `UploadPartCopy`, within this server.

use http::HeaderMap;
use s3s::{
    S3Request, S3Response, S3Result,
    dto::{
        CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, ETagCondition,
        MetadataDirective, Range, StreamingBlob, TaggingDirective, UploadPartCopyInput, UploadPartCopyOutput,
    },
    s3_error,
};

use crate::{
    disk,
    s3::{
        access::{denied, object_arn},
        operations::{
            Found, Operations, caller, checksum_fields, disk_failed, etag, named_version, not_written, timestamp,
        },
        store::{Bucket, Condition, Described},
        tagging,
        writing::{MAX_BODY_BYTES, receive},
    },
    wire::Caller,
};

/// Conditions on the source of a copy.
struct Conditions<'a> {
    if_match: Option<&'a ETagCondition>,
    if_none_match: Option<&'a ETagCondition>,
}

impl Operations {
    /// `CopyObject` within this server; the bytes are shared, not copied.
    pub(crate) fn copy(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let caller = caller(&request.extensions)?;
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let conditions = Conditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
        };
        let (from, source) = self.source(&caller, &input.copy_source, &conditions)?;
        if source.object.size_bytes() > MAX_BODY_BYTES {
            return Err(s3_error!(
                InvalidRequest,
                "The specified copy source is larger than the maximum allowable size for a copy source: {MAX_BODY_BYTES}"
            ));
        }
        let mut object = source.object;
        let directive = input.metadata_directive.as_ref().map(MetadataDirective::as_str);
        if directive == Some(MetadataDirective::REPLACE) {
            object.described = Described {
                content_type: input.content_type,
                cache_control: input.cache_control,
                content_disposition: input.content_disposition,
                content_encoding: input.content_encoding,
                content_language: input.content_language,
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            };
        }
        let directive = input.tagging_directive.as_ref().map(TaggingDirective::as_str);
        if directive == Some(TaggingDirective::REPLACE) {
            object.tags = tagging::from_header(input.tagging.as_deref())?;
        }
        object.segments = bucket.link(from, &object.segments).map_err(disk_failed)?;
        let fields = checksum_fields(&object.checksum);
        let e_tag = Some(etag(&object.etag));
        let version = bucket.put(&input.key, object, &Condition::Always).map_err(not_written)?;
        self.announce(bucket, &input.key, &version, "CopyObject");
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                checksum_crc32: fields.checksum_crc32,
                checksum_crc32c: fields.checksum_crc32c,
                checksum_crc64nvme: fields.checksum_crc64nvme,
                checksum_sha1: fields.checksum_sha1,
                checksum_sha256: fields.checksum_sha256,
                checksum_type: fields.checksum_type,
                e_tag,
                last_modified: Some(timestamp(version.modified)),
            }),
            copy_source_version_id: named_version(from, &source.version),
            version_id: named_version(bucket, &version),
            ..CopyObjectOutput::default()
        }))
    }

    /// `UploadPartCopy`: a part, or a whole object, read from here instead of sent.
    pub(crate) async fn copy_part(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let caller = caller(&request.extensions)?;
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id)?;
        let conditions = Conditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
        };
        let (from, source) = self.source(&caller, &input.copy_source, &conditions)?;
        let size_bytes = source.object.size_bytes();
        let range = match &input.copy_source_range {
            None => 0..size_bytes,
            Some(range) => {
                Range::parse(range).ok().and_then(|range| range.check(size_bytes).ok()).ok_or_else(|| {
                    s3_error!(InvalidArgument, "Range specified is not valid for source object of size: {size_bytes}")
                })?
            }
        };
        let bytes = StreamingBlob::wrap(disk::read(from.files(&source.object.segments), range));
        let received = receive(bucket, Some(bytes), &HeaderMap::new(), None, upload.algorithm).await?;
        let part = bucket.keep_part(&upload.id, input.part_number, received)?;
        let fields = checksum_fields(&part.checksum);
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                checksum_crc32: fields.checksum_crc32,
                checksum_crc32c: fields.checksum_crc32c,
                checksum_crc64nvme: fields.checksum_crc64nvme,
                checksum_sha1: fields.checksum_sha1,
                checksum_sha256: fields.checksum_sha256,
                e_tag: Some(etag(&part.etag())),
                last_modified: Some(timestamp(part.modified)),
            }),
            copy_source_version_id: named_version(from, &source.version),
            ..UploadPartCopyOutput::default()
        }))
    }

    /// The source of a copy, which the caller must be allowed to read.
    fn source(&self, caller: &Caller, named: &CopySource, conditions: &Conditions<'_>) -> S3Result<(&Bucket, Found)> {
        let CopySource::Bucket { bucket, key, version_id } = named else {
            return Err(s3_error!(NotImplemented, "only bucket/key is supported as the source of a copy"));
        };
        let action = match version_id {
            Some(_) => "s3:GetObjectVersion",
            None => "s3:GetObject",
        };
        self.gate.check(caller, action, &object_arn(bucket, key), &[]).map_err(|refused| denied(&refused))?;
        let from = self.bucket(bucket)?;
        let source = self.find(caller, from, key, version_id.as_deref())?;
        let current = etag(&source.object.etag);
        let holds = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(wanted) => wanted.weak_cmp(&current),
        };
        if conditions.if_match.is_none_or(holds) && !conditions.if_none_match.is_some_and(holds) {
            return Ok((from, source));
        }
        Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"))
    }
}
