//! What was aimed at, figure by figure.

use std::collections::BTreeMap;

/// A bound on a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
}

/// A figure to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Its name among the figures.
    pub figure: &'static str,
    /// What it is.
    pub words: &'static str,
    /// Where it should be.
    pub bound: Bound,
}

const fn most(figure: &'static str, words: &'static str, bound: f64) -> Goal {
    Goal { figure, words, bound: Bound::AtMost(bound) }
}

const fn least(figure: &'static str, words: &'static str, bound: f64) -> Goal {
    Goal { figure, words, bound: Bound::AtLeast(bound) }
}

/// All of them.
pub const GOALS: [Goal; 37] = [
    most("errors_1_requests", "0.1 -> 1 % errors: candidate requests", 480.0),
    most("errors_1_failed", "0.1 -> 1 % errors: failed ones", 5.0),
    most("errors_5_requests", "0.1 -> 5 % errors: candidate requests", 60.0),
    most("errors_5_failed", "0.1 -> 5 % errors: failed ones", 3.0),
    most("latency_1.2_requests", "latency x1.2, before the cap: candidate requests", 290.0),
    most("latency_1.2_requests_capped", "latency x1.2, as it ships: candidate requests", 290.0),
    most("latency_2_requests", "latency x2, before the cap: candidate requests", 20.0),
    most("tail_requests", "1 % of requests x10, before the cap: candidate requests", 520.0),
    most("tail_requests_capped", "1 % of requests x10, as it ships: candidate requests", 520.0),
    most("hang_failed", "all hang: candidate requests judged", 6.0),
    most("false_upper", "false rollbacks where the guarantee holds: worst upper bound, %", 1.0),
    most("false_together_upper", "the same, all these runs together: upper bound, %", 1.0),
    most("pauses_upper", "pauses of 300 ms, 3 replicas: upper bound, %", 1.0),
    most("noise_upper", "replica noise 5 %, 3 replicas: upper bound, %", 1.0),
    least("errors_1_vs_documented", "0.1 -> 1 % errors: times faster than documented", 100.0),
    least("errors_5_vs_documented", "0.1 -> 5 % errors: times faster than documented", 100.0),
    least("latency_1.2_vs_documented", "latency x1.2: times faster than documented", 100.0),
    least("latency_2_vs_documented", "latency x2: times faster than documented", 100.0),
    least("tail_vs_documented", "1 % of requests x10: times faster than documented", 100.0),
    least("hang_vs_documented", "all hang: times faster than documented", 100.0),
    least("errors_1_vs_tuned", "0.1 -> 1 % errors: times faster than tuned", 7.0),
    least("errors_5_vs_tuned", "0.1 -> 5 % errors: times faster than tuned", 7.0),
    least("latency_1.2_vs_tuned", "latency x1.2: times faster than tuned", 7.0),
    least("latency_2_vs_tuned", "latency x2: times faster than tuned", 7.0),
    least("tail_vs_tuned", "1 % of requests x10: times faster than tuned", 7.0),
    least("hang_vs_tuned", "all hang: times faster than tuned", 7.0),
    least("errors_5_failed_vs_documented", "0.1 -> 5 % errors: times fewer failed requests", 300.0),
    most("errors_1_wald", "0.1 -> 1 % errors: mean requests over the Wald bound", 1.5),
    most("latency_1.2_wald", "latency x1.2: mean requests over the Wald bound", 1.5),
    most("errors_1_wald_half", "0.1 -> 1 % errors: the same over the bound at half of alpha", 1.5),
    most("latency_1.2_wald_half", "latency x1.2: the same over the bound at half of alpha", 1.5),
    most("safe_seconds", "certified safe at 25 %: seconds", 60.0),
    most("request_nanos", "judge cost per request, in the data plane's path, ns", 15.0),
    most("tick_micros", "judge cost per tick, us (median)", 10.0),
    most("tick_micros_mean", "judge cost per tick, us (mean with refits)", 10.0),
    most("tick_micros_p99", "judge cost per tick, us (p99)", 10.0),
    most("bytes", "bytes of state per rollout", 65_536.0),
];

impl Goal {
    /// Whether it was reached; `None` if it was not measured.
    pub fn is_reached(&self, figures: &BTreeMap<String, f64>) -> Option<bool> {
        let value = *figures.get(self.figure)?;
        Some(match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        })
    }
}
