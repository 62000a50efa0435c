//! Looks at every image that is pushed to a repository of the stack, by import or by any other client: verifies it,
//! gives it its tags, judges it if its findings are there already, and tells.
//!
//! Woken by ECR's `ECR Image Action`, and by import's own `Image Imported`, through a queue or bare.

mod handler;

use gantry::config::ReactConfig;
use gantry::react::Reactor;
use runtime::Start;

use handler::LookAtPushes;

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
        Ok((LookAtPushes { reactor, metrics }, queue))
    })
    .await
}
