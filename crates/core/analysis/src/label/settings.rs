//! What a trial holds the candidate against, and which settings mean nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::{Histogram, Timestamp};

use super::bins::Slack;
use crate::budget::Families;
use crate::math::exact;

/// The cap age stays within these.
const CAP_AGE_MIN: Duration = Duration::from_millis(250);
const CAP_AGE_MAX: Duration = Duration::from_secs(10);

/// What to hold the candidate against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Chance that a healthy rollout is ever taken back, over its whole life: 0.01.
    #[serde(with = "exact")]
    pub alpha: f64,
    /// Chance that a candidate at the boundary is called safe: 0.05.
    #[serde(with = "exact")]
    pub beta: f64,
    /// Largest ratio of error rates that is no regression: 1.
    #[serde(with = "exact")]
    pub error_ratio: f64,
    /// How much slower the candidate may be: 5 %; 10 % with fewer than three replicas.
    pub slack: Slack,
    /// Age at which a request counts as not ended: four times the baseline's p99, 250 ms to 10 s.
    pub cap_age: Duration,
    /// The evidence cap of latency, in nats per second: 2.
    #[serde(with = "exact")]
    pub latency_nats_per_second: f64,
    /// Until then the candidate is warming up: latencies do not count, errors do.
    pub latency_from: Timestamp,
    /// Error rate that is safe whatever the baseline's is: what the service's objective leaves.
    /// Zero for none.
    #[serde(with = "exact")]
    pub error_budget: f64,
    /// Which change of business events is a regression; `None` if none are counted.
    pub events: Option<Direction>,
    /// Other families of metrics in this rollout, which take their part of alpha.
    pub families: Families,
    /// Clients stay with their version ([`crate::sticky`]): a batch counts each of them once, and
    /// once more when it first fails them. What a client's first request shows is known by then,
    /// so the metrics do not share one history and are not added up, and requests are no measure
    /// of the shares drawn.
    #[serde(default)]
    pub sticky: bool,
    /// Silence after which the data are stale: 5 s.
    pub stale_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            beta: 0.05,
            error_ratio: 1.0,
            slack: Slack::from_percent(5),
            cap_age: Duration::from_secs(10),
            latency_nats_per_second: 2.0,
            latency_from: Timestamp::default(),
            error_budget: 0.0,
            events: None,
            families: Families::default(),
            sticky: false,
            stale_after: Duration::from_secs(5),
        }
    }
}

/// Why settings were refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// Alpha or beta.
    #[error("{0} is no chance of an error between 0 and 0.5")]
    Chance(f64),
    /// The tolerated ratio.
    #[error("an error ratio of {0} is not between 1 and 1.9")]
    ErrorRatio(f64),
    /// The absolute error budget.
    #[error("an error budget of {0} is not a share below 1")]
    ErrorBudget(f64),
}

impl Settings {
    /// The cap age for a baseline with these latencies: four times the p99, 250 ms to 10 s; 10 s
    /// if nothing is known.
    pub fn cap_age_for(history: &Histogram) -> Duration {
        let p99 = history.quantile(0.99).map(|micros| Duration::from_micros(4 * micros));
        p99.map_or(CAP_AGE_MAX, |age| age.clamp(CAP_AGE_MIN, CAP_AGE_MAX))
    }

    /// The slack for a candidate with so many replicas: one slow machine is a third of three.
    pub const fn slack_for(replicas: u32) -> Slack {
        if replicas < 3 { Slack::from_percent(10) } else { Slack::from_percent(5) }
    }

    pub(super) fn check(&self) -> Result<(), Invalid> {
        for chance in [self.alpha, self.beta] {
            if !(chance > 0.0 && chance <= 0.5) {
                return Err(Invalid::Chance(chance));
            }
        }
        if !(1.0..=1.9).contains(&self.error_ratio) {
            return Err(Invalid::ErrorRatio(self.error_ratio));
        }
        if !(0.0..1.0).contains(&self.error_budget) {
            return Err(Invalid::ErrorBudget(self.error_budget));
        }
        Ok(())
    }

    /// The cap age as the baseline's latencies meet it, in microseconds.
    pub(super) fn cap_micros(&self) -> u64 {
        self.slack.take_off(u64::try_from(self.cap_age.as_micros()).unwrap_or(u64::MAX))
    }
}

/// Which change is a regression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Fewer events.
    Fewer,
    /// Any change.
    Either,
}
