//! When the others look and what they ask: documented, default, tuned and strict settings of each
//! (design page, 10.4), all of them here and none hidden.

use std::collections::BTreeMap;

use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::scraped::Scraped;

use super::kayenta::{self, Criticality, Direction, Judged, Metric};
use super::seeds::Triggers;
use super::{argo, flagger};
use crate::windows::{Arms, Judge, Look, SCRAPE, Window};

/// How settings came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Ours.
    Ours,
    /// From the project's own documentation.
    Documented,
    /// What one gets without settings.
    Default,
    /// Chosen for these scenarios, with knowledge of the baseline.
    Tuned,
    /// The tightest that anybody would set.
    Strict,
}

/// A judge by scrapes, and how it is set.
pub struct Entry {
    /// Its name in tables.
    pub name: &'static str,
    /// How its settings came to be.
    pub origin: Origin,
    /// What they are.
    pub settings: &'static str,
    /// Whether it costs so much that fewer runs have to do.
    pub is_dear: bool,
    /// Makes one.
    pub make: fn() -> Box<dyn Judge>,
}

/// Everybody who decides by scrapes.
pub const ENTRIES: [Entry; 13] = [
    Entry {
        name: "ours, scraped",
        origin: Origin::Ours,
        settings: "counters every 15 s: errors, and requests slower than the baseline's p90 (odds tolerance 1.25); alpha 0.5 % each",
        is_dear: false,
        make: || Box::new(OursScraped::default()),
    },
    Entry {
        name: "Kayenta, documented",
        origin: Origin::Documented,
        settings: "every hour, points of 60 s, twin; errors, p50, p99 critical, increase; marginal 75",
        is_dear: false,
        make: || Box::new(Kayenta::new(60, 3600)),
    },
    Entry {
        name: "Kayenta, 1 min",
        origin: Origin::Tuned,
        settings: "the same, judged every minute from the fifth point on, over a growing window",
        is_dear: false,
        make: || Box::new(Kayenta::new(60, 60)),
    },
    Entry {
        name: "Kayenta, 15 s",
        origin: Origin::Strict,
        settings: "points of 15 s, judged with each from the fifth on, over a growing window",
        is_dear: true,
        make: || Box::new(Kayenta::new(15, 15)),
    },
    Entry {
        name: "Argo, documented",
        origin: Origin::Documented,
        settings: "every 5 min, irate over the last scrape, success >= 95 %, failureLimit 3",
        is_dear: false,
        make: || Box::new(Argo::new(300, 3, Asks { success: 0.95, p99: None, minute: false })),
    },
    Entry {
        name: "Argo, default limits",
        origin: Origin::Default,
        settings: "every minute, success >= 95 %, failureLimit 0",
        is_dear: false,
        make: || Box::new(Argo::new(60, 0, Asks { success: 0.95, p99: None, minute: true })),
    },
    Entry {
        name: "Argo, tuned",
        origin: Origin::Tuned,
        settings: "every minute, success >= 99 %, p99 <= 1.5 x the baseline's, failureLimit 2",
        is_dear: false,
        make: || Box::new(Argo::new(60, 2, Asks { success: 0.99, p99: TIMES_1_5, minute: true })),
    },
    Entry {
        name: "Argo, strict",
        origin: Origin::Strict,
        settings: "every minute, success >= 99.5 %, p99 <= 1.25 x the baseline's, failureLimit 0",
        is_dear: false,
        make: || Box::new(Argo::new(60, 0, Asks { success: 0.995, p99: TIMES_1_25, minute: true })),
    },
    Entry {
        name: "Flagger, documented",
        origin: Origin::Documented,
        settings: "every minute, success >= 99 %, p99 <= 500 ms, threshold 10",
        is_dear: false,
        make: || Box::new(Flagger::new(10, Asks { success: 0.99, p99: MILLIS_500, minute: true })),
    },
    Entry {
        name: "Flagger, default threshold",
        origin: Origin::Default,
        settings: "the same with threshold 1",
        is_dear: false,
        make: || Box::new(Flagger::new(1, Asks { success: 0.99, p99: MILLIS_500, minute: true })),
    },
    Entry {
        name: "Flagger, tuned",
        origin: Origin::Tuned,
        settings: "every minute, success >= 99 %, p99 <= 1.5 x the baseline's, threshold 5",
        is_dear: false,
        make: || Box::new(Flagger::new(5, Asks { success: 0.99, p99: TIMES_1_5, minute: true })),
    },
    Entry {
        name: "Flagger, strict",
        origin: Origin::Strict,
        settings: "every minute, success >= 99.5 %, p99 <= 1.25 x the baseline's, threshold 1",
        is_dear: false,
        make: || Box::new(Flagger::new(1, Asks { success: 0.995, p99: TIMES_1_25, minute: true })),
    },
    Entry {
        name: "fixed triggers",
        origin: Origin::Documented,
        settings: "errors > 5 % for 120 s, p95 more than twice the baseline's for 180 s",
        is_dear: false,
        make: || Box::new(Triggers::default()),
    },
];

const TIMES_1_25: Option<Bound> = Some(Bound::Times(1.25));
const TIMES_1_5: Option<Bound> = Some(Bound::Times(1.5));
const MILLIS_500: Option<Bound> = Some(Bound::Millis(500.0));

/// A bound on the 99th percentile.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    /// Milliseconds.
    Millis(f64),
    /// Times the baseline's before the rollout.
    Times(f64),
}

/// What is asked of the candidate alone.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Asks {
    success: f64,
    p99: Option<Bound>,
    /// Over the last minute, or since the last scrape.
    minute: bool,
}

impl Asks {
    fn of<'a>(&self, look: &'a Look) -> &'a Window {
        let arms: &Arms = if self.minute { &look.minute } else { &look.scrape };
        &arms.candidate
    }

    /// Whether enough succeed; `None` without requests.
    fn succeeds(&self, look: &Look) -> Option<bool> {
        Some(1.0 - self.of(look).error_rate()? >= self.success)
    }

    /// Whether it is fast enough; `None` without requests.
    fn is_fast(&self, look: &Look) -> Option<bool> {
        let bound = match self.p99 {
            None => return Some(true),
            Some(Bound::Millis(millis)) => millis,
            Some(Bound::Times(factor)) => factor * look.known_p99_millis,
        };
        Some(self.of(look).quantile(0.99)? <= bound)
    }
}

struct Argo {
    every: u64,
    limits: argo::Limits,
    asks: Asks,
    counts: [argo::Counts; 2],
}

impl Argo {
    fn new(every: u64, failure_limit: u32, asks: Asks) -> Self {
        let limits = argo::Limits { interval: true, failure_limit, ..argo::Limits::default() };
        Self { every, limits, asks, counts: Default::default() }
    }
}

impl Judge for Argo {
    fn rolls_back(&mut self, look: &Look) -> bool {
        if !look.second.is_multiple_of(self.every) {
            return false;
        }
        let answers = [self.asks.succeeds(look), self.asks.is_fast(look)];
        self.counts.iter_mut().zip(answers).any(|(counts, answer)| {
            counts.add(match answer {
                Some(true) => argo::Measured::Good,
                Some(false) => argo::Measured::Bad,
                None => argo::Measured::Nothing,
            });
            let phase = argo::assess(&self.limits, counts, true, false);
            matches!(phase, argo::Phase::Failed | argo::Phase::Error)
        })
    }
}

struct Flagger {
    asks: Asks,
    canary: flagger::Canary,
}

impl Flagger {
    fn new(threshold: u32, asks: Asks) -> Self {
        Self { asks, canary: flagger::Canary::new(threshold, 0) }
    }
}

impl Judge for Flagger {
    fn rolls_back(&mut self, look: &Look) -> bool {
        if look.second.is_multiple_of(60) {
            let asks = self.asks;
            self.canary.tick(|| {
                asks.succeeds(look).unwrap_or(false) && asks.is_fast(look).unwrap_or(false)
            });
        }
        self.canary.phase() == flagger::Phase::Failed
    }
}

/// Kayenta with three critical metrics, candidate against twin.
struct Kayenta {
    step: u64,
    every: u64,
    /// Control and experiment of errors (percent), p50 and p99 (milliseconds), ascending.
    series: [[Vec<f64>; 2]; 3],
}

/// The score below which a judgement on the way fails.
const MARGINAL: f64 = 75.0;
/// Points before the first judgement. With fewer the quantile of the interval cannot be reached; its
/// end is then the end of the search, and two points that lie apart would fail.
const POINTS_MIN: u64 = 5;

impl Kayenta {
    fn new(step: u64, every: u64) -> Self {
        Self { step, every, series: Default::default() }
    }

    fn judge(&self) -> f64 {
        let metric = Metric { direction: Direction::Increase, ..Metric::default() };
        let judged = |[control, experiment]: &[Vec<f64>; 2]| Judged {
            group: String::new(),
            class: kayenta::classify(control, experiment, &metric),
            criticality: Criticality::Critical,
        };
        let judged: Vec<Judged> = self.series.iter().map(judged).collect();
        kayenta::score(&judged, &BTreeMap::new())
    }
}

impl Judge for Kayenta {
    fn rolls_back(&mut self, look: &Look) -> bool {
        if !look.second.is_multiple_of(self.step) {
            return false;
        }
        let arms = if self.step == SCRAPE { &look.scrape } else { &look.minute };
        for (at, window) in [&arms.twin, &arms.candidate].into_iter().enumerate() {
            let percent = window.error_rate().map(|rate| 100.0 * rate);
            let points = [percent, window.quantile(0.5), window.quantile(0.99)];
            for (series, point) in self.series.iter_mut().zip(points) {
                let Some(point) = point else { continue };
                let after = series[at].partition_point(|value| *value <= point);
                series[at].insert(after, point);
            }
        }
        let has_begun = look.second >= POINTS_MIN * self.step;
        has_begun && look.second.is_multiple_of(self.every) && self.judge() < MARGINAL
    }
}

/// Our test on scraped counters.
struct OursScraped {
    errors: Scraped,
    slow: Scraped,
}

/// Half of alpha each: ln 200.
const LINE: f64 = 5.298_317_366_548_036;

impl Default for OursScraped {
    fn default() -> Self {
        Self { errors: Scraped::new(1.0), slow: Scraped::new(1.25) }
    }
}

impl Judge for OursScraped {
    fn rolls_back(&mut self, look: &Look) -> bool {
        let (new, old) = (&look.scrape.candidate, &look.scrape.production);
        let errors = ErrorCounts {
            candidate_requests: new.requests,
            candidate_failed: new.failed,
            baseline_requests: old.requests,
            baseline_failed: old.failed,
        };
        let limit = look.known_p90 as u64;
        let slow = ErrorCounts {
            candidate_requests: new.answered(),
            candidate_failed: new.slower(limit),
            baseline_requests: old.answered(),
            baseline_failed: old.slower(limit),
        };
        // A fault would be a hold; these counters have none.
        let counted = [self.errors.observe(errors), self.slow.observe(slow)];
        counted.iter().all(Result::is_ok)
            && self.errors.ln_evidence().max(self.slow.ln_evidence()) >= LINE
    }
}
