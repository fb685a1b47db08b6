//! The data plane: sockets and connection pools around core/routing.
//!
//! A process of its own: it serves its last table when the control plane is gone, and after its
//! own restart. Threads: one per core for traffic, one that accepts, one for control. It decides
//! nothing: which version gets which share is in the table.

mod access_log;
mod admin;
mod balance;
mod batches;
mod clock;
mod codec;
mod cohorts;
mod compiled;
mod counters;
mod endpoint;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handover;
mod headers;
mod hold;
mod ledger;
pub mod limits;
mod listen;
mod log;
#[cfg(any(test, feature = "measuring"))]
#[doc(hidden)]
pub mod measuring;
mod metrics;
mod mirror;
mod peers;
mod plane;
mod pool;
mod process;
mod registry;
mod resilience;
mod route_counts;
mod service;
mod sessions;
mod shared;
mod socket;
mod store;
mod sync;
mod tls;
mod trace;
mod tunnel;
mod upload;
mod view;
mod worker;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use switchback_ports::data_plane::admin::{SOCKET_NAME, TAKE_OVER};

pub use codec::{Codec, UnknownCodec};
pub use process::run;
pub use tls::TicketKeys;

/// The file in the state directory whose lock says that a data plane runs.
pub use switchback_ports::data_plane::admin::LOCK_FILE;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the last table, the lock and (if its path is short enough) the admin socket lie.
    pub state_dir: PathBuf,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Threads that carry traffic; `None` takes one per core.
    pub workers: Option<usize>,
    /// Take a session of its own and obey signals: right for a process, wrong inside a test.
    pub detach: bool,
    /// Which HTTP/1.1 codec serves.
    pub codec: Codec,
    /// Client connections of one address at once; `None` (behind a proxy that speaks for many) does
    /// not count them.
    pub connections_per_address: Option<u32>,
    /// How long requests in flight may go on after it was told to stop.
    pub stop_grace: Duration,
    /// Take over from the process that runs, instead of starting where none does.
    pub take_over: bool,
    /// The version of the binary, for people.
    pub version: String,
}

impl Options {
    /// A process of its own, with its admin socket where the control plane looks for it.
    /// `state_dir` should be absolute: the socket's path may be derived from its text.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let state_dir = state_dir.into();
        let admin_socket = switchback_domain::socket_path(&state_dir, SOCKET_NAME);
        let stop_grace = limits::STOP_GRACE;
        let codec = Codec::default();
        let connections_per_address = Some(limits::CONNECTIONS_PER_ADDRESS_MAX);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            state_dir,
            admin_socket,
            workers: None,
            detach: true,
            codec,
            connections_per_address,
            stop_grace,
            take_over: false,
            version,
        }
    }
}

/// What chooses the codec where the command line does not.
pub const CODEC_VARIABLE: &str = "SWITCHBACK_CODEC";
/// What limits the connections of one address where the command line does not; 0 for no limit.
pub const CONNECTIONS_VARIABLE: &str = "SWITCHBACK_CONNECTIONS_PER_ADDRESS";

impl Options {
    /// Reads `--state-dir DIR [--codec own|hyper] [--take-over]`, in any order; without `--codec`,
    /// the environment's [`CODEC_VARIABLE`] counts, and always its [`CONNECTIONS_VARIABLE`]. What
    /// is not understood is an error and not the default: whoever says something has a reason.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, ArgumentError> {
        let (mut state_dir, mut codec) = (None, std::env::var_os(CODEC_VARIABLE));
        let (mut arguments, mut take_over) = (arguments.into_iter(), false);
        while let Some(flag) = arguments.next() {
            if flag == TAKE_OVER {
                take_over = true;
                continue;
            }
            let value = arguments.next();
            match flag.to_str() {
                Some("--state-dir") if value.is_some() => state_dir = value,
                Some("--codec") if value.is_some() => codec = value,
                Some(_) | None => return Err(ArgumentError::Usage),
            }
        }
        let mut options = Self::new(state_dir.ok_or(ArgumentError::Usage)?);
        options.take_over = take_over;
        if let Some(codec) = codec.filter(|codec| !codec.is_empty()) {
            options.codec = codec.to_string_lossy().parse()?;
        }
        if let Some(limit) = std::env::var_os(CONNECTIONS_VARIABLE) {
            options.connections_per_address = connections_limit(&limit.to_string_lossy())?;
        }
        Ok(options)
    }
}

/// `None` for 0; the default for nothing.
fn connections_limit(text: &str) -> Result<Option<u32>, ArgumentError> {
    if text.is_empty() {
        return Ok(Some(limits::CONNECTIONS_PER_ADDRESS_MAX));
    }
    let limit = text.parse().map_err(|_| ArgumentError::Connections(text.to_owned()))?;
    Ok(Some(limit).filter(|limit| *limit > 0))
}

/// Why a command line is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// It does not say what has to be said.
    #[error("it takes --state-dir DIR [--codec own|hyper] [--take-over]")]
    Usage,
    /// It names a codec there is not.
    #[error(transparent)]
    Codec(#[from] UnknownCodec),
    /// The environment's limit of connections is none.
    #[error("{CONNECTIONS_VARIABLE} is {0:?}: it takes a number, 0 for no limit")]
    Connections(String),
}

/// Why the data plane cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used.
    #[error("cannot use {}", path.display())]
    StateDir {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another data plane has it.
    #[error("another data plane runs on {}", path.display())]
    Locked {
        /// Which directory.
        path: PathBuf,
    },
    /// The process that runs was not succeeded; it goes on.
    #[error("cannot take over: {0}")]
    TakeOver(String),
    /// The admin socket, or the one for handovers, cannot be opened.
    #[error("cannot open the socket {}", path.display())]
    Admin {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread, runtime or signal handler cannot be set up.
    #[error("cannot set up the data plane's threads")]
    Runtime(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(PathBuf, Codec), ArgumentError> {
        let options = Options::from_arguments(line.split(' ').map(OsString::from))?;
        Ok((options.state_dir, options.codec))
    }

    #[test]
    fn the_limit_of_connections_is_a_number_or_off() {
        let default = Some(limits::CONNECTIONS_PER_ADDRESS_MAX);
        assert_eq!(connections_limit(""), Ok(default));
        assert_eq!(connections_limit("0"), Ok(None));
        assert_eq!(connections_limit("5"), Ok(Some(5)));
        assert!(matches!(connections_limit("-1"), Err(ArgumentError::Connections(_))));
    }

    #[test]
    fn the_codec_is_chosen_on_the_command_line() {
        let own = (PathBuf::from("/s"), Codec::Own);
        assert_eq!(read("--state-dir /s --codec own"), Ok(own.clone()));
        assert_eq!(read("--codec own --state-dir /s"), Ok(own));
        assert_eq!(read("--codec hyper --state-dir /s"), Ok(("/s".into(), Codec::Hyper)));
        assert!(matches!(read("--state-dir /s --codec fast"), Err(ArgumentError::Codec(_))));
        for bad in ["--codec own", "--state-dir", "--state-dir /s --codec", "--what /s"] {
            assert_eq!(read(bad), Err(ArgumentError::Usage), "{bad}");
        }
    }
}
