//! The Lambda host: each function is a real child process that speaks the Runtime API.
//!
//! Environments are kept warm and used again, one invocation at a time, as Lambda keeps them. No
//! child outlives the host: it is ended on [`Host::stop`] and killed when the host is dropped; its
//! standard input is a pipe that the host holds open and never writes to, so a function that reads
//! it sees the end of it when the host is gone, even if the host was killed.

mod batch;
mod environment;
mod log;
mod polling;
mod runtime_api;
mod scheduling;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use log::LogLine;

use crate::{iam::AccessKey, sqs::Queues, template::Function};
use environment::{Ended, Environment};
use log::Logger;

/// How to start a function's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set after Lambda's own and the template's.
    pub env: Vec<(String, String)>,
}

/// Why an invocation has no result.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// The template has no such function.
    #[error("there is no function {function}")]
    NoFunction {
        /// The logical id that was given.
        function: String,
    },
    /// The function's process could not be started.
    #[error("the process of the function {function} could not be started")]
    Start {
        /// The function's logical id.
        function: String,
        /// What the system says.
        source: io::Error,
    },
    /// The function answered with an error; Lambda's `errorType` and `errorMessage` are in it.
    #[error("the function failed: {error}")]
    Function {
        /// The error's JSON.
        error: Value,
    },
    /// The process ended before it answered.
    #[error("the function's process ended without an answer ({status})")]
    Crashed {
        /// The exit status in the system's words.
        status: String,
    },
    /// The function did not answer within its timeout and was killed.
    #[error("the function was killed after {} s without an answer", timeout.as_secs())]
    TimedOut {
        /// The function's timeout.
        timeout: Duration,
    },
    /// The answer is no JSON.
    #[error("the function's answer is no JSON")]
    Answer(#[source] serde_json::Error),
    /// The stack is being stopped.
    #[error("the stack is being stopped")]
    Stopping,
}

/// What every environment needs to know.
#[derive(Debug)]
struct Settings {
    endpoint: String,
    /// An empty folder: a function must not find the user's own AWS configuration.
    home: PathBuf,
    log: broadcast::Sender<LogLine>,
    stopping: CancellationToken,
}

#[derive(Debug)]
struct Hosted {
    logical_id: String,
    function: Function,
    command: FunctionCommand,
    key: AccessKey,
    warm: Mutex<Vec<Environment>>,
    /// Processes that are at work.
    working: Mutex<BTreeSet<u32>>,
}

/// Runs functions, polls their queues and keeps their schedules.
#[derive(Debug)]
pub struct Host {
    functions: BTreeMap<String, Arc<Hosted>>,
    settings: Arc<Settings>,
    tasks: TaskTracker,
}

impl Host {
    /// A host for `functions`, each with the command that starts it and its role's key.
    ///
    /// Nothing is started before the first invocation.
    pub fn new(
        functions: impl IntoIterator<Item = (String, Function, FunctionCommand, AccessKey)>,
        endpoint: &str,
        home: PathBuf,
        log: broadcast::Sender<LogLine>,
    ) -> Self {
        let functions = functions
            .into_iter()
            .map(|(logical_id, function, command, key)| {
                let hosted = Hosted {
                    logical_id: logical_id.clone(),
                    function,
                    command,
                    key,
                    warm: Mutex::default(),
                    working: Mutex::default(),
                };
                (logical_id, Arc::new(hosted))
            })
            .collect();
        Self {
            functions,
            settings: Arc::new(Settings {
                endpoint: endpoint.to_owned(),
                home,
                log,
                stopping: CancellationToken::new(),
            }),
            tasks: TaskTracker::new(),
        }
    }

    /// Begins to poll the queue of every function that has one.
    pub fn poll(&self, queues: &Arc<Queues>) {
        for hosted in self.functions.values() {
            if let Some(source) = hosted.function.source.clone() {
                self.tasks.spawn(polling::poll(
                    Arc::clone(hosted),
                    source,
                    Arc::clone(queues),
                    Arc::clone(&self.settings),
                    self.tasks.clone(),
                ));
            }
        }
    }

    /// Begins to run every function that has a schedule, the first time when its time is over once.
    pub fn run_schedules(&self) {
        for hosted in self.functions.values() {
            for schedule in hosted.function.schedules.clone() {
                self.tasks.spawn(scheduling::run(Arc::clone(hosted), schedule, Arc::clone(&self.settings)));
            }
        }
    }

    /// Invokes a function directly and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`InvokeError`].
    pub async fn invoke(&self, logical_id: &str, payload: &Value) -> Result<Value, InvokeError> {
        let hosted = self
            .functions
            .get(logical_id)
            .ok_or_else(|| InvokeError::NoFunction { function: logical_id.to_owned() })?;
        hosted.invoke(&self.settings, payload).await
    }

    /// Kills the processes of a function that are at work (SIGKILL); how many. Their invocations fail as crashed.
    pub fn kill(&self, logical_id: &str) -> usize {
        let Some(hosted) = self.functions.get(logical_id) else { return 0 };
        let working = hosted.working.lock().unwrap_or_else(PoisonError::into_inner);
        working.iter().filter(|pid| environment::kill_at_once(**pid)).count()
    }

    /// Ends every process: asks (SIGTERM), waits two seconds, kills.
    ///
    /// Messages that were being worked on become visible again when the queues are opened next.
    pub async fn stop(&self) {
        self.settings.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for hosted in self.functions.values() {
            let warm = std::mem::take(&mut *hosted.warm());
            futures::future::join_all(warm.into_iter().map(Environment::stop)).await;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Pollers hold the environments that are at work; they let go of them now.
        self.settings.stopping.cancel();
    }
}

impl Hosted {
    fn warm(&self) -> std::sync::MutexGuard<'_, Vec<Environment>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warm_environment(&self) -> Option<Environment> {
        let mut warm = self.warm();
        while let Some(mut environment) = warm.pop() {
            if environment.is_alive() {
                return Some(environment);
            }
        }
        None
    }

    async fn invoke(&self, settings: &Settings, payload: &Value) -> Result<Value, InvokeError> {
        if settings.stopping.is_cancelled() {
            return Err(InvokeError::Stopping);
        }
        let mut environment = match self.warm_environment() {
            Some(environment) => environment,
            None => Environment::start(self, settings)
                .await
                .map_err(|source| InvokeError::Start { function: self.logical_id.clone(), source })?,
        };
        let working = || self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = environment.pid();
        working().extend(pid);
        let invoked = tokio::select! {
            invoked = environment.invoke(&self.function, payload) => invoked,
            () = settings.stopping.cancelled() => Err(Ended::Stopping),
        };
        working().retain(|at_work| Some(*at_work) != pid);
        match invoked {
            Ok(answer) => {
                self.warm().push(environment);
                answer
            }
            Err(ended) => {
                environment.stop().await;
                Err(match ended {
                    Ended::Crashed { status } => InvokeError::Crashed { status },
                    Ended::TimedOut => InvokeError::TimedOut { timeout: self.function.timeout },
                    Ended::Stopping => InvokeError::Stopping,
                })
            }
        }
    }
}

/// The logger of one environment of `hosted`.
fn logger(hosted: &Hosted, settings: &Settings) -> Logger {
    Logger::new(hosted.logical_id.clone(), settings.log.clone())
}

#[cfg(test)]
mod tests;
