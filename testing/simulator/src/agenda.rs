//! What will happen, in order of time; ties in the order they were entered.

use std::collections::BTreeMap;

use switchback_domain::{Epoch, InstanceHealth, ReleaseId, Timestamp};
use switchback_engine::EventKind;

use crate::plane::Table;

/// Something that will happen. What was meant for an earlier life of the control plane is lost.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// An instance changes by itself, unless it changed otherwise before.
    Change { release: ReleaseId, ordinal: u32, life: u64, to: InstanceHealth },
    /// A stopping instance is gone.
    Gone { release: ReleaseId, ordinal: u32, life: u64 },
    /// The control plane looks at the instances of a release.
    Observe { epoch: Epoch, release: ReleaseId },
    /// A table reaches the data plane.
    Arrive { epoch: Epoch, table: Table },
    /// The data plane's answer reaches the control plane.
    Acknowledge { epoch: Epoch, table: Table },
    /// The control plane looks whether its table has arrived.
    Republish { epoch: Epoch },
    /// A result reaches the control plane.
    Answer { epoch: Epoch, kind: EventKind },
    /// The judge looks, again and again.
    Judge { epoch: Epoch },
    /// The engine's alarm clock.
    Wake { epoch: Epoch },
    /// The control plane looks at everything.
    Poll { epoch: Epoch },
    /// A dead control plane is started again.
    Restart,
    /// Somebody asks for a rollout.
    Request,
    /// Somebody may interfere.
    Interfere,
    /// Nothing goes wrong any more.
    Repair,
    /// An operator looks after what waits for one.
    Help,
}

/// Happenings in order.
#[derive(Default)]
pub(crate) struct Agenda {
    entries: BTreeMap<(Timestamp, u64), Happening>,
    entered: u64,
}

impl Agenda {
    pub(crate) fn enter(&mut self, at: Timestamp, happening: Happening) {
        self.entered += 1;
        self.entries.insert((at, self.entered), happening);
    }

    pub(crate) fn pop(&mut self) -> Option<(Timestamp, Happening)> {
        self.entries.pop_first().map(|((at, _), happening)| (at, happening))
    }
}
