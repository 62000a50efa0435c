//! The operations by name, and what they share: finding buckets and versions, announcing objects.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use s3s::{
    S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket as ListedBucket, BucketLocationConstraint,
        BucketVersioningStatus, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput,
        CopyObjectOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
        DeleteObjectOutput, DeleteObjectTaggingInput, DeleteObjectTaggingOutput, DeleteObjectsInput,
        DeleteObjectsOutput, ETag, GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput,
        GetBucketVersioningOutput, GetObjectInput, GetObjectOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
        HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
        ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput,
        ListPartsOutput, Owner, PutObjectInput, PutObjectOutput, PutObjectTaggingInput, PutObjectTaggingOutput,
        Timestamp, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
    },
    s3_error,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use crate::{
    account,
    envelope::envelope,
    iam::Gate,
    s3::{
        access::{bucket_arn, denied},
        store::{Bucket, Deleted, NULL_VERSION, Object, Version, WriteError},
        sums::Checksum,
    },
    wire::Caller,
};

/// The buckets, and whom to tell about them.
#[derive(Debug)]
pub(crate) struct Operations {
    pub buckets: BTreeMap<String, Arc<Bucket>>,
    pub gate: Arc<Gate>,
    pub events: UnboundedSender<Value>,
}

/// A version that is no delete marker.
#[derive(Debug)]
pub(crate) struct Found {
    pub version: Version,
    pub object: Object,
}

impl Operations {
    /// The bucket of that name.
    pub(crate) fn bucket(&self, name: &str) -> S3Result<&Arc<Bucket>> {
        self.buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// The version `id` of `key`, or the current one.
    ///
    /// A caller that may not list the bucket is not told that a key is missing: it is denied.
    pub(crate) fn find(&self, caller: &Caller, bucket: &Bucket, key: &str, id: Option<&str>) -> S3Result<Found> {
        let version = match id {
            Some(id) => bucket.version(key, id),
            None => bucket.current(key),
        };
        let Some(version) = version else {
            self.may_list(caller, bucket)?;
            return Err(match id {
                None => missing_key(),
                Some(id) if id == NULL_VERSION || id.len() == 32 => {
                    s3_error!(NoSuchVersion, "The specified version does not exist.")
                }
                Some(_) => s3_error!(InvalidArgument, "Invalid version id specified"),
            });
        };
        if let Some(object) = version.object.clone() {
            return Ok(Found { version, object });
        }
        let mut refused = match id {
            None => {
                self.may_list(caller, bucket)?;
                missing_key()
            }
            Some(_) => s3_error!(MethodNotAllowed, "The specified method is not allowed against this resource."),
        };
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/xml"));
        headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
        if let Ok(id) = HeaderValue::try_from(&version.id) {
            headers.insert("x-amz-version-id", id);
        }
        if id.is_some() {
            headers.insert("allow", HeaderValue::from_static("DELETE"));
        }
        refused.set_headers(headers);
        Err(refused)
    }

    fn may_list(&self, caller: &Caller, bucket: &Bucket) -> S3Result<()> {
        let resource = bucket_arn(&bucket.settings.name);
        self.gate.check(caller, "s3:ListBucket", &resource, &[]).map_err(|refused| denied(&refused))
    }

    /// Puts the `Object Created` event of a new version on the bus (S3 user guide, "EventBridge event message structure").
    ///
    /// The key is verbatim, the `ETag` without quotes.
    pub(crate) fn announce(&self, bucket: &Bucket, key: &str, version: &Version, reason: &str) {
        let (true, Some(object)) = (bucket.settings.event_bridge, &version.object) else {
            return;
        };
        let mut described = json!({
            "key": key,
            "size": object.size_bytes(),
            "etag": object.etag,
            "sequencer": version.sequencer(),
        });
        if bucket.settings.versioned {
            described["version-id"] = json!(version.id);
        }
        self.tell(bucket, "Object Created", &json!({ "object": described, "reason": reason }));
    }

    /// Puts the `Object Deleted` event of a delete marker or a removed version on the bus (S3 user
    /// guide, "EventBridge event message structure"); nothing when nothing was deleted.
    pub(crate) fn announce_deletion(&self, bucket: &Bucket, key: &str, deleted: &Deleted) {
        let (true, Some(deletion)) = (bucket.settings.event_bridge, &deleted.event) else {
            return;
        };
        let mut described = json!({ "key": key, "sequencer": deletion.sequencer });
        for (field, value) in [("version-id", &deleted.version), ("etag", &deletion.etag)] {
            if let Some(value) = value {
                described[field] = json!(value);
            }
        }
        let kind = if deletion.made_marker { "Delete Marker Created" } else { "Permanently Deleted" };
        let detail = json!({ "object": described, "reason": "DeleteObject", "deletion-type": kind });
        self.tell(bucket, "Object Deleted", &detail);
    }

    /// `detail` is what the kinds of events differ in.
    fn tell(&self, bucket: &Bucket, detail_type: &str, detail: &Value) {
        let mut whole = json!({
            "version": "0",
            "bucket": {"name": bucket.settings.name},
            "request-id": Uuid::new_v4().simple().to_string()[..16].to_uppercase(),
            "requester": account::ID,
            "source-ip-address": "127.0.0.1",
        });
        for (field, value) in detail.as_object().into_iter().flatten() {
            whole[field] = value.clone();
        }
        let event = envelope("aws.s3", detail_type, &[bucket_arn(&bucket.settings.name)], &whole);
        // Nobody listens while the stack is being stopped.
        drop(self.events.send(event));
    }
}

/// Who calls, as the access check noted it.
pub(crate) fn caller(extensions: &Extensions) -> S3Result<Caller> {
    extensions.get::<Caller>().cloned().ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))
}

/// The answer for a key that is not there.
pub(crate) fn missing_key() -> S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist.")
}

/// The answer when the disk failed.
pub(crate) fn disk_failed(error: io::Error) -> S3Error {
    S3Error::with_source(S3ErrorCode::InternalError, Box::new(error))
}

/// The answer for a write that did not happen.
pub(crate) fn not_written(error: WriteError) -> S3Error {
    match error {
        WriteError::Precondition => {
            s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
        }
        WriteError::Missing => missing_key(),
        WriteError::Io(error) => disk_failed(error),
    }
}

/// The version id that an answer names: none in a bucket without versions.
pub(crate) fn named_version(bucket: &Bucket, version: &Version) -> Option<String> {
    bucket.settings.versioned.then(|| version.id.clone())
}

/// A time as s3s has it; S3 shows whole seconds.
pub(crate) fn timestamp(time: jiff::Timestamp) -> Timestamp {
    let seconds = u64::try_from(time.as_second()).unwrap_or_default();
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// An `ETag` as s3s has it.
pub(crate) fn etag(value: &str) -> ETag {
    ETag::Strong(value.to_owned())
}

/// The fields that a checksum has in answers.
pub(crate) fn checksum_fields(checksum: &Checksum) -> s3s::dto::Checksum {
    use crate::s3::sums::Algorithm;
    let value = Some(checksum.value.clone());
    let mut fields = s3s::dto::Checksum::default();
    match checksum.algorithm {
        Algorithm::Crc32 => fields.checksum_crc32 = value,
        Algorithm::Crc32c => fields.checksum_crc32c = value,
        Algorithm::Crc64Nvme => fields.checksum_crc64nvme = value,
        Algorithm::Sha1 => fields.checksum_sha1 = value,
        Algorithm::Sha256 => fields.checksum_sha256 = value,
    }
    fields.checksum_type = Some(s3s::dto::ChecksumType::from_static(if checksum.is_composite() {
        s3s::dto::ChecksumType::COMPOSITE
    } else {
        s3s::dto::ChecksumType::FULL_OBJECT
    }));
    fields
}

/// Who owns everything.
pub(crate) fn owner() -> Owner {
    Owner {
        display_name: None,
        // Canonical user ids have 64 hexadecimal digits.
        id: Some(account::ID.repeat(6)[..64].to_owned()),
    }
}

type Done<T> = S3Result<S3Response<T>>;

#[async_trait::async_trait]
impl S3 for Operations {
    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> Done<ListBucketsOutput> {
        let buckets = self.buckets.values().map(|bucket| ListedBucket {
            bucket_region: Some(account::REGION.to_owned()),
            creation_date: Some(timestamp(bucket.created)),
            name: Some(bucket.settings.name.clone()),
        });
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets.collect()),
            owner: Some(owner()),
            ..ListBucketsOutput::default()
        }))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Done<HeadBucketOutput> {
        self.bucket(&request.input.bucket)?;
        Ok(S3Response::with_status(
            HeadBucketOutput { bucket_region: Some(account::REGION.to_owned()), ..HeadBucketOutput::default() },
            StatusCode::OK,
        ))
    }

    async fn get_bucket_location(&self, request: S3Request<GetBucketLocationInput>) -> Done<GetBucketLocationOutput> {
        self.bucket(&request.input.bucket)?;
        // S3 has no name for us-east-1 here.
        Ok(S3Response::new(GetBucketLocationOutput {
            location_constraint: Some(BucketLocationConstraint::from_static("")),
        }))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> Done<GetBucketVersioningOutput> {
        let versioned = self.bucket(&request.input.bucket)?.settings.versioned;
        Ok(S3Response::new(GetBucketVersioningOutput {
            mfa_delete: None,
            status: versioned.then(|| BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED)),
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Done<GetObjectOutput> {
        self.get(request)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Done<HeadObjectOutput> {
        self.head(request)
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> Done<PutObjectOutput> {
        self.put(request).await
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> Done<CopyObjectOutput> {
        self.copy(request)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> Done<DeleteObjectOutput> {
        self.delete(&request.input)
    }

    async fn delete_objects(&self, request: S3Request<DeleteObjectsInput>) -> Done<DeleteObjectsOutput> {
        self.delete_several(request)
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> Done<ListObjectsV2Output> {
        self.list(request.input)
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> Done<ListObjectVersionsOutput> {
        self.list_versions(request.input)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> Done<CreateMultipartUploadOutput> {
        self.begin_upload(request)
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> Done<UploadPartOutput> {
        self.add_part(request).await
    }

    async fn upload_part_copy(&self, request: S3Request<UploadPartCopyInput>) -> Done<UploadPartCopyOutput> {
        self.copy_part(request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> Done<CompleteMultipartUploadOutput> {
        self.complete_upload(request)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Done<AbortMultipartUploadOutput> {
        self.abort_upload(&request.input)
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> Done<ListPartsOutput> {
        self.list_uploaded_parts(request.input)
    }

    async fn get_object_tagging(&self, request: S3Request<GetObjectTaggingInput>) -> Done<GetObjectTaggingOutput> {
        self.tags(request)
    }

    async fn put_object_tagging(&self, request: S3Request<PutObjectTaggingInput>) -> Done<PutObjectTaggingOutput> {
        self.set_tags(request)
    }

    async fn delete_object_tagging(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> Done<DeleteObjectTaggingOutput> {
        self.clear_tags(request)
    }
}
