//! What operators have routes do instead of serving: maintenance, isolation, diversion, holding
//! back. Journaled like everything else, so it outlives both processes until somebody ends it.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_api::{Mode, Operation, OperationAnswer, OperationRequest, Problem, code};
use switchback_domain::route::{Destination, Maintenance, PauseLimits, RouteMode, RouteRules};
use switchback_domain::{EnvironmentName, ServiceKey, ServiceName, Version};
use switchback_engine::{EventKind, Service, describe_mode};

use crate::clock;
use crate::driver::Driver;
use crate::problem::from_apply;
use crate::views;

/// Largest page a client is shown: every worker holds it.
const PAGE_BYTES_MAX: usize = 64 * 1024;

/// The modes that services are to be in.
pub(crate) type Modes = BTreeMap<ServiceKey, RouteMode>;

impl Driver {
    /// Has routes do something else: all that are named, or none.
    pub(crate) fn operate(
        &mut self,
        ask: &OperationRequest,
    ) -> Result<(OperationAnswer, Modes), Problem> {
        let environment = self.environment(ask.environment.clone());
        let services = self.meant(&environment, ask)?;
        let mut modes = Modes::new();
        for service in &services {
            modes.insert(service.key.clone(), self.mode(service, &ask.operation)?);
        }
        let mut changed = BTreeMap::new();
        for service in &services {
            let Some(mode) = modes.get(&service.key) else { continue };
            changed.insert(service.key.clone(), describe_mode(service, mode));
            let operation = switchback_engine::Operation {
                mode: mode.clone(),
                by: ask.by.clone(),
                reason: ask.reason.clone(),
                wall_ms: clock::wall_ms(),
            };
            let event = EventKind::Operated(Box::new(operation));
            self.try_apply(&service.key, event).map_err(|error| from_apply(&error))?;
        }
        Ok((OperationAnswer { changed, in_force: false }, modes))
    }

    /// Whether every worker of the data plane has these services in these modes.
    pub(crate) fn is_in_force(&self, modes: &Modes) -> bool {
        modes.iter().all(|(service, mode)| self.publisher.is_in_mode(service, mode))
    }

    /// The services that are named; without names, those the operation can be done to.
    fn meant(
        &self,
        environment: &EnvironmentName,
        ask: &OperationRequest,
    ) -> Result<Vec<Service>, Problem> {
        if ask.services.is_empty() {
            let all = self.book.services().values().map(|service| &**service);
            let fits = |service: &&Service| {
                service.key.environment == *environment
                    && rules(service).is_some()
                    && is_endable(service, &ask.operation)
            };
            let found: Vec<_> = all.filter(fits).cloned().collect();
            return match found.as_slice() {
                [] => Err(refused(format!("no service of {environment} is concerned"))),
                _ => Ok(found),
            };
        }
        let mut names = ask.services.clone();
        names.sort();
        names.dedup();
        names.iter().map(|name| self.routed(environment, name)).collect()
    }

    fn routed(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<Service, Problem> {
        let key = ServiceKey::new(environment.clone(), name.clone());
        let service = self.book.services().get(&key).ok_or_else(|| {
            code::UNKNOWN_SERVICE
                .problem(format!("no service {key} was brought up"))
                .hint("`switchback status` lists those there are")
        })?;
        match rules(service) {
            Some(_) => Ok((**service).clone()),
            None => Err(refused(format!("{key} has no route: it takes no requests from outside"))),
        }
    }

    fn mode(&self, service: &Service, operation: &Operation) -> Result<RouteMode, Problem> {
        let rules = rules(service);
        match operation {
            Operation::Maintenance { page, retry_after_ms } => {
                let configured = rules.and_then(|rules| rules.maintenance.clone());
                let configured = configured.unwrap_or_default();
                let page = page.clone().unwrap_or(configured.page);
                if page.len() > PAGE_BYTES_MAX {
                    let large = format!("{} bytes are more than {PAGE_BYTES_MAX}", page.len());
                    return Err(code::PAGE_UNREADABLE.problem(format!("the page: {large}")));
                }
                let retry_after =
                    retry_after_ms.map_or(configured.retry_after, Duration::from_millis);
                Ok(RouteMode::Maintenance(Maintenance { page, retry_after }))
            }
            Operation::Isolate => Ok(RouteMode::Isolate),
            Operation::DivertToVersion(version) => diverted_to_version(service, version),
            Operation::DivertToService(name) => self.diverted_to_service(service, name),
            Operation::Hold { deadline_ms, cap } => {
                let limits = rules.and_then(|rules| rules.pause).unwrap_or_default();
                let deadline = deadline_ms.map_or(limits.deadline, Duration::from_millis);
                Ok(RouteMode::Pause(PauseLimits { deadline, cap: cap.unwrap_or(limits.cap) }))
            }
            Operation::End(_) if is_endable(service, operation) => Ok(RouteMode::Serve),
            Operation::End(mode) => {
                let now = describe_mode(service, &service.mode());
                Err(refused(format!("{} is not {}: {now}", service.key, word(*mode))))
            }
        }
    }

    fn diverted_to_service(
        &self,
        service: &Service,
        name: &ServiceName,
    ) -> Result<RouteMode, Problem> {
        let other = self.routed(&service.key.environment, name)?;
        if other.key == service.key {
            return Err(refused(format!("{} cannot be diverted to itself", service.key)));
        }
        if other.traffic.split.shares().is_empty() {
            return Err(refused(format!("{} serves nothing yet", other.key)));
        }
        Ok(RouteMode::Divert { to: Destination::Service(other.key) })
    }
}

fn diverted_to_version(service: &Service, version: &Version) -> Result<RouteMode, Problem> {
    let able = |release: &&switchback_domain::ReleaseId| {
        let pool = service.pool(release);
        // One that is being stopped gets nothing new.
        let is_able = pool.desired > 0 && pool.ready() > 0;
        is_able && views::version(service, release).as_ref() == Some(version)
    };
    let release = service.pools.keys().find(able).cloned().ok_or_else(|| {
        let key = &service.key;
        refused(format!("version {version} of {key} has no ready instance"))
            .hint("`switchback rollback` and `switchback deploy` start instances")
    })?;
    Ok(RouteMode::Divert { to: Destination::Version(release) })
}

/// Whether there is what is to be ended; other operations can be done to every service.
fn is_endable(service: &Service, operation: &Operation) -> bool {
    match operation {
        Operation::End(mode) => views::mode(&service.mode()) == Some(*mode),
        Operation::Maintenance { .. }
        | Operation::Isolate
        | Operation::DivertToVersion(_)
        | Operation::DivertToService(_)
        | Operation::Hold { .. } => true,
    }
}

/// The rules of the route that takes the service's requests now.
fn rules(service: &Service) -> Option<&RouteRules> {
    let stable = service.stable().map(|stable| &stable.release);
    let coming = service.rollout.as_ref().map(switchback_engine::Rollout::candidate);
    let release = service.releases.get(stable.or(coming)?)?;
    release.workload.route.as_ref().map(|route| &route.rules)
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Maintenance => "in maintenance",
        Mode::Isolated => "isolated",
        Mode::Diverted => "diverted",
        Mode::Held => "held",
    }
}

fn refused(why: String) -> Problem {
    code::OPERATION_REFUSED.problem(why).hint("`switchback status` shows what is in force")
}
