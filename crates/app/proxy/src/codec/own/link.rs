//! A connection to an instance: the stream, and nothing else while it rests.

use tokio::net::TcpStream;

use crate::pool;
use crate::socket::{is_quiet, set_up};

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) stream: TcpStream,
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Self {
        set_up(&stream);
        Self { stream }
    }

    /// One that another process has set up.
    pub(crate) fn taken_over(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// The stream, for another process.
    pub(crate) fn into_std(self) -> std::io::Result<std::net::TcpStream> {
        self.stream.into_std()
    }
}

impl pool::Link for Link {
    fn is_over(&self) -> bool {
        // Whatever comes to a resting connection is its end, or nothing anybody asked for.
        !matches!(
            self.stream.try_read(&mut [0]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
        )
    }

    fn is_quiet(&self) -> bool {
        is_quiet(&self.stream)
    }
}
