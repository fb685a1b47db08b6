//! Bodies on their way through: frames are passed on as they come, and watched.
//!
//! The request body tells how the upload goes; the response body settles the request's ticket and
//! gives the connection back when it has ended.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::codec::hyper::connection::Activity;
use crate::codec::hyper::flow::{Broken, Flow};
use crate::codec::hyper::grpc;
use crate::codec::hyper::link::Lease;
use crate::counters::{Outcome, Ticket};
use crate::resilience::{Capture, Pace, Turn};
use crate::service::outcome_of;
use crate::upload::Upload;

/// A request's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: Option<Flow>,
    upload: Option<Rc<Upload>>,
}

impl RequestBody {
    /// No body.
    pub(crate) const fn empty() -> Self {
        Self { inner: None, upload: None }
    }

    /// Wraps what the client sends.
    pub(crate) fn new(inner: Flow) -> Self {
        if inner.is_end_stream() {
            return Self::empty();
        }
        Self { inner: Some(inner), upload: Some(Upload::new()) }
    }

    /// How the upload goes; `None` without a body.
    pub(crate) fn upload(&self) -> Option<Rc<Upload>> {
        self.upload.clone()
    }

    /// Whether there is a body whose length is not known.
    pub(crate) fn is_chunked(&self, headers: &http::HeaderMap) -> bool {
        let is_open = |inner: &Flow| match inner {
            Flow::Http1(incoming) => incoming.size_hint().exact().is_none(),
            Flow::Http2(..) => !headers.contains_key(http::header::CONTENT_LENGTH),
        };
        self.inner.as_ref().is_some_and(is_open)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let (Some(inner), Some(upload)) = (&mut this.inner, &this.upload) else {
            return Poll::Ready(None);
        };
        upload.touch();
        let polled = Pin::new(inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                upload.came(bytes, Instant::now());
                upload.carried(bytes);
            }
            Poll::Ready(Some(Err(_))) => upload.fail(),
            Poll::Ready(None) => upload.came(0, Instant::now()),
            Poll::Pending => upload.waits(Instant::now()),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A response's body.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    content: Content,
    /// Marks the client's connection as resting when the response has ended.
    _busy: Option<Activity>,
}

#[derive(Debug)]
enum Content {
    /// Words of our own, or nothing.
    Own(Option<Bytes>),
    /// What an instance answers.
    Passed(Box<Passed>),
}

/// A response body from an instance.
#[derive(Debug)]
pub(crate) struct Passed {
    inner: Flow,
    ticket: Ticket,
    outcome: Outcome,
    /// Whether the trailers tell how it went.
    is_grpc: bool,
    lease: Option<Lease>,
    pace: Option<Box<Pace>>,
    capture: Option<Box<Capture>>,
}

/// Why a body from an instance ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("the instance broke off")]
    Broken(#[source] Broken),
    #[error("the instance took too long")]
    Late,
}

impl Passed {
    /// The body of an answer with this head.
    pub(crate) fn new(
        inner: Flow,
        ticket: Ticket,
        (status, headers): (StatusCode, &HeaderMap),
        lease: Lease,
    ) -> Self {
        let grpc = grpc::outcome_so_far(status, headers);
        let outcome = grpc.unwrap_or_else(|| outcome_of(status.as_u16()));
        let (is_grpc, lease) = (grpc.is_some(), Some(lease));
        Self { inner, ticket, outcome, is_grpc, lease, pace: None, capture: None }
    }

    /// Held to a pace, and written down, if at all.
    pub(crate) fn watched(
        mut self,
        pace: Option<Box<Pace>>,
        capture: Option<Box<Capture>>,
    ) -> Self {
        (self.pace, self.capture) = (pace, capture);
        self.settle_if_ended();
        self
    }

    fn settle_if_ended(&mut self) {
        if self.inner.is_end_stream() {
            self.ended();
        }
    }

    fn ended(&mut self) {
        self.ticket.settle(self.outcome);
        if let Some(capture) = self.capture.take() {
            capture.finish();
        }
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.ended(),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(pace) = &mut self.pace {
                    pace.moved();
                }
                if let Some(data) = frame.data_ref() {
                    self.ticket.sent(data.len());
                    if let Some(capture) = &mut self.capture {
                        capture.push(data);
                    }
                }
                if let Some(trailers) = frame.trailers_ref().filter(|_| self.is_grpc) {
                    self.outcome = grpc::outcome(trailers);
                }
                // The codec may not ask again after the last frame, and trailers always are the last.
                if frame.is_trailers() || self.inner.is_end_stream() {
                    self.ended();
                }
            }
            Poll::Ready(Some(Err(_))) => {
                let lease = self.lease.take();
                let serves = |lease: &Lease| lease.worker.serves(lease.visit.endpoint().id);
                // Once the instance was taken out of the table, it is our stop that breaks it off.
                let outcome =
                    if lease.as_ref().is_none_or(serves) { Outcome::Broken } else { Outcome::Cut };
                self.ticket.settle(outcome);
            }
            Poll::Pending => {
                let pace = self.pace.as_mut();
                if pace.is_some_and(|pace| pace.poll(context, Turn::Instance).is_ready()) {
                    self.ticket.settle(Outcome::TimedOut);
                    self.lease = None;
                    return Poll::Ready(Some(Err(Cut::Late)));
                }
            }
        }
        polled.map_err(Cut::Broken)
    }
}

impl ResponseBody {
    /// A short text, or nothing.
    pub(crate) fn own(text: impl Into<Bytes>, busy: Option<Activity>) -> Self {
        let text = text.into();
        Self { content: Content::Own((!text.is_empty()).then_some(text)), _busy: busy }
    }

    /// What an instance answers.
    pub(crate) fn passed(passed: Passed, busy: Option<Activity>) -> Self {
        Self { content: Content::Passed(Box::new(passed)), _busy: busy }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.content {
            Content::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Content::Passed(passed) => passed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(text) => text.is_none(),
            Content::Passed(passed) => passed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Content::Passed(passed) => passed.inner.size_hint(),
        }
    }
}
