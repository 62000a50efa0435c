//! `gantry import`: the user's tarball through the whole pipeline.

use std::time::Instant;

use gantry::receipt::{Receipt, State};

use crate::cli::{CommandError, ImportArgs, StackArgs};
use crate::progress::Bars;
use crate::session::{Functions, Session, program};
use crate::story::{name, say, seconds, stations};
use crate::up::DEFAULT_PORT;
use crate::upload::{self, Named};
use crate::watch::Log;

pub(crate) async fn run(stack: StackArgs, args: ImportArgs) -> Result<(), CommandError> {
    // A file that is not there should not cost a stack.
    let unreadable = |source| CommandError::File { path: args.file.clone(), source };
    tokio::fs::File::open(&args.file).await.map_err(unreadable)?;
    let session = Session::open(&stack, Functions::Run).await?;
    let outcome = import(&session, &stack, &args).await;
    session.close().await;
    outcome
}

async fn import(session: &Session, stack: &StackArgs, args: &ImportArgs) -> Result<(), CommandError> {
    let named =
        Named::new(&args.file, args.name.as_deref()).with_consumer(args.profile.as_deref(), args.platform.as_deref());
    let (uploaded, took_ms, receipt) = {
        let log = Log::open(session).await?;
        let started = Instant::now();
        let uploaded = upload::put(session, &args.file, &named).await?;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut bars = Bars::new();
        let receipt = log.until_final(session, &uploaded, |step| bars.show(step)).await?;
        (uploaded, took_ms, receipt)
    };
    if args.json {
        // Plain records always serialise.
        say(serde_json::to_string_pretty(&receipt).unwrap_or_default());
        return released(&receipt);
    }
    released(&receipt)?;
    say(format!("{}  {}", receipt.state, receipt.import.images.iter().map(name).collect::<Vec<_>>().join(", ")));
    say(format!("  upload  {} in {}", indicatif::HumanBytes(uploaded.size_bytes), seconds(took_ms)));
    for (station, text) in stations(&receipt) {
        say(format!("  {station:7} {text}"));
    }
    tell(session, stack, &receipt);
    Ok(())
}

/// Anything but a release is an error to the caller.
pub(crate) fn released(receipt: &Receipt) -> Result<(), CommandError> {
    match receipt.state {
        State::Released => Ok(()),
        State::Importing | State::Imported | State::Held | State::Failed | State::Superseded => {
            Err(CommandError::NotReleased {
                summary: format!("{}: {}", receipt.state, receipt.summary),
                next: receipt.next.clone(),
            })
        }
    }
}

fn tell(session: &Session, stack: &StackArgs, receipt: &Receipt) {
    for image in &receipt.import.images {
        say(format!("  digest  {}", image.digest));
    }
    for left_out in &receipt.import.left_out {
        say(format!("  not in the archive, left out: {left_out}"));
    }
    if let Some(profile) = &receipt.import.profile {
        for change in &profile.changes {
            say(format!("  for {}: {change}", profile.name));
        }
    }
    let Some(image) = receipt.import.images.first() else { return };
    let tag = image.tags.first().map(|tag| format!(":{tag}")).unwrap_or_default();
    if session.is_shared() {
        say(format!("  pull    docker pull {}/{}{tag}", session.registry(), image.repository));
    } else {
        let data = stack.data.display();
        let data = if stack.data.as_os_str() == ".gantry" { String::new() } else { format!(" --data {data}") };
        say(format!(
            "  keep    it is in {}; to pull it, run in another terminal: {} up{data}",
            stack.data.display(),
            program()
        ));
        say(format!(
            "  pull    then: docker pull 127.0.0.1:{DEFAULT_PORT}/{}{tag}   (after the docker login that up prints)",
            image.repository
        ));
    }
}
