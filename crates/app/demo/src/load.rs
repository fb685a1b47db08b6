//! An open-loop load generator: requests leave on a fixed schedule, whatever the answers do.
//!
//! It talks to the loopback address only, and every run has an end. Nothing is retried: each
//! request is answered or is one failure of one class.

mod connection;
mod report;
mod response;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

pub use report::{Failures, LoadReport, NO_VERSION};
use worker::Shared;

/// More than one core of a small machine can answer.
pub const RATE_PER_SECOND_MAX: u32 = 50_000;
/// Leaves room below the usual limit of 1,024 descriptors.
pub const CONNECTIONS_MAX: u16 = 900;
/// Largest body of a POST: one that any server takes.
pub const POST_BYTES_MAX: usize = 1 << 20;

/// What to send, where, how often and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// Where to; a loopback address.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// The path, with a query if wanted.
    pub path: String,
    /// Arrivals every second, from 1 to [`RATE_PER_SECOND_MAX`].
    pub rate_per_second: u32,
    /// Keep-alive connections, from 1 to [`CONNECTIONS_MAX`], used in turn.
    pub connections: u16,
    /// Share of requests that are POSTs with a body, 0 to 1.
    pub post_share: f64,
    /// Size of those bodies, up to [`POST_BYTES_MAX`].
    pub post_bytes: usize,
    /// Time a request may take, from when it is sent.
    pub timeout: Duration,
    /// No request leaves later than this after the start.
    pub duration_max: Duration,
    /// No more than so many requests leave.
    pub requests_max: u64,
}

impl LoadOptions {
    /// 100 requests a second on 16 connections, a tenth of them POSTs, for ten minutes at most.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            host: address.to_string(),
            path: "/".to_owned(),
            rate_per_second: 100,
            connections: 16,
            post_share: 0.1,
            post_bytes: 512,
            timeout: Duration::from_secs(10),
            duration_max: Duration::from_mins(10),
            requests_max: 1_000_000,
        }
    }

    fn check(&self) -> Result<(), Error> {
        if !self.address.ip().is_loopback() {
            return Err(Error::NotLoopback(self.address));
        }
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let checks = [
            ("rate_per_second", (1..=RATE_PER_SECOND_MAX).contains(&self.rate_per_second)),
            ("connections", (1..=CONNECTIONS_MAX).contains(&self.connections)),
            ("post_share", (0.0..=1.0).contains(&self.post_share)),
            ("post_bytes", self.post_bytes <= POST_BYTES_MAX),
            ("timeout", !self.timeout.is_zero()),
            ("host", !self.host.is_empty() && printable(&self.host)),
            ("path", self.path.starts_with('/') && printable(&self.path)),
        ];
        match checks.iter().find(|(_, good)| !good) {
            Some((name, _)) => Err(Error::OutOfRange(name)),
            None => Ok(()),
        }
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Load is for services on this machine only.
    #[error("{0} is not a loopback address; load is sent to this machine only")]
    NotLoopback(SocketAddr),
    /// An option is outside of its range.
    #[error("the load's {0} is out of range")]
    OutOfRange(&'static str),
    /// The system refused the thread or its runtime.
    #[error("cannot start the load generator")]
    Start(#[source] io::Error),
}

/// The load generator.
#[derive(Debug)]
pub struct Load;

impl Load {
    /// Starts sending, on a thread of its own.
    pub fn start(options: LoadOptions) -> Result<LoadHandle, Error> {
        options.check()?;
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_io().enable_time().build().map_err(Error::Start)?;
        let report = Arc::new(Mutex::new(LoadReport::default()));
        let (stop, stopping) = watch::channel(false);
        let (done, finished) = oneshot::channel();
        let shared = Shared::new(options, report.clone());
        let body = move || {
            runtime.block_on(worker::run(shared, stopping));
            // Nobody waits: the handle was dropped.
            let _ = done.send(());
        };
        let thread = std::thread::Builder::new().name("load".to_owned());
        thread.spawn(body).map_err(Error::Start)?;
        Ok(LoadHandle { report, stop, finished })
    }
}

/// A running load. Dropping it stops the load as well, without waiting.
#[derive(Debug)]
pub struct LoadHandle {
    report: Arc<Mutex<LoadReport>>,
    stop: watch::Sender<bool>,
    finished: oneshot::Receiver<()>,
}

impl LoadHandle {
    /// What was counted until now, requests on their way included.
    pub fn snapshot(&self) -> LoadReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends nothing more, waits for the requests on their way, and reports.
    pub async fn stop(self) -> LoadReport {
        // Nobody listens: it has finished by itself.
        let _ = self.stop.send(true);
        self.wait().await
    }

    /// Waits until the load ends by itself, and reports.
    pub async fn wait(mut self) -> LoadReport {
        // An error means that the thread is gone: what it counted still stands.
        let _ = (&mut self.finished).await;
        self.snapshot()
    }
}
