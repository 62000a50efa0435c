//! The function under test is this very test program, started again to run [`the_function`].

use std::{
    io::{BufRead, BufReader, Read, Write, stdin},
    net::TcpStream,
};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    account,
    iam::{Gate, Role},
    sqs::{Extras, Waits},
    template::{self, QueueSource, Schedule, Scheduler},
    wire::Caller,
};

/// Set in the process that is the function.
const IS_FUNCTION: &str = "EMULATOR_TEST_FUNCTION";

/// Speaks the Runtime API when it is started as a function, and is no test otherwise.
#[test]
fn the_function() {
    if std::env::var_os(IS_FUNCTION).is_none() {
        return;
    }
    let api = std::env::var_os("AWS_LAMBDA_RUNTIME_API").unwrap();
    let api = api.into_string().unwrap();
    loop {
        let next = "/2018-06-01/runtime/invocation/next";
        let (headers, payload) = http(&api, "GET", next, "");
        let request_id = headers["lambda-runtime-aws-request-id"].clone();
        let payload: Value = serde_json::from_str(&payload).unwrap();
        println!("seen {payload}");
        let action = payload
            .pointer("/Records/0/body")
            .or_else(|| payload.get("do"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (path, answer) = match action {
            "crash" => std::process::abort(),
            "hang" => {
                // Its end is the end of the host.
                let _ended = stdin().read(&mut [0]);
                return;
            }
            "fail" => ("error", json!({ "errorType": "Bad", "errorMessage": "no good" })),
            "report" => {
                ("response", json!({ "batchItemFailures": [{ "itemIdentifier": payload["Records"][0]["messageId"] }] }))
            }
            "done" => ("response", json!({ "batchItemFailures": [] })),
            _ => (
                "response",
                json!({
                    "pid": std::process::id(),
                    "headers": headers,
                    "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
                }),
            ),
        };
        let path = format!("/2018-06-01/runtime/invocation/{request_id}/{path}");
        http(&api, "POST", &path, &answer.to_string());
    }
}

/// One request, with nothing but what the Runtime API needs.
fn http(host: &str, method: &str, path: &str, body: &str) -> (BTreeMap<String, String>, String) {
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_owned(), value.to_owned());
    }
    let mut body = String::new();
    reader.read_to_string(&mut body).unwrap();
    (headers, body)
}

struct Fixture {
    host: Host,
    queues: Arc<Queues>,
    lines: broadcast::Receiver<LogLine>,
    _folder: TempDir,
}

fn fixture(timeout: Duration) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let role = Role { function: "Import".to_owned(), session: "gantry-Import".to_owned(), statements: Vec::new() };
    let key = Gate::new(vec![role]).key_of(&Caller::Role("Import".to_owned())).unwrap();
    let queue = |name: &str, redrive| template::Queue {
        name: name.to_owned(),
        arn: account::arn("sqs", name),
        url: String::new(),
        visibility: Duration::from_hours(1),
        delay: Duration::ZERO,
        redrive,
        policy: Vec::new(),
    };
    let redrive = template::Redrive { dead_letter_arn: account::arn("sqs", "dead"), max_receives: 3 };
    let queues = [queue("jobs", Some(redrive)), queue("dead", None)];
    let queues = Queues::open(folder.path().join("sqs"), queues, Waits::Skipped).unwrap();
    let function = Function {
        name: "gantry-Import".to_owned(),
        arn: account::arn("lambda", "function:gantry-Import"),
        handler: "bootstrap".to_owned(),
        timeout,
        memory_mib: 3008,
        environment: BTreeMap::from([("FROM_TEMPLATE".to_owned(), "yes".to_owned())]),
        source: Some(QueueSource {
            queue_arn: account::arn("sqs", "jobs"),
            batch_size: 1,
            batching_window: Duration::ZERO,
            maximum_concurrency: Some(2),
            reports_failures: true,
        }),
        schedules: Vec::new(),
        statements: Vec::new(),
    };
    let command = FunctionCommand {
        program: std::env::current_exe().unwrap(),
        args: ["--exact", "host::tests::the_function", "--nocapture"].map(str::to_owned).to_vec(),
        env: vec![(IS_FUNCTION.to_owned(), "1".to_owned())],
    };
    // A second function, without a queue and with a schedule, under the same role.
    let second = Function {
        name: "gantry-Second".to_owned(),
        source: None,
        schedules: vec![Schedule {
            arn: account::arn("events", "rule/gantry-Second"),
            every: Duration::from_millis(10),
            scheduler: Scheduler::Rule,
            input: None,
        }],
        ..function.clone()
    };
    let (log, lines) = broadcast::channel(1024);
    let host = Host::new(
        [("Import".to_owned(), function, command.clone(), key.clone()), ("Second".to_owned(), second, command, key)],
        "http://127.0.0.1:1",
        folder.path().join("home"),
        log,
    );
    Fixture { host, queues: Arc::new(queues), lines, _folder: folder }
}

const LONG: Duration = Duration::from_mins(5);

async fn pid(host: &Host) -> u64 {
    let answer = host.invoke("Import", &json!({})).await.unwrap();
    answer["pid"].as_u64().unwrap()
}

#[tokio::test]
async fn a_function_runs_as_lambda_runs_it_and_stays_warm() {
    let mut fixture = fixture(LONG);
    let before = crate::clock::now().as_millisecond();
    let answer = fixture.host.invoke("Import", &json!({ "n": 1 })).await.unwrap();
    assert_eq!(pid(&fixture.host).await, answer["pid"].as_u64().unwrap());

    let environment = &answer["environment"];
    for (name, want) in [
        ("FROM_TEMPLATE", "yes"),
        ("AWS_LAMBDA_FUNCTION_NAME", "gantry-Import"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "3008"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_REGION", "us-east-1"),
        ("_HANDLER", "bootstrap"),
    ] {
        assert_eq!(environment[name], want, "{name}");
    }
    assert!(environment["AWS_SESSION_TOKEN"].is_string());
    // Cargo sets it for tests; a function sees nothing of the host's environment.
    assert!(environment["CARGO_MANIFEST_DIR"].is_null());

    let headers = &answer["headers"];
    assert_eq!(headers["lambda-runtime-invoked-function-arn"], account::arn("lambda", "function:gantry-Import"));
    let deadline: i64 = headers["lambda-runtime-deadline-ms"].as_str().unwrap().parse().unwrap();
    assert!(deadline >= before + 300_000, "{deadline}");

    fixture.host.stop().await;
    let mut platform = Vec::new();
    let mut seen = None;
    while let Ok(line) = fixture.lines.try_recv() {
        match serde_json::from_str::<Value>(&line.text) {
            Ok(record) if record["type"].is_string() => platform.push(record),
            _ if line.text == r#"seen {"n":1}"# => seen = line.request_id,
            _ => {}
        }
    }
    assert_eq!(seen.as_deref(), headers["lambda-runtime-aws-request-id"].as_str());
    let kinds: Vec<&str> = platform.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["platform.initReport", "platform.start", "platform.report", "platform.start", "platform.report"]
    );
    let metrics = &platform[2]["record"]["metrics"];
    assert!(metrics["initDurationMs"].is_f64());
    assert_eq!(metrics["maxMemoryUsedMB"].is_u64(), cfg!(target_os = "linux"));
    assert!(platform[4]["record"]["metrics"]["initDurationMs"].is_null());
}

#[tokio::test]
async fn an_error_keeps_the_environment_and_a_crash_does_not() {
    let fixture = fixture(LONG);
    let host = &fixture.host;
    let first = pid(host).await;
    let failed = host.invoke("Import", &json!({ "do": "fail" })).await;
    assert_eq!(failed.unwrap_err().to_string(), r#"the function failed: {"errorMessage":"no good","errorType":"Bad"}"#);
    assert_eq!(pid(host).await, first);
    let crashed = host.invoke("Import", &json!({ "do": "crash" })).await;
    assert!(matches!(crashed, Err(InvokeError::Crashed { .. })), "{crashed:?}");
    assert_ne!(pid(host).await, first);
    let other = host.invoke("Other", &json!({})).await.unwrap_err();
    assert_eq!(other.to_string(), "there is no function Other");
    host.stop().await;
    let stopped = host.invoke("Import", &json!({})).await;
    assert!(matches!(stopped, Err(InvokeError::Stopping)));
}

#[cfg(unix)]
#[tokio::test]
async fn no_process_outlives_its_timeout_or_the_host() {
    let runs = |pid: u64| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::test_kill_process(pid).is_ok()
    };
    let slow = fixture(Duration::from_secs(2));
    let first = pid(&slow.host).await;
    let hung = slow.host.invoke("Import", &json!({ "do": "hang" })).await;
    assert_eq!(hung.unwrap_err().to_string(), "the function was killed after 2 s without an answer");
    assert!(!runs(first));
    let second = pid(&slow.host).await;
    assert!(runs(second));
    slow.host.stop().await;
    assert!(!runs(second));
}

#[tokio::test]
async fn a_missing_program_is_an_error() {
    let fixture = fixture(LONG);
    let hosted = &fixture.host.functions["Import"];
    let command = FunctionCommand { program: PathBuf::from("/no/such/program"), ..hosted.command.clone() };
    let functions = [("Import".to_owned(), hosted.function.clone(), command, hosted.key.clone())];
    let (log, _) = broadcast::channel(1);
    let host = Host::new(functions, "", PathBuf::new(), log);
    let error = host.invoke("Import", &json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "the process of the function Import could not be started");
}

#[tokio::test]
async fn messages_are_deleted_come_back_and_die() {
    let fixture = fixture(LONG);
    fixture.host.poll(&fixture.queues);
    for body in ["done", "report", "crash", "fail"] {
        fixture.queues.send("jobs", body, Extras::default()).unwrap();
    }
    fixture.queues.drained("jobs").await.unwrap();
    fixture.host.stop().await;
    let mut dead: Vec<(String, u32)> =
        fixture.queues.messages("dead").unwrap().into_iter().map(|message| (message.body, message.receives)).collect();
    dead.sort();
    let want = ["crash", "fail", "report"].map(|body| (body.to_owned(), 3));
    assert_eq!(dead, want);
}

#[tokio::test]
async fn several_functions_run_at_once_each_in_its_own_process() {
    let fixture = fixture(LONG);
    let payload = json!({});
    let invoke = |function: &'static str| fixture.host.invoke(function, &payload);
    let (first, second) = tokio::join!(invoke("Import"), invoke("Second"));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first["pid"], second["pid"]);
    assert_eq!(first["environment"]["AWS_LAMBDA_FUNCTION_NAME"], "gantry-Import");
    assert_eq!(second["environment"]["AWS_LAMBDA_FUNCTION_NAME"], "gantry-Second");
    fixture.host.stop().await;
}

#[tokio::test]
async fn a_schedule_runs_its_function_again_and_again() {
    let mut fixture = fixture(LONG);
    fixture.host.run_schedules();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let line = fixture.lines.recv().await.unwrap();
        if let Some(payload) = line.text.strip_prefix("seen ") {
            assert_eq!(line.function, "Second");
            seen.push(serde_json::from_str::<Value>(payload).unwrap());
        }
    }
    fixture.host.stop().await;
    assert_eq!(seen[0]["detail-type"], "Scheduled Event");
    assert_eq!(seen[0]["resources"][0], account::arn("events", "rule/gantry-Second"));
    assert_ne!(seen[0]["id"], seen[1]["id"]);
}
