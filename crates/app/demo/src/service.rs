//! A small HTTP service that answers with its version and misbehaves as it is told.

pub mod options;

mod behave;
mod clock;
mod lasting;
mod metrics;
mod respond;
mod state;
mod stream;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use options::{Behaviour, ServiceOptions, SlowStop};
use state::{State, log};
use stream::Spoilable;

/// How long connections without a request are kept open after the stop, answered with
/// `Connection: close`: a client that was about to use one does not find it gone.
const LAME_DUCK: Duration = Duration::from_millis(300);

/// Connections waiting to be accepted: more than the load generator ever opens.
const BACKLOG: u32 = 1024;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken, for instance.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system refused what every service needs.
    #[error("cannot start the service")]
    Start(#[source] io::Error),
}

/// Runs the service until SIGTERM, or until it crashes as it was told to; returns the exit code
/// of the process.
pub fn run(options: ServiceOptions) -> Result<u8, Error> {
    if let Some(code) = options.behaviour.exit_code {
        log(&format!("{} exits at once with code {code}, as configured", options.version));
        return Ok(code);
    }
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().map_err(Error::Start)?;
    let code = runtime.block_on(async {
        // Before the port is open: whoever sees it open may send the signal.
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Start)?;
        let service = Service::bind(options)?;
        let stop = async move {
            terminate.recv().await;
            log("SIGTERM received");
        };
        Ok(service.serve(stop).await)
    });
    // A hung or crashing request must not hold the process.
    runtime.shutdown_background();
    code
}

/// A service that listens, and answers once it is served.
#[derive(Debug)]
pub struct Service {
    listener: TcpListener,
    address: SocketAddr,
    options: ServiceOptions,
}

impl Service {
    /// Listens on the loopback address; port 0 takes a free one. Call it inside a runtime.
    pub fn bind(options: ServiceOptions) -> Result<Self, Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listen = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = listen().map_err(|source| Error::Listen { address, source })?;
        Ok(Self { listener, address, options })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, then finishes what it began; returns the exit code: 0, or that of
    /// the crash it was told to play.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> u8 {
        let Self { listener, address, options } = self;
        let (end, mut ended) = mpsc::unbounded_channel();
        let slow_stop = options.behaviour.slow_stop;
        let state = Arc::new(State::new(options, end));
        log(&format!("{} listening on {address}", state.options.version));
        behave::start(&state);
        let (close_idle, closing) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(delayed(stop, slow_stop));
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(code) = ended.recv() => return code,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(converse(stream, state.clone(), closing.clone()));
                    }
                    // Out of descriptors, usually: let some connections end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        state.begin_stop();
        // Those that the kernel accepted for us already are not turned away.
        while let Ok(Ok((stream, _))) =
            tokio::time::timeout(Duration::ZERO, listener.accept()).await
        {
            connections.spawn(converse(stream, state.clone(), closing.clone()));
        }
        drop(listener);
        tokio::select! {
            Some(code) = ended.recv() => code,
            () = finish(connections, close_idle) => {
                log("stopped");
                0
            }
        }
    }
}

async fn delayed(stop: impl Future<Output = ()>, slow_stop: SlowStop) {
    stop.await;
    match slow_stop {
        SlowStop::No => {}
        SlowStop::For(duration) => tokio::time::sleep(duration).await,
        SlowStop::Forever => std::future::pending().await,
    }
}

async fn finish(mut connections: JoinSet<()>, close_idle: watch::Sender<bool>) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAME_DUCK, all).await.is_err() {
        // Nobody listening means that every connection has ended.
        let _ = close_idle.send(true);
        while connections.join_next().await.is_some() {}
    }
}

/// One connection, to its end. How it ended is the client's to count.
async fn converse(stream: TcpStream, state: Arc<State>, mut closing: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let (stream, spoil) = Spoilable::new(stream);
    let respond =
        service_fn(move |request| respond::respond(state.clone(), spoil.clone(), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), respond);
    let connection = connection.with_upgrades();
    let mut connection = pin!(connection);
    let _ = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

/// Returns once connections without a request shall close.
async fn told(closing: &mut watch::Receiver<bool>) {
    // An error means that the service is gone: as good as told.
    let _ = closing.wait_for(|closing| *closing).await;
}
