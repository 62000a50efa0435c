//! The whole of it: the services on one port, the functions, and the data folder they live in.

mod dispatch;
mod own;
mod port;
mod record;
mod trouble;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{
        broadcast,
        mpsc::{self, UnboundedSender},
    },
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ecr::Ecr,
    events::{Bus, Events, RuleError},
    faults::FaultPlan,
    host::{FunctionCommand, Host, InvokeError, LogLine},
    iam::{Gate, Role},
    images::{FindingStatus, FindingsError, Images, ImagesError},
    registry::Registry,
    s3::{BucketSettings, S3, S3Error},
    shape::{Shape, Shaper},
    sns::{Sns, Topics, TopicsError},
    sqs::{Queues, Sqs, Waits},
    template::{Template, TemplateError},
    wire::Caller,
};
use dispatch::Core;
use record::Record;

/// How many log lines a slow listener may be behind before it misses some.
const LOG_LINES: usize = 4096;

/// How a stack is started.
#[derive(Debug, Clone, Default)]
pub struct StackOptions {
    /// The folder that holds everything; made if it is missing, locked while the stack runs.
    pub data: PathBuf,
    /// The port on loopback; 0 for any free one.
    pub port: u16,
    /// The text of `template.yaml`.
    pub template: String,
    /// Template parameters that differ from their defaults.
    pub parameters: BTreeMap<String, String>,
    /// How to start each function, by its logical id. The queue of a function without a command is
    /// not polled.
    pub functions: BTreeMap<String, FunctionCommand>,
    /// Whether no queue is polled at all: functions run only when they are invoked directly.
    pub queues_left_alone: bool,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// How slow the network is.
    pub shape: Shape,
    /// Whether messages wait for their time.
    pub waits: Waits,
}

/// Why a stack could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// Another process runs a stack on the same data folder.
    #[error("a stack is already running at {endpoint}")]
    Running {
        /// Where it listens.
        endpoint: String,
    },
    /// Another process holds the data folder, and did not say in time where it listens.
    #[error("the data folder {} is in use by a process that is starting or stopping", folder.display())]
    Busy {
        /// The data folder.
        folder: PathBuf,
    },
    /// The data folder cannot be used.
    #[error("the data folder {} cannot be used", folder.display())]
    Data {
        /// The data folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The port cannot be opened.
    #[error("port {port} of 127.0.0.1 cannot be opened")]
    Port {
        /// The port that was asked for.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The template cannot be used.
    #[error("the template cannot be used")]
    Template(#[from] TemplateError),
    /// A rule of the template cannot be used.
    #[error("a rule of the template cannot be used")]
    Rule(#[from] RuleError),
    /// A command was given for a function that the template does not have.
    #[error("the template has no function {function}")]
    NoFunction {
        /// The logical id.
        function: String,
    },
    /// The topics cannot be opened.
    #[error("the topics cannot be opened")]
    Topics(#[from] TopicsError),
    /// The buckets cannot be opened.
    #[error("the buckets cannot be opened")]
    Buckets(#[from] S3Error),
    /// The images cannot be opened.
    #[error("the image store cannot be opened")]
    Images(#[from] ImagesError),
}

/// A running stack.
///
/// Dropping it closes the port and kills the functions; [`Stack::stop`] does so in good order.
#[derive(Debug)]
pub struct Stack {
    endpoint: String,
    template: Template,
    gate: Arc<Gate>,
    queues: Arc<Queues>,
    topics: Arc<Topics>,
    images: Arc<Images>,
    /// What happens, on its way to the bus.
    happening: UnboundedSender<Value>,
    watchers: broadcast::Sender<Arc<Value>>,
    faults: FaultPlan,
    log: broadcast::Sender<LogLine>,
    host: Host,
    closing: CancellationToken,
    server: JoinHandle<()>,
    bus: JoinHandle<()>,
    /// Last, so that the folder is free only when nothing uses it any more.
    record: Record,
}

impl Stack {
    /// Starts the services and the functions' pollers; on `Ok` the port answers.
    ///
    /// # Errors
    ///
    /// [`StackError`]; nothing is left running after it.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let data = options.data;
        let unusable = |source| StackError::Data { folder: data.clone(), source };
        let mut record = Record::lock(&data).await?;
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)))
            .await
            .map_err(|source| StackError::Port { port: options.port, source })?;
        let address = listener.local_addr().map_err(unusable)?;
        let endpoint = format!("http://{address}");

        let template = Template::read(&options.template, &options.parameters, &endpoint)?;
        let gate = Arc::new(Gate::new(roles(&template)));
        let settings = template.queues.values().cloned();
        let queues = Queues::open(data.join("sqs"), settings, options.waits).map_err(unusable)?;
        let queues = Arc::new(queues);
        let bus = Bus::new(&template, Arc::clone(&queues))?;
        let watchers = bus.watchers();
        let (events, incoming) = mpsc::unbounded_channel();
        let s3 = S3::open(data.join("s3"), buckets(&template), Arc::clone(&gate), events.clone()).await?;
        let images = Images::open(data.join("registry"), options.shape.put_images_per_second)?;
        let images = Arc::new(images.with_findings(data.join("findings.json")));

        let (log, _) = broadcast::channel(LOG_LINES);
        let topics = Arc::new(Topics::open(data.join("sns"), &template.topics, log.clone())?);
        let home = data.join("home");
        std::fs::create_dir_all(&home).map_err(unusable)?;
        let functions = commands(options.functions, &template, &gate)?;
        let host = Host::new(functions, &endpoint, home, log.clone());

        let closing = CancellationToken::new();
        let core = Core {
            s3,
            ecr: Ecr::new(Arc::clone(&images), Arc::clone(&gate), events.clone(), &endpoint),
            registry: Registry::new(Arc::clone(&images), Arc::clone(&gate), events.clone()),
            sqs: Sqs::new(Arc::clone(&queues), Arc::clone(&gate)),
            events: Events::new(Arc::clone(&gate), events.clone()),
            sns: Sns::new(Arc::clone(&topics), Arc::clone(&gate)),
            topics: Arc::clone(&topics),
            images: Arc::clone(&images),
            happening: events.clone(),
            gate: Arc::clone(&gate),
            faults: options.faults.clone(),
            shaper: Shaper::new(options.shape),
            log: log.clone(),
            description: own::description(&endpoint, &template),
            closing: closing.clone(),
        };
        record.publish(&endpoint).map_err(unusable)?;
        let server = tokio::spawn(port::serve(listener, Arc::new(core), closing.clone()));
        let draining = closing.clone();
        let bus = tokio::spawn(async move { bus.run(incoming, draining).await });
        if !options.queues_left_alone {
            host.poll(&queues);
        }
        if options.waits == Waits::Real {
            host.run_schedules();
        }
        Ok(Self {
            endpoint,
            template,
            gate,
            queues,
            topics,
            images,
            happening: events,
            watchers,
            faults: options.faults,
            log,
            host,
            closing,
            server,
            bus,
            record,
        })
    }

    /// Where every service listens: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The registry's name in image references: `127.0.0.1:PORT`.
    pub fn registry_host(&self) -> &str {
        self.endpoint.strip_prefix("http://").unwrap_or(&self.endpoint)
    }

    /// The name of the bucket with this logical id.
    pub fn bucket(&self, logical_id: &str) -> Option<&str> {
        self.template.buckets.get(logical_id).map(|bucket| bucket.name.as_str())
    }

    /// The URL of the queue with this logical id.
    pub fn queue_url(&self, logical_id: &str) -> Option<String> {
        self.template.queues.get(logical_id).map(|queue| queue.url.clone())
    }

    /// The template as it was resolved.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// What the roles were allowed and denied.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The queues, by name.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// The topics, and what was published to them.
    pub fn topics(&self) -> &Arc<Topics> {
        &self.topics
    }

    /// The ARN of the topic with this logical id.
    pub fn topic_arn(&self, logical_id: &str) -> Option<&str> {
        self.template.topics.get(logical_id).map(|topic| topic.arn.as_str())
    }

    /// The repositories and images.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Scans an image again, or the images of an index, and puts the events on the bus; how many.
    ///
    /// # Errors
    ///
    /// [`FindingsError`].
    pub fn rescan(&self, repository: &str, reference: &str) -> Result<usize, FindingsError> {
        Ok(self.happen(self.images.rescan(repository, reference)?))
    }

    /// Puts an `Inspector2 Finding` event on the bus for each finding in an image, or in the images
    /// of an index; how many.
    ///
    /// # Errors
    ///
    /// [`FindingsError`].
    pub fn tell_findings(
        &self,
        repository: &str,
        reference: &str,
        status: FindingStatus,
    ) -> Result<usize, FindingsError> {
        Ok(self.happen(self.images.finding_events(repository, reference, status)?))
    }

    /// Puts an event, an envelope and all, on the bus as if a service had; for what no service here
    /// does by itself.
    pub fn put_event(&self, event: Value) {
        self.happen(vec![event]);
    }

    fn happen(&self, events: Vec<Value>) -> usize {
        let count = events.len();
        for event in events {
            // The bus listens until the stack is stopped.
            drop(self.happening.send(event));
        }
        count
    }

    /// The faults, and the log of all requests.
    pub fn faults(&self) -> &FaultPlan {
        &self.faults
    }

    /// Every event that passes the bus from now on.
    pub fn bus(&self) -> broadcast::Receiver<Arc<Value>> {
        self.watchers.subscribe()
    }

    /// What the functions print from now on, with Lambda's own records, and a record of each message
    /// that is published to a topic.
    pub fn log(&self) -> broadcast::Receiver<LogLine> {
        self.log.subscribe()
    }

    /// Invokes a function directly with `payload` and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`InvokeError`].
    pub async fn invoke(&self, logical_id: &str, payload: &Value) -> Result<Value, InvokeError> {
        self.host.invoke(logical_id, payload).await
    }

    /// Kills the processes of a function that are at work, as when Lambda's host dies; how many.
    pub fn kill(&self, logical_id: &str) -> usize {
        self.host.kill(logical_id)
    }

    /// Invokes a function as its first schedule would, now, and waits for its answer.
    ///
    /// With [`Waits::Skipped`] no schedule runs by itself.
    ///
    /// # Errors
    ///
    /// [`InvokeError`]; a function without a schedule is none to this.
    pub async fn run_scheduled(&self, logical_id: &str) -> Result<Value, InvokeError> {
        let schedule = self.template.functions.get(logical_id).and_then(|function| function.schedules.first());
        let schedule = schedule.ok_or_else(|| InvokeError::NoFunction { function: logical_id.to_owned() })?;
        self.host.invoke(logical_id, &schedule.event()).await
    }

    /// Ends the functions, closes the port, delivers the events that are under way, and frees the
    /// data folder. Takes at most some seconds.
    pub async fn stop(mut self) {
        self.host.stop().await;
        self.closing.cancel();
        for task in [&mut self.server, &mut self.bus] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the stack had failed before it was stopped");
            }
        }
        self.record.withdraw();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

fn roles(template: &Template) -> Vec<Role> {
    template
        .functions
        .iter()
        .map(|(logical_id, function)| Role {
            function: logical_id.clone(),
            session: function.name.clone(),
            statements: function.statements.clone(),
        })
        .collect()
}

fn buckets(template: &Template) -> Vec<BucketSettings> {
    template
        .buckets
        .values()
        .map(|bucket| BucketSettings {
            name: bucket.name.clone(),
            versioned: bucket.versioned,
            event_bridge: bucket.event_bridge,
        })
        .collect()
}

type Hosted = (String, crate::template::Function, FunctionCommand, crate::iam::AccessKey);

fn commands(
    commands: BTreeMap<String, FunctionCommand>,
    template: &Template,
    gate: &Gate,
) -> Result<Vec<Hosted>, StackError> {
    commands
        .into_iter()
        .map(|(logical_id, command)| {
            let function = template.functions.get(&logical_id).cloned();
            let key = gate.key_of(&Caller::Role(logical_id.clone()));
            match (function, key) {
                (Some(function), Some(key)) => Ok((logical_id, function, command, key)),
                _ => Err(StackError::NoFunction { function: logical_id }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
