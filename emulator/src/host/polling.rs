//! A function's queue: batches gathered from it, one invocation each.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::TaskTracker;

use super::{Hosted, Settings, batch};
use crate::{
    sqs::{Ask, Queues, Received, SqsError, Waits},
    template::QueueSource,
};

/// As many messages as one receive of a poller takes.
const RECEIVE: usize = 10;

/// A batch ends before its event is larger: Lambda takes 6 MB (Lambda developer guide, "Batching
/// behavior"), of which the last receive may still bring some.
const BATCH_BYTES: usize = 5 << 20;

/// Takes batches from the queue for as long as the host runs.
pub(super) async fn poll(
    hosted: Arc<Hosted>,
    source: QueueSource,
    queues: Arc<Queues>,
    settings: Arc<Settings>,
    tasks: TaskTracker,
) {
    let Ok(queue) = queues.name(&source.queue_arn) else {
        tracing::error!(sqs.queue = source.queue_arn, "the function's queue does not exist");
        return;
    };
    // Without a limit of its own a function shares the ten of a new account.
    let slots = Arc::new(Semaphore::new(source.maximum_concurrency.unwrap_or(10)));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            let received = gather(&queues, &queue, &source).await.ok()?;
            Some((slot, received))
        };
        let (slot, received) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => return,
            },
            () = settings.stopping.cancelled() => return,
        };
        let (hosted, queues, settings) = (Arc::clone(&hosted), Arc::clone(&queues), Arc::clone(&settings));
        let (source, queue) = (source.clone(), queue.clone());
        tasks.spawn(async move {
            let event = batch::event(&source.queue_arn, &received);
            let answer = hosted.invoke(&settings, &event).await;
            if let Err(error) = &answer {
                tracing::warn!(function = hosted.logical_id, "{error}");
            }
            batch::settle(&queues, &queue, &source, &received, answer.ok().as_ref());
            drop(slot);
        });
    }
}

/// The next batch: what is there, and until it is full or the window is over, what comes.
///
/// With [`Waits::Skipped`] nobody waits for the window: the batch is what is there.
async fn gather(queues: &Queues, queue: &str, source: &QueueSource) -> Result<Vec<Received>, SqsError> {
    let ask = |left: usize, wait| Ask { most: left.min(RECEIVE), visibility: None, wait };
    let mut batch = queues.receive(queue, ask(source.batch_size, None)).await?;
    let until = Instant::now() + source.batching_window;
    if source.batching_window.is_zero() {
        return Ok(batch);
    }
    while batch.len() < source.batch_size && bytes(&batch) < BATCH_BYTES {
        let wait = match queues.waits() {
            Waits::Real => until.saturating_duration_since(Instant::now()),
            Waits::Skipped => Duration::ZERO,
        };
        let more = queues.receive(queue, ask(source.batch_size - batch.len(), Some(wait))).await?;
        if more.is_empty() {
            break;
        }
        batch.extend(more);
    }
    Ok(batch)
}

fn bytes(batch: &[Received]) -> usize {
    batch.iter().map(|received| received.message.body.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{account, sqs::Extras, template};

    fn queues(folder: &std::path::Path, waits: Waits) -> Queues {
        let queue = template::Queue {
            name: "jobs".to_owned(),
            arn: account::arn("sqs", "jobs"),
            url: String::new(),
            visibility: Duration::from_mins(10),
            delay: Duration::ZERO,
            redrive: None,
            policy: Vec::new(),
        };
        Queues::open(folder.to_owned(), [queue], waits).unwrap()
    }

    fn source(batch_size: usize, batching_window: Duration) -> QueueSource {
        QueueSource {
            queue_arn: account::arn("sqs", "jobs"),
            batch_size,
            batching_window,
            maximum_concurrency: None,
            reports_failures: true,
        }
    }

    #[tokio::test]
    async fn a_batch_is_what_is_there_up_to_its_size() {
        let hour = Duration::from_hours(1);
        let large = "x".repeat(900 << 10);
        // The batch size, the window, how many messages there are, their body, and the batch.
        let cases = [
            (1, Duration::ZERO, 3, "m", 1),
            (10, Duration::ZERO, 25, "m", 10),
            (10_000, hour, 25, "m", 25),
            (20, hour, 25, "m", 20),
            (10_000, hour, 25, large.as_str(), 10),
        ];
        for (size, window, there, body, want) in cases {
            let folder = tempfile::tempdir().unwrap();
            let queues = queues(folder.path(), Waits::Skipped);
            for _ in 0..there {
                queues.send("jobs", body, Extras::default()).unwrap();
            }
            let batch = gather(&queues, "jobs", &source(size, window)).await.unwrap();
            assert_eq!(batch.len(), want, "{size} of {there}");
        }
    }

    #[tokio::test]
    async fn a_window_ends_when_the_batch_is_full_or_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let queues = queues(folder.path(), Waits::Real);
        queues.send("jobs", "first", Extras::default()).unwrap();
        let hour = source(11, Duration::from_hours(1));
        let full = async {
            for _ in 0..10 {
                queues.send("jobs", "later", Extras::default()).unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (batch, ()) = tokio::join!(gather(&queues, "jobs", &hour), full);
        assert_eq!(batch.unwrap().len(), 11);
        queues.send("jobs", "alone", Extras::default()).unwrap();
        let batch = gather(&queues, "jobs", &source(11, Duration::from_millis(20))).await.unwrap();
        assert_eq!(batch.len(), 1);
    }
}
