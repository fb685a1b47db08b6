//! One number out of one window of traffic, held against one limit.
//!
//! Says what the window shows, not what follows from it: that depends on who asks (`traffic`).

use switchback_domain::histogram::{bucket_of, upper_bound};
use switchback_domain::{ArmStats, Histogram};

use crate::text::{self, exceeds};

/// Answers of the baseline before its mean is worth comparing with.
const BASELINE_ANSWERS_MIN: u64 = 10;

/// Means closer than this are equal, whatever their ratio: a busy machine's scheduler alone made
/// 0.8 ms out of 0.3 ms, and nobody notices.
const MEAN_DIFFERENCE_MIN_MICROS: f64 = 2000.0;

/// Both versions' counters.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Arms {
    pub(crate) candidate: ArmStats,
    pub(crate) baseline: Option<ArmStats>,
}

impl Arms {
    /// What was counted after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let baseline = self.baseline.as_ref();
        Self {
            candidate: self.candidate.since(&earlier.candidate),
            baseline: baseline.zip(earlier.baseline.as_ref()).map(|(now, then)| now.since(then)),
        }
    }
}

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Measure {
    /// Share of finished requests that failed; the limit is the largest.
    ErrorRate,
    /// Share of finished requests that did not fail; the limit is the smallest.
    SuccessRate,
    /// A quantile of the latency in seconds; the limit is the longest.
    Quantile(f64),
    /// Mean latency as a multiple of the baseline's; the limit is the largest.
    MeanRatio,
}

/// What a window shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    /// The candidate's number; `None` without data.
    pub(crate) observed: Option<f64>,
    /// The baseline's number (its mean in seconds), where compared.
    pub(crate) baseline: Option<f64>,
    /// Whether the number breaks the limit.
    pub(crate) is_broken: bool,
    /// Requests that break it by themselves: failed ones, or slow ones.
    pub(crate) bad: u64,
    /// Requests the number rests on.
    pub(crate) requests: u64,
    /// The number in words.
    pub(crate) words: String,
}

impl Measured {
    fn nothing(words: String) -> Self {
        Self { observed: None, baseline: None, is_broken: false, bad: 0, requests: 0, words }
    }
}

impl Measure {
    /// Looks at `window`; `whole` are the counters since the data plane started, which hold the
    /// baseline's past when it gets no traffic any more.
    pub(crate) fn take(self, limit: f64, window: &Arms, whole: &Arms) -> Measured {
        if !limit.is_finite() {
            return Measured::nothing(format!("{} not judged", self.name()));
        }
        match self {
            Self::ErrorRate | Self::SuccessRate => self.share(limit, &window.candidate),
            Self::Quantile(quantile) => self.quantile(quantile, limit, &window.candidate.latency),
            Self::MeanRatio => self.mean_ratio(limit, window, whole),
        }
    }

    /// Writes a number of this kind with its unit.
    pub(crate) fn write(self) -> fn(f64) -> String {
        match self {
            Self::ErrorRate | Self::SuccessRate => text::percent,
            Self::Quantile(_) => text::seconds,
            Self::MeanRatio => text::times,
        }
    }

    fn name(self) -> String {
        match self {
            Self::ErrorRate => "error rate".to_owned(),
            Self::SuccessRate => "success rate".to_owned(),
            Self::Quantile(quantile) => format!("p{:.0}", quantile * 100.0),
            Self::MeanRatio => "mean latency".to_owned(),
        }
    }

    fn unknown(self, why: &str) -> Measured {
        Measured::nothing(format!("{} unknown: {why}", self.name()))
    }

    #[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn share(self, limit: f64, arm: &ArmStats) -> Measured {
        let (failed, requests) = (arm.failed(), arm.finished());
        if requests == 0 {
            return self.unknown("no finished request");
        }
        let counted = if self == Self::SuccessRate { requests - failed } else { failed };
        let share = counted as f64 / requests as f64;
        let is_broken = if self == Self::SuccessRate {
            exceeds(limit, share) == Some(true)
        } else {
            exceeds(share, limit) == Some(true)
        };
        Measured {
            observed: Some(share),
            baseline: None,
            is_broken,
            bad: failed,
            requests,
            words: format!("{} {} of {requests} requests", self.name(), text::percent(share)),
        }
    }

    fn quantile(self, quantile: f64, limit: f64, latency: &Histogram) -> Measured {
        let Some(micros) = latency.quantile(quantile) else {
            return self.unknown("no answered request");
        };
        let longest = bound(limit * 1e6);
        let is_broken = micros > longest;
        // A latency in the limit's own bucket keeps the limit; its bucket's bound may not.
        let exact = as_seconds(micros);
        let observed = if is_broken { exact } else { exact.min(limit) };
        let requests = latency.count();
        Measured {
            observed: Some(observed),
            baseline: None,
            is_broken,
            bad: slower_than(latency, longest),
            requests,
            words: format!("{} {} of {requests} requests", self.name(), text::seconds(observed)),
        }
    }

    fn mean_ratio(self, limit: f64, window: &Arms, whole: &Arms) -> Measured {
        let answered = &window.candidate.latency;
        let Some(candidate) = answered.mean() else { return self.unknown("no answered request") };
        let Some((past, when)) = comparable(window, whole) else {
            return self.unknown("the baseline has too few answered requests to compare with");
        };
        let Some(baseline) = past.mean().filter(|mean| *mean > 0.0) else {
            return self.unknown("the baseline answers in no time");
        };
        let ratio = candidate / baseline;
        let is_apart = candidate - baseline >= MEAN_DIFFERENCE_MIN_MICROS;
        let longest = bound((baseline * limit).max(baseline + MEAN_DIFFERENCE_MIN_MICROS));
        let (mean, reference) = (candidate / 1e6, baseline / 1e6);
        let near = if !is_apart && exceeds(ratio, limit) == Some(true) {
            format!(", less than {} apart", text::seconds(MEAN_DIFFERENCE_MIN_MICROS / 1e6))
        } else {
            String::new()
        };
        Measured {
            observed: Some(ratio),
            baseline: Some(reference),
            is_broken: is_apart && exceeds(ratio, limit) == Some(true),
            bad: slower_than(answered, longest),
            requests: answered.count(),
            words: format!(
                "mean latency {} of {} requests is {} the baseline's {} of {} requests{when}{near}",
                text::seconds(mean),
                answered.count(),
                text::times(ratio),
                text::seconds(reference),
                past.count(),
            ),
        }
    }
}

/// The baseline's latencies in the window or, when it got too little traffic in it, all of them.
fn comparable<'a>(window: &'a Arms, whole: &'a Arms) -> Option<(&'a Histogram, &'static str)> {
    let choices = [(window, ""), (whole, " before")];
    let latencies = |(arms, when): (&'a Arms, _)| Some((&arms.baseline.as_ref()?.latency, when));
    let is_enough = |found: &(&Histogram, _)| found.0.count() >= BASELINE_ANSWERS_MIN;
    choices.into_iter().filter_map(latencies).find(is_enough)
}

/// The longest latency that shares the bucket of `micros`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and everything above 71 minutes shares a bucket"
)]
fn bound(micros: f64) -> u64 {
    upper_bound(bucket_of(micros as u64))
}

fn slower_than(latency: &Histogram, micros: u64) -> u64 {
    latency.buckets().filter(|(bound, _)| *bound > micros).map(|(_, count)| count).sum()
}

#[allow(clippy::cast_precision_loss, reason = "below 2^32")]
fn as_seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(count: u64, micros: u64) -> ArmStats {
        let mut latency = Histogram::default();
        (0..count).for_each(|_| latency.record(micros));
        ArmStats { accepted: count, responses: [0, count, 0, 0, 0], latency, ..ArmStats::default() }
    }

    #[test]
    fn a_latency_in_the_limits_bucket_keeps_it() {
        for (micros, is_broken) in [(1_999_000, false), (2_000_000, false), (2_040_000, true)] {
            let arms = Arms { candidate: arm(100, micros), baseline: None };
            let measured = Measure::Quantile(0.95).take(2.0, &arms, &arms);
            assert_eq!(measured.is_broken, is_broken, "{micros}: {}", measured.words);
            assert_eq!(measured.bad, if is_broken { 100 } else { 0 });
            assert_eq!(measured.observed.is_some_and(|seconds| seconds > 2.0), is_broken);
        }
    }

    #[test]
    fn a_baseline_without_traffic_is_compared_by_its_past() {
        let window = Arms { candidate: arm(50, 90_000), baseline: Some(arm(9, 1_000)) };
        let whole = Arms { candidate: arm(60, 90_000), baseline: Some(arm(500, 40_000)) };
        let measured = Measure::MeanRatio.take(2.0, &window, &whole);
        assert!(measured.is_broken, "{}", measured.words);
        assert_eq!(
            measured.words,
            "mean latency 90.11 ms of 50 requests is 2.23x the baseline's 40.45 ms of 500 requests \
             before"
        );
        let unknown = Measure::MeanRatio.take(2.0, &window, &window);
        assert_eq!(unknown.observed, None);
    }

    #[test]
    fn slower_requests_are_those_above_the_ratio_and_apart_from_the_baseline() {
        // 10 ms against 30 ms: the limit is 20 ms, far enough above the baseline to count.
        let mut candidate = arm(10, 30_000);
        (0..10).for_each(|_| candidate.latency.record(15_000));
        let window = Arms { candidate, baseline: Some(arm(50, 10_000)) };
        let measured = Measure::MeanRatio.take(2.0, &window, &window);
        assert!(measured.is_broken, "{}", measured.words);
        assert_eq!((measured.bad, measured.requests), (10, 20));
        assert!(!measured.words.contains("apart"), "{}", measured.words);
    }

    #[test]
    fn a_ratio_above_the_limit_without_a_difference_says_so() {
        let window = Arms { candidate: arm(50, 400), baseline: Some(arm(50, 100)) };
        let measured = Measure::MeanRatio.take(2.0, &window, &window);
        assert!(measured.words.contains("less than"), "{}", measured.words);
        assert_eq!(measured.bad, 0, "none is far enough above the baseline");
        let alike = Measure::MeanRatio.take(5.0, &window, &window);
        assert!(!alike.words.contains("less than"), "{}", alike.words);
    }

    #[test]
    fn a_baseline_that_answers_in_no_time_is_nothing_to_compare_with() {
        let window = Arms { candidate: arm(50, 400), baseline: Some(arm(50, 0)) };
        let measured = Measure::MeanRatio.take(2.0, &window, &window);
        assert_eq!((measured.observed, measured.is_broken), (None, false));
        assert!(measured.words.contains("no time"), "{}", measured.words);
    }

    #[test]
    fn a_ratio_of_next_to_nothing_is_no_regression() {
        let window = Arms { candidate: arm(50, 400), baseline: Some(arm(50, 100)) };
        assert!(!Measure::MeanRatio.take(2.0, &window, &window).is_broken);
        let longer = Arms { candidate: arm(50, 1_900), baseline: Some(arm(50, 600)) };
        assert!(!Measure::MeanRatio.take(2.0, &longer, &longer).is_broken);
    }
}
