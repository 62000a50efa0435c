//! Faults applied to one request and its answer.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::{
    faults::Action,
    wire::{Answer, Body, Dropped, Request, Response, full},
};

/// How long the connection stays open after the last byte of a cut answer, so that the bytes before
/// the cut are on their way.
const FLUSH: Duration = Duration::from_millis(20);

/// What `action` does before the call is handled: an answer instead of it, or the request as the
/// service is to see it.
pub(super) async fn before(action: &Action, request: Request) -> Result<(Request, Cut), Answer> {
    let mut cut = Cut::default();
    match action {
        Action::Status(status, body) => {
            // Read to its end, since a client that is still sending would not hear the answer.
            let mut sent = request.into_body();
            while let Some(Ok(_)) = sent.frame().await {}
            let mut response = Response::new(full(body.clone()));
            *response.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(Ok(response))
        }
        Action::Reset => Err(Err(Dropped)),
        Action::Stall => std::future::pending().await,
        Action::DropAfterRequestBytes(bytes) => {
            let was_cut = Arc::new(AtomicBool::new(false));
            cut.0 = Some(Arc::clone(&was_cut));
            Ok((request.map(|body| Short::new(body, *bytes, Some(was_cut)).boxed_unsync()), cut))
        }
        Action::StallAfterRequestBytes(bytes) => {
            let (parts, body) = request.into_parts();
            Ok((Request::from_parts(parts, Still { body, left: *bytes }.boxed_unsync()), cut))
        }
        Action::Hold(hold) => {
            hold.wait().await;
            Ok((request, cut))
        }
        Action::ShortBody(_)
        | Action::CloseAfterHandling
        | Action::Header(..)
        | Action::Drip(_)
        | Action::HoldAnswer(_) => Ok((request, cut)),
    }
}

/// What `action` makes of the service's answer.
pub(super) async fn after(action: &Action, answer: Answer, cut: &Cut) -> Answer {
    match action {
        Action::ShortBody(bytes) => {
            answer.map(|response| response.map(|body| Short::new(body, *bytes, None).boxed_unsync()))
        }
        Action::CloseAfterHandling => Err(Dropped),
        Action::Header(name, value) => answer.map(|mut response| {
            response.headers_mut().insert(name.clone(), value.clone());
            response
        }),
        Action::Drip(every) => answer.map(|response| response.map(|body| Dripping::new(body, *every).boxed_unsync())),
        Action::HoldAnswer(hold) => {
            hold.wait().await;
            answer
        }
        Action::DropAfterRequestBytes(_) if cut.happened() => Err(Dropped),
        Action::DropAfterRequestBytes(_)
        | Action::StallAfterRequestBytes(_)
        | Action::Hold(_)
        | Action::Status(..)
        | Action::Reset
        | Action::Stall => answer,
    }
}

/// Whether a request's body was cut.
#[derive(Debug, Default)]
pub(super) struct Cut(Option<Arc<AtomicBool>>);

impl Cut {
    fn happened(&self) -> bool {
        self.0.as_ref().is_some_and(|was_cut| was_cut.load(Ordering::Relaxed))
    }
}

/// A body that fails after so many bytes.
struct Short {
    body: Body,
    left: u64,
    was_cut: Option<Arc<AtomicBool>>,
    flush: Option<Pin<Box<Sleep>>>,
}

impl Short {
    fn new(body: Body, bytes: u64, was_cut: Option<Arc<AtomicBool>>) -> Self {
        Self { body, left: bytes, was_cut, flush: None }
    }
}

impl HttpBody for Short {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(flush) = &mut self.flush {
                ready!(flush.as_mut().poll(context));
                if let Some(was_cut) = &self.was_cut {
                    was_cut.store(true, Ordering::Relaxed);
                }
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            let length = bytes.len() as u64;
            if length <= self.left {
                self.left -= length;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            self.flush = Some(Box::pin(sleep(FLUSH)));
            let keep = usize::try_from(self.left).unwrap_or(bytes.len());
            self.left = 0;
            if keep > 0 {
                return Poll::Ready(Some(Ok(Frame::data(bytes.slice(..keep)))));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        // The length that was promised stays promised.
        self.body.size_hint()
    }
}

/// A body that stands still after so many bytes.
struct Still {
    body: Body,
    left: u64,
}

impl HttpBody for Still {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            // Whoever waits for it is dropped with the connection.
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(frame)
    }
}

/// A body that comes one byte at a time.
struct Dripping {
    body: Body,
    every: Duration,
    held: Bytes,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Dripping {
    fn new(body: Body, every: Duration) -> Self {
        Self { body, every, held: Bytes::new(), pause: None }
    }
}

impl HttpBody for Dripping {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        while self.held.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => self.held = frame.into_data().unwrap_or_default(),
                other => return Poll::Ready(other),
            }
        }
        let every = self.every;
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(every)));
        ready!(pause.as_mut().poll(context));
        self.pause = None;
        let next = self.held.split_to(1);
        Poll::Ready(Some(Ok(Frame::data(next))))
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + self.held.len() as u64);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: u64) -> (Vec<u8>, bool) {
        let mut body = Short::new(full("abcdef"), bytes, None).boxed_unsync();
        assert_eq!(body.size_hint().exact(), Some(6), "{bytes}");
        let mut got = Vec::new();
        loop {
            match body.frame().await {
                Some(Ok(frame)) => got.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(_)) => return (got, true),
                None => return (got, false),
            }
        }
    }

    #[tokio::test]
    async fn a_short_body_ends_with_an_error_where_it_is_cut() {
        for (bytes, want, cut) in [(0, "", true), (2, "ab", true), (6, "abcdef", false)] {
            assert_eq!(read(bytes).await, (want.as_bytes().to_vec(), cut), "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_dripping_body_is_whole_in_the_end_and_a_still_one_never() {
        let body = Dripping::new(full("abc"), Duration::from_millis(1)).boxed_unsync();
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        let still = Still { body: full("abc"), left: 2 }.collect();
        assert!(tokio::time::timeout(Duration::from_millis(20), still).await.is_err());
    }

    #[tokio::test]
    async fn a_cut_request_is_dropped_and_a_whole_one_is_not() {
        for (bytes, want) in [(2, Err(Dropped)), (6, Ok(200))] {
            let action = Action::DropAfterRequestBytes(bytes);
            let (request, cut) = before(&action, Request::new(full("abcdef"))).await.unwrap();
            let _read = request.into_body().collect().await;
            let answer = after(&action, Ok(Response::new(full(""))), &cut).await;
            assert_eq!(answer.map(|response| response.status().as_u16()), want);
        }
    }
}
