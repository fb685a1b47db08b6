//! The neighbours: what becomes of the control plane's orders.

use std::time::Duration;

use switchback_control::{MetricId, Order, Shifts};
use switchback_domain::metric::Answer;
use switchback_domain::{Generation, InstanceId, ReleaseId, ServiceKey, Split, Timestamp};
use switchback_ports::data_plane;
use switchback_ports::runtime::{self, InstanceSpec, Usage};
use switchback_routing::Table;

use super::Simulation;
use crate::agenda::{Happening, News};
use crate::faults::Fault;
use crate::nature::{Condition, Load};

fn unreachable() -> data_plane::Error {
    data_plane::Error::Unavailable(std::io::ErrorKind::TimedOut.into())
}

impl Simulation {
    /// An order leaves the control plane.
    pub(super) fn begin(&mut self, life: u64, order: Order) {
        match order {
            Order::Publish { table, shifts } => {
                self.check_spared(&table);
                self.publish(life, Box::new(table), shifts);
            }
            Order::Start { spec, generation } => {
                let late = self.strikes(Fault::StartLate, "runtime", "a start came late");
                let most = if late { 20_000 } else { 60 };
                self.soon(1, most, Happening::Start { life, spec, generation });
            }
            Order::Stop { id, generation } => {
                self.soon(1, 60, Happening::Stop { life, id, generation });
            }
            Order::Restart { id, .. } => self.change(&id, Condition::Exited),
            Order::Probe { instance, .. } => {
                let id = instance.spec.id;
                if let Some(life) = self.life.as_mut().filter(|found| found.number == life) {
                    life.probing.entry(id.clone()).or_default();
                }
                self.plan_probe(&id, 10, 400);
            }
            Order::EndProbing(id) => {
                if let Some(life) = self.life.as_mut().filter(|found| found.number == life) {
                    life.probing.remove(&id);
                }
            }
            Order::RunHook { key, rollout, position, on, timeout, .. } => {
                let silent = self.strikes(Fault::HookSilent, "hook", "said nothing in time");
                let fails = self.strikes(Fault::HookFails, "hook", "failed");
                let passed = on.is_some() && !fails && !silent;
                let most = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
                let news = News::HookDone(key, rollout, position, passed);
                let least = if silent { most } else { 10 };
                self.soon(least, most, Happening::Tell { life, news });
            }
            Order::Measure { key, id } => {
                let load = self.load_of(&id);
                let running = self.time.since(Timestamp::default());
                let cpu_seconds = running.as_secs_f64() * load.cores;
                let usage = Usage { cpu_seconds, memory_bytes: load.memory_bytes };
                self.answer(1, 20, life, News::Used(key, id, usage));
            }
            Order::ReadMetric { key, name, on, .. } => {
                let number = self.load_of(&on).number;
                self.answer(10, 200, life, News::Measured(key, name, number));
            }
            Order::AskMetric { key, id, queries, .. } => self.ask_source(life, key, id, &queries),
            // Nobody asks for it.
            Order::TakeDown { .. } => {}
        }
    }

    fn load_of(&self, id: &InstanceId) -> Load {
        let spec = self.runtime.instances.get(id).map(|found| &found.spec);
        let place = spec.map(|spec| (spec.key.clone(), spec.release.clone()));
        let nature = place.and_then(|place| self.natures.get(&place));
        nature.map_or_else(Load::default, |nature| nature.load)
    }

    /// A query is a version's name, whatever else it may be elsewhere.
    fn ask_source(&mut self, life: u64, key: ServiceKey, id: MetricId, queries: &[String]) {
        let at = Timestamp::from_millis(self.wall_ms());
        let answer = |query: &String| {
            let place = (key.clone(), ReleaseId::from_stored(query.as_str()));
            self.natures
                .get(&place)
                .map_or(Answer::NoData, |nature| Answer::Number { value: nature.load.number, at })
        };
        let answers = queries.iter().map(answer).collect();
        self.answer(10, 200, life, News::Answered(key, id, at, answers));
    }

    fn answer(&mut self, low: u32, high: u32, life: u64, news: News) {
        self.soon(low, high, Happening::Tell { life, news });
    }

    fn publish(&mut self, life: u64, table: Box<Table>, shifts: Shifts) {
        if self.strikes(Fault::Outage, "data plane", "could not be reached for minutes") {
            self.outage_until = self.time + self.random.millis(30_000, 300_000);
        }
        if self.strikes(Fault::TableTwice, "data plane", "got a table twice") {
            let (table, shifts) = (table.clone(), shifts.clone());
            self.soon(1, 60_000, Happening::Arrive { life, table, shifts, answers: false });
        }
        if self.strikes(Fault::TableLost, "data plane", "a table was lost") {
            let news = News::Published(table, shifts, Err(unreachable()));
            return self.answer(1_000, 5_000, life, news);
        }
        let late = self.strikes(Fault::TableLate, "data plane", "a table came late");
        let most = if late { 30_000 } else { 200 };
        self.soon(1, most, Happening::Arrive { life, table, shifts, answers: true });
    }

    /// Whether somebody still waits for what an order comes to. Without, the order may have been
    /// lost with its sender, or not.
    fn is_carried_out(&mut self, life: u64) -> bool {
        if self.is_past(life) {
            return false;
        }
        let is_alive = self.life.as_ref().is_some_and(|found| found.number == life)
            || self.frozen.as_ref().is_some_and(|(found, _)| found.number == life);
        is_alive || self.random.chance(500)
    }

    pub(super) fn arrive(&mut self, life: u64, table: Box<Table>, shifts: Shifts, answers: bool) {
        if !self.is_carried_out(life) {
            return;
        }
        if self.time < self.outage_until {
            let news = News::Published(table, shifts, Err(unreachable()));
            return self.answer(1_000, 5_000, life, news);
        }
        self.count_requests();
        let random = &mut self.random;
        let result = self.plane.receive(&table, self.time, || random.millis(0, 9_000));
        self.line(|| format!("    table {} arrives: {result:?}", table.generation));
        match &result {
            Ok(()) => {
                self.note_taken_over();
                self.note_served();
            }
            Err(data_plane::Error::Fenced { .. }) => {
                self.mark("data plane", "refused an older table");
            }
            Err(data_plane::Error::Refused(why)) => self.fail(format!("refused: {why}")),
            Err(data_plane::Error::Unavailable(_)) => {}
        }
        if !answers {
            return;
        }
        let generation = table.generation;
        let mut result = result.map(|()| generation);
        if self.strikes(Fault::AnswerLost, "data plane", "its answer was lost") {
            result = Err(unreachable());
        }
        if self.strikes(Fault::AnswerTwice, "data plane", "its answer was told twice")
            && let Ok(generation) = &result
        {
            let news = News::Published(table.clone(), shifts.clone(), Ok(*generation));
            self.answer(1, 20_000, life, news);
        }
        self.answer(1, 150, life, News::Published(table, shifts, result));
    }

    /// The data plane serves another table: checks it, and tells the witness.
    pub(super) fn note_served(&mut self) {
        if let Some(what) = self.plane.fault_of_table() {
            self.fail(what);
        }
        let keys = self.keys.clone();
        for key in &keys {
            let split = self.plane.split(key);
            for (release, weight) in split.shares() {
                if !self.ever_ready.contains(&(key.clone(), release.clone())) {
                    self.fail(format!("{weight} to {release}, none of which was ever ready"));
                }
            }
            let mut of_service = self.plane.table.arms.iter().filter(|arm| arm.id.service == *key);
            let is_lent = of_service.any(|arm| arm.endpoints.is_empty());
            let mut witness = self.witness.get();
            let seen = witness.seen(key);
            // What nobody knows of is no reason to leave instances alone: their stops are checked.
            let split = if self.is_foreign(key) { Split::none() } else { split };
            (seen.served, seen.is_lent) = (split, is_lent);
        }
    }

    /// Things go wrong at the data plane now and then.
    pub(super) fn disturb_plane(&mut self) {
        if self.strikes(Fault::PlaneRestart, "data plane", "died and serves on") {
            self.count_requests();
            self.plane.restart(self.time);
            self.note_served();
        }
        if self.strikes(Fault::FiguresSilent, "figures", "could not be had") {
            self.silent_until = self.time + self.random.millis(5_000, 60_000);
        }
        if self.strikes(Fault::FiguresFrozen, "figures", "stood still") {
            self.count_requests();
            self.plane.freeze(true);
            self.soon(5_000, 60_000, Happening::Mend);
        }
        if self.strikes(Fault::FiguresReset, "figures", "began anew") {
            self.plane.reset();
        }
        let first = self.plane.table.routes.first().map(|route| route.listen);
        if let Some(address) = first
            && self.strikes(Fault::NotListening, "data plane", "an address was taken")
        {
            self.plane.deaf.insert(address);
            self.soon(5_000, 60_000, Happening::Mend);
        }
    }

    pub(super) fn start(&mut self, life: u64, spec: InstanceSpec, generation: Generation) {
        if !self.is_carried_out(life) {
            return;
        }
        let id = spec.id.clone();
        let found = self.runtime.instances.get(&id);
        if found.is_some_and(|found| found.condition == Condition::Stopping) {
            // Writes about one instance follow each other: first it ends.
            let again = Happening::Start { life, spec: Box::new(spec), generation };
            return self.after(Duration::from_millis(300), again);
        }
        if self.strikes(Fault::StartFails, "runtime", "a start failed") {
            let news = News::Started(id, Err("no room".to_owned()));
            return self.answer(5, 500, life, news);
        }
        let result = match self.runtime.admit(generation) {
            Ok(()) => {
                if self.runtime.start(spec) {
                    self.line(|| format!("    {id} starts"));
                    self.plan_change(&id);
                    self.notice(&id);
                }
                let in_doubt = self.strikes(Fault::StartInDoubt, "runtime", "a start in doubt");
                if in_doubt { Err("no answer".to_owned()) } else { Ok(()) }
            }
            Err(error) => {
                self.note_refusal(&id, &error);
                Err(error.to_string())
            }
        };
        self.answer(5, 500, life, News::Started(id, result));
    }

    pub(super) fn stop(&mut self, life: u64, id: InstanceId, generation: Generation) {
        if !self.is_carried_out(life) {
            return;
        }
        if self.strikes(Fault::StopFails, "runtime", "a stop failed") {
            return self.answer(1_000, 2_000, life, News::Stopped(id, false));
        }
        if let Err(error) = self.runtime.admit(generation) {
            self.note_refusal(&id, &error);
            return self.answer(1_000, 2_000, life, News::Stopped(id, false));
        }
        let Some(instance) = self.runtime.instances.get(&id) else {
            return self.answer(5, 100, life, News::Stopped(id, true));
        };
        let place = (instance.spec.key.clone(), instance.spec.release.clone());
        self.check_stop(&id);
        self.runtime.set(&id, Condition::Stopping);
        self.line(|| format!("    {id} stops"));
        let most = self.natures.get(&place).map_or(100, |nature| nature.stop);
        let stamp = self.runtime.instances.get(&id).map_or(0, |instance| instance.stamp);
        self.notice(&id);
        self.soon(10, most, Happening::Gone { life, id, stamp });
    }

    fn note_refusal(&mut self, id: &InstanceId, error: &runtime::Error) {
        self.line(|| format!("    {id}: {error}"));
        self.mark("runtime", "refused an older write");
    }

    /// Invariants 4 and 5, as the data plane sees them.
    fn check_stop(&self, id: &InstanceId) {
        if self.plane.serves(id) {
            self.fail(format!("{id} is stopped while the data plane gives it requests"));
        }
        let Some(leaving) = self.plane.leaving.get(id) else { return };
        let least = Duration::from_millis(u64::from(crate::operator::DRAIN_LEAST));
        if leaving.busy_until > self.time && self.time < leaving.since + least {
            self.fail(format!("{id} is stopped amid its requests, before the drain timeout"));
        }
    }

    pub(super) fn gone(&mut self, life: u64, id: InstanceId, stamp: u64) {
        if !self.runtime.is_current(&id, stamp) {
            return;
        }
        self.count_requests();
        self.runtime.instances.remove(&id);
        self.notice(&id);
        let in_doubt = self.strikes(Fault::StopInDoubt, "runtime", "a stop in doubt");
        self.answer(5, 200, life, News::Stopped(id, !in_doubt));
    }
}
