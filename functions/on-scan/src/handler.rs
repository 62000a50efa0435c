//! Each message says that something about a verdict changed; each image is looked at once.

use gantry::disposition::chain;
use gantry::event::{Event, scan};
use gantry::react::policy::Loaded;
use gantry::react::{Look, ReactError, Reactor, Sweep};
use runtime::{Asked, Handler, Later, Message, Metrics, all_later, end_of_work, later, look_at_each, policy};
use tokio::time::Instant;

/// Judges what was scanned.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) reactor: Reactor,
    pub(crate) metrics: Metrics,
}

impl Handler for Judge {
    const FAILURE: &'static str = "OnScanFailed";

    async fn handle(&self, messages: &[Message], deadline: Instant) -> Vec<Option<Later>> {
        let mut asked = Vec::new();
        let mut of_policy = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            let look = match self.changed(message) {
                None => continue,
                Some(scan::ScanChanged::Policy) => {
                    of_policy.push(place);
                    continue;
                }
                Some(scan::ScanChanged::Image { repository, digest, at, ended }) => {
                    Look { scanned_at: at, scan_ended: ended, ..Look::at(repository, digest) }
                }
                Some(scan::ScanChanged::Released { repository, digest }) => Look::at(repository, digest),
            };
            asked.push(Asked { message: place, look });
        }
        if asked.is_empty() && of_policy.is_empty() {
            return messages.iter().map(|_| None).collect();
        }
        let policy = match policy(&self.reactor, deadline).await {
            Ok(policy) => policy,
            Err(error) => return all_later(&error, messages),
        };
        let mut answers = look_at_each(&self.reactor, &self.metrics, &policy, asked, messages, deadline).await;
        if !of_policy.is_empty()
            && let Err(error) = self.rejudge(&policy, deadline).await
        {
            for place in of_policy {
                if let (Some(answer), Some(message)) = (answers.get_mut(place), messages.get(place)) {
                    *answer = later(&error, message);
                }
            }
        }
        answers
    }
}

impl Judge {
    /// What a message says; what says nothing of a verdict is named in the log and done with.
    fn changed(&self, message: &Message) -> Option<scan::ScanChanged> {
        let parsed = match &message.event {
            Ok(event) => scan::parse(event, self.reactor.state_bucket()).map_err(|error| chain(&error)),
            Err(error) => Err(chain(error)),
        };
        match parsed {
            Ok(Event::Known(changed)) => Some(changed),
            Ok(Event::Other(shape)) => {
                tracing::warn!(shape, "nothing that changes a verdict; acknowledged");
                None
            }
            Err(error) => {
                tracing::error!(error, "not an event that can be read; acknowledged");
                None
            }
        }
    }

    /// Judges every image anew whose verdict is another policy's. What there is no time for is left to reconcile.
    async fn rejudge(&self, policy: &Loaded, deadline: Instant) -> Result<(), ReactError> {
        let swept = self.reactor.sweep(Sweep::Policy, policy, end_of_work(deadline)).await?;
        self.metrics.swept(&swept);
        tracing::info!(?swept, policy = policy.policy.version, "judged by the new policy");
        Ok(())
    }
}
