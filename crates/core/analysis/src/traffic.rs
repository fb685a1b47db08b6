//! The rules about requests: windows of the data plane's counters, and what follows from them.

use std::time::Duration;

use switchback_domain::seeded::bug;
use switchback_domain::trigger::{Threshold, Thresholds, Triggers};
use switchback_domain::{ArmStats, Finding, Outcome, Timestamp};

use crate::measure::{Arms, Measure, Measured};
use crate::text;
use crate::trail::Trail;

/// Requests in a window before a trigger fires: a version that fails everything is found after
/// ten requests, one failed request of one is an accident.
const REQUESTS_MIN: u64 = 10;

/// Requests that are bad by themselves (failed, or slower than the limit) before a rule is called
/// broken early: one failure of 50 is no evidence against a limit of 1 %.
const BAD_MIN: u64 = 3;

/// Everything about requests.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    triggers: Vec<Trigger>,
    thresholds: Option<Thresholds>,
    /// Since the step began, or the counters: what a step rests on.
    whole: Trail<Arms>,
    /// Looks before this say nothing about the step.
    begun: Timestamp,
    last: Option<(String, Arms)>,
}

#[derive(Debug, Clone)]
struct Trigger {
    rule: &'static str,
    measure: Measure,
    limit: f64,
    trail: Trail<Arms>,
}

/// What a look at the requests found.
pub(crate) struct Evidence {
    pub(crate) findings: Vec<Finding>,
    /// What was counted since the step began, or the counters.
    pub(crate) window: Arms,
}

impl Traffic {
    pub(crate) fn new(triggers: &Triggers) -> Self {
        let asked = [
            ("error_rate", Measure::ErrorRate, triggers.error_rate),
            ("response_time", Measure::MeanRatio, triggers.response_time),
            ("latency_p95", Measure::Quantile(0.95), triggers.latency_p95),
        ];
        let trigger = |(rule, measure, asked): (_, _, Option<Threshold>)| {
            let Threshold { threshold: limit, window } = asked?;
            Some(Trigger { rule, measure, limit, trail: Trail::trailing(window) })
        };
        Self {
            triggers: asked.into_iter().filter_map(trigger).collect(),
            thresholds: None,
            whole: Trail::fixed(Duration::ZERO),
            begun: Timestamp::default(),
            last: None,
        }
    }

    /// Begins a step, or ends one; the triggers' windows go on.
    pub(crate) fn enter(&mut self, step: Option<(Thresholds, Duration)>, begun: Timestamp) {
        let (thresholds, duration) = step.unzip();
        self.thresholds = thresholds;
        self.whole = Trail::fixed(duration.unwrap_or_default());
        self.begun = begun;
    }

    /// Starts every window anew.
    pub(crate) fn clear(&mut self) {
        self.last = None;
        self.whole.clear();
        self.triggers.iter_mut().for_each(|trigger| trigger.trail.clear());
    }

    pub(crate) fn look(&mut self, at: Timestamp, incarnation: String, now: Arms) -> Evidence {
        let is_continued = self
            .last
            .as_ref()
            .is_none_or(|(earlier, before)| *earlier == incarnation && is_continued(&now, before));
        if !is_continued {
            self.clear();
        }
        let anchor = self.whole.look_back(at);
        let is_over = anchor.as_ref().is_some_and(|anchor| anchor.is_complete);
        let watched = anchor.as_ref().map_or(Duration::ZERO, |anchor| anchor.watched);
        let window = anchor.map_or_else(Arms::default, |anchor| now.since(anchor.value));
        let mut findings = Vec::new();
        // The step's come first: what they lack is what a rollout waits for.
        if let Some(thresholds) = &self.thresholds {
            let look = Look { window: &window, now: &now, thresholds, is_over };
            findings.push(look.samples(watched, self.whole.window()));
            findings.extend(look.all());
        }
        findings.extend(self.triggers.iter_mut().map(|trigger| trigger.look(at, &now)));
        if at >= self.begun {
            self.whole.keep(at, &now);
        }
        self.last = Some((incarnation, now));
        Evidence { findings, window }
    }
}

/// Whether counters went on from an earlier look: none went back, and both versions are the same.
fn is_continued(now: &Arms, before: &Arms) -> bool {
    let went_on = |now: &ArmStats, before: &ArmStats| {
        now.accepted >= before.accepted
            && now.finished() >= before.finished()
            && now.failed() >= before.failed()
            && now.latency.count() >= before.latency.count()
    };
    let baseline = match (&now.baseline, &before.baseline) {
        (Some(now), Some(before)) => went_on(now, before),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    baseline && went_on(&now.candidate, &before.candidate)
}

impl Trigger {
    fn look(&mut self, at: Timestamp, now: &Arms) -> Finding {
        let finding = self.judge(at, now);
        self.trail.keep(at, now);
        finding
    }

    fn judge(&mut self, at: Timestamp, now: &Arms) -> Finding {
        let asked = self.trail.window();
        let anchor = self.trail.look_back(at);
        let (watched, is_complete) =
            anchor.as_ref().map_or((Duration::ZERO, false), |it| (it.watched, it.is_complete));
        let window = anchor.map_or_else(Arms::default, |anchor| now.since(anchor.value));
        let measured = self.measure.take(self.limit, &window, now);
        let &Measured { is_broken, requests, bad, .. } = &measured;
        let (outcome, note) = if measured.observed.is_none() {
            (Outcome::Undecided, String::new())
        } else if !is_broken {
            (Outcome::Safe, String::new())
        } else if requests < REQUESTS_MIN || bad < BAD_MIN {
            let few = format!(" (fewer than {REQUESTS_MIN} requests or {BAD_MIN} bad ones)");
            (Outcome::Undecided, few)
        } else if !is_complete {
            let so_far = format!(" (for {} of {})", text::span(watched), text::span(asked));
            (Outcome::Undecided, so_far)
        } else {
            (Outcome::Regressed, format!(" for {}", text::span(watched)))
        };
        finding(self.rule, self.measure, self.limit, outcome, &measured, &note)
    }
}

/// One look during a step.
struct Look<'a> {
    window: &'a Arms,
    now: &'a Arms,
    thresholds: &'a Thresholds,
    is_over: bool,
}

impl Look<'_> {
    /// Whether there is enough to go by: also what a step without thresholds waits for.
    #[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn samples(&self, watched: Duration, asked: Duration) -> Finding {
        let (requests, needed) = (self.window.candidate.finished(), self.samples_min());
        let is_enough = (self.is_over || bug("step-hurried")) && requests >= needed;
        let time = format!("{} of {}", text::span(watched.min(asked)), text::span(asked));
        Finding {
            rule: "samples_min".to_owned(),
            outcome: if is_enough { Outcome::Safe } else { Outcome::Undecided },
            observed: Some(requests as f64),
            limit: needed as f64,
            baseline: None,
            summary: format!("{requests} of at least {needed} requests, watched {time}"),
        }
    }

    fn all(&self) -> Vec<Finding> {
        let thresholds = self.thresholds;
        let asked = [
            ("success_rate_min", Measure::SuccessRate, thresholds.success_rate_min),
            ("error_rate_max", Measure::ErrorRate, thresholds.error_rate_max),
            ("latency_p95_max", Measure::Quantile(0.95), thresholds.latency_p95_max),
            ("latency_p99_max", Measure::Quantile(0.99), thresholds.latency_p99_max),
            ("latency_ratio_max", Measure::MeanRatio, thresholds.latency_ratio_max),
        ];
        let judge = |(rule, measure, limit): (_, _, Option<f64>)| {
            limit.map(|limit| self.judge(rule, measure, limit))
        };
        asked.into_iter().filter_map(judge).collect()
    }

    fn judge(&self, rule: &str, measure: Measure, limit: f64) -> Finding {
        let measured = measure.take(limit, self.window, self.now);
        let (outcome, note) = if measured.observed.is_none() {
            (Outcome::Undecided, String::new())
        } else if measured.requests < self.samples_min() {
            (Outcome::Undecided, format!(" (fewer than {} requests)", self.samples_min()))
        } else if measured.is_broken && (self.is_over || measured.bad >= BAD_MIN) {
            (Outcome::Regressed, String::new())
        } else if measured.is_broken {
            (Outcome::Undecided, format!(" (fewer than {BAD_MIN} bad ones)"))
        } else if self.is_over || bug("step-hurried") {
            (Outcome::Safe, String::new())
        } else {
            (Outcome::Undecided, " (so far)".to_owned())
        };
        finding(rule, measure, limit, outcome, &measured, &note)
    }

    fn samples_min(&self) -> u64 {
        if bug("samples-ignored") { 0 } else { self.thresholds.samples_min.max(1) }
    }
}

fn finding(
    rule: &str,
    measure: Measure,
    limit: f64,
    outcome: Outcome,
    measured: &Measured,
    note: &str,
) -> Finding {
    let written = text::limit(limit, measure.write());
    Finding {
        rule: rule.to_owned(),
        outcome,
        observed: measured.observed,
        limit: text::writable(limit),
        baseline: measured.baseline,
        summary: format!("{}, limit {written}{note}", measured.words),
    }
}
