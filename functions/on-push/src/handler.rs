//! Each message names an image that was pushed; each image is looked at once.

use gantry::disposition::chain;
use gantry::event::{Event, push};
use gantry::react::{Look, Reactor};
use runtime::{Asked, Handler, Later, Message, Metrics, all_later, look_at_each, policy};
use tokio::time::Instant;

/// Looks at what was pushed.
#[derive(Debug)]
pub(crate) struct LookAtPushes {
    pub(crate) reactor: Reactor,
    pub(crate) metrics: Metrics,
}

impl Handler for LookAtPushes {
    const FAILURE: &'static str = "OnPushFailed";

    async fn handle(&self, messages: &[Message], deadline: Instant) -> Vec<Option<Later>> {
        let asked: Vec<Asked> = messages
            .iter()
            .enumerate()
            .filter_map(|(place, message)| Some(Asked { message: place, look: look(message)? }))
            .collect();
        if asked.is_empty() {
            return messages.iter().map(|_| None).collect();
        }
        match policy(&self.reactor, deadline).await {
            Ok(policy) => look_at_each(&self.reactor, &self.metrics, &policy, asked, messages, deadline).await,
            Err(error) => all_later(&error, messages),
        }
    }
}

/// What a message asks for; what asks for nothing is named in the log and done with.
fn look(message: &Message) -> Option<Look> {
    let parsed = match &message.event {
        Ok(event) => push::parse(event).map_err(|error| chain(&error)),
        Err(error) => Err(chain(error)),
    };
    match parsed {
        Ok(Event::Known(pushed)) => Some(Look {
            repository: pushed.repository,
            digest: pushed.digest,
            tag: pushed.tag,
            verify: true,
            scanned_at: None,
            scan_ended: false,
        }),
        Ok(Event::Other(shape)) => {
            tracing::warn!(shape, "not an image that was pushed; acknowledged");
            None
        }
        Err(error) => {
            tracing::error!(error, "not an event that can be read; acknowledged");
            None
        }
    }
}
