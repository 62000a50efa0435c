//! `gantry status`: what is not released, or the story of one upload or image.

use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use gantry::receipt::{Receipt, State};
use gantry::uploads::Known;

use crate::cli::{CommandError, StackArgs, StatusArgs};
use crate::page;
use crate::place::Place;
use crate::session::{Functions, SessionError};
use crate::story::{Story, say, tell};

/// Uploads that are asked about at once.
const AT_ONCE: usize = 16;

pub(crate) async fn run(stack: StackArgs, args: StatusArgs) -> Result<(), CommandError> {
    let (place, session) = Place::open(&stack, &args.account, Functions::Leave).await?;
    let outcome = match (&args.html, &args.what) {
        (Some(file), Some(key)) => {
            let endpoint = session.as_ref().map(|session| session.endpoint.clone());
            one_page(&place, key, endpoint.as_deref(), file).await
        }
        _ => status(&place, &args).await,
    };
    if let Some(session) = session {
        session.close().await;
    }
    outcome
}

/// The page of one upload as a file.
async fn one_page(place: &Place, key: &str, endpoint: Option<&str>, file: &Path) -> Result<(), CommandError> {
    let Some(known) = find(place, key).await? else {
        return Err(CommandError::NothingThere(format!(
            "there is no upload {key:?}; `status` alone lists what is not released"
        )));
    };
    page::write(known, endpoint, file).await?;
    say(format!("{} is the page of {key}", file.display()));
    Ok(())
}

async fn status(place: &Place, args: &StatusArgs) -> Result<(), CommandError> {
    let Some(what) = args.what.as_deref() else { return not_released(place, args.json).await };
    for story in &stories(place, what).await? {
        if args.json { say(json(story)) } else { tell(story) }
    }
    Ok(())
}

/// The stories of the upload `what`, or of every upload of the image `what`.
async fn stories(place: &Place, what: &str) -> Result<Vec<Story>, CommandError> {
    let failed = |error| SessionError::request(format!("reading what became of {what}"), error);
    let found = match find(place, what).await? {
        Some(known) => vec![known],
        None => uploads(place, |known| known.receipt().is_some_and(|receipt| names(receipt, what))).await?.0,
    };
    if found.is_empty() {
        return Err(CommandError::NothingThere(format!(
            "there is no upload and no image called {what:?}; `status` alone lists what is not released"
        )));
    }
    let mut stories = Vec::with_capacity(found.len());
    for known in found {
        stories.push(Story::read(known, place.records.as_ref()).await.map_err(failed)?);
    }
    Ok(stories)
}

/// The upload `key`, which may be given as `s3://BUCKET/KEY`.
pub(crate) async fn find(place: &Place, key: &str) -> Result<Option<Known>, SessionError> {
    let key = key.strip_prefix(&format!("s3://{}/", place.uploads.bucket())).unwrap_or(key);
    place.uploads.find(key).await.map_err(|error| SessionError::request(format!("asking for {key}"), error))
}

/// Whether one of the upload's images is `repository:tag`, or any tag of `repository`.
fn names(receipt: &Receipt, what: &str) -> bool {
    receipt.import.images.iter().any(|image| {
        image.repository.as_str() == what || image.tags.iter().any(|tag| format!("{}:{tag}", image.repository) == what)
    })
}

async fn not_released(place: &Place, as_json: bool) -> Result<(), CommandError> {
    let (open, total) = uploads(place, |known| known.state() != Some(State::Released)).await?;
    let open: Vec<Story> = open.into_iter().map(Story::new).collect();
    if as_json {
        say(json(&open));
        return Ok(());
    }
    open.iter().for_each(tell);
    say(match (total, open.len()) {
        (0, _) => "nothing has been uploaded yet".to_owned(),
        (total, 0) => format!("all {total} uploads are released"),
        (total, open) => format!("{open} of {total} uploads are not released"),
    });
    Ok(())
}

/// The uploads that are `wanted`, in the order of their keys, and how many there are in all.
async fn uploads(place: &Place, wanted: impl Fn(&Known) -> bool) -> Result<(Vec<Known>, usize), SessionError> {
    let (mut found, mut total, mut after) = (Vec::new(), 0, None);
    loop {
        let page = place.uploads.page(after.as_deref()).await;
        let page = page.map_err(|error| SessionError::request("listing the uploads", error))?;
        let known = stream::iter(page.uploads).map(|listed| async move { find(place, &listed.key).await });
        let known: Vec<Option<Known>> = known.buffered(AT_ONCE).try_collect().await?;
        // One that was deleted meanwhile is none any more.
        for known in known.into_iter().flatten() {
            total += 1;
            if wanted(&known) {
                found.push(known);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok((found, total));
        }
    }
}

/// Plain records always serialise.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
