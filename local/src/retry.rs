//! `gantry retry`: an upload is sent round again, as if it had just been put.

use gantry::limits;
use gantry::receipt::{State, UploadId};
use gantry::uploads::{Known, QueueState, Why};
use indicatif::HumanDuration;
use jiff::{SignedDuration, Timestamp};

use crate::cli::{CommandError, RetryArgs, StackArgs};
use crate::import::released;
use crate::place::Place;
use crate::progress::Bars;
use crate::session::{Functions, Session, SessionError};
use crate::status::find;
use crate::story::{Story, say, tell};
use crate::upload::Uploaded;
use crate::watch::Log;

pub(crate) async fn run(stack: StackArgs, args: RetryArgs) -> Result<(), CommandError> {
    let (place, session) = Place::open(&stack, &args.account, Functions::Run).await?;
    let outcome = retry(&place, session.as_ref(), &args).await;
    if let Some(session) = session {
        session.close().await;
    }
    outcome
}

async fn retry(place: &Place, session: Option<&Session>, args: &RetryArgs) -> Result<(), CommandError> {
    let key = args.key.as_str();
    let Some(queue) = &place.queue else {
        return Err(CommandError::Refused {
            what: "it is not known which queue the upload is to be sent to".to_owned(),
            fix: "give --queue URL or GANTRY_IMPORT_QUEUE_URL; the stack's output Retry has it".to_owned(),
        });
    };
    let nothing = || CommandError::NothingThere(format!("there is no upload called {key:?}; `status` lists them"));
    let known = find(place, key).await?.ok_or_else(nothing)?;
    let state = queue.state().await.map_err(|error| SessionError::request("asking the queue", error))?;
    if let Some((what, fix)) = refusal(&known, &state, now()) {
        return Err(CommandError::Refused { what, fix });
    }
    // Before it is sent, so that no line is missed.
    let log = match session {
        Some(session) => Some((session, Log::open(session).await?.ignoring(known.receipt()))),
        None => None,
    };
    let sent = queue.send(&known, Why::Retry, now()).await;
    sent.map_err(|error| SessionError::request("sending it round again", error))?;
    if !args.json {
        say(format!("sent      s3://{}/{} goes round again", known.upload.bucket, known.upload.key));
    }
    let Some((session, log)) = log else {
        if args.json {
            let UploadId { bucket, key, version_id, .. } = &known.upload;
            say(serde_json::json!({"sent": {"bucket": bucket, "key": key, "version_id": version_id}}).to_string());
            return Ok(());
        }
        say(format!("  next: docs/gantry-wait s3://{}/{}", known.upload.bucket, known.upload.key));
        return Ok(());
    };
    let uploaded = Uploaded {
        key: known.upload.key.clone(),
        version_id: known.upload.version_id.clone(),
        size_bytes: known.size_bytes,
    };
    let receipt = {
        let mut bars = Bars::new();
        log.until_final(session, &uploaded, |step| bars.show(step)).await?
    };
    if args.json {
        // Plain records always serialise.
        say(serde_json::to_string_pretty(&receipt).unwrap_or_default());
        return released(&receipt);
    }
    released(&receipt)?;
    let story = Story::read(Known { beside: Some(receipt), ..known }, place.records.as_ref()).await;
    tell(&story.map_err(|error| SessionError::request("reading the image's record", error))?);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the program is where the clock is read")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Why an upload is not sent round again, and what to do instead.
fn refusal(known: &Known, queue: &QueueState, now: Timestamp) -> Option<(String, String)> {
    let silent = known.silent_for(now);
    let ago = || HumanDuration(silent.unsigned_abs()).to_string();
    let wait = || format!("docs/gantry-wait s3://{}/{}", known.upload.bucket, known.upload.key);
    let Some(receipt) = known.receipt() else {
        let on_its_way = silent < SignedDuration::try_from(limits::UNSEEN).unwrap_or(SignedDuration::MAX);
        return on_its_way.then(|| (format!("it was uploaded {} ago, and its event may be on its way", ago()), wait()));
    };
    let next = || receipt.next.clone();
    match receipt.state {
        // One that was overtaken is the newest again, since the newer one was deleted.
        State::Failed | State::Superseded => None,
        State::Importing if silent > queue.longest_silence() => None,
        State::Importing => {
            let attempt = receipt.import.attempt;
            Some((
                format!(
                    "delivery {} of {} is under way or about to come; it said so {} ago",
                    attempt.n,
                    attempt.of,
                    ago()
                ),
                wait(),
            ))
        }
        State::Released => Some(("it is released already".to_owned(), next())),
        State::Held => Some((format!("its import is done: {}", receipt.summary), next())),
        State::Imported => Some(("its import is done; verification or verdict is outstanding".to_owned(), wait())),
    }
}
