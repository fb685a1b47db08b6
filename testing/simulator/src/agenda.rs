//! What will happen, in order of time; ties in the order they were entered.

use std::collections::BTreeMap;

use switchback_control::{MetricId, Shifts};
use switchback_domain::metric::Answer;
use switchback_domain::{Generation, InstanceId, ServiceKey, Timestamp};
use switchback_engine::RolloutId;
use switchback_ports::data_plane;
use switchback_ports::runtime::{Instance, InstanceSpec, Usage};
use switchback_routing::Table;

use crate::nature::Condition;

/// Something that will happen. What was meant for a life of the control plane that is over is
/// lost; what was meant for one that stands still waits for it.
#[derive(Debug)]
pub(crate) enum Happening {
    /// An instance changes by itself, unless it changed otherwise before.
    Change { id: InstanceId, stamp: u64, to: Condition },
    /// A stop is carried out in full.
    Gone { life: u64, id: InstanceId, stamp: u64 },
    /// An order to start reaches the runtime.
    Start { life: u64, spec: Box<InstanceSpec>, generation: Generation },
    /// An order to stop reaches the runtime.
    Stop { life: u64, id: InstanceId, generation: Generation },
    /// A table reaches the data plane; `answers` if somebody waits for that.
    Arrive { life: u64, table: Box<Table>, shifts: Shifts, answers: bool },
    /// The data plane can be reached again, is heard again, listens again.
    Mend,
    /// Something for a life of the control plane.
    Tell { life: u64, news: News },
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
    /// A control plane that stood still goes on.
    Thaw,
}

/// What a control plane comes to know.
#[derive(Debug)]
pub(crate) enum News {
    /// The instances as they are, or as they were when it was asked.
    Listed(Option<Vec<Instance>>),
    /// It is time for a probe; void if its number is not the newest.
    Probe(InstanceId, u64),
    Started(InstanceId, Result<(), String>),
    Stopped(InstanceId, bool),
    Published(Box<Table>, Shifts, Result<Generation, data_plane::Error>),
    HookDone(ServiceKey, RolloutId, usize, bool),
    /// What an instance uses.
    Used(ServiceKey, InstanceId, Usage),
    /// What a command of the judge's printed.
    Measured(ServiceKey, String, f64),
    /// What a metric's source said, and when by the wall clock it was asked.
    Answered(ServiceKey, MetricId, Timestamp, Vec<Answer>),
    /// Time to look at everything; void if its number is not the newest.
    Look(u64),
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
