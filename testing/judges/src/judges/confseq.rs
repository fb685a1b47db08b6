//! Boundaries that hold at all times (Howard, Ramdas, `McAuliffe` and Sekhon; Howard and Ramdas), as
//! the library confseq has them: what DKW bands and quantile tests are made of.

use libm::{exp, lgamma, log, sqrt};

/// The best parameter of a normal mixture for an intrinsic time, at a level.
pub fn best_rho(v_opt: f64, alpha: f64) -> f64 {
    v_opt / (2.0 * log(1.0 / alpha) + log(1.0 + 2.0 * log(1.0 / alpha)))
}

/// Log of the two-sided normal mixture.
pub fn normal_mixture(sum: f64, v: f64, rho: f64) -> f64 {
    0.5 * log(rho / (v + rho)) + sum * sum / (2.0 * (v + rho))
}

/// Its boundary at a level.
pub fn normal_bound(v: f64, rho: f64, alpha: f64) -> f64 {
    sqrt((v + rho) * (log(1.0 + v / rho) + 2.0 * log(1.0 / alpha)))
}

/// The two-sided beta-binomial mixture, for sums of centred indicators: `g` below and `h` above.
#[derive(Debug, Clone, Copy)]
pub struct BetaBinomial {
    r: f64,
    g: f64,
    h: f64,
    normalizer: f64,
}

impl BetaBinomial {
    /// Tuned for an intrinsic time at a level.
    pub fn new(v_opt: f64, alpha: f64, g: f64, h: f64) -> Self {
        let r = (best_rho(v_opt, alpha) - g * h).max(1e-3 * g * h);
        let normalizer = ln_beta(r / (g * (g + h)), r / (h * (g + h)));
        Self { r, g, h, normalizer }
    }

    /// Log of the mixture.
    pub fn log_mixture(&self, sum: f64, v: f64) -> f64 {
        let Self { r, g, h, normalizer } = *self;
        let all = g + h;
        v / (g * h) * log(all)
            - (v + h * sum) / (h * all) * log(g)
            - (v - g * sum) / (g * all) * log(h)
            + ln_beta((r + v - g * sum) / (g * all), (r + v + h * sum) / (h * all))
            - normalizer
    }

    /// Its boundary at a level.
    pub fn bound(&self, v: f64, alpha: f64) -> f64 {
        let (mut low, mut high) = (0.0, v / self.g);
        for _ in 0..200 {
            let middle = f64::midpoint(low, high);
            if self.log_mixture(middle, v) < log(1.0 / alpha) {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high)
    }
}

fn ln_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}

/// The radius of a band around an empirical distribution function that holds at all sample sizes
/// from `t_min` on.
#[derive(Debug, Clone, Copy)]
pub struct Band {
    t_min: f64,
    a: f64,
    c: f64,
}

impl Band {
    /// A band at a level, with the leading constant `a` (0.85).
    pub fn new(alpha: f64, t_min: f64, a: f64) -> Self {
        let (mut low, mut high) = (2.0, 60.0);
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if least_error(middle, a) > alpha {
                low = middle;
            } else {
                high = middle;
            }
        }
        Self { t_min, a, c: f64::midpoint(low, high) }
    }

    /// The radius for `t` points.
    pub fn radius(&self, t: f64) -> f64 {
        if t < self.t_min {
            return f64::INFINITY;
        }
        self.a * sqrt((log(1.0 + log(t / self.t_min)) + self.c) / t)
    }
}

/// The error probability of the constant `c`, with the best spacing of epochs.
fn least_error(c: f64, a: f64) -> f64 {
    let error = |eta: f64| {
        let root = a - sqrt(2.0 * (eta - 1.0) / c);
        let gamma = 2.0 / eta * root * root;
        if root <= 0.0 || gamma <= 1.0 {
            return f64::INFINITY;
        }
        4.0 * exp(-gamma * c) * (1.0 + 1.0 / ((gamma - 1.0) * log(eta)))
    };
    // The largest spacing that is any good, then a golden section (the error has one dip).
    let (mut low, mut high) = (1.0, 2.0 * a * a);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        let is_good = sqrt(middle / 2.0) + sqrt(2.0 * (middle - 1.0) / c) < a;
        if is_good {
            low = middle;
        } else {
            high = middle;
        }
    }
    let (mut left, mut right) = (1.0, low);
    let part = 0.5 * (sqrt(5.0) - 1.0);
    for _ in 0..120 {
        let (one, two) = (right - part * (right - left), left + part * (right - left));
        if error(one) < error(two) {
            right = two;
        } else {
            left = one;
        }
    }
    error(f64::midpoint(left, right))
}
