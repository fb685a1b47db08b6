//! The instances as they are: what the runtime lists, how they do, and which are coming or going.
//!
//! Remembers and concludes; the driver starts the tasks that act.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use switchback_domain::probe::ProbeResult;
use switchback_domain::seeded::bug;
use switchback_domain::{
    InstanceHealth, InstanceId, InstanceReport, ReleaseId, ServiceKey, Timestamp,
};
use switchback_engine::Service;
use switchback_ports::data_plane::Report;
use switchback_ports::runtime::{Instance, ProcessState};

use crate::clock::Instant;
use crate::vitals::{Advice, ProbeRole, Vitals};

/// Pause before a failed start is tried again.
const START_AGAIN: Duration = Duration::from_secs(1);
/// How often a changed reason alone is worth a record.
const REASON_EVERY: Duration = Duration::from_secs(2);

/// What a running probe task was started for; when it changes, the task is replaced.
type Identity = (u32, Option<SocketAddr>);

/// An instance on its way out.
#[derive(Debug, Clone, Copy)]
struct Retiring {
    /// Since when no table sends anything new to it.
    excluded_since: Option<Instant>,
    /// Its stop was ordered.
    stopping: bool,
}

/// Everything known about instances.
#[derive(Default)]
pub(crate) struct Fleet {
    listed: bool,
    seen: BTreeMap<InstanceId, Instance>,
    vitals: HashMap<InstanceId, Vitals>,
    probing: HashMap<InstanceId, Identity>,
    /// Gone since they were last asked for: their probe tasks are to end.
    unprobed: Vec<InstanceId>,
    /// Starts that were ordered; whether the runtime has answered since.
    starting: HashMap<InstanceId, bool>,
    failed_starts: HashMap<InstanceId, (String, Instant)>,
    retiring: HashMap<InstanceId, Retiring>,
    reported: HashMap<ReleaseId, Instant>,
}

impl Fleet {
    /// Whether the runtime was ever heard: before that nothing may be concluded.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed
    }

    pub(crate) fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.seen.get(id)
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.seen.values()
    }

    pub(crate) fn vitals(&self, id: &InstanceId) -> Option<&Vitals> {
        self.vitals.get(id)
    }

    /// Takes in a new list. `before` is what the journal says of an instance's health. Returns
    /// the instances that need a (new) probe task.
    pub(crate) fn listed(
        &mut self,
        list: Vec<Instance>,
        before: impl Fn(&Instance) -> Option<InstanceHealth>,
    ) -> Vec<Instance> {
        self.listed = true;
        self.seen = list.into_iter().map(|i| (i.spec.id.clone(), i)).collect();
        let seen = &self.seen;
        self.vitals.retain(|id, _| seen.contains_key(id));
        // A list may be older than the answer: should it be, the start is ordered once more.
        self.starting.retain(|id, answered| {
            bug("start-never-over") || !*answered && seen.get(id).is_none_or(is_over)
        });
        let unprobed = &mut self.unprobed;
        self.probing.retain(|id, _| {
            let keep = seen.contains_key(id);
            if !keep {
                unprobed.push(id.clone());
            }
            keep
        });
        for (id, instance) in &self.seen {
            let checks = &instance.spec.workload.health;
            let vitals = self
                .vitals
                .entry(id.clone())
                .or_insert_with(|| Vitals::new(checks, instance.restarts, before(instance)));
            vitals.process(checks, instance);
        }
        self.seen.values().filter(|instance| self.needs_probing(instance)).cloned().collect()
    }

    fn needs_probing(&self, instance: &Instance) -> bool {
        let running = matches!(instance.process, ProcessState::Running { .. });
        let identity = (instance.restarts, instance.address);
        let current = self.probing.get(&instance.spec.id).copied();
        running && instance.address.is_some() && current != Some(identity)
    }

    pub(crate) fn probing_started(&mut self, instance: &Instance) {
        let identity = (instance.restarts, instance.address);
        self.probing.insert(instance.spec.id.clone(), identity);
    }

    /// Instances that need no probe task any more.
    pub(crate) fn take_unprobed(&mut self) -> Vec<InstanceId> {
        std::mem::take(&mut self.unprobed)
    }

    /// Takes in a probe's result. Returns the health after it, and what to do.
    pub(crate) fn probed(
        &mut self,
        id: &InstanceId,
        role: ProbeRole,
        result: &ProbeResult,
        now: Timestamp,
    ) -> Advice {
        let (Some(instance), Some(vitals)) = (self.seen.get(id), self.vitals.get_mut(id)) else {
            return Advice::None;
        };
        vitals.probed(&instance.spec.workload.health, role, result, now)
    }

    pub(crate) fn start_ordered(&mut self, id: &InstanceId) {
        self.starting.insert(id.clone(), false);
        self.failed_starts.remove(id);
    }

    pub(crate) fn started(&mut self, id: &InstanceId, result: Result<(), String>) {
        if let Err(why) = result {
            if !bug("failed-start-kept") {
                self.starting.remove(id);
            }
            self.failed_starts.insert(id.clone(), (why, Instant::now()));
        } else if let Some(answered) = self.starting.get_mut(id) {
            *answered = true;
        }
    }

    /// Ordinals of a pool that are not there and not on their way. One that is being stopped by
    /// nobody is what a dead control plane began to stop: starting it ends that first.
    pub(crate) fn missing(
        &self,
        key: &ServiceKey,
        release: &ReleaseId,
        desired: u32,
    ) -> Vec<InstanceId> {
        let absent = |id: &InstanceId| {
            let failed = self.failed_starts.get(id);
            let waits = failed.is_some_and(|(_, at)| at.elapsed() < START_AGAIN);
            let gone = self.seen.get(id).is_none_or(is_over);
            gone && !self.starting.contains_key(id) && !waits
        };
        let ids = (0..desired).map(|ordinal| InstanceId::new(key, release, ordinal));
        ids.filter(|id| absent(id) && !self.is_stopping(id)).collect()
    }

    fn is_stopping(&self, id: &InstanceId) -> bool {
        self.retiring.get(id).is_some_and(|retiring| retiring.stopping)
    }

    /// Brings the list of instances on their way out up to date with what the states want, and
    /// returns those whose stop is due: no table sends anything to them, and nothing of theirs is
    /// on its way, or it had its time.
    pub(crate) fn due_stops(
        &mut self,
        wanted: &HashSet<InstanceId>,
        excluded: impl Fn(&InstanceId) -> bool,
        in_flight: impl Fn(&InstanceId) -> Option<u64>,
        drain_timeout: impl Fn(&Instance) -> Duration,
    ) -> Vec<(InstanceId, u64)> {
        self.retiring.retain(|id, retiring| {
            retiring.stopping || (!wanted.contains(id) && self.seen.contains_key(id))
        });
        let mut due = Vec::new();
        for (id, instance) in self.seen.iter().filter(|(id, _)| !wanted.contains(*id)) {
            let unknown = Retiring { excluded_since: None, stopping: false };
            let retiring = self.retiring.entry(id.clone()).or_insert(unknown);
            if retiring.stopping {
                continue;
            }
            if !excluded(id) && !bug("stopped-while-served") {
                retiring.excluded_since = None;
                continue;
            }
            let since = *retiring.excluded_since.get_or_insert_with(Instant::now);
            let count = in_flight(id);
            if count == Some(0)
                || bug("drain-skipped")
                || since.elapsed() >= drain_timeout(instance)
            {
                retiring.stopping = true;
                due.push((id.clone(), count.unwrap_or(0)));
            }
        }
        due
    }

    /// A stop ended; on failure it is tried again.
    pub(crate) fn stopped(&mut self, id: &InstanceId, gone: bool) {
        if gone {
            self.retiring.remove(id);
            self.seen.remove(id);
            self.vitals.remove(id);
            if self.probing.remove(id).is_some() {
                self.unprobed.push(id.clone());
            }
        } else if let Some(retiring) = self.retiring.get_mut(id) {
            retiring.stopping = false;
        }
    }

    /// What the engine should be told about the instances of a release; `None` when it knows. A
    /// changed reason alone is told now and then, and `at_once` when a decision is due: whoever
    /// gives up names the last answer.
    pub(crate) fn news(
        &mut self,
        service: &Service,
        release: &ReleaseId,
        at_once: bool,
    ) -> Option<Vec<InstanceReport>> {
        let reports = self.reports(&service.key, release);
        let known = service.pools.get(release).map_or(&[][..], |pool| &pool.instances);
        let same_but_reason = known.len() == reports.len()
            && known.iter().zip(&reports).all(|(old, new)| {
                // The first reason is news.
                (&old.id, old.health, old.address, old.restarts, old.reason.is_some())
                    == (&new.id, new.health, new.address, new.restarts, new.reason.is_some())
            });
        let recently =
            !at_once && self.reported.get(release).is_some_and(|at| at.elapsed() < REASON_EVERY);
        if known == reports || (same_but_reason && recently) {
            return None;
        }
        self.reported.insert(release.clone(), Instant::now());
        Some(reports)
    }

    fn reports(&self, key: &ServiceKey, release: &ReleaseId) -> Vec<InstanceReport> {
        let of_release =
            |instance: &&Instance| instance.spec.key == *key && instance.spec.release == *release;
        let mut reports: Vec<_> =
            self.seen.values().filter(of_release).map(|seen| self.report(seen)).collect();
        let prefix = InstanceId::new(key, release, 0);
        let prefix = prefix.as_str().trim_end_matches('0').to_owned();
        for (id, (why, _)) in &self.failed_starts {
            if id.as_str().starts_with(&prefix) && !self.seen.contains_key(id) {
                reports.push(InstanceReport {
                    id: id.clone(),
                    address: None,
                    health: InstanceHealth::Starting,
                    restarts: 0,
                    reason: Some(why.clone()),
                });
            }
        }
        reports.sort_by(|one, other| one.id.cmp(&other.id));
        reports
    }

    /// One instance as the engine sees it.
    pub(crate) fn report(&self, instance: &Instance) -> InstanceReport {
        let id = &instance.spec.id;
        let vitals = self.vitals.get(id);
        let going = self.retiring.contains_key(id);
        let health = vitals.map_or(InstanceHealth::Starting, Vitals::health);
        InstanceReport {
            id: id.clone(),
            address: instance.address,
            health: if going { InstanceHealth::Stopping } else { health },
            restarts: instance.restarts,
            reason: vitals.and_then(Vitals::reason).map(ToOwned::to_owned),
        }
    }

    /// Failed starts of instances that nobody wants any more.
    pub(crate) fn forget_failed_starts(&mut self, wanted: &HashSet<InstanceId>) {
        self.failed_starts.retain(|id, _| wanted.contains(id));
    }

    /// Releases of a service that have instances or failed starts.
    pub(crate) fn releases_of(&self, key: &ServiceKey) -> BTreeSet<ReleaseId> {
        let of_key = self.seen.values().filter(|instance| instance.spec.key == *key);
        of_key.map(|instance| instance.spec.release.clone()).collect()
    }

    /// Probe failures of a release's instances since each was first seen.
    pub(crate) fn failed_probes(&self, key: &ServiceKey, release: &ReleaseId) -> u64 {
        let of_release = self
            .seen
            .values()
            .filter(|seen| seen.spec.key == *key && seen.spec.release == *release);
        of_release
            .filter_map(|seen| self.vitals.get(&seen.spec.id))
            .map(Vitals::failed_probes)
            .sum()
    }
}

/// Whether nothing more is to be expected of an instance unless it is started.
fn is_over(instance: &Instance) -> bool {
    match instance.process {
        ProcessState::Lost | ProcessState::Stopping => true,
        ProcessState::Starting | ProcessState::Running { .. } | ProcessState::BackingOff { .. } => {
            false
        }
    }
}

/// Requests on their way to an instance, by a report.
pub(crate) fn in_flight(report: &Report, id: &InstanceId) -> u64 {
    report.arms.iter().filter_map(|arm| arm.in_flight_by_instance.get(id)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instance;

    fn missing(fleet: &Fleet) -> usize {
        let spec = instance().spec;
        fleet.missing(&spec.key, &spec.release, 1).len()
    }

    fn listed(fleet: &mut Fleet, process: ProcessState) {
        fleet.listed(vec![Instance { process, ..instance() }], |_| None);
    }

    #[test]
    fn what_a_dead_control_plane_began_to_stop_is_started_once() {
        let (mut fleet, id) = (Fleet::default(), instance().spec.id);
        listed(&mut fleet, ProcessState::Stopping);
        assert_eq!(missing(&fleet), 1);
        fleet.start_ordered(&id);
        // The runtime stops it first, and looks the same for as long as that takes.
        listed(&mut fleet, ProcessState::Stopping);
        assert_eq!(missing(&fleet), 0);
        fleet.started(&id, Ok(()));
        listed(&mut fleet, ProcessState::Running { pid: 2 });
        assert_eq!(missing(&fleet), 0);
        let health = fleet.vitals(&id).map(Vitals::health);
        assert_eq!(health, Some(InstanceHealth::Starting), "it is asked anew");
    }

    #[test]
    fn what_dies_right_after_its_start_is_started_again() {
        let (mut fleet, id) = (Fleet::default(), instance().spec.id);
        fleet.start_ordered(&id);
        fleet.started(&id, Ok(()));
        listed(&mut fleet, ProcessState::Lost);
        assert_eq!(missing(&fleet), 1);
    }
}
