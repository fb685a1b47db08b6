//! One client connection: the codec around the service, and its time limits.
//!
//! The limits cost one sleeping timer per connection that is only looked at when it fires; the
//! codec's own header timeout would also end connections that merely rest.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::caller::Caller;
use super::flow::Flow;
use super::request::answer;
use super::socket::{Socket, Watch};
use crate::codec::http2;
use crate::limits::{
    BUFFER_BYTES_MAX, HEADER_BYTES_MAX, HEADER_READ_MAX, KEEP_ALIVE_IDLE_MAX, LAST_REST_MAX,
};
use crate::service::Entry;
use crate::socket::begins_http2;
use crate::tls::{Listener, accept};
use crate::worker::Worker;

/// What a connection that takes too long for its request head is told.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a connection is doing.
#[derive(Debug)]
struct Doing {
    watch: Watch,
    /// Since when it rests; `None` while a request is being answered.
    resting: Mutex<Option<Instant>>,
}

/// A request is being answered; dropped when its response has ended.
#[derive(Debug)]
pub(crate) struct Activity(Arc<Doing>);

impl Activity {
    fn begin(doing: &Arc<Doing>) -> Self {
        doing.set_resting(None);
        Self(Arc::clone(doing))
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.0.watch.take_heard();
        self.0.set_resting(Some(Instant::now()));
    }
}

/// What the clock says about a connection.
#[derive(Debug, PartialEq, Eq)]
enum Limit {
    /// Look again after this long.
    Later(Duration),
    /// It rested too long.
    Rested,
    /// The head of its request takes too long.
    Slow,
}

impl Doing {
    fn set_resting(&self, since: Option<Instant>) {
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn limit(&self, ends: bool) -> Limit {
        let rest_max = if ends { LAST_REST_MAX } else { KEEP_ALIVE_IDLE_MAX };
        let Some(since) = *self.resting.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Limit::Later(HEADER_READ_MAX);
        };
        let (spent, allowed, over) = match self.watch.hears_for() {
            Some(reading) => (reading, HEADER_READ_MAX, Limit::Slow),
            None => (since.elapsed(), rest_max, Limit::Rested),
        };
        match allowed.checked_sub(spent) {
            // A head may begin at any time, so never sleep past its limit.
            Some(left) if !left.is_zero() => Limit::Later(left.min(HEADER_READ_MAX / 4)),
            Some(_) | None => over,
        }
    }
}

/// Serves one connection in plain text to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, entry: Entry) {
    let caller = Rc::new(Caller::plain(entry));
    let mut stop = worker.stop.clone();
    let is_http2 = tokio::select! {
        is_http2 = begins_http2(&stream) => is_http2,
        () = tokio::time::sleep(KEEP_ALIVE_IDLE_MAX) => return,
        _ = stop.wait_for(|stop| *stop) => false,
    };
    let (socket, watch) = Socket::new(stream);
    if is_http2 {
        return Box::pin(http2::serve(worker, socket, watch, caller)).await;
    }
    Box::pin(serve_http1(worker, socket, watch, caller)).await;
}

/// Shakes hands, then serves one encrypted connection to its end, in the protocol agreed on.
pub(crate) async fn serve_encrypted(
    worker: Rc<Worker>,
    stream: TcpStream,
    entry: Entry,
    listener: Arc<Listener>,
) {
    let (socket, watch) = Socket::new(stream);
    let Some((stream, session)) = Box::pin(accept(&listener, socket)).await else {
        return worker.shared.refused(worker.index);
    };
    drop(listener);
    let is_http2 = session.is_http2;
    let entry = Entry { secure: true, ..entry };
    let caller = Rc::new(Caller { entry, session: Some(session) });
    if is_http2 {
        return Box::pin(http2::serve(worker, stream, watch, caller)).await;
    }
    Box::pin(serve_http1(worker, stream, watch, caller)).await;
}

async fn serve_http1<I>(worker: Rc<Worker>, io: I, watch: Watch, caller: Rc<Caller>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let is_plain = caller.session.is_none();
    // What came so far was the handshake.
    watch.take_heard();
    let doing = Arc::new(Doing { watch, resting: Mutex::new(Some(Instant::now())) });
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, busy) = (Rc::clone(&worker), Activity::begin(&doing));
        let caller = Rc::clone(&caller);
        async move {
            let request = request.map(Flow::Http1);
            Ok::<_, Infallible>(answer(worker, &caller, Some(busy), request).await)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .header_read_timeout(None)
        .auto_date_header(false);
    let connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut connection = pin!(connection);
    let mut look = pin!(tokio::time::sleep(HEADER_READ_MAX / 4));
    let mut stop = worker.stop.clone();
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if ended.is_err_and(|error| error.is_parse()) {
                    worker.shared.refused(worker.index);
                }
                return;
            }
            () = look.as_mut() => match doing.limit(worker.roster.is_stopping()) {
                Limit::Later(left) => {
                    // The end may come at any time, once it was announced.
                    let left = if stopping { left.min(LAST_REST_MAX) } else { left };
                    look.as_mut().reset(Instant::now() + left);
                }
                Limit::Rested => return,
                Limit::Slow => {
                    worker.shared.refused(worker.index);
                    // Inside the encryption nobody would understand it.
                    if is_plain {
                        doing.watch.last_word(TOO_SLOW);
                    }
                    return;
                }
            },
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                // Its next answer is the last one; until then the client has its chance to ask.
                stopping = true;
                look.as_mut().reset(Instant::now());
            }
        }
    }
}
