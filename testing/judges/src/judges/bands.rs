//! Sequential tests on streams that assume independent requests of one law per version: bands around
//! distribution functions, quantile tests, mixtures of normals (design page, 3.3 and 3.4).

use libm::{log, sqrt};
use switchback_domain::histogram::{BUCKETS, bucket_of};

use super::confseq::{Band, BetaBinomial};
use crate::arm::Drawn;

/// The level of each method.
const ALPHA: f64 = 0.01;
/// The band begins with so many points per version.
const BAND_FROM: f64 = 20.0;
/// Quantiles that are compared, each at a third of alpha, and the points they are tuned for.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
const TUNED_FOR: f64 = 300.0;
/// Scale of the normal mixture: log latencies, and shares of errors.
const TAU_LOG: f64 = 0.18;
const TAU_ERRORS: f64 = 0.005;
/// Points per version before a normal approximation is used.
const POINTS_MIN: f64 = 30.0;

/// Everything a version did so far.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Requests.
    pub requests: f64,
    /// Failed ones.
    pub failed: f64,
    /// Answers by bucket.
    buckets: Vec<u32>,
    answered: f64,
    log_sum: f64,
    log_squares: f64,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            requests: 0.0,
            failed: 0.0,
            buckets: vec![0; BUCKETS],
            answered: 0.0,
            log_sum: 0.0,
            log_squares: 0.0,
        }
    }
}

impl Seen {
    /// Counts requests.
    pub fn add(&mut self, drawn: &Drawn) {
        self.requests += drawn.requests() as f64;
        self.failed += (drawn.failed + drawn.hung) as f64;
        for (micros, count) in &drawn.latencies {
            self.buckets[bucket_of(*micros)] += count;
            let (value, count) = (log(*micros as f64), f64::from(*count));
            self.answered += count;
            self.log_sum += count * value;
            self.log_squares += count * value * value;
        }
    }

    fn log_mean_and_variance(&self) -> (f64, f64) {
        let mean = self.log_sum / self.answered;
        (mean, (self.log_squares / self.answered - mean * mean).max(1e-12))
    }

    fn error_rate(&self) -> f64 {
        self.failed / self.requests.max(1.0)
    }
}

/// A way to compare two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Bands around both distribution functions (Howard and Ramdas), as in Netflix's canaries.
    Bands,
    /// Tests of equal quantiles (Howard and Ramdas, theorem 5).
    Quantiles,
    /// The mixture sequential probability ratio test on mean log latency and on errors (Johari,
    /// Pekelis and Walsh).
    MixtureRatio,
    /// A fixed-sample z-test on both, repeated every ten seconds as if it were the first.
    RepeatedZ,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bands, Self::Quantiles, Self::MixtureRatio, Self::RepeatedZ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bands => "DKW bands",
            Self::Quantiles => "quantile A/B",
            Self::MixtureRatio => "mSPRT",
            Self::RepeatedZ => "repeated z-test",
        }
    }

    /// Whether it looks at errors at all.
    pub const fn sees_errors(self) -> bool {
        match self {
            Self::Bands | Self::Quantiles => false,
            Self::MixtureRatio | Self::RepeatedZ => true,
        }
    }
}

/// The methods' constants.
#[derive(Debug, Clone)]
pub struct Methods {
    band: Band,
    quantiles: Vec<(f64, BetaBinomial)>,
    z: f64,
}

impl Default for Methods {
    fn default() -> Self {
        let level = ALPHA / QUANTILES.len() as f64;
        let mixture = |p: f64| (p, BetaBinomial::new(TUNED_FOR * p * (1.0 - p), level, p, 1.0 - p));
        Self {
            // Half of alpha for each version's band.
            band: Band::new(ALPHA / 2.0, BAND_FROM, 0.85),
            quantiles: QUANTILES.into_iter().map(mixture).collect(),
            z: super::normal_quantile(1.0 - ALPHA / 2.0),
        }
    }
}

impl Methods {
    /// Whether a method finds the candidate worse.
    pub fn fires(&self, method: Method, candidate: &Seen, baseline: &Seen) -> bool {
        match method {
            Method::Bands => self.bands(candidate, baseline),
            Method::Quantiles => {
                let level = log(QUANTILES.len() as f64 / ALPHA);
                self.quantiles.iter().any(|(p, mixture)| {
                    quantile_evidence(*p, mixture, candidate, baseline) >= level
                })
            }
            Method::MixtureRatio => mixture_ratio(candidate, baseline) >= log(2.0 / ALPHA),
            Method::RepeatedZ => z(candidate, baseline) >= self.z,
        }
    }

    fn bands(&self, candidate: &Seen, baseline: &Seen) -> bool {
        let reach = self.band.radius(candidate.answered) + self.band.radius(baseline.answered);
        if !reach.is_finite() {
            return false;
        }
        let (mut new, mut old, mut widest) = (0.0, 0.0, 0.0_f64);
        for (fresh, stale) in candidate.buckets.iter().zip(&baseline.buckets) {
            new += f64::from(*fresh) / candidate.answered;
            old += f64::from(*stale) / baseline.answered;
            widest = widest.max(old - new);
        }
        widest > reach
    }
}

/// Log evidence against equal quantiles, if the candidate's is the higher one: the least sum over
/// all values that the common quantile could have.
fn quantile_evidence(p: f64, mixture: &BetaBinomial, candidate: &Seen, baseline: &Seen) -> f64 {
    if candidate.answered < 1.0 || baseline.answered < 1.0 {
        return f64::NEG_INFINITY;
    }
    let reaches = |seen: &Seen| {
        let mut sum = 0.0;
        seen.buckets.iter().position(|count| {
            sum += f64::from(*count);
            sum >= p * seen.answered
        })
    };
    let (Some(new), Some(old)) = (reaches(candidate), reaches(baseline)) else {
        return f64::NEG_INFINITY;
    };
    if new <= old {
        return f64::NEG_INFINITY;
    }
    let evidence = |seen: &Seen, bucket: usize| {
        let below: u32 = seen.buckets[..bucket].iter().sum();
        let (below, upto) = (f64::from(below), f64::from(below + seen.buckets[bucket]));
        // The share below the value may be anything from one end of the bucket to the other.
        let nearest = (p * seen.answered).clamp(below, upto);
        mixture.log_mixture(nearest - p * seen.answered, p * (1.0 - p) * seen.answered)
    };
    let sum = |bucket: usize| evidence(candidate, bucket) + evidence(baseline, bucket);
    (old..=new).map(sum).fold(f64::INFINITY, f64::min)
}

/// Log evidence of a difference above zero, with variance `v` of its estimate.
fn normal_evidence(difference: f64, v: f64, tau: f64) -> f64 {
    if difference <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let scale = tau * tau;
    0.5 * log(v / (v + scale)) + scale * difference * difference / (2.0 * v * (v + scale))
}

fn mixture_ratio(candidate: &Seen, baseline: &Seen) -> f64 {
    if candidate.answered.min(baseline.answered) < POINTS_MIN {
        return f64::NEG_INFINITY;
    }
    let (latency, latency_variance) = log_difference(candidate, baseline);
    let (errors, errors_variance) = error_difference(candidate, baseline);
    let latency = normal_evidence(latency, latency_variance, TAU_LOG);
    latency.max(normal_evidence(errors, errors_variance, TAU_ERRORS))
}

fn z(candidate: &Seen, baseline: &Seen) -> f64 {
    if candidate.answered.min(baseline.answered) < POINTS_MIN {
        return f64::NEG_INFINITY;
    }
    let (latency, latency_variance) = log_difference(candidate, baseline);
    let (errors, errors_variance) = error_difference(candidate, baseline);
    (latency / sqrt(latency_variance)).max(errors / sqrt(errors_variance))
}

fn log_difference(candidate: &Seen, baseline: &Seen) -> (f64, f64) {
    let (new, new_variance) = candidate.log_mean_and_variance();
    let (old, old_variance) = baseline.log_mean_and_variance();
    (new - old, new_variance / candidate.answered + old_variance / baseline.answered)
}

/// With the variance of the common rate.
fn error_difference(candidate: &Seen, baseline: &Seen) -> (f64, f64) {
    let requests = candidate.requests + baseline.requests;
    let pooled = ((candidate.failed + baseline.failed) / requests).clamp(1e-9, 1.0 - 1e-9);
    let v = pooled * (1.0 - pooled) * (1.0 / candidate.requests + 1.0 / baseline.requests);
    (candidate.error_rate() - baseline.error_rate(), v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(micros: u64, requests: u32, failed: u64) -> Seen {
        let mut seen = Seen::default();
        let latencies = (0..requests).map(|at| (micros + micros * u64::from(at) / 1000, 1));
        let latencies = latencies.collect();
        seen.add(&Drawn { answered: u64::from(requests), failed, hung: 0, latencies });
        seen
    }

    #[test]
    fn each_method_finds_what_is_plain_and_nothing_between_equals() {
        let methods = Methods::default();
        let (same, slow) = (seen(50_000, 900, 1), seen(100_000, 900, 1));
        for method in Method::ALL {
            assert!(methods.fires(method, &slow, &same), "{method:?}");
            assert!(!methods.fires(method, &same, &same), "{method:?}");
            assert!(!methods.fires(method, &same, &slow), "{method:?}");
            let failing = methods.fires(method, &seen(50_000, 900, 90), &same);
            assert_eq!(failing, method.sees_errors(), "{method:?}");
        }
    }
}
