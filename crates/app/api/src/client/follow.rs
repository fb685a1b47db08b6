//! A rollout's events to its end, over restarts of the control plane: each event once, in order.

use std::time::Duration;

use super::{Client, Error, EventStream};
use crate::RolloutEvent;

/// How long in sum the control plane may be away before following gives up: longer than any
/// restart of it takes.
pub const RECONNECT_FOR_MAX: Duration = Duration::from_mins(1);
/// The first pause before connecting again; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause before connecting again.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The kind of the last event of a rollout.
const ENDED: &str = "ended";

/// What following brings.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Something happened.
    Event(Box<RolloutEvent>),
    /// The connection broke; it is being taken up again. Said once per break.
    Lost,
    /// The connection is there again.
    Back,
    /// The rollout has ended; the last event said how.
    Ended,
}

/// Follows one rollout. Made by [`Client::follow`].
#[derive(Debug)]
pub struct Follow {
    client: Client,
    rollout: String,
    /// The last journaled event that was passed on.
    after: u64,
    stream: Option<EventStream>,
    /// An event that is told after [`Progress::Back`].
    pending: Option<RolloutEvent>,
    ended: bool,
    /// Time paused since the last event, and the next pause; `None` while connected.
    away: Option<Away>,
    /// How long it may be away.
    reconnect_for: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Away {
    paused: Duration,
    next: Duration,
}

impl Follow {
    pub(super) fn new(client: Client, rollout: String) -> Self {
        Self {
            client,
            rollout,
            after: 0,
            stream: None,
            pending: None,
            ended: false,
            away: None,
            reconnect_for: RECONNECT_FOR_MAX,
        }
    }

    /// Skips what happened up to a sequence number.
    #[must_use]
    pub fn after(self, sequence: u64) -> Self {
        Self { after: sequence, ..self }
    }

    /// Another limit than [`RECONNECT_FOR_MAX`].
    #[must_use]
    pub fn reconnect_for(self, time: Duration) -> Self {
        Self { reconnect_for: time, ..self }
    }

    /// What comes next. After [`Progress::Ended`] always that. Fails when the rollout is not
    /// known, or when the control plane stays away. Safe to drop while waiting.
    pub async fn next(&mut self) -> Result<Progress, Error> {
        while !self.ended {
            let broken = match self.step().await {
                Ok(Some(progress)) => return Ok(progress),
                Ok(None) => continue,
                Err(error) if !error.is_passing() => return Err(error),
                Err(error) => error,
            };
            self.stream = None;
            let Some(away) = self.away else {
                self.away = Some(Away { paused: Duration::ZERO, next: PAUSE_FIRST });
                return Ok(Progress::Lost);
            };
            if away.paused >= self.reconnect_for {
                return Err(broken);
            }
            tokio::time::sleep(away.next).await;
            let next = (away.next * 2).min(PAUSE_MAX);
            self.away = Some(Away { paused: away.paused + away.next, next });
        }
        Ok(Progress::Ended)
    }

    /// Connects, or takes the next event; `None` when there is nothing to tell.
    async fn step(&mut self) -> Result<Option<Progress>, Error> {
        if let Some(event) = self.pending.take() {
            return Ok(Some(self.pass_on(event)));
        }
        let Some(stream) = &mut self.stream else {
            self.stream = Some(self.client.events(&self.rollout, self.after).await?);
            return Ok(None);
        };
        let Some(event) = stream.next().await? else { return self.end_of_stream().await };
        // Progress that is not journaled carries sequence 0 and is always new.
        if event.sequence != 0 && event.sequence <= self.after {
            return Ok(None);
        }
        if self.away.take().is_some() {
            self.pending = Some(event);
            return Ok(Some(Progress::Back));
        }
        Ok(Some(self.pass_on(event)))
    }

    fn pass_on(&mut self, event: RolloutEvent) -> Progress {
        self.after = self.after.max(event.sequence);
        self.ended = event.kind == ENDED;
        Progress::Event(Box::new(event))
    }

    /// The end of the stream is the rollout's end only when the rollout says so itself: a control
    /// plane that stops in good order ends its streams too.
    async fn end_of_stream(&mut self) -> Result<Option<Progress>, Error> {
        self.stream = None;
        let detail = self.client.rollout(&self.rollout).await?;
        if detail.summary.outcome.is_none() {
            return Err(Error::Broken("the stream ended before the rollout did".into()));
        }
        self.ended = true;
        Ok(Some(Progress::Ended))
    }
}
