//! The dashboard shows what the functions really say: its queries are run over their lines, and its metrics are among
//! those that they tell.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic, as tests do")]

use std::collections::{BTreeMap, BTreeSet};

use emulator::host::LogLine;
use local::samples::{Image, docker_archive, layer};
use pipeline_tests::{Pipeline, Setup};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;

use crate::document::{resources, section};
use crate::insights::{Query, Row, parse, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

fn widgets() -> Vec<Value> {
    let (_, dashboard) = resources("AWS::CloudWatch::Dashboard").remove(0);
    let body: Value = serde_json::from_str(dashboard["Properties"]["DashboardBody"].as_str().unwrap()).unwrap();
    body["widgets"].as_array().unwrap().clone()
}

fn queries() -> BTreeMap<String, Query> {
    let logs = widgets().into_iter().filter(|widget| widget["type"] == "log");
    let read = |widget: Value| {
        let properties = &widget["properties"];
        (properties["title"].as_str().unwrap().to_owned(), parse(properties["query"].as_str().unwrap()))
    };
    logs.map(read).collect()
}

fn lines(log: &mut Receiver<LogLine>) -> Vec<LogLine> {
    let mut lines = Vec::new();
    while let Ok(line) = log.try_recv() {
        lines.push(line);
    }
    lines
}

/// Uploads that are released, held and failed, one that failed and was put right, and one sweep over the records.
async fn everything() -> Vec<LogLine> {
    let parameters = [("ReleaseGate".to_owned(), "scan".to_owned())].into();
    let pipeline = Pipeline::with(PROGRAM, Setup { parameters, ..Setup::default() }).await;
    let critical = json!([{"name": "CVE-2026-1", "severity": "CRITICAL"}]);
    pipeline.findings(&json!([{"repository": "team/old", "findings": critical}, {"repository": "*"}]));
    let mut log = pipeline.stack.log();
    let tarball = |seed| docker_archive(&[(&Image::new("amd64", vec![layer("app", seed, 40_000)]), &[])]);
    let mut said = Vec::new();
    for (key, body, state) in [
        ("team/old/1.tar", tarball(1), "held"),
        ("team/bad/1.tar", b"not an archive at all\n".repeat(40), "failed"),
        ("team/app/1.tar", tarball(2), "released"),
        ("team/mended/1.tar", b"not an archive either\n".repeat(40), "failed"),
        ("team/mended/1.tar", tarball(3), "released"),
    ] {
        assert_eq!(pipeline.import(key, &body).await["state"], state, "{key}");
        pipeline.quiet().await;
        said.extend(lines(&mut log));
    }
    pipeline.stack.run_scheduled("ReconcileFunction").await.unwrap();
    said.extend(lines(&mut log));
    said
}

fn keys(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row["key"].as_str()).collect()
}

/// The metrics that lines tell, each with the dimension it is told by besides the stack.
fn metrics(lines: &[LogLine]) -> BTreeSet<(String, String)> {
    let mut told = BTreeSet::new();
    for line in lines {
        let Ok(record) = serde_json::from_str::<Value>(&line.text) else { continue };
        for directive in record["_aws"]["CloudWatchMetrics"].as_array().into_iter().flatten() {
            let dimension = directive["Dimensions"][0][1].as_str().unwrap_or_default();
            for metric in directive["Metrics"].as_array().into_iter().flatten() {
                told.insert((metric["Name"].as_str().unwrap().to_owned(), dimension.to_owned()));
            }
        }
    }
    told
}

/// The metrics that the dashboard asks for, in the same form.
fn asked() -> BTreeSet<(String, String)> {
    let mut asked = BTreeSet::new();
    for widget in widgets() {
        for metric in widget["properties"]["metrics"].as_array().into_iter().flatten() {
            if metric[0] == "Gantry" {
                asked.insert((metric[1].as_str().unwrap().to_owned(), String::new()));
            }
            if let Some(search) = metric[0]["expression"].as_str() {
                let between = |begin: &str, end: &str| search.split_once(begin).unwrap().1.split_once(end).unwrap().0;
                asked.insert((between("MetricName=\"", "\"").to_owned(), between("{Gantry,stack,", "}").to_owned()));
            }
        }
    }
    asked
}

#[tokio::test]
async fn the_tables_and_the_metrics_are_what_the_functions_say() {
    let lines = everything().await;
    let queries = queries();
    let groups: BTreeSet<String> =
        resources("AWS::Logs::LogGroup").into_iter().map(|(logical_id, _)| logical_id).collect();
    for (title, query) in &queries {
        assert_eq!(query.groups, groups, "{title} reads every function's log");
    }

    let last = run(&queries["The last 20 uploads"], &lines);
    assert_eq!(keys(&last), ["team/mended/1.tar", "team/app/1.tar", "team/bad/1.tar", "team/old/1.tar"]);
    let states: Vec<&str> = last.iter().map(|row| row["now"].as_str()).collect();
    assert_eq!(states, ["released", "released", "failed", "held"]);
    let app = &last[1];
    assert_eq!(app["name"], "team/app:1");
    assert!(app["what"].starts_with("team/app:1 is in ECR and verified"), "{app:?}");
    let number = |name: &str| app[name].parse::<u64>().unwrap();
    assert!(number("bytes") > 40_000 && number("sent") > 0 && number("ms") < 60_000, "{app:?}");

    let open = run(&queries["Not released now, oldest first"], &lines);
    assert_eq!(keys(&open), ["team/old/1.tar", "team/bad/1.tar"], "what was put right is not among them");
    assert!(open[0]["why"].contains("critical CVE-2026-1") && open[0]["todo"].contains("releases/team/old/"));
    assert!(open[1]["why"].starts_with("nothing was tagged") && !open[1]["todo"].is_empty(), "{:?}", open[1]);

    let told = metrics(&lines);
    let missing: Vec<_> = asked().difference(&told).cloned().collect();
    assert_eq!(missing, [], "the dashboard asks for what nothing tells");
}

#[test]
fn the_time_limit_that_is_drawn_is_the_functions() {
    let limits: Vec<Value> = widgets()
        .iter()
        .flat_map(|widget| widget["properties"]["annotations"]["horizontal"].as_array().cloned().unwrap_or_default())
        .collect();
    let seconds = section("Mappings")["Import"]["Delivery"]["TimeoutSeconds"].as_u64().unwrap();
    assert_eq!(limits.iter().map(|limit| limit["value"].as_u64()).collect::<Vec<_>>(), [Some(seconds * 1_000)]);
}

#[test]
fn no_widget_lies_over_another() {
    let mut taken = BTreeSet::new();
    for widget in widgets() {
        let number = |name: &str| widget[name].as_u64().unwrap();
        assert!(number("x") + number("width") <= 24, "{widget}");
        for x in number("x")..number("x") + number("width") {
            for y in number("y")..number("y") + number("height") {
                assert!(taken.insert((x, y)), "{} lies over another", widget["properties"]["title"]);
            }
        }
    }
}
