//! How a client's upload goes, and who is to blame when an answer is late: the instance, or a
//! client that does not send the rest of its request. The clock is the caller's.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::exchange::Late;
use crate::limits::{RECEIVE_BYTES_PER_SECOND_MIN, RECEIVE_GRACE, UPLOAD_PAUSE_MAX};

/// Shared between the body and whoever waits for the response.
#[derive(Debug)]
pub(crate) struct Upload {
    moved: Cell<Instant>,
    /// Since when nothing comes, although the instance would take it.
    waits_since: Cell<Option<Instant>>,
    waited: Cell<Duration>,
    received: Cell<u64>,
    /// Without its framing.
    body: Cell<u64>,
    counted: Cell<u64>,
    failed: Cell<bool>,
    touched: Cell<bool>,
    pause_max: Cell<Duration>,
}

/// What a late response is to be blamed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Nobody yet: wait until then.
    Until(Instant),
    /// Somebody.
    Over(Late),
}

impl Upload {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            moved: Cell::new(Instant::now()),
            waits_since: Cell::new(None),
            waited: Cell::default(),
            received: Cell::default(),
            body: Cell::default(),
            counted: Cell::default(),
            failed: Cell::default(),
            touched: Cell::default(),
            pause_max: Cell::new(UPLOAD_PAUSE_MAX),
        })
    }

    /// How long the client may pause.
    pub(crate) fn set_pause_max(&self, pause_max: Duration) {
        self.pause_max.set(pause_max);
    }

    /// Whether the rest of it is waited for.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waits_since.get().is_some()
    }

    /// Some of it came.
    pub(crate) fn came(&self, bytes: usize, now: Instant) {
        self.moved.set(now);
        self.received.set(self.received.get().saturating_add(bytes as u64));
        self.wait_ends(now);
    }

    /// So much more of the body itself is here.
    pub(crate) fn carried(&self, bytes: usize) {
        self.body.set(self.body.get().saturating_add(bytes as u64));
    }

    /// How much of the body itself has come.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body.get()
    }

    /// What came of it since this was asked last.
    pub(crate) fn take_uncounted(&self) -> u64 {
        self.body.get() - self.counted.replace(self.body.get())
    }

    /// The instance would take more, but nothing is there.
    pub(crate) fn waits(&self, now: Instant) {
        if self.waits_since.get().is_none() {
            self.waits_since.set(Some(now));
        }
    }

    /// The instance does not take what is there.
    pub(crate) fn held_up(&self, now: Instant) {
        if self.waits_since.get().is_some() {
            self.wait_ends(now);
        }
    }

    fn wait_ends(&self, now: Instant) {
        if let Some(since) = self.waits_since.take() {
            self.waited.set(self.waited.get() + (now - since));
        }
    }

    /// The client broke off.
    pub(crate) fn fail(&self) {
        self.failed.set(true);
    }

    /// Whether the client broke off its upload.
    pub(crate) fn failed(&self) -> bool {
        self.failed.get()
    }

    /// Any of it is asked for.
    pub(crate) fn touch(&self) {
        self.touched.set(true);
    }

    /// Whether any of the body was asked for: then it cannot be sent again.
    pub(crate) fn touched(&self) -> bool {
        self.touched.get()
    }

    /// Who is to blame at `now` for an instance that may take `timeout` to its response head.
    pub(crate) fn patience(&self, now: Instant, timeout: Duration) -> Patience {
        let (until, late) = match self.waits_since.get() {
            Some(since) => (since + self.pause_left(), Late::Client),
            None => (self.moved.get() + timeout, Late::Instance),
        };
        if now < until { Patience::Until(until) } else { Patience::Over(late) }
    }

    /// How long the present pause may last: not too long at once, and not so long that the whole
    /// upload falls below the least rate.
    fn pause_left(&self) -> Duration {
        let millis = self.received.get().saturating_mul(1_000) / RECEIVE_BYTES_PER_SECOND_MIN;
        let allowed = Duration::from_millis(millis);
        let left = allowed.max(RECEIVE_GRACE).saturating_sub(self.waited.get());
        left.min(self.pause_max.get())
    }
}

/// Who is to blame now for an answer that is late; without an upload it is the instance.
pub(crate) fn patience_with(upload: Option<&Upload>, timeout: Duration) -> Patience {
    match upload {
        Some(upload) => upload.patience(Instant::now(), timeout),
        None => Patience::Over(Late::Instance),
    }
}

/// Waits for a response head, but not longer than is fair to the instance.
pub(crate) async fn within<T>(
    sending: impl Future<Output = T>,
    upload: Option<&Upload>,
    timeout: Duration,
) -> Result<T, Late> {
    let mut sending = pin!(sending);
    let mut deadline = Instant::now() + timeout;
    loop {
        if let Ok(sent) = tokio::time::timeout_at(deadline, sending.as_mut()).await {
            return Ok(sent);
        }
        match patience_with(upload, timeout) {
            Patience::Until(later) => deadline = later,
            Patience::Over(late) => return Err(late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn an_upload_below_the_least_rate_is_given_up_after_the_grace() {
        let (upload, start) = (Upload::new(), Instant::now());
        let mut now = start;
        // 400 bytes each second, all of which is waiting.
        let given_up = loop {
            upload.waits(now);
            now += Duration::from_secs(1);
            if upload.patience(now, TIMEOUT) == Patience::Over(Late::Client) {
                break now;
            }
            upload.came(400, now);
        };
        assert_eq!(given_up - start, RECEIVE_GRACE);
        let (upload, mut now) = (Upload::new(), start);
        for _ in 0..3_600 {
            upload.waits(now);
            now += Duration::from_secs(1);
            assert!(matches!(upload.patience(now, TIMEOUT), Patience::Until(_)));
            upload.came(600, now);
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_time_the_instance_takes_is_not_the_clients() {
        let (upload, mut now) = (Upload::new(), Instant::now());
        upload.came(1_000_000, now);
        upload.held_up(now);
        now += TIMEOUT;
        assert_eq!(upload.patience(now, TIMEOUT), Patience::Over(Late::Instance));
        upload.came(1, now);
        upload.waits(now);
        now += UPLOAD_PAUSE_MAX;
        assert_eq!(upload.patience(now, TIMEOUT), Patience::Over(Late::Client));
    }
}
