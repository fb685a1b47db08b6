//! What goes to one side: a head or framing of ours, data where it lies, framing of ours again; in
//! one system call if the socket takes it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::chunked::Malformed;
use super::fields::{copy_trailers, write_hex};
use super::inbound::Inbound;
use crate::limits::BUFFER_BYTES_MAX;

/// Up to this many bytes are copied rather than sent from where they lie.
const JOINED_MAX: usize = 4 * 1024;

/// How the other side is told where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Framing {
    /// By the head.
    #[default]
    Plain,
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// One side's output.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Before the data: the head at first, then the size of a chunk.
    prefix: Vec<u8>,
    prefix_at: usize,
    suffix: Vec<u8>,
    suffix_at: usize,
    framing: Framing,
    /// Everything to be written is here.
    ended: bool,
    /// Some of it has left.
    begun: bool,
}

impl Outbound {
    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.prefix.clear();
        self.suffix.clear();
        (self.prefix_at, self.suffix_at) = (0, 0);
        (self.ended, self.begun) = (false, false);
        self.framing = Framing::Plain;
    }

    /// Gives back room that only a very long message needed.
    pub(super) fn shrink(&mut self) {
        if self.prefix.capacity() > BUFFER_BYTES_MAX {
            self.prefix.clear();
            self.prefix.shrink_to(0);
            self.prefix_at = 0;
        }
    }

    /// Where a head is written to.
    pub(super) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.prefix
    }

    /// Says in the head, before any of it is sent, that its trace is recorded.
    pub(super) fn mark_sampled(&mut self, at: usize) {
        if let Some(digit) = self.prefix.get_mut(at).filter(|_| !self.begun) {
            *digit = b'1';
        }
    }

    pub(super) fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// Starts again on another connection: for a message of which nothing left, or without a body.
    pub(super) fn rewind(&mut self) {
        (self.prefix_at, self.suffix_at, self.begun) = (0, 0, false);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the whole message is in here or written.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes what was decoded: data, the end of the body, or both. What was framed before must
    /// have been written, except a head.
    pub(super) fn frame(&mut self, inbound: &mut Inbound) -> Result<(), Malformed> {
        if self.begun && self.prefix_at == self.prefix.len() {
            self.prefix.clear();
            self.prefix_at = 0;
        }
        self.suffix.clear();
        self.suffix_at = 0;
        self.ended = inbound.has_ended();
        if self.framing == Framing::Chunked {
            self.frame_chunk(inbound)?;
        }
        self.join_small(inbound);
        Ok(())
    }

    fn frame_chunk(&mut self, inbound: &Inbound) -> Result<(), Malformed> {
        let length = inbound.data().len();
        if length > 0 {
            write_hex(&mut self.prefix, length);
            self.prefix.extend_from_slice(b"\r\n");
            self.suffix.extend_from_slice(b"\r\n");
        }
        if self.ended {
            self.suffix.extend_from_slice(b"0\r\n");
            if !inbound.trailers().is_empty() {
                copy_trailers(inbound.trailers(), &mut self.suffix)?;
            }
            self.suffix.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// Copies what is small behind the head or the chunk's size: one buffer is cheaper to send
    /// than several, by more than the copy costs.
    fn join_small(&mut self, inbound: &mut Inbound) {
        let data = inbound.data();
        if !self.prefix.is_empty() && data.len() + self.suffix.len() <= JOINED_MAX {
            self.prefix.extend_from_slice(data);
            self.prefix.append(&mut self.suffix);
            inbound.passed(inbound.data().len());
        }
    }

    /// Writes all that is there, with the data of `inbound` in its place.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut TcpStream,
        inbound: &mut Inbound,
    ) -> Poll<io::Result<()>> {
        loop {
            let parts =
                [&self.prefix[self.prefix_at..], inbound.data(), &self.suffix[self.suffix_at..]];
            let written = match parts.map(<[u8]>::is_empty) {
                [true, true, true] => return Poll::Ready(Ok(())),
                [_, true, true] => Pin::new(&mut *stream).poll_write(context, parts[0]),
                [true, _, true] => Pin::new(&mut *stream).poll_write(context, parts[1]),
                [_, _, _] => {
                    let parts = parts.map(IoSlice::new);
                    Pin::new(&mut *stream).poll_write_vectored(context, &parts)
                }
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.wrote(count, inbound),
            }
        }
    }

    fn wrote(&mut self, mut count: usize, inbound: &mut Inbound) {
        self.begun = true;
        let prefix = count.min(self.prefix.len() - self.prefix_at);
        self.prefix_at += prefix;
        count -= prefix;
        let data = count.min(inbound.data().len());
        inbound.passed(data);
        self.suffix_at += count - data;
    }

    /// The whole message, before any of it has left; `None` when it is not all here.
    pub(super) fn whole(&self, inbound: &Inbound) -> Option<Vec<u8>> {
        self.ended.then(|| [&self.prefix, inbound.data(), &self.suffix].concat())
    }

    /// What was not written of the head and its framing.
    pub(super) fn rest(&self) -> &[u8] {
        &self.prefix[self.prefix_at..]
    }

    /// Everything that is to be written.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn copy_to(&self, inbound: &Inbound, out: &mut Vec<u8>) {
        out.extend_from_slice(self.rest());
        out.extend_from_slice(inbound.data());
        out.extend_from_slice(&self.suffix[self.suffix_at..]);
    }
}
