//! Climbing the plan: when a step is done, what the next one sets in motion, and when to give up.

use std::sync::Arc;
use std::time::Duration;

use switchback_domain::seeded::bug;
use switchback_domain::strategy::{FailureAction, StrategyKind};
use switchback_domain::time::humane;
use switchback_domain::{InstanceHealth, ReleaseId, Split, Weight};

use super::Work;
use crate::effect::wakeup;
use crate::event::NoteKind;
use crate::plan::PlanStep;
use crate::rollout::{Cause, CauseKind, Ending, Phase, RequestKind, Rollout};
use crate::service::Revision;
use crate::words::{describe_reasons, describe_step};

impl Work {
    /// Goes to the next step if the present one is done. Says whether anything moved.
    pub(super) fn advance(&mut self) -> bool {
        let Some(rollout) = &self.service.rollout else { return false };
        if rollout.paused.is_some() && !bug("pause-ignored") {
            return false;
        }
        let Some(step) = rollout.current().cloned() else {
            self.end(Ending::Promoted, "promoted");
            return true;
        };
        let next = rollout.position + 1;
        if !self.is_done(&step) {
            return self.work_on(&step);
        }
        if step == PlanStep::Promote {
            self.promote();
        }
        self.enter(next);
        true
    }

    fn is_done(&self, step: &PlanStep) -> bool {
        let Some(rollout) = &self.service.rollout else { return false };
        let candidate = self.service.pool(rollout.candidate());
        let baseline = rollout.baseline.as_ref().map(|release| self.service.pool(release));
        let acknowledged = self.service.traffic.is_acknowledged() || bug("shift-unacknowledged");
        match step {
            PlanStep::VerifyWayBack | PlanStep::Smoke(_) | PlanStep::Hook(_) => rollout.passed,
            PlanStep::Scale { candidate: wanted, baseline: left } => {
                let shrunk = left.is_none_or(|left| {
                    baseline.as_ref().is_none_or(|baseline| baseline.present() <= left)
                });
                candidate.ready() >= *wanted && shrunk
            }
            PlanStep::SetWeight(weight) => {
                self.service.traffic.split == split_at(rollout, *weight) && acknowledged
            }
            PlanStep::Pause(None) | PlanStep::Approve => {
                rollout.approved || bug("approval-skipped")
            }
            PlanStep::Pause(Some(pause)) => {
                let pause = if bug("pause-cut-short") { *pause / 4 } else { *pause };
                rollout.approved || self.now >= rollout.entered_at + pause
            }
            PlanStep::Analysis(_) => rollout.passed || rollout.approved || bug("analysis-skipped"),
            PlanStep::Promote => {
                let all = self.service.weight_of(rollout.candidate()) == Weight::ALL;
                let ready = candidate.ready() >= ready_needed(rollout, Weight::ALL)
                    || bug("promoted-unready");
                rollout.may_promote() && all && acknowledged && ready
            }
            PlanStep::DrainBaseline => {
                let is_gone = baseline.is_none_or(|baseline| baseline.present() == 0);
                let over = is_gone || self.is_kept() || self.now >= rollout.drain_deadline();
                rollout.passed && over
            }
        }
    }

    /// Whether an operator has the old version get all requests, and it is not being stopped yet: it
    /// is retired when that ends.
    fn is_kept(&self) -> bool {
        let baseline = self.service.rollout.as_ref().and_then(|rollout| rollout.baseline.as_ref());
        baseline.is_some_and(|baseline| {
            self.service.is_diverted_to(baseline) && self.service.pool(baseline).desired > 0
        })
    }

    /// Steps with two halves: begins the second one when the first is over.
    fn work_on(&mut self, step: &PlanStep) -> bool {
        let Some(rollout) = &mut self.service.rollout else { return false };
        match step {
            PlanStep::SetWeight(weight) => {
                let weight = *weight;
                self.shift_forward(weight)
            }
            PlanStep::DrainBaseline => {
                let over = self.now >= rollout.entered_at + rollout.request.policy.scale_down_delay;
                if rollout.passed || !(over || bug("hold-back-forgotten")) {
                    return false;
                }
                rollout.passed = true;
                let baseline = rollout.baseline.clone();
                if self.is_kept() {
                    let text = "hold-back time over: the old version stays while it gets requests";
                    self.note(NoteKind::Note, text);
                } else if let Some(baseline) = baseline {
                    self.note(NoteKind::Note, "hold-back time over: stopping the old version");
                    self.set_desired(&baseline, 0);
                }
                true
            }
            PlanStep::Promote => {
                if !rollout.may_promote() {
                    return false;
                }
                self.set_phase(Phase::Promoting);
                self.shift_forward(Weight::ALL)
            }
            PlanStep::VerifyWayBack
            | PlanStep::Scale { .. }
            | PlanStep::Smoke(_)
            | PlanStep::Pause(_)
            | PlanStep::Analysis(_)
            | PlanStep::Approve
            | PlanStep::Hook(_) => false,
        }
    }

    /// Invariant 1: no weight to a version with fewer ready instances than its share needs. Until
    /// they are there, the step waits, within its deadline.
    fn shift_forward(&mut self, weight: Weight) -> bool {
        let Some(rollout) = &self.service.rollout else { return false };
        let split = split_at(rollout, weight);
        let ready = self.service.pool(rollout.candidate()).ready();
        let is_carried = ready >= ready_needed(rollout, weight) || bug("weight-before-ready");
        if self.service.traffic.split == split || !is_carried {
            return false;
        }
        self.set_split(split);
        self.made_progress();
        true
    }

    /// Begins the step at a position, or ends the rollout behind the last one.
    pub(super) fn enter(&mut self, position: usize) {
        let (now, ready) = (self.now, self.candidate_count(InstanceHealth::Ready));
        let Some(rollout) = &mut self.service.rollout else { return };
        rollout.position = position;
        (rollout.entered_at, rollout.progress_at) = (now, now);
        (rollout.approved, rollout.passed) = (false, false);
        rollout.reached = ready;
        let Some(step) = rollout.plan.get(position).cloned() else {
            return self.end(Ending::Promoted, "promoted");
        };
        self.set_phase(self.phase_of(&step));
        let total = self.service.rollout.as_ref().map_or(0, |rollout| rollout.plan.len());
        let text = format!("step {} of {total}: {}", position + 1, describe_step(&step));
        self.note(NoteKind::Step, text);
        self.set_in_motion(&step);
    }

    fn phase_of(&self, step: &PlanStep) -> Phase {
        let auto = self.service.rollout.as_ref().is_some_and(Rollout::may_promote);
        match step {
            PlanStep::VerifyWayBack => Phase::Verifying,
            PlanStep::Scale { .. } => Phase::Provisioning,
            PlanStep::Smoke(_) => Phase::Validating,
            PlanStep::SetWeight(_) => Phase::Shifting,
            PlanStep::Pause(Some(_)) | PlanStep::Analysis(_) | PlanStep::Hook(_) => {
                Phase::Observing
            }
            PlanStep::Promote if auto => Phase::Promoting,
            PlanStep::Pause(None) | PlanStep::Approve | PlanStep::Promote => {
                Phase::AwaitingApproval
            }
            PlanStep::DrainBaseline => Phase::DrainingBaseline,
        }
    }

    fn set_in_motion(&mut self, step: &PlanStep) {
        let Some(rollout) = &self.service.rollout else { return };
        let (candidate, baseline) = (rollout.candidate().clone(), rollout.baseline.clone());
        match step {
            PlanStep::Scale { candidate: wanted, baseline: left } => {
                self.set_desired(&candidate, *wanted);
                if let (Some(baseline), Some(left)) = (baseline, left) {
                    self.set_desired(&baseline, *left);
                }
            }
            PlanStep::VerifyWayBack
            | PlanStep::Smoke(_)
            | PlanStep::SetWeight(_)
            | PlanStep::Pause(_)
            | PlanStep::Analysis(_)
            | PlanStep::Approve
            | PlanStep::Hook(_)
            | PlanStep::Promote
            | PlanStep::DrainBaseline => {}
        }
    }

    /// What was judged is what stays: the candidate's instances become the stable version's.
    fn promote(&mut self) {
        let (now, number) = (self.now, self.service.stable().map_or(1, |stable| stable.number + 1));
        let Some(rollout) = &mut self.service.rollout else { return };
        rollout.promoted = true;
        let number = if bug("revision-skipped") { number + 1 } else { number };
        let passed = now.since(rollout.request.asked_at).as_millis();
        self.service.revisions.push(Arc::new(Revision {
            number,
            release: rollout.candidate().clone(),
            policy: rollout.request.policy.clone(),
            promoted_at: now,
            wall_ms: rollout.request.wall_ms + u64::try_from(passed).unwrap_or(0),
        }));
        let text = format!("{} is revision {number}", rollout.request.release.version);
        self.note(NoteKind::Note, text);
    }

    /// Gives up if the candidate is broken. Says whether anything moved.
    pub(super) fn fail_if_broken(&mut self) -> bool {
        self.broken().is_some_and(|cause| self.fail(cause))
    }

    /// Gives up if a deadline has passed. Says whether anything moved. What is done by then is
    /// done: this is asked last, so that a long sleep of the control plane is no failure.
    pub(super) fn fail_if_due(&mut self) -> bool {
        self.overdue().is_some_and(|cause| self.fail(cause))
    }

    /// Does what the policy says about failures. Says whether anything moved.
    pub(super) fn fail(&mut self, cause: Cause) -> bool {
        let Some(rollout) = &self.service.rollout else { return false };
        if !rollout.is_forward() || rollout.promoted {
            return false;
        }
        let policy = &rollout.request.policy;
        let goes_on = policy.failure_action == FailureAction::Continue;
        match policy.failure_action {
            FailureAction::Rollback => {
                self.take_back(cause);
                true
            }
            FailureAction::Continue if cause.kind == CauseKind::Regressed => {
                self.note(NoteKind::Note, format!("going on all the same: {}", cause.text));
                if let Some(rollout) = &mut self.service.rollout {
                    rollout.passed |= matches!(rollout.current(), Some(PlanStep::Analysis(_)));
                }
                false
            }
            FailureAction::Pause | FailureAction::Continue if rollout.paused.is_some() => false,
            FailureAction::Pause | FailureAction::Continue => {
                let rule = if goes_on { "cannot go on" } else { "failure_action: pause" };
                self.pause(format!("{} ({rule})", cause.text));
                true
            }
        }
    }

    fn broken(&self) -> Option<Cause> {
        let rollout = self.service.rollout.as_ref()?;
        if rollout.promoted {
            return None;
        }
        let (version, candidate) =
            (&rollout.request.release.version, self.service.pool(rollout.candidate()));
        if candidate.desired > 0 && self.candidate_count(InstanceHealth::CrashLoop) > 0 {
            let why = describe_reasons(&candidate);
            return Some(Cause::new(
                CauseKind::CrashLoop,
                format!("{version} keeps ending: {why}"),
            ));
        }
        let weight = self.service.weight_of(rollout.candidate());
        if weight > Weight::ZERO && candidate.ready() == 0 {
            let text =
                format!("no ready instance of {version} is left: {}", describe_reasons(&candidate));
            return Some(Cause::new(CauseKind::Died, text));
        }
        None
    }

    /// Why to give up, if a deadline has passed.
    pub(super) fn overdue(&self) -> Option<Cause> {
        let rollout = self.service.rollout.as_ref()?;
        let due = wakeup(rollout).filter(|due| *due <= self.now)?;
        let waited = humane(round(due.since(rollout.entered_at)));
        let (step, candidate) = (rollout.current()?, self.service.pool(rollout.candidate()));
        let (ready, asked) = (candidate.ready(), ready_awaited(rollout, step));
        if ready < asked {
            let (version, why) = (&rollout.request.release.version, describe_reasons(&candidate));
            let text = format!("{ready} of {asked} instances of {version} ready");
            let text = format!("{text} after {waited}: {why}");
            return Some(Cause::new(CauseKind::NotReady, text));
        }
        match step {
            // These end by time; that is no failure.
            PlanStep::Pause(_) | PlanStep::DrainBaseline => None,
            PlanStep::Analysis(_) => {
                let short = rollout.verdict.as_ref().and_then(|verdict| {
                    verdict.findings.iter().find(|f| f.outcome != switchback_domain::Outcome::Safe)
                });
                let why = short.map_or("no data", |finding| finding.summary.as_str());
                let text = format!("no verdict after {waited}: {why}");
                Some(Cause::new(CauseKind::NoEvidence, text))
            }
            PlanStep::VerifyWayBack
            | PlanStep::Scale { .. }
            | PlanStep::Smoke(_)
            | PlanStep::SetWeight(_)
            | PlanStep::Approve
            | PlanStep::Hook(_)
            | PlanStep::Promote => {
                let text = format!("\"{}\" made no progress for {waited}", describe_step(step));
                Some(Cause::new(CauseKind::Deadline, text))
            }
        }
    }
}

/// Ready candidate instances that a step waits for.
fn ready_awaited(rollout: &Rollout, step: &PlanStep) -> u32 {
    match step {
        PlanStep::Scale { candidate, .. } => *candidate,
        PlanStep::SetWeight(weight) => ready_needed(rollout, *weight),
        PlanStep::Promote => ready_needed(rollout, Weight::ALL),
        PlanStep::VerifyWayBack
        | PlanStep::Smoke(_)
        | PlanStep::Pause(_)
        | PlanStep::Analysis(_)
        | PlanStep::Approve
        | PlanStep::Hook(_)
        | PlanStep::DrainBaseline => 0,
    }
}

/// Who gets what when the candidate has this share.
fn split_at(rollout: &Rollout, weight: Weight) -> Split<ReleaseId> {
    let candidate = rollout.candidate().clone();
    match rollout.baseline.clone() {
        Some(baseline) => Split::between(baseline, candidate, weight),
        None => Split::all(candidate),
    }
}

/// Ready instances a share needs: its part of the full strength, or of what a rolling update is
/// allowed to run on; at least one.
pub(crate) fn ready_needed(rollout: &Rollout, weight: Weight) -> u32 {
    let policy = &rollout.request.policy;
    let strength = match (rollout.request.kind, policy.strategy) {
        (RequestKind::Deploy, StrategyKind::Rolling) => {
            policy.replicas.saturating_sub(policy.max_unavailable)
        }
        (RequestKind::Deploy, StrategyKind::BlueGreen | StrategyKind::Canary)
        | (RequestKind::Rollback, _) => policy.replicas,
    };
    weight.share_of(strength).max(1)
}

/// Deadlines are met within milliseconds; people want seconds.
fn round(duration: Duration) -> Duration {
    if duration < Duration::from_secs(10) {
        duration
    } else {
        Duration::from_secs(duration.as_secs())
    }
}
