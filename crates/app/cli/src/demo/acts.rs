//! The six rollouts of the demo, and how fast they go.

use std::net::SocketAddr;
use std::time::Duration;

use switchback_api::{Problem, RolloutOutcome, code};
use switchback_demo::load::LoadOptions;
use switchback_domain::Version;
use switchback_domain::strategy::StrategyKind;

/// One rollout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    pub(super) version: &'static str,
    pub(super) strategy: StrategyKind,
    pub(super) story: &'static str,
    /// How it must end.
    pub(super) expected: RolloutOutcome,
    /// Requests that it may fail, at most, if time is given.
    pub(super) failed_max: u64,
}

/// How every version behaves that is not told otherwise: long enough that the machine's noise is
/// small beside it.
pub(super) const BEHAVIOUR: [&str; 3] = ["latency=40ms", "v3:error_rate=0.05", "v4:latency=80ms"];

pub(super) const ACTS: [Act; 6] = [
    act("v1", StrategyKind::Canary, "the first version: nothing served before", true),
    act("v2", StrategyKind::Canary, "a good version", true),
    act("v3", StrategyKind::Canary, "fails one request in twenty", false),
    act("v4", StrategyKind::Canary, "takes twice as long", false),
    act("v5", StrategyKind::BlueGreen, "a good version, beside the old one", true),
    act("v6", StrategyKind::Rolling, "a good version, one instance after another", true),
];

const fn act(
    version: &'static str,
    strategy: StrategyKind,
    story: &'static str,
    good: bool,
) -> Act {
    let expected = if good { RolloutOutcome::Promoted } else { RolloutOutcome::RolledBack };
    Act { version, strategy, story, expected, failed_max: if good { 0 } else { 10 } }
}

impl Act {
    pub(super) fn is_first(&self) -> bool {
        self.version == ACTS[0].version
    }

    pub(super) fn version(&self) -> Result<Version, Problem> {
        Version::new(self.version).map_err(|error| code::INTERNAL.problem(error.to_string()))
    }

    pub(super) fn strategy_word(&self) -> &'static str {
        match self.strategy {
            StrategyKind::Rolling => "rolling",
            StrategyKind::BlueGreen => "blue-green",
            StrategyKind::Canary => "canary",
        }
    }

    fn weights(&self) -> &'static [u8] {
        match self.strategy {
            StrategyKind::Rolling => &[],
            StrategyKind::BlueGreen => &[10, 25, 50, 100],
            StrategyKind::Canary => &[5, 25, 50, 100],
        }
    }

    /// The act's `strategy:` as it stands in the configuration. Its thresholds are so wide that they
    /// let every version pass: what takes the bad ones back is the exact test.
    pub(super) fn strategy_lines(&self, pace: Pace) -> String {
        let kind = self.strategy_word();
        let analysis = format!(
            "{{analysis: {{duration: {}ms, success_rate: 80%, error_rate: 20%, \
             latency_ratio: 4.0, min_samples: {}}}}}",
            pace.analysis.as_millis(),
            pace.samples_min
        );
        let steps = match self.weights() {
            [] => format!("        - {analysis}\n"),
            weights => weights
                .iter()
                .map(|weight| {
                    format!("        - {{set_weight: {weight}%}}\n        - {analysis}\n")
                })
                .collect::<Vec<_>>()
                .concat(),
        };
        format!(
            "    rollback: {{exact_test: {{warm_up: 0s}}}}\n    strategy:\n      type: {kind}\n      \
             steps:\n{steps}"
        )
    }
}

/// How fast the demo goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Time of one analysis.
    pub(super) analysis: Duration,
    /// Requests of the candidate that an analysis needs.
    pub(super) samples_min: u32,
    /// Requests a second.
    pub(super) rate: u32,
    /// Requests in the ledger at the end.
    pub(super) requests_min: u64,
    /// Whether a bad version is found at the first weight, and so within few failed requests.
    pub(super) is_thorough: bool,
}

impl Pace {
    /// 50,000 requests: enough to say something with.
    pub(super) const NORMAL: Self = Self {
        analysis: Duration::from_secs(3),
        samples_min: 120,
        rate: 1200,
        requests_min: 52_000,
        is_thorough: true,
    };
    /// For tests and the impatient.
    pub(super) const FAST: Self = Self {
        analysis: Duration::from_millis(1200),
        samples_min: 40,
        rate: 800,
        requests_min: 10_000,
        is_thorough: false,
    };

    pub(super) fn load(self, address: SocketAddr) -> LoadOptions {
        LoadOptions {
            rate_per_second: self.rate,
            connections: 128,
            post_share: 0.2,
            duration_max: Duration::from_mins(5),
            ..LoadOptions::new(address)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_has_steps_that_the_configuration_understands() {
        for act in &ACTS {
            let text = act.strategy_lines(Pace::NORMAL);
            assert!(text.contains(act.strategy_word()) && text.contains("analysis"), "{text}");
        }
        assert!(ACTS[0].is_first() && !ACTS[1].is_first());
    }
}
