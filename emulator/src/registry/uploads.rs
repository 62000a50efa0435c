//! Blobs in: upload sessions.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    disk::{Absorb, Sink},
    images::{Digest, ImagesError},
    registry::{
        Call, Registry, of_store,
        problem::{Failure, Problem},
    },
    wire::{Body, Response, empty},
};

/// The least that a chunk may have when another one follows it.
const MIN_CHUNK_BYTES: u64 = 5 << 20;

/// The SHA-256 of what is uploaded.
#[derive(Debug)]
struct Hash(Sha256);

impl Absorb for Hash {
    fn absorb(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// One upload.
#[derive(Debug)]
struct Session {
    sink: Sink<Hash>,
    /// The last byte's position in the first chunk, which every later answer repeats.
    first_chunk_end: Option<u64>,
    last_chunk_bytes: u64,
}

/// The uploads that are going on. They end with the process, as ECR's end after a while.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By repository and id.
    open: Mutex<Open>,
}

type Open = HashMap<(String, Uuid), Arc<tokio::sync::Mutex<Session>>>;

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// `POST …/uploads/`: mounts the blob if asked to and allowed, else starts a session.
    pub(super) fn start(&self, call: &Call, repository: &str) -> Result<Response, Failure> {
        if call.query("digest").is_some() {
            // No known client relies on a single POST with ECR.
            return Err(
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "The operation is unsupported.").into()
            );
        }
        self.authorize(call, "ecr:InitiateLayerUpload", repository)?;
        if self.exists(repository).is_err() {
            return Err(Failure::Dropped);
        }
        if let Some(mounted) = self.mount(call, repository)? {
            return Ok(mounted);
        }
        let sink = Sink::create(&self.images.incoming(), Hash(Sha256::new()))
            .map_err(|error| of_store(&ImagesError::Io(error)))?;
        let id = Uuid::new_v4();
        let session = Session { sink, first_chunk_end: None, last_chunk_bytes: 0 };
        self.sessions.lock().insert((repository.to_owned(), id), Arc::new(tokio::sync::Mutex::new(session)));
        Ok(progress(call, repository, id, StatusCode::ACCEPTED, 0))
    }

    /// Takes the blob from another repository; `None` when it must be uploaded instead.
    fn mount(&self, call: &Call, repository: &str) -> Result<Option<Response>, Failure> {
        let (Some(digest), Some(from)) = (call.query("mount"), call.query("from")) else {
            return Ok(None);
        };
        let Ok(digest) = digest.parse::<Digest>() else {
            return Ok(None);
        };
        let enabled = self.images.account_setting("BLOB_MOUNTING").as_deref() == Some("ENABLED");
        let encryption = |name: &str| {
            let encryption = self.images.read(name, |repository| repository.settings.encryption.clone());
            encryption.ok()
        };
        let mountable = enabled
            && self.authorize(call, "ecr:GetDownloadUrlForLayer", &from).is_ok()
            && encryption(&from) == encryption(repository)
            && self.images.can_mount(&from, &digest);
        if !mountable {
            return Ok(None);
        }
        self.images.note_blob(repository, digest).map_err(|error| of_store(&error))?;
        Ok(Some(created(call, repository, &digest)))
    }

    /// `PATCH`: the next chunk, or the whole blob.
    pub(super) async fn append(
        &self,
        call: &Call,
        repository: &str,
        id: &Uuid,
        body: &mut Body,
    ) -> Result<Response, Failure> {
        self.authorize(call, "ecr:UploadLayerPart", repository)?;
        let session = self.session(repository, id)?;
        let mut session = session.lock().await;
        session.take(&call.parts.headers, body).await?;
        let end = session.first_chunk_end.unwrap_or_default();
        Ok(progress(call, repository, *id, StatusCode::CREATED, end))
    }

    /// `PUT ?digest=`: the last chunk, or the whole blob, or nothing more; then the blob exists.
    pub(super) async fn commit(
        &self,
        call: &Call,
        repository: &str,
        id: &Uuid,
        body: &mut Body,
    ) -> Result<Response, Failure> {
        if carries_body(&call.parts.headers) {
            self.authorize(call, "ecr:UploadLayerPart", repository)?;
        }
        self.authorize(call, "ecr:CompleteLayerUpload", repository)?;
        let session = self.session(repository, id)?;
        let digest = call.query("digest").unwrap_or_default();
        let digest: Digest = digest.parse().map_err(|_error| {
            Problem::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "provided digest did not match uploaded content")
        })?;
        {
            let mut session = session.lock().await;
            if carries_body(&call.parts.headers) {
                session.take(&call.parts.headers, body).await?;
            }
        }
        self.sessions.lock().remove(&(repository.to_owned(), *id));
        // Another request may still be waiting for it; then there is nothing to commit.
        let session = Arc::try_unwrap(session).map_err(|_shared| unknown_upload(id))?.into_inner();
        let (file, hash, size_bytes) =
            session.sink.finish().await.map_err(|error| of_store(&ImagesError::Io(error)))?;
        if size_bytes == 0 {
            return Err(invalid_upload(StatusCode::BAD_REQUEST, "The upload does not contain any layer parts.").into());
        }
        if Digest::finish(hash.0) != digest {
            return Err(invalid_upload(
                StatusCode::BAD_REQUEST,
                "None of the provided layer digests match the calculated layer digest",
            )
            .into());
        }
        self.images.keep_blob(repository, digest, file).map_err(|error| of_store(&error))?;
        Ok(created(call, repository, &digest))
    }

    fn session(&self, repository: &str, id: &Uuid) -> Result<Arc<tokio::sync::Mutex<Session>>, Problem> {
        self.exists(repository)?;
        let key = (repository.to_owned(), *id);
        let session = self.sessions.lock().get(&key).map(Arc::clone);
        session.ok_or_else(|| unknown_upload(id))
    }
}

impl Session {
    /// Takes a body, which must begin where the last one ended; without `Content-Range` it begins at
    /// byte 0, so a body sent again is refused.
    ///
    /// What arrived before a body broke off counts as received.
    async fn take(&mut self, headers: &HeaderMap, body: &mut Body) -> Result<(), Failure> {
        let received = self.sink.received_bytes();
        let range = content_range(headers);
        let first = range.map_or(0, |(first, _)| first);
        if first != received {
            return Err(invalid_upload(
                StatusCode::RANGE_NOT_SATISFIABLE,
                &format!("First byte of the layer part is {first} instead of {received}"),
            )
            .into());
        }
        if received > 0 && self.last_chunk_bytes < MIN_CHUNK_BYTES {
            return Err(invalid_upload(
                StatusCode::BAD_REQUEST,
                &format!(
                    "Layer parts must be at least {MIN_CHUNK_BYTES} bytes, except the last; the last one had {}",
                    self.last_chunk_bytes
                ),
            )
            .into());
        }
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Failure::Dropped);
            };
            if let Ok(bytes) = frame.into_data() {
                self.sink.push(bytes).await.map_err(|error| of_store(&ImagesError::Io(error)))?;
            }
        }
        let end = self.sink.received_bytes();
        self.last_chunk_bytes = end - received;
        self.first_chunk_end.get_or_insert(end.saturating_sub(1));
        if range.is_some_and(|(_, last)| last.checked_add(1) != Some(end)) {
            return Err(invalid_upload(
                StatusCode::BAD_REQUEST,
                &format!("Last byte of the layer part is {} instead of what Content-Range says", end.saturating_sub(1)),
            )
            .into());
        }
        Ok(())
    }
}

/// The first and last byte of a `Content-Range`, with or without unit and total.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let value = value.trim_start_matches("bytes").trim_start();
    let (first, last) = value.split('/').next()?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn carries_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

fn invalid_upload(status: StatusCode, message: &str) -> Problem {
    Problem::new(status, "BLOB_UPLOAD_INVALID", message)
}

fn unknown_upload(id: &Uuid) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", &format!("The upload '{id}' could not be found"))
}

fn progress(call: &Call, repository: &str, id: Uuid, status: StatusCode, end: u64) -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let location = format!("{}/v2/{repository}/blobs/uploads/{id}?_state={}", call.origin(), id.simple());
    for (name, value) in [("location", location), ("range", format!("0-{end}")), ("docker-upload-uuid", id.to_string())]
    {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}

fn created(call: &Call, repository: &str, digest: &Digest) -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    let location = format!("{}/v2/{repository}/blobs/{digest}", call.origin());
    for (name, value) in [("location", location), ("docker-content-digest", digest.to_string())] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}
