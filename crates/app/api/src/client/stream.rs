//! A stream of events on one connection: one JSON document a line, empty lines keep it alive.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Error, transport};
use crate::RolloutEvent;

/// Longest line taken in.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Longest silence: the control plane sends an empty line every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Events as they come.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    buffer: Vec<u8>,
}

impl EventStream {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new() }
    }

    /// The next event; `None` when the control plane ended the stream. Safe to drop while
    /// waiting: no event is lost.
    pub async fn next(&mut self) -> Result<Option<RolloutEvent>, Error> {
        loop {
            while let Some(line) = self.take_line() {
                if !line.is_empty() {
                    return transport::decode(&line).map(Some);
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Error::NotUnderstood("a line without an end".to_owned()));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Takes a whole line out of the buffer, without its end.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(line.trim_ascii_end().len());
        Some(line)
    }

    /// Reads more; `false` at the end. Half a line before the end counts as broken off.
    async fn read(&mut self) -> Result<bool, Error> {
        let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
        let Ok(frame) = frame else { return Err(Error::Silent(SILENCE_MAX)) };
        let Some(frame) = frame else {
            if self.buffer.is_empty() {
                return Ok(false);
            }
            return Err(Error::Broken("the stream ended within a line".into()));
        };
        if let Ok(data) = frame.map_err(transport::broken)?.into_data() {
            self.buffer.extend_from_slice(&data);
        }
        Ok(true)
    }
}
