//! What is aimed at, figure by figure.

/// A bound on a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One line of the table of goals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    pub(super) benchmark: &'static str,
    /// The figure's name.
    pub(super) figure: &'static str,
    pub(super) words: &'static str,
    bound: Bound,
}

/// Whether a goal was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Reached,
    Missed,
    Unknown,
}

const fn proxy(figure: &'static str, words: &'static str, bound: Bound) -> Goal {
    Goal { benchmark: "proxy", figure, words, bound }
}

const fn switch(figure: &'static str, words: &'static str, bound: Bound) -> Goal {
    Goal { benchmark: "switch", figure, words, bound }
}

pub(super) const GOALS: [Goal; 23] = [
    proxy("throughput_vs_nginx", "10,000 routes: throughput / nginx", Bound::AtLeast(1.20)),
    proxy("throughput_vs_haproxy", "10,000 routes: throughput / HAProxy", Bound::AtLeast(1.15)),
    proxy("cpu_vs_nginx", "10,000 routes: CPU per request / nginx", Bound::AtMost(0.75)),
    proxy("cpu_vs_haproxy", "10,000 routes: CPU per request / HAProxy", Bound::AtMost(0.72)),
    proxy("p99_vs_nginx", "10,000 routes: p99 / nginx", Bound::AtMost(0.80)),
    proxy("p99_vs_haproxy", "10,000 routes: p99 / HAProxy", Bound::AtMost(1.0)),
    proxy("p99_4_vs_nginx", "4 connections: p99 / nginx", Bound::AtMost(1.05)),
    proxy("throughput_100k_vs_nginx", "100 KiB: throughput / nginx", Bound::AtLeast(1.35)),
    proxy("throughput_100k_vs_haproxy", "100 KiB: throughput / HAProxy", Bound::AtLeast(1.10)),
    proxy("throughput_h2_vs_nginx", "HTTP/2: throughput / nginx", Bound::AtLeast(1.0)),
    proxy("throughput_plain_vs_kamal", "one route: throughput / kamal-proxy", Bound::AtLeast(3.0)),
    proxy("idle_bytes_ours", "bytes per idle connection", Bound::AtMost(1_100.0)),
    proxy("accounting_ns", "ns to account for a request", Bound::AtMost(120.0)),
    proxy("routes_mb_ours", "MB with 10,000 routes, after load", Bound::AtMost(20.0)),
    switch("switch_failed_ours", "failed requests", Bound::AtMost(0.0)),
    switch("switch_closed_ours", "closed connections", Bound::AtMost(0.0)),
    switch(
        "switch_last_old_p99_ms_ours",
        "command to last request on the old version, p99, ms",
        Bound::AtMost(1.0),
    ),
    switch(
        "switch_last_old_p99_ms_ours_10k",
        "the same with 10,000 routes, p99, ms",
        Bound::AtMost(25.0),
    ),
    switch("switch_failed_ours_10k", "failed requests with 10,000 routes", Bound::AtMost(0.0)),
    switch("upgrade_failed_ours", "upgrades of itself: failed requests", Bound::AtMost(0.0)),
    switch("upgrade_closed_ours", "upgrades of itself: closed connections", Bound::AtMost(0.0)),
    switch("upgrade_idle_10000_ms", "10,000 resting connections moved, ms", Bound::AtMost(300.0)),
    switch("upgrade_idle_closed", "the same: closed connections", Bound::AtMost(0.0)),
];

impl Goal {
    /// Whether `value` is within the bound.
    pub(super) fn judge(&self, value: Option<f64>) -> Verdict {
        let Some(value) = value else { return Verdict::Unknown };
        let good = match self.bound {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        };
        if good { Verdict::Reached } else { Verdict::Missed }
    }

    /// The bound in words.
    pub(super) fn bound(&self) -> String {
        match self.bound {
            Bound::AtLeast(least) => format!("at least {}", super::report::number(least)),
            Bound::AtMost(most) => format!("at most {}", super::report::number(most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_at_their_edge() {
        let least = proxy("x", "x", Bound::AtLeast(1.2));
        let most = proxy("x", "x", Bound::AtMost(0.0));
        assert_eq!(least.judge(Some(1.2)), Verdict::Reached);
        assert_eq!(least.judge(Some(1.19)), Verdict::Missed);
        assert_eq!(most.judge(Some(0.0)), Verdict::Reached);
        assert_eq!(most.judge(Some(1.0)), Verdict::Missed);
        assert_eq!(most.judge(None), Verdict::Unknown);
        assert_eq!(least.bound(), "at least 1.20");
    }
}
