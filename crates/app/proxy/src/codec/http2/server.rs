//! A client's connection: its streams, its clocks, its end.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::meter::{Meter, Metered};
use super::pump::pump;
use crate::codec::hyper::{Caller, Flow, ResponseBody, Watch, answer};
use crate::limits::{
    HEADER_READ_MAX, HTTP2_CONNECTION_WINDOW, HTTP2_ERROR_RESETS_MAX, HTTP2_HEADER_LIST_BYTES_MAX,
    HTTP2_LOOK, HTTP2_PENDING_RESETS_MAX, HTTP2_PING, HTTP2_STREAM_WINDOW, HTTP2_STREAMS_MAX,
    KEEP_ALIVE_IDLE_MAX, LINGER_MAX,
};
use crate::worker::Worker;

/// Serves one connection to its end. The client's preface is still to be read.
pub(crate) async fn serve<I>(worker: Rc<Worker>, io: I, watch: Watch, caller: Rc<Caller>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let meter = Meter::new();
    let io = Metered::new(io, Rc::clone(&meter));
    let shaking = builder().handshake::<_, Bytes>(io);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HEADER_READ_MAX, shaking) => shaken,
        () = meter.flooded() => return worker.shared.refused(worker.index),
    };
    let Ok(Ok(mut connection)) = shaken else {
        worker.shared.refused(worker.index);
        return linger(&watch).await;
    };
    let clocks = Clocks { ping: connection.ping_pong(), asked: false, resting_since: None };
    if converse(&worker, &mut connection, &meter, clocks, &caller).await.is_err() {
        worker.shared.refused(worker.index);
        // What it has to be told (GOAWAY) is written; let it be read.
        drop(connection);
        linger(&watch).await;
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(HTTP2_ERROR_RESETS_MAX))
        .initial_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buffer_size(HTTP2_STREAM_WINDOW as usize);
    builder
}

/// The client did something it should not have, and the connection is over.
struct Misbehaved;

/// What is measured on a connection.
struct Clocks {
    ping: Option<PingPong>,
    /// Whether an answer to a ping is awaited.
    asked: bool,
    resting_since: Option<tokio::time::Instant>,
}

/// What the clocks call for.
enum Due {
    Nothing,
    /// Nobody needs the connection.
    Close,
    /// Nobody is there.
    Drop,
    /// A header that does not end.
    Slow,
}

impl Clocks {
    fn look(&mut self, meter: &Meter, has_streams: bool) -> Due {
        let now = tokio::time::Instant::now();
        if meter.header_for().is_some_and(|coming| coming >= HEADER_READ_MAX) {
            return Due::Slow;
        }
        let silent = meter.silent_for();
        if self.asked && silent >= 2 * HTTP2_PING {
            return Due::Drop;
        }
        if !self.asked && silent >= HTTP2_PING {
            let sent = self.ping.as_mut().map(|ping| ping.send_ping(Ping::opaque()));
            self.asked = matches!(sent, Some(Ok(())));
        }
        if has_streams {
            self.resting_since = None;
            return Due::Nothing;
        }
        let since = *self.resting_since.get_or_insert(now);
        if now - since >= KEEP_ALIVE_IDLE_MAX { Due::Close } else { Due::Nothing }
    }

    /// Waits for the answer to a ping.
    async fn pong(&mut self) {
        match &mut self.ping {
            Some(ping) => _ = poll_fn(|context| ping.poll_pong(context)).await,
            None => std::future::pending().await,
        }
    }
}

/// Takes streams and watches the clocks, until the connection has ended.
async fn converse<I>(
    worker: &Rc<Worker>,
    connection: &mut Connection<I, Bytes>,
    meter: &Meter,
    mut clocks: Clocks,
    caller: &Rc<Caller>,
) -> Result<(), Misbehaved>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut look = tokio::time::interval(HTTP2_LOOK);
    let (mut stop, mut stopping) = (worker.stop.clone(), false);
    loop {
        tokio::select! {
            biased;
            () = meter.flooded() => return calm(connection).await,
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    clocks.resting_since = None;
                    let (worker, caller) = (Rc::clone(worker), Rc::clone(caller));
                    tokio::task::spawn_local(carry_out(worker, caller, request, respond));
                }
                // Its own fault unless the line broke.
                Some(Err(error)) if error.is_io() => return Ok(()),
                Some(Err(_)) => return Err(Misbehaved),
                None => return Ok(()),
            },
            () = clocks.pong(), if clocks.asked => clocks.asked = false,
            _ = look.tick() => match clocks.look(meter, connection.has_streams()) {
                Due::Nothing => {}
                Due::Close if !stopping => {
                    stopping = true;
                    connection.graceful_shutdown();
                }
                // It was told, and had as long again.
                Due::Close | Due::Drop => return Ok(()),
                Due::Slow => return calm(connection).await,
            },
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
        }
    }
}

/// Tells a flooder so, and ends the connection.
async fn calm<I>(connection: &mut Connection<I, Bytes>) -> Result<(), Misbehaved>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let ending = poll_fn(|context| connection.poll_closed(context));
    // One that does not even read that is not waited for.
    let _ = tokio::time::timeout(LINGER_MAX, ending).await;
    Err(Misbehaved)
}

/// Reads on for a moment without looking: were input left unread, the kernel would reset the
/// connection, and the client might not see why it was ended.
async fn linger(watch: &Watch) {
    let _ = tokio::time::timeout(LINGER_MAX, watch.drain()).await;
}

/// One request and its answer. A client that takes the stream back ends both.
async fn carry_out(
    worker: Rc<Worker>,
    caller: Rc<Caller>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let request = request.map(Flow::http2);
    let answering = answer(worker, &caller, None, request);
    let response = tokio::select! {
        biased;
        response = answering => response,
        _ = poll_fn(|context| respond.poll_reset(context)) => return,
    };
    pass_on(respond, response).await;
}

async fn pass_on(mut respond: SendResponse<Bytes>, response: Response<ResponseBody>) {
    use hyper::body::Body;
    let (mut parts, body) = response.into_parts();
    // What concerns one HTTP/1.1 connection is no field here.
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        parts.headers.remove(name);
    }
    let ended = body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), ended) else {
        return;
    };
    if !ended {
        pump(&mut stream, body, Reason::INTERNAL_ERROR).await;
    }
}

/// The longest time between two looks at the clocks is short beside every limit they keep.
const _: () = assert!(HTTP2_LOOK.as_secs() * 2 <= HEADER_READ_MAX.as_secs());
