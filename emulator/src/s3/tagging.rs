//! Object tags: the header of an upload, and the three tagging operations.

use std::collections::BTreeSet;

use s3s::{
    S3Request, S3Response, S3Result,
    dto::{
        DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
        PutObjectTaggingInput, PutObjectTaggingOutput, Tag,
    },
    s3_error,
};

use crate::{
    s3::{
        operations::{Operations, caller, named_version, not_written},
        store::Tags,
    },
    wire::Caller,
};

/// S3 User Guide, "Categorizing your objects using tags".
const MAX_TAGS: usize = 10;
const MAX_KEY_CHARS: usize = 128;
const MAX_VALUE_CHARS: usize = 256;

impl Operations {
    /// `GetObjectTagging`.
    pub(crate) fn tags(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let caller = caller(&request.extensions)?;
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let found = self.find(&caller, bucket, &input.key, input.version_id.as_deref())?;
        let tags = found.object.tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) });
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set: tags.collect(),
            version_id: named_version(bucket, &found.version),
        }))
    }

    /// `PutObjectTagging`: replaces the whole set.
    pub(crate) fn set_tags(
        &self,
        request: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let caller = caller(&request.extensions)?;
        let input = request.input;
        let tags = checked(
            input.tagging.tag_set.into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())),
        )?;
        let id = input.version_id.as_deref();
        let version_id = self.replace(&caller, &input.bucket, &input.key, id, tags)?;
        Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
    }

    /// `DeleteObjectTagging`.
    pub(crate) fn clear_tags(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let caller = caller(&request.extensions)?;
        let input = request.input;
        let id = input.version_id.as_deref();
        let version_id = self.replace(&caller, &input.bucket, &input.key, id, Tags::new())?;
        Ok(S3Response::new(DeleteObjectTaggingOutput { version_id }))
    }

    fn replace(
        &self,
        caller: &Caller,
        bucket: &str,
        key: &str,
        id: Option<&str>,
        tags: Tags,
    ) -> S3Result<Option<String>> {
        let bucket = self.bucket(bucket)?;
        let found = self.find(caller, bucket, key, id)?;
        bucket.tag(key, &found.version.id, tags).map_err(not_written)?;
        Ok(named_version(bucket, &found.version))
    }
}

/// The tags of an `x-amz-tagging` header, which is a query string.
pub(crate) fn from_header(header: Option<&str>) -> S3Result<Tags> {
    checked(
        form_urlencoded::parse(header.unwrap_or_default().as_bytes())
            .map(|(key, value)| (key.into_owned(), value.into_owned())),
    )
}

fn checked(pairs: impl Iterator<Item = (String, String)>) -> S3Result<Tags> {
    let pairs: Vec<(String, String)> = pairs.collect();
    if pairs.len() > MAX_TAGS {
        return Err(s3_error!(InvalidTag, "Object tags cannot be greater than {MAX_TAGS}"));
    }
    let keys: BTreeSet<&String> = pairs.iter().map(|(key, _)| key).collect();
    if keys.len() < pairs.len() {
        return Err(s3_error!(InvalidTag, "Cannot provide multiple Tags with the same key"));
    }
    for (key, value) in &pairs {
        if !(1..=MAX_KEY_CHARS).contains(&key.chars().count()) || !is_allowed(key) {
            return Err(s3_error!(InvalidTag, "The TagKey you have provided is invalid"));
        }
        if value.chars().count() > MAX_VALUE_CHARS || !is_allowed(value) {
            return Err(s3_error!(InvalidTag, "The TagValue you have provided is invalid"));
        }
    }
    Ok(pairs.into_iter().collect())
}

/// Letters, digits and spaces of any script, and `+ - = . _ : / @`.
fn is_allowed(text: &str) -> bool {
    text.chars().all(|character| {
        character.is_alphanumeric()
            || character.is_whitespace()
            || matches!(character, '+' | '-' | '=' | '.' | '_' | ':' | '/' | '@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_limits_kept() {
        let ten: Vec<String> = (0..10).map(|number| format!("k{number}=v")).collect();
        let eleven = format!("{}&more=1", ten.join("&"));
        let long = format!("k={}", "x".repeat(257));
        let cases: &[(&str, Result<usize, &str>)] = &[
            ("", Ok(0)),
            ("a=1&b=", Ok(2)),
            ("gantry-digest=sha256%3Aabc", Ok(1)),
            (&ten.join("&"), Ok(10)),
            (&eleven, Err("Object tags cannot be greater than 10")),
            ("a=1&a=2", Err("Cannot provide multiple Tags with the same key")),
            ("=1", Err("The TagKey you have provided is invalid")),
            ("a%2C=1", Err("The TagKey you have provided is invalid")),
            (&long, Err("The TagValue you have provided is invalid")),
        ];
        for (header, expected) in cases {
            let got = from_header(Some(header)).map(|tags| tags.len());
            let got = got.map_err(|error| error.message().unwrap_or_default().to_owned());
            assert_eq!(got, expected.map_err(str::to_owned), "{header}");
        }
        let tags = from_header(Some("gantry-digest=sha256%3Aabc&note=a+b")).unwrap();
        assert_eq!(tags["gantry-digest"], "sha256:abc");
        assert_eq!(tags["note"], "a b");
    }
}
