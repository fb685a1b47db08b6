//! Writes a body into a stream as fast as the other side takes it, and no faster.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use hyper::body::Body;

use crate::limits::HTTP2_STALL_MAX;

enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// The body broke off.
    Broken,
    /// The other side wants no more.
    Gone,
}

/// Sends all of a body. A body that breaks off resets the stream with `reason`.
pub(super) async fn pump<B>(stream: &mut SendStream<Bytes>, body: B, reason: Reason)
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    loop {
        match tokio::time::timeout(HTTP2_STALL_MAX, room(stream)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return stream.send_reset(Reason::CANCEL),
        }
        // An error of these says that the stream is gone.
        let sent = match poll_fn(|context| next(stream, body.as_mut(), context)).await {
            Next::Data(bytes) => {
                let end = body.is_end_stream();
                let sent = stream.send_data(bytes, end);
                if end {
                    return;
                }
                sent
            }
            Next::Trailers(trailers) => {
                let _ = stream.send_trailers(trailers);
                return;
            }
            Next::End => {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
            Next::Broken => return stream.send_reset(reason),
            Next::Gone => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Waits until the other side takes something; `false` when it never will again.
async fn room(stream: &mut SendStream<Bytes>) -> bool {
    if stream.capacity() > 0 {
        return true;
    }
    stream.reserve_capacity(1);
    poll_fn(|context| {
        if stream.poll_reset(context).is_ready() {
            return Poll::Ready(false);
        }
        loop {
            match stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(_))) => return Poll::Ready(true),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

fn next<B: Body<Data = Bytes>>(
    stream: &mut SendStream<Bytes>,
    mut body: Pin<&mut B>,
    context: &mut Context<'_>,
) -> Poll<Next> {
    if stream.poll_reset(context).is_ready() {
        return Poll::Ready(Next::Gone);
    }
    let Poll::Ready(frame) = body.as_mut().poll_frame(context) else { return Poll::Pending };
    Poll::Ready(match frame {
        None => Next::End,
        Some(Err(_)) => Next::Broken,
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => Next::Data(data),
            Err(frame) => frame.into_trailers().map_or(Next::End, Next::Trailers),
        },
    })
}
