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
    /// The sequence of the newest journaled event that was passed on.
    newest: u64,
    /// How many events of that sequence were passed on: one journal record may tell several.
    told: usize,
    /// How many events of that sequence the present connection will repeat.
    repeated: usize,
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
            newest: 0,
            told: 0,
            repeated: 0,
            stream: None,
            pending: None,
            ended: false,
            away: None,
            reconnect_for: RECONNECT_FOR_MAX,
        }
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
            // The newest record once more: the break may have come between two of its events.
            let after = self.newest.saturating_sub(1);
            self.stream = Some(self.client.events(&self.rollout, after).await?);
            self.repeated = self.told;
            return Ok(None);
        };
        let Some(event) = stream.next().await? else { return self.end_of_stream().await };
        if self.is_repeated(&event) {
            return Ok(None);
        }
        if self.away.take().is_some() {
            self.pending = Some(event);
            return Ok(Some(Progress::Back));
        }
        Ok(Some(self.pass_on(event)))
    }

    fn pass_on(&mut self, event: RolloutEvent) -> Progress {
        if event.sequence > self.newest {
            self.newest = event.sequence;
            (self.told, self.repeated) = (0, 0);
        }
        if event.sequence == self.newest && event.sequence != 0 {
            self.told += 1;
        }
        self.ended = event.kind == ENDED;
        Progress::Event(Box::new(event))
    }

    /// Whether an event was passed on before the last break. Progress that is not journaled
    /// carries sequence 0 and is always new.
    fn is_repeated(&mut self, event: &RolloutEvent) -> bool {
        if event.sequence == 0 || event.sequence > self.newest {
            return false;
        }
        let is_repeated = event.sequence < self.newest || self.repeated > 0;
        if event.sequence == self.newest {
            self.repeated = self.repeated.saturating_sub(1);
        }
        is_repeated
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
