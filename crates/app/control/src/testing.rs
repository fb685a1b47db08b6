//! Values for the tests of the control plane.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_domain::probe::{HealthChecks, Probe, ProbeAction};
use switchback_domain::route::RouteRules;
use switchback_domain::strategy::{BusyPolicy, FailureAction, RolloutPolicy, StrategyKind};
use switchback_domain::tls::UpstreamSpec;
use switchback_domain::trigger::{ExactTest, Triggers};
use switchback_domain::workload::{RouteSpec, RuntimeKind};
use switchback_domain::{
    EnvironmentName, Finding, InstanceHealth, InstanceId, InstanceReport, Outcome, ProjectName,
    Release, ReleaseId, ServiceKey, ServiceName, Timestamp, Verdict, Version, Workload,
};
use switchback_engine::{Pool, Request, RequestKind, Revision, RolloutId, Service};
use switchback_ports::runtime::{Instance, InstanceSpec, ProcessState};

pub(crate) fn checks() -> HealthChecks {
    HealthChecks {
        startup: None,
        liveness: None,
        readiness: Probe {
            action: ProbeAction::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy_after: 1,
            unhealthy_after: 3,
        },
        min_healthy_time: Duration::ZERO,
    }
}

pub(crate) fn release(version: &str) -> Release {
    let workload = Workload {
        runtime: RuntimeKind::Process,
        command: vec!["/bin/true".to_owned()],
        working_dir: "/".to_owned(),
        env: BTreeMap::new(),
        config: Vec::new(),
        health: checks(),
        route: Some(RouteSpec {
            listen: "127.0.0.1:8080".parse().unwrap(),
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            timeout: Duration::from_secs(30),
            rules: RouteRules::default(),
            tls: None,
            upstream: UpstreamSpec::default(),
        }),
        stop_timeout: Duration::from_secs(1),
    };
    let key =
        ServiceKey::new(EnvironmentName::new("default").unwrap(), ServiceName::new("api").unwrap());
    Release::new(key, Version::new(version).unwrap(), workload)
}

pub(crate) fn instance() -> Instance {
    let release = release("v1");
    Instance {
        spec: InstanceSpec {
            id: InstanceId::new(&release.key, &release.id, 0),
            project: ProjectName::new("shop").unwrap(),
            key: release.key.clone(),
            release: release.id.clone(),
            version: release.version.clone(),
            workload: release.workload.clone(),
        },
        address: Some("127.0.0.1:20000".parse().unwrap()),
        process: ProcessState::Running { pid: 1 },
        restarts: 0,
        last_exit: None,
    }
}

pub(crate) fn revision(release: &ReleaseId) -> Revision {
    let policy = RolloutPolicy {
        replicas: 1,
        strategy: StrategyKind::Canary,
        steps: Vec::new(),
        max_surge: 1,
        max_unavailable: 0,
        progress_deadline: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(1),
        scale_down_delay: Duration::ZERO,
        failure_action: FailureAction::Rollback,
        auto_promote: true,
        on_busy: BusyPolicy::Queue,
        triggers: Triggers::default(),
        exact_test: ExactTest::default_of_a_policy(),
        smoke_tests: Vec::new(),
        revision_history_limit: 3,
    };
    let release = release.clone();
    Revision { number: 1, release, policy, promoted_at: Timestamp::default(), wall_ms: 0 }
}

/// Asks for a release, with the policy that its first revision has.
pub(crate) fn request(id: RolloutId, release: Release) -> Request {
    Request {
        id,
        kind: RequestKind::Deploy,
        policy: revision(&release.id).policy,
        release,
        accept_no_rollback: false,
        by: "test".to_owned(),
        asked_at: Timestamp::default(),
        wall_ms: 0,
    }
}

/// A service with one instance of each version, which are as said; none has traffic.
pub(crate) fn serving(healths: &[(&str, InstanceHealth)]) -> Service {
    let mut service = Service::new(release("v1").key);
    for (version, health) in healths {
        let release = release(version);
        let report = InstanceReport {
            id: InstanceId::new(&release.key, &release.id, 0),
            address: Some("127.0.0.1:20000".parse().unwrap()),
            health: *health,
            restarts: 0,
            reason: None,
        };
        let pool = Pool { desired: 1, instances: vec![report] };
        service.pools.insert(release.id.clone(), pool);
        service.releases.insert(release.id.clone(), release);
    }
    service
}

/// What a judge says because of one rule.
pub(crate) fn said(outcome: Outcome, rule: &str) -> Verdict {
    let finding = Finding {
        rule: rule.to_owned(),
        outcome,
        observed: None,
        limit: 0.0,
        baseline: None,
        summary: String::new(),
    };
    Verdict {
        outcome,
        findings: vec![finding],
        candidate_requests: 0,
        candidate_failed: 0,
        baseline_requests: 0,
        baseline_failed: 0,
    }
}
