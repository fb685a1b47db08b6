//! What the world must be made to match. Effects are a function of the state, so that after a
//! crash exactly what is missing is issued again.

use serde::{Deserialize, Serialize};
use switchback_domain::metric::OnInsufficient;
use switchback_domain::seeded::bug;
use switchback_domain::strategy::Hook;
use switchback_domain::trigger::{Thresholds, Triggers};
use switchback_domain::{ReleaseId, Split, Timestamp};

use crate::plan::PlanStep;
use crate::rollout::{Phase, Rollout, RolloutId};
use crate::service::Service;

/// Something to see to. All are *ensure*: doing one twice is doing it once (a hook may run again
/// after a crash of the control plane, and is told so in the documentation).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "a few exist at a time, and none is kept")]
pub enum Effect {
    /// Keep this many instances of a release; ends one only when it gets no requests any more
    /// and has none left.
    KeepPool {
        /// Of which release.
        release: ReleaseId,
        /// How many.
        replicas: u32,
    },
    /// Publish this split and report [`crate::EventKind::TrafficAcknowledged`].
    Publish {
        /// Which decision.
        shift: u64,
        /// Who gets what.
        split: Split<ReleaseId>,
    },
    /// Check the way back and report [`crate::EventKind::WayBackChecked`].
    CheckWayBack {
        /// For which rollout.
        rollout: RolloutId,
        /// To what.
        baseline: ReleaseId,
    },
    /// Run a command and report [`crate::EventKind::HookFinished`].
    RunHook {
        /// Of which rollout.
        rollout: RolloutId,
        /// Of which step.
        position: usize,
        /// What.
        hook: Hook,
    },
    /// Keep judging and report [`crate::EventKind::Judged`].
    Judge {
        /// About which rollout.
        rollout: RolloutId,
        /// During which step.
        position: usize,
        /// At every moment.
        triggers: Triggers,
        /// During this step, for at least so long (milliseconds).
        step: Option<(Thresholds, u64)>,
    },
    /// Report [`crate::EventKind::Ticked`] at this time.
    WakeAt(Timestamp),
}

/// Everything that has to be seen to in this state.
pub fn outstanding(service: &Service) -> Vec<Effect> {
    let mut effects: Vec<Effect> = service
        .pools
        .iter()
        .map(|(release, pool)| Effect::KeepPool {
            release: release.clone(),
            replicas: pool.desired,
        })
        .collect();
    if !service.traffic.is_acknowledged() {
        effects.push(Effect::Publish {
            shift: service.traffic.shift,
            split: service.traffic.split.clone(),
        });
    }
    if let Some(rollout) = &service.rollout {
        effects.extend(step_effect(rollout));
        effects.extend(judge_effect(service, rollout));
        effects.extend(wakeup(rollout).map(Effect::WakeAt));
    }
    effects
}

/// When the service wants to be looked at although nothing happened: the alarm clock among
/// [`outstanding`], without the rest.
pub fn wakes_at(service: &Service) -> Option<Timestamp> {
    service.rollout.as_ref().and_then(wakeup)
}

fn step_effect(rollout: &Rollout) -> Option<Effect> {
    let (id, position) = (rollout.request.id, rollout.position);
    if rollout.passed || rollout.paused.is_some() {
        return None;
    }
    match rollout.current()? {
        PlanStep::VerifyWayBack => {
            let baseline = rollout.baseline.clone()?;
            Some(Effect::CheckWayBack { rollout: id, baseline })
        }
        PlanStep::Smoke(hook) | PlanStep::Hook(hook) => {
            Some(Effect::RunHook { rollout: id, position, hook: hook.clone() })
        }
        PlanStep::Scale { .. }
        | PlanStep::SetWeight(_)
        | PlanStep::Pause(_)
        | PlanStep::Analysis(_)
        | PlanStep::Approve
        | PlanStep::Promote
        | PlanStep::DrainBaseline => None,
    }
}

/// The judge looks whenever the candidate has traffic and could still be taken back.
fn judge_effect(service: &Service, rollout: &Rollout) -> Option<Effect> {
    let has_traffic = service.weight_of(rollout.candidate()).basis_points() > 0;
    if !has_traffic || rollout.promoted || rollout.baseline.is_none() {
        return None;
    }
    let step = match rollout.current()? {
        PlanStep::Analysis(analysis) => {
            let millis = u64::try_from(analysis.duration.as_millis()).unwrap_or(u64::MAX);
            Some((analysis.thresholds.clone(), millis))
        }
        PlanStep::VerifyWayBack
        | PlanStep::Scale { .. }
        | PlanStep::Smoke(_)
        | PlanStep::SetWeight(_)
        | PlanStep::Pause(_)
        | PlanStep::Approve
        | PlanStep::Hook(_)
        | PlanStep::Promote
        | PlanStep::DrainBaseline => None,
    };
    Some(Effect::Judge {
        rollout: rollout.request.id,
        position: rollout.position,
        triggers: rollout.request.policy.triggers.clone(),
        step,
    })
}

/// When the rollout wants to be looked at again although nothing happened.
pub(crate) fn wakeup(rollout: &Rollout) -> Option<Timestamp> {
    let policy = &rollout.request.policy;
    if rollout.paused.is_some() && rollout.is_forward() {
        return None;
    }
    if bug("alarm-forgotten") {
        return None;
    }
    match (&rollout.phase, rollout.plan.get(rollout.position)) {
        (Phase::RollingBack | Phase::Withdrawing, _) => {
            Some(rollout.progress_at + policy.progress_deadline)
        }
        (Phase::Stuck { .. }, _) | (_, None) => None,
        (_, Some(step)) => match step {
            PlanStep::Pause(duration) => duration.map(|pause| rollout.entered_at + pause),
            PlanStep::DrainBaseline => Some(if rollout.passed {
                rollout.drain_deadline()
            } else {
                rollout.entered_at + policy.scale_down_delay
            }),
            PlanStep::Approve => None,
            PlanStep::Promote if !rollout.may_promote() => None,
            PlanStep::Analysis(analysis) => {
                let once = analysis.duration + policy.progress_deadline;
                let watched = analysis.thresholds.metrics.iter().chain(&policy.triggers.metrics);
                let extends = watched
                    .filter(|it| !it.dry_run)
                    .any(|metric| matches!(metric.on_insufficient, OnInsufficient::Extend));
                Some(rollout.entered_at + if extends { once * 2 } else { once })
            }
            PlanStep::Smoke(hook) | PlanStep::Hook(hook) => {
                Some(rollout.entered_at + hook.timeout + policy.progress_deadline)
            }
            // Old instances may take as long as they are allowed to for ending their requests.
            PlanStep::Scale { baseline: Some(_), .. } => {
                let ending = policy.drain_timeout + rollout.request.release.workload.stop_timeout;
                Some(rollout.progress_at + policy.progress_deadline + ending)
            }
            PlanStep::VerifyWayBack
            | PlanStep::Scale { baseline: None, .. }
            | PlanStep::SetWeight(_)
            | PlanStep::Promote => Some(rollout.progress_at + policy.progress_deadline),
        },
    }
}
