//! Requests and answers of `/v1`. Times are wall-clock milliseconds since the Unix epoch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use switchback_domain::strategy::{BusyPolicy, StrategyKind};
use switchback_domain::{
    ArmStats, EnvironmentName, InstanceReport, ServiceKey, ServiceName, Verdict, Version, Weight,
};

/// `POST /v1/deploy`. Answer: [`Accepted`], or [`Plan`] for a dry run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeployRequest {
    /// What.
    pub service: ServiceName,
    /// Which version; `None` takes the configured one.
    pub version: Option<Version>,
    /// Where; `None` takes the control plane's environment.
    pub environment: Option<EnvironmentName>,
    /// Another strategy than the configured one, with its default steps.
    pub strategy: Option<StrategyKind>,
    /// Another policy than the configured one for when a rollout is running.
    pub on_busy: Option<BusyPolicy>,
    /// Start although no verified way back exists; audited.
    #[serde(default)]
    pub accept_no_rollback: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Who asks, for the audit.
    pub by: String,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which service, where.
    pub key: ServiceKey,
    /// Serving now.
    pub from: Option<Version>,
    /// To be brought in.
    pub to: Version,
    /// How.
    pub strategy: StrategyKind,
    /// The steps in words, in order.
    pub steps: Vec<String>,
    /// What the exact test can find in their time at the present traffic, in words; empty without
    /// one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finds: Vec<String>,
    /// The way back in words, or why there is none.
    pub rollback: Vec<String>,
    /// What differs between the two releases, a line each.
    pub changes: Vec<String>,
}

/// The rollout was accepted: it runs, or waits in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its id, `r12`; follow `/v1/rollouts/r12/events`.
    pub rollout: String,
    /// Whether it waits for another one.
    pub queued: bool,
    /// What else the user should know.
    pub note: Option<String>,
}

/// `POST /v1/rollouts/{id}/{promote|pause|resume|abort|retry}`. Answer: [`Accepted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRequest {
    /// Skip every step that is left (`promote --full`).
    #[serde(default)]
    pub full: bool,
    /// Why, for the audit.
    pub reason: Option<String>,
    /// Who asks, for the audit.
    pub by: String,
}

/// `POST /v1/rollback`. Answer: [`Accepted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// What; with a rollout active, that one is taken back.
    pub service: ServiceName,
    /// Where.
    pub environment: Option<EnvironmentName>,
    /// To which revision; `None` is the one before the present one.
    pub revision: Option<u64>,
    /// Keep the version, take back only its configuration.
    #[serde(default)]
    pub config_only: bool,
    /// Why, for the audit.
    pub reason: Option<String>,
    /// Who asks, for the audit.
    pub by: String,
}

/// `POST /v1/operations`: what services' routes are to do. Answer: [`OperationAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRequest {
    /// Which; none is every service of the environment that takes requests.
    pub services: Vec<ServiceName>,
    /// Where; `None` takes the control plane's environment.
    pub environment: Option<EnvironmentName>,
    /// What.
    pub operation: Operation,
    /// Why, for the audit.
    pub reason: Option<String>,
    /// Who asks, for the audit.
    pub by: String,
}

/// What a route is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Tell clients to come again later.
    Maintenance {
        /// What they get; `None` is the configured page, or the data plane's own.
        page: Option<String>,
        /// When they should come again; `None` is as configured.
        retry_after_ms: Option<u64>,
    },
    /// Refuse every request at once.
    Isolate,
    /// Give every request to another version of the service.
    DivertToVersion(Version),
    /// Give every request to another service of the environment.
    DivertToService(ServiceName),
    /// Hold requests back.
    Hold {
        /// How long each waits at most; `None` is as configured.
        deadline_ms: Option<u64>,
        /// How many wait at most; `None` is as configured.
        cap: Option<u32>,
    },
    /// Serve again, after this.
    End(Mode),
}

/// What a route can do instead of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Tells clients to come again later.
    Maintenance,
    /// Refuses every request.
    Isolated,
    /// Gives its requests to another.
    Diverted,
    /// Holds requests back.
    Held,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationAnswer {
    /// The services whose routes do something else now, and what, in words.
    pub changed: BTreeMap<ServiceKey, String>,
    /// Whether every worker of the data plane does so already.
    pub in_force: bool,
}

/// What an operator had a route do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationEntry {
    /// What; `None` is to serve.
    pub mode: Option<Mode>,
    /// The same in words.
    pub text: String,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub at_ms: u64,
}

/// Something that was done beside rollouts: what an operator had a route do, a data plane that was
/// replaced, a certificate. `GET /v1/deeds?environment=&service=&limit=` answers them newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeedEntry {
    /// When.
    pub at_ms: u64,
    /// To which service; `None` to none in particular.
    pub key: Option<ServiceKey>,
    /// What, in words.
    pub text: String,
    /// Whether it did not succeed.
    pub failed: bool,
    /// Who did it, or had it done.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// `GET /v1/status[?environment=E]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The project.
    pub project: String,
    /// The environment `switchback up` was given.
    pub environment: String,
    /// The control plane.
    pub control: ControlStatus,
    /// The data plane.
    pub data_plane: DataPlaneStatus,
    /// Every service of every environment that was brought up.
    pub services: Vec<ServiceStatus>,
    /// Every certificate that is ordered from an authority.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
}

/// How far a certificate is that is ordered and renewed by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The names in it.
    pub domains: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// When the present one ends; `None` when there is none yet.
    pub ends_ms: Option<u64>,
    /// When the next one is ordered; it may be in the past while that is done.
    pub next_ms: u64,
    /// How often the next one could not be had.
    pub failures: u32,
    /// Why it could not be had last.
    pub error: Option<String>,
}

/// The control plane's own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Its process id.
    pub pid: u32,
    /// Its life: counts its starts.
    pub epoch: u32,
    /// Its binary's version.
    #[serde(default)]
    pub version: String,
    /// Why it does not deploy at present (disk full, ...); `None` when all is well.
    pub degraded: Option<String>,
}

/// The data plane's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlaneStatus {
    /// Its process id, while it answers.
    pub pid: Option<u32>,
    /// Its binary's version, while it answers; empty when it is too old to say.
    #[serde(default)]
    pub version: Option<String>,
    /// The table every worker serves from.
    pub generation: String,
    /// Why it does not do what it should (port in use, ...).
    pub error: Option<String>,
    /// Addresses it listens on.
    pub listening: Vec<String>,
}

/// One service in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Which.
    pub key: ServiceKey,
    /// Where requests come in: `http://127.0.0.1:8080/`.
    pub url: Option<String>,
    /// The promoted version.
    pub stable: Option<RevisionStatus>,
    /// Whether the stable version is at strength and the data plane sends requests to it.
    #[serde(default)]
    pub serves: bool,
    /// Who serves which share now.
    pub split: Vec<Share>,
    /// The active rollout.
    pub rollout: Option<RolloutSummary>,
    /// Rollouts that wait for it, oldest first.
    pub queue: Vec<RolloutSummary>,
    /// Its instances, all versions.
    pub instances: Vec<InstanceStatus>,
    /// What can be rolled back to, newest first.
    pub revisions: Vec<RevisionStatus>,
    /// What operators had its route do, newest first; the first one is in force. None: it serves.
    #[serde(default)]
    pub operations: Vec<OperationEntry>,
}

/// A promoted release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// Counts promotions from 1.
    pub revision: u64,
    /// As its users call it.
    pub version: Version,
    /// The release's short hash.
    pub release: String,
    /// When it was promoted.
    pub promoted_ms: u64,
}

/// A version's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which version.
    pub version: Version,
    /// Its release's short hash.
    pub release: String,
    /// How much.
    pub weight: Weight,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Of which version.
    pub version: Version,
    /// How it does.
    pub report: InstanceReport,
    /// Its process id, while it has one.
    pub pid: Option<u32>,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutOutcome {
    /// The candidate serves.
    Promoted,
    /// The baseline serves again.
    RolledBack,
    /// There was no baseline: the candidate was taken away, or it never began.
    Withdrawn,
    /// A newer one took its place.
    Superseded,
}

/// A rollout at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutSummary {
    /// `r12`.
    pub id: String,
    /// Which service, where.
    pub key: ServiceKey,
    /// How.
    pub strategy: StrategyKind,
    /// Serving before.
    pub from: Option<Version>,
    /// Brought in.
    pub to: Version,
    /// `Provisioning`, `Shifting`, ...
    pub phase: String,
    /// Which step of the plan runs, from 1.
    pub step: u32,
    /// How many steps the plan has.
    pub steps: u32,
    /// The step in words: `weight 25%`.
    pub doing: String,
    /// The candidate's share now.
    pub weight: Weight,
    /// What it waits for, when it waits for somebody.
    pub waiting_for: Option<String>,
    /// When it was asked for.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<RolloutOutcome>,
    /// Why it was taken back, in one sentence.
    pub cause: Option<String>,
    /// Finished candidate requests so far.
    pub candidate_requests: u64,
    /// Failed ones among them.
    pub candidate_failed: u64,
    /// Who asked for it.
    pub by: String,
}

/// `GET /v1/rollouts/{id}`: everything known about one; `GET /v1/rollouts?environment=&service=&limit=`
/// answers a list of [`RolloutSummary`], newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutDetail {
    /// At a glance.
    pub summary: RolloutSummary,
    /// The plan's steps in words.
    pub plan: Vec<String>,
    /// Everything that happened, oldest first.
    pub events: Vec<RolloutEvent>,
    /// What was done beside it and may have had a part in it, oldest first: what its route did
    /// when it was asked for, if not to serve, and what is not among the events, until it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<DeedEntry>,
    /// The judge's last words, with evidence.
    pub verdict: Option<Verdict>,
    /// Candidate instances with their last log lines, when it failed before it was ready.
    pub last_words: Vec<LastWords>,
}

/// What an instance said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWords {
    /// Which.
    pub instance: String,
    /// Its last probe: what was asked and answered.
    pub probe: Option<String>,
    /// How its process ended, if it did.
    pub exit: Option<String>,
    /// Its last log lines, oldest first.
    pub log: Vec<String>,
}

/// Something that happened in a rollout. `GET /v1/rollouts/{id}/events?after=SEQUENCE` streams
/// them, one JSON document a line, until the rollout has ended; empty lines keep it alive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutEvent {
    /// Its place in the journal; 0 for progress that is not journaled.
    pub sequence: u64,
    /// When.
    pub at_ms: u64,
    /// What kind: `phase`, `step`, `weight`, `probe`, `verdict`, `command`, `note`, `ended`.
    pub kind: String,
    /// In words.
    pub text: String,
    /// The rollout after it.
    pub summary: RolloutSummary,
    /// The judge's words, for kind `verdict`.
    pub verdict: Option<Verdict>,
}

/// `GET /v1/logs?environment=&service=&instance=&tail=100` or `&after=CURSOR`: lines of every
/// matching instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Oldest first.
    pub lines: Vec<LogEntry>,
    /// Pass back as `after` to follow.
    pub cursor: String,
}

/// One line of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When.
    pub at_ms: u64,
    /// Which instance.
    pub instance: String,
    /// Of which version.
    pub version: String,
    /// `stdout`, `stderr` or `switchback`.
    pub stream: String,
    /// The line.
    pub text: String,
}

/// `GET /v1/ledger`: what the data plane counted, per service and version. Every accepted
/// request ends in exactly one of the others, or is still on its way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// One entry per version.
    pub versions: Vec<LedgerEntry>,
    /// Requests without a route.
    pub unrouted: u64,
    /// Requests refused as invalid.
    pub refused: u64,
}

/// What became of one version's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Which service, where.
    pub key: ServiceKey,
    /// Which version.
    pub version: Version,
    /// On their way now.
    pub in_flight: u64,
    /// The counts.
    pub stats: ArmStats,
}

/// `POST /v1/up`: bring every service of an environment to its configured version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpRequest {
    /// Where; `None` takes the control plane's environment.
    pub environment: Option<EnvironmentName>,
    /// Who asks.
    pub by: String,
}

/// What `up` began. Follow the rollouts to see them end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpAnswer {
    /// Rollouts that were started, per service.
    pub started: BTreeMap<String, Accepted>,
    /// Services that were left as they are, with the reason.
    pub kept: BTreeMap<String, String>,
}

/// `POST /v1/proxy/upgrade`: have a new process of the data plane take over. Answer:
/// [`ProxyUpgraded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyUpgradeRequest {
    /// The program; `None` takes the one that the control plane was started from.
    pub binary: Option<std::path::PathBuf>,
    /// Who asks.
    pub by: String,
}

/// The new process serves; the old one finishes what it could not hand over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyUpgraded {
    /// The process before.
    pub from: ProxyProcess,
    /// The process that serves now.
    pub to: ProxyProcess,
    /// From the start of the new process to its first answer.
    pub took_ms: u64,
}

/// One process of the data plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyProcess {
    /// Its process id.
    pub pid: u32,
    /// Its binary's version.
    pub version: String,
}

/// `POST /v1/down`: stop every instance, the data plane and the control plane. The journal stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownRequest {
    /// Who asks.
    pub by: String,
}

/// Every answer with a status of 400 and above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `SB0101`: `switchback explain SB0101` says more.
    pub code: String,
    /// What and where.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// More lines, such as the mistakes in a configuration.
    #[serde(default)]
    pub details: Vec<String>,
    /// The exit code the command line ends with.
    pub exit_code: u8,
}
