//! The control plane: driver loop and HTTP API.
//!
//! One task owns all state (`driver`); everything slow runs beside it and reports back by
//! message. Decisions are the engine's, written by `book` before anything is done about them.

mod api;
mod book;
mod calls;
mod certificates;
mod clock;
mod compact;
mod configuration;
mod driver;
mod exact;
mod fleet;
mod forecast;
mod hands;
mod headless;
mod judging;
mod lock;
mod lookups;
mod metrics;
mod older_journal;
mod operations;
mod order;
mod problem;
mod record;
mod replay;
mod settle;
mod table;
mod tasks;
#[cfg(test)]
mod testing;
mod traffic;
mod trials;
mod views;
mod vitals;

pub use clock::Reading;
pub use headless::{Headless, Refusal};
pub use metrics::MetricId;
pub use order::Order;
pub use traffic::Shifts;
pub use vitals::ProbeRole;

use std::path::PathBuf;
use std::sync::Arc;

use switchback_domain::EnvironmentName;
use switchback_ports::{
    Certificates, DataPlane, Journal, Metrics, Prober, Runtime, Supervision, journal,
};

/// What the control plane is told at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `switchback.yaml`.
    pub config: PathBuf,
    /// Where the journal, sockets and logs live.
    pub state_dir: PathBuf,
    /// Where the API's socket goes.
    pub socket: PathBuf,
    /// The environment meant when a request names none.
    pub environment: Option<EnvironmentName>,
}

/// Opens a journal.
pub type OpenJournal = Box<dyn FnOnce() -> Result<Box<dyn Journal>, journal::Error> + Send>;

/// The neighbours it works with.
pub struct Neighbours {
    /// Runs instances.
    pub runtime: Arc<dyn Runtime>,
    /// Asks them how they do.
    pub prober: Arc<dyn Prober>,
    /// Knows the numbers of metrics.
    pub metrics: Arc<dyn Metrics>,
    /// Carries the traffic.
    pub data_plane: Arc<dyn DataPlane>,
    /// Keeps the carrier running.
    pub supervision: Arc<dyn Supervision>,
    /// Orders certificates.
    pub certificates: Arc<dyn Certificates>,
    /// Opens the journal, once the lock is held.
    pub journal: OpenJournal,
}

/// Why the control plane cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one is in charge of this directory.
    #[error("another control plane (process {pid}) is in charge of {directory}")]
    Locked {
        /// Its process.
        pid: String,
        /// Of what.
        directory: PathBuf,
    },
    /// The state directory or socket cannot be used.
    #[error("cannot {operation} {path}")]
    File {
        /// `create`, `lock`, `listen on`.
        operation: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration has mistakes.
    #[error("{0}")]
    Configuration(String),
    /// The journal cannot be used.
    #[error("cannot {operation} the journal")]
    Journal {
        /// `open`, `read`.
        operation: &'static str,
        /// Why.
        #[source]
        source: journal::Error,
    },
    /// The journal holds something this build does not understand.
    #[error("the journal cannot be understood")]
    Record(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A newer control plane has taken over.
    #[error("another control plane has taken over")]
    Fenced,
}

/// Runs until it is told to stop (SIGTERM, SIGINT: instances and data plane go on) or to take
/// everything down.
pub async fn run(options: Options, neighbours: Neighbours) -> Result<(), Error> {
    let _lock = lock::take(&options.state_dir)?;
    // Beside each other: with thousands of services each takes its time.
    let (book, settings) = std::thread::scope(|scope| {
        let settings = scope.spawn(|| configuration::Settings::load(&options));
        let book = open_book(neighbours.journal);
        (book, settings.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (book, settings) = (book?, settings?);
    let links = driver::Links {
        runtime: neighbours.runtime,
        prober: neighbours.prober,
        metrics: neighbours.metrics,
        data_plane: neighbours.data_plane,
        supervision: neighbours.supervision,
        certificates: neighbours.certificates,
    };
    let driver = driver::Driver::new(book, settings);
    let (hands, handle) = hands::Hands::new(driver, links);
    let server = api::serve(&options.socket, handle)?;
    let result = hands.run().await;
    server.abort();
    // Best effort: a socket left behind is replaced at the next start.
    let _ = std::fs::remove_file(&options.socket);
    result
}

fn open_book(journal: OpenJournal) -> Result<book::Book, Error> {
    let journal = journal().map_err(|source| Error::Journal { operation: "open", source })?;
    book::Book::open(journal)
}
