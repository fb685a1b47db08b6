//! One rollout on trial: batches in, verdict out. What a control plane holds.

use serde::{Deserialize, Serialize};
use switchback_domain::seeded::bug;
use switchback_domain::{Histogram, Timestamp, Verdict};

use super::batch::Batch;
use super::bins::{Bins, lower_edge};
use super::errors::{ErrorCounts, Errors};
use super::latency::Latency;
use super::odds::Odds;
use super::settings::{Direction, Invalid, Settings};
use super::words;
use crate::budget::{self, Budget, Part};
use crate::hold::{SharedTrouble, Trouble};
use crate::label::bins::{TOP, bin_of};
use crate::math::exact;
use crate::ratio_guard::RatioGuard;
use crate::safe::{NonInferiority, RateBound};

/// Data planes that may feed one trial.
const SOURCES_MAX: usize = 16;
/// Shares of the requests' capital (design page, 9); they are scaled to the metrics there are.
const SHARES: [f64; 3] = [0.5, 0.4, 0.1];
/// Baseline answers before "slow" can be said.
const SLOW_KNOWN_MIN: u64 = 500;
/// A candidate's request is slow beyond this multiple of the baseline's p99, in percent.
const SLOW_PERCENT: u64 = 125;
/// Certified before advancing: bad events are less than this many times as frequent.
const SAFE_RATIO: f64 = 2.0;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// It was counted.
    Counted,
    /// It was counted before and changes nothing.
    Repeated,
    /// It was counted; this many before it never arrived, and until the data have been complete
    /// for a while nothing passes.
    Gap(u64),
    /// It comes from one source too many and was left out.
    TooManySources,
}

/// A rollout on trial. Its state is all of it: written down and read back it goes on to the bit,
/// and batches that are fed again are not counted again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    settings: Settings,
    started: Timestamp,
    /// The last batch of each source.
    sources: Vec<(String, u64)>,
    last: Option<Timestamp>,
    gap: Option<Timestamp>,
    errors: Errors,
    latency: Latency,
    events: Option<Odds>,
    safe: Safe,
    guard: RatioGuard,
    trouble: SharedTrouble,
    /// Latencies as they were, for people.
    shown: (Bins, Bins),
    fired: Option<Fired>,
}

/// The moment the candidate was found to be worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fired {
    /// When.
    pub at: Timestamp,
    /// Log evidence of the family.
    #[serde(with = "exact")]
    pub ln_evidence: f64,
    /// Who is to blame: errors, latency, events.
    pub blamed: [bool; 3],
    /// Candidate requests that had failed by then: what it cost.
    pub failed_spent: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Safe {
    errors: NonInferiority,
    budget: Option<RateBound>,
    slow: NonInferiority,
    /// The baseline's p99 in microseconds, once known; fixed from then on.
    slow_micros: Option<u64>,
}

/// The numbers behind a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What the family's evidence has to reach.
    pub line: f64,
    /// The family's evidence: errors, latency and events together.
    pub together: f64,
    /// Errors.
    pub errors: f64,
    /// Latency after the cap.
    pub latency: f64,
    /// Latency before the cap.
    pub latency_uncapped: f64,
    /// Business events; zero without any.
    pub events: f64,
    /// That the errors are less than twice as frequent, and what safety has to reach.
    pub safe_errors: (f64, f64),
    /// That slow requests are less than twice as frequent, and what safety has to reach.
    pub safe_latency: (f64, f64),
    /// That the assignment is broken.
    pub assignment: f64,
    /// Log wealth per bet on errors.
    pub errors_wealth: Vec<f64>,
    /// Log wealth per alternative of latency.
    pub latency_wealth: Vec<f64>,
    /// Requests and errors.
    pub counts: ErrorCounts,
    /// Ratios of error rates that are not refuted at 5 %, whenever one looks.
    pub error_ratio_interval: (Option<f64>, Option<f64>),
    /// The decision, once there is one.
    pub fired: Option<Fired>,
}

impl Trial {
    /// Begins. `history` is what the baseline's latencies were before the rollout (it only makes
    /// detection faster), `usual` its requests and errors then.
    pub fn new(
        settings: Settings,
        history: &Histogram,
        usual: ErrorCounts,
        started: Timestamp,
    ) -> Result<Self, Invalid> {
        settings.check()?;
        let cap = settings.cap_micros();
        let rate = settings.latency_nats_per_second;
        let budget = (settings.error_budget > 0.0).then(|| RateBound::new(settings.error_budget));
        let mut safe = Safe {
            errors: NonInferiority::new(SAFE_RATIO),
            budget,
            slow: NonInferiority::new(SAFE_RATIO),
            slow_micros: None,
        };
        safe.know(&Bins::plain(history, 0));
        Ok(Self {
            errors: Errors::new(settings.error_ratio, started),
            latency: Latency::new(history, settings.slack, cap, rate, started),
            events: settings.events.map(|_| Odds::new(EVENT_RATIOS.to_vec())),
            settings,
            started,
            sources: Vec::new(),
            last: None,
            gap: None,
            safe,
            guard: RatioGuard::default(),
            trouble: SharedTrouble::new(usual),
            shown: (Bins::default(), Bins::default()),
            fired: None,
        })
    }

    /// Takes a batch. Batches of a source must come in order; one that comes again is recognised.
    pub fn feed(&mut self, batch: &Batch) -> Fed {
        let fed = self.recognise(batch);
        match fed {
            Fed::Repeated | Fed::TooManySources => return fed,
            Fed::Gap(_) => self.gap = Some(batch.at),
            Fed::Counted => {}
        }
        let now = self.last.map_or(batch.at, |last| last.max(batch.at));
        self.last = Some(now);
        self.count(now, batch);
        self.decide(now);
        fed
    }

    /// What everything so far shows.
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        words::verdict(self, now)
    }

    /// The numbers behind it.
    pub fn evidence(&self) -> Evidence {
        let parts = self.parts();
        let safe_line = budget::line(self.settings.beta);
        Evidence {
            line: self.line(),
            together: self.taken_together(&parts),
            errors: self.errors.ln_evidence(),
            latency: self.latency.ln_evidence(),
            latency_uncapped: self.latency.ln_evidence_uncapped(),
            events: parts[2].ln_evidence,
            safe_errors: (self.safe.ln_errors(), safe_line),
            safe_latency: (self.safe.ln_latency(), safe_line),
            assignment: self.guard.ln_evidence(),
            errors_wealth: self.errors.ln_wealth().to_vec(),
            latency_wealth: self.latency.ln_wealth().to_vec(),
            counts: self.errors.total(),
            error_ratio_interval: self.errors.interval(0.05),
            fired: self.fired.clone(),
        }
    }

    /// The decision to take the candidate back, once there is one. It stays.
    pub fn fired(&self) -> Option<&Fired> {
        self.fired.as_ref()
    }

    /// Bytes of memory this trial holds, all told.
    pub fn bytes(&self) -> usize {
        let sources: usize = self.sources.iter().map(|(name, _)| name.capacity() + 32).sum();
        let bins = 2 * 8 * super::bins::BINS;
        let odds = 8 * 4 * 100;
        size_of::<Self>() + self.latency.heap_bytes() + bins + odds + sources + 11 * 48
    }

    fn recognise(&mut self, batch: &Batch) -> Fed {
        let known = self.sources.iter_mut().find(|(source, _)| *source == batch.source);
        let Some((_, last)) = known else {
            if self.sources.len() >= SOURCES_MAX {
                return Fed::TooManySources;
            }
            self.sources.push((batch.source.clone(), batch.sequence));
            return Fed::Counted;
        };
        if batch.sequence <= *last {
            return if bug("batch-counted-twice") { Fed::Counted } else { Fed::Repeated };
        }
        let missing = batch.sequence - *last - 1;
        *last = batch.sequence;
        if missing == 0 { Fed::Counted } else { Fed::Gap(missing) }
    }

    fn count(&mut self, now: Timestamp, batch: &Batch) {
        let (weight, cap) = (batch.weight, self.settings.cap_micros());
        let (new, old) = (&batch.candidate, &batch.baseline);
        let errors = batch.errors(cap);
        self.trouble.observe(now, errors);
        self.errors.observe(now, weight, errors);
        self.safe.errors.observe(weight, errors.candidate_failed, errors.baseline_failed);
        if let Some(bound) = &mut self.safe.budget {
            bound.observe(errors.candidate_requests, errors.candidate_failed);
        }
        if !self.settings.sticky {
            self.guard.observe(weight, errors.candidate_requests, errors.baseline_requests);
        }
        if let Some(events) = &mut self.events {
            events.observe(weight, new.events, old.events);
        }
        self.shown.1.add(&Bins::plain(&old.latency, old.unfinished));
        self.shown.0.add(&Bins::plain(&new.latency, new.unfinished));
        if self.is_warming(now) {
            // Time goes on for the evidence cap and the late starts.
            let nothing = Bins::default();
            self.latency.observe(now, weight, &nothing, &nothing);
        } else {
            let scale = self.latency.scale();
            let baseline = Bins::of_baseline(&old.latency, old.unfinished, cap, scale);
            let candidate = Bins::of_candidate(&new.latency, new.unfinished, scale);
            self.latency.observe(now, weight, &candidate, &baseline);
            self.safe.observe_latency(batch, cap);
        }
        self.safe.know(&self.shown.1);
    }

    /// Requests of a batch came up to the cap age before its end.
    fn is_warming(&self, now: Timestamp) -> bool {
        let from = self.settings.latency_from;
        from > self.started && now < from + self.settings.cap_age
    }

    /// Fires once, and never on data whose assignment is in doubt.
    fn decide(&mut self, now: Timestamp) {
        if self.fired.is_some() {
            return;
        }
        let parts = self.parts();
        let ripe: Vec<Part> =
            if self.errors.is_ripe() { parts.to_vec() } else { parts[1..].to_vec() };
        let ln_evidence = self.taken_together(&ripe);
        if ln_evidence < self.line() || self.guard.is_broken() {
            return;
        }
        let alpha = Budget::new(self.settings.alpha, self.settings.families).requests();
        let found = budget::blamed(&ripe, alpha);
        let skipped = parts.len() - ripe.len();
        let mut blamed = [false; 3];
        found.iter().enumerate().for_each(|(at, found)| blamed[at + skipped] = *found);
        if !blamed.contains(&true) {
            let weighs = |part: &Part| crate::math::ln(part.share) + part.ln_evidence;
            let heaviest = (skipped..parts.len())
                .max_by(|a, b| weighs(&parts[*a]).total_cmp(&weighs(&parts[*b])));
            if let Some(heaviest) = heaviest {
                blamed[heaviest] = true;
            }
        }
        let failed_spent = self.errors.total().candidate_failed;
        self.fired = Some(Fired { at: now, ln_evidence, blamed, failed_spent });
    }

    /// The family's evidence: the sum, or, where the metrics rest on different histories, what the
    /// strongest has alone (a union bound).
    fn taken_together(&self, parts: &[Part]) -> f64 {
        if !self.settings.sticky {
            return budget::together(parts);
        }
        let alone = parts.iter().map(|part| crate::math::ln(part.share) + part.ln_evidence);
        alone.fold(f64::NEG_INFINITY, f64::max)
    }

    /// Errors, latency, events.
    fn parts(&self) -> [Part; 3] {
        let [errors, latency, events] = SHARES;
        let all = if self.events.is_some() { 1.0 } else { errors + latency };
        let part = |share: f64, ln_evidence| Part { share: share / all, ln_evidence };
        let events = if self.events.is_some() { events } else { 0.0 };
        [
            part(errors, self.errors.ln_evidence()),
            part(latency, self.latency.ln_evidence()),
            part(events, self.ln_events()),
        ]
    }

    fn ln_events(&self) -> f64 {
        let Some(events) = &self.events else { return 0.0 };
        let bets = match self.settings.events {
            Some(Direction::Either) => 1..EVENT_RATIOS.len(),
            Some(Direction::Fewer) | None => 1..EVENTS_FEWER + 1,
        };
        events.ln_evidence(0, bets)
    }

    fn line(&self) -> f64 {
        budget::line(Budget::new(self.settings.alpha, self.settings.families).requests())
    }
}

/// The null, bets on fewer events, bets on more.
const EVENT_RATIOS: [f64; 13] =
    [1.0, 0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0];
const EVENTS_FEWER: usize = 6;

impl Safe {
    /// Learns what "slow" means from the baseline, once.
    fn know(&mut self, baseline: &Bins) {
        if self.slow_micros.is_none() && baseline.total() >= SLOW_KNOWN_MIN {
            self.slow_micros = baseline.quantile(0.99);
        }
    }

    /// Counts slow requests: ties go against the candidate here.
    fn observe_latency(&mut self, batch: &Batch, cap_micros: u64) {
        let Some(slow) = self.slow_micros else { return };
        let limit = slow.saturating_mul(SLOW_PERCENT) / 100;
        let beyond = |latency: &Histogram, limit: u64| -> u64 {
            latency.buckets().filter(|(upper, _)| *upper > limit).map(|(_, count)| count).sum()
        };
        // The limit of the baseline is the edge of a bin, which no bucket straddles.
        let edge = lower_edge(bin_of(slow).min(TOP - 1)).min(cap_micros);
        let candidate = beyond(&batch.candidate.latency, limit) + batch.candidate.unfinished;
        let baseline = beyond(&batch.baseline.latency, edge) + batch.baseline.unfinished;
        self.slow.observe(batch.weight, candidate, baseline);
    }

    fn ln_errors(&self) -> f64 {
        let bound = self.budget.as_ref().map_or(f64::NEG_INFINITY, RateBound::ln_evidence);
        self.errors.ln_evidence().max(bound)
    }

    fn ln_latency(&self) -> f64 {
        self.slow.ln_evidence()
    }
}

/// What the words are made from.
impl Trial {
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn last(&self) -> Option<Timestamp> {
        self.last
    }

    pub(super) fn gap(&self) -> Option<Timestamp> {
        self.gap
    }

    /// Requests and errors so far.
    pub fn counts(&self) -> ErrorCounts {
        self.errors.total()
    }

    /// Latencies of the candidate and of the baseline.
    pub(super) fn shown(&self) -> &(Bins, Bins) {
        &self.shown
    }

    pub(super) fn trouble(&self) -> Trouble {
        self.trouble.now()
    }

    pub(super) fn guard(&self) -> &RatioGuard {
        &self.guard
    }

    /// Log evidence of errors and of latency, and what either has to reach alone.
    pub(super) fn metrics(&self) -> [(f64, f64); 2] {
        let [errors, latency, _] = self.parts();
        let alone = |part: Part| (part.ln_evidence, self.line() - crate::math::ln(part.share));
        [alone(errors), alone(latency)]
    }

    pub(super) fn events(&self) -> Option<((u64, u64), f64, f64)> {
        let events = self.events.as_ref()?;
        let part = self.parts()[2];
        Some((events.counts(), part.ln_evidence, self.line() - crate::math::ln(part.share)))
    }

    /// Whether errors and latency are certified.
    pub(super) fn certified(&self) -> [bool; 2] {
        let line = budget::line(self.settings.beta);
        [self.safe.ln_errors() >= line, self.safe.ln_latency() >= line]
    }
}
