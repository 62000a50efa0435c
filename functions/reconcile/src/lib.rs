//! Does on a schedule what no event brought: uploads of which nothing is heard, messages that no delivery could finish
//! and whose receipt does not say so, images whose verification or verdict is missing after the time a scan may take,
//! verdicts of an old policy, floating tags that point too low, facts that somebody began to tell and did not.
//!
//! Woken by any event; its schedule's for one. A run is bounded by the function's time, and the next goes on from there.

use gantry::config::ReconcileConfig;
use gantry::react::{ReactError, Reactor, Sweep};
use gantry::receipt::Receipts;
use gantry::state::Documents;
use gantry::uploads::{FailedQueue, ImportQueue, Parts, ReconcileError, Reconciler, Uploads};
use runtime::{Handler, Later, Message, Metrics, Start, all_failed, all_later, end_of_work};
use tokio::time::Instant;

pub use runtime::Error;

/// Closes the gap between what happened and what was told.
#[derive(Debug)]
struct Reconcile {
    reconciler: Reconciler,
    reactor: Reactor,
    metrics: Metrics,
}

/// Reads the configuration, makes the clients once, and serves invocations until the environment is ended.
///
/// # Errors
///
/// A configuration error, which names the variable; or the runtime's own.
pub async fn run() -> Result<(), Error> {
    runtime::serve(|start| {
        let ReconcileConfig { react, upload_bucket, import_queue_url, failed_queue_url, failed_queue_arn } =
            ReconcileConfig::from_env()?;
        let (clients, metrics) = (start.clients(&react.common), start.metrics(&react.common));
        let parts = Parts {
            uploads: Uploads::new(clients.s3.clone(), upload_bucket),
            queue: ImportQueue::new(start.sqs(), import_queue_url),
            failed: FailedQueue::new(start.sqs(), failed_queue_url),
            failed_queue_arn,
            receipts: Receipts::new(clients.s3.clone(), react.common.stack.clone()),
            notifier: clients.notifier.clone(),
            state: Documents::new(clients.s3.clone(), &react.common.state_bucket),
        };
        let reconciler = Reconciler::new(parts, Start::clock);
        let reactor = Reactor::new(react, clients, Start::clock)?;
        Ok((Reconcile { reconciler, reactor, metrics }, None))
    })
    .await
}

impl Handler for Reconcile {
    const FAILURE: &'static str = "ReconcileFailed";

    async fn handle(&self, messages: &[Message], deadline: Instant) -> Vec<Option<Later>> {
        let end = end_of_work(deadline);
        // Uploads and images each get half of the time, and what goes wrong with one keeps nothing from the other.
        let uploads = self.uploads(end - end.saturating_duration_since(Instant::now()) / 2).await;
        let images = self.images(end).await;
        match (uploads, images) {
            (Ok(()), Ok(())) => messages.iter().map(|_| None).collect(),
            (Err(error), Ok(())) => all_failed(&error, error.kind(), messages),
            (Ok(()), Err(error)) => all_later(&error, messages),
            (Err(uploads), Err(images)) => {
                all_failed(&uploads, uploads.kind(), messages);
                all_later(&images, messages)
            }
        }
    }
}

impl Reconcile {
    async fn uploads(&self, deadline: Instant) -> Result<(), ReconcileError> {
        let done = self.reconciler.run(deadline).await?;
        self.metrics.reconciled(&done);
        tracing::info!(
            uploads = done.uploads,
            silent = done.silent,
            resent = done.resent,
            given_up = done.given_up,
            told = done.told,
            failed = done.failed,
            complete = done.is_complete,
            "uploads reconciled"
        );
        Ok(())
    }

    async fn images(&self, deadline: Instant) -> Result<(), ReactError> {
        let policy = self.reactor.policy().await?;
        let swept = self.reactor.sweep(Sweep::Everything, &policy, deadline).await?;
        self.metrics.swept(&swept);
        tracing::info!(
            records = swept.records,
            looked = swept.looked,
            failed = swept.failed,
            complete = swept.is_complete,
            "reconciled"
        );
        Ok(())
    }
}
