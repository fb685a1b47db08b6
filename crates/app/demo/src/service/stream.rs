//! A connection that can be spoiled: what is written from then on becomes nonsense.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// No HTTP by any reading of it.
const GARBAGE: &[u8] = b"\x00\xffSQUEAK 1/2 \x07\r\nthis is : not\x01an answer\r\n\r\n";

#[derive(Debug)]
pub(super) struct Spoilable {
    stream: TcpStream,
    spoiled: Arc<AtomicBool>,
    sent: bool,
}

/// Spoils its connection.
#[derive(Debug, Clone)]
pub(super) struct Spoil(Arc<AtomicBool>);

impl Spoil {
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Spoilable {
    pub(super) fn new(stream: TcpStream) -> (Self, Spoil) {
        let spoiled = Arc::new(AtomicBool::new(false));
        (Self { stream, spoiled: spoiled.clone(), sent: false }, Spoil(spoiled))
    }
}

impl AsyncRead for Spoilable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Spoilable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.spoiled.load(Ordering::Relaxed) {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        if !self.sent {
            ready!(Pin::new(&mut self.stream).poll_write(context, GARBAGE))?;
            self.sent = true;
        }
        // The proper answer is taken, and forgotten.
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
