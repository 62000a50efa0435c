//! Keeping the board up to date: the uploads that are there when the page starts, then whatever passes the bus, and the
//! progress records of the functions.

use std::sync::Arc;

use aws_sdk_s3::Client;
use emulator::host::LogLine;
use futures::StreamExt as _;
use gantry::receipt::{Receipt, SUFFIX};
use gantry::state::Documents;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::board::{Board, Upload};
use crate::watch::progress;

/// Receipts read at once at the start.
const READS: usize = 16;

/// What is followed.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) s3: Client,
    pub(crate) uploads: String,
    /// Opened before the first listing, so that nothing falls between.
    pub(crate) bus: Receiver<Arc<Value>>,
    pub(crate) log: Receiver<LogLine>,
}

/// Follows until the stack is gone.
pub(crate) async fn follow(board: Arc<Board>, sources: Sources) {
    let Sources { s3, uploads, mut bus, mut log } = sources;
    let reader = Reader { board: Arc::clone(&board), documents: Documents::new(s3.clone(), &uploads) };
    if !there_already(&reader, &s3, &uploads).await {
        return;
    }
    let progress = async {
        loop {
            match log.recv().await {
                Ok(line) => {
                    if let Some((key, step)) = progress(&line.text) {
                        board.moved(&key, step);
                    }
                }
                // Progress that was missed is told again in a moment.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    };
    let events = async {
        loop {
            match bus.recv().await {
                Ok(event) => event_of(&reader, &uploads, &event),
                Err(RecvError::Lagged(_)) => {
                    if !there_already(&reader, &s3, &uploads).await {
                        return;
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    };
    tokio::join!(progress, events);
}

#[derive(Clone)]
struct Reader {
    board: Arc<Board>,
    documents: Documents,
}

impl Reader {
    async fn read(&self, key: &str) -> Option<Receipt> {
        let read = self.documents.read(&format!("{key}{SUFFIX}"), "a receipt").await;
        read.ok().flatten().map(|read| read.value)
    }

    /// Reads the receipt of `key` soon; one read serves the events that come until it begins.
    fn look(&self, key: String) {
        if !self.board.begin_look(&key) {
            return;
        }
        let reader = self.clone();
        tokio::spawn(async move {
            reader.board.end_wait(&key);
            if let Some(receipt) = reader.read(&key).await {
                reader.board.receipt(&key, receipt);
            }
        });
    }
}

fn event_of(reader: &Reader, uploads: &str, event: &Value) {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    if text("/source") != Some("aws.s3") || text("/detail/bucket/name") != Some(uploads) {
        return;
    }
    let Some(key) = text("/detail/object/key") else { return };
    match (text("/detail-type"), key.strip_suffix(SUFFIX)) {
        (Some("Object Created"), Some(key)) => reader.look(key.to_owned()),
        (Some("Object Created"), None) if !key.ends_with('/') => {
            reader.board.uploaded(Upload {
                bucket: uploads.to_owned(),
                key: key.to_owned(),
                version_id: text("/detail/object/version-id").map(str::to_owned),
                size_bytes: event.pointer("/detail/object/size").and_then(Value::as_u64),
                uploaded_at: text("/time").and_then(|time| time.parse().ok()),
                ..Upload::default()
            });
            // The receipt's event may have come first.
            reader.look(key.to_owned());
        }
        (Some("Object Deleted"), None) => reader.board.deleted(key),
        _ => {}
    }
}

/// Puts on the board what is in the bucket, oldest first. False when the stack is gone.
async fn there_already(reader: &Reader, s3: &Client, uploads: &str) -> bool {
    let mut pages = s3.list_objects_v2().bucket(uploads).into_paginator().send();
    let mut found: Vec<Upload> = Vec::new();
    while let Some(page) = pages.next().await {
        let Ok(page) = page else { return false };
        for object in page.contents() {
            let Some(key) = object.key().filter(|key| !key.ends_with(SUFFIX) && !key.ends_with('/')) else { continue };
            found.push(Upload {
                bucket: uploads.to_owned(),
                key: key.to_owned(),
                size_bytes: object.size().and_then(|size| u64::try_from(size).ok()),
                uploaded_at: object.last_modified().and_then(|time| Timestamp::new(time.secs(), 0).ok()),
                ..Upload::default()
            });
        }
    }
    found.sort_by_key(|upload| upload.uploaded_at);
    let mut read = futures::stream::iter(found)
        .map(|upload| async move {
            let receipt = reader.read(&upload.key).await;
            // One that is older than the object is of an earlier version.
            let is_its_own = |receipt: &Receipt| upload.uploaded_at.is_none_or(|at| at <= receipt.import.started_at);
            let receipt = receipt.filter(is_its_own);
            let version_id = receipt.as_ref().and_then(|receipt| receipt.upload.version_id.clone());
            Upload { version_id, receipt, ..upload }
        })
        .buffered(READS);
    while let Some(upload) = read.next().await {
        reader.board.uploaded(upload);
    }
    true
}
