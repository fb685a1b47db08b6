//! What the driver wants done beside it: everything that is slow or may fail.
//!
//! An order is decided by `settle` and carried out by `hands`; how it went comes back as a message.

use std::time::Duration;

use switchback_domain::metric::MetricSource;
use switchback_domain::{Generation, InstanceId, ServiceKey};
use switchback_engine::RolloutId;
use switchback_ports::runtime::{Instance, InstanceSpec};
use switchback_routing::Table;

use crate::metrics::MetricId;
use crate::traffic::Shifts;

/// Something to be done.
#[derive(Debug, Clone)]
pub enum Order {
    /// Have the data plane serve this table, which carries these decisions.
    Publish {
        /// What to serve.
        table: Table,
        /// The decisions in it.
        shifts: Shifts,
    },
    /// See to it that an instance runs.
    Start {
        /// What.
        spec: Box<InstanceSpec>,
        /// In the name of which life of the control plane.
        generation: Generation,
    },
    /// See to it that an instance is gone.
    Stop {
        /// Which.
        id: InstanceId,
        /// In the name of which life of the control plane.
        generation: Generation,
    },
    /// End an instance's process so that it is started again.
    Restart {
        /// Which.
        id: InstanceId,
        /// Why.
        reason: String,
    },
    /// Ask an instance again and again how it does, in place of an earlier process of its.
    Probe {
        /// Which.
        instance: Box<Instance>,
        /// Whether its startup probe has passed already.
        started_up: bool,
    },
    /// Ask it no more.
    EndProbing(InstanceId),
    /// Run a hook or smoke test.
    RunHook {
        /// For which service.
        key: ServiceKey,
        /// Of which rollout.
        rollout: RolloutId,
        /// Of which step.
        position: usize,
        /// Beside which instance; `None` when the candidate has none that is ready: it fails.
        on: Option<InstanceId>,
        /// The command.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Read what an instance uses.
    Measure {
        /// Of which service.
        key: ServiceKey,
        /// Which.
        id: InstanceId,
    },
    /// Run a command that prints a number for the judge.
    ReadMetric {
        /// For which service.
        key: ServiceKey,
        /// The metric's name.
        name: String,
        /// Beside which instance.
        on: InstanceId,
        /// The command.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Ask a metric's source.
    AskMetric {
        /// For which service.
        key: ServiceKey,
        /// Which metric.
        id: MetricId,
        /// Whom.
        source: MetricSource,
        /// What: of the candidate, then of the baseline.
        queries: Vec<String>,
        /// How long each may take.
        timeout: Duration,
    },
    /// Stop the data plane and every instance.
    TakeDown {
        /// Instances, should the runtime not be able to name them.
        known: Vec<Instance>,
        /// In the name of which life of the control plane.
        generation: Generation,
    },
}
