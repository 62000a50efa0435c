//! Sending the blobs of a compressed archive: one pass over what comes out of the decoder, in the order in which it
//! comes.
//!
//! First everything is looked for, and what ECR has needs no bytes. Then one decoder runs from the archive's beginning
//! to the end of the last blob that is needed, and hands each on to whoever sends it; it waits for the slowest. What
//! fails on the way for a transient reason is sent by another pass.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use tokio::sync::mpsc;

use super::send::{Job, Present, PresentBlobs, Told, finished};
use super::{ImportError, Importer};
use crate::archive::{ArchiveError, open_decoded};
use crate::decompress::Codec;
use crate::disposition::{Disposition, chain};
use crate::limits;
use crate::object::{Body, ObjectError, S3Object};
use crate::retry::Disposed as _;

/// Blobs that are sent while the next is handed on: the registry takes its time to close one.
const AT_ONCE: usize = 2;

/// Chunks that wait between the decoder and a sender.
const CHUNKS: usize = 1;

type Chunk = Result<Bytes, ObjectError>;

/// Blobs that are the same bytes of the archive, for as many repositories.
struct Group<'a> {
    range: Range<u64>,
    jobs: Vec<(usize, Job<'a>)>,
}

/// Where the decoder hands a range of bytes to.
struct Feed {
    range: Range<u64>,
    to: Vec<mpsc::Sender<Chunk>>,
}

/// What happened during a pass.
enum Happened<'a> {
    /// The decoder is done.
    Fed(Result<(), ArchiveError>),
    /// The blobs of one group are sent, or not.
    Sent(Vec<(usize, Job<'a>, Result<Present, ImportError>)>),
}

impl Importer {
    /// Runs the jobs with as few passes over the archive as their failures allow, and with none when ECR has
    /// everything.
    pub(super) async fn run_in_order(
        &self,
        object: &Arc<S3Object>,
        codec: Codec,
        jobs: Vec<Job<'_>>,
        told: &mut Told<'_>,
    ) -> Result<PresentBlobs, ImportError> {
        let mut present = PresentBlobs::new();
        let mut open = self.look_for(object, jobs, told, &mut present).await?;
        for pass in 1.. {
            if open.is_empty() {
                break;
            }
            tracing::debug!(pass, blobs = open.len(), %codec, "decoding the archive");
            let (now, later) = groups(open);
            let before = present.len();
            let (mut again, failure) = self.pass(object, codec, now, told, &mut present).await?;
            match failure {
                Some(error) if error.disposition() == Disposition::Permanent => return Err(error),
                // A pass that brought nothing on is a failed attempt.
                Some(error) if present.len() == before || pass >= limits::BLOB_ATTEMPTS => return Err(error),
                Some(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, blobs = again.len(), "blobs failed; they are sent by another pass");
                }
                None => {}
            }
            again.extend(later);
            open = again;
        }
        Ok(present)
    }

    /// Finds what needs no bytes, and sends what is in memory; the rest.
    async fn look_for<'a>(
        &self,
        object: &Arc<S3Object>,
        jobs: Vec<Job<'a>>,
        told: &mut Told<'_>,
        present: &mut PresentBlobs,
    ) -> Result<Vec<(usize, Job<'a>)>, ImportError> {
        let progress = told.progress;
        let lookups: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(at, job)| async move {
                let found = self.without_bytes(job).await?;
                if found.is_none() && job.what.extent().content.is_none() {
                    return Ok((at, job, None));
                }
                let blob_progress = progress.of(at, job);
                let found = match found {
                    Some(found) => found,
                    None => {
                        crate::retry::retry("sending a blob", limits::BLOB_ATTEMPTS, &self.timeouts, || {
                            self.with_bytes(job, self.body(object, job.what.extent()), &blob_progress)
                        })
                        .await?
                    }
                };
                finished(job, &found, progress, &blob_progress);
                Ok::<_, ImportError>((at, job, Some(found)))
            })
            .collect();
        let mut lookups = stream::iter(lookups).buffer_unordered(self.resources.blobs_at_once);
        let mut open = Vec::new();
        while let Some(looked) = lookups.next().await {
            match looked? {
                (_, job, Some(found)) => drop(present.insert(job.key(), found)),
                (at, job, None) => open.push((at, job)),
            }
            told.moved().await?;
        }
        Ok(open)
    }

    /// One pass; what has to be sent again, and the worst of the errors that made it so.
    async fn pass<'a>(
        &self,
        object: &Arc<S3Object>,
        codec: Codec,
        groups: Vec<Group<'a>>,
        told: &mut Told<'_>,
        present: &mut PresentBlobs,
    ) -> Result<(Vec<(usize, Job<'a>)>, Option<ImportError>), ImportError> {
        let mut feeds = Vec::with_capacity(groups.len());
        let mut senders = Vec::with_capacity(groups.len());
        let progress = told.progress;
        for group in groups {
            let mut to = Vec::with_capacity(group.jobs.len());
            let mut sending = Vec::with_capacity(group.jobs.len());
            let length = group.range.end.saturating_sub(group.range.start);
            for (at, job) in group.jobs {
                let (sender, fed) = mpsc::channel(CHUNKS);
                to.push(sender);
                sending.push(async move {
                    let blob_progress = progress.of(at, job);
                    let sent = self.with_bytes(job, fed_body(fed, length).await, &blob_progress).await;
                    if let Ok(present) = &sent {
                        finished(job, present, progress, &blob_progress);
                    }
                    (at, job, sent)
                });
            }
            feeds.push(Feed { range: group.range, to });
            senders.push(async move { Happened::Sent(join_all(sending).await) });
        }
        let feeding = stream::once(async move { Happened::Fed(feed(object, codec, feeds).await) });
        let mut happening = stream::select(feeding.boxed(), stream::iter(senders).buffered(AT_ONCE));
        let mut again = Vec::new();
        let mut failure: Option<ImportError> = None;
        while let Some(happened) = happening.next().await {
            match happened {
                Happened::Fed(Ok(())) => {}
                // The blobs say no more than that nothing came.
                Happened::Fed(Err(error)) => return Err(error.into()),
                Happened::Sent(sent) => {
                    for (at, job, outcome) in sent {
                        match outcome {
                            Ok(blob) => drop(present.insert(job.key(), blob)),
                            Err(error) => {
                                again.push((at, job));
                                let worse = |known: &ImportError| known.disposition() == Disposition::Permanent;
                                failure = Some(failure.filter(worse).unwrap_or(error));
                            }
                        }
                    }
                    told.moved().await?;
                }
            }
        }
        Ok((again, failure))
    }
}

/// The jobs in the order of their bytes; those that are too many for one place wait for the next pass.
fn groups(jobs: Vec<(usize, Job<'_>)>) -> (Vec<Group<'_>>, Vec<(usize, Job<'_>)>) {
    let mut groups: BTreeMap<u64, Group<'_>> = BTreeMap::new();
    let mut later = Vec::new();
    for (at, job) in jobs {
        let range = job.what.extent().range();
        let group = groups.entry(range.start).or_insert_with(|| Group { range, jobs: Vec::new() });
        if group.jobs.len() < *limits::BLOBS_AT_ONCE.start() {
            group.jobs.push((at, job));
        } else {
            later.push((at, job));
        }
    }
    (groups.into_values().collect(), later)
}

/// Decodes the archive from its beginning to the end of the last feed, and gives each its bytes.
async fn feed(object: &Arc<S3Object>, codec: Codec, feeds: Vec<Feed>) -> Result<(), ArchiveError> {
    let mut decoded = open_decoded(object, codec);
    let mut chunk = Bytes::new();
    let mut position = 0_u64;
    for mut feed in feeds {
        while position < feed.range.end {
            if chunk.is_empty() {
                // The first pass has seen the end; if it comes earlier now, the feeds that are left notice.
                let Some(next) = decoded.next().await? else { return Ok(()) };
                chunk = next;
            }
            let skipping = position < feed.range.start;
            let until = if skipping { feed.range.start } else { feed.range.end };
            let length = usize::try_from(until.saturating_sub(position)).unwrap_or(usize::MAX).min(chunk.len());
            let part = chunk.split_to(length);
            position = position.saturating_add(length as u64);
            if skipping {
                continue;
            }
            let mut listening = Vec::with_capacity(feed.to.len());
            for to in feed.to {
                // Whoever gave up is not waited for.
                if to.send(Ok(part.clone())).await.is_ok() {
                    listening.push(to);
                }
            }
            feed.to = listening;
        }
    }
    Ok(())
}

/// What is fed, as a body of `length` bytes. Waits for the first of them, so that no upload session is begun long before
/// there is something for it.
async fn fed_body(mut fed: mpsc::Receiver<Chunk>, length: u64) -> Body {
    let first = if length == 0 { None } else { fed.recv().await };
    let state = (first, fed, 0_u64);
    let body = stream::try_unfold(state, move |(first, mut fed, given)| async move {
        if given >= length {
            return Ok(None);
        }
        let next = match first {
            Some(first) => Some(first),
            None => fed.recv().await,
        };
        match next {
            Some(chunk) => {
                let chunk = chunk?;
                let given = given.saturating_add(chunk.len() as u64);
                Ok(Some((chunk, (None, fed, given))))
            }
            None => Err(ObjectError::Broken("the decoder stopped early".into())),
        }
    });
    body.boxed()
}
