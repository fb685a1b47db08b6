//! Facts coming in: instances, acknowledgements, hooks, verdicts.

use switchback_domain::seeded::bug;
use switchback_domain::{InstanceHealth, InstanceReport, Outcome, ReleaseId, Verdict};

use super::Work;
use crate::event::NoteKind;
use crate::plan::PlanStep;
use crate::rollout::{Cause, CauseKind, Phase, RolloutId};
use crate::words::{describe_instance, describe_verdict};

impl Work {
    pub(super) fn pool_observed(&mut self, release: &ReleaseId, seen: &[InstanceReport]) {
        if bug("gone-unnoticed") && seen.is_empty() {
            return;
        }
        let before = self.service.pool(release);
        for report in seen {
            let old = before.instances.iter().find(|old| old.id == report.id);
            if old.is_none_or(|old| old.health != report.health) {
                self.note(NoteKind::Probe, describe_instance(&self.service, release, report));
            }
        }
        let pool = self.service.pools.entry(release.clone()).or_default();
        pool.instances = seen.to_vec();
        let shrank = pool.surplus() < before.surplus();
        let ready = pool.ready();
        if self.reached_more(release, ready) || shrank {
            self.made_progress();
        }
    }

    /// Whether more instances that the rollout waits for are ready than ever in this step.
    fn reached_more(&mut self, release: &ReleaseId, ready: u32) -> bool {
        let Some(rollout) = &mut self.service.rollout else { return false };
        let awaited = if rollout.is_forward() {
            Some(rollout.candidate())
        } else {
            rollout.baseline.as_ref()
        };
        let more = awaited == Some(release) && ready > rollout.reached;
        if more {
            rollout.reached = ready;
        }
        more
    }

    pub(super) fn traffic_acknowledged(&mut self, shift: u64) {
        let traffic = &mut self.service.traffic;
        let shift = if bug("acknowledged-blindly") { traffic.shift } else { shift };
        let acknowledged = shift.min(traffic.shift).max(traffic.acknowledged);
        if acknowledged > traffic.acknowledged {
            traffic.acknowledged = acknowledged;
            self.made_progress();
        }
    }

    /// Deadlines begin anew, and what was stuck is not stuck any more.
    pub(super) fn made_progress(&mut self) {
        let Some(rollout) = &mut self.service.rollout else { return };
        rollout.progress_at = self.now;
        if matches!(rollout.phase, Phase::Stuck { .. }) && !bug("stuck-for-ever") {
            let phase = rollout.way_back();
            self.set_phase(phase);
        }
    }

    pub(super) fn way_back_checked(&mut self, id: RolloutId, obstacles: &[String]) {
        let Some(rollout) = self.active(id) else { return };
        if rollout.current() != Some(&PlanStep::VerifyWayBack) || rollout.passed {
            return;
        }
        if obstacles.is_empty() || bug("way-back-unverified") {
            rollout.passed = true;
            self.note(NoteKind::Note, "the way back is clear");
            return;
        }
        let text = format!("no verified way back: {}", obstacles.join("; "));
        if rollout.request.accept_no_rollback {
            rollout.passed = true;
            self.note(NoteKind::Note, format!("{text} (accepted with --accept-no-rollback)"));
        } else {
            self.take_back(Cause::new(CauseKind::NotVerified, text));
        }
    }

    pub(super) fn hook_finished(&mut self, id: RolloutId, at: usize, passed: bool, detail: &str) {
        let Some(rollout) = self.active(id) else { return };
        let name = match rollout.current() {
            _ if rollout.passed => return,
            Some(PlanStep::Smoke(hook) | PlanStep::Hook(hook)) if rollout.position == at => {
                hook.name.clone()
            }
            _ => return,
        };
        if passed || bug("hook-ignored") {
            rollout.passed = true;
            self.note(NoteKind::Note, format!("{name} passed"));
        } else {
            self.fail(Cause::new(CauseKind::CheckFailed, format!("{name} failed: {detail}")));
        }
    }

    pub(super) fn judged(&mut self, id: RolloutId, position: usize, verdict: &Verdict) {
        let Some(rollout) = self.active(id) else { return };
        if !rollout.is_forward() || rollout.promoted {
            return;
        }
        let judged_here = rollout.position == position;
        if !judged_here && verdict.outcome != Outcome::Regressed {
            return;
        }
        let is_new = rollout.verdict.as_ref().is_none_or(|old| old.outcome != verdict.outcome);
        rollout.verdict = Some(verdict.clone());
        match verdict.outcome {
            Outcome::Regressed => {
                let why = verdict.cause().map_or("regressed", |finding| finding.summary.as_str());
                let why = why.to_owned();
                self.note(NoteKind::Verdict, describe_verdict(verdict));
                self.fail(Cause::new(CauseKind::Regressed, why));
            }
            Outcome::Safe => {
                let asked = matches!(rollout.current(), Some(PlanStep::Analysis(_)));
                rollout.passed |= asked;
                self.note(NoteKind::Verdict, describe_verdict(verdict));
            }
            Outcome::Undecided if bug("undecided-passes") => rollout.passed = true,
            Outcome::Undecided if is_new => self.note(NoteKind::Verdict, describe_verdict(verdict)),
            Outcome::Undecided => {}
        }
    }

    /// Instances of the candidate in this state.
    pub(super) fn candidate_count(&self, health: InstanceHealth) -> u32 {
        let Some(rollout) = &self.service.rollout else { return 0 };
        self.service.pool(rollout.candidate()).count(health)
    }
}
