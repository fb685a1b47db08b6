//! The journal: a snapshot, and the events after it. Both go through JSON, as on a disk.

use switchback_domain::Timestamp;
use switchback_engine::{Event, Service, step};

/// Events between two snapshots.
const SNAPSHOT_EVERY: usize = 25;

/// What survives a crash.
pub(crate) struct Journal {
    snapshot: Vec<u8>,
    events: Vec<(Event, Timestamp)>,
}

impl Journal {
    pub(crate) fn new(service: &Service) -> Self {
        Self { snapshot: serde_json::to_vec(service).unwrap_or_default(), events: Vec::new() }
    }

    pub(crate) fn append(&mut self, event: &Event, now: Timestamp, after: &Service) {
        self.events.push((event.clone(), now));
        if self.events.len() >= SNAPSHOT_EVERY {
            *self = Self::new(after);
        }
    }

    /// The state after the last event, or why it cannot be had.
    pub(crate) fn replay(&self) -> Result<Service, String> {
        let mut service: Service =
            serde_json::from_slice(&self.snapshot).map_err(|error| error.to_string())?;
        let written = serde_json::to_vec(&self.events).map_err(|error| error.to_string())?;
        let events: Vec<(Event, Timestamp)> =
            serde_json::from_slice(&written).map_err(|error| error.to_string())?;
        for (event, now) in &events {
            let next = step(&service, event, *now).map_err(|refusal| refusal.to_string())?;
            service = next.service;
        }
        Ok(service)
    }
}
