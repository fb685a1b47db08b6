//! The error budget of a rollout: how alpha is divided between families of metrics, how the
//! metrics of one family are added up, and which of them is to blame.

use serde::{Deserialize, Serialize};

use crate::math::{exact, ln, ln_sum_exp};

/// Families besides the randomized requests that have metrics in this rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Families {
    /// Processor, memory and other gauges of instances.
    pub gauges: bool,
    /// Series the user names.
    pub custom: bool,
}

/// Alpha per family. The families rest on different information, so that their evidence may not
/// be averaged (Choe and Ramdas); a union bound is always valid: the parts sum to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    #[serde(with = "exact")]
    alpha: f64,
    families: Families,
}

/// A tenth each for gauges and custom series (design page, 9), the rest for requests.
const FAMILY_SHARE: f64 = 0.1;

impl Budget {
    /// Divides `alpha`, the chance that a healthy rollout is ever taken back. A family without
    /// metrics leaves its part to the requests.
    pub fn new(alpha: f64, families: Families) -> Self {
        Self { alpha, families }
    }

    /// The part of the randomized requests.
    pub fn requests(self) -> f64 {
        self.alpha - self.gauges() - self.custom()
    }

    /// The part of all gauges together.
    pub fn gauges(self) -> f64 {
        if self.families.gauges { self.alpha * FAMILY_SHARE } else { 0.0 }
    }

    /// The part of all custom series together.
    pub fn custom(self) -> f64 {
        if self.families.custom { self.alpha * FAMILY_SHARE } else { 0.0 }
    }
}

/// Log evidence at which a test at level `alpha` decides (Ville's inequality).
pub fn line(alpha: f64) -> f64 {
    -ln(alpha)
}

/// One metric's part of a family: its share of the capital, and its log evidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Shares of a family sum to at most 1 and are fixed before the first request.
    pub share: f64,
    /// Log evidence against the metric's null.
    pub ln_evidence: f64,
}

/// Log evidence against "no metric of the family regressed": the weighted sum. Metrics of the same
/// requests share one history, so their average is again an e-process; leaving one out only lowers
/// it.
pub fn together(parts: &[Part]) -> f64 {
    ln_sum_exp(parts.iter().map(|part| ln(part.share) + part.ln_evidence))
}

/// Metrics a family is searched for blame in; more are not blamed, only summed.
const BLAMED_MAX: usize = 12;

/// Which metrics are to blame at level `alpha`, each with a chance of at most `alpha` that any is
/// blamed falsely: closed testing, where a set of metrics is tested by its weighted mean. For
/// reports at the moment of a decision, not for deciding.
pub fn blamed(parts: &[Part], alpha: f64) -> Vec<bool> {
    let members = parts.len().min(BLAMED_MAX);
    let line = line(alpha);
    let is_refuted = |set: u32| {
        let of = || parts.iter().enumerate().filter(move |(at, _)| set >> at & 1 == 1);
        let share: f64 = of().map(|(_, part)| part.share).sum();
        let sum = ln_sum_exp(of().map(|(_, part)| ln(part.share) + part.ln_evidence));
        sum - ln(share) >= line
    };
    let refuted: Vec<bool> = (0..1_u32 << members).map(is_refuted).collect();
    let holds = |at: usize| {
        let mut sets = refuted.iter().enumerate().filter(|(set, _)| set >> at & 1 == 1);
        sets.all(|(_, refuted)| *refuted)
    };
    (0..parts.len()).map(|at| at < members && holds(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_sum_to_alpha_whoever_is_there() {
        for (gauges, custom) in [(false, false), (true, false), (false, true), (true, true)] {
            let budget = Budget::new(0.01, Families { gauges, custom });
            let sum = budget.requests() + budget.gauges() + budget.custom();
            assert!((sum - 0.01).abs() < 1e-15);
            assert!(budget.requests() >= 0.008 - 1e-15);
        }
        let all = Budget::new(0.01, Families { gauges: true, custom: true });
        // Errors alone have to reach ln(1 / 0.004) = 5.52 (design page, 9).
        assert!((line(all.requests() * 0.5) - 5.52).abs() < 0.005);
    }

    #[test]
    fn a_familys_evidence_is_the_weighted_mean() {
        let parts = [
            Part { share: 0.5, ln_evidence: 100.0_f64.ln() },
            Part { share: 0.5, ln_evidence: 0.0 },
        ];
        assert!((together(&parts).exp() - 50.5).abs() < 1e-9);
    }

    #[test]
    fn blame_needs_every_set_with_the_metric_to_be_refuted() {
        let part = |evidence: f64| Part { share: 0.5, ln_evidence: evidence.ln() };
        assert_eq!(blamed(&[part(1000.0), part(1.0)], 0.01), [true, false]);
        assert_eq!(blamed(&[part(150.0), part(1.0)], 0.01), [false, false]);
        assert_eq!(blamed(&[part(150.0), part(150.0)], 0.01), [true, true]);
    }
}
