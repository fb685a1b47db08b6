//! The loop: what is next on the agenda happens, until nothing goes wrong any more and all is
//! settled. `driver` is the control plane around the engine, `people` are its users.

mod driver;
mod names;
mod people;
mod settled;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switchback_domain::{
    EnvironmentName, Epoch, InstanceHealth, ReleaseId, ServiceKey, ServiceName, Timestamp,
};
use switchback_engine::{RolloutId, Service};

use crate::agenda::{Agenda, Happening};
use crate::check::Oracle;
use crate::control::Control;
use crate::faults::Faults;
use crate::journal::Journal;
use crate::plane::{Arrival, Table};
use crate::random::Random;
use crate::trace::{Failure, Trace};
use crate::world::World;

/// After the last fault, everything has to be settled within this time.
const SETTLING_MAX: Duration = Duration::from_hours(4);
/// More happenings than this are a loop.
const HAPPENINGS_MAX: u32 = 200_000;

/// Runs a seed. The failure has the timeline that leads to it.
pub fn simulate(seed: u64) -> Result<Trace, Failure> {
    Simulation::new(seed, false).run().map_err(|failure| retell(seed).err().unwrap_or(failure))
}

/// The same, with the timeline in any case.
pub fn retell(seed: u64) -> Result<Trace, Failure> {
    Simulation::new(seed, true).run()
}

pub(crate) struct Simulation {
    random: Random,
    faults: Faults,
    agenda: Agenda,
    world: World,
    control: Control,
    journal: Journal,
    oracle: Oracle,
    trace: Trace,
    key: ServiceKey,
    /// Time that really passed.
    time: Timestamp,
    /// What the control plane's clock is ahead of it.
    ahead: Duration,
    /// The data plane cannot be reached until then; it serves on.
    outage_until: Timestamp,
    repaired_at: Option<Timestamp>,
    requests_left: u32,
    versions: u32,
    next_id: u64,
    accepted: BTreeSet<RolloutId>,
    /// Rollouts that were resumed once after the repair.
    resumed: BTreeSet<RolloutId>,
    /// Crashes during each rollout.
    crashed: BTreeMap<RolloutId, u32>,
}

impl Simulation {
    fn new(seed: u64, keeps_timeline: bool) -> Self {
        let mut random = Random::new(seed);
        let key = ServiceKey::new(
            EnvironmentName::new("sim").expect("a DNS label"),
            ServiceName::new("api").expect("a DNS label"),
        );
        let service = Service::new(key.clone());
        let time = Timestamp::from_millis(1_000);
        let mut agenda = Agenda::default();
        let epoch = Epoch(1);
        agenda.enter(time, Happening::Request);
        agenda.enter(time, Happening::Poll { epoch });
        agenda.enter(time, Happening::Interfere);
        let faults = Faults::draw(&mut random);
        let requests_left = random.between(2, 6);
        let mut trace = Trace::new(seed, keeps_timeline);
        trace.line(time, || format!("{faults:?}"));
        Self {
            faults,
            agenda,
            world: World::default(),
            journal: Journal::new(&service),
            control: Control::new(epoch, service),
            oracle: Oracle::default(),
            trace,
            key,
            time,
            ahead: Duration::ZERO,
            outage_until: Timestamp::default(),
            repaired_at: None,
            requests_left,
            versions: 0,
            next_id: 1,
            accepted: BTreeSet::new(),
            resumed: BTreeSet::new(),
            crashed: BTreeMap::new(),
            random,
        }
    }

    fn run(mut self) -> Result<Trace, Failure> {
        match self.run_all() {
            Ok(()) => Ok(self.trace),
            Err(what) => Err(Failure { what, trace: Box::new(self.trace) }),
        }
    }

    fn run_all(&mut self) -> Result<(), String> {
        for _ in 0..HAPPENINGS_MAX {
            let Some((time, happening)) = self.agenda.pop() else {
                return Err("nothing will ever happen again".to_owned());
            };
            self.time = time;
            self.happen(happening)?;
            if self.is_settled() {
                return self.check_settled();
            }
            if self.repaired_at.is_some_and(|at| time.since(at) > SETTLING_MAX) {
                return Err(format!("not settled long after the last fault: {}", self.unsettled()));
            }
        }
        Err("happenings without end".to_owned())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Change { release, ordinal, life, to } => {
                if self.world.is_alive(&release, ordinal, life) {
                    self.change(&release, ordinal, to);
                }
            }
            Happening::Gone { release, ordinal, life } => {
                if self.world.is_alive(&release, ordinal, life) {
                    self.world.instances.remove(&(release.clone(), ordinal));
                    self.notice(&release);
                }
            }
            Happening::Arrive { epoch, table } => self.arrive(epoch, table),
            Happening::Repair => self.repair(),
            Happening::Restart => return self.restart(),
            Happening::Request => return self.request(),
            Happening::Interfere => return self.interfere(),
            Happening::Help => return self.help(),
            Happening::Observe { epoch, release } if self.is_now(epoch) => {
                return self.observe(&release);
            }
            Happening::Acknowledge { epoch, table } if self.is_now(epoch) => {
                return self.acknowledge(table);
            }
            Happening::Republish { epoch } if self.is_now(epoch) => self.republish(),
            Happening::Answer { epoch, kind } if self.is_now(epoch) => {
                return self.tell(kind).map(|_| ());
            }
            Happening::Judge { epoch } if self.is_now(epoch) => self.judge(),
            Happening::Wake { epoch } if self.is_now(epoch) => return self.wake(),
            Happening::Poll { epoch } if self.is_now(epoch) => return self.poll(),
            // An earlier life of the control plane waited for these.
            Happening::Observe { .. }
            | Happening::Acknowledge { .. }
            | Happening::Republish { .. }
            | Happening::Answer { .. }
            | Happening::Judge { .. }
            | Happening::Wake { .. }
            | Happening::Poll { .. } => {}
        }
        Ok(())
    }

    fn is_now(&self, epoch: Epoch) -> bool {
        self.control.up && self.control.epoch == epoch
    }

    /// The control plane's clock.
    fn now(&self) -> Timestamp {
        self.time + self.ahead
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.agenda.enter(self.time + delay, happening);
    }

    fn soon(&mut self, low: u32, high: u32, happening: Happening) {
        let delay = self.random.millis(low, high);
        self.after(delay, happening);
    }

    fn change(&mut self, release: &ReleaseId, ordinal: u32, to: InstanceHealth) {
        self.trace.line(self.time, || format!("    {release}.{ordinal} {to:?}"));
        self.world.set(release, ordinal, to);
        self.plan_change(release, ordinal);
        self.notice(release);
    }

    fn plan_change(&mut self, release: &ReleaseId, ordinal: u32) {
        let planned = self.world.plan(release, ordinal, self.faults.killed, &mut self.random);
        if let Some(planned) = planned {
            let (release, life, to) = (release.clone(), planned.life, planned.to);
            self.after(planned.delay, Happening::Change { release, ordinal, life, to });
        }
    }

    /// The control plane will look at a release's instances, unless it misses the change.
    fn notice(&mut self, release: &ReleaseId) {
        let is_new = self.control.up && !self.control.looks.contains(release);
        if is_new && !self.random.chance(self.faults.watch_lost) {
            self.control.looks.insert(release.clone());
            let (epoch, release) = (self.control.epoch, release.clone());
            self.soon(10, 1_500, Happening::Observe { epoch, release });
        }
    }

    fn arrive(&mut self, epoch: Epoch, table: Table) {
        if self.time < self.outage_until {
            return;
        }
        self.trace.line(self.time, || format!("    table {} arrives", table.generation));
        match self.world.plane.receive(table.clone()) {
            Arrival::Refused => return self.trace.mark("data plane", "refused an older table"),
            Arrival::Known => self.trace.mark("data plane", "got a table twice"),
            Arrival::Applied(left_out) => {
                for place in left_out {
                    let busy_until = self.time + self.random.millis(0, 45_000);
                    if let Some(instance) = self.world.instances.get_mut(&place) {
                        instance.busy_until = busy_until;
                    }
                }
            }
        }
        if self.random.chance(self.faults.answer_lost) {
            return self.trace.mark("data plane", "its answer was lost");
        }
        self.soon(1, 200, Happening::Acknowledge { epoch, table });
    }

    /// From now on only what is broken by nature is broken, and nothing that was promoted is.
    fn repair(&mut self) {
        self.trace.line(self.time, || "--- nothing goes wrong from here on".to_owned());
        self.faults = Faults::default();
        self.outage_until = self.time;
        self.repaired_at = Some(self.time);
        self.heal();
        self.soon(1_000, 1_000, Happening::Help);
    }

    fn heal(&mut self) {
        let stable = self.control.service.stable().map(|stable| stable.release.clone());
        let (Some(stable), Some(_)) = (stable, self.repaired_at) else { return };
        let Some(nature) = self.world.natures.get_mut(&stable) else { return };
        nature.heal();
        let ordinals: Vec<_> = self.world.of(&stable).map(|(ordinal, _)| ordinal).collect();
        for ordinal in ordinals {
            self.plan_change(&stable, ordinal);
        }
    }

    /// A version that may or may not work; the first ones mostly do.
    fn new_version(&mut self) -> switchback_domain::Release {
        self.versions += 1;
        let bad =
            if self.versions == 1 { self.faults.bad_version / 4 } else { self.faults.bad_version };
        let release = crate::operator::release(&self.key, self.versions);
        let is_bad = self.random.chance(bad);
        let nature = crate::world::Nature::draw(&mut self.random, is_bad);
        self.trace.line(self.time, || format!("    {} is {nature:?}", release.version));
        self.world.natures.insert(release.id.clone(), nature);
        release
    }
}
