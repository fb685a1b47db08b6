//! What the API asks of the driver, each as one function of the state in hand.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use switchback_api::{
    Accepted, CommandRequest, ControlStatus, DataPlaneStatus, DeployRequest, InstanceStatus,
    Ledger, LedgerEntry, Plan, Problem, RollbackRequest, RolloutEvent, RolloutSummary, Status,
    UpAnswer, UpRequest, code,
};
use switchback_config::ServiceConfig;
use switchback_domain::strategy::RolloutPolicy;
use switchback_domain::{EnvironmentName, Release, ServiceKey, Verdict, Version};
use switchback_engine::{
    Command, EventKind, Request, RequestKind, RolloutId, Service, describe_step, plan,
};
use switchback_ports::journal::Sequence;
use switchback_ports::runtime::{Instance, ProcessState};

use crate::book::ApplyError;
use crate::configuration::policy;
use crate::driver::{Driver, Message};
use crate::problem::{from_apply, journal};
use crate::{clock, views};

/// What `deploy` answers.
pub(crate) enum DeployAnswer {
    Accepted(Accepted),
    Plan(Box<Plan>),
}

/// Everything about one rollout that the state and the journal know.
pub(crate) struct Dossier {
    pub(crate) summary: RolloutSummary,
    pub(crate) plan: Vec<String>,
    pub(crate) events: Vec<RolloutEvent>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) last_seen: Vec<switchback_domain::InstanceReport>,
}

impl Driver {
    fn environment(&self, asked: Option<EnvironmentName>) -> EnvironmentName {
        asked.unwrap_or_else(|| self.settings.environment.clone())
    }

    pub(crate) fn deploy(&mut self, ask: DeployRequest) -> Result<DeployAnswer, Problem> {
        let environment = self.environment(ask.environment.clone());
        let service = self.settings.service(&environment, &ask.service)?;
        let version = ask.version.clone().or_else(|| service.version.clone()).ok_or_else(|| {
            code::NO_VERSION
                .problem(format!("no version was given, and {} has none configured", ask.service))
                .hint("add --version V")
        })?;
        let release = self.settings.release(&service, &version)?;
        let policy = policy(&service, &version, ask.strategy, ask.on_busy);
        let key = service.key();
        if ask.dry_run {
            let plan = self.plan(&key, &release, &policy);
            return Ok(DeployAnswer::Plan(Box::new(plan)));
        }
        self.check_listen(&release)?;
        let request = self.new_request(RequestKind::Deploy, release, policy, ask.by);
        let request = Request { accept_no_rollback: ask.accept_no_rollback, ..request };
        self.submit(&key, request).map(DeployAnswer::Accepted)
    }

    fn new_request(
        &mut self,
        kind: RequestKind,
        release: Release,
        policy: RolloutPolicy,
        by: String,
    ) -> Request {
        Request {
            id: self.book.take_id(),
            kind,
            release,
            policy,
            accept_no_rollback: false,
            by,
            asked_at: self.book.now(),
            wall_ms: clock::wall_ms(),
        }
    }

    fn submit(&mut self, key: &ServiceKey, request: Request) -> Result<Accepted, Problem> {
        let id = request.id;
        let event = EventKind::Requested(Box::new(request));
        match self.try_apply(key, event) {
            Ok(()) => Ok(views::accepted(&self.book.service(key), id)),
            Err(ApplyError::Rejected(switchback_engine::Rejection::Unchanged)) => Ok(Accepted {
                rollout: String::new(),
                queued: false,
                note: Some("this release serves already; nothing to do".to_owned()),
            }),
            Err(error) => Err(from_apply(&error)),
        }
    }

    /// An address somebody else listens on is found now, not when traffic is to move.
    fn check_listen(&self, release: &Release) -> Result<(), Problem> {
        let Some(route) = &release.workload.route else { return Ok(()) };
        if self.publisher.listens_on(route.listen) {
            return Ok(());
        }
        let ours = self.heard.as_ref().is_some_and(|heard| {
            heard.report.listeners.iter().any(|listener| listener.address == route.listen)
        });
        match TcpListener::bind(route.listen) {
            Err(error) if !ours => Err(cannot_listen(route.listen, &error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn plan(&self, key: &ServiceKey, release: &Release, policy: &RolloutPolicy) -> Plan {
        let service = self.book.service(key);
        let stable = service.stable();
        let from = stable.and_then(|stable| views::version(&service, &stable.release));
        let replicas = stable.map(|stable| stable.policy.replicas);
        let steps = plan(policy, RequestKind::Deploy, replicas);
        Plan {
            key: key.clone(),
            from,
            to: release.version.clone(),
            strategy: policy.strategy,
            steps: steps.iter().map(describe_step).collect(),
            rollback: way_back(&service, policy),
            changes: changes(&service, release),
        }
    }

    pub(crate) fn steer(
        &mut self,
        id: RolloutId,
        verb: &str,
        ask: CommandRequest,
    ) -> Result<Accepted, Problem> {
        let known = self.book.service_of(id).cloned().ok_or_else(|| unknown_rollout(id))?;
        if verb == "retry" {
            return self.retry(&known, id, ask.by);
        }
        let active = known.rollout.as_ref().is_some_and(|active| active.request.id == id);
        if !active {
            let rejection = switchback_engine::Rejection::NoRollout;
            return Err(from_apply(&ApplyError::Rejected(rejection)));
        }
        let CommandRequest { full, reason, by } = ask;
        let command = match verb {
            "promote" => Command::Promote { full, by },
            "pause" => Command::Pause { by, reason },
            "resume" => Command::Resume { by },
            "abort" => Command::Abort { by, reason },
            other => {
                return Err(code::USAGE
                    .problem(format!("there is no command {other}"))
                    .hint("there are promote, pause, resume, abort and retry"));
            }
        };
        let event = EventKind::Commanded(command);
        self.try_apply(&known.key, event).map_err(|error| from_apply(&error))?;
        Ok(views::accepted(&self.book.service(&known.key), id))
    }

    /// The same release and policy once more, as a rollout of its own.
    fn retry(&mut self, service: &Service, id: RolloutId, by: String) -> Result<Accepted, Problem> {
        let ended = service.ended.iter().find(|ended| ended.rollout.request.id == id);
        let asked = ended.map(|ended| ended.rollout.request.clone()).ok_or_else(|| {
            code::NOT_IN_THIS_PHASE
                .problem(format!("rollout {id} has not ended"))
                .hint("only an ended rollout can be tried again")
        })?;
        let request = self.new_request(asked.kind, asked.release, asked.policy, by);
        let request = Request { accept_no_rollback: asked.accept_no_rollback, ..request };
        self.submit(&service.key, request)
    }

    pub(crate) fn rollback(&mut self, ask: RollbackRequest) -> Result<Accepted, Problem> {
        let environment = self.environment(ask.environment.clone());
        let key = ServiceKey::new(environment, ask.service.clone());
        let service = self.book.services().get(&key).cloned().ok_or_else(|| {
            code::NOTHING_TO_ROLL_BACK_TO
                .problem(format!("{key} was never deployed"))
                .hint("`switchback status` shows what was")
        })?;
        let running = service.rollout.as_ref().filter(|rollout| !rollout.promoted);
        if let Some(rollout) = running
            && ask.revision.is_none()
        {
            let id = rollout.request.id;
            let command = CommandRequest { full: false, reason: ask.reason, by: ask.by };
            return self.steer(id, "abort", command);
        }
        let target = service.revision_to_restore(ask.revision).cloned().ok_or_else(|| {
            let kept: Vec<_> = service.revisions.iter().map(|r| r.number.to_string()).collect();
            let kind = match ask.revision {
                Some(_) => code::UNKNOWN_REVISION,
                None => code::NOTHING_TO_ROLL_BACK_TO,
            };
            kind.problem(format!("{key} has no such revision to go back to"))
                .hint(format!("kept revisions: {}", kept.join(", ")))
        })?;
        let restored = service.releases.get(&target.release).cloned();
        let present = service.stable().and_then(|stable| service.releases.get(&stable.release));
        let release = match (restored, present) {
            (Some(old), Some(present)) if ask.config_only => present.with_configuration_of(&old),
            (Some(old), _) => old,
            (None, _) => return Err(unknown_release(&key)),
        };
        let mut policy = target.policy;
        if let Some(stable) = service.stable() {
            policy.replicas = stable.policy.replicas;
        }
        let request = self.new_request(RequestKind::Rollback, release, policy, ask.by);
        self.submit(&key, request)
    }

    /// Brings every service to its configured version: those that serve nothing yet, those whose
    /// configured version was edited since the last time, and those whose configuration changed
    /// under the same version. What somebody deployed in between stays.
    pub(crate) fn up(&mut self, ask: UpRequest) -> Result<UpAnswer, Problem> {
        let environment = self.environment(ask.environment);
        let services = self.settings.services(&environment)?;
        let mut answer = UpAnswer { started: BTreeMap::new(), kept: BTreeMap::new() };
        let mut configured = self.book.configured().clone();
        for service in &services {
            let key = service.key();
            let name = key.service.to_string();
            match self.up_service(service, &ask.by)? {
                Ok(accepted) => {
                    answer.started.insert(name, accepted);
                }
                Err(kept) => {
                    answer.kept.insert(name, kept);
                }
            }
            if let Some(version) = &service.version {
                configured.insert(key.to_string(), version.to_string());
            }
        }
        self.book.set_configured(configured).map_err(|error| from_apply(&error))?;
        Ok(answer)
    }

    fn up_service(
        &mut self,
        config: &ServiceConfig,
        by: &str,
    ) -> Result<Result<Accepted, String>, Problem> {
        let key = config.key();
        let service = self.book.service(&key);
        let Some(version) = &config.version else {
            return Ok(Err("no version is configured; deploy one with --version".to_owned()));
        };
        if let Some(rollout) = &service.rollout {
            return Ok(Err(format!("rollout {} is running", rollout.request.id)));
        }
        let release = self.settings.release(config, version)?;
        if let Some(stable) = service.stable() {
            let serving = views::version(&service, &stable.release);
            let edited = self.book.configured().get(&key.to_string()) != Some(&version.to_string());
            if serving.as_ref() != Some(version) && !edited {
                let serving = serving.map_or_else(String::new, |version| version.to_string());
                return Ok(Err(format!("{serving} was deployed since; it stays")));
            }
        }
        self.check_listen(&release)?;
        let policy = policy(config, version, None, None);
        let request = self.new_request(RequestKind::Deploy, release, policy, by.to_owned());
        let accepted = self.submit(&key, request)?;
        Ok(match accepted.rollout.as_str() {
            "" => Err(format!("{version} serves already")),
            _ => Ok(accepted),
        })
    }

    /// Stops everything, then ends the control plane. The journal keeps what should run, so that
    /// the next `up` brings it back.
    pub(crate) fn down(&mut self) {
        self.closing = true;
        self.keep_data_plane.send_replace(false);
        let starts = std::mem::take(&mut self.starts);
        let known: Vec<_> = self.fleet.instances().cloned().collect();
        let generation = self.generation();
        let (links, handle) = (self.links.clone(), self.handle.clone());
        self.tasks.spawn(async move {
            // A start that ends after the stops would leave an orphan.
            starts.join_all().await;
            // Traffic first: what is on its way still has somebody to answer it.
            let _ = links.supervision.stop().await;
            let present = links.runtime.list().await.unwrap_or(known);
            let ids = present.into_iter().map(|instance| instance.spec.id);
            let mut stops = tokio::task::JoinSet::new();
            for id in ids {
                let runtime = links.runtime.clone();
                stops.spawn(async move {
                    let _ = runtime.ensure_stopped(&id, generation).await;
                });
            }
            stops.join_all().await;
            handle.send(Message::Down).await;
        });
    }

    pub(crate) fn status(&self, environment: Option<&EnvironmentName>) -> Status {
        let states = self.book.services().values();
        let wanted = states.filter(|s| environment.is_none_or(|e| s.key.environment == *e));
        Status {
            project: self.settings.project.to_string(),
            environment: self.settings.environment.to_string(),
            control: ControlStatus {
                pid: std::process::id(),
                epoch: self.book.epoch().0,
                degraded: self.degraded(),
            },
            data_plane: self.data_plane_status(),
            services: wanted.map(|service| self.service_status(service)).collect(),
        }
    }

    fn degraded(&self) -> Option<String> {
        if let Some(why) = self.book.degraded() {
            return Some(why.to_owned());
        }
        if let Some(why) = &self.runtime_error {
            return Some(format!("instances cannot be listed: {why}"));
        }
        let broken = self.book.violation_count();
        (broken > 0).then(|| format!("{broken} broken invariants; please report this"))
    }

    fn data_plane_status(&self) -> DataPlaneStatus {
        let report = self.heard.as_ref().map(|heard| &heard.report);
        let not_listening = report.and_then(|report| {
            let bad = report.listeners.iter().find(|listener| listener.error.is_some())?;
            Some(format!("{}: {}", bad.address, bad.error.as_deref().unwrap_or_default()))
        });
        DataPlaneStatus {
            pid: self.data_plane_pid,
            generation: report.map_or_else(String::new, |report| report.generation.to_string()),
            error: self
                .data_plane_error
                .clone()
                .or_else(|| self.publisher.error().map(ToOwned::to_owned))
                .or(not_listening),
            listening: report.map_or_else(Vec::new, |report| {
                let good = report.listeners.iter().filter(|listener| listener.error.is_none());
                good.map(|listener| listener.address.to_string()).collect()
            }),
        }
    }

    fn service_status(&self, service: &Service) -> switchback_api::ServiceStatus {
        let mine = self.fleet.instances().filter(|i| i.spec.key == service.key);
        let instance = |instance: &Instance| InstanceStatus {
            version: instance.spec.version.clone(),
            report: self.fleet.report(instance),
            pid: match &instance.process {
                ProcessState::Running { pid } => Some(*pid),
                ProcessState::Starting
                | ProcessState::BackingOff { .. }
                | ProcessState::Stopping
                | ProcessState::Lost => None,
            },
        };
        let instances = mine.map(instance).collect();
        switchback_api::ServiceStatus { instances, ..views::status(service) }
    }

    pub(crate) fn rollouts(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&str>,
        limit: usize,
    ) -> Vec<RolloutSummary> {
        let states = self.book.services().values();
        let wanted = states.filter(|state| {
            environment.is_none_or(|name| state.key.environment == *name)
                && service.is_none_or(|name| state.key.service.as_str() == name)
        });
        let mut found: Vec<_> = wanted.flat_map(views::all).collect();
        let number = |summary: &RolloutSummary| views::parse_id(&summary.id).map(|id| id.0);
        found.sort_by_key(|summary| std::cmp::Reverse(number(summary)));
        found.truncate(limit);
        found
    }

    /// A rollout's state, its lines after a place, and whether more may come.
    pub(crate) fn lines(
        &self,
        id: RolloutId,
        after: Sequence,
    ) -> Result<(Vec<RolloutEvent>, bool), Problem> {
        let service = self.book.service_of(id).ok_or_else(|| unknown_rollout(id))?;
        let lines = self.book.lines_of(&service.key, id, after).map_err(|error| journal(&error))?;
        let ended = service.ended.iter().any(|ended| ended.rollout.request.id == id);
        Ok((lines, ended))
    }

    pub(crate) fn dossier(&self, id: RolloutId) -> Result<Dossier, Problem> {
        let service = self.book.service_of(id).ok_or_else(|| unknown_rollout(id))?;
        let summary = views::find(service, id).ok_or_else(|| unknown_rollout(id))?;
        let (events, _) = self.lines(id, Sequence(0))?;
        let active = service.rollout.as_ref().filter(|active| active.request.id == id);
        let ended = service.ended.iter().find(|ended| ended.rollout.request.id == id);
        let rollout = active.or_else(|| ended.map(|ended| &ended.rollout));
        Ok(Dossier {
            summary,
            plan: rollout
                .map(|rollout| rollout.plan.iter().map(describe_step).collect())
                .unwrap_or_default(),
            events,
            verdict: rollout.and_then(|rollout| rollout.verdict.clone()),
            last_seen: rollout.map(|rollout| rollout.last_seen.clone()).unwrap_or_default(),
        })
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let Some(heard) = &self.heard else { return Ledger::default() };
        let entry = |arm: &switchback_ports::data_plane::ArmReport| LedgerEntry {
            key: arm.arm.service.clone(),
            version: arm.version.clone(),
            in_flight: arm.in_flight,
            stats: arm.stats.clone(),
        };
        Ledger {
            versions: heard.report.arms.iter().map(entry).collect(),
            unrouted: heard.report.unrouted,
            refused: heard.report.refused,
        }
    }

    /// Instances whose logs are asked for.
    pub(crate) fn log_sources(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&str>,
        instance: Option<&str>,
    ) -> Vec<(switchback_domain::InstanceId, Version)> {
        let wanted = self.fleet.instances().filter(|seen| {
            let spec = &seen.spec;
            environment.is_none_or(|name| spec.key.environment == *name)
                && service.is_none_or(|name| spec.key.service.as_str() == name)
                && instance.is_none_or(|name| spec.id.as_str() == name)
        });
        wanted.map(|seen| (seen.spec.id.clone(), seen.spec.version.clone())).collect()
    }
}

fn unknown_rollout(id: RolloutId) -> Problem {
    code::UNKNOWN_ROLLOUT
        .problem(format!("there is no rollout {id}"))
        .hint("`switchback history` shows those there are")
}

fn unknown_release(key: &ServiceKey) -> Problem {
    code::UNKNOWN_REVISION
        .problem(format!("the release of {key} is not kept any more"))
        .hint("`revision_history_limit` says how many are kept")
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Problem {
    let kind = if error.kind() == std::io::ErrorKind::PermissionDenied {
        code::LISTEN_PERMISSION
    } else {
        code::LISTEN_IN_USE
    };
    kind.problem(format!("cannot listen on {address}: {error}"))
        .hint("stop the program that has this address, or change `route.listen`")
}

fn way_back(service: &Service, policy: &RolloutPolicy) -> Vec<String> {
    let Some(stable) = service.stable() else {
        return vec![
            "none: nothing was deployed before; a failed version is taken away".to_owned(),
        ];
    };
    let version =
        views::version(service, &stable.release).map_or_else(String::new, |v| v.to_string());
    let pool = service.pool(&stable.release);
    vec![
        format!("{version} has {} of {} instances ready", pool.ready(), stable.policy.replicas),
        format!(
            "it stays at strength until {} after the promotion",
            switchback_domain::time::humane(policy.scale_down_delay)
        ),
    ]
}

fn changes(service: &Service, new: &Release) -> Vec<String> {
    let stable = service.stable().and_then(|stable| service.releases.get(&stable.release));
    let Some(old) = stable else { return vec!["everything is new".to_owned()] };
    let mut lines = Vec::new();
    let mut changed = |what: &str, old: String, new: String| {
        if old != new {
            lines.push(format!("{what}: {old} -> {new}"));
        }
    };
    let (was, is) = (&old.workload, &new.workload);
    changed("version", old.version.to_string(), new.version.to_string());
    changed("command", was.command.join(" "), is.command.join(" "));
    changed("working_dir", was.working_dir.clone(), is.working_dir.clone());
    for name in was.env.keys().chain(is.env.keys()).collect::<std::collections::BTreeSet<_>>() {
        // Values may be secret: only that they differ is said.
        let presence = |set: Option<&String>| if set.is_some() { "set" } else { "unset" };
        let (before, after) = (was.env.get(name), is.env.get(name));
        if before != after {
            let how = if before.is_some() && after.is_some() { "changed" } else { presence(after) };
            lines.push(format!("env {name}: {how}"));
        }
    }
    if was.config != is.config {
        lines.push("config files: changed".to_owned());
    }
    if was.health != is.health {
        lines.push("health checks: changed".to_owned());
    }
    if was.route != is.route {
        let address = |route: Option<SocketAddr>| {
            route.map_or_else(|| "none".to_owned(), |address| address.to_string())
        };
        let listen = |w: &switchback_domain::Workload| w.route.as_ref().map(|route| route.listen);
        lines.push(format!("route: {} -> {}", address(listen(was)), address(listen(is))));
    }
    lines
}
