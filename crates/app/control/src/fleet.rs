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
struct Retiring {
    key: ServiceKey,
    /// Since when no table sends anything new to it.
    excluded_since: Option<Instant>,
    /// Its stop was ordered.
    stopping: bool,
}

/// A start that was ordered.
struct Start {
    key: ServiceKey,
    /// Whether the runtime has answered since.
    answered: bool,
}

/// A start that failed.
struct FailedStart {
    key: ServiceKey,
    why: String,
    at: Instant,
}

/// What the engine should be told about the instances of a release.
pub(crate) enum News {
    /// It knows.
    Known,
    /// Only a reason has changed, and that was told a moment ago.
    Later,
    /// This.
    Now(Vec<InstanceReport>),
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
    starting: HashMap<InstanceId, Start>,
    failed_starts: BTreeMap<InstanceId, FailedStart>,
    retiring: BTreeMap<InstanceId, Retiring>,
    reported: HashMap<ReleaseId, Instant>,
    /// Services of whose instances the engine may not know everything.
    untold: BTreeSet<ServiceKey>,
    /// Services whose instances may not be the ones that are wanted.
    unsettled: BTreeSet<ServiceKey>,
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

    /// A service's instances, in the order of their ids.
    pub(crate) fn instances_of(&self, key: &ServiceKey) -> impl Iterator<Item = &Instance> {
        let seen = self.seen.range(InstanceId::all_of(key)).map(|(_, instance)| instance);
        seen.filter(move |instance| instance.spec.key == *key)
    }

    /// Something about a service's instances may have changed.
    pub(crate) fn touch(&mut self, key: &ServiceKey) {
        for set in [&mut self.untold, &mut self.unsettled] {
            if !set.contains(key) {
                set.insert(key.clone());
            }
        }
    }

    /// Services of whose instances the engine may not know everything.
    pub(crate) fn untold(&self) -> &BTreeSet<ServiceKey> {
        &self.untold
    }

    /// The engine knows everything about a service's instances.
    pub(crate) fn told(&mut self, key: &ServiceKey) {
        self.untold.remove(key);
    }

    /// Services whose instances may not be the ones that are wanted, since this was last asked.
    /// A failed start may always be due again.
    pub(crate) fn take_unsettled(&mut self) -> BTreeSet<ServiceKey> {
        let failed = self.failed_starts.values().map(|start| start.key.clone());
        self.unsettled.extend(failed);
        std::mem::take(&mut self.unsettled)
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
        let seen = list.into_iter().map(|i| (i.spec.id.clone(), i)).collect();
        let known = std::mem::replace(&mut self.seen, seen);
        let (gone, mut touched) = compared(&known, &self.seen);
        let seen = &self.seen;
        // A list may be older than the answer: should it be, the start is ordered once more.
        self.starting.retain(|id, start| {
            let keep =
                bug("start-never-over") || !start.answered && seen.get(id).is_none_or(is_over);
            if !keep {
                touched.push(start.key.clone());
            }
            keep
        });
        for id in gone {
            self.vitals.remove(&id);
            if self.probing.remove(&id).is_some() {
                self.unprobed.push(id);
            }
        }
        for (id, instance) in &self.seen {
            let checks = &instance.spec.workload.health;
            if let Some(vitals) = self.vitals.get_mut(id) {
                vitals.process(checks, instance);
            } else {
                let mut vitals = Vitals::new(checks, instance.restarts, before(instance));
                vitals.process(checks, instance);
                self.vitals.insert(id.clone(), vitals);
            }
        }
        for key in &touched {
            self.touch(key);
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
        let (health, reason) = (vitals.health(), vitals.reason().map(ToOwned::to_owned));
        let advice = vitals.probed(&instance.spec.workload.health, role, result, now);
        if health != vitals.health() || reason.as_deref() != vitals.reason() {
            let key = instance.spec.key.clone();
            self.touch(&key);
        }
        advice
    }

    pub(crate) fn start_ordered(&mut self, key: &ServiceKey, id: &InstanceId) {
        self.starting.insert(id.clone(), Start { key: key.clone(), answered: false });
        self.failed_starts.remove(id);
        self.touch(key);
    }

    pub(crate) fn started(&mut self, id: &InstanceId, result: Result<(), String>) {
        let Some(start) = self.starting.get_mut(id) else { return };
        let key = start.key.clone();
        if let Err(why) = result {
            if !bug("failed-start-kept") {
                self.starting.remove(id);
            }
            let failed = FailedStart { key: key.clone(), why, at: Instant::now() };
            self.failed_starts.insert(id.clone(), failed);
            self.touch(&key);
        } else {
            start.answered = true;
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
            let waits = failed.is_some_and(|failed| failed.at.elapsed() < START_AGAIN);
            let gone = self.seen.get(id).is_none_or(is_over);
            gone && !self.starting.contains_key(id) && !waits
        };
        let ids = InstanceId::wanted(key, release, desired);
        ids.filter(|id| absent(id) && !self.is_stopping(id)).collect()
    }

    fn is_stopping(&self, id: &InstanceId) -> bool {
        self.retiring.get(id).is_some_and(|retiring| retiring.stopping)
    }

    /// Brings the list of instances on their way out up to date with what a service wants, and
    /// forgets failed starts of what it does not want any more.
    pub(crate) fn settle(&mut self, key: &ServiceKey, wanted: &HashSet<InstanceId>) {
        let of = self.retiring.range(InstanceId::all_of(key));
        let is_back = |id: &InstanceId| wanted.contains(id) || !self.seen.contains_key(id);
        let back = of.filter(|(id, retiring)| !retiring.stopping && is_back(id));
        let back: Vec<_> = back.map(|(id, _)| id.clone()).collect();
        let unwanted = self.instances_of(key).map(|instance| &instance.spec.id);
        let unwanted = unwanted.filter(|id| !wanted.contains(*id));
        let unwanted = unwanted.filter(|id| !self.retiring.contains_key(*id));
        let unwanted: Vec<_> = unwanted.cloned().collect();
        let failed = self.failed_starts.range(InstanceId::all_of(key)).map(|(id, _)| id);
        let failed: Vec<_> = failed.filter(|id| !wanted.contains(*id)).cloned().collect();
        if !(back.is_empty() && unwanted.is_empty() && failed.is_empty()) {
            self.untold.insert(key.clone());
        }
        for id in back {
            self.retiring.remove(&id);
        }
        for id in unwanted {
            let key = key.clone();
            self.retiring.insert(id, Retiring { key, excluded_since: None, stopping: false });
        }
        for id in failed {
            self.failed_starts.remove(&id);
        }
    }

    /// Those on their way out whose stop is due: no table sends anything to them, and nothing of
    /// theirs is on its way, or it had its time.
    pub(crate) fn due_stops(
        &mut self,
        excluded: impl Fn(&InstanceId) -> bool,
        in_flight: impl Fn(&InstanceId) -> Option<u64>,
        drain_timeout: impl Fn(&Instance) -> Duration,
    ) -> Vec<(InstanceId, u64)> {
        let mut due = Vec::new();
        for (id, retiring) in &mut self.retiring {
            let Some(instance) = self.seen.get(id).filter(|_| !retiring.stopping) else { continue };
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
        let seen = self.seen.get(id).map(|instance| &instance.spec.key);
        let key = seen.or_else(|| Some(&self.retiring.get(id)?.key)).cloned();
        if let Some(key) = &key {
            self.touch(key);
        }
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

    /// What the engine should be told about the instances of a release. A changed reason alone is
    /// told now and then, and `at_once` when a decision is due: whoever gives up names the last
    /// answer.
    pub(crate) fn news(&mut self, service: &Service, release: &ReleaseId, at_once: bool) -> News {
        let reports = self.reports(&service.key, release);
        let known = service.pools.get(release).map_or(&[][..], |pool| &pool.instances);
        if known == reports {
            return News::Known;
        }
        let same_but_reason = known.len() == reports.len()
            && known.iter().zip(&reports).all(|(old, new)| {
                // The first reason is news.
                (&old.id, old.health, old.address, old.restarts, old.reason.is_some())
                    == (&new.id, new.health, new.address, new.restarts, new.reason.is_some())
            });
        let recently =
            !at_once && self.reported.get(release).is_some_and(|at| at.elapsed() < REASON_EVERY);
        if same_but_reason && recently {
            return News::Later;
        }
        self.reported.insert(release.clone(), Instant::now());
        News::Now(reports)
    }

    fn reports(&self, key: &ServiceKey, release: &ReleaseId) -> Vec<InstanceReport> {
        let of_release = self.instances_of(key).filter(|seen| seen.spec.release == *release);
        let mut reports: Vec<_> = of_release.map(|seen| self.report(seen)).collect();
        let mut failed = self.failed_starts.range(InstanceId::all_of(key)).peekable();
        if failed.peek().is_none() {
            return reports;
        }
        let prefix = InstanceId::new(key, release, 0);
        let prefix = prefix.as_str().trim_end_matches('0').to_owned();
        for (id, failed) in failed {
            if id.as_str().starts_with(&prefix) && !self.seen.contains_key(id) {
                reports.push(InstanceReport {
                    id: id.clone(),
                    address: None,
                    health: InstanceHealth::Starting,
                    restarts: 0,
                    reason: Some(failed.why.clone()),
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

    /// Releases of a service that have instances or failed starts.
    pub(crate) fn releases_of(&self, key: &ServiceKey) -> BTreeSet<ReleaseId> {
        self.instances_of(key).map(|instance| instance.spec.release.clone()).collect()
    }

    /// Probe failures of a release's instances since each was first seen.
    pub(crate) fn failed_probes(&self, key: &ServiceKey, release: &ReleaseId) -> u64 {
        let of_release = self.instances_of(key).filter(|seen| seen.spec.release == *release);
        of_release
            .filter_map(|seen| self.vitals.get(&seen.spec.id))
            .map(Vitals::failed_probes)
            .sum()
    }
}

/// Which instances of a list are gone from the next one, and the services of whose instances
/// anything is another. Both are walked once: looking each of thousands up would take longer.
fn compared(
    known: &BTreeMap<InstanceId, Instance>,
    seen: &BTreeMap<InstanceId, Instance>,
) -> (Vec<InstanceId>, Vec<ServiceKey>) {
    let (mut gone, mut touched) = (Vec::new(), Vec::new());
    let mut lose = |(id, instance): (&InstanceId, &Instance), touched: &mut Vec<ServiceKey>| {
        gone.push(id.clone());
        touched.push(instance.spec.key.clone());
    };
    let mut known = known.iter().peekable();
    for (id, instance) in seen {
        while let Some(lost) = known.next_if(|(other, _)| *other < id) {
            lose(lost, &mut touched);
        }
        let before = known.next_if(|(other, _)| *other == id);
        if before.is_none_or(|(_, before)| before != instance) {
            touched.push(instance.spec.key.clone());
        }
    }
    known.for_each(|lost| lose(lost, &mut touched));
    (gone, touched)
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
        fleet.start_ordered(&instance().spec.key, &id);
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
        fleet.start_ordered(&instance().spec.key, &id);
        fleet.started(&id, Ok(()));
        listed(&mut fleet, ProcessState::Lost);
        assert_eq!(missing(&fleet), 1);
    }

    #[test]
    fn two_lists_differ_by_what_is_gone_or_new() {
        let id =
            |number: u32| InstanceId::new(&instance().spec.key, &instance().spec.release, number);
        let list = |of: &[u32]| of.iter().map(|n| (id(*n), instance())).collect::<BTreeMap<_, _>>();
        for (known, seen, gone, touches) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], &[][..], 0),
            (&[1, 2, 3], &[2, 4], &[1, 3], 3),
            (&[1, 2], &[], &[1, 2], 2),
            (&[5], &[1, 5, 6], &[], 2),
        ] {
            let (found, touched) = compared(&list(known), &list(seen));
            let gone: Vec<_> = gone.iter().map(|number| id(*number)).collect();
            assert_eq!((found, touched.len()), (gone, touches));
        }
    }
}
