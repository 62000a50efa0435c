//! Every step with every trouble, once and for as long as the delivery lasts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use emulator::faults::{Fault, Hold};
use futures::stream::{self, StreamExt as _};
use gantry::import::Outcome;
use local::samples::Image;
use pipeline_tests::{Uploaded, say};
use serde_json::Value;
use tokio::time::Instant;

use crate::cells::{End, Peer, STEPS, Step, TROUBLES, Times, Trait, Trouble};
use crate::lab::{DELIVERIES, Elsewhere, IMPATIENT, Lab, image, seed, tarball};

/// What a delivery of a cell has: far less than a function's 15 minutes, and long enough for every retry there is.
const DELIVERY: Duration = Duration::from_secs(50);

/// What a delivery may ask for, retries and all: three layers at most of [`gantry::limits::BLOB_ATTEMPTS`] attempts
/// with some four requests each, and the small ones.
const REQUESTS: usize = 160;

/// Cells at once, each on a stack of its own: most of them wait for a backoff or a timeout most of the time.
const LANES: usize = 32;

/// Layers of each image; the last is read in a range of its own.
const LAYERS: usize = 2;
const LAYER_BYTES: usize = 48_000;

struct Cell {
    number: usize,
    step: &'static Step,
    trouble: Trouble,
    times: Times,
}

impl Cell {
    fn label(&self) -> String {
        format!("{} × {:?} {:?} (GANTRY_SEED={})", self.step.name, self.trouble, self.times, seed())
    }
}

/// What became of a cell.
struct Met {
    end: End,
    requests: usize,
    took: Duration,
}

fn cells() -> (Vec<Cell>, BTreeMap<&'static str, usize>) {
    let mut cells = Vec::new();
    let mut senseless: BTreeMap<&'static str, usize> = BTreeMap::new();
    for step in STEPS {
        for &trouble in TROUBLES {
            for times in [Times::Once, Times::Always] {
                match step.senseless(trouble, times) {
                    Some(why) => *senseless.entry(why).or_default() += 1,
                    None => cells.push(Cell { number: cells.len(), step, trouble, times }),
                }
            }
        }
    }
    (cells, senseless)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_survives_every_fault() {
    let (cells, senseless) = cells();
    let count = cells.len();
    let labs = stream::iter(0..LANES).then(|_| Lab::start()).map(Arc::new).collect::<Vec<_>>().await;
    let free = Arc::new(tokio::sync::Mutex::new(labs));
    let met: Vec<(Cell, Result<Met, String>)> = stream::iter(cells)
        .map(|cell| {
            let free = Arc::clone(&free);
            async move {
                // There are as many as cells at once.
                let lab = free.lock().await.pop().expect("a stack is free");
                let task = tokio::spawn({
                    let lab = Arc::clone(&lab);
                    let cell = Cell { ..cell };
                    async move { run(&lab, &cell).await }
                });
                let outcome = task.await.map_err(said);
                free.lock().await.push(lab);
                (cell, outcome)
            }
        })
        .buffer_unordered(LANES)
        .collect()
        .await;

    let mut failed = String::new();
    let mut ends: BTreeMap<End, usize> = BTreeMap::new();
    let (mut requests, mut took) = (0, Duration::ZERO);
    for (cell, outcome) in &met {
        match outcome {
            Ok(met) => {
                *ends.entry(met.end).or_default() += 1;
                requests = requests.max(met.requests);
                took = took.max(met.took);
            }
            Err(why) => writeln!(failed, "- {}: {why}", cell.label()).expect("a string takes it"),
        }
    }
    say(&table(&met));
    let of = |end: End| ends.get(&end).copied().unwrap_or(0);
    say(&format!(
        "matrix: {count} cells, {} done in the same delivery, {} transient, {} superseded; at most {requests} requests \
         and {:.1} s in a delivery; {} pairs make no sense:",
        of(End::Done),
        of(End::Later),
        of(End::Superseded),
        took.as_secs_f64(),
        senseless.values().sum::<usize>(),
    ));
    for (why, pairs) in senseless {
        say(&format!("  {pairs}: {why}"));
    }
    assert!(failed.is_empty(), "{failed}");
}

/// What a cell that failed said.
pub(crate) fn said(failed: tokio::task::JoinError) -> String {
    let Ok(panic) = failed.try_into_panic() else { return "cancelled".to_owned() };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// A line for each step, a letter for each trouble: once and always.
fn table(met: &[(Cell, Result<Met, String>)]) -> String {
    let mut lines = String::from("\n");
    for step in STEPS {
        write!(lines, "{:28}", step.name).expect("a string takes it");
        for &trouble in TROUBLES {
            let letter = |times: Times| {
                let of = |(cell, _): &&(Cell, _)| {
                    std::ptr::eq(cell.step, step) && cell.trouble == trouble && cell.times == times
                };
                match met.iter().find(of) {
                    None => '-',
                    Some((_, Err(_))) => '!',
                    Some((_, Ok(met))) => match met.end {
                        End::Done => 'd',
                        End::Later => 't',
                        End::Superseded => 's',
                    },
                }
            };
            write!(lines, " {}{}", letter(Times::Once), letter(Times::Always)).expect("a string takes it");
        }
        lines.push('\n');
    }
    let names: Vec<String> = TROUBLES.iter().map(|trouble| format!("{trouble:?}")).collect();
    write!(lines, "columns: {}; once and always; d done, t transient, s superseded", names.join(", "))
        .expect("a string takes it");
    lines
}

async fn run(lab: &Lab, cell: &Cell) -> Met {
    let (step, label) = (cell.step, cell.label());
    let repository = lab.repository();
    let image = image(cell.number, LAYERS, LAYER_BYTES);
    let body = tarball(&image);
    let uploaded = lab.pipeline.put(&format!("{repository}/1.0.0.tar"), &body).await;
    let timeouts = Step::timeouts(cell.trouble);
    let importer = lab.importer(timeouts, &Elsewhere::default());

    let body_bytes = if step.position().is_some() { blob_bytes(&image).await } else { 0 };
    let hold = Hold::new();
    let fault = lab.pipeline.faults.add(Fault {
        operation: step.operation.to_owned(),
        resource: step.resource.map(|resource| resource.replace("{}", &repository)),
        skip: step.skip,
        times: if cell.times == Times::Once { 1 } else { usize::MAX },
        action: step.action(cell.trouble, body_bytes, &hold),
    });
    let before = lab.pipeline.faults.count("*");
    let began = Instant::now();
    let first = lab.deliver(&importer, &uploaded, 1, DELIVERY);
    let meanwhile = meanwhile(lab, cell, &uploaded, &hold);
    let (outcome, newer) = tokio::join!(first, meanwhile);
    let took = began.elapsed();
    let requests = lab.pipeline.faults.count("*") - before;
    assert!(lab.pipeline.faults.fired(fault) > 0, "the fault never fired");
    lab.pipeline.faults.lift(fault);

    let end = end_of(&outcome);
    assert_eq!(end, step.end(cell.trouble, cell.times), "{label}: {}", in_words(&outcome));
    assert!(took < DELIVERY, "{label}: it ran into its deadline, {took:?}");
    assert!(requests <= REQUESTS, "{label}: {requests} requests");
    lab.all_is_whole(&repository, &label);
    let tags = lab.pipeline.tagged(&repository);
    let may_be_tagged = end == End::Done || step.is(Trait::AfterTags) || step.is(Trait::Tags);
    assert!(may_be_tagged || tags.is_empty(), "{label}: a tag too early, {tags:?}");
    let receipt = lab.pipeline.receipt(&uploaded.key).await;
    check_receipt(lab, &repository, receipt.as_ref(), end, &label);

    // What is left is done by the next delivery, of the version that counts.
    let last = newer.as_ref().unwrap_or(&uploaded);
    let again = lab.deliver(&lab.importer(timeouts, &Elsewhere::default()), last, 2, DELIVERY).await;
    assert_eq!(end_of(&again), End::Done, "{label}: the next delivery {}", in_words(&again));
    lab.all_is_whole(&repository, &label);
    let tags = lab.pipeline.tagged(&repository);
    assert_eq!(tags.keys().collect::<Vec<_>>(), ["1.0.0"], "{label}");
    let receipt = lab.pipeline.receipt(&uploaded.key).await.expect("a receipt");
    assert_eq!(receipt["state"], "imported", "{label}");
    assert_eq!(receipt["upload"]["version_id"], last.version_id.as_str(), "{label}");
    assert_eq!(receipt["import"]["images"][0]["digest"], tags["1.0.0"].as_str(), "{label}");
    // What was told without an answer may have been heard: it comes again with the same id.
    let heard_twice = step.is(Trait::AfterTags)
        && matches!(cell.trouble, Trouble::AnswerLost | Trouble::ShortBody | Trouble::SlowDrip);
    let told = lab.told_imported(&repository);
    assert!(told == 1 || (heard_twice && told > 1), "{label}: told {told} times");
    Met { end, requests, took }
}

/// What happens while the delivery is held: the same event once more, or a newer version.
async fn meanwhile(lab: &Lab, cell: &Cell, uploaded: &Uploaded, hold: &Hold) -> Option<Uploaded> {
    match cell.trouble {
        Trouble::Duplicate => {
            reached(cell, hold).await;
            let other = lab
                .deliver(&lab.importer(Step::timeouts(cell.trouble), &Elsewhere::default()), uploaded, 1, DELIVERY)
                .await;
            hold.release();
            let end = end_of(&other);
            // While one tells, the other waits for whether it does.
            let wanted = if matches!(cell.step.peer, Peer::Events | Peer::Sns) { End::Later } else { End::Done };
            assert_eq!(end, wanted, "{}: the duplicate {}", cell.label(), in_words(&other));
            None
        }
        Trouble::Overwritten => {
            reached(cell, hold).await;
            let newer = tarball(&image(cell.number + 5_000, LAYERS, LAYER_BYTES));
            let newer = lab.pipeline.put(&uploaded.key, &newer).await;
            hold.release();
            Some(newer)
        }
        _ => None,
    }
}

async fn reached(cell: &Cell, hold: &Hold) {
    let reached = tokio::time::timeout(DELIVERY, hold.reached()).await;
    assert!(reached.is_ok(), "{}: nobody came to the step", cell.label());
}

/// The receipt says no more than is true.
#[expect(clippy::panic, reason = "the failure of a test")]
fn check_receipt(lab: &Lab, repository: &str, receipt: Option<&Value>, end: End, label: &str) {
    let Some(receipt) = receipt else {
        assert_ne!(end, End::Done, "{label}: no receipt");
        return;
    };
    let tags = lab.pipeline.tagged(repository);
    match receipt["state"].as_str() {
        Some("imported") => {
            let digest = receipt["import"]["images"][0]["digest"].as_str();
            assert_eq!(tags.get("1.0.0").map(String::as_str), digest, "{label}");
        }
        Some("importing") => {
            assert_ne!(end, End::Done, "{label}: {receipt:#}");
            assert_eq!(receipt["import"]["attempt"]["of"], DELIVERIES, "{label}");
        }
        Some("superseded") => assert_eq!(end, End::Superseded, "{label}"),
        other => panic!("{label}: the receipt says {other:?}"),
    }
}

fn end_of(outcome: &Outcome) -> End {
    match outcome {
        Outcome::Done(_) => End::Done,
        Outcome::Later { .. } => End::Later,
        Outcome::Refused { error, .. } => {
            assert_eq!(error.kind(), "superseded", "{}", gantry::disposition::chain(error));
            End::Superseded
        }
    }
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(receipt) => receipt.summary.clone(),
        Outcome::Later { error, .. } | Outcome::Refused { error, .. } => gantry::disposition::chain(error),
    }
}

/// What the smallest layer has when it is compressed, as an import elsewhere made it; places in a body are reckoned from
/// it.
#[expect(clippy::panic, reason = "the failure of a test")]
async fn blob_bytes(image: &Image) -> u64 {
    let lab = Lab::start().await;
    let uploaded = lab.pipeline.put("team/app/1.0.0.tar", &tarball(image)).await;
    let outcome = lab.deliver(&lab.importer(IMPATIENT, &Elsewhere::default()), &uploaded, 1, DELIVERY).await;
    let Outcome::Done(receipt) = outcome else { panic!("{}", in_words(&outcome)) };
    let layers = receipt.import.images[0].blobs.iter().filter(|blob| blob.diff_id.is_some());
    layers.map(|blob| blob.size_bytes).min().expect("the image has layers")
}
