//! `gantry status`: what is not released, or the story of one upload or image.

use gantry::receipt::{Receipt, SUFFIX, State};

use crate::cli::{CommandError, StackArgs, StatusArgs};
use crate::session::{Functions, Session, SessionError};
use crate::story::{say, tell};
use crate::watch::receipt;

/// An upload and what is known of it.
struct Known {
    key: String,
    receipt: Option<Receipt>,
}

pub(crate) async fn run(stack: StackArgs, args: StatusArgs) -> Result<(), CommandError> {
    let session = Session::open(&stack, Functions::Leave).await?;
    let outcome = status(&session, &args).await;
    session.close().await;
    outcome
}

async fn status(session: &Session, args: &StatusArgs) -> Result<(), CommandError> {
    let Some(what) = args.what.as_deref() else { return not_released(session, args.json).await };
    let mut found: Vec<Receipt> = Vec::new();
    if let Some(receipt) = receipt(session, what).await? {
        found.push(receipt);
    } else {
        for known in uploads(session).await? {
            if known.key == what {
                return Err(CommandError::NothingThere(format!("{what} is uploaded, and no delivery has begun yet")));
            }
            found.extend(known.receipt.filter(|receipt| names(receipt, what)));
        }
    }
    if found.is_empty() {
        return Err(CommandError::NothingThere(format!(
            "there is no upload and no image called {what:?}; `status` alone lists what is not released"
        )));
    }
    for receipt in &found {
        if args.json { say(json(receipt)) } else { tell(receipt) }
    }
    Ok(())
}

/// Whether one of the upload's images is `repository:tag`, or any tag of `repository`.
fn names(receipt: &Receipt, what: &str) -> bool {
    receipt.import.images.iter().any(|image| {
        image.repository.as_str() == what || image.tags.iter().any(|tag| format!("{}:{tag}", image.repository) == what)
    })
}

async fn not_released(session: &Session, as_json: bool) -> Result<(), CommandError> {
    let uploads = uploads(session).await?;
    let total = uploads.len();
    let open: Vec<Known> = uploads
        .into_iter()
        .filter(|known| known.receipt.as_ref().is_none_or(|receipt| receipt.state != State::Released))
        .collect();
    if as_json {
        let receipts: Vec<&Receipt> = open.iter().filter_map(|known| known.receipt.as_ref()).collect();
        say(json(&receipts));
        return Ok(());
    }
    for known in &open {
        match &known.receipt {
            Some(receipt) => tell(receipt),
            None => say(format!("{:10} s3://{}/{} (no delivery has begun)", "waiting", session.uploads, known.key)),
        }
    }
    say(match (total, open.len()) {
        (0, _) => "nothing has been uploaded yet".to_owned(),
        (total, 0) => format!("all {total} uploads are released"),
        (total, open) => format!("{open} of {total} uploads are not released"),
    });
    Ok(())
}

/// Every key of the upload bucket that is not a receipt.
async fn uploads(session: &Session) -> Result<Vec<Known>, CommandError> {
    let mut pages = session.s3.list_objects_v2().bucket(&session.uploads).into_paginator().send();
    let mut keys: Vec<String> = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| SessionError::request("listing the uploads", error))?;
        let names = page.contents().iter().filter_map(|object| object.key());
        keys.extend(names.filter(|key| !key.ends_with(SUFFIX) && !key.ends_with('/')).map(str::to_owned));
    }
    let mut uploads = Vec::with_capacity(keys.len());
    for key in keys {
        uploads.push(Known { receipt: receipt(session, &key).await?, key });
    }
    Ok(uploads)
}

/// Plain records always serialise.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
