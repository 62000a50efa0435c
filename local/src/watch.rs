//! Following one upload until its receipt is final: the functions' log lines say how far it is, the receipt what
//! became of it.

use std::time::Duration;

use futures::StreamExt as _;
use gantry::import::PROGRESS_TARGET;
use gantry::receipt::{Receipt, SUFFIX, State};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cli::CommandError;
use crate::session::{Session, SessionError};
use crate::upload::Uploaded;

/// A look at the receipt even when no log line comes, for lines that were missed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long a receipt that says *failed* is followed until people were told of it, too.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// How far one blob is; the fields of import's progress records.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BlobStep {
    /// Which one, counted from 0.
    pub(crate) at: usize,
    /// Of how many.
    pub(crate) of: usize,
    /// The archive's entry.
    pub(crate) entry: String,
    /// Its size in the archive.
    pub(crate) entry_bytes: u64,
    /// Bytes read so far.
    pub(crate) read_bytes: u64,
    /// Bytes sent so far.
    pub(crate) sent_bytes: u64,
    /// `sending`, `sent`, `reused` or `mounted`.
    pub(crate) how: String,
}

/// What a view is told.
#[derive(Debug)]
pub(crate) enum Step {
    /// A blob moved.
    Blob(BlobStep),
    /// A delivery failed, and is tried again; the words are the receipt's.
    Again(String),
    /// It is in ECR, and its release waits; the words are the receipt's.
    Waiting(String),
}

/// The functions' log lines from the moment it was opened.
pub(crate) struct Log {
    lines: mpsc::UnboundedReceiver<String>,
    /// When the delivery began whose receipt is known already.
    known: Option<Timestamp>,
}

impl Log {
    /// Opens the log of the stack. Do so before uploading, so that no line is missed.
    pub(crate) async fn open(session: &Session) -> Result<Self, SessionError> {
        let answer = reqwest::get(format!("{}/_emulator/log", session.endpoint)).await;
        let answer = answer.map_err(|error| SessionError::request("following the log", error))?;
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut chunks = answer.bytes_stream();
            let mut open = Vec::new();
            while let Some(Ok(chunk)) = chunks.next().await {
                for byte in chunk {
                    if byte != b'\n' {
                        open.push(byte);
                        continue;
                    }
                    let line = String::from_utf8_lossy(&std::mem::take(&mut open)).into_owned();
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { lines, known: None })
    }

    /// Does not take `receipt`, which was there before, for the answer.
    pub(crate) fn ignoring(self, receipt: Option<&Receipt>) -> Self {
        Self { known: receipt.map(|receipt| receipt.import.started_at), ..self }
    }

    /// Waits until the receipt of `upload` is final; `view` hears every step.
    pub(crate) async fn until_final(
        mut self,
        session: &Session,
        upload: &Uploaded,
        mut view: impl FnMut(Step),
    ) -> Result<Receipt, CommandError> {
        let mut told = None;
        let mut ended = None;
        let mut is_waiting = false;
        loop {
            let line = tokio::time::timeout(LOOK_EVERY, self.lines.recv()).await;
            let look = match line {
                Ok(Some(line)) => match step(&line, &upload.key) {
                    Some(Line::Blob(blob)) => {
                        view(Step::Blob(blob));
                        false
                    }
                    Some(Line::Ended) => true,
                    None => false,
                },
                // The log ended with its stack.
                Ok(None) => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    true
                }
                Err(_) => true,
            };
            if !look {
                continue;
            }
            let Some(receipt) = receipt(session, &upload.key).await? else { continue };
            if receipt.upload.version_id != upload.version_id || Some(receipt.import.started_at) == self.known {
                continue;
            }
            if receipt.state.is_final() {
                // A failure is told after it is written; a stack of our own must not end in between.
                let ended = *ended.get_or_insert_with(Instant::now);
                if receipt.state == State::Failed && !receipt.import.told && ended.elapsed() < TOLD_WITHIN {
                    continue;
                }
                return Ok(receipt);
            }
            if receipt.state == State::Imported && !std::mem::replace(&mut is_waiting, true) {
                view(Step::Waiting(receipt.summary));
                continue;
            }
            if receipt.import.reason.is_some() && told != Some(receipt.import.attempt) {
                told = Some(receipt.import.attempt);
                view(Step::Again(receipt.summary));
            }
        }
    }
}

enum Line {
    Blob(BlobStep),
    Ended,
}

/// The upload's key and the step, where a line that a function printed is a progress record.
pub(crate) fn progress(text: &str) -> Option<(String, BlobStep)> {
    // Most lines are something else, and need not be parsed.
    if !text.contains(PROGRESS_TARGET) {
        return None;
    }
    let record: Value = serde_json::from_str(text).ok()?;
    if record.get("target").and_then(Value::as_str) != Some(PROGRESS_TARGET) {
        return None;
    }
    let key = record.pointer("/span/s3.key").and_then(Value::as_str)?.to_owned();
    Some((key, serde_json::from_value(record).ok()?))
}

/// What a log line says about `key`, if anything.
fn step(line: &str, key: &str) -> Option<Line> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = line.get("text")?.as_str()?;
    if let Some((of, step)) = progress(text) {
        return (of == key).then_some(Line::Blob(step));
    }
    let record: Value = serde_json::from_str(text).ok()?;
    (record.get("type").and_then(Value::as_str) == Some("platform.report")).then_some(Line::Ended)
}

/// The receipt beside `key`, if there is one.
pub(crate) async fn receipt(session: &Session, key: &str) -> Result<Option<Receipt>, SessionError> {
    let documents = gantry::state::Documents::new(session.s3.clone(), &session.uploads);
    let read = documents.read(&format!("{key}{SUFFIX}"), "a receipt").await;
    Ok(read.map_err(|error| SessionError::request("reading the receipt", error))?.map(|read| read.value))
}
