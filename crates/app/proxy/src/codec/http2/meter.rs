//! Counts a client's frames as they are read, and tells when it is a flood. Bodies and headers are
//! bounded elsewhere; here it is about frames that cost us more than the client.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::limits::{HTTP2_IDLE_FRAMES, HTTP2_RESETS};

const PREFACE_LENGTH: usize = 24;
const HEAD_LENGTH: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// So many at once, and so many more per second.
#[derive(Debug)]
struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    filled: Instant,
}

impl Budget {
    fn new((most, per_second): (u32, u32), now: Instant) -> Self {
        Self { left: most, most, per_second, filled: now }
    }

    /// Whether there was one left.
    fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(self.per_second);
            self.left = self.left.saturating_add(more).min(self.most);
            self.filled += Duration::from_secs(seconds);
        }
        let had = self.left > 0;
        self.left = self.left.saturating_sub(1);
        had
    }
}

/// Where in the stream of frames the input is.
#[derive(Debug)]
enum At {
    Head { bytes: [u8; HEAD_LENGTH], have: usize },
    Skip(usize),
}

/// What is read of frames.
#[derive(Debug)]
struct Counts {
    at: At,
    resets: Budget,
    idle: Budget,
    /// Since when the header of a request is being sent.
    header_since: Option<Instant>,
}

impl Counts {
    fn new(now: Instant) -> Self {
        let (resets, idle) = (Budget::new(HTTP2_RESETS, now), Budget::new(HTTP2_IDLE_FRAMES, now));
        Self { at: At::Skip(PREFACE_LENGTH), resets, idle, header_since: None }
    }

    /// Takes in what was read. `false` is a flood.
    fn take(&mut self, mut input: &[u8], now: Instant) -> bool {
        while !input.is_empty() {
            match &mut self.at {
                At::Skip(left) => {
                    let skipped = input.len().min(*left);
                    input = &input[skipped..];
                    *left -= skipped;
                    if *left == 0 {
                        self.at = At::Head { bytes: [0; HEAD_LENGTH], have: 0 };
                    }
                }
                At::Head { bytes, have } => {
                    let taken = input.len().min(HEAD_LENGTH - *have);
                    bytes[*have..*have + taken].copy_from_slice(&input[..taken]);
                    input = &input[taken..];
                    *have += taken;
                    if *have == HEAD_LENGTH {
                        let [a, b, c, kind, flags, ..] = *bytes;
                        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                        self.at = match length {
                            0 => At::Head { bytes: [0; HEAD_LENGTH], have: 0 },
                            length => At::Skip(length),
                        };
                        if !self.frame(kind, flags, length, now) {
                            return false;
                        }
                    }
                }
            }
        }
        true
    }

    fn frame(&mut self, kind: u8, flags: u8, length: usize, now: Instant) -> bool {
        match kind {
            HEADERS | CONTINUATION => {
                let ended = flags & END_HEADERS != 0;
                self.header_since = if ended { None } else { self.header_since.or(Some(now)) };
                true
            }
            RST_STREAM => self.resets.take(now),
            DATA if length > 0 || flags & END_STREAM != 0 => true,
            // Bounded by what is sent to the client.
            WINDOW_UPDATE => true,
            _ => self.idle.take(now),
        }
    }
}

/// What is known of a connection's input.
#[derive(Debug)]
pub(super) struct Meter {
    counts: RefCell<Counts>,
    heard: Cell<Instant>,
    is_flooded: Cell<bool>,
    flood: Notify,
}

impl Meter {
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            counts: RefCell::new(Counts::new(now)),
            heard: Cell::new(now),
            is_flooded: Cell::default(),
            flood: Notify::new(),
        })
    }

    /// Waits for a flood.
    pub(super) async fn flooded(&self) {
        self.flood.notified().await;
    }

    /// How long nothing came.
    pub(super) fn silent_for(&self) -> Duration {
        self.heard.get().elapsed()
    }

    /// How long the header of a request has been coming.
    pub(super) fn header_for(&self) -> Option<Duration> {
        self.counts.borrow().header_since.map(|since| since.elapsed())
    }

    fn read(&self, bytes: &[u8]) {
        let now = Instant::now();
        self.heard.set(now);
        if !self.counts.borrow_mut().take(bytes, now) {
            self.is_flooded.set(true);
            self.flood.notify_one();
        }
    }
}

/// A connection whose input is metered. After a flood nothing more is read.
#[derive(Debug)]
pub(super) struct Metered<I> {
    inner: I,
    meter: Rc<Meter>,
}

impl<I> Metered<I> {
    pub(super) fn new(inner: I, meter: Rc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Metered<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.meter.is_flooded.get() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Some(new @ [_, ..]) = buffer.filled().get(before..) {
            self.meter.read(new);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Metered<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let now = Instant::now();
        let mut bytes = vec![b'x'; PREFACE_LENGTH];
        bytes.extend(frame(HEADERS, 0, b"abc"));
        bytes.extend(frame(CONTINUATION, END_HEADERS, b""));
        bytes.extend(frame(RST_STREAM, 0, &[0; 4]));
        bytes.extend(frame(DATA, END_STREAM, b""));
        bytes.extend(frame(6, 0, &[0; 8]));
        for cut in 1..bytes.len() {
            let mut counts = Counts::new(now);
            for piece in bytes.chunks(cut) {
                assert!(counts.take(piece, now));
            }
            assert_eq!(counts.resets.left, HTTP2_RESETS.0 - 1, "cut at {cut}");
            assert_eq!(counts.idle.left, HTTP2_IDLE_FRAMES.0 - 1, "cut at {cut}");
            assert_eq!(counts.header_since, None);
        }
    }

    #[test]
    fn a_budget_is_spent_at_once_and_comes_back_slowly() {
        let now = Instant::now();
        let mut budget = Budget::new((3, 2), now);
        let taken = |budget: &mut Budget, now| (0..10).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, now), 3);
        assert_eq!(taken(&mut budget, now + Duration::from_millis(900)), 0);
        assert_eq!(taken(&mut budget, now + Duration::from_secs(1)), 2);
        assert_eq!(taken(&mut budget, now + Duration::from_mins(1)), 3);
    }

    #[test]
    fn a_header_that_does_not_end_is_timed_from_its_first_frame() {
        let (now, mut counts) = (Instant::now(), Counts::new(Instant::now()));
        counts.at = At::Head { bytes: [0; HEAD_LENGTH], have: 0 };
        assert!(counts.take(&frame(HEADERS, 0, b"abc"), now));
        assert!(counts.take(&frame(CONTINUATION, 0, b"abc"), now + Duration::from_secs(5)));
        assert_eq!(counts.header_since, Some(now));
    }
}
