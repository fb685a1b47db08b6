//! Feeding the judge: samples from the data plane's report, the instances' use and the user's
//! own metrics, one judge per rollout.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use switchback_analysis::{Judge, Rules, Sample};
use switchback_domain::trigger::{Thresholds, Triggers};
use switchback_domain::{ArmStats, InstanceId, Outcome, ReleaseId, ServiceKey, Timestamp, Verdict};
use switchback_engine::{Counts, Effect, Rollout, RolloutId};
use switchback_ports::data_plane::Report;
use switchback_ports::runtime::Usage;

use crate::clock::Instant;
use crate::exact::{Exact, Opinion};
use crate::metrics::Watch;

/// How often the same verdict is worth a record: people following want to know what is missing.
const SPEAK_EVERY: Duration = Duration::from_secs(5);

/// The figures of one service's arm in a report whose arms are in order.
pub(crate) fn arm(report: &Report, key: &ServiceKey, release: &ReleaseId) -> ArmStats {
    let wanted = (key, release);
    let found = report.arms.binary_search_by(|at| (&at.arm.service, &at.arm.release).cmp(&wanted));
    found.map(|at| report.arms[at].stats.clone()).unwrap_or_default()
}

/// Processor use of instances, from cumulative seconds.
#[derive(Default)]
pub(crate) struct Meter {
    last: HashMap<InstanceId, (f64, Instant)>,
    cores: HashMap<InstanceId, f64>,
    memory: HashMap<InstanceId, f64>,
}

impl Meter {
    #[allow(clippy::cast_precision_loss, reason = "memory sizes stay far below 2^52")]
    pub(crate) fn read(&mut self, id: &InstanceId, usage: Usage, at: Instant) {
        if let Some((seconds, before)) = self.last.get(id) {
            let passed = at.duration_since(*before).as_secs_f64();
            if passed > 0.0 && usage.cpu_seconds >= *seconds {
                self.cores.insert(id.clone(), (usage.cpu_seconds - seconds) / passed);
            }
        }
        self.last.insert(id.clone(), (usage.cpu_seconds, at));
        self.memory.insert(id.clone(), usage.memory_bytes as f64);
    }

    fn highest(values: &HashMap<InstanceId, f64>, of: &[InstanceId]) -> Option<f64> {
        of.iter().filter_map(|id| values.get(id)).copied().reduce(f64::max)
    }

    fn keep(&mut self, of: &[InstanceId]) {
        self.last.retain(|id, _| of.contains(id));
        self.cores.retain(|id, _| of.contains(id));
        self.memory.retain(|id, _| of.contains(id));
    }
}

/// One rollout being judged.
pub(crate) struct Trial {
    rollout: RolloutId,
    position: usize,
    entered: Timestamp,
    is_step: bool,
    judge: Judge,
    meter: Meter,
    pub(crate) custom: BTreeMap<String, f64>,
    pub(crate) watch: Watch,
    pub(crate) custom_run_at: HashMap<String, Instant>,
    spoke: Option<(Outcome, Instant)>,
}

/// The judge's present task, from the outstanding effects.
pub(crate) struct Task<'a> {
    rollout: RolloutId,
    position: usize,
    pub(crate) triggers: &'a Triggers,
    step: Option<(Thresholds, Duration)>,
}

impl<'a> Task<'a> {
    pub(crate) fn from_effect(effect: &'a Effect) -> Option<Self> {
        match effect {
            Effect::Judge { rollout, position, triggers, step } => Some(Self {
                rollout: *rollout,
                position: *position,
                triggers,
                step: step.clone().map(|(rules, ms)| (rules, Duration::from_millis(ms))),
            }),
            Effect::KeepPool { .. }
            | Effect::Publish { .. }
            | Effect::CheckWayBack { .. }
            | Effect::RunHook { .. }
            | Effect::WakeAt(_) => None,
        }
    }
}

impl Task<'_> {
    fn thresholds(&self) -> Option<&Thresholds> {
        self.step.as_ref().map(|(thresholds, _)| thresholds)
    }
}

/// What the trial is told at one look.
pub(crate) struct Look<'a> {
    pub(crate) at: Timestamp,
    pub(crate) report: &'a Report,
    pub(crate) key: &'a ServiceKey,
    pub(crate) rollout: &'a Rollout,
    pub(crate) instances: Vec<InstanceId>,
    pub(crate) failed_probes: u64,
    pub(crate) exact: Option<&'a Exact>,
    /// Whether requests are assigned to both versions by chance.
    pub(crate) is_drawn: bool,
}

impl Trial {
    /// The trial for a task: the running one if it is about the same rollout.
    pub(crate) fn resume(running: Option<Self>, task: &Task<'_>, now: Timestamp) -> Self {
        match running {
            Some(mut trial) if trial.rollout == task.rollout => {
                if trial.position != task.position {
                    trial.position = task.position;
                    trial.entered = now;
                    trial.is_step = task.step.is_some();
                    trial.judge.enter(task.step.clone(), now);
                    trial.watch.enter(task.position, task.thresholds(), now);
                    trial.spoke = None;
                }
                trial
            }
            Some(_) | None => Self {
                rollout: task.rollout,
                position: task.position,
                entered: now,
                is_step: task.step.is_some(),
                judge: Judge::new(
                    Rules { triggers: task.triggers.clone(), step: task.step.clone() },
                    now,
                ),
                meter: Meter::default(),
                custom: BTreeMap::new(),
                watch: Watch::new(task.rollout, task.triggers, now).with(
                    task.position,
                    task.thresholds(),
                    now,
                ),
                custom_run_at: HashMap::new(),
                spoke: None,
            },
        }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// What was said last could not be written: say it again.
    pub(crate) fn speak_again(&mut self) {
        self.spoke = None;
    }

    /// Looks once. Returns the verdict if it is worth telling the engine.
    pub(crate) fn look(&mut self, look: &Look<'_>) -> Option<Verdict> {
        self.meter.keep(&look.instances);
        let verdict = self.judge.look(Sample {
            at: look.at,
            baseline: look.rollout.baseline.as_ref().map(|old| arm(look.report, look.key, old)),
            candidate: arm(look.report, look.key, look.rollout.candidate()),
            incarnation: look.report.incarnation.clone(),
            cpu_cores: Meter::highest(&self.meter.cores, &look.instances),
            memory_bytes: Meter::highest(&self.meter.memory, &look.instances),
            failed_probes: look.failed_probes,
            custom: self.custom.clone(),
        });
        let since = look.is_drawn.then_some(self.entered);
        let opinion = look.exact.map(|exact| exact.opinion(look.at, since));
        let verdict = self.watch.joined(joined(verdict, opinion), look.at);
        // Between two analysis steps nobody waits for a verdict, unless it is a bad one.
        if !self.is_step && verdict.outcome != Outcome::Regressed {
            return None;
        }
        let worth_it = match (verdict.outcome, self.spoke) {
            (Outcome::Safe, Some((Outcome::Safe, _))) => false,
            // A rollout that was paused over a bad verdict and resumed has to hear it again.
            (outcome, Some((spoken, at))) => outcome != spoken || at.elapsed() >= SPEAK_EVERY,
            (_, None) => true,
        };
        if worth_it {
            self.spoke = Some((verdict.outcome, Instant::now()));
        }
        worth_it.then_some(verdict)
    }
}

/// The verdict of the documents' rules and the exact test together.
///
/// Either may take the candidate back. A step passes when its rules hold and nothing in the test
/// speaks against it: neither data that are missing or in doubt nor evidence that grows. That the
/// candidate is certified safe is not asked for: at little traffic no version ever would be.
fn joined(rules: Verdict, opinion: Option<Opinion>) -> Verdict {
    let Some(Opinion { verdict: test, holds }) = opinion else { return rules };
    let outcome = match (test.outcome, rules.outcome) {
        (Outcome::Regressed, _) | (_, Outcome::Regressed) => Outcome::Regressed,
        (_, Outcome::Safe) if !holds => Outcome::Safe,
        (Outcome::Safe | Outcome::Undecided, Outcome::Safe | Outcome::Undecided) => {
            Outcome::Undecided
        }
    };
    // What decides, or what is waited for, comes first.
    let (first, second) = match (test.outcome, outcome) {
        (Outcome::Regressed, _) => (test, rules),
        (_, Outcome::Undecided) if holds => (test, rules),
        (_, Outcome::Regressed | Outcome::Safe | Outcome::Undecided) => (rules, test),
    };
    let findings = first.findings.iter().chain(&second.findings).cloned().collect();
    Verdict { outcome, findings, ..first }
}

/// Counts the requests of a rollout's candidate across restarts of the control plane and of the
/// data plane: what the state says, plus what the report has more than at the first look.
pub(crate) struct Tally {
    pub(crate) rollout: RolloutId,
    incarnation: String,
    start: ArmStats,
    before: Counts,
    last: Counts,
}

impl Tally {
    pub(crate) fn new(rollout: &Rollout, incarnation: &str, now: ArmStats) -> Self {
        Self {
            rollout: rollout.request.id,
            incarnation: incarnation.to_owned(),
            start: now,
            before: rollout.counts,
            last: rollout.counts,
        }
    }

    pub(crate) fn count(&mut self, incarnation: &str, now: &ArmStats) -> Counts {
        if incarnation != self.incarnation {
            incarnation.clone_into(&mut self.incarnation);
            self.start = ArmStats::default();
            self.before = self.last;
        }
        let more = now.since(&self.start);
        self.last = Counts {
            requests: self.before.requests + more.finished(),
            failed: self.before.failed + more.failed(),
        };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::said;

    /// The outcome, and the rule that is named first.
    fn together(rules: Outcome, test: Outcome, holds: bool) -> (Outcome, String) {
        let opinion = Opinion { verdict: said(test, "errors"), holds };
        let joined = joined(said(rules, "error_rate"), Some(opinion));
        assert_eq!(joined.findings.len(), 2, "everything is told");
        (joined.outcome, joined.findings[0].rule.clone())
    }

    #[test]
    fn either_takes_back_and_a_step_passes_only_when_neither_objects() {
        use Outcome::{Regressed, Safe, Undecided};
        for (rules, test, holds, outcome, first) in [
            (Safe, Regressed, false, Regressed, "errors"),
            (Undecided, Regressed, false, Regressed, "errors"),
            (Regressed, Safe, false, Regressed, "error_rate"),
            (Regressed, Undecided, true, Regressed, "error_rate"),
            (Safe, Undecided, false, Safe, "error_rate"),
            (Safe, Safe, false, Safe, "error_rate"),
            (Safe, Undecided, true, Undecided, "errors"),
            (Safe, Safe, true, Undecided, "errors"),
            (Undecided, Safe, false, Undecided, "error_rate"),
            (Undecided, Undecided, true, Undecided, "errors"),
        ] {
            let found = together(rules, test, holds);
            assert_eq!(found, (outcome, first.to_owned()), "{rules:?} {test:?} {holds}");
        }
        let alone = joined(said(Safe, "error_rate"), None);
        assert_eq!((alone.outcome, alone.findings.len()), (Safe, 1));
    }
}
