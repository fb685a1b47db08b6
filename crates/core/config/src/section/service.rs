//! One service: its keys, its defaults, and what its settings mean together.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_domain::strategy::{BusyPolicy, FailureAction, RolloutPolicy, Step, StrategyKind};
use switchback_domain::workload::RuntimeKind;
use switchback_domain::{EnvironmentName, ProjectName, ServiceName, Version, Workload};

use crate::diagnostic::Code;
use crate::quantity::Amount;
use crate::reader::{Fields, Reader};
use crate::section::command::command;
use crate::section::config_file::{self, CONFIG_FILE};
use crate::section::health_check::{self, HEALTH_CHECK};
use crate::section::hook::{self, HOOK};
use crate::section::metric::{self, METRIC};
use crate::section::metric_template::{self, METRIC_TEMPLATE};
use crate::section::rollback::{self, ROLLBACK};
use crate::section::route::{self, ROUTE};
use crate::section::strategy::{self, STRATEGY, Strategy};
use crate::section::template::{self, Scope};
use crate::service::ServiceConfig;
use crate::suggest;
use crate::table::{Kind, Table, field};
use crate::value::{Node, Value};

/// More instances than this on one machine are a typing mistake.
const REPLICAS_MAX: u32 = 1000;
pub(crate) const REVISIONS_MAX: u32 = 1000;
const REVISIONS: u32 = 10;
const MAX_SURGE: Amount = Amount::Share(2500);
const MAX_UNAVAILABLE: Amount = Amount::Count(0);
const PROGRESS_DEADLINE: Duration = Duration::from_mins(10);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const SCALE_DOWN_DELAY: Duration = Duration::from_secs(30);

const RUNTIMES: [(&str, RuntimeKind); 1] = [("process", RuntimeKind::Process)];
const FAILURE_ACTIONS: [(&str, FailureAction); 3] = [
    ("rollback", FailureAction::Rollback),
    ("pause", FailureAction::Pause),
    ("continue", FailureAction::Continue),
];
const BUSY_POLICIES: [(&str, BusyPolicy); 3] = [
    ("queue", BusyPolicy::Queue),
    ("supersede", BusyPolicy::Supersede),
    ("refuse", BusyPolicy::Refuse),
];

pub(crate) static SERVICE: Table = Table::new(
    "service",
    "One service: what runs, how it is asked whether it is up, and how a release is brought in.",
    &[
        &[
            field("runtime", Kind::Word(&["process"]), "Where it runs. Default: process."),
            field("version", Kind::Text, "The version that `switchback up` brings it to."),
            field("command", Kind::Command, "Program and arguments; required."),
            field("working_dir", Kind::Text, "Where it starts. Default: this file's directory."),
            field("env", Kind::Map(&Kind::Text), "Environment variables."),
            field("config", Kind::List(&Kind::Struct(&CONFIG_FILE)), "Configuration files."),
            field(
                "replicas",
                Kind::Count { min: 1, max: REPLICAS_MAX },
                "Instances at full strength. Default: 1.",
            ),
            field("health_check", Kind::Struct(&HEALTH_CHECK), "How to ask whether it is up."),
            field("route", Kind::Struct(&ROUTE), "Where requests come in. Default: nowhere."),
        ],
        &[
            field(
                "strategy",
                Kind::Either(&[Kind::Word(strategy::WORDS), Kind::Struct(&STRATEGY)]),
                "How a release is brought in. Default: rolling.",
            ),
            field("max_surge", Kind::Amount, "Instances above replicas. Default: 25%."),
            field("max_unavailable", Kind::Amount, "Instances that may be missing. Default: 0."),
            field("progress_deadline", Kind::Duration, "Longest without progress. Default: 10m."),
            field("drain_timeout", Kind::Duration, "For requests on their way. Default: 30s."),
            field("stop_timeout", Kind::Duration, "From SIGTERM to SIGKILL. Default: 10s."),
            field(
                "scale_down_delay",
                Kind::Duration,
                "How long the baseline stays at strength after promotion. Default: 30s.",
            ),
            field(
                "failure_action",
                Kind::Word(&["rollback", "pause", "continue"]),
                "When a rollout fails. Default: rollback.",
            ),
            field("auto_promote", Kind::Bool, "Whether the last step promotes. Default: true."),
            field(
                "on_busy",
                Kind::Word(&["queue", "supersede", "refuse"]),
                "What a second deploy does while one runs. Default: queue.",
            ),
            field("rollback", Kind::Struct(&ROLLBACK), "When a release is taken back."),
            field(
                "metrics",
                Kind::List(&Kind::Struct(&METRIC)),
                "Numbers watched for as long as the candidate has traffic.",
            ),
            field(
                "metric_templates",
                Kind::Map(&Kind::Struct(&METRIC_TEMPLATE)),
                "Metrics to be used here and in analysis steps, with arguments.",
            ),
            field(
                "smoke_tests",
                Kind::List(&Kind::Either(&[Kind::Struct(&HOOK), Kind::Command])),
                "Checks of the candidate before it gets traffic.",
            ),
            field(
                "revision_history_limit",
                Kind::Count { min: 1, max: REVISIONS_MAX },
                "Revisions kept for `switchback rollback`. Default: 10.",
            ),
        ],
    ],
);

/// What a service is called, and with whom it shares its environment.
pub(crate) struct Context<'c> {
    pub(crate) project: &'c ProjectName,
    pub(crate) environment: &'c EnvironmentName,
    pub(crate) name: ServiceName,
    /// All services of the environment.
    pub(crate) services: &'c [&'c str],
}

/// Reads a service. After a mistake the result is of no use, but reading goes on to find more.
pub(crate) fn service(
    reader: &mut Reader,
    node: &Node,
    context: Context<'_>,
) -> Option<ServiceConfig> {
    let node = &metric_template::applied(reader, node);
    let fields = reader.fields(node, &SERVICE);
    if !fields.is_map() {
        return None;
    }
    let version = fields.read("version", reader, |r, node| r.name(node, Version::new));
    let config = fields.get("config").map(|node| config_file::config_files(reader, node));
    let mut rollback = match fields.get("rollback") {
        Some(node) => rollback::rollback(reader, node),
        None => rollback::default_rollback(),
    };
    if fields.get("route").is_none() {
        // A window shared by all services asks nothing of one without traffic.
        rollback.monitoring.window = None;
    }
    let workload = workload(reader, &fields, &context);
    let strategy = fields
        .read("strategy", reader, strategy::strategy)
        .unwrap_or(Strategy { kind: StrategyKind::Rolling, steps: None });
    let steps = strategy::steps_of(strategy.kind, strategy.steps.as_ref(), &rollback.monitoring);
    let mut policy = policy(reader, &fields, rollback.revisions);
    policy.triggers = rollback.triggers;
    policy.triggers.metrics =
        fields.get("metrics").map(|node| metric::metrics(reader, node)).unwrap_or_default();
    policy.exact_test = rollback.exact_test;
    policy.strategy = strategy.kind;
    policy.steps = steps;
    check_deadline(reader, &fields, &policy, workload.as_ref());
    check_traffic(reader, &fields, &policy);
    check_metrics(reader, &fields, &policy);
    Some(ServiceConfig {
        project: context.project.clone(),
        environment: context.environment.clone(),
        name: context.name,
        version,
        workload: workload?,
        policy,
        config: config.unwrap_or_default(),
        monitoring: rollback.monitoring,
    })
}

fn workload(reader: &mut Reader, fields: &Fields<'_>, context: &Context<'_>) -> Option<Workload> {
    let runtime = fields.read("runtime", reader, |r, node| r.word(node, &RUNTIMES));
    let command = fields.read("command", reader, |r, node| command(r, node, Scope::Instance));
    if fields.get("command").is_none() {
        let own = context.name.as_str();
        let others = context.services.iter().copied().filter(|other| *other != own);
        let hint = match suggest::nearest(own, others) {
            Some(near) => format!("write `command: ./server`, or is `{near}` meant?"),
            None => "say what to run: `command: ./server --port {{port}}`".to_owned(),
        };
        reader.missing(fields.node(), "command", hint);
    }
    let working_dir =
        fields.read("working_dir", reader, |r, node| template::text(r, node, Scope::Instance));
    let env = fields.get("env").map(|node| environment_variables(reader, node));
    let health = match fields.get("health_check") {
        Some(node) => health_check::health_checks(reader, node),
        None => health_check::default_checks(),
    };
    let route = fields.read("route", reader, route::route);
    let stop_timeout = fields.read("stop_timeout", reader, Reader::duration);
    Some(Workload {
        runtime: runtime.unwrap_or(RuntimeKind::Process),
        command: command?,
        working_dir: working_dir.unwrap_or_default(),
        env: env.unwrap_or_default(),
        config: Vec::new(),
        health,
        route,
        stop_timeout: stop_timeout.unwrap_or(STOP_TIMEOUT),
    })
}

fn policy(reader: &mut Reader, fields: &Fields<'_>, revisions: Option<u32>) -> RolloutPolicy {
    let replicas = fields.read("replicas", reader, |r, node| r.count(node, 1..=REPLICAS_MAX));
    let (max_surge, max_unavailable) = surge(reader, fields, replicas);
    let mut duration =
        |key: &str, default| fields.read(key, reader, Reader::duration).unwrap_or(default);
    let drain_timeout = duration("drain_timeout", DRAIN_TIMEOUT);
    let scale_down_delay = duration("scale_down_delay", SCALE_DOWN_DELAY);
    let progress_deadline = fields.read("progress_deadline", reader, Reader::duration_above_zero);
    let failure_action =
        fields.read("failure_action", reader, |r, node| r.word(node, &FAILURE_ACTIONS));
    let on_busy = fields.read("on_busy", reader, |r, node| r.word(node, &BUSY_POLICIES));
    RolloutPolicy {
        replicas: replicas.unwrap_or(1),
        strategy: StrategyKind::Rolling,
        steps: Vec::new(),
        max_surge,
        max_unavailable,
        progress_deadline: progress_deadline.unwrap_or(PROGRESS_DEADLINE),
        drain_timeout,
        scale_down_delay,
        failure_action: failure_action.unwrap_or(FailureAction::Rollback),
        auto_promote: fields.read("auto_promote", reader, Reader::boolean).unwrap_or(true),
        on_busy: on_busy.unwrap_or(BusyPolicy::Queue),
        triggers: switchback_domain::trigger::Triggers::default(),
        exact_test: None,
        smoke_tests: fields
            .get("smoke_tests")
            .map(|node| hook::hooks(reader, node))
            .unwrap_or_default(),
        revision_history_limit: revision_limit(reader, fields, revisions),
    }
}

fn revision_limit(reader: &mut Reader, fields: &Fields<'_>, revisions: Option<u32>) -> u32 {
    let limit =
        fields.read("revision_history_limit", reader, |r, node| r.count(node, 1..=REVISIONS_MAX));
    if let (Some(limit), Some(revisions), Some(at)) =
        (limit, revisions, fields.get("revision_history_limit"))
        && limit != revisions
    {
        let message = format!("says {limit}, and `rollback.revisions` says {revisions}");
        reader.report(at, Code::Contradiction, message, "keep one of the two");
    }
    limit.or(revisions).unwrap_or(REVISIONS)
}

/// Surge and shortfall in instances. Without room in either direction nothing could ever move;
/// without a single instance left, somebody would notice.
fn surge(reader: &mut Reader, fields: &Fields<'_>, replicas: Option<u32>) -> (u32, u32) {
    let surge = fields.read("max_surge", reader, Reader::amount);
    let unavailable = fields.read("max_unavailable", reader, Reader::amount);
    let count = replicas.unwrap_or(1);
    let max_surge = surge.unwrap_or(MAX_SURGE).rounded_up(count);
    let max_unavailable = unavailable.unwrap_or(MAX_UNAVAILABLE).rounded_down(count);
    let readable = replicas.is_some() || fields.get("replicas").is_none();
    if let Some(at) = fields.get("max_surge").filter(|_| surge.is_some() && readable)
        && (max_surge, max_unavailable) == (0, 0)
    {
        let message = format!("is 0, and so is `max_unavailable` of {count}: nothing could move");
        let hint = "write `max_surge: 1` or more";
        reader.report(at, Code::Contradiction, message, hint);
    }
    if let Some(at) = fields.get("max_unavailable").filter(|_| unavailable.is_some() && readable)
        && max_unavailable >= count
    {
        let message = format!("would leave none of {count} instances to serve");
        let hint = match count {
            1 => "write `max_unavailable: 0`, or raise `replicas`".to_owned(),
            _ => format!("write at most {}", count - 1),
        };
        reader.report(at, Code::Contradiction, message, hint);
    }
    (max_surge, max_unavailable)
}

/// A deadline that passes before an instance can possibly be ready fails every rollout.
fn check_deadline(
    reader: &mut Reader,
    fields: &Fields<'_>,
    policy: &RolloutPolicy,
    workload: Option<&Workload>,
) {
    let Some(health) = workload.map(|workload| &workload.health) else { return };
    let readiness = &health.readiness;
    let tries = readiness.interval.saturating_mul(readiness.healthy_after - 1);
    let soonest = tries.saturating_add(health.min_healthy_time);
    if policy.progress_deadline <= soonest {
        let written = fields.get("progress_deadline").or_else(|| fields.get("health_check"));
        let message = format!(
            "the deadline of {} passes before an instance can be ready, after {} at the earliest",
            switchback_domain::time::humane(policy.progress_deadline),
            switchback_domain::time::humane(soonest)
        );
        let hint = "raise `progress_deadline`, or lower `min_healthy_time`";
        reader.report(written.unwrap_or_else(|| fields.node()), Code::Contradiction, message, hint);
    }
}

/// Shares of traffic and verdicts on traffic need traffic.
fn check_traffic(reader: &mut Reader, fields: &Fields<'_>, policy: &RolloutPolicy) {
    let judges = policy.steps.iter().any(|step| matches!(step, Step::Analysis(_)));
    let asks = policy.strategy != StrategyKind::Rolling || judges;
    if !asks || fields.get("route").is_some() {
        return;
    }
    let at = fields.get("strategy").unwrap_or_else(|| fields.node());
    let message = "shifts or judges traffic, but the service has no `route`";
    let hint = "add `route: {listen: 8080}`, or use `strategy: rolling` without analysis";
    reader.report(at, Code::Contradiction, message, hint);
}

/// Metrics without numbers hold a step that is judged; without one they would hold nothing.
fn check_metrics(reader: &mut Reader, fields: &Fields<'_>, policy: &RolloutPolicy) {
    let judges = policy.steps.iter().any(|step| matches!(step, Step::Analysis(_)));
    let Some(at) = fields.get("metrics").filter(|_| !judges) else { return };
    let message = "no step waits for these: a source that is down would hold nothing back";
    let hint = "add `- analysis` to the steps, or `rollback: {monitoring_window: 5m}`";
    reader.report(at, Code::Contradiction, message, hint);
}

/// Variables that every instance gets from Switchback.
const OWN_VARIABLES: [&str; 2] = ["PORT", "SWITCHBACK_VERSION"];

fn environment_variables(reader: &mut Reader, node: &Node) -> BTreeMap<String, String> {
    let Value::Map(entries) = &node.value else {
        reader.wrong_type(node, "a map", "write `env: {LOG_LEVEL: info}`");
        return BTreeMap::new();
    };
    let mut variables = BTreeMap::new();
    for entry in entries {
        let key = entry.key.as_str();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (place, path) = (entry.value.key_place, &entry.value.path);
        if key.is_empty() || !key.chars().all(word) || key.starts_with(|c: char| c.is_ascii_digit())
        {
            let message = format!("`{key}` is not a name for a variable");
            let hint = "use letters, digits and `_`, not starting with a digit";
            reader.report_at(place, path, Code::Name, message, hint);
        } else if OWN_VARIABLES.contains(&key) {
            let message = format!("`{key}` is set by Switchback for every instance");
            let hint = "leave it out; pass `{{port}}` or `{{version}}` under another name";
            reader.report_at(place, path, Code::Contradiction, message, hint);
        }
        // An empty variable is written `""`; null in an overlay takes the variable away.
        if entry.value.is_null() {
            continue;
        }
        if let Some(text) = template::text(reader, &entry.value, Scope::Instance) {
            variables.insert(entry.key.clone(), text);
        }
    }
    variables
}
