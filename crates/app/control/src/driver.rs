//! All state of the control plane: takes messages in, decides what follows from them. What is to be
//! done about it is left as orders, which `hands` carries out; nothing here waits, asks or sleeps.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use switchback_domain::metric::Answer;
use switchback_domain::probe::ProbeResult;
use switchback_domain::{
    ArmStats, Generation, InstanceHealth, InstanceId, ServiceKey, Timestamp, with_causes,
};
use switchback_engine::{EventKind, RolloutId};
use switchback_ports::data_plane::{self, Batches, Report};
use switchback_ports::runtime::{self, Instance, Usage};
use switchback_ports::{
    Certificates as CertificatesPort, DataPlane, Metrics, Prober, Runtime, Supervision, crash_point,
};
use switchback_routing::Table;

use crate::book::Book;
use crate::certificates::Certificates;
use crate::clock::Instant;
use crate::configuration::Settings;
use crate::exact::Exact;
use crate::fleet::Fleet;
use crate::judging::{Tally, Trial};
use crate::metrics::MetricId;
use crate::older_journal::Found;
use crate::order::Order;
use crate::traffic::{Publisher, Shifts};
use crate::vitals::{Advice, ProbeRole};

/// The longest time between two looks at everything, should nothing be reported.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The neighbours that tasks talk to.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) prober: Arc<dyn Prober>,
    pub(crate) metrics: Arc<dyn Metrics>,
    pub(crate) data_plane: Arc<dyn DataPlane>,
    pub(crate) supervision: Arc<dyn Supervision>,
    pub(crate) certificates: Arc<dyn CertificatesPort>,
}

/// Work to be done with the driver's state in hand.
pub(crate) type Ask = Box<dyn FnOnce(&mut Driver) + Send>;

/// What tasks report.
pub(crate) enum Message {
    /// The API asks something.
    Ask(Ask),
    /// The runtime's instances.
    Listed(Result<Vec<Instance>, runtime::Error>),
    /// A probe's result.
    Probed(InstanceId, ProbeRole, ProbeResult),
    /// A start was ordered, with this result.
    Started(InstanceId, Result<(), String>),
    /// A stop ended; whether the instance is gone.
    Stopped(InstanceId, bool),
    /// A publication ended.
    Published(Table, Shifts, Result<Generation, data_plane::Error>),
    /// What the data plane serves when this life begins, if it tells.
    Met(Option<Box<Table>>),
    /// The data plane's figures.
    Reported(Result<Report, data_plane::Error>),
    /// What the data plane counted of rollouts' requests.
    Counted(Batches),
    /// The data plane's process.
    Supervised(Result<u32, data_plane::Error>),
    /// A hook ended.
    HookDone { key: ServiceKey, rollout: RolloutId, position: usize, result: ProbeResult },
    /// What an instance uses.
    Used(ServiceKey, InstanceId, Usage),
    /// A custom metric's value.
    Measured(ServiceKey, String, Option<f64>),
    /// What a metric's source said, and when by the wall clock it was asked.
    Answered(ServiceKey, MetricId, Timestamp, Vec<Answer>),
    /// Everything was taken down.
    Down,
}

/// The newest report of the data plane.
pub(crate) struct Heard {
    /// Its versions in order.
    pub(crate) report: Report,
    pub(crate) received: Instant,
    /// Requests on their way, by instance; those that have none are left out.
    in_flight: HashMap<InstanceId, u64>,
}

impl Heard {
    fn now(mut report: Report) -> Self {
        report.arms.sort_by(|one, other| one.arm.cmp(&other.arm));
        let mut in_flight = HashMap::new();
        for (id, count) in report.arms.iter().flat_map(|arm| &arm.in_flight_by_instance) {
            *in_flight.entry(id.clone()).or_default() += count;
        }
        Self { report, received: Instant::now(), in_flight }
    }

    /// Requests on their way to an instance.
    pub(crate) fn in_flight(&self, id: &InstanceId) -> u64 {
        self.in_flight.get(id).copied().unwrap_or(0)
    }
}

/// All state of the control plane.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Driver {
    pub(crate) book: Book,
    pub(crate) settings: Settings,
    /// What is to be done and was not begun yet.
    pub(crate) orders: Vec<Order>,
    pub(crate) fleet: Fleet,
    pub(crate) publisher: Publisher,
    pub(crate) certificates: Certificates,
    pub(crate) heard: Option<Heard>,
    pub(crate) data_plane_pid: Option<u32>,
    pub(crate) data_plane_error: Option<String>,
    pub(crate) runtime_error: Option<String>,
    /// What was served when this life began.
    pub(crate) found: Found,
    pub(crate) trials: HashMap<ServiceKey, Trial>,
    pub(crate) exacts: BTreeMap<ServiceKey, Exact>,
    /// The baseline of a rollout, by its last figures before the candidate got requests.
    pub(crate) before: BTreeMap<ServiceKey, (RolloutId, ArmStats)>,
    pub(crate) tallies: HashMap<ServiceKey, Tally>,
    pub(crate) hooks: HashSet<(RolloutId, usize)>,
    /// Services whose instances are to be compared with what their states want.
    pub(crate) unsettled: BTreeSet<ServiceKey>,
    /// Services whose rollouts are to be looked after: their state is another one.
    pub(crate) unattended: BTreeSet<ServiceKey>,
    /// Every rollout is to be looked after: there are new figures.
    pub(crate) attend_all: bool,
    pub(crate) measured_at: Option<Instant>,
    pub(crate) progress_at: Option<Instant>,
    /// The journal did not take a record: nothing is tried again before this.
    pub(crate) journal_rests_until: Option<Instant>,
    pub(crate) fenced: bool,
    pub(crate) closing: bool,
    pub(crate) closed: bool,
}

impl Driver {
    pub(crate) fn new(book: Book, settings: Settings) -> Self {
        let publisher = Publisher::new(book.epoch(), &settings.certificates);
        Self {
            book,
            settings,
            orders: Vec::new(),
            fleet: Fleet::default(),
            publisher,
            certificates: Certificates::default(),
            heard: None,
            data_plane_pid: None,
            data_plane_error: None,
            runtime_error: None,
            found: Found::default(),
            trials: HashMap::new(),
            exacts: BTreeMap::new(),
            before: BTreeMap::new(),
            tallies: HashMap::new(),
            hooks: HashSet::new(),
            unsettled: BTreeSet::new(),
            unattended: BTreeSet::new(),
            attend_all: true,
            measured_at: None,
            progress_at: None,
            journal_rests_until: None,
            fenced: false,
            closing: false,
            closed: false,
        }
    }

    pub(crate) fn take_in(&mut self, message: Message) {
        match message {
            Message::Ask(ask) => ask(self),
            Message::Listed(Ok(list)) => self.listed(list),
            Message::Listed(Err(error)) => {
                self.runtime_error = Some(with_causes(&error));
                if let runtime::Error::Fenced { seen, .. } = error {
                    self.overtake(seen.epoch);
                }
            }
            Message::Probed(id, role, result) => self.probed(&id, role, &result),
            Message::Started(id, result) => {
                crash_point("told of a start");
                self.fleet.started(&id, result);
            }
            Message::Stopped(id, gone) => {
                crash_point("told of a stop");
                self.fleet.stopped(&id, gone);
                self.end_probing();
            }
            Message::Published(table, shifts, result) => {
                crash_point("told of a publication");
                self.published(table, &shifts, result);
            }
            Message::Met(found) => self.meet(found),
            Message::Reported(result) => self.reported(result),
            Message::Counted(batches) => self.counted(&batches),
            Message::Supervised(result) => match result {
                Ok(pid) => (self.data_plane_pid, self.data_plane_error) = (Some(pid), None),
                Err(error) => {
                    self.data_plane_pid = None;
                    self.data_plane_error = Some(with_causes(&error));
                }
            },
            Message::HookDone { key, rollout, position, result } => {
                crash_point("told of a hook");
                let (passed, detail) = (result.passed, last_line(&result.detail));
                let event = EventKind::HookFinished { rollout, position, passed, detail };
                self.apply(&key, event);
                // If it could not be written, the step still waits and the hook runs once more.
                self.hooks.remove(&(rollout, position));
                self.unattended.insert(key);
            }
            Message::Used(key, id, usage) => {
                if let Some(trial) = self.trials.get_mut(&key) {
                    trial.meter().read(&id, usage, Instant::now());
                }
            }
            Message::Measured(key, name, value) => {
                if let Some(trial) = self.trials.get_mut(&key) {
                    match value {
                        Some(value) => trial.custom.insert(name, value),
                        None => trial.custom.remove(&name),
                    };
                }
            }
            Message::Answered(key, id, asked_at, answers) => {
                let now = self.now();
                if let Some(trial) = self.trials.get_mut(&key) {
                    trial.watch.answered(&id, now, asked_at, &answers);
                }
            }
            Message::Down => self.closed = true,
        }
    }

    fn listed(&mut self, list: Vec<Instance>) {
        self.runtime_error = None;
        let states = self.book.services();
        if !self.fleet.is_listed() {
            // Of those that are gone nobody will ever report anything.
            for key in states.keys() {
                self.fleet.touch(key);
            }
        }
        let before = |instance: &Instance| -> Option<InstanceHealth> {
            let pool = states.get(&instance.spec.key)?.pools.get(&instance.spec.release)?;
            let known = pool.instances.iter().find(|report| report.id == instance.spec.id)?;
            (known.restarts == instance.restarts).then_some(known.health)
        };
        for instance in self.fleet.listed(list, before) {
            let started_up = self
                .fleet
                .vitals(&instance.spec.id)
                .is_some_and(crate::vitals::Vitals::is_started_up);
            self.fleet.probing_started(&instance);
            self.orders.push(Order::Probe { instance: Box::new(instance), started_up });
        }
        self.end_probing();
    }

    fn end_probing(&mut self) {
        let gone = self.fleet.take_unprobed().into_iter();
        self.orders.extend(gone.map(Order::EndProbing));
    }

    fn probed(&mut self, id: &InstanceId, role: ProbeRole, result: &ProbeResult) {
        let now = self.book.now();
        if let (false, Some(instance)) = (result.passed, self.fleet.instance(id)) {
            // The judge counts them.
            self.unattended.insert(instance.spec.key.clone());
        }
        match self.fleet.probed(id, role, result, now) {
            Advice::None => {}
            Advice::Restart(reason) => {
                self.orders.push(Order::Restart { id: id.clone(), reason });
            }
        }
    }

    fn published(
        &mut self,
        table: Table,
        shifts: &Shifts,
        result: Result<Generation, data_plane::Error>,
    ) {
        if self.publisher.published(table, &result) {
            self.took_over();
            self.acknowledge(shifts);
            return;
        }
        match result {
            Err(data_plane::Error::Refused(why)) => self.give_up_refused(shifts, &why),
            Err(data_plane::Error::Fenced { seen, .. }) => self.overtake(seen.epoch),
            Err(data_plane::Error::Unavailable(_)) | Ok(_) => {}
        }
    }

    /// A table that cannot be served is the newest rollouts' fault: they are taken back.
    fn give_up_refused(&mut self, shifts: &Shifts, why: &str) {
        let waiting: Vec<ServiceKey> = shifts
            .keys()
            .filter(|key| {
                self.book.services().get(*key).is_some_and(|service| {
                    !service.traffic.is_acknowledged()
                        && service
                            .rollout
                            .as_ref()
                            .is_some_and(switchback_engine::Rollout::is_forward)
                })
            })
            .cloned()
            .collect();
        for key in waiting {
            let command = switchback_engine::Command::Abort {
                by: "the data plane".to_owned(),
                reason: Some(why.to_owned()),
            };
            self.apply(&key, EventKind::Commanded(command));
        }
    }

    fn reported(&mut self, result: Result<Report, data_plane::Error>) {
        self.attend_all = true;
        match result {
            Ok(report) => {
                self.publisher.reported(&report);
                self.heard = Some(Heard::now(report));
                self.remember_baselines();
            }
            Err(_) => self.heard = None,
        }
    }

    pub(crate) fn acknowledge(&mut self, shifts: &BTreeMap<ServiceKey, u64>) {
        let states = self.book.services();
        let waits = |key: &ServiceKey, shift: u64| {
            states.get(key).is_some_and(|service| service.traffic.acknowledged < shift)
        };
        let open = shifts.iter().filter(|(key, shift)| waits(key, **shift));
        let event = |shift: &u64| EventKind::TrafficAcknowledged { shift: *shift };
        let events = open.map(|(key, shift)| (key.clone(), event(shift))).collect();
        self.apply_all(events);
    }

    /// The order of writes to the runtime. Writes about one instance follow each other, those
    /// about several may overtake: it is the life of the control plane that fences.
    pub(crate) fn generation(&self) -> Generation {
        Generation::first(self.book.epoch())
    }

    /// The journal's present time.
    pub(crate) fn now(&self) -> Timestamp {
        self.book.now()
    }

    /// How long nothing has to be looked at unless a message comes.
    pub(crate) fn time_to_wake(&self) -> Duration {
        let now = self.now();
        let due = self.wakeups().min().map_or(LOOK_EVERY, |at| at.since(now));
        // A wake-up that is due but cannot be settled (the journal rests) must not spin.
        due.clamp(Duration::from_millis(10), LOOK_EVERY)
    }
}

/// How a command ended and the last line of what it printed, which names the error in most
/// languages. The whole output would not fit a table.
fn last_line(text: &str) -> String {
    const LENGTH_MAX: usize = 200;
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let ending = text.split_once(": ").map(|(ending, _)| ending);
    let ending = ending.filter(|ending| ending.starts_with("exit code") && !line.contains(ending));
    let shown: String = line.chars().take(LENGTH_MAX).collect();
    let more = if shown.len() < line.len() { " ..." } else { "" };
    ending.map_or_else(String::new, |ending| format!("{ending}: ")) + &shown + more
}

#[cfg(test)]
mod tests {
    use super::last_line;

    #[test]
    fn a_traceback_becomes_its_last_line() {
        let text = "exit code 1: Traceback (most recent call last):\n  File x\nValueError: no\n\n";
        assert_eq!(last_line(text), "exit code 1: ValueError: no");
        assert_eq!(last_line("exit code 7: too bad"), "exit code 7: too bad");
        assert_eq!(last_line(""), "");
        assert_eq!(last_line(&"x".repeat(300)).len(), 204);
    }
}
