//! The control plane's lives: how one begins, hears, settles and dies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use switchback_control::{Headless, ProbeRole};
use switchback_domain::probe::ProbeResult;
use switchback_domain::strategy::FailureAction;
use switchback_domain::{
    ArmStats, EnvironmentName, InstanceHealth, InstanceId, ProjectName, ServiceKey, Timestamp,
};
use switchback_engine::{Event, Service, Transition, step};
use switchback_ports::data_plane::{self, Cursor, Report, TrialId};
use switchback_ports::journal::{Journal, Record};
use switchback_ports::runtime::Instance;
use switchback_routing::ArmId;

use super::Simulation;
use crate::agenda::{Happening, News};
use crate::faults::Fault;
use crate::nature::Condition;
use crate::witness::Witness;

/// Time between two looks while nothing is under way.
const CALM_LOOK: (u32, u32) = (30_000, 90_000);

/// One life of the control plane, with what dies with it.
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) control: Headless,
    /// The runtime has turned its predecessors away.
    in_charge: bool,
    /// It knows what the data plane served when it began.
    is_met: bool,
    /// When that was, by the boot clock.
    pub(super) began: Duration,
    /// Instances it asks how they do; the number of the next time it will.
    pub(super) probing: BTreeMap<InstanceId, u64>,
    /// When it looks next, and that look's number.
    next_look: Option<Timestamp>,
    looks: u64,
    /// How far it has read what was counted for exact tests.
    read: Cursor,
    /// The newest figures it was told.
    figures: BTreeMap<ArmId, ArmStats>,
}

/// What is known of a life that ended.
pub(super) struct Dead {
    pub(super) states: States,
}

pub(super) type States = BTreeMap<ServiceKey, Arc<Service>>;

impl Simulation {
    /// Something for a life of the control plane.
    pub(super) fn tell(&mut self, number: u64, news: News) {
        if let Some((frozen, waiting)) = &mut self.frozen
            && frozen.number == number
        {
            waiting.push(news);
            return;
        }
        if self.life.as_ref().is_none_or(|life| life.number != number) {
            return;
        }
        if self.hear(news) {
            self.witness.get().trace.messages += 1;
            self.settle();
        }
    }

    /// Takes news in. Says whether there is something to settle.
    fn hear(&mut self, news: News) -> bool {
        match news {
            News::Look(number) => return self.look(number),
            News::Probe(id, number) => return self.probe(&id, number),
            News::Listed(stale) => self.list(stale),
            News::Started(id, result) => self.control(|control| control.started(&id, result)),
            News::Stopped(id, gone) => self.control(|control| control.stopped(&id, gone)),
            News::Published(table, shifts, result) => {
                self.control(|control| control.published(*table, shifts, result));
            }
            News::HookDone(key, rollout, position, passed) => {
                let result = ProbeResult { passed, detail: "exit code".to_owned() };
                self.control(|control| control.hook_done(&key, rollout, position, result));
            }
            News::Used(key, id, usage) => self.control(|control| control.used(&key, &id, usage)),
            News::Measured(key, name, value) => {
                self.control(|control| control.measured(&key, &name, Some(value)));
            }
            News::Answered(key, id, asked_at, answers) => {
                self.control(|control| control.answered(&key, id, asked_at, answers));
            }
        }
        true
    }

    fn control(&mut self, act: impl FnOnce(&mut Headless)) {
        if let Some(life) = &mut self.life {
            act(&mut life.control);
        }
    }

    /// Settles, and begins what is to be done, unless it dies on the way.
    pub(super) fn settle(&mut self) {
        let Some(life) = &mut self.life else { return };
        let orders = life.control.settle();
        let number = life.number;
        if life.control.violation_count() > 0 {
            self.fail("the control plane noticed a broken invariant itself");
        }
        if self.disk.take_death().is_some() {
            return self.die("amid a write");
        }
        if self.life.as_ref().is_some_and(|life| life.control.is_fenced()) {
            self.mark("leaders", "the former one found out");
            self.line(|| format!("*** life {number} is fenced and ends"));
            return self.life = None;
        }
        for order in orders {
            if self.dice.strikes(Fault::CrashAmidOrders) {
                return self.die("amid its orders");
            }
            self.begin(number, order);
        }
        self.heal();
        self.plan_look();
    }

    fn plan_look(&mut self) {
        let is_busy = self.is_busy();
        let Some(life) = &self.life else { return };
        let (low, high) = if is_busy { (self.look_every / 2, self.look_every) } else { CALM_LOOK };
        let wakes = life.control.wakes_at().map(|at| at.since(life.control.now()));
        let delay = self.random.millis(low, high);
        // What is due and was not done waits for something: the journal to be writable again.
        let due = |wakes: Duration| wakes.max(Duration::from_millis(500));
        let at = self.time + wakes.map_or(delay, |wakes| due(wakes).min(delay));
        let Some(life) = &mut self.life else { return };
        if life.next_look.is_some_and(|next| next <= at && next > self.time) {
            return;
        }
        life.looks += 1;
        life.next_look = Some(at);
        let (life, news) = (life.number, News::Look(life.looks));
        self.agenda.enter(at, Happening::Tell { life, news });
    }

    fn is_busy(&self) -> bool {
        let Some(life) = &self.life else { return false };
        let states = life.control.services().values();
        let wanted: u32 = states.clone().flat_map(|s| s.pools.values()).map(|p| p.desired).sum();
        wanted as usize != self.runtime.instances.len()
            || states.clone().any(|s| s.rollout.is_some() || !s.traffic.is_acknowledged())
            || life.control.degraded().is_some()
    }

    /// Looks at everything, as far as that can be done. Things go wrong at such moments.
    fn look(&mut self, number: u64) -> bool {
        let Some(life) = &mut self.life else { return false };
        if life.looks != number {
            return false;
        }
        life.next_look = None;
        if self.dice.strikes(Fault::CrashAtRest) {
            self.die("at rest");
            return false;
        }
        if self.is_in_charge() && self.dice.strikes(Fault::Reboot) {
            self.reboot();
            return false;
        }
        if self.frozen.is_none() && self.dice.strikes(Fault::Freeze) {
            self.freeze();
            return false;
        }
        if self.strikes(Fault::ClockStep, "clock", "stepped forward") {
            self.ahead += self.random.millis(1_000, 3_600_000);
            self.set_clocks();
            self.plane.hang_up(self.time);
        }
        self.disturb_plane();
        self.report();
        // What went unnoticed is seen sooner or later; once nothing goes wrong any more, soon.
        if self.random.chance(150) || self.repaired_at.is_some() {
            self.list(None);
        }
        true
    }

    /// Whether nobody has begun since this life did.
    fn is_in_charge(&self) -> bool {
        let epoch = self.life.as_ref().map(|life| life.control.epoch());
        epoch == Some(self.disk.epoch())
    }

    /// Tells what the runtime lists, or listed a while ago.
    fn list(&mut self, stale: Option<Vec<Instance>>) {
        self.meet_plane();
        let Some(life) = &mut self.life else { return };
        if !life.in_charge {
            let taken = self.runtime.admit(life.control.generation());
            life.in_charge = taken.is_ok();
            if let Err(error) = taken {
                return life.control.listed(Err(error));
            }
        }
        life.control.listed(Ok(stale.unwrap_or_else(|| self.runtime.list())));
    }

    fn report(&mut self) {
        self.count_requests();
        self.meet_plane();
        let is_silent = self.time < self.silent_until.max(self.outage_until);
        let report = self.plane.report(self.time);
        if is_silent {
            let error = data_plane::Error::Unavailable(std::io::ErrorKind::TimedOut.into());
            return self.control(|control| control.reported(Err(error)));
        }
        self.note_figures(&report);
        self.read_batches();
        self.control(|control| control.reported(Ok(report)));
    }

    /// A life asks once what is served, as soon as it is answered.
    fn meet_plane(&mut self) {
        let Some(life) = self.life.as_mut().filter(|life| !life.is_met) else { return };
        if self.time >= self.outage_until {
            life.control.met(self.plane.table.clone());
            life.is_met = true;
        }
    }

    /// What was counted for exact tests: each request counts once, whatever happened meanwhile.
    fn read_batches(&mut self) {
        let again = self.strikes(Fault::BatchesTwice, "figures", "batches were told once more");
        if self.strikes(Fault::BatchesLost, "figures", "batches were lost") {
            self.plane.ledger.forget(self.random.between(1, 100) as usize);
        }
        let Some(life) = &mut self.life else { return };
        if again {
            life.read = Cursor::default();
        }
        let batches = self.plane.batches(&life.read, self.time);
        life.read = batches.next.clone();
        if batches.batches.is_empty() {
            return;
        }
        life.control.counted(batches);
        for key in &self.keys {
            self.check_tested(key);
        }
    }

    fn check_tested(&self, key: &ServiceKey) {
        let Some(life) = &self.life else { return };
        let rollout = life.control.services().get(key).and_then(|it| it.rollout.as_ref());
        let (Some(rollout), Some((id, tested))) = (rollout, life.control.tested(key)) else {
            return;
        };
        if id != rollout.request.id {
            return;
        }
        self.mark("exact test", if life.number > 1 { "in a later life" } else { "counts" });
        let (service, candidate) = (key.clone(), rollout.candidate().clone());
        let total = self.plane.ledger.total(&TrialId { service, candidate, salt: id.to_string() });
        let is_more =
            tested.requests > total.counts.requests || tested.failed > total.counts.failed;
        // Whoever goes on against its word has it begin anew.
        let is_whole =
            !total.is_lossy && rollout.request.policy.failure_action == FailureAction::Rollback;
        if is_more || is_whole && tested != total.counts {
            self.fail(format!("{key}: {id} was tested with {tested:?} of {:?}", total.counts));
        }
    }

    fn note_figures(&mut self, report: &Report) {
        let Some(life) = &mut self.life else { return };
        let mut witness = self.witness.get();
        // What a report leaves out begins at nothing again.
        let known = std::mem::take(&mut life.figures);
        for arm in &report.arms {
            life.figures.insert(arm.arm.clone(), arm.stats.clone());
            let known = known.get(&arm.arm).cloned().unwrap_or_default();
            let more = arm.stats.since(&known).finished();
            let heard = &mut witness.seen(&arm.arm.service).heard;
            *heard.entry(arm.arm.release.clone()).or_default() += more;
        }
    }

    pub(super) fn plan_probe(&mut self, id: &InstanceId, low: u32, high: u32) {
        let Some(life) = &mut self.life else { return };
        let Some(number) = life.probing.get_mut(id) else { return };
        *number += 1;
        let (life, news) = (life.number, News::Probe(id.clone(), *number));
        self.soon(low, high, Happening::Tell { life, news });
    }

    fn probe(&mut self, id: &InstanceId, number: u64) -> bool {
        let is_due = self.life.as_ref().is_some_and(|l| l.probing.get(id) == Some(&number));
        if !is_due {
            return false;
        }
        let is_ready = self.runtime.is_ready(id);
        let wrong = self.strikes(Fault::ProbeWrong, "probe", "said the contrary of what is");
        let passed = is_ready != wrong;
        if passed && let Some(instance) = self.runtime.instances.get(id) {
            self.ever_ready.insert((instance.spec.key.clone(), instance.spec.release.clone()));
        }
        let result = ProbeResult { passed, detail: "200 OK".to_owned() };
        self.control(|control| control.probed(id, ProbeRole::Readiness, result));
        let believed = self.life.as_ref().and_then(|life| life.control.health_of(id));
        let is_calm = (believed == Some(InstanceHealth::Ready)) == is_ready;
        let (low, high) = if is_calm { (60_000, 200_000) } else { (300, 1_500) };
        self.plan_probe(id, low, high);
        true
    }

    /// The control plane dies; instances and data plane go on.
    pub(super) fn die(&mut self, point: &'static str) {
        let Some(life) = self.life.take() else { return };
        self.line(|| format!("*** the control plane dies {point}"));
        self.mark("crash", point);
        let states = life.control.services().clone();
        for service in states.values() {
            self.witness.get().note_crash(service);
        }
        self.dead = Some(Dead { states });
        if self.disk.crash(&mut self.random) > 0 {
            self.mark("disk", "lost what was not synced");
        }
        let is_long = self.random.chance(100);
        self.soon(100, if is_long { 3_600_000 } else { 20_000 }, Happening::Restart);
    }

    /// Every process on the machine is gone; only what is on disk is left.
    pub(super) fn reboot(&mut self) {
        self.mark("machine", "started anew");
        self.count_requests();
        self.frozen = None;
        self.die("with its machine");
        let ids: Vec<_> = self.runtime.instances.keys().cloned().collect();
        for id in &ids {
            self.runtime.set(id, Condition::Lost);
        }
        self.plane.restart(self.time);
        self.note_served();
        (self.boots, self.booted_at, self.ahead) = (self.boots + 1, self.time, Duration::ZERO);
        self.wall_off = i64::from(self.random.between(0, 7_200_000)) - 3_600_000;
    }

    /// Stands still while a successor takes over.
    pub(super) fn freeze(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.line(|| format!("*** life {} stands still", life.number));
        self.mark("leaders", "two at once");
        self.dead = Some(Dead { states: life.control.services().clone() });
        self.frozen = Some((life, Vec::new()));
        self.soon(100, 3_000, Happening::Restart);
        self.soon(2_000, 60_000, Happening::Thaw);
    }

    /// The one that stood still goes on with what it believes.
    pub(super) fn thaw(&mut self) {
        let Some((former, waiting)) = self.frozen.take() else { return };
        let (number, epoch) = (former.number, former.control.epoch());
        self.line(|| format!("*** life {number} goes on"));
        // A successor may have died amid its first write: whoever writes next does so after the
        // last whole frame.
        drop(self.disk.open(number));
        let heir = self.life.replace(former);
        let dead = self.dead.take();
        for news in waiting {
            if self.hear(news) {
                self.settle();
            }
        }
        // It looks at the clock in any case, and acts on whatever it thinks is due.
        self.settle();
        if self.disk.epoch() == epoch {
            return self.mark("leaders", "nobody had taken over");
        }
        if self.life.is_some() {
            // It may never have had anything to write; it stays in its loop and is heard no more.
            self.line(|| format!("*** life {number} ends"));
        }
        (self.life, self.dead) = (heir, dead);
    }

    /// Takes charge of the journal and looks at the world anew.
    pub(super) fn restart(&mut self) {
        if self.life.is_some() {
            return;
        }
        if self.lives > 0
            && self.frozen.is_none()
            && self.strikes(Fault::OlderJournal, "journal", "an older copy was restored")
        {
            self.restore_any();
        }
        self.lives += 1;
        let number = self.lives;
        if self.strikes(Fault::OlderBinary, "binary", "an older one refused the journal") {
            self.refuse_newer(number);
        }
        let journal = self.disk.open(number);
        let written = journal.records_after(self.disk.acknowledged());
        if let Err(error) = journal.verify() {
            self.fail(format!("the chain of hashes is broken: {error}"));
        }
        match open(Box::new(journal)) {
            Ok(control) => self.begin_life(number, control, &written),
            Err(error) => {
                if self.disk.take_death().is_some() {
                    self.mark("crash", "while starting");
                    self.disk.crash(&mut self.random);
                }
                self.line(|| format!("*** life {number} cannot begin: {error}"));
                self.soon(500, 5_000, Happening::Restart);
            }
        }
    }

    fn refuse_newer(&mut self, number: u64) {
        let journal = self.disk.open(number);
        if journal.len() == 0 {
            return;
        }
        self.disk.pretend_newer(true);
        if open(Box::new(journal)).is_ok() {
            self.fail("an older binary took a newer one's journal for its own");
        }
        self.disk.pretend_newer(false);
        if self.disk.take_death().is_some() {
            self.disk.crash(&mut self.random);
        }
    }

    fn begin_life(&mut self, number: u64, mut control: Headless, written: &[Record]) {
        self.line(|| format!("*** life {number} begins, epoch {}", control.epoch().0));
        if let Some(dead) = self.dead.take() {
            let states = self.catch_up(dead.states, written);
            if states != *control.services() {
                self.fail("the journal replays to another state");
            }
        }
        self.note_answering();
        let witness = self.witness.clone();
        control.watch(move |before, event, next, now| {
            witness.get().see(before, event, next, now);
        });
        self.life = Some(Life {
            number,
            control,
            in_charge: false,
            is_met: false,
            began: self.since_boot(),
            probing: BTreeMap::new(),
            next_look: None,
            looks: 0,
            read: Cursor::default(),
            figures: BTreeMap::new(),
        });
        self.soon(10, 500, Happening::Tell { life: number, news: News::Listed(None) });
        self.plan_look();
    }

    /// What was written without anybody being told so counts all the same.
    fn catch_up(&mut self, states: States, written: &[Record]) -> States {
        self.follow(states, written, |witness, before, event, next, now| {
            witness.trace.mark("journal", "an event was written that nobody was told of");
            witness.see(before, event, next, now);
        })
    }

    /// Goes through what was written, and tells the witness of it.
    pub(super) fn follow(
        &mut self,
        mut states: States,
        written: &[Record],
        tell: impl Fn(&mut Witness, &Service, &Event, &Transition, Timestamp),
    ) -> States {
        for record in written.iter().filter(|record| record.content.kind == "event") {
            let Ok(event) = serde_json::from_slice::<Event>(&record.content.body) else {
                self.fail("an event cannot be read back");
                continue;
            };
            let key = self.keys.iter().find(|key| key.to_string() == record.content.scope);
            let Some(key) = key.cloned() else { continue };
            let before = states.remove(&key);
            let before = before.unwrap_or_else(|| Arc::new(Service::new(key.clone())));
            match step(&before, &event, record.content.at) {
                Ok(next) => {
                    tell(&mut self.witness.get(), &before, &event, &next, record.content.at);
                    states.insert(key, Arc::new(next.service));
                }
                Err(refusal) => self.fail(format!("an event was written and refused: {refusal}")),
            }
        }
        states
    }
}

fn open(journal: Box<dyn Journal>) -> Result<Headless, switchback_control::Error> {
    let project = ProjectName::new("sim").expect("a DNS label");
    let environment = EnvironmentName::new("sim").expect("a DNS label");
    Headless::open(journal, project, environment)
}
