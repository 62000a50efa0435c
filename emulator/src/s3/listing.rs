//! `ListObjectsV2` and `ListObjectVersions`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use s3s::{
    S3Response, S3Result,
    dto::{
        CommonPrefix, DeleteMarkerEntry, EncodingType, ListObjectVersionsInput, ListObjectVersionsOutput,
        ListObjectsV2Input, ListObjectsV2Output, Object as Listed, ObjectStorageClass, ObjectVersion,
        ObjectVersionStorageClass,
    },
    s3_error,
};

use crate::s3::{
    operations::{Operations, etag, owner, timestamp},
    store::{Bucket, Version},
};

/// S3 lists at most this many keys at once.
const MAX_KEYS: i32 = 1000;

/// One page of a listing by key.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    /// Current versions that are no delete markers.
    objects: Vec<(String, Version)>,
    prefixes: Vec<String>,
    /// The last key or common prefix of this page, when more follow.
    next: Option<String>,
}

impl Operations {
    /// `ListObjectsV2`.
    pub(crate) fn list(&self, input: ListObjectsV2Input) -> S3Result<S3Response<ListObjectsV2Output>> {
        let bucket = self.bucket(&input.bucket)?;
        let encode = encoder(input.encoding_type.as_ref());
        let prefix = input.prefix.unwrap_or_default();
        let limit = limit(input.max_keys);
        let after = match &input.continuation_token {
            Some(token) => decode(token)
                .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let page = page(bucket, &prefix, delimiter.as_deref(), &after, limit);
        let fetch_owner = input.fetch_owner.unwrap_or_default();
        let contents = page.objects.iter().filter_map(|(key, version)| {
            let object = version.object.as_ref()?;
            Some(Listed {
                e_tag: Some(etag(&object.etag)),
                key: Some(encode(key)),
                last_modified: Some(timestamp(version.modified)),
                owner: fetch_owner.then(owner),
                size: i64::try_from(object.size_bytes()).ok(),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Listed::default()
            })
        });
        let contents: Vec<Listed> = contents.collect();
        let common: Vec<CommonPrefix> =
            page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(encode(prefix)) }).collect();
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len() + common.len()).ok(),
            name: Some(input.bucket.clone()),
            prefix: Some(encode(&prefix)),
            max_keys: i32::try_from(limit).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(|next| URL_SAFE_NO_PAD.encode(next)),
            contents: Some(contents),
            common_prefixes: Some(common),
            delimiter: delimiter.as_deref().map(&encode),
            encoding_type: input.encoding_type.clone(),
            start_after: input.start_after.as_deref().map(&encode),
            request_charged: None,
        }))
    }

    /// `ListObjectVersions`: keys in order, each one's newest version first.
    pub(crate) fn list_versions(
        &self,
        input: ListObjectVersionsInput,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let bucket = self.bucket(&input.bucket)?;
        let encode = encoder(input.encoding_type.as_ref());
        let prefix = input.prefix.unwrap_or_default();
        let limit = limit(input.max_keys);
        let key_marker = input.key_marker.unwrap_or_default();
        let id_marker = input.version_id_marker.filter(|id| !id.is_empty());
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let mut rows: Vec<(String, Version, bool)> = Vec::new();
        let mut prefixes: Vec<String> = Vec::new();
        let mut truncated = false;
        bucket.walk(&prefix, "", |key, versions| {
            if key < key_marker.as_str() || (key == key_marker && id_marker.is_none() && !key_marker.is_empty()) {
                return true;
            }
            if let Some(common) = common_prefix(key, &prefix, delimiter.as_deref()) {
                if prefixes.last() != Some(&common) && common > key_marker {
                    truncated = rows.len() + prefixes.len() == limit;
                    if !truncated {
                        prefixes.push(common);
                    }
                }
                return !truncated;
            }
            let mut skipping = key == key_marker && id_marker.is_some();
            for (position, version) in versions.iter().rev().enumerate() {
                if skipping {
                    skipping = Some(&version.id) != id_marker.as_ref();
                    continue;
                }
                if rows.len() + prefixes.len() == limit {
                    truncated = true;
                    return false;
                }
                rows.push((key.to_owned(), version.clone(), position == 0));
            }
            true
        });
        let last = rows.last().filter(|_| truncated);
        let next_key = last.map(|(key, _, _)| key.clone()).max(prefixes.last().filter(|_| truncated).cloned());
        let next_id =
            last.filter(|(key, _, _)| Some(key) == next_key.as_ref()).map(|(_, version, _)| version.id.clone());
        let (markers, versions) = split(&rows, &encode);
        Ok(S3Response::new(ListObjectVersionsOutput {
            common_prefixes: Some(
                prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(encode(prefix)) }).collect(),
            ),
            delete_markers: Some(markers),
            delimiter: delimiter.as_deref().map(&encode),
            encoding_type: input.encoding_type.clone(),
            is_truncated: Some(truncated),
            key_marker: Some(encode(&key_marker)),
            max_keys: i32::try_from(limit).ok(),
            name: Some(input.bucket.clone()),
            next_key_marker: next_key.map(|key| encode(&key)),
            next_version_id_marker: next_id,
            prefix: Some(encode(&prefix)),
            request_charged: None,
            version_id_marker: id_marker,
            versions: Some(versions),
        }))
    }
}

fn split(
    rows: &[(String, Version, bool)],
    encode: &impl Fn(&str) -> String,
) -> (Vec<DeleteMarkerEntry>, Vec<ObjectVersion>) {
    let mut markers = Vec::new();
    let mut versions = Vec::new();
    for (key, version, latest) in rows {
        let last_modified = Some(timestamp(version.modified));
        match &version.object {
            None => markers.push(DeleteMarkerEntry {
                is_latest: Some(*latest),
                key: Some(encode(key)),
                last_modified,
                owner: Some(owner()),
                version_id: Some(version.id.clone()),
            }),
            Some(object) => versions.push(ObjectVersion {
                e_tag: Some(etag(&object.etag)),
                is_latest: Some(*latest),
                key: Some(encode(key)),
                last_modified,
                owner: Some(owner()),
                size: i64::try_from(object.size_bytes()).ok(),
                storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
                version_id: Some(version.id.clone()),
                ..ObjectVersion::default()
            }),
        }
    }
    (markers, versions)
}

fn page(bucket: &Bucket, prefix: &str, delimiter: Option<&str>, after: &str, limit: usize) -> Page {
    let mut objects: Vec<(String, Version)> = Vec::new();
    let mut prefixes: Vec<String> = Vec::new();
    let mut last = None;
    let mut more = false;
    bucket.walk(prefix, after, |key, versions| {
        let Some(current) = versions.last().filter(|current| current.object.is_some()) else {
            return true;
        };
        let common = common_prefix(key, prefix, delimiter);
        if common.as_ref().is_some_and(|common| prefixes.last() == Some(common) || common == after) {
            return true;
        }
        if objects.len() + prefixes.len() == limit {
            more = true;
            return false;
        }
        last = Some(common.clone().unwrap_or_else(|| key.to_owned()));
        match common {
            Some(common) => prefixes.push(common),
            None => objects.push((key.to_owned(), current.clone())),
        }
        true
    });
    Page { objects, prefixes, next: last.filter(|_| more) }
}

/// `key` up to the first delimiter after the prefix.
fn common_prefix(key: &str, prefix: &str, delimiter: Option<&str>) -> Option<String> {
    let delimiter = delimiter?;
    let rest = key.strip_prefix(prefix)?;
    let end = rest.find(delimiter)? + delimiter.len();
    Some(format!("{prefix}{}", &rest[..end]))
}

fn limit(asked: Option<i32>) -> usize {
    usize::try_from(asked.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS)).unwrap_or_default()
}

fn decode(token: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

/// Names as the client wants them: percent-encoded for `encoding-type=url`, where a space is `%20`
/// because some clients do not read `+`.
fn encoder(encoding: Option<&EncodingType>) -> impl Fn(&str) -> String + use<> {
    let url = encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
    move |name: &str| {
        if !url {
            return name.to_owned();
        }
        form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20").replace("%2F", "/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::{
        BucketSettings,
        store::{Condition, Described, Object, Tags},
        sums::{Algorithm, Checksum},
    };

    fn bucket(folder: &std::path::Path, keys: &[&str]) -> Bucket {
        let settings = BucketSettings { name: "b".to_owned(), versioned: true, event_bridge: false };
        let bucket = Bucket::open(folder.to_owned(), settings).unwrap();
        for key in keys {
            let object = Object {
                segments: Vec::new(),
                etag: String::new(),
                checksum: Checksum { algorithm: Algorithm::Crc32, value: String::new() },
                described: Described::default(),
                tags: Tags::new(),
            };
            bucket.put(key, object, &Condition::Always).unwrap();
        }
        bucket
    }

    fn names(page: &Page) -> Vec<String> {
        let mut names: Vec<String> = page.objects.iter().map(|(key, _)| key.clone()).collect();
        names.extend(page.prefixes.clone());
        names.sort();
        names
    }

    #[test]
    fn pages_of_any_size_list_everything_once() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = bucket(folder.path(), &["a", "b/1", "b/2", "b/c/3", "c", "d/", "gone", "z z"]);
        bucket.delete("gone", None).unwrap();
        let cases = [
            ("", Some("/"), vec!["a", "b/", "c", "d/", "z z"]),
            ("b/", Some("/"), vec!["b/1", "b/2", "b/c/"]),
            ("b/", None, vec!["b/1", "b/2", "b/c/3"]),
            ("d/", Some("/"), vec!["d/"]),
            ("x", Some("/"), vec![]),
        ];
        for (prefix, delimiter, expected) in cases {
            for limit in [1, 2, 1000] {
                let mut seen = Vec::new();
                let mut after = String::new();
                loop {
                    let page = page(&bucket, prefix, delimiter, &after, limit);
                    assert!(page.objects.len() + page.prefixes.len() <= limit);
                    seen.extend(names(&page));
                    match page.next {
                        Some(next) => after = next,
                        None => break,
                    }
                }
                assert_eq!(seen, expected, "{prefix:?} {delimiter:?} by {limit}");
            }
        }
    }

    #[test]
    fn thousands_of_keys_come_in_pages_of_a_thousand() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<String> = (0..2300).map(|number| format!("images/team/app/{number:04}.json")).collect();
        let all = ["a", "images/other/app/1.json", "ledger/x"].into_iter().chain(keys.iter().map(String::as_str));
        let bucket = bucket(folder.path(), &all.collect::<Vec<_>>());
        let (mut seen, mut sizes, mut after) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = page(&bucket, "images/team/", None, &after, limit(None));
            sizes.push(page.objects.len());
            seen.extend(page.objects.into_iter().map(|(key, _)| key));
            let Some(next) = page.next else { break };
            after = next;
        }
        assert_eq!(sizes, [1000, 1000, 300]);
        assert_eq!(seen, keys);
        let folders = page(&bucket, "images/", Some("/"), "", limit(None));
        assert_eq!(
            (folders.prefixes, folders.objects.len()),
            (vec!["images/other/".to_owned(), "images/team/".to_owned()], 0)
        );
    }

    #[test]
    fn names_are_encoded_when_asked() {
        let plain = encoder(None);
        let url = encoder(Some(&EncodingType::from_static(EncodingType::URL)));
        let cases = [("a/b c", "a/b%20c"), ("1+1", "1%2B1"), ("ü%", "%C3%BC%25")];
        for (name, expected) in cases {
            assert_eq!(plain(name), name);
            assert_eq!(url(name), expected);
        }
    }
}
