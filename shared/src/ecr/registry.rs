//! The client of the registry HTTP API, as ECR implements it (OCI distribution spec, "Pushing blobs" and "Pushing
//! manifests"; what differs on ECR is noted where it matters).
//!
//! Small requests are retried here; a request with a streamed body is not, since the body is spent: its blob is
//! sent again from the first byte in a new upload session. ECR answers 416 to a body that is repeated at the same
//! upload address.

mod answer;
mod watch;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::Stream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use reqwest::{Body, Response};
use url::{Host, Url};

use super::RegistryError;
use super::token::{Token, TokenSource};
use crate::image::{Digest, Manifest, MediaType, Repository, Tag};
use crate::limits;
use crate::retry::retry;
use crate::timeouts::Timeouts;
use crate::version::USER_AGENT;

use answer::{Refusal, limited_body};
use watch::Watch;

/// A registry that ECR's token opens.
#[derive(Debug)]
pub struct Registry {
    http: reqwest::Client,
    tokens: TokenSource,
    timeouts: Timeouts,
}

/// A manifest as the registry stores it.
#[derive(Debug, Clone)]
pub struct StoredManifest {
    /// Byte for byte.
    pub bytes: Bytes,
    /// Its `Content-Type`.
    pub media_type: MediaType,
    /// The hash of `bytes`, made here.
    pub digest: Digest,
}

/// One upload session: an address that takes one body. Consumed by each step, so none can be used twice.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    address: Url,
}

/// A body to be sent: what it is made of, as it comes.
pub trait Chunks: Stream<Item = io::Result<Bytes>> + Send + 'static {}

impl<S: Stream<Item = io::Result<Bytes>> + Send + 'static> Chunks for S {}

/// A request before it has a token.
struct Call<'a> {
    method: Method,
    path: &'a str,
    /// The IAM action that ECR checks for it.
    action: &'static str,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: &'a str, action: &'static str) -> Self {
        Self { method, path, action, headers: Vec::new(), body: Bytes::new() }
    }

    fn name(&self) -> String {
        format!("{} /{}", self.method, self.path)
    }
}

impl Registry {
    /// A registry opened by `tokens`, reached by `tls` or, without it, by TLS with what the machine trusts, and given as
    /// long as `timeouts` say. Connections are kept and shared.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unreachable`] when the TLS stack cannot be set up.
    pub fn new(
        tokens: TokenSource,
        tls: Option<rustls::ClientConfig>,
        timeouts: Timeouts,
    ) -> Result<Self, RegistryError> {
        let http = match tls {
            Some(tls) => reqwest::Client::builder().tls_backend_preconfigured(tls),
            None => reqwest::Client::builder(),
        };
        let http = http
            .user_agent(USER_AGENT)
            .connect_timeout(timeouts.connect)
            // No read timeout here: it would run from a request's start, however long its body takes to send.
            // The token must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| RegistryError::Unreachable { request: "any request".to_owned(), source })?;
        Ok(Self { http, tokens, timeouts })
    }

    /// Host and port of the registry, as they stand in front of a repository in an image's URI.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Token`] (transient).
    pub async fn host(&self) -> Result<String, RegistryError> {
        let token = self.tokens.token().await?;
        let host = token.endpoint.host_str().unwrap_or_default();
        Ok(match token.endpoint.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }

    /// The size of a blob that `repository` holds, `None` when it does not; a holder that does not say the size
    /// gives 0.
    ///
    /// # Errors
    ///
    /// [`RegistryError`], transient.
    pub async fn blob_size(&self, repository: &Repository, digest: Digest) -> Result<Option<u64>, RegistryError> {
        let path = format!("v2/{repository}/blobs/{digest}");
        let answer = self.request(Call::new(Method::HEAD, &path, "ecr:BatchCheckLayerAvailability")).await;
        match answer {
            Ok(answer) => Ok(Some(content_length(answer.headers()))),
            Err((refusal, _)) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
            Err((refusal, call)) => Err(refusal.into_error(call.name(), call.action, repository)),
        }
    }

    /// The bytes of a small blob, such as an image config; `None` when `repository` does not hold it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooLarge`] above [`limits::JSON_BYTES`]; the rest is transient.
    pub async fn small_blob(&self, repository: &Repository, digest: Digest) -> Result<Option<Bytes>, RegistryError> {
        let path = format!("v2/{repository}/blobs/{digest}");
        let call = Call::new(Method::GET, &path, "ecr:GetDownloadUrlForLayer");
        let name = call.name();
        let answer = match self.request(call).await {
            Ok(answer) => answer,
            Err((refusal, _)) if refusal.status == StatusCode::NOT_FOUND => return Ok(None),
            Err((refusal, call)) => return Err(refusal.into_error(call.name(), call.action, repository)),
        };
        let answer = if answer.status().is_redirection() { self.redirected(&answer, &name).await? } else { answer };
        limited_body(answer, limits::JSON_BYTES, &name).await.map(Some)
    }

    /// Follows one redirect to where a blob's bytes are: a signed address of S3, which gets no token.
    async fn redirected(&self, answer: &Response, name: &str) -> Result<Response, RegistryError> {
        let location = header(answer.headers(), &LOCATION).and_then(|location| answer.url().join(location).ok());
        let Some(address) = location else {
            return Err(RegistryError::Malformed { request: name.to_owned(), wanted: "a Location header" });
        };
        if !may_be_read_from(&address, answer.url()) {
            return Err(RegistryError::ForeignLocation { host: address.host_str().unwrap_or_default().to_owned() });
        }
        let request = || async {
            let request = self.http.get(address.clone()).timeout(self.timeouts.answer);
            let answer = self.answer(request, name).await;
            answer.map_err(|refusal| refusal.into_address_error(name))
        };
        retry("reading a blob", limits::REQUEST_ATTEMPTS, &self.timeouts, request).await
    }

    /// The manifest under a tag or digest, `None` when there is none (or no such repository).
    ///
    /// # Errors
    ///
    /// [`RegistryError`], transient.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<StoredManifest>, RegistryError> {
        let path = format!("v2/{repository}/manifests/{reference}");
        let mut call = Call::new(Method::GET, &path, "ecr:BatchGetImage");
        call.headers.push((ACCEPT, MediaType::ACCEPT_MANIFESTS.to_owned()));
        let name = call.name();
        match self.request(call).await {
            Ok(answer) => {
                let media_type = header(answer.headers(), &CONTENT_TYPE).unwrap_or(MediaType::OCI_MANIFEST);
                let media_type = MediaType::from(media_type);
                let bytes = limited_body(answer, limits::MANIFEST_BYTES, &name).await?;
                Ok(Some(StoredManifest { digest: Digest::of(&bytes), bytes, media_type }))
            }
            Err((refusal, _)) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
            Err((refusal, call)) => Err(refusal.into_error(call.name(), call.action, repository)),
        }
    }

    /// Puts the manifest `digest`, byte for byte, under another tag; `false` when it is not there, or is no manifest.
    ///
    /// # Errors
    ///
    /// As of [`Self::put_manifest`].
    pub async fn retag(&self, repository: &Repository, digest: Digest, tag: &Tag) -> Result<bool, RegistryError> {
        let stored = self.manifest(repository, &digest.to_string()).await?;
        let manifest = stored.and_then(|stored| Manifest::parse(stored.bytes, stored.media_type).ok());
        let Some(manifest) = manifest else { return Ok(false) };
        self.put_manifest(repository, tag.as_str(), &manifest).await?;
        Ok(true)
    }

    /// Puts `manifest` under `reference`, a tag or its own digest. Everything it names must be there.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TagTaken`] and [`RegistryError::ManifestRefused`] (permanent),
    /// [`RegistryError::BlobsMissing`] and the rest (transient).
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        reference: &str,
        manifest: &Manifest,
    ) -> Result<(), RegistryError> {
        let path = format!("v2/{repository}/manifests/{reference}");
        retry("putting a manifest", limits::REQUEST_ATTEMPTS, &self.timeouts, || async {
            let mut call = Call::new(Method::PUT, &path, "ecr:PutImage");
            call.headers.push((CONTENT_TYPE, manifest.media_type.as_str().to_owned()));
            call.body = manifest.bytes.clone();
            let answer = self.once(&call).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(refusal) => return Err(refusal.into_manifest_error(call.name(), repository, reference)),
            };
            // ECR gives no Location here; the digest, where it is given, must be ours.
            let stored = header(answer.headers(), &HeaderName::from_static("docker-content-digest"));
            match stored {
                Some(found) if found != manifest.digest.to_string() => Err(RegistryError::WrongDigest {
                    what: "a manifest",
                    found: found.to_owned(),
                    wanted: manifest.digest,
                }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Asks the registry to take a blob over from another repository; `false` when it would rather be sent the
    /// bytes. ECR mounts only when the account has switched it on.
    ///
    /// # Errors
    ///
    /// [`RegistryError`], transient; the caller can always upload instead.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: Digest,
        from: &Repository,
    ) -> Result<bool, RegistryError> {
        let path = format!("v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
        match self.request(Call::new(Method::POST, &path, "ecr:InitiateLayerUpload")).await {
            Ok(answer) => Ok(answer.status() == StatusCode::CREATED),
            Err((refusal, call)) => Err(refusal.into_error(call.name(), call.action, repository)),
        }
    }

    /// Opens an upload session in `repository`, which must exist. Asked once: what needs the session is repeated with it.
    ///
    /// # Errors
    ///
    /// [`RegistryError`], transient; a dropped connection may mean that the repository is missing.
    pub async fn start(&self, repository: &Repository) -> Result<Upload, RegistryError> {
        let path = format!("v2/{repository}/blobs/uploads/");
        let call = Call::new(Method::POST, &path, "ecr:InitiateLayerUpload");
        let name = call.name();
        let answer = match self.once(&call).await {
            Ok(answer) => answer,
            Err(refusal) => return Err(refusal.into_error(name, call.action, repository)),
        };
        match next_address(&answer)? {
            Some(address) => Ok(Upload { repository: repository.clone(), address }),
            None => Err(RegistryError::Malformed { request: name, wanted: "a Location header" }),
        }
    }

    /// Sends the whole blob as one PATCH of unknown length; the session must then be committed.
    ///
    /// # Errors
    ///
    /// [`RegistryError`], transient; the session is spent.
    pub async fn append(&self, upload: Upload, body: impl Chunks) -> Result<Upload, RegistryError> {
        let action = "ecr:UploadLayerPart";
        let answer = self.send_body(Method::PATCH, &upload, upload.address.clone(), None, body, action).await?;
        // ECR answers 201 where the specification says 202, and its Range header is not to be trusted.
        let address = next_address(&answer)?.unwrap_or(upload.address);
        Ok(Upload { address, ..upload })
    }

    /// Closes a session whose bytes hash to `digest`.
    ///
    /// # Errors
    ///
    /// [`RegistryError`], transient; ask with [`Registry::blob_size`] before sending anything again.
    pub async fn commit(&self, upload: Upload, digest: Digest) -> Result<(), RegistryError> {
        let address = with_digest(&upload.address, digest);
        let nothing = futures::stream::empty();
        self.send_body(Method::PUT, &upload, address, Some(0), nothing, "ecr:CompleteLayerUpload").await?;
        Ok(())
    }

    /// Sends a blob of known digest and size as one PUT.
    ///
    /// # Errors
    ///
    /// [`RegistryError`], transient; the session is spent.
    pub async fn put_blob(
        &self,
        upload: Upload,
        digest: Digest,
        size_bytes: u64,
        body: impl Chunks,
    ) -> Result<(), RegistryError> {
        let address = with_digest(&upload.address, digest);
        self.send_body(Method::PUT, &upload, address, Some(size_bytes), body, "ecr:UploadLayerPart").await?;
        Ok(())
    }

    async fn send_body(
        &self,
        method: Method,
        upload: &Upload,
        address: Url,
        length: Option<u64>,
        body: impl Chunks,
        action: &'static str,
    ) -> Result<Response, RegistryError> {
        // The query of an upload's address may be a signature, so it is not named.
        let name = format!("{method} {}", address.path());
        let token = self.tokens.token().await?;
        let watch = Watch::new();
        let body = match length {
            Some(0) => Body::from(""),
            _ => Body::wrap_stream(watch.over(body)),
        };
        let mut request =
            self.http.request(method, address.clone()).header(CONTENT_TYPE, "application/octet-stream").body(body);
        if same_origin(&address, &token.endpoint) {
            request = request.header(AUTHORIZATION, token.authorization.clone());
        }
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        let longest = self.timeouts.standstill;
        let answer = tokio::select! {
            answer = self.answer(request, &name) => answer,
            () = watch.stalled(longest) => return Err(RegistryError::Stalled { request: name, longest }),
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(refusal) => {
                if refusal.is_about_the_token() {
                    self.tokens.forget(&token).await;
                }
                Err(refusal.into_error(name, action, &upload.repository))
            }
        }
    }

    /// One small request, with retries of what is worth retrying.
    async fn request<'a>(&self, call: Call<'a>) -> Result<Response, (Refusal, Call<'a>)> {
        let outcome = retry("a registry request", limits::REQUEST_ATTEMPTS, &self.timeouts, || self.once(&call)).await;
        outcome.map_err(|refusal| (refusal, call))
    }

    /// One small request; a token that is refused is replaced once.
    async fn once(&self, call: &Call<'_>) -> Result<Response, Refusal> {
        let token = self.tokens.token().await.map_err(Refusal::before_sending)?;
        match self.once_with(call, &token).await {
            Err(refusal) if refusal.is_about_the_token() => {
                self.tokens.forget(&token).await;
                let token = self.tokens.token().await.map_err(Refusal::before_sending)?;
                self.once_with(call, &token).await
            }
            outcome => outcome,
        }
    }

    async fn once_with(&self, call: &Call<'_>, token: &Arc<Token>) -> Result<Response, Refusal> {
        let Ok(address) = token.endpoint.join(call.path) else {
            return Err(Refusal::before_sending(RegistryError::NoToken));
        };
        let mut request = self
            .http
            .request(call.method.clone(), address)
            // Whole, with the answer's body: a header a minute is no answer.
            .timeout(self.timeouts.answer)
            .header(AUTHORIZATION, token.authorization.clone())
            .body(call.body.clone());
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        self.answer(request, &call.name()).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder, name: &str) -> Result<Response, Refusal> {
        let answer = request.send().await.map_err(|source| {
            let source = source.without_url();
            Refusal::before_sending(RegistryError::Unreachable { request: name.to_owned(), source })
        })?;
        // A blob may be answered for by a redirect to where its bytes are: it is there.
        if answer.status().is_success() || answer.status() == StatusCode::TEMPORARY_REDIRECT {
            Ok(answer)
        } else {
            Err(Refusal::read(answer, name).await)
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn content_length(headers: &HeaderMap) -> u64 {
    header(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// Where an upload goes on: `Location` may be absolute or relative, and its query is kept. Another host is refused,
/// so that no answer can send image bytes elsewhere.
fn next_address(answer: &Response) -> Result<Option<Url>, RegistryError> {
    let Some(location) = header(answer.headers(), &LOCATION) else { return Ok(None) };
    let request = answer.url();
    let address = request.join(location).map_err(|_not_a_url| RegistryError::Malformed {
        request: request.path().to_owned(),
        wanted: "a Location header that is a URL",
    })?;
    if same_origin(&address, request) {
        Ok(Some(address))
    } else {
        Err(RegistryError::ForeignLocation { host: address.host_str().unwrap_or_default().to_owned() })
    }
}

/// Whether a redirect of `registry` to `address` is one that a registry has reason for: never to an address of this
/// machine or its neighbourhood, where the credentials of the function can be had, unless the registry itself is there;
/// and never from TLS to plain text.
fn may_be_read_from(address: &Url, registry: &Url) -> bool {
    if same_origin(address, registry) {
        return true;
    }
    let is_near = match address.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        // Also what is mapped or local in IPv6: no registry redirects to a bare address of it.
        Some(Host::Ipv6(_)) | None => true,
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
    };
    address.scheme() == "https" && !is_near
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

fn with_digest(address: &Url, digest: Digest) -> Url {
    let mut address = address.clone();
    address.query_pairs_mut().append_pair("digest", &digest.to_string());
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_no_place_where_credentials_can_be_had() {
        let aws = "https://123456789012.dkr.ecr.us-east-1.amazonaws.com/v2/";
        for (address, registry, may) in [
            ("https://prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com/x?X-Amz-Signature=1", aws, true),
            ("http://prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com/x", aws, false),
            ("https://169.254.169.254/latest/meta-data", aws, false),
            ("https://127.0.0.1:9001/2018-06-01/runtime", aws, false),
            ("https://[fe80::1]/", aws, false),
            ("https://localhost/", aws, false),
            ("file:///etc/passwd", aws, false),
            ("http://127.0.0.1:5000/elsewhere", "http://127.0.0.1:5000/v2/", true),
            ("http://127.0.0.1:5001/", "http://127.0.0.1:5000/v2/", false),
        ] {
            let (address, registry) = (address.parse().unwrap(), registry.parse().unwrap());
            assert_eq!(may_be_read_from(&address, &registry), may, "{address}");
        }
    }
}
