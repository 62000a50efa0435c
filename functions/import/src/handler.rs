//! Each message names objects; each object is imported.

use gantry::disposition::chain;
use gantry::event::{Event, ObjectCreated, object};
use gantry::import::{Delivery, Importer, Outcome};
use gantry::receipt::{Attempt, SUFFIX};
use runtime::{Handler, Later, Message, Metrics};
use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

/// Imports what was uploaded.
#[derive(Debug)]
pub(crate) struct ImportUploads {
    pub(crate) importer: Importer,
    pub(crate) metrics: Metrics,
}

impl Handler for ImportUploads {
    const FAILURE: &'static str = "ImportFailed";

    async fn handle(&self, messages: &[Message], deadline: Instant) -> Vec<Option<Later>> {
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            answers.push(self.message(message, deadline).await);
        }
        answers
    }
}

impl ImportUploads {
    /// Imports every object that the event names; a failed first one does not hide a good second one. What cannot
    /// be understood is named in the log and done with, since the same bytes would come again.
    async fn message(&self, message: &Message, deadline: Instant) -> Option<Later> {
        let parsed = match &message.event {
            Ok(event) => object::parse(event.clone()).map_err(|error| chain(&error)),
            Err(error) => Err(chain(error)),
        };
        let created = match parsed {
            Ok(Event::Known(created)) => created,
            Ok(Event::Other(shape)) => {
                tracing::warn!(shape, "not an object that was created; acknowledged");
                return None;
            }
            Err(error) => {
                tracing::error!(error, "not an event that can be read; acknowledged");
                return None;
            }
        };
        let delivery = Delivery { attempt: message.attempt, deadline };
        let mut worst = None;
        for object in created {
            let span = info_span!("upload", s3.bucket = object.bucket, s3.key = object.key);
            worst = self.import(&object, delivery).instrument(span).await.or(worst);
        }
        worst
    }

    async fn import(&self, object: &ObjectCreated, delivery: Delivery) -> Option<Later> {
        if object.bucket != self.importer.upload_bucket() {
            tracing::warn!(shape = "an object of another bucket", "not an upload; acknowledged");
            return None;
        }
        if object.key.ends_with('/') || object.key.ends_with(SUFFIX) {
            tracing::info!("a folder or a receipt, not an upload; acknowledged");
            return None;
        }
        let Attempt { n, of } = delivery.attempt;
        match self.importer.import(object, delivery).await {
            Outcome::Done(receipt) => {
                let duration_ms = receipt.import.duration_ms;
                tracing::info!(state = %receipt.state, duration_ms, summary = receipt.summary, "done");
                self.metrics.import(&receipt);
                None
            }
            Outcome::Refused { receipt, error } => {
                tracing::error!(state = %receipt.state, kind = error.kind(), error = chain(&error), "refused");
                self.metrics.import(&receipt);
                None
            }
            Outcome::Later { error, after } => {
                let (kind, after_s, text) = (error.kind(), after.as_secs(), chain(&error));
                tracing::error!(attempt = n, of, kind, after_s, error = text, "to be delivered again");
                self.metrics.delivery(kind, n >= of);
                Some(Later { error: text, after })
            }
        }
    }
}
