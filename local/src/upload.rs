//! Putting a tarball into the bucket, as `aws s3 cp` does: in one request, or in parts when it is large.

use std::collections::HashMap;
use std::path::Path;

use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use gantry::naming::IMAGE_METADATA;
use gantry::plan::{PLATFORM_METADATA, PROFILE_METADATA};

use crate::cli::CommandError;
use crate::session::{Session, SessionError};

/// From here on an upload goes in parts; the AWS CLI's own threshold is 8 MiB, and one request takes 5 GiB at most.
const MULTIPART_BYTES: u64 = 1 << 30;

/// Bytes of a part: 10,000 of them make 2.5 TiB.
const PART_BYTES: u64 = 256 << 20;

/// One version of one key.
#[derive(Debug, Clone)]
pub(crate) struct Uploaded {
    /// The key.
    pub(crate) key: String,
    /// The version.
    pub(crate) version_id: Option<String>,
    /// The file's size.
    pub(crate) size_bytes: u64,
}

/// The key and the metadata under which a file is uploaded: `--as REPOSITORY:TAG` becomes the key
/// `<repository>/<tag>.tar`; without it the key has no folder, and the archive's own names count.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// The key.
    pub(crate) key: String,
    /// The metadata entry `image`.
    pub(crate) image: Option<String>,
    /// The metadata entry `profile`.
    pub(crate) profile: Option<String>,
    /// The metadata entry `platform`.
    pub(crate) platform: Option<String>,
}

impl Named {
    /// Names `file`, called `name` by the user.
    pub(crate) fn new(file: &Path, name: Option<&str>) -> Self {
        let file = file.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        let key = match name.and_then(|name| name.rsplit_once(':')) {
            Some((repository, tag)) if !tag.contains('/') && !tag.contains(',') => format!("{repository}/{tag}.tar"),
            _ => file,
        };
        Self { key, image: name.map(str::to_owned), profile: None, platform: None }
    }

    /// For this consumer.
    pub(crate) fn with_consumer(self, profile: Option<&str>, platform: Option<&str>) -> Self {
        Self { profile: profile.map(str::to_owned), platform: platform.map(str::to_owned), ..self }
    }

    pub(crate) fn metadata(&self) -> HashMap<String, String> {
        let entries =
            [(IMAGE_METADATA, &self.image), (PROFILE_METADATA, &self.profile), (PLATFORM_METADATA, &self.platform)];
        entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect()
    }
}

/// Puts `file` into the upload bucket.
pub(crate) async fn put(session: &Session, file: &Path, named: &Named) -> Result<Uploaded, CommandError> {
    let unreadable = |source| CommandError::File { path: file.to_owned(), source };
    let looked_at = tokio::fs::metadata(file).await.map_err(unreadable)?;
    if looked_at.is_dir() {
        return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
    }
    let size_bytes = looked_at.len();
    let metadata = named.metadata();
    let version_id = if size_bytes < MULTIPART_BYTES {
        let body = part(file, 0, size_bytes).await?;
        let put =
            session.s3.put_object().bucket(&session.uploads).key(&named.key).set_metadata(Some(metadata)).body(body);
        let put = put.send().await.map_err(|error| SessionError::request("the upload", error))?;
        put.version_id().map(str::to_owned)
    } else {
        in_parts(session, file, size_bytes, named, metadata).await?
    };
    Ok(Uploaded { key: named.key.clone(), version_id, size_bytes })
}

async fn part(file: &Path, offset: u64, length: u64) -> Result<ByteStream, CommandError> {
    let body = ByteStream::read_from().path(file).offset(offset).length(Length::Exact(length)).build().await;
    body.map_err(|error| SessionError::request(format!("reading {}", file.display()), error).into())
}

async fn in_parts(
    session: &Session,
    file: &Path,
    size_bytes: u64,
    named: &Named,
    metadata: HashMap<String, String>,
) -> Result<Option<String>, CommandError> {
    let (s3, bucket, key) = (&session.s3, &session.uploads, &named.key);
    let begun = s3.create_multipart_upload().bucket(bucket).key(key).set_metadata(Some(metadata)).send().await;
    let begun = begun.map_err(|error| SessionError::request("beginning the upload", error))?;
    let id = begun.upload_id().unwrap_or_default();
    let mut parts = Vec::new();
    let mut offset = 0;
    while offset < size_bytes {
        let length = PART_BYTES.min(size_bytes - offset);
        let number = i32::try_from(parts.len() + 1).unwrap_or(i32::MAX);
        let body = part(file, offset, length).await?;
        let put = s3.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number).body(body).send().await;
        let put = put.map_err(|error| SessionError::request(format!("uploading part {number}"), error))?;
        parts.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(put.e_tag().map(str::to_owned))
                .set_checksum_crc32(put.checksum_crc32().map(str::to_owned))
                .build(),
        );
        offset += length;
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete = s3.complete_multipart_upload().bucket(bucket).key(key).upload_id(id).multipart_upload(parts);
    let complete = complete.send().await.map_err(|error| SessionError::request("completing the upload", error))?;
    Ok(complete.version_id().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_key_or_metadata() {
        for (name, key, image) in [
            (None, "app.tar.gz", None),
            (Some("team/app:1.4.2"), "team/app/1.4.2.tar", Some("team/app:1.4.2")),
            (Some("app:1"), "app/1.tar", Some("app:1")),
            (Some("team/app"), "app.tar.gz", Some("team/app")),
            (Some("team/app:1,latest"), "app.tar.gz", Some("team/app:1,latest")),
        ] {
            let named = Named::new(Path::new("/tmp/app.tar.gz"), name);
            assert_eq!((named.key.as_str(), named.image.as_deref()), (key, image), "{name:?}");
        }
    }
}
