//! A TCP stream whose file descriptor stays reachable after the codec has taken it over.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::socket::{is_quiet, set_up};

/// The codec's side of a stream.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    watch: Watch,
}

/// Our side of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    stream: Arc<TcpStream>,
    /// When the first byte came since the last look, in milliseconds; 0 is not yet.
    heard: Arc<AtomicU64>,
}

/// Milliseconds since this process first asked, never 0.
fn clock_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

impl Socket {
    /// Wraps a stream and sets what every connection of the data plane has set.
    pub(crate) fn new(stream: TcpStream) -> (Self, Watch) {
        set_up(&stream);
        let stream = Arc::new(stream);
        let watch = Watch { stream: Arc::clone(&stream), heard: Arc::default() };
        (Self { stream, watch: watch.clone() }, watch)
    }
}

impl Watch {
    /// Whether any byte came since the last call of this.
    pub(crate) fn take_heard(&self) -> bool {
        self.heard.swap(0, Ordering::Relaxed) != 0
    }

    /// How long ago the first byte came since [`Self::take_heard`].
    pub(crate) fn hears_for(&self) -> Option<Duration> {
        let since = self.heard.load(Ordering::Relaxed);
        (since != 0).then(|| Duration::from_millis(clock_ms().saturating_sub(since)))
    }

    /// Whether the peer neither closed the connection nor sent something nobody asked for. Asks
    /// the kernel, so it also sees what the event loop has not got to yet.
    pub(crate) fn is_quiet(&self) -> bool {
        is_quiet(&*self.stream)
    }

    /// Reads and throws away what still comes, until the peer ends.
    pub(crate) async fn drain(&self) {
        while self.stream.readable().await.is_ok() {
            match self.stream.try_read(&mut [0; 4096]) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Writes a few bytes past the codec, as far as the socket takes them: a last word.
    pub(crate) fn last_word(&self, bytes: &[u8]) {
        let _ = self.stream.try_write(bytes);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read_buf(buffer) {
                Ok(count) => {
                    if count > 0 && self.watch.heard.load(Ordering::Relaxed) == 0 {
                        self.watch.heard.store(clock_ms(), Ordering::Relaxed);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}
