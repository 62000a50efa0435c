//! Bodies on their way from the object to the registry.

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::mpsc;

use crate::image::{Digest, Hasher};
use crate::object::{Body, ObjectError};

/// Chunks between the producing side and the connection. One waits while one is written.
const CHUNKS: usize = 1;

/// A channel whose far end is a request body.
pub(super) fn channel()
-> (mpsc::Sender<std::io::Result<Bytes>>, impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let body =
        stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|next| (next, receiver)) });
    (sender, body)
}

/// How a checked copy ended.
pub(super) enum Copied {
    /// The bytes hash to what was wanted, and all were handed on.
    Whole,
    /// They hash to this; the last chunk was withheld, so the registry cannot take the blob for whole.
    Wrong(Digest),
    /// The registry stopped listening.
    Abandoned,
}

/// Hands on the bytes of `body`, the last chunk only once all of them hash to `wanted`.
pub(super) async fn copy_checked(
    mut body: Body,
    wanted: Digest,
    output: mpsc::Sender<Result<Bytes, std::io::Error>>,
    progress: impl Fn(u64),
) -> Result<Copied, ObjectError> {
    let mut hasher = Hasher::default();
    let mut held: Option<Bytes> = None;
    while let Some(chunk) = body.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                // An end that is an error breaks the request, so that no short blob is committed.
                output.send(Err(std::io::ErrorKind::UnexpectedEof.into())).await.ok();
                return Err(error);
            }
        };
        hasher.update(&chunk);
        if let Some(previous) = held.replace(chunk)
            && output.send(Ok(previous)).await.is_err()
        {
            return Ok(Copied::Abandoned);
        }
        progress(hasher.bytes());
    }
    let found = hasher.finish();
    if found != wanted {
        output.send(Err(std::io::ErrorKind::InvalidData.into())).await.ok();
        return Ok(Copied::Wrong(found));
    }
    if let Some(last) = held
        && output.send(Ok(last)).await.is_err()
    {
        return Ok(Copied::Abandoned);
    }
    Ok(Copied::Whole)
}
