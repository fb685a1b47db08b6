//! What the machine is told, and what it answers.

use serde::{Deserialize, Serialize};
use switchback_domain::{InstanceReport, ReleaseId, Verdict};

use crate::effect::Effect;
use crate::rollout::{Request, RolloutId};
use crate::service::{Operation, Service};

/// Requests of the candidate that ended, by the data plane's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// All.
    pub requests: u64,
    /// Failed ones among them.
    pub failed: u64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// What the active rollout's candidate had answered by then, if known.
    pub counts: Option<Counts>,
}

impl From<EventKind> for Event {
    fn from(kind: EventKind) -> Self {
        Self { kind, counts: None }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Somebody asks for a rollout.
    Requested(Box<Request>),
    /// Somebody steers the active rollout.
    Commanded(Command),
    /// The instances of a release, all of them, as they are now.
    PoolObserved {
        /// Of which release.
        release: ReleaseId,
        /// All of them; empty when none is left.
        instances: Vec<InstanceReport>,
    },
    /// Every worker of the data plane serves from this decision or a newer one.
    TrafficAcknowledged {
        /// [`crate::Traffic::shift`] of the decision.
        shift: u64,
    },
    /// The way back was looked at.
    WayBackChecked {
        /// For which rollout.
        rollout: RolloutId,
        /// What stands in the way; empty when it is clear.
        obstacles: Vec<String>,
    },
    /// A smoke test or hook ended.
    HookFinished {
        /// Of which rollout.
        rollout: RolloutId,
        /// Of which step.
        position: usize,
        /// Whether it passed.
        passed: bool,
        /// What was seen, for people.
        detail: String,
    },
    /// The judge spoke.
    Judged {
        /// About which rollout.
        rollout: RolloutId,
        /// During which step.
        position: usize,
        /// What.
        verdict: Box<Verdict>,
    },
    /// Somebody has the route do something else: maintenance, isolation, ... or serve again.
    Operated(Box<Operation>),
    /// Time passed: a deadline or delay may be over.
    Ticked,
}

impl EventKind {
    /// Its name, as records bear it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Requested(_) => "requested",
            Self::Commanded(_) => "commanded",
            Self::PoolObserved { .. } => "pool_observed",
            Self::TrafficAcknowledged { .. } => "traffic_acknowledged",
            Self::WayBackChecked { .. } => "way_back_checked",
            Self::HookFinished { .. } => "hook_finished",
            Self::Judged { .. } => "judged",
            Self::Operated(_) => "operated",
            Self::Ticked => "ticked",
        }
    }
}

/// What operators may ask of a running rollout, or of one that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Give the word that the present step waits for; with `full`, skip all remaining steps.
    Promote {
        /// Skip them.
        full: bool,
        /// Who.
        by: String,
    },
    /// Hold where it is.
    Pause {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Go on.
    Resume {
        /// Who.
        by: String,
    },
    /// Take it back.
    Abort {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Take one that waits out of the queue; the running one goes on.
    Cancel {
        /// Which.
        rollout: RolloutId,
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
}

/// What kind of line a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// The phase changed.
    Phase,
    /// A step began.
    Step,
    /// Traffic moved.
    Weight,
    /// An instance changed.
    Probe,
    /// The judge spoke.
    Verdict,
    /// Somebody said something.
    Command,
    /// Anything else worth knowing.
    Note,
    /// The rollout ended.
    Ended,
}

/// A line for people, kept in the journal beside the event it follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// About which rollout.
    pub rollout: Option<RolloutId>,
    /// What kind.
    pub kind: NoteKind,
    /// In words.
    pub text: String,
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The new state.
    pub service: Service,
    /// What is newly outstanding: `outstanding(new)` without `outstanding(old)`.
    pub effects: Vec<Effect>,
    /// Lines for people.
    pub notes: Vec<Note>,
}

/// Why a request or command was refused; the state did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another rollout runs and the policy says no.
    #[error("rollout {running} is running")]
    Busy {
        /// Which.
        running: RolloutId,
    },
    /// Too many wait already.
    #[error("{0} rollouts wait already")]
    QueueFull(usize),
    /// The very same release serves already.
    #[error("this release is serving already")]
    Unchanged,
    /// Nothing runs that could be steered.
    #[error("no rollout is active")]
    NoRollout,
    /// Not possible where the rollout is.
    #[error("rollout {rollout} cannot be {verb} now: {why}")]
    NotNow {
        /// Which.
        rollout: RolloutId,
        /// `paused`, `promoted`, ...
        verb: &'static str,
        /// Why.
        why: String,
    },
}
