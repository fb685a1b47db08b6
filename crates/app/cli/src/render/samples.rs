//! Records for tests of rendering.

use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::{ArmBatch, Batch, Settings};
use switchback_api::{
    ControlStatus, DataPlaneStatus, DeedEntry, InstanceStatus, LastWords, Ledger, LedgerEntry,
    LogEntry, Plan, RevisionStatus, RolloutDetail, RolloutEvent, RolloutOutcome, RolloutSummary,
    ServiceStatus, Share, Status, TrialRecord,
};
use switchback_domain::strategy::StrategyKind;
use switchback_domain::{
    ArmStats, Finding, Histogram, InstanceHealth, InstanceId, InstanceReport, Outcome, ServiceKey,
    Timestamp, Verdict, Version, Weight,
};

use crate::replay::Story;

const CANDIDATE: &str = "production.api.4e5f6a7b.0";

fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

fn key(text: &str) -> ServiceKey {
    ServiceKey::try_from(text.to_owned()).unwrap()
}

/// A canary at 25 %, started at 1 s.
pub(crate) fn summary() -> RolloutSummary {
    RolloutSummary {
        id: "r12".to_owned(),
        key: key("production/api"),
        strategy: StrategyKind::Canary,
        from: Some(version("v1")),
        to: version("v2"),
        phase: "Observing".to_owned(),
        step: 3,
        steps: 8,
        doing: "weight 25%".to_owned(),
        weight: Weight::from_percent(25),
        waiting_for: None,
        started_ms: 1_000,
        ended_ms: None,
        outcome: None,
        cause: None,
        candidate_requests: 412,
        candidate_failed: 21,
        by: "anna".to_owned(),
    }
}

/// An event of it, 12.3 s after its start.
pub(crate) fn event(sequence: u64, kind: &str, text: &str) -> RolloutEvent {
    RolloutEvent {
        sequence,
        at_ms: 13_300,
        kind: kind.to_owned(),
        text: text.to_owned(),
        summary: summary(),
        verdict: None,
    }
}

fn finding(rule: &str, outcome: Outcome, observed: Option<f64>, limit: f64) -> Finding {
    let summary = match outcome {
        Outcome::Regressed => "error rate 5.1% of 412 requests, limit 1%",
        Outcome::Safe => "p95 120 ms, limit 500 ms",
        Outcome::Undecided => "no sample yet",
    };
    let baseline = (rule == "error_rate").then_some(0.001);
    Finding {
        rule: rule.to_owned(),
        outcome,
        observed,
        limit,
        baseline,
        summary: summary.to_owned(),
    }
}

/// A verdict that condemns.
pub(crate) fn verdict() -> Verdict {
    Verdict {
        outcome: Outcome::Regressed,
        findings: vec![
            finding("latency_p95", Outcome::Safe, Some(0.12), 0.5),
            finding("cpu_usage", Outcome::Undecided, None, 2.0),
            finding("error_rate", Outcome::Regressed, Some(0.051), 0.01),
        ],
        candidate_requests: 412,
        candidate_failed: 21,
        baseline_requests: 1236,
        baseline_failed: 1,
    }
}

/// The canary, rolled back after 42.1 s.
pub(crate) fn rolled_back() -> RolloutDetail {
    let judged = RolloutEvent { verdict: Some(verdict()), ..event(5, "verdict", "regressed") };
    RolloutDetail {
        summary: RolloutSummary {
            ended_ms: Some(43_100),
            outcome: Some(RolloutOutcome::RolledBack),
            cause: Some("error rate 5.1% of 412 requests, limit 1%".to_owned()),
            ..summary()
        },
        plan: ["weight 5%", "analysis 30s", "weight 25%", "weight 100%"].map(str::to_owned).into(),
        events: vec![
            RolloutEvent { at_ms: 1_000, ..event(1, "phase", "Provisioning") },
            judged,
            RolloutEvent { at_ms: 43_100, ..event(6, "ended", "v1 serves again") },
        ],
        beside: Vec::new(),
        verdict: Some(verdict()),
        last_words: Vec::new(),
    }
}

/// An instance that never became ready.
pub(crate) fn last_words() -> LastWords {
    LastWords {
        instance: CANDIDATE.to_owned(),
        probe: Some("GET /ready answered 503 Service Unavailable".to_owned()),
        exit: Some("exit code 1".to_owned()),
        log: vec!["connecting to db:5432".to_owned(), "connection refused".to_owned()],
    }
}

fn instance(
    id: &str,
    version_name: &str,
    health: InstanceHealth,
    pid: Option<u32>,
) -> InstanceStatus {
    InstanceStatus {
        version: version(version_name),
        report: InstanceReport {
            id: InstanceId::from_stored(id),
            address: pid.map(|_| "127.0.0.1:40001".parse().unwrap()),
            health,
            restarts: if pid.is_some() { 0 } else { 7 },
            reason: pid.is_none().then(|| "exit code 1".to_owned()),
        },
        pid,
    }
}

fn share(version_name: &str, release: &str, percent: u16) -> Share {
    Share {
        version: version(version_name),
        release: release.to_owned(),
        weight: Weight::from_percent(percent),
    }
}

/// Two services; one in the middle of a canary, one that never came up.
pub(crate) fn status() -> Status {
    let api = ServiceStatus {
        key: key("production/api"),
        url: Some("http://127.0.0.1:8080/".to_owned()),
        stable: Some(RevisionStatus {
            revision: 4,
            version: version("v1"),
            release: "0a1b2c3d".to_owned(),
            promoted_ms: 500,
        }),
        serves: true,
        split: vec![share("v1", "0a1b2c3d", 75), share("v2", "4e5f6a7b", 25)],
        rollout: Some(summary()),
        queue: Vec::new(),
        instances: vec![
            instance("production.api.0a1b2c3d.0", "v1", InstanceHealth::Ready, Some(200)),
            instance(CANDIDATE, "v2", InstanceHealth::CrashLoop, None),
        ],
        revisions: Vec::new(),
        operations: Vec::new(),
    };
    let web = ServiceStatus {
        key: key("production/web"),
        url: None,
        stable: None,
        serves: false,
        split: Vec::new(),
        rollout: None,
        queue: Vec::new(),
        instances: Vec::new(),
        revisions: Vec::new(),
        operations: Vec::new(),
    };
    Status {
        project: "shop".to_owned(),
        environment: "production".to_owned(),
        control: ControlStatus { pid: 100, epoch: 3, version: "0.1.0".to_owned(), degraded: None },
        data_plane: DataPlaneStatus {
            pid: Some(101),
            version: Some("0.1.0".to_owned()),
            generation: "3.17".to_owned(),
            error: None,
            listening: vec!["127.0.0.1:8080".to_owned()],
        },
        services: vec![api, web],
        certificates: Vec::new(),
    }
}

/// What was done beside rollouts: one for a service, one that failed.
pub(crate) fn deeds() -> Vec<DeedEntry> {
    let isolated = DeedEntry {
        at_ms: 31_000,
        key: Some(key("production/api")),
        text: "isolated".to_owned(),
        failed: false,
        by: "anna".to_owned(),
        reason: Some("it leaks".to_owned()),
    };
    let upgrade = DeedEntry {
        at_ms: 1_000,
        key: None,
        text: "data plane not upgraded: it ended".to_owned(),
        failed: true,
        by: "bert".to_owned(),
        reason: None,
    };
    vec![isolated, upgrade]
}

/// A plan of two steps.
pub(crate) fn plan() -> Plan {
    Plan {
        key: key("production/api"),
        from: Some(version("v1")),
        to: version("v2"),
        strategy: StrategyKind::Canary,
        steps: vec!["weight 5%".to_owned(), "analysis 30s".to_owned()],
        finds: vec!["12% of its requests failing, or more (now: 0.1%)".to_owned()],
        rollback: vec!["v1 keeps 2 instances until 30s after promotion".to_owned()],
        changes: vec!["env.LEVEL: info -> debug".to_owned()],
    }
}

/// One version's requests.
pub(crate) fn ledger() -> Ledger {
    let stats = ArmStats {
        accepted: 1000,
        responses: [0, 994, 0, 0, 3],
        retried: 2,
        bytes_in: 12_345,
        bytes_out: 4_567_890,
        ..ArmStats::default()
    };
    let entry =
        LedgerEntry { key: key("production/api"), version: version("v1"), in_flight: 1, stats };
    Ledger { versions: vec![entry], unrouted: 5, refused: 1 }
}

/// A line of stdout.
pub(crate) fn log_entry() -> LogEntry {
    LogEntry {
        at_ms: 12_300,
        instance: CANDIDATE.to_owned(),
        version: "v2".to_owned(),
        stream: "stdout".to_owned(),
        text: "listening on 40001".to_owned(),
    }
}

/// An exact test of a version that fails one request in five, at 5 %.
pub(crate) fn story() -> Story {
    let mut latency = Histogram::default();
    (0..95).for_each(|step| latency.record(40_000 + step * 100));
    let mut few = Histogram::default();
    (0..5).for_each(|step| few.record(40_000 + step * 2_000));
    let batch = |sequence: u64| Batch {
        at: Timestamp::from_millis(sequence * 100),
        source: "one".to_owned(),
        sequence,
        weight: Weight::from_percent(5),
        candidate: ArmBatch {
            unanswered: u64::from(sequence.is_multiple_of(2)),
            latency: few.clone(),
            ..ArmBatch::default()
        },
        baseline: ArmBatch { latency: latency.clone(), ..ArmBatch::default() },
    };
    let record = TrialRecord {
        rollout: "r12".to_owned(),
        salt: "r12".to_owned(),
        settings: Settings::default(),
        history: latency.clone(),
        usual: ErrorCounts::default(),
        started: Timestamp::default(),
        batches: (1..=12).map(batch).collect(),
        verdicts: Vec::new(),
        truncated: false,
    };
    Story::tell(&record, record.settings.clone()).unwrap()
}
