//! What the API looks up: the state as records, and nothing changed by it.

use switchback_api::{
    ControlStatus, DataPlaneStatus, DeedEntry, InstanceStatus, Problem, RolloutEvent,
    RolloutSummary, Status, code,
};
use switchback_domain::route::RouteMode;
use switchback_domain::{EnvironmentName, InstanceId, Verdict, Version};
use switchback_engine::{RolloutId, Service, describe_step};
use switchback_ports::journal::Sequence;
use switchback_ports::runtime::{Instance, ProcessState};

use crate::calls::unknown_rollout;
use crate::driver::Driver;
use crate::problem::journal;
use crate::views;

/// Everything about one rollout that the state and the journal know.
pub(crate) struct Dossier {
    pub(crate) summary: RolloutSummary,
    pub(crate) plan: Vec<String>,
    pub(crate) events: Vec<RolloutEvent>,
    pub(crate) beside: Vec<DeedEntry>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) last_seen: Vec<switchback_domain::InstanceReport>,
}

/// Most milliseconds between an operation's own time and that of its record.
const TOLD_WITHIN_MS: u64 = 1_000;

impl Driver {
    pub(crate) fn status(&self, environment: Option<&EnvironmentName>) -> Status {
        let states = self.book.services().values();
        let wanted = states.filter(|s| environment.is_none_or(|e| s.key.environment == *e));
        Status {
            project: self.settings.project.to_string(),
            environment: self.settings.environment.to_string(),
            control: ControlStatus {
                pid: std::process::id(),
                epoch: self.book.epoch().0,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                degraded: self.degraded(),
            },
            data_plane: self.data_plane_status(),
            services: wanted.map(|service| self.service_status(service)).collect(),
            certificates: self.certificate_statuses(),
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
            version: report.map(|report| report.version.clone()),
            generation: report.map_or_else(String::new, |report| report.generation.to_string()),
            error: self
                .data_plane_error
                .clone()
                .or_else(|| self.publisher.error().map(ToOwned::to_owned))
                .or(not_listening)
                .or_else(|| self.sparing()),
            listening: report.map_or_else(Vec::new, |report| {
                let good = report.listeners.iter().filter(|listener| listener.error.is_none());
                good.map(|listener| listener.address.to_string()).collect()
            }),
        }
    }

    fn sparing(&self) -> Option<String> {
        let (key, _) = self.publisher.spared().first_key_value()?;
        Some(format!(
            "{key} keeps what an earlier life served until what the journal wants is ready"
        ))
    }

    fn service_status(&self, service: &Service) -> switchback_api::ServiceStatus {
        let mine = self.fleet.instances_of(&service.key);
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
        let serves = self.serves(service);
        switchback_api::ServiceStatus { instances, serves, ..views::status(service) }
    }

    /// Whether the stable version is at strength and the data plane sends requests to it.
    fn serves(&self, service: &Service) -> bool {
        let Some(stable) = service.stable() else { return false };
        let is_strong = service.pool(&stable.release).ready() >= stable.policy.replicas;
        let heard = self.heard.as_ref();
        let is_told = self.publisher.is_settled()
            && heard.is_some_and(|it| self.publisher.is_current(&it.report, it.received));
        is_strong && is_told
    }

    /// The services of this environment (`None` is all) and name (`None` is any).
    fn named(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&str>,
    ) -> Result<impl Iterator<Item = &Service>, Problem> {
        self.check_service(environment, service)?;
        let states = self.book.services().values().map(AsRef::as_ref);
        Ok(states.filter(move |state: &&Service| {
            environment.is_none_or(|name| state.key.environment == *name)
                && service.is_none_or(|name| state.key.service.as_str() == name)
        }))
    }

    pub(crate) fn rollouts(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RolloutSummary>, Problem> {
        let wanted = self.named(environment, service)?;
        let mut found: Vec<_> = wanted.flat_map(views::all).collect();
        let number = |summary: &RolloutSummary| views::parse_id(&summary.id).map(|id| id.0);
        found.sort_by_key(|summary| std::cmp::Reverse(number(summary)));
        found.truncate(limit);
        Ok(found)
    }

    /// What was done by hand, and of itself, beside rollouts: newest first. What is about no
    /// service is left out when one is named.
    pub(crate) fn deeds(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeedEntry>, Problem> {
        let wanted = self.named(environment, service)?;
        let mut found: Vec<_> = wanted.flat_map(views::deeds).collect();
        found.extend(self.general_deeds().filter(|_| service.is_none()));
        found.sort_by_key(|entry| std::cmp::Reverse(entry.at_ms));
        found.truncate(limit);
        Ok(found)
    }

    /// What is about no service, newest first.
    fn general_deeds(&self) -> impl Iterator<Item = DeedEntry> {
        self.book.deeds().map(|(at_ms, deed)| DeedEntry {
            at_ms: *at_ms,
            key: None,
            text: deed.text.clone(),
            failed: deed.failed,
            by: deed.by.clone(),
            reason: None,
        })
    }

    /// See [`switchback_api::RolloutDetail::beside`].
    fn beside(
        &self,
        service: &Service,
        summary: &RolloutSummary,
        events: &[RolloutEvent],
    ) -> Vec<DeedEntry> {
        let (begun, ended) = (summary.started_ms, summary.ended_ms.unwrap_or(u64::MAX));
        let is_told = |deed: &DeedEntry| {
            let whose = format!(", by {}", deed.by);
            events.iter().any(|event| {
                event.at_ms.abs_diff(deed.at_ms) <= TOLD_WITHIN_MS && event.text.contains(&whose)
            })
        };
        let during = |deed: &DeedEntry| (begun..=ended).contains(&deed.at_ms);
        let of_route = views::deeds(service).filter(|deed| during(deed) && !is_told(deed));
        let earlier = service.operations.iter().rposition(|one| one.wall_ms < begun);
        let in_force = earlier.filter(|at| service.operations[*at].mode != RouteMode::Serve);
        let in_force = in_force.and_then(|at| views::deeds(service).rev().nth(at));
        let mut found: Vec<_> = of_route.chain(self.general_deeds().filter(during)).collect();
        found.extend(in_force);
        found.sort_by_key(|deed| deed.at_ms);
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
            beside: self.beside(service, &summary, &events),
            summary,
            plan: rollout
                .map(|rollout| rollout.plan.iter().map(describe_step).collect())
                .unwrap_or_default(),
            events,
            verdict: rollout.and_then(|rollout| rollout.verdict.clone()),
            last_seen: rollout.map(|rollout| rollout.last_seen.clone()).unwrap_or_default(),
        })
    }

    /// Instances whose logs are asked for: those there are, or one by its name, even if it was
    /// stopped long ago.
    pub(crate) fn log_sources(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&str>,
        instance: Option<&str>,
    ) -> Result<Vec<(InstanceId, Version)>, Problem> {
        self.check_service(environment, service)?;
        let wanted = self.fleet.instances().filter(|seen| {
            let spec = &seen.spec;
            environment.is_none_or(|name| spec.key.environment == *name)
                && service.is_none_or(|name| spec.key.service.as_str() == name)
                && instance.is_none_or(|name| spec.id.as_str() == name)
        });
        let found: Vec<_> =
            wanted.map(|seen| (seen.spec.id.clone(), seen.spec.version.clone())).collect();
        match instance {
            Some(name) if found.is_empty() => Ok(vec![self.stopped_instance(name)?]),
            Some(_) | None => Ok(found),
        }
    }

    /// An instance that is gone, by the release or the rollout it was of.
    fn stopped_instance(&self, name: &str) -> Result<(InstanceId, Version), Problem> {
        let ordinal = name.rsplit('.').next().and_then(|text| text.parse().ok());
        let states = self.book.services().values();
        let known = states.flat_map(|service| {
            let kept = service.releases.iter().map(|(id, release)| (id, &release.version));
            let ended = service
                .ended
                .iter()
                .map(|ended| (ended.rollout.candidate(), &ended.rollout.request.release.version));
            kept.chain(ended).map(move |(id, version)| (&service.key, id, version))
        });
        let mut ids = known.filter_map(|(key, release, version)| {
            Some((InstanceId::new(key, release, ordinal?), version.clone()))
        });
        ids.find(|(id, _)| id.as_str() == name).ok_or_else(|| {
            code::UNKNOWN_INSTANCE
                .problem(format!("there is no instance {name}"))
                .hint("`switchback status` names those there are")
        })
    }

    /// A service that was never brought up has neither logs nor a history.
    pub(crate) fn check_service(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&str>,
    ) -> Result<(), Problem> {
        let Some(name) = service else { return Ok(()) };
        let keys = || {
            let keys = self.book.services().keys();
            keys.filter(|key| environment.is_none_or(|wanted| key.environment == *wanted))
        };
        if keys().any(|key| key.service.as_str() == name) {
            return Ok(());
        }
        let known: Vec<_> = keys().map(ToString::to_string).collect();
        let problem = code::UNKNOWN_SERVICE.problem(format!("no service {name} was brought up"));
        Err(match known.as_slice() {
            [] => problem.hint("`switchback up` brings the configured ones up"),
            _ => problem.hint(format!("there is {}", known.join(", "))),
        })
    }
}
