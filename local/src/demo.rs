//! `gantry demo`: sample images through the whole pipeline, in seven lines. It is `import` of built-in samples, through
//! the same code, in a temporary folder.

use std::path::Path;
use std::time::Instant;

use gantry::receipt::{How, Receipt, State};
use indicatif::HumanBytes;

use crate::cli::{CommandError, StackArgs};
use crate::import::released;
use crate::samples::{Image, docker_archive, layer, oci_archive};
use crate::session::{Functions, Session, SessionError, program};
use crate::story::{say, seconds, work};
use crate::upload::{self, Named};
use crate::watch::Log;

pub(crate) async fn run(stack: StackArgs) -> Result<(), CommandError> {
    let folder = tempfile::tempdir().map_err(|error| SessionError::request("making a temporary folder", error))?;
    let started = Instant::now();
    let stack = StackArgs { data: folder.path().join("data"), ..stack };
    let session = Session::open(&stack, Functions::Run).await?;
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tell(
        1,
        "start",
        format!("buckets, queues, ECR and the import function on {}, in {}", session.registry(), seconds(took)),
    );
    let outcome = story(&session, folder.path()).await;
    session.close().await;
    outcome
}

fn tell(line: usize, station: &str, text: impl AsRef<str>) {
    say(format!("{line}  {station:9} {}", text.as_ref()));
}

async fn story(session: &Session, folder: &Path) -> Result<(), CommandError> {
    let base = layer("usr/share/base", 1, 3 << 20);
    let one = Image::new("amd64", vec![base.clone(), layer("app/hello", 2, 1 << 20)]);
    let tarball = docker_archive(&[(&one, &["hello:1.0"])]);
    tell(
        2,
        "upload",
        format!(
            "a `docker save` tarball of {} to s3://{}/team/hello/1.0.tar",
            HumanBytes(tarball.len() as u64),
            session.uploads
        ),
    );
    let first = import(session, folder, "team/hello:1.0", &tarball).await?;
    released(&first)?;
    let image = first.import.images.first().ok_or_else(nothing)?;
    tell(
        3,
        "import",
        format!("{}, in {}: team/hello:1.0 is {}", work(image), seconds(first.import.duration_ms), image.digest),
    );
    let blobs = first.verification.as_ref().map_or(0, |verification| verification.blobs);
    tell(
        4,
        first.state.as_str(),
        format!("read back and verified: {blobs} blobs there in full, the manifest hashes to its digest"),
    );

    let two = Image::new("amd64", vec![base, layer("app/hello", 3, 1 << 20)]);
    let tarball = docker_archive(&[(&two, &["hello:1.1"])]);
    let second = import(session, folder, "team/hello:1.1", &tarball).await?;
    released(&second)?;
    let blobs = || second.import.images.iter().flat_map(|image| &image.blobs);
    let reused: u64 = blobs().filter(|blob| blob.how == How::Reused).map(|blob| blob.size_bytes).sum();
    let sent: u64 = blobs().filter(|blob| blob.how == How::Sent).map(|blob| blob.size_bytes).sum();
    tell(
        5,
        second.state.as_str(),
        format!(
            "team/hello:1.1 shares its base: {} reused and not even read, {} sent",
            HumanBytes(reused),
            HumanBytes(sent)
        ),
    );

    let arm = Image::new("arm64", vec![layer("app/hello", 4, 1 << 20)]);
    let (tarball, digest) = oci_archive(&[&two, &arm], "2.0");
    let third = import(session, folder, "team/multi:2.0", &tarball).await?;
    released(&third)?;
    let image = third.import.images.first().ok_or_else(nothing)?;
    let same = if image.digest.to_string() == digest { "byte for byte" } else { "with another digest" };
    tell(
        6,
        third.state.as_str(),
        format!("team/multi:2.0, an OCI layout for {}, {same}: {}", image.platforms.join(" and "), image.digest),
    );

    let cut = docker_archive(&[(&one, &["hello:1.2"])]);
    let fourth = import(session, folder, "team/hello:1.2", cut.get(..cut.len() / 2).unwrap_or_default()).await?;
    if fourth.state != State::Failed {
        return Err(CommandError::NothingThere(format!("a tarball cut in half ended {}", fourth.state)));
    }
    tell(7, fourth.state.as_str(), format!("{} (as it should; yours: {} import FILE)", fourth.summary, program()));
    Ok(())
}

fn nothing() -> CommandError {
    CommandError::NothingThere("the receipt names no image".to_owned())
}

/// Writes the tarball to a file and imports it, as `gantry import FILE --as NAME` does.
async fn import(session: &Session, folder: &Path, name: &str, tarball: &[u8]) -> Result<Receipt, CommandError> {
    let file = folder.join("sample.tar");
    tokio::fs::write(&file, tarball).await.map_err(|source| CommandError::File { path: file.clone(), source })?;
    let named = Named { image: None, ..Named::new(&file, Some(name)) };
    let log = Log::open(session).await?;
    let uploaded = upload::put(session, &file, &named).await?;
    log.until_final(session, &uploaded, |_| {}).await
}
