//! Going through the upload bucket for what no event brought, and through the failed queue for what no receipt says.
//!
//! An upload of which nothing is heard is sent round again, but only while its message can be neither in the queue nor
//! in the failed queue; see [`QueueState::may_hold`]. Its receipt says so before it is sent, so that no second run does
//! the same.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::failed::{FailedUpload, Found};
use super::{FailedQueue, ImportQueue, Known, Listed, QueueState, Uploads, Why};
use crate::aws::CallError;
use crate::disposition::{Disposition, chain};
use crate::import::failed_notice;
use crate::limits;
use crate::notify::{Notifier, NotifyError};
use crate::receipt::{Attempt, ImportOutcome, ImportSection, Reason, Receipts, Resent, State, UploadId};
use crate::retry::Disposed;
use crate::state::{Documents, StateError};

/// Where a run that had no time left goes on.
const CURSOR: &str = "uploads.json";

const WANTED: &str = "where the uploads are gone on with";

/// The word of a receipt's reason for an upload that nothing was heard of.
const LOST: &str = "lost";

/// Goes through uploads; made once for each process.
#[derive(Debug)]
pub struct Reconciler {
    uploads: Uploads,
    queue: ImportQueue,
    failed: FailedQueue,
    failed_queue_arn: String,
    receipts: Receipts,
    notifier: Notifier,
    state: Documents,
    now: fn() -> Timestamp,
}

/// What a reconciler works with.
#[derive(Debug)]
pub struct Parts {
    /// The uploads.
    pub uploads: Uploads,
    /// Import's queue.
    pub queue: ImportQueue,
    /// The failed queue.
    pub failed: FailedQueue,
    /// Its ARN, for the command that sends its messages round again.
    pub failed_queue_arn: String,
    /// The only writer of receipts.
    pub receipts: Receipts,
    /// Who tells of uploads that came to nothing.
    pub notifier: Notifier,
    /// The state bucket.
    pub state: Documents,
}

/// What was found and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Uploads that were looked at.
    pub uploads: u64,
    /// Uploads of which nothing is heard, and whose message is nowhere.
    pub silent: u64,
    /// Those that were sent round again.
    pub resent: u64,
    /// Uploads that were given up: in the failed queue, or sent round often enough.
    pub given_up: u64,
    /// Failures that nobody had been told of.
    pub told: u64,
    /// Uploads that could not be looked at; the next pass takes them again.
    pub failed: u64,
    /// Whether the end of the bucket was reached.
    pub is_complete: bool,
}

/// Why a run did not come to its end; transient.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A receipt, or the place to go on from, could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// People could not be told.
    #[error(transparent)]
    Notify(#[from] NotifyError),
}

impl ReconcileError {
    /// A stable word for alarms.
    pub fn kind(&self) -> &'static str {
        let is_denied = match self {
            Self::Call(call) => call.is_denied(),
            Self::State(state) => state.denied_call().is_some(),
            Self::Notify(notify) => notify.denied_call().is_some(),
        };
        if is_denied { "operator" } else { "network" }
    }
}

impl Disposed for ReconcileError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Call(call) => call.disposition(),
            Self::State(state) => state.disposition(),
            Self::Notify(notify) => notify.disposition(),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Cursor {
    after: Option<String>,
}

/// What one upload asks for.
#[derive(Debug)]
enum Asks {
    /// For nothing.
    Nothing,
    /// For nothing: its message is in flight, as its receipt says.
    Running,
    /// To be sent round again, if its message is nowhere: nothing is heard of it.
    Silent(Box<Known>),
    /// To be told of: it failed, and whoever wrote so has died.
    Untold(Box<Known>),
}

/// Which version of which key.
type Version = (String, Option<String>);

impl Reconciler {
    /// A reconciler of `parts`. `now` is the clock.
    pub fn new(parts: Parts, now: fn() -> Timestamp) -> Self {
        let Parts { uploads, queue, failed, failed_queue_arn, receipts, notifier, state } = parts;
        Self { uploads, queue, failed, failed_queue_arn, receipts, notifier, state, now }
    }

    /// Makes the receipts of uploads in the failed queue say so, then goes through the bucket until `deadline`, at most
    /// [`limits::UPLOADS_A_RUN`] uploads, and sends round again what is silent. Two requests for each upload; the next
    /// run goes on where this one stopped.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`], when the queues cannot be asked or the bucket cannot be listed; what is wrong with one upload
    /// is counted, and ends no run.
    pub async fn run(&self, deadline: Instant) -> Result<Reconciled, ReconcileError> {
        let mut done = Reconciled::default();
        // Asked before the walk: a message that is taken from now on belongs to nobody who has been silent until now.
        let queue = self.queue.state().await?;
        let Found { uploads, is_whole } = self.failed.look().await?;
        let mut failed_versions = BTreeSet::new();
        let mut kept = Vec::with_capacity(uploads.len());
        for message in uploads {
            failed_versions
                .extend(message.objects.iter().map(|object| (object.key.clone(), object.version_id.clone())));
            match self.failed_message(&message, &queue, &mut done).await {
                Ok(true) => self.failed.take_out(&message).await?,
                Ok(false) => kept.push(message),
                Err(error) => {
                    self.count_failed(&error, &mut done);
                    kept.push(message);
                }
            }
        }
        self.failed.give_back(&kept).await;

        let (silent, running) = self.walk(&queue, deadline, &mut done).await?;
        let now = (self.now)();
        for known in silent {
            let version: Version = (known.upload.key.clone(), known.upload.version_id.clone());
            // An event need not name the version.
            let is_there = failed_versions.contains(&version) || failed_versions.contains(&(version.0, None));
            if is_there || !is_whole || queue.may_hold(known.silent_for(now), running) {
                continue;
            }
            done.silent += 1;
            if let Err(error) = self.send_round(&known, &queue, &mut done).await {
                self.count_failed(&error, &mut done);
            }
        }
        Ok(done)
    }

    fn count_failed(&self, error: &ReconcileError, done: &mut Reconciled) {
        done.failed += 1;
        tracing::error!(s3.bucket = self.uploads.bucket(), error = chain(error), "an upload could not be reconciled");
    }

    /// Makes the receipts of what a message of the failed queue names say so. Gives whether the message is done with:
    /// every upload that it names was decided since, or is no more.
    async fn failed_message(
        &self,
        message: &FailedUpload,
        queue: &QueueState,
        done: &mut Reconciled,
    ) -> Result<bool, ReconcileError> {
        let mut is_done = true;
        for object in &message.objects {
            if object.bucket != self.uploads.bucket() {
                is_done = false;
                continue;
            }
            let Some(known) = self.uploads.find(&object.key).await? else { continue };
            if object.version_id.is_some() && object.version_id != known.upload.version_id {
                self.overtaken(&UploadId::from(object), &known, queue).await?;
                continue;
            }
            match known.state() {
                Some(State::Imported | State::Released | State::Held | State::Superseded) => {}
                state => {
                    is_done = false;
                    // Somebody may have sent it round again, and a delivery be at it.
                    let is_young = known.silent_for((self.now)()) < duration(limits::DELIVERY);
                    if state.is_none() || (state == Some(State::Importing) && !is_young) {
                        self.give_up(&known, queue, &self.failed_reason(&known), done).await?;
                    }
                }
            }
        }
        Ok(is_done)
    }

    /// Looks at uploads from where the last run stopped. Gives those of which nothing is heard, and how many say that
    /// their message is in flight.
    async fn walk(
        &self,
        queue: &QueueState,
        deadline: Instant,
        done: &mut Reconciled,
    ) -> Result<(Vec<Known>, u64), ReconcileError> {
        let mut after = self.state.read::<Cursor>(CURSOR, WANTED).await?.and_then(|read| read.value.after);
        let (mut silent, mut running) = (Vec::new(), 0);
        'pages: loop {
            let page = self.uploads.page(after.as_deref()).await?;
            for some in page.uploads.chunks(limits::UPLOADS_AT_ONCE) {
                let is_enough = done.uploads >= limits::UPLOADS_A_RUN || silent.len() >= limits::RESENT_A_RUN;
                let looks = stream::iter(some.to_vec()).map(|listed| async move { self.look(&listed, queue).await });
                let looks = looks.buffered(limits::UPLOADS_AT_ONCE).collect::<Vec<_>>();
                // What has no time left is the next run's first.
                let asked = if is_enough { None } else { timeout_at(deadline, looks).await.ok() };
                let Some(asked) = asked else { break 'pages };
                for asks in asked {
                    done.uploads += 1;
                    match asks {
                        Ok(Asks::Nothing) => {}
                        Ok(Asks::Running) => running += 1,
                        Ok(Asks::Silent(known)) => silent.push(*known),
                        Ok(Asks::Untold(known)) => match self.tell(&known).await {
                            Ok(()) => done.told += 1,
                            Err(error) => self.count_failed(&error, done),
                        },
                        Err(error) => self.count_failed(&error.into(), done),
                    }
                }
                after = some.last().map(|listed| listed.key.clone()).or(after);
            }
            after = page.next;
            if after.is_none() {
                done.is_complete = true;
                break;
            }
        }
        self.state.put(CURSOR, &Cursor { after }).await?;
        Ok((silent, running))
    }

    async fn look(&self, listed: &Listed, queue: &QueueState) -> Result<Asks, StateError> {
        let now = (self.now)();
        let Some(known) = self.uploads.find(&listed.key).await? else { return Ok(Asks::Nothing) };
        let silent_for = known.silent_for(now);
        let is_untold = known.receipt().is_some_and(|receipt| !receipt.import.told);
        Ok(match known.state() {
            // Without a receipt beside it nothing is ever heard of it.
            None if !known.upload.has_room_for_receipt() => Asks::Nothing,
            None if silent_for < duration(limits::UNSEEN) => Asks::Nothing,
            Some(State::Importing) if silent_for <= queue.longest_silence() => Asks::Running,
            None | Some(State::Importing) => Asks::Silent(Box::new(known)),
            Some(State::Failed) if is_untold && silent_for > duration(limits::CLAIM) => Asks::Untold(Box::new(known)),
            Some(State::Imported | State::Released | State::Held | State::Failed | State::Superseded) => Asks::Nothing,
        })
    }

    /// Sends an upload round again, or gives it up if that was done often enough.
    async fn send_round(&self, known: &Known, queue: &QueueState, done: &mut Reconciled) -> Result<(), ReconcileError> {
        let now = (self.now)();
        let before = known.receipt().map(|receipt| &receipt.import);
        let times = before.and_then(|import| import.resent).map_or(0, |resent| resent.times);
        if times >= limits::RESENDS {
            let reason = Reason {
                kind: LOST.to_owned(),
                text: format!("nothing was heard of it, though it was sent round again {times} times"),
                fix: format!(
                    "not the upload's fault: read the log of import, and once the cause is gone: gantry retry s3://{}/{}",
                    known.upload.bucket, known.upload.key
                ),
                upload_again_helps: true,
            };
            return self.give_up(known, queue, &reason, done).await;
        }
        let begun = || section(ImportOutcome::Importing, known, queue, now);
        let quiet = before.cloned().unwrap_or_else(begun);
        let claim = ImportSection { updated_at: now, resent: Some(Resent { times: times + 1, at: now }), ..quiet };
        let seen = before.map(|import| import.updated_at);
        if !self.receipts.claim(&known.upload, seen, &claim).await? {
            // Something was heard of it after all.
            return Ok(());
        }
        if let Err(error) = self.queue.send(known, Why::Reconcile, now).await {
            let since = seen.unwrap_or(known.uploaded_at);
            let resent = before.and_then(|import| import.resent);
            let unsent = ImportSection { updated_at: since, resent, ..claim };
            self.receipts.claim(&known.upload, Some(now), &unsent).await?;
            return Err(error.into());
        }
        done.resent += 1;
        tracing::warn!(
            s3.bucket = known.upload.bucket,
            s3.key = known.upload.key,
            times = times + 1,
            "sent round again"
        );
        Ok(())
    }

    /// Makes the receipt say *failed*, and tells so.
    async fn give_up(
        &self,
        known: &Known,
        queue: &QueueState,
        reason: &Reason,
        done: &mut Reconciled,
    ) -> Result<(), ReconcileError> {
        let now = (self.now)();
        let begun = || section(ImportOutcome::Failed, known, queue, now);
        let import = known.receipt().map_or_else(begun, |receipt| receipt.import.clone());
        let outcome = ImportOutcome::Failed;
        let import = ImportSection { outcome, updated_at: now, reason: Some(reason.clone()), told: false, ..import };
        let receipt = self.receipts.import(&known.upload, &import).await?;
        tracing::error!(s3.bucket = known.upload.bucket, s3.key = known.upload.key, reason = reason.text, "given up");
        done.given_up += 1;
        self.tell(&Known { beside: Some(receipt), ..known.clone() }).await
    }

    /// Tells of an upload that failed, unless that was done.
    async fn tell(&self, known: &Known) -> Result<(), ReconcileError> {
        let failed = known.receipt().filter(|receipt| receipt.state == State::Failed && !receipt.import.told);
        if let Some(receipt) = failed {
            self.notifier.tell(&failed_notice(&known.upload, receipt)).await?;
            self.receipts.told(&known.upload).await?;
        }
        Ok(())
    }

    /// Gives a version its final state that no delivery could finish, and that a newer one has overtaken since.
    async fn overtaken(&self, old: &UploadId, newer: &Known, queue: &QueueState) -> Result<(), ReconcileError> {
        let version = newer.upload.version_id.as_deref().unwrap_or("unknown");
        let reason = Reason {
            kind: "superseded".to_owned(),
            text: format!("a newer version of the key, {version}, has been uploaded"),
            fix: "nothing: the newest version counts".to_owned(),
            upload_again_helps: false,
        };
        let import = section(ImportOutcome::Superseded, newer, queue, (self.now)());
        let import = ImportSection { size_bytes: None, reason: Some(reason), ..import };
        self.receipts.import(old, &import).await?;
        Ok(())
    }

    /// Why an upload is in the failed queue whose receipt does not say so: the last error that could be written, or
    /// what it means that none could.
    fn failed_reason(&self, known: &Known) -> Reason {
        let last = known.receipt().and_then(|receipt| receipt.import.reason.as_ref());
        let (kind, text) = match last {
            Some(last) => (last.kind.clone(), format!("no delivery could finish it; one of them said: {}", last.text)),
            None => (
                LOST.to_owned(),
                "no delivery could finish it or say why: the function did not start, was stopped, or could not write this \
                 receipt"
                    .to_owned(),
            ),
        };
        let fix = format!(
            "not the upload's fault: read the log of import, and once the cause is gone: aws sqs start-message-move-task \
             --source-arn {}",
            self.failed_queue_arn
        );
        Reason { kind, text, fix, upload_again_helps: true }
    }
}

/// A section of what no delivery has written anything of.
fn section(outcome: ImportOutcome, known: &Known, queue: &QueueState, now: Timestamp) -> ImportSection {
    ImportSection {
        outcome,
        attempt: Attempt { n: 0, of: queue.max_receives },
        started_at: now,
        updated_at: now,
        duration_ms: 0,
        size_bytes: Some(known.size_bytes),
        layers: None,
        reason: None,
        images: Vec::new(),
        left_out: Vec::new(),
        profile: None,
        settings_differ: Vec::new(),
        told: false,
        resent: None,
    }
}

fn duration(limit: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX)
}
