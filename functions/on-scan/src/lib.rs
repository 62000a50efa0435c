//! Judges images whose scans or findings changed, releases or holds them, and tells.
//!
//! Woken by `ECR Image Scan`, by Inspector's `Scan`, `Finding` and `Coverage`, and by objects of the state bucket: a new
//! policy file, or a release by hand. Through a queue or bare.

mod handler;

use gantry::config::ReactConfig;
use gantry::react::Reactor;
use runtime::Start;

use handler::Judge;

pub use runtime::Error;

/// Reads the configuration, makes the clients once, and serves invocations until the environment is ended.
///
/// # Errors
///
/// A configuration error, which names the variable; or the runtime's own.
pub async fn run() -> Result<(), Error> {
    runtime::serve(|start| {
        let config = ReactConfig::from_env()?;
        let (clients, queue) = (start.clients(&config.common), config.queue.clone());
        let metrics = start.metrics(&config.common);
        let reactor = Reactor::new(config, clients, Start::clock)?;
        Ok((Judge { reactor, metrics }, queue))
    })
    .await
}
