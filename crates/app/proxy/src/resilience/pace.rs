//! How long an answer may take to its end: pauses of the instance, and the whole request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use switchback_domain::resilience::Timeouts;
use tokio::time::{Instant, Sleep};

/// Whose turn it is to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Instance,
    Client,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    idle: Option<Duration>,
    deadline: Option<Instant>,
    /// Whom the sleep waits for.
    turn: Option<Turn>,
    sleep: Pin<Box<Sleep>>,
}

impl Pace {
    /// `None` when nothing is limited.
    pub(crate) fn new(timeouts: &Timeouts, started: Instant) -> Option<Box<Self>> {
        let idle = timeouts.response_idle;
        let deadline = timeouts.total.map(|total| started + total);
        idle.or(timeouts.total)?;
        let sleep = Box::pin(tokio::time::sleep_until(deadline.unwrap_or(started)));
        Some(Box::new(Self { idle, deadline, turn: None, sleep }))
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        self.turn = None;
    }

    /// Nothing moves: ready when that has been so for too long. A client that does not read is
    /// only held to the limit of the whole request.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, turn: Turn) -> Poll<()> {
        if self.turn != Some(turn) {
            self.turn = Some(turn);
            let idle = self.idle.filter(|_| turn == Turn::Instance);
            let idle = idle.map(|idle| Instant::now() + idle);
            let Some(until) = idle.into_iter().chain(self.deadline).min() else {
                return Poll::Pending;
            };
            self.sleep.as_mut().reset(until);
        } else if turn == Turn::Client && self.deadline.is_none() {
            return Poll::Pending;
        }
        self.sleep.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn waited(pace: &mut Pace, turn: Turn) -> Duration {
        let start = Instant::now();
        poll_fn(|context| pace.poll(context, turn)).await;
        start.elapsed()
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_pause_is_the_instances_and_the_whole_is_everybodys() {
        let seconds = Duration::from_secs;
        let timeouts = Timeouts {
            response_idle: Some(seconds(3)),
            total: Some(seconds(10)),
            ..Timeouts::default()
        };
        let mut pace = Pace::new(&timeouts, Instant::now()).unwrap();
        assert_eq!(waited(&mut pace, Turn::Instance).await, seconds(3));
        pace.moved();
        assert_eq!(waited(&mut pace, Turn::Client).await, seconds(7));
        let only_idle = Timeouts { total: None, ..timeouts };
        let mut pace = Pace::new(&only_idle, Instant::now()).unwrap();
        let client = tokio::time::timeout(seconds(999), waited(&mut pace, Turn::Client));
        assert!(client.await.is_err(), "a client may read as slowly as it likes");
        assert_eq!(waited(&mut pace, Turn::Instance).await, seconds(3));
        assert!(Pace::new(&Timeouts::default(), Instant::now()).is_none());
    }
}
