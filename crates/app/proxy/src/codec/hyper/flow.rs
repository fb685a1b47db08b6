//! A body that comes in, by whichever protocol.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// See the module.
#[derive(Debug)]
pub(crate) enum Flow {
    /// HTTP/1.1.
    Http1(Incoming),
    /// HTTP/2, and whether its data has ended.
    Http2(RecvStream, bool),
}

/// A body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// In HTTP/1.1.
    #[error("the body broke off")]
    Http1(#[source] hyper::Error),
    /// In HTTP/2.
    #[error("the stream broke off")]
    Http2(#[source] h2::Error),
}

impl Flow {
    /// What comes on a stream.
    pub(crate) fn http2(stream: RecvStream) -> Self {
        Self::Http2(stream, false)
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Http1(incoming) => Pin::new(incoming)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Broken::Http1))),
            Self::Http2(stream, data_ended) => poll_stream(stream, data_ended, context)
                .map(|frame| frame.map(|frame| frame.map_err(Broken::Http2))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(stream, _) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            // The length that was announced is kept in the header, and h2 holds data against it.
            Self::Http2(stream, _) if stream.is_end_stream() => SizeHint::with_exact(0),
            Self::Http2(..) => SizeHint::default(),
        }
    }
}

fn poll_stream(
    stream: &mut RecvStream,
    data_ended: &mut bool,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    while !*data_ended {
        match std::task::ready!(stream.poll_data(context)) {
            // An empty frame says nothing.
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(data)) => {
                // It is asked for when it can be passed on: so the sender may send as much more.
                // Fails only when the stream is gone, which the next look tells.
                let _ = stream.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => *data_ended = true,
        }
    }
    match std::task::ready!(stream.poll_trailers(context)) {
        Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
        Ok(None) => Poll::Ready(None),
        Err(error) => Poll::Ready(Some(Err(error))),
    }
}
