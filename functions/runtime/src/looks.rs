//! Looking at each image that a batch of events asks about: once, however many events do.

use std::collections::BTreeMap;

use gantry::disposition::{Disposition, chain};
use gantry::image::{Digest, Repository, Tag};
use gantry::limits;
use gantry::react::policy::Loaded;
use gantry::react::{Look, Looked, ReactError, Reactor};
use gantry::retry::{Disposed, redelivery};
use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

use crate::{Later, Message, Metrics};

/// Which message asks for which look.
#[derive(Debug)]
pub struct Asked {
    /// The message's place in its batch.
    pub message: usize,
    /// What it asks for.
    pub look: Look,
}

/// Takes every look that is asked for, those at one image together, and answers each message.
///
/// A transient failure, or no time left, brings the message back.
pub async fn look_at_each(
    reactor: &Reactor,
    metrics: &Metrics,
    policy: &Loaded,
    asked: Vec<Asked>,
    messages: &[Message],
    deadline: Instant,
) -> Vec<Option<Later>> {
    let mut answers: Vec<Option<Later>> = messages.iter().map(|_| None).collect();
    let end = end_of_work(deadline);
    for (look, places) in together(asked) {
        let digest = look.digest.map(|digest| digest.to_string());
        let span = info_span!("image", ecr.repository = %look.repository, image.digest = digest);
        let outcome = tokio::time::timeout_at(end, reactor.look(&look, policy)).instrument(span.clone()).await;
        let error = match outcome {
            // It was pushed, so it is about to be there; one that is deleted again is asked for in vain a few times.
            Ok(Ok(Looked::Gone)) if look.verify && places.iter().any(|place| may_yet_come(messages.get(*place))) => {
                ReactError::NotThere
            }
            // ECR may tell of a scan before its findings are there; reconcile has the last word.
            Ok(Ok(Looked::Unscanned(_))) if places.iter().any(|place| may_yet_come(messages.get(*place))) => {
                ReactError::NotScanned
            }
            Ok(Ok(looked)) => {
                span.in_scope(|| told(&looked, places.len()));
                metrics.look(&looked);
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => ReactError::OutOfTime,
        };
        metrics.look_failed(error.kind());
        span.in_scope(|| {
            for place in places {
                if let (Some(answer), Some(message)) = (answers.get_mut(place), messages.get(place)) {
                    *answer = later(&error, message);
                }
            }
        });
    }
    answers
}

fn may_yet_come(message: Option<&Message>) -> bool {
    message.is_some_and(|message| message.attempt.n < limits::GONE_DELIVERIES.min(message.attempt.of))
}

fn told(looked: &Looked, events: usize) {
    match looked {
        Looked::At(standing) => tracing::info!(?standing, events, "looked"),
        Looked::Unscanned(standing) => tracing::warn!(?standing, events, "looked; its scan has no answer"),
        Looked::NotOurs => tracing::info!(events, "not a repository of this stack; acknowledged"),
        Looked::Gone => tracing::info!(events, "the image or its repository is gone; acknowledged"),
    }
}

/// Whether and when `message` comes back after `error`, which is logged: a permanent failure is done with.
pub fn later(error: &ReactError, message: &Message) -> Option<Later> {
    failed(error, error.kind(), message)
}

/// The same for every message.
pub fn all_later(error: &ReactError, messages: &[Message]) -> Vec<Option<Later>> {
    all_failed(error, error.kind(), messages)
}

/// [`all_later`] after any error; `kind` is a stable word for alarms.
pub fn all_failed(error: &impl Disposed, kind: &str, messages: &[Message]) -> Vec<Option<Later>> {
    messages.iter().map(|message| failed(error, kind, message)).collect()
}

fn failed(error: &impl Disposed, kind: &str, message: &Message) -> Option<Later> {
    let text = chain(error);
    let gantry::receipt::Attempt { n, of } = message.attempt;
    match error.disposition() {
        Disposition::Permanent => {
            tracing::error!(kind, error = text, "given up");
            None
        }
        Disposition::Transient => {
            let after = redelivery(n);
            tracing::error!(attempt = n, of, kind, after_s = after.as_secs(), error = text, "to be delivered again");
            Some(Later { error: text, after })
        }
    }
}

/// The policy in force, in time.
///
/// # Errors
///
/// [`ReactError`], transient.
pub async fn policy(reactor: &Reactor, deadline: Instant) -> Result<Loaded, ReactError> {
    let loaded = tokio::time::timeout_at(end_of_work(deadline), reactor.policy()).await;
    loaded.unwrap_or(Err(ReactError::OutOfTime))
}

/// When work has to end so that there is time for the answer.
pub fn end_of_work(deadline: Instant) -> Instant {
    deadline - limits::DEADLINE_MARGIN.min(deadline.saturating_duration_since(Instant::now()) / 5)
}

/// What makes looks one: repository, digest, and the tag where there is no digest.
type Image = (Repository, Option<Digest>, Option<Tag>);

/// One look for each image, with the messages that ask for it: it reads back if one of them wants that, and knows the
/// latest of their times.
fn together(asked: Vec<Asked>) -> Vec<(Look, Vec<usize>)> {
    let mut looks: BTreeMap<Image, (Look, Vec<usize>)> = BTreeMap::new();
    for Asked { message, look } in asked {
        let tag = look.tag.clone().filter(|_| look.digest.is_none());
        let entry = looks.entry((look.repository.clone(), look.digest, tag));
        let (known, places) = entry.or_insert_with(|| (look.clone(), Vec::new()));
        known.verify |= look.verify;
        known.scan_ended |= look.scan_ended;
        known.scanned_at = known.scanned_at.max(look.scanned_at);
        places.push(message);
    }
    looks.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_image_ask_for_one_look() {
        let look = |seed: u8, verify, second: i64| Look {
            verify,
            scanned_at: Some(jiff::Timestamp::from_second(second).unwrap()),
            ..Look::at("team/app".parse().unwrap(), Digest::of(&[seed]))
        };
        let asked = [look(1, false, 5), look(2, false, 1), look(1, true, 9), look(1, false, 7)];
        let asked = asked.into_iter().enumerate().map(|(message, look)| Asked { message, look }).collect();
        let mut looks = together(asked);
        looks.sort_by_key(|(_, places)| places.len());
        assert_eq!(looks.iter().map(|(_, places)| places.clone()).collect::<Vec<_>>(), [vec![1], vec![0, 2, 3]]);
        let (look, _) = &looks[1];
        assert!(look.verify);
        assert_eq!(look.scanned_at.unwrap().as_second(), 9);
    }
}
