//! Values for the tests of the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_domain::probe::{HealthChecks, Probe, ProbeAction};
use switchback_domain::strategy::{BusyPolicy, FailureAction, RolloutPolicy, Step, StrategyKind};
use switchback_domain::trigger::Triggers;
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
        progress_deadline: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(30),
        scale_down_delay: Duration::from_secs(30),
        failure_action: FailureAction::Rollback,
        auto_promote: true,
        on_busy: BusyPolicy::Queue,
        triggers: Triggers::default(),
        smoke_tests: Vec::new(),
        revision_history_limit: 3,
    }
}
