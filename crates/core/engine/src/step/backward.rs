//! The way back: capacity first, then traffic as fast as the baseline can take it, then the
//! candidate ends. Not the forward path in reverse.

use switchback_domain::seeded::bug;
use switchback_domain::{ReleaseId, Split, Weight};

use super::Work;
use super::command::all_to_baseline;
use crate::event::NoteKind;
use crate::rollout::{Cause, CauseKind, Ending, Phase, Rollout};
use crate::words::describe_reasons;

/// From this share on, the rest makes no difference to the baseline's load.
const NEARLY_ALL: Weight = Weight::from_percent(90);

impl Work {
    pub(super) fn take_back(&mut self, cause: Cause) {
        let now = self.now;
        let Some(rollout) = &mut self.service.rollout else { return };
        if !rollout.is_forward() || rollout.promoted {
            return;
        }
        if let Some(pool) = self.service.pools.get(rollout.candidate()) {
            rollout.last_seen.clone_from(&pool.instances);
        }
        let text = cause.text.clone();
        rollout.cause = Some(cause);
        rollout.paused = None;
        (rollout.entered_at, rollout.progress_at) = (now, now);
        let (baseline, phase) = (rollout.baseline.clone(), rollout.way_back());
        let ready = baseline.as_ref().map_or(0, |release| self.service.pool(release).ready());
        if let Some(rollout) = &mut self.service.rollout {
            rollout.reached = ready;
        }
        self.set_phase(phase);
        self.note(NoteKind::Note, format!("taking it back: {text}"));
        if let Some(baseline) = baseline {
            let replicas = self.service.stable().map_or(1, |stable| stable.policy.replicas);
            let replicas = if bug("baseline-not-restored") { 0 } else { replicas };
            let wanted = self.service.pool(&baseline).desired.max(replicas);
            self.set_desired(&baseline, wanted);
        }
    }

    /// One move back. Says whether anything moved.
    pub(super) fn retreat(&mut self) -> bool {
        let Some(rollout) = self.service.rollout.clone() else { return false };
        let all_back = all_to_baseline(&rollout);
        if bug("stuck-for-ever") && matches!(rollout.phase, Phase::Stuck { .. }) {
            return false;
        }
        if bug("shrink-before-shift") {
            self.set_desired(rollout.candidate(), 0);
        }
        if self.service.traffic.split != all_back {
            return match &rollout.baseline {
                Some(baseline) => self.shift_back(&rollout, baseline),
                None => self.shift_to(all_back),
            };
        }
        if !self.service.traffic.is_acknowledged() && !bug("back-unacknowledged") {
            let need = "the data plane to acknowledge the route table";
            return self.stuck_if_overdue(&rollout, need.to_owned());
        }
        let candidate = self.service.pool(rollout.candidate());
        if candidate.desired > 0 {
            self.set_desired(rollout.candidate(), 0);
            self.grant_ending(&rollout);
            return true;
        }
        if candidate.present() > 0 {
            let need = match candidate.present() {
                1 => "1 instance to stop".to_owned(),
                count => format!("{count} instances to stop"),
            };
            return self.stuck_if_overdue(&rollout, need);
        }
        self.end_taken_back(&rollout);
        true
    }

    /// Gives the baseline as much as its ready instances can carry, never less than before. It gets
    /// all of it at once when the candidate has nobody left to serve, when it carries nearly all of
    /// it anyway, and when the missing instances were waited for in vain: an old version that is
    /// short of instances is better than a new one that is bad.
    fn shift_back(&mut self, rollout: &Rollout, baseline: &ReleaseId) -> bool {
        let pool = self.service.pool(baseline);
        let strength = self.service.stable().map_or(1, |stable| stable.policy.replicas);
        let candidate_ready = self.service.pool(rollout.candidate()).ready();
        let carries_most = self.service.weight_of(baseline) >= NEARLY_ALL;
        let in_vain = self.now >= rollout.progress_at + rollout.request.policy.progress_deadline;
        let target = match (pool.ready(), candidate_ready) {
            (0, _) => Weight::ZERO,
            (_, 0) => Weight::ALL,
            (_, _) if carries_most || in_vain || bug("back-before-capacity") => Weight::ALL,
            (ready, _) => Weight::ratio(ready, strength),
        };
        if target > self.service.weight_of(baseline) {
            let candidate = rollout.candidate().clone();
            let split = Split::between(baseline.clone(), candidate, target.complement());
            return self.shift_to(split);
        }
        let (ready, why) = (pool.ready(), describe_reasons(&pool));
        let need = format!("{strength} ready instances of the baseline, has {ready}: {why}");
        self.stuck_if_overdue(rollout, need)
    }

    fn shift_to(&mut self, split: Split<ReleaseId>) -> bool {
        self.made_progress();
        self.set_split(split);
        true
    }

    /// Says loudly what is missing; goes on by itself when it comes.
    fn stuck_if_overdue(&mut self, rollout: &Rollout, need: String) -> bool {
        let deadline = rollout.progress_at + rollout.request.policy.progress_deadline;
        let deadline = if bug("never-says-stuck") {
            deadline + deadline.since(switchback_domain::Timestamp::default())
        } else {
            deadline
        };
        let is_stuck = matches!(rollout.phase, Phase::Stuck { .. });
        if self.now < deadline || is_stuck {
            return false;
        }
        self.note(NoteKind::Note, format!("stuck: needs {need}"));
        self.set_phase(Phase::Stuck { need });
        true
    }

    /// The clock begins when the instances had what they may take for ending their requests.
    fn grant_ending(&mut self, rollout: &Rollout) {
        self.made_progress();
        let request = &rollout.request;
        let ending = request.policy.drain_timeout + request.release.workload.stop_timeout;
        let from = self.now + ending;
        if let Some(rollout) = &mut self.service.rollout {
            rollout.progress_at = from;
        }
    }

    fn end_taken_back(&mut self, rollout: &Rollout) {
        let kind = rollout.cause.as_ref().map(|cause| cause.kind);
        let text = rollout.cause.as_ref().map_or("", |cause| cause.text.as_str());
        match (kind, &rollout.baseline_version) {
            (Some(CauseKind::Superseded), _) => self.end(Ending::Superseded, text),
            (Some(CauseKind::NotVerified), _) | (_, None) => {
                self.end(Ending::Withdrawn, format!("withdrawn: {text}"));
            }
            (_, Some(version)) => {
                self.end(Ending::RolledBack, format!("rolled back to {version}: {text}"));
            }
        }
    }
}
