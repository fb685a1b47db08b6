//! A connection to an instance that speaks HTTP/2, shared by many requests.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::pump::pump;
use crate::codec::hyper::RequestBody;
use crate::limits::{
    HTTP2_CONNECTION_WINDOW, HTTP2_ERROR_RESETS_MAX, HTTP2_STREAM_WINDOW, TLS_HANDSHAKE_MAX,
};

/// What an instance may send in one header: twice what a client may.
const HEADER_LIST_BYTES_MAX: u32 = 2 * crate::limits::HTTP2_HEADER_LIST_BYTES_MAX;

/// One connection to an instance; a copy is the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    sender: SendRequest<Bytes>,
    life: std::rc::Rc<Life>,
}

/// Whether the connection's task still runs.
#[derive(Debug, Default)]
struct Life(std::cell::Cell<bool>);

/// A request on its way; dropped, its body is no longer sent.
#[derive(Debug, Default)]
pub(crate) struct Sending(Option<AbortHandle>);

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(sending) = &self.0 {
            sending.abort();
        }
    }
}

/// How a request failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The instance did not look at it, and says so.
    Unseen,
    /// The connection broke.
    Lost,
    /// The instance refused to answer properly.
    Broken,
}

impl Link {
    /// Begins a connection, and starts the task that drives it.
    pub(crate) async fn open<I>(io: I) -> Option<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .initial_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_local_error_reset_streams(Some(HTTP2_ERROR_RESETS_MAX))
            .max_send_buffer_size(HTTP2_STREAM_WINDOW as usize);
        let shaking = tokio::time::timeout(TLS_HANDSHAKE_MAX, builder.handshake(io));
        let (sender, connection) = shaking.await.ok()?.ok()?;
        let life = std::rc::Rc::new(Life::default());
        let ended = std::rc::Rc::downgrade(&life);
        tokio::task::spawn_local(async move {
            // Its errors reach whoever waits for a response.
            let _ = connection.await;
            if let Some(life) = ended.upgrade() {
                life.0.set(true);
            }
        });
        Some(Self { sender, life })
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.life.0.get()
    }

    /// Waits until the instance takes another request. An error says that it never will.
    pub(crate) async fn ready(&mut self) -> Result<(), Failed> {
        poll_fn(|context| self.sender.poll_ready(context)).await.map_err(|_| Failed::Unseen)
    }

    /// Sends a request; call after [`Self::ready`]. Its body goes on while the answer comes.
    pub(crate) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<(ResponseFuture, Sending), Failed> {
        let (parts, body) = request.into_parts();
        let ended = body.is_end_stream();
        let head = head(parts).ok_or(Failed::Broken)?;
        let sent = self.sender.send_request(head, ended);
        let (answer, mut stream) = sent.map_err(|error| failed(&error))?;
        let sending = (!ended).then(|| {
            let work = async move { pump(&mut stream, body, Reason::CANCEL).await };
            tokio::task::spawn_local(work).abort_handle()
        });
        Ok((answer, Sending(sending)))
    }
}

/// Waits for the head of the answer.
pub(crate) async fn answered(answer: ResponseFuture) -> Result<Response<RecvStream>, Failed> {
    answer.await.map_err(|error| failed(&error))
}

fn failed(error: &h2::Error) -> Failed {
    let unseen = error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away();
    match () {
        () if unseen && error.is_remote() => Failed::Unseen,
        () if error.is_io() => Failed::Lost,
        () => Failed::Broken,
    }
}

/// The head as HTTP/2 has it: the host in the target, and nothing that concerns one connection.
fn head(mut parts: http::request::Parts) -> Option<Request<()>> {
    let host = parts.headers.remove(HOST)?;
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    let mut target = parts.uri.into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(authority(&host)?);
    parts.uri = Uri::from_parts(target).ok()?;
    parts.version = Version::HTTP_2;
    Some(Request::from_parts(parts, ()))
}

fn authority(host: &HeaderValue) -> Option<Authority> {
    Authority::try_from(host.as_bytes()).ok()
}
