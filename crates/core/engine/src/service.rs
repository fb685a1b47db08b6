//! The state of one service in one environment: what the journal rebuilds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use switchback_domain::route::{Destination, RouteMode};
use switchback_domain::seeded::bug;
use switchback_domain::strategy::RolloutPolicy;
use switchback_domain::{
    InstanceHealth, InstanceReport, Release, ReleaseId, ServiceKey, Split, Timestamp, Weight,
};

use crate::rollout::{EndedRollout, Request, Rollout};

/// Ended rollouts kept in the state, for `history`; older ones are in the journal alone.
pub const ENDED_MAX: usize = 50;
/// Operations kept in the state; older ones are in the journal alone.
pub const OPERATIONS_MAX: usize = 20;
/// Rollouts that may wait: more is a loop somewhere, not a plan.
pub const QUEUE_MAX: usize = 10;

/// One service in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Which.
    pub key: ServiceKey,
    /// Promoted releases, oldest first; the last one is the stable version.
    pub revisions: Vec<Arc<Revision>>,
    /// Every release that a revision, pool, rollout or waiting request refers to.
    pub releases: BTreeMap<ReleaseId, Release>,
    /// Instances wanted and seen, per release.
    pub pools: BTreeMap<ReleaseId, Pool>,
    /// Who serves which share.
    pub traffic: Traffic,
    /// The active rollout: at most one (invariant 2).
    pub rollout: Option<Rollout>,
    /// Requests that wait for it, oldest first.
    pub queue: Vec<Request>,
    /// Rollouts that ended, oldest first, at most [`ENDED_MAX`].
    pub ended: Vec<Arc<EndedRollout>>,
    /// What operators had its route do, oldest first, at most [`OPERATIONS_MAX`]; the last one is
    /// in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
}

/// An operator's word about a service's route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What it does from then on. Pages of earlier ones are not kept.
    pub mode: RouteMode,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When, on the wall clock: for people only.
    pub wall_ms: u64,
}

/// A promoted release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Counts promotions from 1.
    pub number: u64,
    /// What was promoted.
    pub release: ReleaseId,
    /// How it was brought in; its `replicas` is what stays running.
    pub policy: RolloutPolicy,
    /// When.
    pub promoted_at: Timestamp,
    /// The same, on the wall clock: for people only.
    pub wall_ms: u64,
}

/// The instances of one release.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pool {
    /// How many there should be: ordinals 0 up to this.
    pub desired: u32,
    /// What was seen last.
    pub instances: Vec<InstanceReport>,
}

impl Pool {
    /// How many are ready.
    pub fn ready(&self) -> u32 {
        self.count(InstanceHealth::Ready)
    }

    /// How many are in this state.
    pub fn count(&self, health: InstanceHealth) -> u32 {
        let matching = self.instances.iter().filter(|instance| instance.health == health);
        u32::try_from(matching.count()).unwrap_or(u32::MAX)
    }

    /// How many there are above what is wanted, stopping ones included.
    pub(crate) fn surplus(&self) -> u32 {
        self.present().saturating_sub(self.desired)
    }

    /// How many are there at all, stopping ones included.
    pub fn present(&self) -> u32 {
        u32::try_from(self.instances.len()).unwrap_or(u32::MAX)
    }
}

/// Who serves which share, as decided and as acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// As decided.
    pub split: Split<ReleaseId>,
    /// Counts decisions.
    pub shift: u64,
    /// The newest decision that every worker of the data plane serves from.
    pub acknowledged: u64,
}

impl Traffic {
    /// Whether the data plane serves what was decided.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.shift
    }
}

impl Service {
    /// A service that was never deployed.
    pub fn new(key: ServiceKey) -> Self {
        Self {
            key,
            revisions: Vec::new(),
            releases: BTreeMap::new(),
            pools: BTreeMap::new(),
            traffic: Traffic { split: Split::none(), shift: 0, acknowledged: 0 },
            rollout: None,
            queue: Vec::new(),
            ended: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// What operators have the route do now.
    pub fn mode(&self) -> RouteMode {
        self.operations.last().map(|operation| operation.mode.clone()).unwrap_or_default()
    }

    /// Whether operators have this release get all requests.
    pub(crate) fn is_diverted_to(&self, release: &ReleaseId) -> bool {
        let last = self.operations.last().map(|operation| &operation.mode);
        matches!(last, Some(RouteMode::Divert { to: Destination::Version(to) }) if to == release)
    }

    /// The promoted release.
    pub fn stable(&self) -> Option<&Revision> {
        self.revisions.last().map(|revision| &**revision)
    }

    /// The pool of a release; an empty one if there is none.
    pub fn pool(&self, release: &ReleaseId) -> Pool {
        self.pools.get(release).cloned().unwrap_or_default()
    }

    /// The share of a release.
    pub fn weight_of(&self, release: &ReleaseId) -> Weight {
        self.traffic.split.weight_of(release)
    }

    /// What `rollback` goes to: the revision of that number, or the newest one with another
    /// release than the stable one.
    pub fn revision_to_restore(&self, number: Option<u64>) -> Option<&Revision> {
        let stable = &self.stable()?.release;
        let mut revisions = self.revisions.iter().map(|revision| &**revision);
        match number {
            Some(number) => revisions.find(|revision| revision.number == number),
            None => revisions.rev().find(|revision| revision.release != *stable),
        }
    }

    /// Whether a release is still referred to.
    fn is_needed(&self, release: &ReleaseId) -> bool {
        let in_rollout = self.rollout.as_ref().is_some_and(|rollout| {
            rollout.candidate() == release || rollout.baseline.as_ref() == Some(release)
        });
        in_rollout
            || self.pools.contains_key(release)
            || (self.revisions.iter().any(|revision| revision.release == *release)
                && !bug("release-dropped"))
            || self.queue.iter().any(|request| request.release.id == *release)
    }

    /// Stops what neither serves nor takes part in the rollout: a predecessor whose end was being
    /// awaited when the next rollout began, say.
    pub(crate) fn retire_unneeded(&mut self) {
        let stable = self.stable().map(|stable| stable.release.clone());
        let rollout = self.rollout.as_ref();
        let part = |release: &ReleaseId| {
            rollout.is_some_and(|active| {
                active.candidate() == release || active.baseline.as_ref() == Some(release)
            })
        };
        let idle: Vec<_> = self
            .pools
            .keys()
            .filter(|release| stable.as_ref() != Some(release) && !part(release))
            .filter(|release| self.weight_of(release) == Weight::ZERO)
            .filter(|release| !self.is_diverted_to(release))
            .cloned()
            .collect();
        for release in idle.into_iter().filter(|_| !bug("retired-kept")) {
            if let Some(pool) = self.pools.get_mut(&release) {
                pool.desired = 0;
            }
        }
    }

    /// Forgets what nothing refers to: empty pools without a purpose, revisions beyond the limit
    /// (never the stable one, nor the one before it, which is another release), their releases.
    pub(crate) fn forget_unneeded(&mut self) {
        let least = if bug("last-good-dropped") { 1 } else { 2 };
        let limit =
            self.stable().map_or(1, |stable| stable.policy.revision_history_limit.max(least));
        let surplus = self.revisions.len().saturating_sub(limit as usize);
        self.revisions.drain(..surplus);
        self.pools.retain(|_, pool| pool.desired > 0 || !pool.instances.is_empty());
        let unneeded: Vec<_> =
            self.releases.keys().filter(|release| !self.is_needed(release)).cloned().collect();
        for release in unneeded {
            self.releases.remove(&release);
        }
        let surplus = self.ended.len().saturating_sub(ENDED_MAX);
        self.ended.drain(..surplus);
    }
}
