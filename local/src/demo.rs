//! `gantry demo`: sample images through the whole pipeline, from upload to release, in seven lines. It is `import` of
//! built-in samples, through the same code, in a temporary folder.
//!
//! Releases wait for a scan. The embedded registry has no scanner: what a scan would find stands in a file.

use std::path::Path;
use std::time::Instant;

use gantry::image::Digest;
use gantry::receipt::{How, Receipt, State};
use indicatif::HumanBytes;

use crate::cli::{CommandError, DemoArgs, StackArgs};
use crate::import::released;
use crate::samples::{Image, docker_archive, layer, oci_archive};
use crate::session::{Functions, Session, SessionError, program};
use crate::story::{say, seconds, work};
use crate::upload::{self, Named};
use crate::watch::Log;

/// What scans find in the demo: something critical in the images of one repository, nothing in any other.
const FINDINGS: &str = r#"[
  { "repository": "team/old", "findings": [ { "name": "CVE-2026-1234", "severity": "CRITICAL", "package": "openssl",
      "version": "3.0.1", "fixed_in": "3.0.2", "description": "made up for the demo" } ] },
  { "repository": "*" }
]"#;

pub(crate) async fn run(stack: StackArgs, args: DemoArgs) -> Result<(), CommandError> {
    let folder = tempfile::tempdir().map_err(|error| SessionError::request("making a temporary folder", error))?;
    let started = Instant::now();
    let mut parameters = vec![("ReleaseGate".to_owned(), "scan".to_owned())];
    parameters.extend(stack.parameters);
    let stack = StackArgs { data: folder.path().join("data"), parameters };
    let findings = stack.data.join("findings.json");
    let written = std::fs::create_dir_all(&stack.data).and_then(|()| std::fs::write(&findings, FINDINGS));
    written.map_err(|source| CommandError::File { path: findings, source })?;
    let session = Session::open(&stack, Functions::Run).await?;
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let teller = Teller { as_json: args.json };
    teller.tell(
        1,
        "start",
        format!("buckets, queues, rules, ECR and four functions on {}, in {}", session.registry(), seconds(took)),
    );
    let outcome = story(&session, folder.path(), &teller).await;
    session.close().await;
    outcome
}

/// Tells the story: in lines for people, or its receipts as lines of JSON.
struct Teller {
    as_json: bool,
}

impl Teller {
    fn tell(&self, line: usize, station: &str, text: impl AsRef<str>) {
        if !self.as_json {
            say(format!("{line}  {station:9} {}", text.as_ref()));
        }
    }

    /// A receipt with the time from the upload's begin to its end.
    fn receipt(&self, (receipt, took): (Receipt, String)) -> (Receipt, String) {
        if self.as_json {
            // Plain records always serialise.
            say(serde_json::to_string(&receipt).unwrap_or_default());
        }
        (receipt, took)
    }
}

async fn story(session: &Session, folder: &Path, teller: &Teller) -> Result<(), CommandError> {
    let base = layer("usr/share/base", 1, 3 << 20);
    let one = Image::new("amd64", vec![base.clone(), layer("app/hello", 2, 1 << 20)]);
    let tarball = docker_archive(&[(&one, &["hello:1.0.0"])]);
    teller.tell(
        2,
        "upload",
        format!(
            "a `docker save` tarball of {} to s3://{}/team/hello/1.0.0.tar",
            HumanBytes(tarball.len() as u64),
            session.uploads
        ),
    );
    let (first, took) = teller.receipt(import(session, folder, "team/hello:1.0.0", &tarball).await?);
    released(&first)?;
    let image = first.import.images.first().ok_or_else(nothing)?;
    teller.tell(
        3,
        "import",
        format!("{}, in {}: team/hello:1.0.0 is {}", work(image), seconds(first.import.duration_ms), image.digest),
    );
    let reaction = first.reaction(&image.repository, image.digest).ok_or_else(nothing)?;
    let blobs = reaction.verification.as_ref().map_or(0, |verification| verification.blobs);
    let latest = tag(session, "team/hello", "latest").await?;
    let latest = if latest == Some(image.digest) { "latest points to it" } else { "latest points elsewhere" };
    teller.tell(
        4,
        first.state.as_str(),
        format!("read back ({blobs} blobs), scanned, within the policy, in {took}: {latest}"),
    );

    let two = Image::new("amd64", vec![base, layer("app/hello", 3, 1 << 20)]);
    let tarball = docker_archive(&[(&two, &["hello:1.1.0"])]);
    let (second, took) = teller.receipt(import(session, folder, "team/hello:1.1.0", &tarball).await?);
    released(&second)?;
    let blobs = || second.import.images.iter().flat_map(|image| &image.blobs);
    let reused: u64 = blobs().filter(|blob| blob.how == How::Reused).map(|blob| blob.size_bytes).sum();
    let sent: u64 = blobs().filter(|blob| blob.how == How::Sent).map(|blob| blob.size_bytes).sum();
    teller.tell(
        5,
        second.state.as_str(),
        format!(
            "team/hello:1.1.0 shares its base: {} reused and not even read, {} sent, in {took}",
            HumanBytes(reused),
            HumanBytes(sent)
        ),
    );

    let arm = Image::new("arm64", vec![layer("app/hello", 4, 1 << 20)]);
    let (tarball, digest) = oci_archive(&[&two, &arm], "2.0");
    let (third, took) = teller.receipt(import(session, folder, "team/multi:2.0", &tarball).await?);
    released(&third)?;
    let image = third.import.images.first().ok_or_else(nothing)?;
    let same = if image.digest.to_string() == digest { "byte for byte" } else { "with another digest" };
    teller.tell(
        6,
        third.state.as_str(),
        format!(
            "team/multi:2.0, an OCI layout for {}, {same}, in {took}: {}",
            image.platforms.join(" and "),
            image.digest
        ),
    );

    let old = Image::new("amd64", vec![layer("app/old", 5, 1 << 20)]);
    let (fourth, took) =
        teller.receipt(import(session, folder, "team/old:0.9.0", &docker_archive(&[(&old, &["old:0.9.0"])])).await?);
    if fourth.state != State::Held {
        return Err(CommandError::NothingThere(format!("an image with a critical finding ended {}", fourth.state)));
    }
    teller.tell(
        7,
        fourth.state.as_str(),
        format!("{}, in {took} (findings come from a file here; yours: {} import FILE)", fourth.summary, program()),
    );
    Ok(())
}

/// Where a tag stands.
async fn tag(session: &Session, repository: &str, tag: &str) -> Result<Option<Digest>, CommandError> {
    let id = aws_sdk_ecr::types::ImageIdentifier::builder().image_tag(tag).build();
    let answer = session.ecr.describe_images().repository_name(repository).image_ids(id).send().await;
    let answer = answer.map_err(|error| SessionError::request("asking ECR for a tag", error))?;
    Ok(answer.image_details().first().and_then(|image| image.image_digest()).and_then(|digest| digest.parse().ok()))
}

fn nothing() -> CommandError {
    CommandError::NothingThere("the receipt names no image".to_owned())
}

/// Writes the tarball to a file and imports it, as `gantry import FILE --as NAME` does.
async fn import(
    session: &Session,
    folder: &Path,
    name: &str,
    tarball: &[u8],
) -> Result<(Receipt, String), CommandError> {
    let file = folder.join("sample.tar");
    tokio::fs::write(&file, tarball).await.map_err(|source| CommandError::File { path: file.clone(), source })?;
    let named = Named { image: None, ..Named::new(&file, Some(name)) };
    let log = Log::open(session).await?;
    let started = Instant::now();
    let uploaded = upload::put(session, &file, &named).await?;
    let receipt = log.until_final(session, &uploaded, |_| {}).await?;
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok((receipt, seconds(took)))
}
