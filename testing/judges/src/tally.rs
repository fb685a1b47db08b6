//! What many runs came to.

use serde::{Deserialize, Serialize};

/// One run of one judge.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Ending {
    /// Whether it rolled back.
    pub fired: bool,
    /// When, in seconds after the candidate's first request.
    pub seconds: f64,
    /// Candidate requests up to then; for ours those that were judged.
    pub requests: u64,
    /// Failed ones among them.
    pub failed: u64,
    /// Failed candidate requests that had come by then, judged or not.
    pub spent: u64,
}

/// Median, 90th and 99th percentile.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of the runs stay at or below.
    pub median: f64,
    /// Nine tenths.
    pub p90: f64,
    /// All but one in a hundred.
    pub p99: f64,
}

impl Quantiles {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = libm::floor(share * values.len() as f64) as usize;
            values.get(rank.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Self { median: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

/// All runs of a judge in a cell.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub runs: u64,
    /// Those that rolled back, or were certified safe.
    pub fired: u64,
    /// Wilson's interval of the share that did, at 95 %.
    pub interval: (f64, f64),
    /// Over the runs that did; a run that did not counts as longer than all.
    pub seconds: Option<Quantiles>,
    /// See [`Ending::requests`].
    #[serde(rename = "candidate_requests")]
    pub requests: Option<Quantiles>,
    /// See [`Ending::failed`].
    #[serde(rename = "failed_requests")]
    pub failed: Option<Quantiles>,
    /// See [`Ending::spent`].
    #[serde(rename = "failed_requests_spent")]
    pub spent: Option<Quantiles>,
    /// Mean of the requests over the runs that rolled back.
    pub requests_mean: Option<f64>,
}

impl Tally {
    /// Counts.
    pub fn new(endings: &[Ending]) -> Self {
        let fired: Vec<&Ending> = endings.iter().filter(|ending| ending.fired).collect();
        let of = |number: &dyn Fn(&Ending) -> f64| {
            (!fired.is_empty())
                .then(|| Quantiles::of(fired.iter().map(|ending| number(ending)).collect()))
        };
        let (count, runs) = (fired.len() as u64, endings.len() as u64);
        let sum: f64 = fired.iter().map(|ending| ending.requests as f64).sum();
        Self {
            runs,
            fired: count,
            interval: wilson(count, runs),
            seconds: of(&|ending| ending.seconds),
            requests: of(&|ending| ending.requests as f64),
            failed: of(&|ending| ending.failed as f64),
            spent: of(&|ending| ending.spent as f64),
            requests_mean: (count > 0).then(|| sum / count as f64),
        }
    }

    /// The share of runs that rolled back.
    pub fn share(&self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.fired as f64 / self.runs as f64 }
    }

    /// The median of seconds over all runs, missed ones last; `None` if half of them missed.
    pub fn median_seconds(&self) -> Option<f64> {
        (2 * self.fired > self.runs).then_some(self.seconds?.median)
    }
}

/// Wilson's interval for a share, at 95 %.
pub fn wilson(hits: u64, runs: u64) -> (f64, f64) {
    if runs == 0 {
        return (0.0, 1.0);
    }
    let (share, runs, z) = (hits as f64 / runs as f64, runs as f64, 1.959_964_f64);
    let scale = 1.0 + z * z / runs;
    let center = (share + z * z / (2.0 * runs)) / scale;
    let half = z * libm::sqrt(share * (1.0 - share) / runs + z * z / (4.0 * runs * runs)) / scale;
    ((center - half).max(0.0), (center + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_and_medians_are_the_known_ones() {
        let (low, high) = wilson(0, 100);
        assert!(low.abs() < 1e-9 && (high - 0.036_99).abs() < 1e-4, "{low} {high}");
        let (low, high) = wilson(50, 10_000);
        assert!((low - 0.003_79).abs() < 1e-4 && (high - 0.006_59).abs() < 1e-4, "{low} {high}");
        let ending = |seconds: f64| Ending { fired: true, seconds, ..Ending::default() };
        let tally = Tally::new(&[ending(3.0), ending(1.0), ending(2.0), Ending::default()]);
        assert_eq!((tally.fired, tally.median_seconds()), (3, Some(2.0)));
        assert_eq!(Tally::new(&[ending(1.0), Ending::default()]).median_seconds(), None);
    }
}
