//! Imports an image archive from S3 into ECR once its upload has completed.
//!
//! Woken by a queue message with an EventBridge `Object Created`, by that event itself, or by S3's notification
//! records. [`run`] is what the Lambda binary and `gantry` (as the function's process on a laptop) call.

mod handler;

use gantry::config::ImportConfig;
use gantry::import::Importer;
use runtime::Start;

use handler::ImportUploads;

pub use runtime::Error;

/// Reads the configuration, makes the clients once, and serves invocations until the environment is ended.
///
/// # Errors
///
/// A configuration error, which names the variable; or the runtime's own.
pub async fn run() -> Result<(), Error> {
    runtime::serve(|start| {
        let config = ImportConfig::from_env()?;
        let (clients, queue) = (start.clients(&config.common), config.queue.clone());
        let metrics = start.metrics(&config.common);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let importer = Importer::new(config, clients, cores, Start::clock)?;
        Ok((ImportUploads { importer, metrics }, Some(queue)))
    })
    .await
}
