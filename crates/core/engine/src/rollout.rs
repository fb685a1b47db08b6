//! One attempt to bring a release of a service into an environment.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use switchback_domain::seeded::bug;
use switchback_domain::strategy::RolloutPolicy;
use switchback_domain::{InstanceReport, Release, ReleaseId, Timestamp, Verdict, Version};

use crate::event::Counts;
use crate::plan::PlanStep;

/// Numbers rollouts over all services and environments, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RolloutId(pub u64);

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("r{}", self.0))
    }
}

/// Why a rollout was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Somebody deploys a version.
    Deploy,
    /// Somebody goes back to an earlier revision: the short way, without the strategy's steps.
    Rollback,
}

/// What somebody asked for. Immutable: the plan of a running rollout does not change when the
/// configuration is edited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its number.
    pub id: RolloutId,
    /// Why.
    pub kind: RequestKind,
    /// What to bring in.
    pub release: Release,
    /// How.
    pub policy: RolloutPolicy,
    /// Start although no verified way back exists.
    pub accept_no_rollback: bool,
    /// Who asked.
    pub by: String,
    /// When.
    pub asked_at: Timestamp,
    /// The same, on the wall clock: for people only.
    pub wall_ms: u64,
}

/// Where a rollout is. Names ending in -ing always have something outstanding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Checking that there is a way back, before anything is touched.
    Verifying,
    /// Starting instances and waiting until they are ready.
    Provisioning,
    /// Checking the candidate before it gets traffic.
    Validating,
    /// Moving traffic; waiting until every worker of the data plane serves from the new table.
    Shifting,
    /// Watching the candidate under traffic.
    Observing,
    /// Waiting for somebody's `promote`.
    AwaitingApproval,
    /// Giving the candidate all traffic for good.
    Promoting,
    /// Promoted; the baseline stays a while, then ends its requests and stops.
    DrainingBaseline,
    /// Bringing the baseline back: capacity first, then traffic, then the candidate stops.
    RollingBack,
    /// There is no baseline: taking the candidate away.
    Withdrawing,
    /// Cannot go on without help; goes on by itself when the need is met.
    Stuck {
        /// What it needs.
        need: String,
    },
}

/// The kinds of reasons for taking a rollout back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// The judge found the candidate worse than allowed.
    Regressed,
    /// Instances did not become ready in time.
    NotReady,
    /// Instances ended again and again.
    CrashLoop,
    /// No ready instance was left while it had traffic.
    Died,
    /// A smoke test or hook failed.
    CheckFailed,
    /// Not enough data for a verdict in time.
    NoEvidence,
    /// Some other step made no progress in time.
    Deadline,
    /// No verified way back.
    NotVerified,
    /// Somebody stopped it.
    Aborted,
    /// A newer one took its place.
    Superseded,
}

/// Why a rollout was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Which kind.
    pub kind: CauseKind,
    /// In one sentence.
    pub text: String,
}

impl Cause {
    /// A cause in one sentence.
    pub fn new(kind: CauseKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// A pause somebody, or a failure, asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when; deadlines do not run meanwhile.
    pub since: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// A running rollout.
#[allow(clippy::struct_excessive_bools, reason = "four independent facts, each named")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// What was asked for.
    pub request: Arc<Request>,
    /// What serves until the promotion; `None` at the first deployment.
    pub baseline: Option<ReleaseId>,
    /// Its version, for people.
    pub baseline_version: Option<Version>,
    /// The steps, fixed at the start.
    pub plan: Arc<Vec<PlanStep>>,
    /// The step that runs: an index into `plan`.
    pub position: usize,
    /// Where it is.
    pub phase: Phase,
    /// When the step began.
    pub entered_at: Timestamp,
    /// When something last moved: deadlines count from here.
    pub progress_at: Timestamp,
    /// The most instances that were ready at once since the step began (of the candidate; of the
    /// baseline on the way back). Only more than that is progress: one that comes and goes is not.
    pub reached: u32,
    /// An operator's word for the step at `position` was given.
    pub approved: bool,
    /// The hook of the step at `position` passed, or the way back was verified.
    pub passed: bool,
    /// `promote --full` was said: the promotion needs no further word.
    pub full: bool,
    /// Set while nothing may go forward.
    pub paused: Option<Paused>,
    /// Why it is being taken back.
    pub cause: Option<Cause>,
    /// Whether the candidate has become the stable version.
    pub promoted: bool,
    /// The judge's last words.
    pub verdict: Option<Verdict>,
    /// What the candidate has answered so far.
    pub counts: Counts,
    /// The candidate's instances as they were when it was decided to take it back.
    #[serde(default)]
    pub last_seen: Vec<InstanceReport>,
}

impl Rollout {
    /// The release being brought in.
    pub fn candidate(&self) -> &ReleaseId {
        &self.request.release.id
    }

    /// The step that runs; `None` when the plan is done or abandoned.
    pub fn current(&self) -> Option<&PlanStep> {
        self.is_forward().then(|| self.plan.get(self.position)).flatten()
    }

    /// The phase in which it is taken back.
    pub(crate) fn way_back(&self) -> Phase {
        if self.baseline.is_some() { Phase::RollingBack } else { Phase::Withdrawing }
    }

    /// Whether nobody has to be asked before the promotion. A first version replaces nothing, and
    /// a rollback is somebody's word already.
    pub fn may_promote(&self) -> bool {
        let asks = !self.request.policy.auto_promote
            && self.baseline.is_some()
            && self.request.kind == RequestKind::Deploy;
        !asks || self.approved || self.full || bug("promotes-unasked")
    }

    /// Until when the end of the old instances is waited for. They are stopped in any case; the
    /// next rollout need not wait for one that does not go.
    pub(crate) fn drain_deadline(&self) -> Timestamp {
        let policy = &self.request.policy;
        let ending = policy.drain_timeout + self.request.release.workload.stop_timeout;
        self.entered_at + policy.scale_down_delay + ending + policy.progress_deadline
    }

    /// Whether it still goes forward, rather than back.
    pub fn is_forward(&self) -> bool {
        match self.phase {
            Phase::Verifying
            | Phase::Provisioning
            | Phase::Validating
            | Phase::Shifting
            | Phase::Observing
            | Phase::AwaitingApproval
            | Phase::Promoting
            | Phase::DrainingBaseline => true,
            Phase::RollingBack | Phase::Withdrawing | Phase::Stuck { .. } => false,
        }
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The candidate serves.
    Promoted,
    /// The baseline serves again.
    RolledBack,
    /// The candidate was taken away and nothing serves, or it never began.
    Withdrawn,
    /// A newer one took its place.
    Superseded,
}

/// What is kept of an ended rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedRollout {
    /// As it was at the end.
    pub rollout: Rollout,
    /// How it ended.
    pub ending: Ending,
    /// When.
    pub ended_at: Timestamp,
    /// The same, on the wall clock: asked for plus what passed since.
    pub ended_wall_ms: u64,
}
