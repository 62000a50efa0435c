//! One environment: a child process and the Runtime API it speaks to.

use std::{
    fs, io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    Hosted, InvokeError, Settings,
    log::{Logger, Report, milliseconds},
    logger,
    runtime_api::{Reply, RuntimeApi, Work},
};
use crate::{account, clock, template::Function};

/// How long a process may take to end when it is asked to, as Lambda's shutdown phase without
/// extensions has at most two seconds.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// How long an invocation's log is left open after its answer: what the process printed before it
/// answered is in the pipe by then, and is read before the report.
const LAST_LINES: Duration = Duration::from_millis(2);

/// What Lambda's own path begins with, and what a laptop has.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why an environment can take no further invocation.
#[derive(Debug)]
pub(super) enum Ended {
    Crashed { status: String },
    TimedOut,
    Stopping,
}

/// A running environment.
#[derive(Debug)]
pub(super) struct Environment {
    child: Child,
    /// Held open and never written to; apart from `child`, whose `wait` would close it.
    stdin: Option<ChildStdin>,
    api: RuntimeApi,
    logger: Logger,
    output: Vec<JoinHandle<()>>,
    started: Instant,
    initialised: bool,
}

impl Environment {
    /// Starts the process; it initialises itself while nobody waits.
    pub(super) async fn start(hosted: &Hosted, settings: &Settings) -> io::Result<Self> {
        let api = RuntimeApi::start().await?;
        let mut command = Command::new(&hosted.command.program);
        command
            .args(&hosted.command.args)
            .env_clear()
            .envs(variables(hosted, settings, &api))
            .envs(hosted.command.env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C in the terminal is for the stack, which then ends its functions in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let logger = logger(hosted, settings);
        let output = [logger.follow(child.stdout.take()), logger.follow(child.stderr.take())];
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            api,
            logger,
            output: output.into_iter().flatten().collect(),
            started: Instant::now(),
            initialised: false,
        })
    }

    /// Whether the process still runs.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process's id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Runs one invocation: its answer or error, or why the environment has ended.
    ///
    /// # Cancel safety
    ///
    /// After a dropped invocation the environment must be stopped.
    pub(super) async fn invoke(
        &mut self,
        function: &Function,
        payload: &Value,
    ) -> Result<Result<Value, InvokeError>, Ended> {
        let request_id = Uuid::new_v4().to_string();
        let init_duration = self.initialise(function).await?;
        self.logger.set_request(Some(&request_id));
        self.logger.platform("platform.start", &json!({ "requestId": request_id, "version": "$LATEST" }));
        let began = Instant::now();
        let outcome = self.exchange(function, &request_id, payload).await;
        let status = match &outcome {
            Ok(Reply::Answer(_)) => "success",
            Ok(Reply::Error(_)) => "error",
            Err(Ended::TimedOut) => "timeout",
            Err(Ended::Crashed { .. } | Ended::Stopping) => "failure",
        };
        let duration = began.elapsed();
        let used = self.child.id().and_then(peak_memory_mib);
        if outcome.is_err() {
            self.kill().await;
        } else {
            sleep(LAST_LINES).await;
        }
        self.logger.report(&Report {
            request_id: &request_id,
            status,
            duration,
            init_duration,
            memory_size_mb: function.memory_mib,
            max_memory_used_mb: used,
        });
        self.logger.set_request(None);
        Ok(match outcome? {
            Reply::Answer(bytes) => serde_json::from_slice(&bytes).map_err(InvokeError::Answer),
            Reply::Error(bytes) => Err(failed(&bytes)),
        })
    }

    /// Waits until the process asks for its first invocation; how long that took, if it was now.
    ///
    /// Lambda gives initialisation ten seconds and then begins again within the function's timeout;
    /// here both are one period.
    async fn initialise(&mut self, function: &Function) -> Result<Option<Duration>, Ended> {
        if self.initialised {
            return Ok(None);
        }
        let most = function.timeout + Duration::from_secs(10);
        let ended = tokio::select! {
            () = self.api.ready() => None,
            status = self.child.wait() => Some(crashed(status, self.api.init_error().as_ref())),
            () = sleep(most) => Some(Ended::TimedOut),
        };
        let duration = self.started.elapsed();
        self.initialised = ended.is_none();
        self.logger.platform(
            "platform.initReport",
            &json!({
                "initializationType": "on-demand",
                "phase": "init",
                "status": if self.initialised { "success" } else { "failure" },
                "metrics": { "durationMs": milliseconds(duration) },
            }),
        );
        match ended {
            None => Ok(Some(duration)),
            Some(ended) => {
                self.kill().await;
                Err(ended)
            }
        }
    }

    async fn exchange(&mut self, function: &Function, request_id: &str, payload: &Value) -> Result<Reply, Ended> {
        let (reply, answered) = oneshot::channel();
        let deadline = Timestamp::from_millisecond(
            clock::now().as_millisecond() + i64::try_from(function.timeout.as_millis()).unwrap_or(i64::MAX / 2),
        );
        let work = Work {
            request_id: request_id.to_owned(),
            payload: Bytes::from(payload.to_string()),
            deadline: deadline.unwrap_or(Timestamp::MAX),
            function_arn: function.arn.clone(),
            trace_id: trace_id(),
            reply,
        };
        let exchange = async {
            if self.api.hand_over(work).await
                && let Ok(reply) = answered.await
            {
                return reply;
            }
            // The server cannot be gone before the environment; let the other branches decide.
            std::future::pending().await
        };
        tokio::select! {
            reply = exchange => Ok(reply),
            status = self.child.wait() => Err(crashed(status, None)),
            () = sleep(function.timeout) => Err(Ended::TimedOut),
        }
    }

    /// Kills the process and waits until everything it printed is logged.
    async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "a function's process could not be killed");
        }
        let output = std::mem::take(&mut self.output);
        // A grandchild may hold the pipe open for ever.
        let _drained = timeout(SHUTDOWN, futures::future::join_all(output)).await;
    }

    /// Asks the process to end, waits a moment, and kills it.
    pub(super) async fn stop(mut self) {
        drop(self.stdin.take());
        if let Some(pid) = self.child.id() {
            ask_to_end(pid);
        }
        if timeout(SHUTDOWN, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }
}

/// The variables that Lambda sets, then the template's.
fn variables(hosted: &Hosted, settings: &Settings, api: &RuntimeApi) -> Vec<(String, String)> {
    let function = &hosted.function;
    let task_root = hosted.command.program.parent().unwrap_or(Path::new("/"));
    let today = clock::now().strftime("%Y/%m/%d");
    let own = [
        ("PATH", PATH.to_owned()),
        ("HOME", settings.home.display().to_string()),
        ("TZ", ":UTC".to_owned()),
        ("AWS_LAMBDA_RUNTIME_API", api.address.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", function.name.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory_mib.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", function.name)),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("{today}/[$LATEST]{}", Uuid::new_v4().simple())),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_REGION", account::REGION.to_owned()),
        ("AWS_DEFAULT_REGION", account::REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", hosted.key.id.clone()),
        ("AWS_SECRET_ACCESS_KEY", hosted.key.secret.clone()),
        ("AWS_SESSION_TOKEN", hosted.key.session_token.clone().unwrap_or_default()),
        ("AWS_ENDPOINT_URL", settings.endpoint.clone()),
        ("_HANDLER", function.handler.clone()),
        ("LAMBDA_TASK_ROOT", task_root.display().to_string()),
    ];
    own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(function.environment.clone()).collect()
}

/// An X-Ray trace header that nobody samples.
fn trace_id() -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!(
        "Root=1-{:08x}-{};Parent={};Sampled=0",
        clock::now().as_second(),
        &random[..24],
        &Uuid::new_v4().simple().to_string()[..16]
    )
}

fn crashed(status: io::Result<ExitStatus>, init_error: Option<&Bytes>) -> Ended {
    let status = match (status, init_error) {
        (_, Some(error)) => String::from_utf8_lossy(error).into_owned(),
        (Ok(status), None) => status.to_string(),
        (Err(error), None) => error.to_string(),
    };
    Ended::Crashed { status }
}

fn failed(bytes: &[u8]) -> InvokeError {
    let error =
        serde_json::from_slice(bytes).unwrap_or_else(|_: serde_json::Error| String::from_utf8_lossy(bytes).into());
    InvokeError::Function { error }
}

/// Sends SIGTERM.
#[cfg(unix)]
fn ask_to_end(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
    {
        tracing::debug!(%error, "a function's process had ended before it was asked to");
    }
}

/// The end of its standard input is all that tells it.
#[cfg(not(unix))]
fn ask_to_end(_pid: u32) {}

/// Sends SIGKILL; whether there was such a process.
#[cfg(unix)]
pub(super) fn kill_at_once(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok())
}

/// There is no such signal.
#[cfg(not(unix))]
pub(super) fn kill_at_once(_pid: u32) -> bool {
    false
}

/// The most memory the process has had resident, in MiB rounded up; Linux alone tells.
fn peak_memory_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    peak_of(&status)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read_from_the_status_file() {
        let status = "Name:\timport\nVmPeak:\t  999 kB\nVmHWM:\t    2049 kB\n";
        assert_eq!(peak_of(status), Some(3));
        for other in ["", "VmHWM:\t x kB", "VmHWM:\t 1 MB"] {
            assert_eq!(peak_of(other), None, "{other:?}");
        }
    }

    #[test]
    fn an_error_that_is_no_json_is_kept_as_text() {
        let failed = failed(b"boom");
        assert_eq!(failed.to_string(), r#"the function failed: "boom""#);
    }
}
