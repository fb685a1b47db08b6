//! A connection to an instance, driven in a task of its own: by hyper, or HTTP/2's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use switchback_domain::tls::UpstreamProtocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::RequestBody;
use super::socket::{Socket, Watch};
use crate::codec::http2::{self, Sending};
use crate::compiled::Visit;
use crate::limits::{BUFFER_BYTES_MAX, CONNECT_MAX, UPSTREAM_HANDSHAKE_MAX};
use crate::pool;
use crate::tls::Upstream;
use crate::worker::Worker;

/// One connection to an instance.
#[derive(Debug)]
pub(crate) enum Link {
    /// For one request at a time.
    Http1(Http1),
    /// Shared by many.
    Http2(http2::Link),
}

/// One HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) watch: Watch,
}

impl pool::Link for Link {
    fn is_over(&self) -> bool {
        match self {
            Self::Http1(link) => !link.sender.is_ready(),
            Self::Http2(link) => link.is_over(),
        }
    }

    fn is_quiet(&self) -> bool {
        match self {
            Self::Http1(link) => link.watch.is_quiet(),
            // Others may be speaking.
            Self::Http2(_) => true,
        }
    }

    fn shared(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(link) => Some(Self::Http2(link.clone())),
        }
    }
}

impl Link {
    /// Starts the task that drives a new connection to an instance that is spoken to like this.
    pub(crate) async fn open(
        stream: TcpStream,
        protocol: UpstreamProtocol,
        tls: Option<&Upstream>,
    ) -> Option<Self> {
        let (socket, watch) = Socket::new(stream);
        let Some(tls) = tls else { return Self::begin(socket, watch, protocol).await };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let shaking = connector.connect(tls.server_name.clone(), socket);
        let stream = tokio::time::timeout(UPSTREAM_HANDSHAKE_MAX, shaking).await.ok()?.ok()?;
        Self::begin(stream, watch, protocol).await
    }

    async fn begin<I>(io: I, watch: Watch, protocol: UpstreamProtocol) -> Option<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match protocol {
            UpstreamProtocol::H2c => http2::Link::open(io).await.map(Self::Http2),
            UpstreamProtocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(BUFFER_BYTES_MAX);
                let (sender, connection) = builder.handshake(TokioIo::new(io)).await.ok()?;
                tokio::task::spawn_local(async move {
                    // Its errors reach whoever waits for a response; a resting one has nobody.
                    let _ = connection.with_upgrades().await;
                });
                Some(Self::Http1(Http1 { sender, watch }))
            }
        }
    }
}

/// A connection with an answer on it, and what is still being sent there.
#[derive(Debug)]
pub(crate) enum Held {
    /// All to itself.
    Http1(Http1),
    /// One stream of many. What is still being sent ends with it.
    Http2(#[allow(dead_code, reason = "held until the answer has ended")] Sending),
}

/// A connection that carries a response. Dropped, it is closed; given back, it rests.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) link: Held,
    pub(crate) visit: Visit,
    pub(crate) worker: Rc<Worker>,
    /// The server's own limit for resting connections, if it announced one.
    pub(crate) keep_alive: Option<Duration>,
}

impl Lease {
    /// The response has ended: the connection may carry another request.
    pub(crate) fn give_back(self) {
        let Self { link, visit, worker, keep_alive } = self;
        let Held::Http1(mut link) = link else { return };
        let endpoint = visit.endpoint().id;
        if link.sender.is_closed() || !worker.serves(endpoint) {
            return;
        }
        if link.sender.is_ready() {
            worker.hyper_pool.put(endpoint, Link::Http1(link), keep_alive, Instant::now());
            return;
        }
        tokio::task::spawn_local(async move {
            // The connection's task has still to notice the end of the message.
            let ready = tokio::time::timeout(CONNECT_MAX, link.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) && worker.serves(endpoint) {
                worker.hyper_pool.put(endpoint, Link::Http1(link), keep_alive, Instant::now());
            }
        });
    }
}
