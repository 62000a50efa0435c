//! The one port: accepts connections and ends them in order.

use std::{sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::dispatch::Core;

/// How long answers under way may take when the stack is stopped.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until `closing`, then lets the answers under way end.
pub(super) async fn serve(listener: TcpListener, core: Arc<Core>, closing: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&core), closing.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: a moment may free some.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = closing.cancelled() => break,
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, core: Arc<Core>, closing: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small answers may be late");
    }
    let shape = Arc::new(core.shaper.connection());
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (core, shape) = (Arc::clone(&core), Arc::clone(&shape));
        async move { core.answer(request, &shape).await }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // A client that goes away, or a connection that was dropped on purpose.
        tracing::debug!(%error, "a connection ended early");
    }
}
