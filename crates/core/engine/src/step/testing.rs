//! Values for the tests of the machine; [`Story`] tells whole rollouts as events.

mod story;

pub(crate) use story::{Story, verdict, version_of};

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_domain::probe::{HealthChecks, Probe, ProbeAction};
use switchback_domain::strategy::{
    AnalysisStep, BusyPolicy, FailureAction, Hook, RolloutPolicy, Step, StrategyKind,
};
use switchback_domain::trigger::{Thresholds, Triggers};
use switchback_domain::workload::RuntimeKind;
use switchback_domain::{
    EnvironmentName, Release, ServiceKey, ServiceName, Version, Weight, Workload,
};

pub(crate) fn key() -> ServiceKey {
    ServiceKey::new(EnvironmentName::new("production").unwrap(), ServiceName::new("api").unwrap())
}

pub(crate) fn release(version: &str) -> Release {
    let readiness = Probe {
        action: ProbeAction::Tcp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        healthy_after: 1,
        unhealthy_after: 3,
    };
    let workload = Workload {
        runtime: RuntimeKind::Process,
        command: vec!["./api".to_owned()],
        working_dir: "/srv".to_owned(),
        env: BTreeMap::new(),
        config: Vec::new(),
        health: HealthChecks {
            startup: None,
            liveness: None,
            readiness,
            min_healthy_time: Duration::ZERO,
        },
        route: None,
        stop_timeout: Duration::from_secs(10),
    };
    Release::new(key(), Version::new(version).unwrap(), workload)
}

pub(crate) fn policy(strategy: StrategyKind) -> RolloutPolicy {
    RolloutPolicy {
        replicas: 2,
        strategy,
        steps: match strategy {
            StrategyKind::Rolling => Vec::new(),
            StrategyKind::BlueGreen | StrategyKind::Canary => {
                [25, 100].map(|p| Step::SetWeight(Weight::from_percent(p))).to_vec()
            }
        },
        max_surge: 1,
        max_unavailable: 0,
        progress_deadline: Duration::from_mins(1),
        drain_timeout: Duration::from_secs(30),
        scale_down_delay: Duration::from_secs(30),
        failure_action: FailureAction::Rollback,
        auto_promote: true,
        on_busy: BusyPolicy::Queue,
        triggers: Triggers::default(),
        exact_test: None,
        smoke_tests: Vec::new(),
        revision_history_limit: 3,
    }
}

/// A canary with a verdict of a minute at 25 % and at 100 %.
pub(crate) fn judged_canary() -> RolloutPolicy {
    let weight = |percent| Step::SetWeight(Weight::from_percent(percent));
    let steps = vec![weight(25), analysis(60), weight(100), analysis(60)];
    RolloutPolicy { steps, ..policy(StrategyKind::Canary) }
}

pub(crate) fn analysis(seconds: u64) -> Step {
    let thresholds = Thresholds {
        success_rate_min: None,
        error_rate_max: Some(0.01),
        latency_p95_max: None,
        latency_p99_max: None,
        latency_ratio_max: None,
        samples_min: 10,
        metrics: Vec::new(),
    };
    Step::Analysis(AnalysisStep { duration: Duration::from_secs(seconds), thresholds })
}

pub(crate) fn hook(name: &str) -> Hook {
    let argv = vec!["./check".to_owned()];
    Hook { name: name.to_owned(), argv, timeout: Duration::from_secs(5) }
}
