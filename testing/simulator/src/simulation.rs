//! The loop: what is next on the agenda happens, until nothing goes wrong any more and all is
//! settled. `lives` is the control plane's coming and going, `orders` its neighbours, `people` its
//! users.

mod lives;
mod orders;
mod people;
mod restoring;
mod script;
mod settled;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use switchback_control::{Headless, Reading};
use switchback_domain::{
    EnvironmentName, InstanceId, ReleaseId, ServiceKey, ServiceName, Timestamp,
};
use switchback_engine::RolloutId;

use crate::agenda::{Agenda, Happening, News};
use crate::disk::Disk;
use crate::faults::{Dice, Fault, Faults, Strike};
use crate::nature::{Condition, Nature};
use crate::plane::Plane;
use crate::random::{Random, mix};
use crate::runtime::Runtime;
use crate::trace::{Failure, Trace};
use crate::witness::Shared;
use lives::{Dead, Life};
use restoring::Restored;
pub use script::{play, record_golden};

/// After the last fault, everything has to be settled within this time.
const SETTLING_MAX: Duration = Duration::from_hours(4);
/// Once nothing goes wrong any more, nothing takes this long: when no event came, none will.
const STANDSTILL: Duration = Duration::from_mins(30);
/// More happenings than this are a loop.
const HAPPENINGS_MAX: u32 = 100_000;

/// Runs a seed. The failure has the timeline that leads to it.
pub fn simulate(seed: u64) -> Result<Trace, Failure> {
    run(seed, None, false).0.map_err(|failure| retell(seed).err().unwrap_or(failure))
}

/// The same, with the timeline in any case.
pub fn retell(seed: u64) -> Result<Trace, Failure> {
    run(seed, None, true).0
}

/// Runs a seed in which only some faults may strike; says which did.
pub(crate) fn run(
    seed: u64,
    allowed: Option<BTreeSet<Strike>>,
    keeps_timeline: bool,
) -> (Result<Trace, Failure>, Vec<Strike>) {
    let mut simulation = Simulation::new(seed, allowed, keeps_timeline);
    let result = simulation.run_all();
    let struck = simulation.dice.get().struck().to_vec();
    let mut trace = std::mem::take(&mut simulation.witness.get().trace);
    trace.strikes = struck.len() as u64;
    let result = match result {
        Ok(()) => Ok(trace),
        Err(what) => Err(Failure { what, trace: Box::new(trace) }),
    };
    (result, struck)
}

pub(crate) struct Simulation {
    random: Random,
    dice: Dice,
    agenda: Agenda,
    disk: Disk,
    runtime: Runtime,
    plane: Plane,
    witness: Shared,
    keys: Vec<ServiceKey>,
    natures: BTreeMap<(ServiceKey, ReleaseId), Nature>,
    /// The control plane, when there is one.
    life: Option<Life>,
    /// One that stands still while its successor works, and what was sent to it meanwhile.
    frozen: Option<(Life, Vec<News>)>,
    lives: u64,
    /// What is known of the last life that ended.
    dead: Option<Dead>,
    /// Time that really passed.
    time: Timestamp,
    /// What the boot clock is ahead of it.
    ahead: Duration,
    boots: u32,
    booted_at: Timestamp,
    /// What the wall clock showed when the simulation began, in milliseconds.
    wall_base: i64,
    /// What the wall clock is off, in milliseconds.
    wall_off: i64,
    /// The data plane cannot be reached until then; it serves on.
    outage_until: Timestamp,
    /// Its figures cannot be had until then.
    silent_until: Timestamp,
    repaired_at: Option<Timestamp>,
    /// Events so far, and when the newest of them was seen.
    moved: (u64, Timestamp),
    requests_left: u32,
    versions: u32,
    /// Time between two looks while something is under way, at most, in milliseconds.
    look_every: u32,
    /// Rollouts that were resumed once after the repair.
    resumed: BTreeSet<RolloutId>,
    /// Versions of which an instance was ever told to be ready.
    ever_ready: BTreeSet<(ServiceKey, ReleaseId)>,
    /// How long the journal was when somebody copied it.
    copied: usize,
    /// An older copy of the journal was put in its place.
    restored: Option<Restored>,
}

impl Simulation {
    fn new(seed: u64, allowed: Option<BTreeSet<Strike>>, keeps_timeline: bool) -> Self {
        let mut random = Random::new(mix(seed, 1));
        let services = *random.pick(&[1, 1, 1, 1, 2, 2, 3]);
        let names = ["api", "web", "job"];
        let key = |name: &&str| {
            let environment = EnvironmentName::new("sim").expect("a DNS label");
            ServiceKey::new(environment, ServiceName::new(*name).expect("a DNS label"))
        };
        let faults = Faults::draw(seed, allowed);
        let time = Timestamp::from_millis(1_000);
        let mut trace = Trace::new(seed, keeps_timeline);
        trace.line(time, || faults.describe());
        let dice = Dice::new(faults);
        let mut agenda = Agenda::default();
        agenda.enter(time, Happening::Restart);
        agenda.enter(time + Duration::from_secs(1), Happening::Request);
        agenda.enter(time + Duration::from_secs(1), Happening::Interfere);
        let mut plane = Plane::default();
        plane.rate = *random.pick(&[0, 5, 20, 20, 50, 50, 100]);
        Self {
            disk: Disk::new(dice.clone()),
            dice,
            agenda,
            runtime: Runtime::default(),
            plane,
            witness: Shared::new(trace),
            keys: names[..services].iter().map(key).collect(),
            natures: BTreeMap::new(),
            life: None,
            frozen: None,
            lives: 0,
            dead: None,
            time,
            ahead: Duration::ZERO,
            boots: 1,
            booted_at: Timestamp::default(),
            wall_base: 1_700_000_000_000,
            wall_off: 0,
            outage_until: Timestamp::default(),
            silent_until: Timestamp::default(),
            repaired_at: None,
            moved: (0, time),
            requests_left: random.between(1, 3) + u32::try_from(services).unwrap_or(1),
            versions: 0,
            look_every: random.between(1_500, 4_000),
            resumed: BTreeSet::new(),
            ever_ready: BTreeSet::new(),
            copied: 0,
            restored: None,
            random,
        }
    }

    fn run_all(&mut self) -> Result<(), String> {
        for _ in 0..HAPPENINGS_MAX {
            let Some((time, happening)) = self.agenda.pop() else {
                return Err("nothing will ever happen again".to_owned());
            };
            self.time = self.time.max(time);
            self.set_clocks();
            self.happen(happening);
            if let Some(what) = self.witness.get().failure.take() {
                return Err(what);
            }
            let Some(repaired_at) = self.repaired_at else { continue };
            let unsettled = self.unsettled();
            if unsettled.is_empty() {
                return self.check_settled();
            }
            let events = self.witness.get().trace.events;
            if events != self.moved.0 || self.life.is_none() {
                self.moved = (events, self.time);
            }
            if self.time.since(self.moved.1.max(repaired_at)) > STANDSTILL {
                return Err(format!("stands still: {unsettled}"));
            }
            if self.time.since(repaired_at) > SETTLING_MAX {
                return Err(format!("not settled long after the last fault: {unsettled}"));
            }
        }
        Err(format!("happenings without end: {}", self.unsettled()))
    }

    fn since_boot(&self) -> Duration {
        self.time.since(self.booted_at) + self.ahead
    }

    fn set_clocks(&self) {
        let since_boot = self.since_boot();
        Headless::set_clocks(Reading {
            boot: self.boots.to_string(),
            since_boot_ms: u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX),
            wall_ms: self.wall_ms(),
        });
    }

    fn wall_ms(&self) -> u64 {
        let wall = self.wall_base + i64::try_from(self.time.as_millis()).unwrap_or(0);
        u64::try_from(wall + self.wall_off).unwrap_or(0)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Change { id, stamp, to } if self.runtime.is_current(&id, stamp) => {
                self.change(&id, to);
            }
            Happening::Change { .. } => {}
            Happening::Gone { life, id, stamp } => self.gone(life, id, stamp),
            Happening::Start { life, spec, generation } => self.start(life, *spec, generation),
            Happening::Stop { life, id, generation } => self.stop(life, id, generation),
            Happening::Arrive { life, table, shifts, answers } => {
                self.arrive(life, table, shifts, answers);
            }
            Happening::Mend => self.mend(),
            Happening::Tell { life, news } => self.tell(life, news),
            Happening::Restart => self.restart(),
            Happening::Request => self.request(),
            Happening::Interfere => self.interfere(),
            Happening::Repair => self.repair(),
            Happening::Help => self.help(),
            Happening::Thaw => self.thaw(),
        }
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.agenda.enter(self.time + delay, happening);
    }

    fn soon(&mut self, low: u32, high: u32, happening: Happening) {
        let delay = self.random.millis(low, high);
        self.after(delay, happening);
    }

    fn line(&self, text: impl FnOnce() -> String) {
        self.witness.get().trace.line(self.time, text);
    }

    fn mark(&self, kind: &'static str, detail: &'static str) {
        self.witness.get().trace.mark(kind, detail);
    }

    fn fail(&self, what: impl Into<String>) {
        self.witness.get().fail(what);
    }

    /// Whether a fault strikes; marked if so.
    fn strikes(&self, fault: Fault, kind: &'static str, detail: &'static str) -> bool {
        let strikes = self.dice.strikes(fault);
        if strikes {
            self.mark(kind, detail);
            self.line(|| format!("    {kind}: {detail}"));
        }
        strikes
    }

    fn change(&mut self, id: &InstanceId, to: Condition) {
        self.line(|| format!("    {id} is {to:?}"));
        self.count_requests();
        self.runtime.set(id, to);
        self.plan_change(id);
        self.notice(id);
    }

    fn plan_change(&mut self, id: &InstanceId) {
        let Some(instance) = self.runtime.instances.get(id) else { return };
        let place = (instance.spec.key.clone(), instance.spec.release.clone());
        let Some(nature) = self.natures.get(&place) else { return };
        let (condition, stamp) = (instance.condition, instance.stamp);
        let is_killed = condition == Condition::Ready && self.dice.strikes(Fault::Killed);
        let next = nature.next(condition, instance.place(), is_killed, &mut self.random);
        if let Some((delay, to)) = next {
            self.after(delay, Happening::Change { id: id.clone(), stamp, to });
        }
    }

    /// The control plane will hear of an instance's change, unless it misses it.
    fn notice(&mut self, id: &InstanceId) {
        let Some(life) = &self.life else { return };
        let number = life.number;
        let is_probed = life.probing.contains_key(id);
        let missed = self.strikes(Fault::ChangeMissed, "runtime", "a change was not noticed");
        if !missed {
            let stale = self.strikes(Fault::ListStale, "runtime", "a list was out of date");
            let (list, most) = if stale { (Some(self.runtime.list()), 6_000) } else { (None, 400) };
            self.soon(5, most, Happening::Tell { life: number, news: News::Listed(list) });
        }
        if is_probed {
            self.plan_probe(id, 100, 1_100);
        }
    }

    fn count_requests(&mut self) {
        let (runtime, natures) = (&self.runtime, &self.natures);
        self.plane.count(
            self.time,
            |id| runtime.is_ready(id),
            |arm| {
                let nature = natures.get(&(arm.service.clone(), arm.release.clone()));
                nature.map_or((0, 0), |nature| (nature.errors, nature.load.latency))
            },
        );
    }

    /// From now on only what is broken by nature is broken, and nothing that was promoted is.
    fn repair(&mut self) {
        self.line(|| "--- nothing goes wrong from here on".to_owned());
        self.dice.get().end();
        (self.outage_until, self.silent_until) = (self.time, self.time);
        self.mend();
        self.repaired_at = Some(self.time);
        self.heal();
        self.soon(1_000, 1_000, Happening::Help);
    }

    /// The data plane can be reached again, is heard again, listens again.
    fn mend(&mut self) {
        self.plane.freeze(false);
        self.plane.deaf.clear();
    }

    fn heal(&mut self) {
        if self.repaired_at.is_none() {
            return;
        }
        let Some(life) = &self.life else { return };
        let stable = |(key, service): (&ServiceKey, &Arc<switchback_engine::Service>)| {
            Some((key.clone(), service.stable()?.release.clone()))
        };
        let healthy: Vec<_> = life.control.services().iter().filter_map(stable).collect();
        for place in healthy {
            let Some(nature) = self.natures.get_mut(&place) else { continue };
            if nature.temper == crate::nature::Temper::Steady && nature.errors == 0 {
                continue;
            }
            nature.heal();
            self.witness.get().seen(&place.0).errors.insert(place.1.clone(), 0);
            let of = |instance: &crate::runtime::Running| {
                (&instance.spec.key, &instance.spec.release) == (&place.0, &place.1)
            };
            let instances = self.runtime.instances.iter().filter(|(_, found)| of(found));
            let ids: Vec<_> = instances.map(|(id, _)| id.clone()).collect();
            for id in &ids {
                self.plan_change(id);
            }
        }
    }
}
