//! Signatures and permissions: which IAM actions each operation needs, on which resource.
//!
//! The actions are those of the S3 API reference. The traps: with a version id only the
//! `…Version` action is checked, without one only the plain action; tags sent with an upload need
//! the tagging action too; `If-Match` on a write needs the right to read.

use std::{borrow::Cow, sync::Arc};

use s3s::{
    S3Error, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
    path::S3Path,
    s3_error,
};

use crate::{
    iam::{Denied, Gate},
    wire::Caller,
};

/// Asks the gate for secrets and permissions.
#[derive(Debug)]
pub(crate) struct Access {
    gate: Arc<Gate>,
}

impl Access {
    /// Uses the keys and policies of `gate`.
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }
}

/// The ARN of a bucket.
pub(crate) fn bucket_arn(bucket: &str) -> String {
    format!("arn:aws:s3:::{bucket}")
}

/// The ARN of an object.
pub(crate) fn object_arn(bucket: &str, key: &str) -> String {
    format!("arn:aws:s3:::{bucket}/{key}")
}

/// S3's answer to a denied call.
pub(crate) fn denied(denied: &Denied) -> S3Error {
    s3_error!(AccessDenied, "{denied}")
}

#[async_trait::async_trait]
impl S3Auth for Access {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.gate.secret_of(access_key) {
            Some(secret) => Ok(SecretKey::from(secret)),
            None => {
                Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
            }
        }
    }
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let caller: Caller = cx
            .credentials()
            .and_then(|credentials| self.gate.caller_of(&credentials.access_key))
            .ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))?;
        let operation = cx.s3_op().name();
        let asked = Asked {
            version: query(cx, "versionId").is_some(),
            tags: cx.headers().contains_key("x-amz-tagging"),
            if_match: cx.headers().contains_key(http::header::IF_MATCH),
        };
        let Some(actions) = actions(operation, asked) else {
            tracing::warn!(operation, "S3 operation is not implemented");
            return Err(s3_error!(NotImplemented, "{operation} is not implemented by the embedded S3"));
        };
        let resource = match cx.s3_path() {
            S3Path::Root => "*".to_owned(),
            S3Path::Bucket { bucket } => bucket_arn(bucket),
            S3Path::Object { bucket, key } => object_arn(bucket, key),
        };
        let mut context = Vec::new();
        for (parameter, key) in [("prefix", "s3:prefix"), ("delimiter", "s3:delimiter")] {
            if let Some(value) = query(cx, parameter) {
                context.push((key.to_owned(), value));
            }
        }
        for action in actions {
            self.gate.check(&caller, action, &resource, &context).map_err(|refused| denied(&refused))?;
        }
        cx.extensions_mut().insert(caller);
        Ok(())
    }
}

fn query(cx: &S3AccessContext<'_>, name: &str) -> Option<String> {
    form_urlencoded::parse(cx.uri().query()?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| Cow::into_owned(value))
}

/// What of a request decides about the actions that it needs.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    version: bool,
    tags: bool,
    if_match: bool,
}

/// The actions that `operation` needs; `None` when the operation is not implemented.
fn actions(operation: &str, asked: Asked) -> Option<Vec<&'static str>> {
    let by_version = |plain, version| if asked.version { version } else { plain };
    let mut actions = vec![match operation {
        "ListBuckets" => "s3:ListAllMyBuckets",
        "HeadBucket" | "ListObjectsV2" => "s3:ListBucket",
        "ListObjectVersions" => "s3:ListBucketVersions",
        "GetBucketLocation" => "s3:GetBucketLocation",
        "GetBucketVersioning" => "s3:GetBucketVersioning",
        "GetObject" | "HeadObject" => by_version("s3:GetObject", "s3:GetObjectVersion"),
        "DeleteObject" => by_version("s3:DeleteObject", "s3:DeleteObjectVersion"),
        "GetObjectTagging" => by_version("s3:GetObjectTagging", "s3:GetObjectVersionTagging"),
        "PutObjectTagging" => by_version("s3:PutObjectTagging", "s3:PutObjectVersionTagging"),
        "DeleteObjectTagging" => by_version("s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"),
        "PutObject"
        | "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload" => "s3:PutObject",
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        "ListParts" => "s3:ListMultipartUploadParts",
        // Each key is asked about when the body has been read.
        "DeleteObjects" => return Some(Vec::new()),
        _ => return None,
    }];
    let writes = actions == ["s3:PutObject"];
    if writes && asked.tags {
        actions.push("s3:PutObjectTagging");
    }
    if writes && asked.if_match {
        actions.push("s3:GetObject");
    }
    Some(actions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_follow_the_request() {
        let plain = Asked::default();
        let version = Asked { version: true, ..plain };
        let tags = Asked { tags: true, ..plain };
        let if_match = Asked { if_match: true, ..plain };
        let cases: &[(&str, Asked, &[&str])] = &[
            ("GetObject", plain, &["s3:GetObject"]),
            ("GetObject", version, &["s3:GetObjectVersion"]),
            ("GetObject", if_match, &["s3:GetObject"]),
            ("HeadObject", version, &["s3:GetObjectVersion"]),
            ("PutObject", plain, &["s3:PutObject"]),
            ("PutObject", tags, &["s3:PutObject", "s3:PutObjectTagging"]),
            ("PutObject", if_match, &["s3:PutObject", "s3:GetObject"]),
            ("PutObjectTagging", version, &["s3:PutObjectVersionTagging"]),
            ("GetObjectTagging", version, &["s3:GetObjectVersionTagging"]),
            ("DeleteObjects", plain, &[]),
        ];
        for (operation, asked, expected) in cases {
            assert_eq!(actions(operation, *asked).as_deref(), Some(*expected), "{operation}");
        }
        assert_eq!(actions("PutBucketPolicy", plain), None);
    }
}
