//! Two hundred uploads at once through twenty functions, at ECR's ten manifests a second: nothing is lost, nothing is
//! doubled, and a conflict is told to whom it is about.

use std::collections::BTreeMap;
use std::time::Duration;

use emulator::shape::Shape;
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use local::samples::{Image, layer};
use pipeline_tests::look::{check_image, digest};
use pipeline_tests::{Pipeline, Setup, Uploaded, now, say};
use serde_json::Value;
use tokio::time::Instant;

use crate::PROGRAM;
use crate::lab::{Dice, all_is_whole, seed, tarball};

/// What an upload has to come to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// In ECR: this config under this name.
    Released(String),
    /// One of the two archives under one name; `Released` or a conflict.
    OneOfTwo(usize),
    /// Overwritten by another upload of the same key: superseded, or in time.
    Overwritten,
    /// The one that overwrote it: it wins, or meets the tag of the one that was in time.
    Overwrites,
}

struct Upload {
    key: String,
    name: Option<String>,
    image: Image,
    wanted: Wanted,
}

fn small(seed_of: u32) -> Image {
    let base = layer("base", seed(), 12_000);
    Image::new("amd64", vec![base, layer("app", seed().wrapping_mul(7_919).wrapping_add(seed_of), 3_000)])
}

/// 60 of different images that share a layer, 60 of 6 images in ten keys each, 20 pairs of two archives under one name,
/// 20 keys that are uploaded twice.
fn uploads() -> Vec<Upload> {
    let mut uploads = Vec::new();
    for at in 0..60_u32 {
        let image = small(at);
        let wanted = Wanted::Released(digest(&image.config()));
        uploads.push(Upload { key: format!("team/app-{}/1.{at}.0.tar", at % 12), name: None, image, wanted });
    }
    for at in 0..60_u32 {
        let image = small(100 + at % 6);
        let wanted = Wanted::Released(digest(&image.config()));
        let name = Some(format!("team/same-{}:1.0.0", at % 6));
        uploads.push(Upload { key: format!("team/copies/{at}.tar"), name, image, wanted });
    }
    for at in 0..40_u32 {
        let name = Some(format!("team/clash-{}:1.0.0", at / 2));
        let wanted = Wanted::OneOfTwo(at as usize / 2);
        uploads.push(Upload { key: format!("team/clashes/{at}.tar"), name, image: small(200 + at), wanted });
    }
    // Further apart than uploads at once, so that the second is the later version.
    for (later, of) in [(false, 300), (true, 400)] {
        for at in 0..20_u32 {
            let wanted = if later { Wanted::Overwrites } else { Wanted::Overwritten };
            uploads.push(Upload {
                key: format!("team/over-{at}/1.0.0.tar"),
                name: None,
                image: small(of + at),
                wanted,
            });
        }
    }
    uploads
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_uploads_at_once_through_twenty_functions() {
    const AT_ONCE: &str = "ScalingConfig: { MaximumConcurrency: 20 }";
    let edits = vec![("ScalingConfig: { MaximumConcurrency: 5 }".to_owned(), AT_ONCE.to_owned())];
    let shape = Shape { put_images_per_second: Some(10), ..Shape::default() };
    let pipeline = Pipeline::with(PROGRAM, Setup { edits, shape, ..Setup::default() }).await;
    let mut uploads = uploads();
    assert_eq!(uploads.len(), 200);
    // In any order, but that what overwrites comes after what it overwrites.
    let mut dice = Dice::new(seed());
    for at in (1..160).rev() {
        uploads.swap(at, dice.below(at + 1));
    }
    let began = Instant::now();
    let put: Vec<(Uploaded, Timestamp)> = stream::iter(&uploads)
        .map(|upload| {
            let pipeline = &pipeline;
            async move {
                let metadata: Vec<(&str, &str)> = upload.name.iter().map(|name| ("image", name.as_str())).collect();
                let put = pipeline.put_with(&upload.key, &tarball(&upload.image), &metadata).await;
                (put, now())
            }
        })
        .buffered(8)
        .collect()
        .await;
    pipeline.quiet_in(Duration::from_mins(4)).await;
    let took = began.elapsed();

    let label = format!("GANTRY_SEED={}", seed());
    assert!(pipeline.stack.queues().messages("failed-messages").expect("the queue is there").is_empty(), "{label}");
    let mut conflicts: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut slowest = (jiff::SignedDuration::ZERO, String::new());
    for (upload, (put, at)) in uploads.iter().zip(&put) {
        // The receipt is the newest version's, the tags are each version's own.
        let tag = pipeline.tags(put).await.remove("gantry").unwrap_or_default();
        *counts.entry(tag.clone()).or_default() += 1;
        let receipt = pipeline.receipt(&upload.key).await.expect("a receipt");
        let is_own = receipt["upload"]["version_id"] == put.version_id.as_str();
        let ended: Timestamp = receipt["import"]["updated_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
        if is_own {
            slowest = slowest.max((ended.duration_since(*at), upload.key.clone()));
        }
        let what = format!("{} {tag} ({label}): {receipt:#}", upload.key);
        match &upload.wanted {
            Wanted::Released(config) => {
                assert_eq!((tag.as_str(), is_own), ("released", true), "{what}");
                let image = &receipt["import"]["images"][0];
                let (repository, tag) = (image["repository"].as_str(), image["tags"][0].as_str());
                let found =
                    check_image(pipeline.stack.images(), repository.expect("a repository"), tag.expect("a tag"));
                assert_eq!(found, *config, "{what}");
            }
            Wanted::OneOfTwo(pair) => {
                let won = tag == "released";
                conflicts.entry(*pair).or_default().push(won);
                let name = format!("team/clash-{pair}");
                let tagged = pipeline.tagged(&name).remove("1.0.0").expect("one of them won");
                if won {
                    assert_eq!(receipt["import"]["images"][0]["digest"], tagged.as_str(), "{what}");
                } else {
                    assert_eq!(
                        (tag.as_str(), receipt["import"]["reason"]["kind"].as_str()),
                        ("failed", Some("conflict")),
                        "{what}"
                    );
                    let text = receipt["summary"].as_str().expect("a summary");
                    assert!(text.contains(&tagged) && text.contains(&name), "it names the other image: {what}");
                }
            }
            Wanted::Overwritten => assert!(matches!(tag.as_str(), "superseded" | "released"), "{what}"),
            Wanted::Overwrites => {
                assert!(is_own, "{what}");
                let is_late = tag == "failed" && receipt["import"]["reason"]["kind"] == "conflict";
                assert!(tag == "released" || is_late, "{what}");
            }
        }
    }
    assert_eq!(conflicts.len(), 20);
    assert!(conflicts.values().all(|won| won.iter().filter(|won| **won).count() == 1), "{label}: {conflicts:?}");

    for repository in pipeline.stack.images().repositories() {
        all_is_whole(&pipeline, &repository, &label);
    }
    // Each fact was told once; its id is made from it.
    let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (name, detail) in pipeline.told() {
        told.entry(format!("{name} {}", detail["id"])).or_default().push(detail);
    }
    let twice: Vec<_> = told.iter().filter(|(_, details)| details.len() > 1).collect();
    assert!(twice.is_empty(), "{label}: told twice: {twice:?}");
    let failed_told = told.keys().filter(|name| name.starts_with("Import Failed")).count();
    assert_eq!(failed_told, counts.get("failed").copied().unwrap_or(0), "{label}: each failure is told");

    say(&format!(
        "crowd: 200 uploads in {:.1} s ({:.1} a second), {counts:?}; the slowest import took {:.1} s ({}); {} \
         manifests were put, {} refused for their number",
        took.as_secs_f64(),
        200.0 / took.as_secs_f64(),
        slowest.0.as_secs_f64(),
        slowest.1,
        count(&pipeline, 201),
        count(&pipeline, 429),
    ));
}

fn count(pipeline: &Pipeline, status: u16) -> usize {
    let puts =
        pipeline.faults.requests().into_iter().filter(|request| request.operation.name == "registry:PutManifest");
    puts.filter(|request| request.status == Some(status)).count()
}
