//! The judge: hands each part of a look to the rules about it and adds up what they find.

use std::time::Duration;

use switchback_domain::trigger::{CustomMetric, Threshold, Thresholds, Triggers};
use switchback_domain::{Finding, Outcome, Timestamp, Verdict};

use crate::measure::Arms;
use crate::sample::{Rules, Sample};
use crate::streak::Gauge;
use crate::text;
use crate::traffic::{Evidence, Traffic};
use crate::trail::Trail;

/// Judges one candidate, look by look.
///
/// The verdict is the worst of the findings: regressed, else undecided, else safe. *Safe* means
/// that every rule that was asked had data and holds; without a rule it is undecided. Missing
/// data, NaN and infinity are undecided, in a reading as in a limit.
///
/// **Triggers** hold at every moment.
/// - `error_rate`, `latency_p95` and `response_time` are taken over the trailing window (at most
///   1/32 longer than asked for). They fire once the candidate has been watched for a whole
///   window, at least 10 requests ended in it, at least 3 of them are bad by themselves (failed,
///   or slower than the limit), and the number is above its limit. Before that, a number above its
///   limit is undecided.
/// - `response_time` compares means. The baseline's is that of the same window or, when it
///   answered fewer than 10 requests in it (all traffic is on the candidate), of everything the
///   data plane counted for it. Means less than 2 ms apart are equal.
/// - `cpu_usage`, `memory_usage` and custom metrics fire when every reading of the window was
///   above the limit, at least three of them.
/// - `health_checks` fires as soon as so many checks failed within the window.
///
/// **A step** adds thresholds over everything since it began. One is broken when its number is
/// above the limit after `samples_min` requests and either three requests are bad by themselves or
/// the step's time is over: a single failure of 50 does not break 1 % early. A step is safe when
/// its time is over, `samples_min` is reached and every threshold holds.
///
/// **Windows start anew** when looks are further apart than a quarter of the window (never less
/// than 10 s, or two intervals of a custom metric) and when the time of a look moves back; those
/// about requests also when a counter goes back, the data plane's incarnation changes or the
/// baseline appears or vanishes. Nothing fires and no step passes over such a gap.
///
/// Latencies are exact to 1.6 % (the histogram's buckets); one in the limit's own bucket keeps it.
#[derive(Debug, Clone)]
pub struct Judge {
    started: Timestamp,
    last: Option<Timestamp>,
    traffic: Traffic,
    health: Option<Health>,
    cpu: Option<Gauge>,
    memory: Option<Gauge>,
    custom: Vec<(String, Gauge)>,
}

impl Judge {
    /// Begins; looks taken before `started` are no evidence.
    pub fn new(rules: Rules, started: Timestamp) -> Self {
        let Rules { triggers, step } = rules;
        let Triggers { cpu_usage, memory_usage, health_checks, .. } = triggers;
        let custom = |metric: &CustomMetric| {
            let rule = format!("custom.{}", metric.name);
            let gauge = Gauge::new(rule, &metric.name, text::plain, metric.limit, metric.interval);
            (metric.name.clone(), gauge)
        };
        let gauge = |limit: Option<Threshold>, rule, title, write| {
            limit.map(|limit| Gauge::new(rule, title, write, limit, Duration::ZERO))
        };
        let mut judge = Self {
            started,
            last: None,
            traffic: Traffic::new(&triggers),
            health: health_checks.map(Health::new),
            cpu: gauge(cpu_usage, "cpu_usage", "CPU use", text::cores),
            memory: gauge(memory_usage, "memory_usage", "memory", text::bytes),
            custom: triggers.custom.iter().map(custom).collect(),
        };
        judge.enter(step, started);
        judge
    }

    /// Goes on to another step, or to none: its thresholds are judged over the looks from
    /// `started` on, while the triggers' windows go on.
    pub fn enter(&mut self, step: Option<(Thresholds, Duration)>, started: Timestamp) {
        self.traffic.enter(step, started);
    }

    /// Takes a look and says what all of them so far show.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        let Sample { at, incarnation, candidate, baseline, .. } = sample;
        // A second look within the same millisecond shows nothing new, and takes nothing away.
        let goes_on = at >= self.started && self.last.is_none_or(|last| at >= last);
        if !goes_on {
            self.clear();
        }
        self.last = Some(at);
        let evidence = self.traffic.look(at, incarnation, Arms { candidate, baseline });
        let Evidence { mut findings, window } = evidence;
        findings.extend(self.cpu.as_mut().map(|gauge| gauge.read(at, sample.cpu_cores)));
        findings.extend(self.memory.as_mut().map(|gauge| gauge.read(at, sample.memory_bytes)));
        findings.extend(self.health.as_mut().map(|health| health.read(at, sample.failed_probes)));
        for (name, gauge) in &mut self.custom {
            findings.push(gauge.read(at, sample.custom.get(name).copied()));
        }
        if at < self.started {
            self.clear();
        }
        let baseline = window.baseline.unwrap_or_default();
        Verdict {
            outcome: worst(&findings),
            findings,
            candidate_requests: window.candidate.finished(),
            candidate_failed: window.candidate.failed(),
            baseline_requests: baseline.finished(),
            baseline_failed: baseline.failed(),
        }
    }

    fn clear(&mut self) {
        self.traffic.clear();
        self.health.iter_mut().for_each(|health| health.trail.clear());
        let gauges = self.custom.iter_mut().map(|(_, gauge)| gauge);
        gauges.chain(&mut self.cpu).chain(&mut self.memory).for_each(Gauge::clear);
    }
}

fn worst(findings: &[Finding]) -> Outcome {
    let has = |outcome| findings.iter().any(|finding| finding.outcome == outcome);
    if has(Outcome::Regressed) {
        Outcome::Regressed
    } else if has(Outcome::Undecided) || findings.is_empty() {
        Outcome::Undecided
    } else {
        Outcome::Safe
    }
}

/// The rule about failed health checks.
#[derive(Debug, Clone)]
struct Health {
    limit: Threshold,
    trail: Trail<u64>,
    /// Failed checks seen, whatever the counter of the instances did in between.
    failed: u64,
    counter: Option<u64>,
}

impl Health {
    fn new(limit: Threshold) -> Self {
        Self { limit, trail: Trail::trailing(limit.window), failed: 0, counter: None }
    }

    #[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn read(&mut self, at: Timestamp, counter: u64) -> Finding {
        let before = self.counter.replace(counter).unwrap_or(counter);
        self.failed = self.failed.saturating_add(counter.saturating_sub(before));
        let earlier = self.trail.look_back(at).map(|anchor| *anchor.value);
        self.trail.keep(at, &self.failed);
        let Threshold { threshold: limit, window } = self.limit;
        let recent = earlier.map(|earlier| self.failed.saturating_sub(earlier));
        let outcome = match recent {
            Some(recent) if limit.is_finite() => {
                let is_reached = recent as f64 >= limit.max(1.0);
                if is_reached { Outcome::Regressed } else { Outcome::Safe }
            }
            Some(_) | None => Outcome::Undecided,
        };
        let number = recent.map_or_else(|| "unknown number of".to_owned(), |it| it.to_string());
        let written = text::limit(limit, text::plain);
        Finding {
            rule: "health_checks".to_owned(),
            outcome,
            observed: recent.map(|recent| recent as f64),
            limit: text::writable(limit),
            baseline: None,
            summary: format!(
                "{number} failed health checks within {}, limit {written}",
                text::span(window)
            ),
        }
    }
}
