//! One keep-alive connection of the load generator, and one exchange on it.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::response::{Malformed, Progress, Response};

const READ_BYTES: usize = 16 << 10;

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) version: Option<String>,
    /// The server said, or showed, that the connection ends here.
    pub(super) closes: bool,
}

/// Why there is no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Connect,
    ReusedBeforeByte,
    FreshBeforeByte,
    MidResponse,
    Malformed,
    Timeout,
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    reused: bool,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; READ_BYTES], reused: false })
    }

    /// Whether the server has not closed it, asked at this instant: what good clients do before
    /// they use a connection again. Bytes nobody asked for make it useless too.
    pub(super) fn is_open(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(&self.stream, &mut [0; 1][..], flags), Err(Errno::AGAIN))
    }

    /// Sends a request and reads its answer to the end.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        // A server may answer and close without having read everything: only what can be read
        // says whether there is an answer.
        let _ = self.stream.write_all(request).await;
        let reused = std::mem::replace(&mut self.reused, true);
        let mut response = Response::default();
        let mut heard = false;
        loop {
            let read = self.stream.read(&mut self.buffer).await.unwrap_or(0);
            if read == 0 {
                return match (heard, reused) {
                    (true, _) => response.at_end().ok_or(Failure::MidResponse),
                    (false, true) => Err(Failure::ReusedBeforeByte),
                    (false, false) => Err(Failure::FreshBeforeByte),
                };
            }
            heard = true;
            match response.take(&self.buffer[..read])? {
                Progress::Incomplete => {}
                Progress::Complete(answer) => return Ok(answer),
            }
        }
    }
}
