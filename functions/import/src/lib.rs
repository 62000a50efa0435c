//! Imports an image archive from S3 into ECR once its upload has completed.
//!
//! Woken by a queue message with an EventBridge `Object Created`, by that event itself, or by S3's notification
//! records. [`run`] is what the Lambda binary and `gantry` (as the function's process on a laptop) call.

mod handler;
mod log;

use std::pin::Pin;
use std::sync::Arc;

use aws_config::BehaviorVersion;
use aws_smithy_http_client::{Builder, tls};
use gantry::config::Config;
use gantry::import::Importer;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde_json::Value;

use handler::Handler;

/// Reads the configuration, makes the clients once, and serves invocations until the environment is ended.
///
/// # Errors
///
/// A configuration error, which names the variable; or the runtime's own.
pub async fn run() -> Result<(), Error> {
    log::init();
    // A second call in one process, as in tests, finds it installed.
    rustls::crypto::ring::default_provider().install_default().ok();
    let config = Config::from_env()?;
    tracing::info!(version = gantry::version::VERSION, stack = config.stack, "started");

    let https =
        Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    let aws = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(https).load().await;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let importer = Importer::new(&config, aws_sdk_s3::Client::new(&aws), aws_sdk_ecr::Client::new(&aws), cores, clock)?;
    let queue = config.queue_url.map(|url| handler::Queue { client: aws_sdk_sqs::Client::new(&aws), url });
    let handler = Arc::new(Handler { importer, queue, max_receives: config.max_receives });

    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| {
        let handler = Arc::clone(&handler);
        let LambdaEvent { payload, context, .. } = event;
        // Boxed, since a future that holds a whole import is large.
        let invocation: Invocation = Box::pin(async move { handler.handle(payload, context.deadline).await });
        invocation
    }))
    .await
}

/// One invocation under way.
type Invocation = Pin<Box<dyn Future<Output = Result<Value, Diagnostic>> + Send>>;

/// The one place where the function reads the clock.
#[expect(clippy::disallowed_methods, reason = "everything else is given this function")]
fn clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
