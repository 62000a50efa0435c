//! The function's process killed in the middle of its work: the next delivery ends right, whatever was done before.

use emulator::faults::{Action, Fault, Hold};
use local::samples::{Image, docker_archive, layer, oci_archive};
use pipeline_tests::{Pipeline, Setup, say};

use crate::PROGRAM;
use crate::lab::{Dice, seed};

/// When the process dies at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    /// Before the request is handled.
    Before,
    /// After it, and before its answer.
    After,
}

async fn start() -> Pipeline {
    let without = vec!["OnPushFunction", "OnScanFunction", "ReconcileFunction"];
    Pipeline::with(PROGRAM, Setup { without, ..Setup::default() }).await
}

/// Kills the function at its `n`-th request of the import of `body`; `false` when it makes fewer. Checks the end.
async fn killed_at(pipeline: &Pipeline, n: usize, dies: Dies, repository: &str, body: &[u8]) -> bool {
    let label = format!("killed at request {n}, {dies:?} (GANTRY_SEED={})", seed());
    let hold = Hold::new();
    let action = match dies {
        Dies::Before => Action::Hold(hold.clone()),
        Dies::After => Action::HoldAnswer(hold.clone()),
    };
    let (operation, resource) = ("*".to_owned(), None);
    let fault = pipeline.faults.add(Fault { operation, resource, skip: n - 1, times: 1, action });
    let key = format!("{repository}/1.0.0.tar");
    let uploaded = pipeline.put(&key, body).await;
    // The event is on its way to the queue: the function's first request says that it came.
    let ended = async {
        while pipeline.receipt(&key).await.is_none_or(|receipt| receipt["state"] != "imported") {
            tokio::task::yield_now().await;
        }
        pipeline.stack.queues().drained("import-queue").await.expect("the queue is there");
    };
    let reached = tokio::select! {
        () = hold.reached() => true,
        () = ended => false,
    };
    pipeline.faults.lift(fault);
    if reached {
        assert_eq!(pipeline.stack.kill("ImportFunction"), 1, "{label}");
        hold.release();
        pipeline.stack.queues().drained("import-queue").await.expect("the queue is there");
    }

    assert!(pipeline.stack.queues().messages("failed-messages").expect("the queue is there").is_empty(), "{label}");
    let receipt = pipeline.receipt(&key).await.expect(&label);
    assert_eq!(receipt["state"], "imported", "{label}: {receipt:#}");
    assert_eq!(receipt["upload"]["version_id"], uploaded.version_id.as_str(), "{label}");
    let tags = pipeline.tagged(repository);
    assert_eq!(tags.get("1.0.0").map(String::as_str), receipt["import"]["images"][0]["digest"].as_str(), "{label}");
    crate::lab::all_is_whole(pipeline, repository, &label);
    // Who dies between telling and noting it tells again, with the same id.
    let told = pipeline.told().into_iter().filter(|(_, detail)| detail["image"]["repository"] == repository);
    let ids: Vec<_> = told.map(|(_, detail)| detail["id"].clone()).collect();
    assert!((1..=2).contains(&ids.len()) && ids.iter().all(|id| *id == ids[0]), "{label}: {ids:?}");
    assert!(reached || ids.len() == 1, "{label}");
    reached
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_import_survives_its_death_at_every_request() {
    for dies in [Dies::Before, Dies::After] {
        let pipeline = start().await;
        let mut deaths = 0;
        for n in 1.. {
            let number = u32::try_from(n).expect("few requests");
            let image = Image::new("amd64", vec![layer("app", seed().wrapping_add(number), 20_000)]);
            let body = docker_archive(&[(&image, &[])]);
            if !killed_at(&pipeline, n, dies, &format!("team/app-{n}"), &body).await {
                break;
            }
            deaths += 1;
        }
        assert!(deaths > 20, "an import makes more requests than {deaths}");
        say(&format!("crash: killed at each of {deaths} requests, {dies:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn larger_imports_survive_their_death_at_some_request() {
    let pipeline = start().await;
    let mut dice = Dice::new(seed());
    let mut deaths = 0;
    for round in 0..10 {
        let mut layers = |count: usize| -> Vec<Vec<u8>> {
            (0..count)
                .map(|at| {
                    layer(
                        "app",
                        seed().wrapping_mul(97).wrapping_add(round * 31 + u32::try_from(at).unwrap()),
                        1 + dice.below(600_000),
                    )
                })
                .collect()
        };
        let body = if round % 2 == 0 {
            docker_archive(&[(&Image::new("amd64", layers(6)), &[])])
        } else {
            oci_archive(&[&Image::new("amd64", layers(3)), &Image::new("arm64", layers(3))], "1.0.0").0
        };
        let dies = if dice.below(2) == 0 { Dies::Before } else { Dies::After };
        let n = 1 + dice.below(50);
        let reached = killed_at(&pipeline, n, dies, &format!("team/app-{round}"), &body).await;
        deaths += usize::from(reached);
    }
    say(&format!("crash: {deaths} of 10 larger imports were killed"));
    assert!(deaths > 4, "{deaths}");
}
