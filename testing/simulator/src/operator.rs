//! People: whatever policies and requests they may think of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use switchback_domain::probe::{HealthChecks, Probe, ProbeAction};
use switchback_domain::route::{Destination, Maintenance, PauseLimits, RouteMode, RouteRules};
use switchback_domain::strategy::{
    AnalysisStep, BusyPolicy, FailureAction, Hook, RolloutPolicy, Step, StrategyKind,
};
use switchback_domain::tls::UpstreamSpec;
use switchback_domain::trigger::{ExactTest, Threshold, Thresholds, Triggers};
use switchback_domain::workload::{RouteSpec, RuntimeKind};
use switchback_domain::{Release, ReleaseId, ServiceKey, Version, Weight, Workload};
use switchback_engine::{Command, Service};

use crate::random::Random;

/// The shortest drain timeout that is drawn, in milliseconds.
pub(crate) const DRAIN_LEAST: u32 = 1_000;

/// A version of the service. Its id is readable, because timelines are for people.
pub(crate) fn release(key: &ServiceKey, number: u32, port: u16) -> Release {
    let second = Duration::from_secs(1);
    let readiness = Probe {
        action: ProbeAction::Tcp,
        interval: second,
        timeout: second,
        healthy_after: 1 + number % 2,
        unhealthy_after: 1 + number % 3,
    };
    let route = RouteSpec {
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], port)),
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        timeout: Duration::from_secs(30),
        rules: RouteRules::default(),
        tls: None,
        upstream: UpstreamSpec::default(),
    };
    let workload = Workload {
        runtime: RuntimeKind::Process,
        command: vec!["api".to_owned()],
        working_dir: "/srv".to_owned(),
        env: BTreeMap::new(),
        config: Vec::new(),
        health: HealthChecks {
            startup: None,
            liveness: None,
            readiness,
            min_healthy_time: Duration::ZERO,
        },
        route: Some(route),
        stop_timeout: Duration::from_secs(5),
    };
    let version = Version::new(format!("v{number}")).expect("a letter and digits");
    let id = ReleaseId::from_stored(version.as_str());
    Release { id, key: key.clone(), version, workload: Arc::new(workload) }
}

/// Any policy that the configuration would let pass.
pub(crate) fn policy(random: &mut Random) -> RolloutPolicy {
    let strategy =
        *random.pick(&[StrategyKind::Rolling, StrategyKind::BlueGreen, StrategyKind::Canary]);
    let replicas = random.between(1, 4);
    let smoke_tests = if random.chance(300) { vec![hook("smoke", random)] } else { Vec::new() };
    RolloutPolicy {
        replicas,
        strategy,
        steps: steps(strategy, random),
        max_surge: random.between(1, 2),
        max_unavailable: random.between(0, replicas.min(2)),
        progress_deadline: random.millis(20_000, 90_000),
        drain_timeout: random.millis(DRAIN_LEAST, 12_000),
        scale_down_delay: random.millis(0, 20_000),
        failure_action: match random.between(0, 9) {
            0 => FailureAction::Pause,
            1 => FailureAction::Continue,
            _ => FailureAction::Rollback,
        },
        auto_promote: random.chance(850),
        on_busy: match random.between(0, 9) {
            0..=5 => BusyPolicy::Queue,
            6 | 7 => BusyPolicy::Supersede,
            _ => BusyPolicy::Refuse,
        },
        triggers: triggers(random),
        exact_test: random.chance(120).then(|| exact_test(random)),
        smoke_tests,
        revision_history_limit: random.between(1, 4),
    }
}

fn steps(strategy: StrategyKind, random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    for percent in [5, 25, 50, 100] {
        let is_last = percent == 100;
        let has_weight = strategy != StrategyKind::Rolling && (is_last || random.chance(500));
        if has_weight {
            steps.push(Step::SetWeight(Weight::from_percent(percent)));
        }
        if has_weight || random.chance(100) {
            steps.extend(between_weights(random));
        }
    }
    steps
}

fn between_weights(random: &mut Random) -> Option<Step> {
    match random.between(0, 19) {
        0..=8 => Some(analysis(random)),
        9..=12 => Some(Step::Pause { duration_ms: Some(u64::from(random.between(100, 15_000))) }),
        13 => Some(Step::Pause { duration_ms: None }),
        14 => Some(Step::Approve),
        15 | 16 => Some(Step::Hook(hook("hook", random))),
        _ => None,
    }
}

/// Sometimes a rule that holds at every moment.
fn triggers(random: &mut Random) -> Triggers {
    let limit = Threshold { threshold: 0.1, window: random.millis(10_000, 30_000) };
    Triggers {
        error_rate: random.chance(200).then_some(limit),
        response_time: random.chance(100).then_some(Threshold { threshold: 2.0, ..limit }),
        memory_usage: random.chance(50).then_some(Threshold { threshold: 3e8, ..limit }),
        ..Triggers::default()
    }
}

fn exact_test(random: &mut Random) -> ExactTest {
    let alpha = *random.pick(&[0.01, 0.05]);
    ExactTest { alpha, warm_up: random.millis(0, 5_000), ..ExactTest::DEFAULT }
}

fn analysis(random: &mut Random) -> Step {
    let thresholds = Thresholds {
        success_rate_min: None,
        error_rate_max: Some(0.05),
        latency_p95_max: None,
        latency_p99_max: None,
        latency_ratio_max: None,
        samples_min: 10,
        metrics: Vec::new(),
    };
    Step::Analysis(AnalysisStep { duration: random.millis(4_000, 20_000), thresholds })
}

fn hook(name: &str, random: &mut Random) -> Hook {
    let argv = vec!["./check".to_owned()];
    Hook { name: name.to_owned(), argv, timeout: random.millis(1_000, 20_000) }
}

/// Any command.
pub(crate) fn command(random: &mut Random) -> Command {
    let by = "ada".to_owned();
    match random.between(0, 9) {
        0..=2 => Command::Promote { full: random.chance(400), by },
        3..=5 => Command::Pause { by, reason: None },
        6..=8 => Command::Resume { by },
        _ => Command::Abort { by, reason: None },
    }
}

/// Something else for a route to do than to serve, or that again.
pub(crate) fn mode(service: &Service, random: &mut Random) -> RouteMode {
    let known: Vec<_> = service.pools.keys().cloned().collect();
    match random.between(0, 7) {
        0 => RouteMode::Maintenance(Maintenance::default()),
        1 => RouteMode::Isolate,
        2 => RouteMode::Pause(PauseLimits::default()),
        3 | 4 if !known.is_empty() => {
            RouteMode::Divert { to: Destination::Version(random.pick(&known).clone()) }
        }
        _ => RouteMode::Serve,
    }
}
