//! The processes that were replaced, as the one sees them that serves: what they have counted and
//! still have on their way counts here, and each new table is theirs too.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use switchback_domain::{ArmStats, Generation};
use switchback_ports::data_plane::{ArmReport, Batches, Counted, Report, RouteReport};
use switchback_routing::{ArmId, Table};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::wire::{Reader, Writer};
use super::{FromNew, FromOld, Past};
use crate::limits::RETIRING_LOST_MAX;
use crate::log;
use crate::plane::Plane;

/// See the module. Lives on the control thread.
#[derive(Debug, Default)]
pub(crate) struct Elders {
    known: RefCell<BTreeMap<String, Elder>>,
    taken_over: Cell<u64>,
    attended: Cell<usize>,
    changed: Notify,
}

#[derive(Debug)]
struct Elder {
    arms: BTreeMap<ArmId, ArmReport>,
    routes: Vec<RouteReport>,
    unrouted: u64,
    refused: u64,
    /// What it had counted when it came to a process that knew nothing of it: somebody who died
    /// was told of that already.
    before: BTreeMap<ArmId, ArmStats>,
    line: Option<mpsc::UnboundedSender<FromNew>>,
    pid: Option<i32>,
    since: Instant,
    taken_over: u64,
    /// Up to which place its batches are here.
    batches_read: u64,
    asked: Generation,
    followed: Generation,
    failed: Option<(Generation, String)>,
}

impl Elder {
    fn new(past: Past) -> Self {
        let Past { report, before, batches_read, .. } = past;
        let mut elder = Self {
            arms: BTreeMap::new(),
            routes: Vec::new(),
            unrouted: 0,
            refused: 0,
            before: before.into_iter().map(|arm| (arm.arm, arm.stats)).collect(),
            line: None,
            pid: None,
            since: Instant::now(),
            taken_over: 0,
            batches_read,
            asked: Generation::default(),
            followed: Generation::default(),
            failed: None,
        };
        elder.counted(report);
        elder
    }

    fn counted(&mut self, report: Report) {
        (self.unrouted, self.refused) = (report.unrouted, report.refused);
        self.routes = report.routes;
        self.arms.extend(report.arms.into_iter().map(|arm| (arm.arm.clone(), arm)));
    }

    /// What counts here of what it has counted.
    fn arms(&self) -> impl Iterator<Item = ArmReport> {
        self.arms.values().map(|arm| match self.before.get(&arm.arm) {
            Some(before) => ArmReport { stats: arm.stats.since(before), ..arm.clone() },
            None => arm.clone(),
        })
    }

    fn legacy(&self, arms: Vec<ArmReport>) -> Legacy {
        let (unrouted, refused) = (self.unrouted, self.refused);
        // Nothing is held by who is gone.
        let routes = self.routes.iter().map(|route| RouteReport { held: 0, ..route.clone() });
        Legacy { arms, routes: routes.collect(), unrouted, refused }
    }

    fn past(&self, id: &str) -> Past {
        let before = self.arms.values().filter_map(|arm| {
            let stats = self.before.get(&arm.arm)?.clone();
            Some(ArmReport { stats, ..arm.clone() })
        });
        let (unrouted, refused) = (self.unrouted, self.refused);
        let (arms, routes) = (self.arms.values().cloned().collect(), self.routes.clone());
        let report = Report { arms, routes, unrouted, refused, ..Report::default() };
        let (id, before, batches_read) = (id.to_owned(), before.collect(), self.batches_read);
        Past { id, report, before, batches_read }
    }
}

/// What is left of a process that has ended.
#[derive(Debug)]
pub(crate) struct Legacy {
    pub(crate) arms: Vec<ArmReport>,
    pub(crate) routes: Vec<RouteReport>,
    pub(crate) unrouted: u64,
    pub(crate) refused: u64,
}

impl Elders {
    /// How many there are, and how many connections came from them and those before.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.known.borrow().len() as u64, self.taken_over.get())
    }

    /// How many are listened to.
    pub(crate) fn attended(&self) -> usize {
        self.attended.get()
    }

    /// So many connections came from one.
    pub(super) fn took_over(&self, id: &str, count: usize) {
        self.taken_over.set(self.taken_over.get() + count as u64);
        if let Some(elder) = self.known.borrow_mut().get_mut(id) {
            elder.taken_over += count as u64;
        }
    }

    /// Those that the process before knew, itself among them. They will join.
    pub(super) fn inherit(&self, past: Vec<Past>) {
        let elders = past.into_iter().map(|past| (past.id.clone(), Elder::new(past)));
        self.known.borrow_mut().extend(elders);
    }

    /// One is there, and told what it has counted. The tables it is to follow come out of what is
    /// returned.
    pub(super) fn join(
        &self,
        mut past: Past,
        pid: Option<i32>,
        followed: Generation,
    ) -> mpsc::UnboundedReceiver<FromNew> {
        let (line, says) = mpsc::unbounded_channel();
        let mut known = self.known.borrow_mut();
        let id = past.id.clone();
        let elder = match known.entry(id) {
            Entry::Occupied(elder) => {
                let elder = elder.into_mut();
                elder.counted(past.report);
                elder
            }
            Entry::Vacant(place) => {
                past.before.clone_from(&past.report.arms);
                place.insert(Elder::new(past))
            }
        };
        (elder.line, elder.pid) = (Some(line), pid);
        (elder.asked, elder.followed) = (followed, followed);
        drop(known);
        self.changed.notify_waiters();
        says
    }

    fn with(&self, id: &str, change: impl FnOnce(&mut Elder)) {
        if let Some(elder) = self.known.borrow_mut().get_mut(id) {
            change(elder);
        }
        self.changed.notify_waiters();
    }

    /// Which of its batches are news. They are known from here on.
    fn news(&self, id: &str, told: Batches) -> Vec<Counted> {
        let mut known = self.known.borrow_mut();
        let Some(elder) = known.get_mut(id) else { return Vec::new() };
        let unread = told.next.place.saturating_sub(elder.batches_read);
        let unread = usize::try_from(unread).unwrap_or(usize::MAX);
        elder.batches_read = told.next.place.max(elder.batches_read);
        let skipped = told.batches.len().saturating_sub(unread);
        told.batches.into_iter().skip(skipped).collect()
    }

    /// The connection to one has ended, and it may be on its way back.
    fn lost(&self, id: &str) {
        self.with(id, |elder| (elder.line, elder.since) = (None, Instant::now()));
    }

    /// Lets go of all of them: they are somebody else's now, who knows them already.
    pub(crate) fn let_go(&self) {
        self.known.borrow_mut().clear();
        self.changed.notify_waiters();
    }

    /// Has all of them follow a table; returns when each does, or is gone. The error is a sentence
    /// for people.
    pub(crate) async fn follow(&self, table: &Table) -> Result<(), String> {
        loop {
            let changed = self.changed.notified();
            if self.ask(table)? {
                return Ok(());
            }
            changed.await;
        }
    }

    fn ask(&self, table: &Table) -> Result<bool, String> {
        let generation = table.generation;
        let mut all = true;
        for elder in self.known.borrow_mut().values_mut() {
            if let Some((_, reason)) = elder.failed.take_if(|(failed, _)| *failed == generation) {
                elder.asked = Generation::default();
                return Err(format!("a process that was replaced does not follow: {reason}"));
            }
            if elder.followed >= generation {
                continue;
            }
            all = false;
            if elder.asked < generation
                && let Some(line) = &elder.line
            {
                elder.asked = generation;
                // One that is gone is noticed by whoever listens to it.
                let _ = line.send(FromNew::Follow { table: Box::new(table.clone()) });
            }
        }
        Ok(all)
    }

    /// Tells those of a table that do not follow it, without waiting.
    pub(crate) fn remind(&self, table: &Table) {
        // What comes of it is seen when the next table has to be followed.
        let _ = self.ask(table);
    }

    /// Tells all that the whole data plane is to end.
    pub(crate) fn stop(&self) {
        for elder in self.known.borrow().values() {
            if let Some(line) = &elder.line {
                let _ = line.send(FromNew::Stop);
            }
        }
    }

    /// Adds what they have counted and have on their way.
    pub(crate) fn add_to(&self, report: &mut Report) {
        let known = self.known.borrow();
        if known.is_empty() {
            return;
        }
        let own = std::mem::take(&mut report.arms);
        let mut arms: BTreeMap<_, _> = own.into_iter().map(|a| (a.arm.clone(), a)).collect();
        for elder in known.values() {
            report.unrouted += elder.unrouted;
            report.refused += elder.refused;
            for arm in elder.arms() {
                merge(&mut arms, arm);
            }
            for route in &elder.routes {
                match report.routes.iter_mut().find(|own| own.service == route.service) {
                    Some(own) => own.add(route),
                    None => report.routes.push(route.clone()),
                }
            }
        }
        report.arms = arms.into_values().collect();
    }

    /// What they have counted, for a successor.
    pub(crate) fn pasts(&self) -> Vec<Past> {
        self.known.borrow().iter().map(|(id, elder)| elder.past(id)).collect()
    }

    /// Takes one out that said it was done.
    fn done(&self, id: &str) -> Option<Legacy> {
        let elder = self.known.borrow_mut().remove(id)?;
        self.changed.notify_waiters();
        if let Some(line) = &elder.line {
            let _ = line.send(FromNew::Farewell);
        }
        let pid = elder.pid.map_or_else(String::new, |pid| format!(" {pid}"));
        let count = elder.taken_over;
        log::note(&format!("process{pid} has handed over {count} connections and ended"));
        Some(elder.legacy(elder.arms().collect()))
    }

    /// Takes those out that have died: what they had on their way is cut.
    pub(crate) fn dead(&self) -> Vec<Legacy> {
        let mut known = self.known.borrow_mut();
        let is_gone = |elder: &Elder| {
            let lost = elder.line.is_none();
            lost && (elder.since.elapsed() > RETIRING_LOST_MAX || elder.pid.is_some_and(is_dead))
        };
        let gone: Vec<String> =
            known.iter().filter(|(_, elder)| is_gone(elder)).map(|(id, _)| id.clone()).collect();
        let mut legacies = Vec::new();
        for elder in gone.iter().filter_map(|id| known.remove(id)) {
            let pid = elder.pid.map_or_else(String::new, |pid| format!(" {pid}"));
            let mut arms: Vec<_> = elder.arms().collect();
            let mut cut = 0;
            for arm in &mut arms {
                let tunnels = arm.stats.accepted.saturating_sub(ends(&arm.stats));
                // Those on their way that have an outcome already are tunnels.
                let requests = tunnels.min(arm.in_flight);
                arm.stats.cut += requests;
                arm.stats.tunnels_cut += arm.in_flight - requests;
                cut += arm.in_flight;
            }
            log::note(&format!("process{pid} that was replaced is gone; {cut} requests were cut"));
            legacies.push(elder.legacy(arms));
        }
        drop(known);
        if !legacies.is_empty() {
            self.changed.notify_waiters();
        }
        legacies
    }
}

/// Requests with an outcome.
fn ends(stats: &ArmStats) -> u64 {
    stats.finished() + stats.client_gone + stats.dropped + stats.cut
}

fn merge(arms: &mut BTreeMap<ArmId, ArmReport>, more: ArmReport) {
    let Some(arm) = arms.get_mut(&more.arm) else {
        arms.insert(more.arm.clone(), more);
        return;
    };
    arm.in_flight += more.in_flight;
    for (instance, count) in more.in_flight_by_instance {
        *arm.in_flight_by_instance.entry(instance).or_default() += count;
    }
    arm.stats = arm.stats.merge(&more.stats);
    // Who is ejected, and who is new, is known by the one that serves.
    arm.trouble.ejections += more.trouble.ejections;
}

/// Whether a process is gone for sure. One that only bears the number of another is found out
/// later, by its silence.
fn is_dead(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => {
            let mut asked = [PollFd::new(&process, PollFlags::IN)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            matches!(poll(&mut asked, Some(&at_once)), Ok(1..))
        }
        Err(error) => error == rustix::io::Errno::SRCH,
    }
}

/// Passes on what is to be said to an elder, until it is gone or let go of. Then it hears the end,
/// and looks for whom it belongs to now; what it has sent by then is still read.
pub(super) async fn speak(writer: Writer, mut says: mpsc::UnboundedReceiver<FromNew>) {
    while let Some(word) = says.recv().await {
        if writer.send(&word, &[]).await.is_err() {
            return;
        }
    }
    writer.end();
}

/// Listens to an elder until it is done or gone.
pub(super) async fn attend(plane: Rc<Plane>, id: String, mut reader: Reader) {
    let attended = &plane.elders.attended;
    attended.set(attended.get() + 1);
    listen(&plane, &id, &mut reader).await;
    attended.set(attended.get() - 1);
    plane.elders.lost(&id);
}

async fn listen(plane: &Plane, id: &str, reader: &mut Reader) {
    while let Ok((word, descriptors)) = reader.receive().await {
        if let FromOld::Links { to } = word {
            plane.take_links_in(to, descriptors);
            continue;
        }
        if let FromOld::Connections { from } = word {
            plane.elders.took_over(id, descriptors.len());
            plane.take_in(from, descriptors);
            continue;
        }
        // What a successor was told already must not change here; it will be told this, too.
        if plane.is_replaced().await {
            continue;
        }
        match word {
            FromOld::Counted { report, batches } => {
                plane.elders.with(id, |elder| elder.counted(*report));
                plane.adopt(plane.elders.news(id, batches));
            }
            FromOld::Followed { generation, failed: None } => {
                plane.elders.with(id, |elder| elder.followed = generation);
            }
            FromOld::Followed { generation, failed: Some(reason) } => {
                plane.elders.with(id, |elder| elder.failed = Some((generation, reason)));
            }
            FromOld::Done => {
                plane.lay_to_rest(plane.elders.done(id));
            }
            FromOld::Refused { .. }
            | FromOld::Offer(_)
            | FromOld::Listeners
            | FromOld::Links { .. }
            | FromOld::Connections { .. }
            | FromOld::Commit { .. } => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use switchback_ports::data_plane::ArmTrouble;
    use switchback_ports::data_plane::conformance::sample_arm;

    use super::*;

    fn report(accepted: u64, answered: u64, in_flight: u64) -> Report {
        let sample = sample_arm("v1", &[]);
        let stats = ArmStats { accepted, responses: [0, answered, 0, 0, 0], ..ArmStats::default() };
        let in_flight_by_instance = BTreeMap::new();
        let (arm, version) = (sample.id, sample.version);
        let trouble = ArmTrouble::default();
        let arms =
            vec![ArmReport { arm, version, in_flight, in_flight_by_instance, stats, trouble }];
        Report { arms, ..Report::default() }
    }

    fn past(id: &str, report: Report) -> Past {
        Past { id: id.to_owned(), report, before: Vec::new(), batches_read: 0 }
    }

    fn sum(elders: &Elders, own: Report) -> (u64, u64) {
        let mut sum = own;
        elders.add_to(&mut sum);
        (sum.arms[0].stats.accepted, sum.arms[0].in_flight)
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn counts_are_neither_lost_nor_doubled_whoever_dies_and_comes_back() {
        let elders = Elders::default();
        elders.inherit(vec![past("a", report(10, 8, 2)), past("b", report(5, 5, 0))]);
        assert_eq!(sum(&elders, report(1, 0, 1)), (16, 3));
        let _line = elders.join(past("a", report(11, 10, 1)), None, Generation::default());
        assert_eq!(sum(&elders, report(1, 0, 1)), (17, 2), "whole entries, not more of them");
        elders.with("a", |elder| elder.counted(report(11, 11, 0)));
        let done = elders.done("a").unwrap();
        assert_eq!((done.arms[0].stats.accepted, sum(&elders, report(1, 0, 1))), (11, (6, 1)));
        assert!(elders.dead().is_empty(), "b may come back");
        tokio::time::advance(RETIRING_LOST_MAX * 2).await;
        assert_eq!(elders.dead().len(), 1);
        assert_eq!(elders.counts().0, 0);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_dies_with_requests_on_their_way_has_them_cut() {
        let elders = Elders::default();
        elders.inherit(vec![past("a", report(10, 9, 3))]);
        tokio::time::advance(RETIRING_LOST_MAX * 2).await;
        let stats = &elders.dead()[0].arms[0].stats;
        assert_eq!((stats.cut, stats.tunnels_cut, stats.accepted), (1, 2, 10));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn one_that_nobody_told_of_counts_from_when_it_came() {
        let elders = Elders::default();
        let _line = elders.join(past("a", report(10, 8, 2)), None, Generation::default());
        assert_eq!(sum(&elders, report(0, 0, 0)), (0, 2));
        elders.with("a", |elder| elder.counted(report(12, 12, 0)));
        assert_eq!(sum(&elders, report(0, 0, 0)), (2, 0));
        let next = Elders::default();
        next.inherit(elders.pasts());
        assert_eq!(sum(&next, report(0, 0, 0)), (2, 0), "nor for the next one");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_table_is_followed_by_all_or_by_those_that_live() {
        let elders = Elders::default();
        let epoch = switchback_domain::Epoch(1);
        let generation = Generation { epoch, counter: 2 };
        let table = Table { generation, ..Table::default() };
        elders.inherit(vec![past("lost", report(1, 1, 0))]);
        let mut line = elders.join(past("a", report(1, 1, 0)), None, Generation::default());
        let mut following = std::pin::pin!(elders.follow(&table));
        tokio::select! {
            biased;
            early = &mut following => panic!("{early:?}"),
            word = line.recv() => assert!(matches!(word, Some(FromNew::Follow { .. }))),
        }
        elders.with("a", |elder| elder.followed = generation);
        tokio::select! {
            biased;
            early = &mut following => panic!("one is lost, not dead: {early:?}"),
            // sleep: the clock is paused, so this takes no time.
            () = tokio::time::sleep(RETIRING_LOST_MAX * 2) => {}
        }
        elders.dead();
        assert_eq!(following.await, Ok(()));
    }
}
