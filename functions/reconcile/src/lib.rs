//! Does on a schedule what no event brought: images whose verification or verdict is missing after the time a scan may
//! take, verdicts of an old policy, facts that somebody began to tell and did not.
//!
//! Woken by any event; its schedule's for one. A run is bounded by the function's time, and the next goes on from there.

use gantry::config::ReactConfig;
use gantry::react::{Reactor, Sweep};
use runtime::{Handler, Later, Message, Metrics, Start, all_later, end_of_work};
use tokio::time::Instant;

pub use runtime::Error;

/// Closes the gap between what happened and what was told.
#[derive(Debug)]
struct Reconcile {
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
        let config = ReactConfig::from_env()?;
        let (clients, metrics) = (start.clients(&config.common), start.metrics(&config.common));
        let reactor = Reactor::new(config, clients, Start::clock)?;
        Ok((Reconcile { reactor, metrics }, None))
    })
    .await
}

impl Handler for Reconcile {
    const FAILURE: &'static str = "ReconcileFailed";

    async fn handle(&self, messages: &[Message], deadline: Instant) -> Vec<Option<Later>> {
        let run = async {
            let policy = self.reactor.policy().await?;
            self.reactor.sweep(Sweep::Everything, &policy, end_of_work(deadline)).await
        };
        match run.await {
            Ok(swept) => {
                self.metrics.swept(&swept);
                tracing::info!(
                    records = swept.records,
                    looked = swept.looked,
                    failed = swept.failed,
                    complete = swept.is_complete,
                    "reconciled"
                );
                messages.iter().map(|_| None).collect()
            }
            Err(error) => all_later(&error, messages),
        }
    }
}
