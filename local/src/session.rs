//! The stack that a command talks to: the one that runs on the data folder, or its own.

use std::collections::BTreeMap;
use std::path::Path;

use aws_config::SdkConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use emulator::account;
use emulator::host::FunctionCommand;
use emulator::stack::{Stack, StackError, StackOptions};

use gantry::state::{Documents, ImageRecords};
use gantry::uploads::{ImportQueue, Uploads};

use crate::cli::StackArgs;
use crate::place::Place;

/// The source of rules, queues and function environment.
const TEMPLATE: &str = include_str!("../../template.yaml");

/// The bucket that people write to, as the template names it.
const UPLOADS: &str = "Uploads";

/// The pipeline's own bucket, as the template names it.
const STATE: &str = "State";

/// Import's queue, as the template names it.
const QUEUE: &str = "ImportQueue";

/// Import's queue, as it is called on this machine.
const QUEUE_NAME: &str = "import-queue";

/// The functions: as the template names them, and as this program is told to be them.
const FUNCTIONS: [(&str, &str); 4] = [
    ("ImportFunction", "import"),
    ("OnPushFunction", "on-push"),
    ("OnScanFunction", "on-scan"),
    ("ReconcileFunction", "reconcile"),
];

/// Why there is no stack to talk to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// It did not start.
    #[error("the stack does not start")]
    Start(#[source] Box<StackError>),
    /// This program's own path is unknown, so it cannot be started as the function.
    #[error("cannot find this program to run it as the function")]
    OwnPath(#[source] std::io::Error),
    /// A running stack keeps its settings.
    #[error("a stack runs on this data folder at {endpoint}, and --set does not change it; stop it, or use --data")]
    Settings {
        /// Where it listens.
        endpoint: String,
    },
    /// The environment does not say who asks, or where.
    #[error(
        "{variable} is not set, and nothing but the environment is asked; a profile's credentials get there by: \
         eval \"$(aws configure export-credentials --format env)\""
    )]
    Environment {
        /// What is missing.
        variable: &'static str,
    },
    /// A request to the stack failed.
    #[error("{what} failed")]
    Request {
        /// What was asked.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SessionError {
    /// A request that failed.
    pub(crate) fn request(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Request { what: what.into(), source: source.into() }
    }
}

/// A stack to talk to.
pub(crate) struct Session {
    /// Where every service listens.
    pub(crate) endpoint: String,
    /// A client of its buckets.
    pub(crate) s3: aws_sdk_s3::Client,
    /// A client of its ECR.
    pub(crate) ecr: aws_sdk_ecr::Client,
    /// The bucket that people write to.
    pub(crate) uploads: String,
    /// The pipeline's own bucket.
    pub(crate) state: String,
    /// A client of its queues.
    sqs: aws_sdk_sqs::Client,
    /// The URL of import's queue.
    queue: String,
    /// Its own stack, to be stopped at the end.
    own: Option<Stack>,
}

/// Whether a stack of our own runs the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Functions {
    /// It does.
    Run,
    /// Its queues are left alone.
    Leave,
}

impl Session {
    /// Talks to the stack that runs on the data folder, or starts one.
    pub(crate) async fn open(args: &StackArgs, functions: Functions) -> Result<Self, SessionError> {
        match start(args, 0, functions).await {
            Ok(stack) => {
                let endpoint = stack.endpoint().to_owned();
                let bucket = |name: &str| stack.bucket(name).map_or_else(|| name.to_ascii_lowercase(), str::to_owned);
                let (uploads, state) = (bucket(UPLOADS), bucket(STATE));
                let queue = stack.queue_url(QUEUE).unwrap_or_default();
                Ok(Self::at(endpoint, uploads, state, queue, Some(stack)))
            }
            Err(SessionError::Start(error)) => match *error {
                StackError::Running { endpoint } if args.parameters.is_empty() => {
                    // The names of buckets follow from the template, and both have the same one.
                    let (uploads, state) = (UPLOADS.to_ascii_lowercase(), STATE.to_ascii_lowercase());
                    let queue = queue_at(&endpoint).await?;
                    Ok(Self::at(endpoint, uploads, state, queue, None))
                }
                StackError::Running { endpoint } => Err(SessionError::Settings { endpoint }),
                other => Err(SessionError::Start(Box::new(other))),
            },
            Err(error) => Err(error),
        }
    }

    fn at(endpoint: String, uploads: String, state: String, queue: String, own: Option<Stack>) -> Self {
        let (s3, ecr, sqs) = (s3_client(&endpoint), ecr_client(&endpoint), sqs_client(&endpoint));
        Self { endpoint, s3, ecr, uploads, state, sqs, queue, own }
    }

    /// Its buckets and its queue.
    pub(crate) fn place(&self) -> Place {
        Place {
            uploads: Uploads::new(self.s3.clone(), &self.uploads),
            records: Some(ImageRecords::new(Documents::new(self.s3.clone(), &self.state))),
            queue: Some(ImportQueue::new(self.sqs.clone(), &self.queue)),
        }
    }

    /// Whether the stack outlives this command.
    pub(crate) fn is_shared(&self) -> bool {
        self.own.is_none()
    }

    /// The registry's name in image references.
    pub(crate) fn registry(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// Stops the stack, if it is our own.
    pub(crate) async fn close(self) {
        if let Some(stack) = self.own {
            stack.stop().await;
        }
    }
}

/// Starts a stack on the data folder, with this program as its functions.
pub(crate) async fn start(args: &StackArgs, port: u16, run: Functions) -> Result<Stack, SessionError> {
    let program = std::env::current_exe().map_err(SessionError::OwnPath)?;
    let commands = match run {
        Functions::Run => functions(&program),
        Functions::Leave => BTreeMap::new(),
    };
    let options = StackOptions {
        data: args.data.clone(),
        port,
        template: TEMPLATE.to_owned(),
        parameters: args.parameters.iter().cloned().collect(),
        functions: commands,
        ..StackOptions::default()
    };
    Stack::start(options).await.map_err(|error| SessionError::Start(Box::new(error)))
}

/// How each function is started: as this program.
pub fn functions(program: &Path) -> BTreeMap<String, FunctionCommand> {
    let command = |name: &str| FunctionCommand {
        program: program.to_owned(),
        args: vec!["function".to_owned(), name.to_owned()],
        // Progress is told at debug level.
        env: vec![("AWS_LAMBDA_LOG_LEVEL".to_owned(), "DEBUG".to_owned())],
    };
    FUNCTIONS.into_iter().map(|(logical_id, name)| (logical_id.to_owned(), command(name))).collect()
}

/// How any client talks to the stack: with the laptop's credentials, over plain HTTP, as nothing leaves the machine.
fn client_config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new(account::USER_ACCESS_KEY_ID, account::USER_SECRET, None, None, "the laptop");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new(account::REGION))
        .build()
}

/// A client of the stack's buckets.
pub(crate) fn s3_client(endpoint: &str) -> aws_sdk_s3::Client {
    // The host has no name that a bucket's could be put before.
    let config = aws_sdk_s3::config::Builder::from(&client_config(endpoint)).force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(config)
}

/// A client of the stack's ECR.
pub fn ecr_client(endpoint: &str) -> aws_sdk_ecr::Client {
    aws_sdk_ecr::Client::new(&client_config(endpoint))
}

/// A client of the stack's queues.
fn sqs_client(endpoint: &str) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::new(&client_config(endpoint))
}

/// The URL of import's queue in a stack that runs.
async fn queue_at(endpoint: &str) -> Result<String, SessionError> {
    let answer = sqs_client(endpoint).get_queue_url().queue_name(QUEUE_NAME).send().await;
    let answer = answer.map_err(|error| SessionError::request("asking the stack for its queue", error))?;
    Ok(answer.queue_url().unwrap_or_default().to_owned())
}

/// How the user started this program, for the commands that are printed.
pub(crate) fn program() -> &'static str {
    // Cargo sets this for what it runs.
    if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "gantry" }
}
