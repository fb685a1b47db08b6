//! What comes from one side: bytes as they were read, and the body taken out of its framing.
//!
//! The body's data is made contiguous in place, so however it was chunked, it leaves in one piece.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::chunked::{Chunked, Malformed};
use super::fields::check_trailers;
use super::scratch::{SMALL, Scratches};

/// How a body ends, and how far it has come.
#[derive(Debug)]
pub(super) enum Body {
    /// It has, or there is none.
    Ended,
    /// So many bytes are to come: at least one.
    Length(u64),
    Chunked(Chunked),
    /// With the connection.
    UntilClose,
}

impl Body {
    pub(super) fn length(bytes: u64) -> Self {
        if bytes == 0 { Self::Ended } else { Self::Length(bytes) }
    }

    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Length(_) | Self::UntilClose => false,
            Self::Chunked(chunked) => chunked.has_ended(),
        }
    }
}

/// One side's input.
#[derive(Debug)]
pub(super) struct Inbound {
    bytes: Vec<u8>,
    /// The small buffer, while `bytes` is a large one.
    spare: Vec<u8>,
    /// Decoded, not passed on yet.
    data: Range<usize>,
    /// Read, not decoded yet; always after `data`.
    raw: Range<usize>,
    body: Body,
    /// The last read filled the buffer: a larger one would save system calls.
    was_filled: bool,
}

impl Inbound {
    pub(super) fn new() -> Self {
        let (bytes, spare) = (vec![0; SMALL], Vec::new());
        Self { bytes, spare, data: 0..0, raw: 0..0, body: Body::Ended, was_filled: false }
    }

    /// Forgets everything; gives a large buffer back.
    pub(super) fn reset(&mut self, scratches: &Scratches) {
        (self.data, self.raw) = (0..0, 0..0);
        (self.body, self.was_filled) = (Body::Ended, false);
        if !self.spare.is_empty() {
            let large = std::mem::replace(&mut self.bytes, std::mem::take(&mut self.spare));
            scratches.put_large(large);
        }
    }

    /// What was read and not decoded.
    pub(super) fn raw(&self) -> &[u8] {
        &self.bytes[self.raw.clone()]
    }

    /// A part of what was read: `part` counts from where `raw` began at `start`.
    pub(super) fn part(&self, start: usize, part: &Range<usize>) -> &[u8] {
        self.bytes.get(start + part.start..start + part.end).unwrap_or_default()
    }

    /// Where `raw` begins.
    pub(super) fn raw_start(&self) -> usize {
        self.raw.start
    }

    /// A head of so many bytes was read; this body follows.
    pub(super) fn begin(&mut self, head_bytes: usize, body: Body) {
        self.raw.start += head_bytes;
        self.data = self.raw.start..self.raw.start;
        self.body = body;
    }

    /// Data to be passed on.
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.data.clone()]
    }

    /// So many bytes of the data were passed on.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.data.start += bytes;
    }

    /// Whether the whole body was decoded.
    pub(super) fn has_ended(&self) -> bool {
        self.body.has_ended()
    }

    /// The trailers of a body that has ended; empty without any.
    pub(super) fn trailers(&self) -> &[u8] {
        match &self.body {
            Body::Chunked(chunked) => chunked.trailers(),
            Body::Ended | Body::Length(_) | Body::UntilClose => &[],
        }
    }

    /// Whether more can be read without letting go of anything.
    pub(super) fn has_room(&self) -> bool {
        self.raw.end < self.bytes.len()
    }

    /// Makes room for more of a head.
    pub(super) fn make_room(&mut self, scratches: &Scratches) {
        if self.has_room() {
            return;
        }
        if self.raw.start > 0 {
            self.bytes.copy_within(self.raw.clone(), 0);
            self.raw = 0..self.raw.len();
        } else if self.spare.is_empty() {
            self.enlarge(scratches);
        }
    }

    fn enlarge(&mut self, scratches: &Scratches) {
        let mut large = scratches.take_large();
        large[..self.raw.len()].copy_from_slice(&self.bytes[self.raw.clone()]);
        self.raw = 0..self.raw.len();
        self.data = 0..0;
        self.spare = std::mem::replace(&mut self.bytes, large);
    }

    /// Before the next part of a body: everything was passed on.
    fn start_over(&mut self, scratches: &Scratches) {
        (self.data, self.raw) = (0..0, 0..0);
        if self.was_filled && self.spare.is_empty() {
            self.enlarge(scratches);
        }
    }

    /// Takes the framing off what was read. All data must have been passed on before.
    pub(super) fn decode(&mut self) -> Result<(), Malformed> {
        self.data = self.raw.start..self.raw.start;
        match &mut self.body {
            Body::Ended => {}
            Body::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.raw.len());
                self.data.end += here;
                self.raw.start += here;
                *left -= here as u64;
                if *left == 0 {
                    self.body = Body::Ended;
                }
            }
            Body::UntilClose => {
                self.data.end = self.raw.end;
                self.raw.start = self.raw.end;
            }
            Body::Chunked(chunked) => {
                while !self.raw.is_empty() && !chunked.has_ended() {
                    let step = chunked.step(&self.bytes[self.raw.clone()])?;
                    let data = self.raw.start + step.framing;
                    self.raw.start = data + step.data;
                    if data != self.data.end {
                        self.bytes.copy_within(data..self.raw.start, self.data.end);
                    }
                    self.data.end += step.data;
                }
                if chunked.has_ended() {
                    check_trailers(chunked.trailers())?;
                }
            }
        }
        Ok(())
    }

    /// Reads once; 0 is the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut TcpStream,
    ) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(&mut self.bytes[self.raw.end..]);
        let room = space.remaining();
        ready!(Pin::new(stream).poll_read(context, &mut space))?;
        let count = space.filled().len();
        self.raw.end += count;
        self.was_filled = count == room;
        Poll::Ready(Ok(count))
    }

    /// Reads the next part of the body, once everything before it was passed on; gives how many
    /// bytes came. Without an error there is data, or the body has ended, or more has to come.
    pub(super) fn poll_more(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut TcpStream,
        scratches: &Scratches,
    ) -> Poll<Result<usize, Malformed>> {
        self.start_over(scratches);
        let count = ready!(self.poll_fill(context, stream)).map_err(|_| Malformed)?;
        match (count, &self.body) {
            (0, Body::UntilClose) => self.body = Body::Ended,
            (0, Body::Length(_) | Body::Chunked(_) | Body::Ended) => {
                return Poll::Ready(Err(Malformed));
            }
            (_, _) => self.decode()?,
        }
        Poll::Ready(Ok(count))
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn replace_data(&mut self, data: &[u8]) {
        self.bytes = data.to_vec();
        (self.data, self.raw) = (0..data.len(), data.len()..data.len());
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.bytes.len() < self.raw.end + bytes.len() {
            self.bytes.resize(self.raw.end + bytes.len(), 0);
        }
        self.bytes[self.raw.end..self.raw.end + bytes.len()].copy_from_slice(bytes);
        self.raw.end += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(head: &[u8], body: Body) -> Inbound {
        let mut inbound = Inbound::new();
        inbound.feed(head);
        inbound.begin(head.len(), body);
        inbound
    }

    #[test]
    fn chunks_leave_in_one_piece_and_what_follows_stays() {
        let mut inbound = begin(b"head", Body::Chunked(Chunked::new()));
        inbound.feed(b"3\r\nabc\r\n4;x=y\r\ndefg\r\n2\r\nh");
        inbound.decode().unwrap();
        assert_eq!((inbound.data(), inbound.raw()), (&b"abcdefgh"[..], &b""[..]));
        inbound.passed(8);
        inbound.feed(b"i\r\n0\r\nsum: 1\r\n\r\nGET");
        inbound.decode().unwrap();
        assert_eq!((inbound.data(), inbound.raw()), (&b"i"[..], &b"GET"[..]));
        assert_eq!((inbound.has_ended(), inbound.trailers()), (true, &b"sum: 1\r\n\r\n"[..]));
    }

    #[test]
    fn a_length_takes_its_bytes_and_no_more() {
        let mut inbound = begin(b"head", Body::length(5));
        inbound.feed(b"abc");
        inbound.decode().unwrap();
        assert_eq!((inbound.data(), inbound.has_ended()), (&b"abc"[..], false));
        inbound.passed(3);
        inbound.feed(b"deGET");
        inbound.decode().unwrap();
        assert_eq!((inbound.data(), inbound.raw()), (&b"de"[..], &b"GET"[..]));
        assert!(inbound.has_ended());
    }

    #[test]
    fn a_head_may_outgrow_its_buffer_which_is_given_back() {
        let (scratches, mut inbound) = (Scratches::default(), begin(&[0; 5], Body::Ended));
        inbound.feed(&vec![1; SMALL - 5]);
        assert!(!inbound.has_room());
        inbound.make_room(&scratches);
        assert_eq!((inbound.raw().len(), inbound.has_room()), (SMALL - 5, true), "moved first");
        inbound.feed(&[2; 5]);
        inbound.make_room(&scratches);
        assert_eq!((inbound.raw().len(), inbound.has_room()), (SMALL, true), "then larger");
        assert_eq!(inbound.raw()[SMALL - 5..], [2; 5]);
        inbound.reset(&scratches);
        assert_eq!(inbound.bytes.len(), SMALL);
    }
}
