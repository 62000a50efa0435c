//! What every function is: its log, its clients, and invocations answered message by message.
//!
//! A function is a [`Handler`] and the few lines that make it; it knows no Lambda. [`serve`] is the rest.

mod answer;
mod log;
mod looks;
mod metrics;
mod trust;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_smithy_http_client::{Builder, tls};
use gantry::config::{CommonConfig, QueueConfig};
use gantry::event::EventError;
use gantry::notify::Notifier;
use gantry::react::Clients;
use gantry::receipt::Attempt;
use gantry::timeouts::Timeouts;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tokio::time::Instant;

pub use lambda_runtime::Error;
pub use looks::{Asked, all_failed, all_later, end_of_work, later, look_at_each, policy};
pub use metrics::Metrics;

use answer::{Answerer, Queue};
use trust::Trust;

/// One event of an invocation: a queue's message, or the event that was given bare.
#[derive(Debug)]
pub struct Message {
    /// What it says.
    pub event: Result<Value, EventError>,
    /// Which delivery of it this is; the first and last for a bare event, which has no queue behind it.
    pub attempt: Attempt,
}

/// Why and when a message is to be delivered again.
#[derive(Debug)]
pub struct Later {
    /// Why, with every cause.
    pub error: String,
    /// When.
    pub after: Duration,
}

/// What a function does.
pub trait Handler: Send + Sync + 'static {
    /// The name of its failure, stable for alarms.
    const FAILURE: &'static str;

    /// Handles the events of one invocation, and says of each, in their order, whether it is to come again. Ends before
    /// `deadline`.
    fn handle(&self, messages: &[Message], deadline: Instant) -> impl Future<Output = Vec<Option<Later>>> + Send;
}

/// What a function is made from.
#[derive(Debug)]
pub struct Start {
    aws: aws_config::SdkConfig,
    trust: Option<Trust>,
}

impl Start {
    /// The clients of the stack of `config`.
    pub fn clients(&self, config: &CommonConfig) -> Clients {
        let events = aws_sdk_eventbridge::Client::new(&self.aws);
        let sns = aws_sdk_sns::Client::new(&self.aws);
        Clients {
            s3: aws_sdk_s3::Client::new(&self.aws),
            ecr: aws_sdk_ecr::Client::new(&self.aws),
            notifier: Notifier::new(events, sns, config),
            timeouts: Timeouts::default(),
            tls: self.trust.clone().map(Trust::client),
        }
    }

    /// A client of queues.
    pub fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.aws)
    }

    /// What counts for the stack of `config`.
    pub fn metrics(&self, config: &CommonConfig) -> Metrics {
        Metrics::new(&config.stack, Self::clock)
    }

    /// The clock.
    #[expect(clippy::disallowed_methods, reason = "everything else is given this function")]
    pub fn clock() -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// One invocation under way; boxed, since a future that holds a whole import is large.
type Invocation = Pin<Box<dyn Future<Output = Result<Value, Diagnostic>> + Send>>;

/// Makes the function once, and serves invocations until the environment is ended. `make` gives it with the queue that
/// feeds it, if one does.
///
/// # Errors
///
/// What `make` says, a configuration error for one; or the runtime's own.
pub async fn serve<H: Handler>(
    make: impl FnOnce(&Start) -> Result<(H, Option<QueueConfig>), Error>,
) -> Result<(), Error> {
    log::init();
    // A second call in one process, as in tests, finds it installed.
    rustls::crypto::ring::default_provider().install_default().ok();
    let trust = Trust::of_this_machine();
    let https = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring));
    let https = match &trust {
        Some(trust) => {
            let store = tls::TrustStore::empty().with_pem_certificate(trust.pem());
            https.tls_context(tls::TlsContext::builder().with_trust_store(store).build()?)
        }
        None => https,
    };
    let https = https.build_https();
    let aws = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(https)
        // The SDK has none of its own but for connecting.
        .timeout_config(Timeouts::default().of_calls())
        .load()
        .await;
    let start = Start { aws, trust };
    let (handler, queue) = make(&start)?;
    tracing::info!(version = gantry::version::VERSION, failure = H::FAILURE, "started");

    let max_receives = queue.as_ref().map_or(1, |queue| queue.max_receives);
    let queue = queue.and_then(|queue| queue.url);
    let queue = queue.map(|url| Queue { client: start.sqs(), url });
    let answerer = Arc::new(Answerer { handler, queue, max_receives });
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| {
        let answerer = Arc::clone(&answerer);
        let LambdaEvent { payload, context, .. } = event;
        let invocation: Invocation = Box::pin(async move { answerer.answer(payload, context.deadline).await });
        invocation
    }))
    .await
}
