//! A connection to an instance, driven by hyper in a task of its own.

use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::socket::{Socket, Watch};
use crate::compiled::Visit;
use crate::limits::{BUFFER_BYTES_MAX, CONNECT_MAX};
use crate::pool;
use crate::worker::Worker;

/// One connection to an instance.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) watch: Watch,
}

impl pool::Link for Link {
    fn is_over(&self) -> bool {
        !self.sender.is_ready()
    }

    fn is_quiet(&self) -> bool {
        self.watch.is_quiet()
    }
}

impl Link {
    /// Starts the task that drives a new connection.
    pub(crate) async fn open(stream: TcpStream) -> Option<Self> {
        let (socket, watch) = Socket::new(stream);
        let mut builder = http1::Builder::new();
        let handshake =
            builder.max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(socket)).await;
        let (sender, connection) = handshake.ok()?;
        tokio::task::spawn_local(async move {
            // Its errors reach whoever waits for a response; a resting one has nobody to tell.
            let _ = connection.with_upgrades().await;
        });
        Some(Self { sender, watch })
    }
}

/// A connection that carries a response. Dropped, it is closed; given back, it rests.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) link: Link,
    pub(crate) visit: Visit,
    pub(crate) worker: Rc<Worker>,
    /// The server's own limit for resting connections, if it announced one.
    pub(crate) keep_alive: Option<Duration>,
}

impl Lease {
    /// The response has ended: the connection may carry another request.
    pub(crate) fn give_back(self) {
        let Self { mut link, visit, worker, keep_alive } = self;
        let endpoint = visit.endpoint.id;
        if link.sender.is_closed() || !worker.serves(endpoint) {
            return;
        }
        if link.sender.is_ready() {
            worker.hyper_pool.put(endpoint, link, keep_alive);
            return;
        }
        tokio::task::spawn_local(async move {
            // The connection's task has still to notice the end of the message.
            let ready = tokio::time::timeout(CONNECT_MAX, link.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) && worker.serves(endpoint) {
                worker.hyper_pool.put(endpoint, link, keep_alive);
            }
        });
    }
}
