//! Paths below `/v2`.

use uuid::Uuid;

use crate::images::Digest;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Blob {
        repository: String,
        digest: Digest,
    },
    Uploads {
        repository: String,
    },
    Upload {
        repository: String,
        id: Uuid,
    },
    Manifest {
        repository: String,
        reference: String,
    },
    Tags {
        repository: String,
    },
    Referrers {
        repository: String,
        digest: Digest,
    },
    /// Where a blob's download is redirected to.
    Download(Digest),
    /// Listing all repositories, which ECR does by its control API only.
    Catalog,
    Unknown,
}

impl Route {
    /// Reads a request's path.
    pub(super) fn parse(path: &str) -> Self {
        // Some clients encode the colon of a digest.
        let path = path.replace("%3A", ":").replace("%3a", ":");
        Self::known(&path).unwrap_or(Self::Unknown)
    }

    fn known(path: &str) -> Option<Self> {
        if let Some(digest) = path.strip_prefix("/_blobs/") {
            return Some(Self::Download(digest.parse().ok()?));
        }
        let path = path.strip_prefix("/v2")?;
        if path.is_empty() || path == "/" {
            return Some(Self::Base);
        }
        let path = path.strip_prefix('/')?;
        if path == "_catalog" {
            return Some(Self::Catalog);
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            let repository = repository.to_owned();
            return Some(Self::Tags { repository });
        }
        if let Some(repository) = path.trim_end_matches('/').strip_suffix("/blobs/uploads") {
            let repository = repository.to_owned();
            return Some(Self::Uploads { repository });
        }
        // From the end: a repository's components may be called `blobs` or `manifests` too.
        let (rest, last) = path.rsplit_once('/')?;
        let repository = |kind: &str| rest.strip_suffix(kind).map(str::to_owned);
        if let Some(repository) = repository("/blobs/uploads") {
            let id = last.parse().ok()?;
            return Some(Self::Upload { repository, id });
        }
        if let Some(repository) = repository("/blobs") {
            let digest = last.parse().ok()?;
            return Some(Self::Blob { repository, digest });
        }
        if let Some(repository) = repository("/referrers") {
            let digest = last.parse().ok()?;
            return Some(Self::Referrers { repository, digest });
        }
        let repository = repository("/manifests")?;
        let reference = last.to_owned();
        Some(Self::Manifest { repository, reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let digest = Digest::of(b"");
        let id = Uuid::from_u128(7);
        let repository = || "team/blobs/app".to_owned();
        let encoded = digest.to_string().replace(':', "%3A");
        let cases = [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            (format!("/v2/team/blobs/app/blobs/{digest}"), Route::Blob { repository: repository(), digest }),
            (format!("/v2/team/blobs/app/blobs/{encoded}"), Route::Blob { repository: repository(), digest }),
            ("/v2/team/blobs/app/blobs/uploads/".to_owned(), Route::Uploads { repository: repository() }),
            ("/v2/team/blobs/app/blobs/uploads".to_owned(), Route::Uploads { repository: repository() }),
            (format!("/v2/team/blobs/app/blobs/uploads/{id}"), Route::Upload { repository: repository(), id }),
            (
                "/v2/team/blobs/app/manifests/1.0".to_owned(),
                Route::Manifest { repository: repository(), reference: "1.0".to_owned() },
            ),
            ("/v2/team/blobs/app/tags/list".to_owned(), Route::Tags { repository: repository() }),
            (format!("/v2/team/blobs/app/referrers/{digest}"), Route::Referrers { repository: repository(), digest }),
            (format!("/_blobs/{digest}"), Route::Download(digest)),
            ("/v2/r/blobs/latest".to_owned(), Route::Unknown),
            ("/v2/r/blobs/uploads/x".to_owned(), Route::Unknown),
            ("/v2x".to_owned(), Route::Unknown),
            ("/v1/".to_owned(), Route::Unknown),
        ];
        for (path, expected) in cases {
            assert_eq!(Route::parse(&path), expected, "{path}");
        }
    }
}
