//! The events of one rollout as they happen: what the journal has first, then what comes.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http_body_util::channel::{Channel, Sender};
use serde::Deserialize;
use switchback_api::RolloutEvent;
use switchback_engine::RolloutId;
use switchback_ports::journal::Sequence;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Refusal, ending, rollout_id};
use crate::book::Line;
use crate::hands::Handle;

/// An empty line at least this often, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Lines written before the client has read them.
const AHEAD: usize = 64;

#[derive(Deserialize)]
pub(super) struct From {
    after: Option<u64>,
}

pub(super) async fn events(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    Query(from): Query<From>,
) -> Result<Response, Refusal> {
    let id = rollout_id(&id)?;
    let after = Sequence(from.after.unwrap_or(0));
    // Follow first, read second: nothing falls between the two.
    let ask =
        move |driver: &mut crate::driver::Driver| (driver.book.follow(), driver.lines(id, after));
    let (following, past) = handle.ask(ask).await.ok_or_else(ending)?;
    let (past, ended) = past?;
    let (sender, body) = Channel::<Bytes, std::io::Error>::new(AHEAD);
    let mut stream = Stream { sender, id, after, handle };
    tokio::spawn(async move {
        if stream.send_all(past).await && !ended {
            stream.follow(following).await;
        }
    });
    let response = Response::builder().header("content-type", "application/x-ndjson");
    response.body(Body::new(body)).map_err(|_| ending())
}

struct Stream {
    sender: Sender<Bytes, std::io::Error>,
    id: RolloutId,
    after: Sequence,
    handle: Handle,
}

impl Stream {
    async fn send_all(&mut self, lines: Vec<RolloutEvent>) -> bool {
        for line in lines {
            if !self.send(&line).await {
                return false;
            }
        }
        true
    }

    /// Sends a line; `false` when nobody reads any more.
    async fn send(&mut self, event: &RolloutEvent) -> bool {
        self.after = self.after.max(Sequence(event.sequence));
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        self.sender.send_data(Bytes::from(line)).await.is_ok()
    }

    async fn follow(mut self, mut lines: broadcast::Receiver<Line>) {
        // Lines of one record share its sequence: those of the last record read are not repeated.
        let read_up_to = self.after;
        loop {
            let going_on = match tokio::time::timeout(KEEP_ALIVE, lines.recv()).await {
                Err(_) => self.sender.send_data(Bytes::from_static(b"\n")).await.is_ok(),
                Ok(Ok(line)) if line.rollout != self.id => true,
                Ok(Ok(line)) if line.event.sequence != 0 && line.event.sequence <= read_up_to.0 => {
                    true
                }
                Ok(Ok(line)) => {
                    let sent = self.send(&line.event).await;
                    sent && line.event.kind != "ended"
                }
                Ok(Err(RecvError::Lagged(_))) => self.catch_up().await,
                Ok(Err(RecvError::Closed)) => false,
            };
            if !going_on {
                return;
            }
        }
    }

    /// Reads from the journal what was missed; `false` when that was all.
    async fn catch_up(&mut self) -> bool {
        let (id, after) = (self.id, self.after);
        match self.handle.ask(move |driver| driver.lines(id, after)).await {
            Some(Ok((lines, ended))) => self.send_all(lines).await && !ended,
            Some(Err(_)) | None => false,
        }
    }
}
