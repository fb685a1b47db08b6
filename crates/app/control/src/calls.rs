//! What the API asks of the driver, each as one function of the state in hand.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use switchback_api::{
    Accepted, CommandRequest, DeployRequest, Plan, Problem, RollbackRequest, UpAnswer, UpRequest,
    code,
};
use switchback_config::ServiceConfig;
use switchback_domain::strategy::RolloutPolicy;
use switchback_domain::workload::RouteSpec;
use switchback_domain::{EnvironmentName, Release, ServiceKey, Split, Version};
use switchback_engine::{
    Command, EventKind, Request, RequestKind, RolloutId, Service, describe_step, plan,
};
use switchback_routing::{Route, Table};

use crate::book::ApplyError;
use crate::configuration::{policy, services_of};
use crate::driver::Driver;
use crate::forecast::Forecast;
use crate::order::Order;
use crate::problem::from_apply;
use crate::{clock, table, views};

/// What `deploy` answers.
pub(crate) enum DeployAnswer {
    Accepted(Accepted),
    /// What would be done, and what there is to say about it once the traffic is known.
    Plan(Box<Plan>, Option<Forecast>),
}

impl Driver {
    pub(crate) fn environment(&self, asked: Option<EnvironmentName>) -> EnvironmentName {
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
            let (plan, forecast) = self.plan(&key, &release, &policy);
            return Ok(DeployAnswer::Plan(Box::new(plan), forecast));
        }
        self.check_listen(&release)?;
        let request = self.new_request(RequestKind::Deploy, release, policy, ask.by);
        let request = Request { accept_no_rollback: ask.accept_no_rollback, ..request };
        self.submit(&key, request).map(DeployAnswer::Accepted)
    }

    /// The route that a deploy asks for, with nobody behind it, if it names certificates.
    pub(crate) fn encrypted(&self, ask: &DeployRequest) -> Result<Option<Table>, Problem> {
        let environment = self.environment(ask.environment.clone());
        let service = self.settings.service(&environment, &ask.service)?;
        let Some(version) = ask.version.clone().or_else(|| service.version.clone()) else {
            return Ok(None);
        };
        let encrypts = |spec: &RouteSpec| spec.tls.is_some() || spec.upstream.tls.is_some();
        if !service.workload.route.as_ref().is_some_and(encrypts) {
            return Ok(None);
        }
        let release = self.settings.release(&service, &version)?;
        Ok(table::of_files(&release))
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
        self.check_routes(&request.release)?;
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

    /// Two services that want the same requests would make a table that cannot be served, and
    /// every later one too: found now, not at the promotion. Those that are there were looked at
    /// when they came.
    fn check_routes(&self, release: &Release) -> Result<(), Problem> {
        let Some(spec) = &release.workload.route else { return Ok(()) };
        let others = self.book.services().values().filter(|other| other.key != release.key);
        let rivals = others.filter_map(|other| table::rival_route(other, spec));
        let new = Route::new(release.key.clone(), spec, Split::none());
        let routes = rivals.chain([new]).collect();
        let table = Table { routes, ..Table::default() };
        table.check().map_err(|error| {
            code::CONFIG_INVALID
                .problem(error.to_string())
                .hint("first deploy the one that gives these requests up, or change its route")
        })
    }

    /// An address somebody else listens on is found now, not when traffic is to move.
    fn check_listen(&self, release: &Release) -> Result<(), Problem> {
        let Some(spec) = &release.workload.route else { return Ok(()) };
        let route = Route::new(release.key.clone(), spec, Split::none());
        route.addresses().try_for_each(|address| self.check_address(address))
    }

    fn check_address(&self, address: SocketAddr) -> Result<(), Problem> {
        if self.publisher.listens_on(address) {
            return Ok(());
        }
        let ours = match &self.heard {
            Some(heard) => heard.report.listeners.iter().any(|l| l.address == address),
            // Not heard of yet, it may well listen already: on what it served before.
            None => self.served_before(address),
        };
        match TcpListener::bind(address) {
            Err(error) if !ours => Err(cannot_listen(address, &error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn served_before(&self, address: SocketAddr) -> bool {
        let mut routes = self.book.services().values().filter_map(|it| table::bare_route(it));
        routes.any(|route| route.addresses().any(|own| own == address))
    }

    fn plan(
        &self,
        key: &ServiceKey,
        release: &Release,
        policy: &RolloutPolicy,
    ) -> (Plan, Option<Forecast>) {
        let service = self.book.service(key);
        let stable = service.stable();
        let from = stable.and_then(|stable| views::version(&service, &stable.release));
        let replicas = stable.map(|stable| stable.policy.replicas);
        let steps = plan(policy, RequestKind::Deploy, replicas);
        let forecast = Forecast::of(&service, release, policy, &steps);
        let plan = Plan {
            key: key.clone(),
            from,
            to: release.version.clone(),
            strategy: policy.strategy,
            steps: steps.iter().map(describe_step).collect(),
            finds: Vec::new(),
            rollback: way_back(&service, policy),
            changes: changes(&service, release),
        };
        (plan, forecast)
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
        let waits = known.queue.iter().any(|request| request.id == id);
        if !active && !waits {
            let rejection = switchback_engine::Rejection::NoRollout;
            return Err(from_apply(&ApplyError::Rejected(rejection)));
        }
        let CommandRequest { full, reason, by } = ask;
        let command = match verb {
            "abort" if waits => Command::Cancel { rollout: id, by, reason },
            "promote" | "pause" | "resume" if waits => {
                return Err(code::NOT_IN_THIS_PHASE
                    .problem(format!("rollout {id} has not begun: it waits for its turn"))
                    .hint(format!("`switchback abort {id}` takes it out of the queue")));
            }
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
        let request = self.new_request(asked.kind, asked.release.clone(), asked.policy.clone(), by);
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
        let document = self.settings.document()?;
        let services = services_of(&document, &environment)?;
        // Whoever brings things up may have mended what an order failed for.
        self.hurry_certificates();
        let mut answer = UpAnswer { started: BTreeMap::new(), kept: BTreeMap::new() };
        for service in services {
            let name = service.key().service.to_string();
            match self.up_service(service, &ask.by)? {
                Ok(accepted) => {
                    answer.started.insert(name, accepted);
                }
                Err(kept) => {
                    answer.kept.insert(name, kept);
                }
            }
        }
        Ok(answer)
    }

    /// Remembers that a service was brought to its configured version, so that the next `up` can
    /// tell an edited version from one that was deployed since.
    fn remember(&mut self, key: &ServiceKey, version: &Version) -> Result<(), Problem> {
        let configured = BTreeMap::from([(key.to_string(), version.to_string())]);
        self.book.add_configured(configured).map_err(|error| from_apply(&error))
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
        self.remember(&key, version)?;
        Ok(match accepted.rollout.as_str() {
            "" => Err(format!("{version} serves already")),
            _ => Ok(accepted),
        })
    }

    /// Stops everything, then ends the control plane. The journal keeps what should run, so that
    /// the next `up` brings it back.
    pub(crate) fn down(&mut self) {
        self.closing = true;
        let known = self.fleet.instances().cloned().collect();
        let generation = self.generation();
        self.orders.push(Order::TakeDown { known, generation });
    }
}

pub(crate) fn unknown_rollout(id: RolloutId) -> Problem {
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
