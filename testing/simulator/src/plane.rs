//! The simulated data plane: swaps whole tables in by generation, refuses older ones, saves what
//! it acknowledges, and counts requests that the real router assigns.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switchback_domain::route::{Destination, RouteMode};
use switchback_domain::{
    ArmStats, InstanceId, ReleaseId, ServiceKey, Split, Timestamp, Version, Weight,
};
use switchback_ports::data_plane::{
    ArmReport, ArmTrouble, Batches, Cursor, Error, ListenerReport, Report, TrialId,
};
use switchback_routing::{ArmId, Route, Router, Table};

use crate::ledger::{Answers, Ledger};

/// What is on its way to an instance that gets nothing new any more.
#[derive(Debug, Clone)]
pub(crate) struct Leaving {
    arm: ArmId,
    pub(crate) since: Timestamp,
    pub(crate) busy_until: Timestamp,
}

/// Serves one table.
#[derive(Debug, Default)]
pub(crate) struct Plane {
    pub(crate) table: Table,
    /// What it would serve after a restart.
    saved: Table,
    starts: u32,
    counts: BTreeMap<ArmId, ArmStats>,
    /// The same for exact tests.
    pub(crate) ledger: Ledger,
    /// Fractions of requests and failures not counted yet, in thousandths.
    rests: BTreeMap<ArmId, (u64, u64)>,
    pub(crate) leaving: BTreeMap<InstanceId, Leaving>,
    counted_until: Timestamp,
    /// Requests per second to each route.
    pub(crate) rate: u64,
    /// Figures are as they were then.
    frozen: Option<Vec<ArmReport>>,
    pub(crate) deaf: BTreeSet<std::net::SocketAddr>,
}

impl Plane {
    /// Takes a table, or refuses it. `linger` is drawn for each instance that it leaves out.
    pub(crate) fn receive(
        &mut self,
        table: &Table,
        now: Timestamp,
        linger: impl FnMut() -> Duration,
    ) -> Result<(), Error> {
        let seen = self.table.generation;
        if table.generation < seen {
            return Err(Error::Fenced { given: table.generation, seen });
        }
        if table.generation == seen {
            return if *table == self.table {
                Ok(())
            } else {
                Err(Error::Refused(format!("generation {seen} is another table")))
            };
        }
        Router::new(table).map_err(|invalid| Error::Refused(invalid.to_string()))?;
        self.saved = table.clone();
        self.serve(table.clone(), now, linger);
        Ok(())
    }

    fn serve(&mut self, table: Table, now: Timestamp, mut linger: impl FnMut() -> Duration) {
        let before = std::mem::replace(&mut self.table, table);
        for arm in before.arms {
            for id in arm.endpoints.into_iter().map(|endpoint| endpoint.instance) {
                if !self.serves(&id) {
                    let (arm, busy_until) = (arm.id.clone(), now + linger());
                    self.leaving.insert(id, Leaving { arm, since: now, busy_until });
                }
            }
        }
        let table = &self.table;
        self.leaving.retain(|id, _| !instances(table).any(|served| served == id));
    }

    /// Dies and serves on with what it saved; everything on its way is cut.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.starts += 1;
        self.ledger.begin_anew();
        self.counts.clear();
        self.rests.clear();
        self.frozen = None;
        let saved = self.saved.clone();
        self.serve(saved, now, || Duration::ZERO);
        self.hang_up(now);
    }

    /// What is on its way to instances that get nothing new has ended by now.
    pub(crate) fn hang_up(&mut self, now: Timestamp) {
        for leaving in self.leaving.values_mut() {
            leaving.busy_until = leaving.busy_until.min(now);
        }
    }

    /// Whether new requests may go to an instance.
    pub(crate) fn serves(&self, id: &InstanceId) -> bool {
        instances(&self.table).any(|served| served == id)
    }

    /// Who gets which share of a service's requests.
    pub(crate) fn split(&self, key: &ServiceKey) -> Split<ReleaseId> {
        let route = self.table.routes.iter().find(|route| route.service == *key);
        route.map_or_else(Split::none, |route| route.split.clone())
    }

    /// Counts the requests of the time since the last call. `ready` says which instances answer,
    /// `nature` how many requests of a version fail, in per mille, and how many microseconds its
    /// answers take.
    pub(crate) fn count(
        &mut self,
        now: Timestamp,
        ready: impl Fn(&InstanceId) -> bool,
        nature: impl Fn(&ArmId) -> (u32, u64),
    ) {
        let passed = u64::try_from(now.since(self.counted_until).as_millis()).unwrap_or(u64::MAX);
        self.counted_until = now;
        for route in &self.table.routes {
            let (mut drawn, mut others) = (Answers::default(), Answers::default());
            let is_serving = route.steering.mode == RouteMode::Serve;
            let candidate = route.steering.candidate.as_ref().filter(|_| is_serving);
            for (release, weight) in split_in_force(route).shares() {
                let id = ArmId { service: route.service.clone(), release: release.clone() };
                let rest = self.rests.entry(id.clone()).or_default();
                rest.0 += passed * self.rate * u64::from(weight.basis_points()) / 10_000;
                let requests = rest.0 / 1_000;
                rest.0 %= 1_000;
                let arm = self.table.arms.iter().find(|arm| arm.id == id);
                let is_up = arm.is_some_and(|arm| arm.endpoints.iter().any(|e| ready(&e.instance)));
                let (errors, latency) = nature(&id);
                rest.1 += requests * u64::from(errors);
                let failed = (rest.1 / 1_000).min(requests);
                rest.1 %= 1_000;
                let stats = self.counts.entry(id).or_default();
                stats.accepted += requests;
                let answers = if is_up {
                    stats.responses[1] += requests - failed;
                    stats.responses[4] += failed;
                    stats.latency.record_many(latency, requests);
                    Answers { answered: requests, latency, failed, unanswered: 0 }
                } else {
                    stats.connect_failed += requests;
                    Answers { unanswered: requests, ..Answers::default() }
                };
                let is_drawn = candidate.is_some_and(|candidate| candidate.release == *release);
                *(if is_drawn { &mut drawn } else { &mut others }) += answers;
            }
            if let Some(candidate) = candidate {
                let trial = TrialId {
                    service: route.service.clone(),
                    candidate: candidate.release.clone(),
                    salt: candidate.salt.clone(),
                };
                let weight = route.split.weight_of(&candidate.release);
                self.ledger.count(now, trial, weight, drawn, others);
            }
        }
    }

    /// Has the figures stand still, or move again.
    pub(crate) fn freeze(&mut self, on: bool) {
        self.frozen = on.then(|| self.arms());
    }

    /// Counters begin anew although it did not restart.
    pub(crate) fn reset(&mut self) {
        self.counts.clear();
    }

    fn arms(&self) -> Vec<ArmReport> {
        self.counts.iter().filter_map(|(id, stats)| self.arm(id, stats.clone())).collect()
    }

    fn arm(&self, id: &ArmId, stats: ArmStats) -> Option<ArmReport> {
        let known = self.table.arms.iter().find(|arm| arm.id == *id);
        let version = known.map(|arm| arm.version.clone());
        Some(ArmReport {
            arm: id.clone(),
            version: version.or_else(|| Version::new("gone").ok())?,
            in_flight: 0,
            in_flight_by_instance: BTreeMap::new(),
            stats,
            trouble: ArmTrouble::default(),
        })
    }

    fn incarnation(&self) -> String {
        format!("plane-{}", self.starts)
    }

    /// What was counted for exact tests after a cursor.
    pub(crate) fn batches(&self, cursor: &Cursor, now: Timestamp) -> Batches {
        match &self.frozen {
            Some(_) => Batches { next: cursor.clone(), batches: Vec::new() },
            None => self.ledger.read(self.incarnation(), cursor, now),
        }
    }

    pub(crate) fn report(&self, now: Timestamp) -> Report {
        let mut arms = self.frozen.clone().unwrap_or_else(|| self.arms());
        // In flight is no count: it is there whatever becomes of those.
        for (id, leaving) in self.leaving.iter().filter(|(_, leaving)| leaving.busy_until > now) {
            let known = arms.iter().position(|arm| arm.arm == leaving.arm);
            let at = known.unwrap_or_else(|| {
                arms.extend(self.arm(&leaving.arm, ArmStats::default()));
                arms.len() - 1
            });
            arms[at].in_flight_by_instance.insert(id.clone(), 1);
        }
        let addresses: BTreeSet<_> = self.table.routes.iter().map(|route| route.listen).collect();
        let listener = |address| ListenerReport {
            address,
            error: self.deaf.contains(&address).then(|| "address in use".to_owned()),
        };
        Report {
            incarnation: self.incarnation(),
            generation: self.table.generation,
            arms,
            listeners: addresses.into_iter().map(listener).collect(),
            ..Report::default()
        }
    }

    /// What is wrong with the table that is served, if anything: shares that are not the whole,
    /// coins that land elsewhere, requests that find nobody although somebody is there.
    pub(crate) fn fault_of_table(&self) -> Option<String> {
        let router = match Router::new(&self.table) {
            Ok(router) => router,
            Err(invalid) => return Some(format!("the table cannot be served: {invalid}")),
        };
        self.table.routes.iter().find_map(|route| self.fault_of_route(route, &router))
    }

    fn fault_of_route(&self, route: &Route, router: &Router) -> Option<String> {
        let (key, shares) = (&route.service, route.split.shares());
        let sum: u32 = shares.iter().map(|(_, weight)| u32::from(weight.basis_points())).sum();
        if sum != 0 && sum != 10_000 {
            return Some(format!("the shares of {key} sum to {sum}"));
        }
        let able = |release: &ReleaseId| {
            let of = |arm: &&switchback_routing::Arm| {
                arm.id.service == *key && arm.id.release == *release && !arm.endpoints.is_empty()
            };
            self.table.arms.iter().any(|arm| of(&arm))
        };
        let lost = shares.iter().find(|(release, _)| !able(release));
        if let Some((release, weight)) = lost
            && shares.iter().any(|(other, _)| able(other))
        {
            return Some(format!("{weight} of {key} go to {release}, which has nobody"));
        }
        let host = route.hosts.first().map_or("any", String::as_str);
        let entry = router.find(route.listen, host, &route.path_prefix);
        let Some(entry) = entry else { return Some(format!("requests to {key} match nothing")) };
        // The two ends of every share: over all coins each version gets exactly its weight.
        let in_force = split_in_force(route);
        let shares = in_force.shares();
        for (release, weight) in shares.iter().filter(|(_, weight)| *weight > Weight::ZERO) {
            let hits = |coin: u16| {
                let arm = entry.choose(coin)?;
                Some(self.table.arms.get(arm)?.id.release == *release)
            };
            let hit = (0..10_000_u16).step_by(625).chain(ends(shares));
            let mut seen: Vec<u16> = hit.filter(|coin| hits(*coin) == Some(true)).collect();
            seen.sort_unstable();
            let (least, most) = (seen.first().copied()?, seen.last().copied()?);
            let spans = most - least + 1;
            if spans != weight.basis_points() {
                return Some(format!("{release} of {key} gets {spans} coins for {weight}"));
            }
        }
        None
    }
}

/// Who really gets the requests: an operator may have them do without, or go elsewhere.
fn split_in_force(route: &Route) -> Cow<'_, Split<ReleaseId>> {
    match &route.steering.mode {
        RouteMode::Serve => Cow::Borrowed(&route.split),
        RouteMode::Divert { to: Destination::Version(release) } => {
            Cow::Owned(Split::all(release.clone()))
        }
        RouteMode::Maintenance(_)
        | RouteMode::Isolate
        | RouteMode::Pause(_)
        | RouteMode::Divert { to: Destination::Service(_) } => Cow::Owned(Split::none()),
    }
}

/// The first and last coin of every share, whichever version comes first.
fn ends(shares: &[(ReleaseId, Weight)]) -> impl Iterator<Item = u16> + '_ {
    let both = shares.iter().flat_map(|(_, weight)| {
        let at = weight.basis_points();
        [0, at.saturating_sub(1), at.min(9_999), 10_000 - at.max(1), 9_999 - at.min(9_999)]
    });
    both.chain([9_999])
}

fn instances(table: &Table) -> impl Iterator<Item = &InstanceId> {
    table.arms.iter().flat_map(|arm| arm.endpoints.iter().map(|endpoint| &endpoint.instance))
}
