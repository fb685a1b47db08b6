//! Workers with requests, and a publisher that gives one table after the other and looks who is
//! drained: what `worker`, `plane` and `registry` do with the files under test, and nothing else.
//!
//! The truth is kept beside, in plain cells: loom runs one thread at a time, so they always say
//! what has really happened, whatever the atomics let a thread see.

#![allow(clippy::arc_with_non_send_sync, reason = "loom watches who looks into the cells")]

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use switchback_domain::{ArmStats, InstanceId};

use crate::compiled::{Arm, Endpoint, Visit};
use crate::counters::{Outcome, Ticket};
use crate::ledger::Ledger;
use crate::sync::{ArcSwap, mpsc, oneshot};
use crate::view::{View, all_follow};
use crate::weakness::Weakness;

/// What a worker does next.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// A request comes: a version is chosen.
    Begin,
    /// The request ends.
    End,
    /// The question whether the worker has the newest table is waited for, and answered.
    Answer,
}

/// A story to try in every interleaving.
#[derive(Debug)]
pub struct Script {
    /// The version that each table names; the first is in force at the start.
    pub tables: &'static [usize],
    /// What each worker does.
    pub workers: &'static [&'static [Act]],
    /// How often a thread may be interrupted where it could go on; `None` for without limit.
    pub interruptions: Option<usize>,
    /// Whether somebody asks for a report after each table, while requests go on.
    pub reports: bool,
}

const VERSIONS: usize = 2;
/// More steps than any run of a script has.
const STEPS_MAX: usize = 20_000;

enum Command {
    Acknowledge(oneshot::Sender<()>),
}

/// One generation. It is whole if the two parts are the same.
struct Table {
    router: loom::cell::Cell<u64>,
    directory: loom::cell::Cell<u64>,
    version: usize,
    arm: Arc<Arm>,
}

impl Table {
    fn new(generation: u64, version: usize, arm: Arc<Arm>) -> Arc<Self> {
        let empty = || loom::cell::Cell::new(0);
        let table = Self { router: empty(), directory: empty(), version, arm };
        table.router.set(generation);
        table.directory.set(generation);
        Arc::new(table)
    }

    /// Its generation; fails on half a table.
    fn generation(&self) -> u64 {
        let (router, directory) = (self.router.get(), self.directory.get());
        assert_eq!(router, directory, "half a table");
        router
    }
}

/// What has really happened.
#[derive(Default)]
struct Truth {
    /// The newest table that every worker has acknowledged.
    acknowledged: Cell<u64>,
    versions: [OfVersion; VERSIONS],
}

#[derive(Default)]
struct OfVersion {
    on_their_way: Cell<u64>,
    begun: Cell<u64>,
    /// It was reported that nothing of it is on its way, and nothing will be.
    drained: Cell<bool>,
}

impl OfVersion {
    /// It is reported that nothing is on its way, and that this was counted.
    fn is_told(&self, stats: &ArmStats) {
        assert_eq!(self.on_their_way.get(), 0, "reported drained amid a request");
        let begun = self.begun.get();
        assert_eq!((stats.accepted, stats.broken), (begun, begun), "a request was lost");
        self.drained.set(true);
    }
}

fn change(cell: &Cell<u64>, change: i64) {
    cell.set(cell.get().wrapping_add_signed(change));
}

/// Runs a future of the stand-ins, which wait inside instead of saying that they are pending.
fn run<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a stand-in did not wait"),
    }
}

struct Request {
    ticket: Ticket,
    visit: Visit,
    version: usize,
}

struct Worker {
    index: usize,
    view: View<Table>,
    inbox: mpsc::UnboundedReceiver<Command>,
    truth: Rc<Truth>,
}

impl Worker {
    fn work(mut self, acts: &[Act]) {
        let mut request = None;
        let mut acts = acts.iter();
        while let Some(act) = acts.next() {
            match act {
                Act::Begin if Weakness::TornAssignment.is_on() => {
                    let chosen = self.view.with(Choice::of);
                    if acts.clone().next().is_some_and(|next| matches!(next, Act::Answer)) {
                        self.answer();
                        acts.next();
                    }
                    request = Some(self.begin(chosen));
                }
                Act::Begin => request = Some(self.assign()),
                Act::End => self.end(request.take()),
                Act::Answer => self.answer(),
            }
        }
        self.end(request);
    }

    /// As in `service::assign`: version, count and instance in one look into the table.
    fn assign(&self) -> Request {
        let due = self.truth.acknowledged.get();
        self.view.with(|table| {
            assert!(table.generation() >= due, "an older table than the one acknowledged");
            self.begin(Choice::of(table))
        })
    }

    fn begin(&self, chosen: Choice) -> Request {
        let Choice { version, arm } = chosen;
        let shard = if Weakness::SharedShard.is_on() { 0 } else { self.index };
        let arm = Rc::new(arm);
        let visit = Visit::begin(Rc::clone(&arm), 0, self.index);
        let ticket = Ticket::accept(arm, shard);
        let truth = &self.truth.versions[version];
        assert!(!truth.drained.get(), "a request begins on a version that was drained");
        change(&truth.on_their_way, 1);
        change(&truth.begun, 1);
        Request { ticket, visit, version }
    }

    fn end(&self, request: Option<Request>) {
        let Some(Request { mut ticket, visit, version }) = request else { return };
        ticket.settle(Outcome::Broken);
        change(&self.truth.versions[version].on_their_way, -1);
        drop(visit);
        drop(ticket);
    }

    /// As in `worker::work`, which looks into the newest table before it answers as well.
    fn answer(&mut self) {
        let Some(Command::Acknowledge(done)) = self.inbox.wait() else { return };
        done.send(());
    }
}

/// What a look into the table gave.
struct Choice {
    version: usize,
    arm: Arc<Arm>,
}

impl Choice {
    fn of(table: &Table) -> Self {
        Self { version: table.version, arm: Arc::clone(&table.arm) }
    }
}

struct Publisher {
    slot: Arc<ArcSwap<Table>>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    ledgers: [Ledger; VERSIONS],
    endpoints: [Arc<Endpoint>; VERSIONS],
    truth: Rc<Truth>,
}

impl Publisher {
    fn arm(&mut self, version: usize) -> Arc<Arm> {
        arm(&mut self.ledgers[version], &self.endpoints[version], self.workers.len())
    }

    /// As `put_in_force` and `acknowledged` in `plane`, and `settle` in `registry`.
    fn publish(&mut self, generation: u64, version: usize, reports: bool) {
        self.truth.versions[version].drained.set(false);
        let table = Table::new(generation, version, self.arm(version));
        let workers = self.workers.len();
        let asked = match () {
            () if Weakness::NobodyAsked.is_on() => 0,
            () if Weakness::OneAnswerEnough.is_on() => 1,
            () => workers,
        };
        if Weakness::AskedBeforeSwap.is_on() {
            self.follow(0..asked);
            self.slot.store(table);
        } else {
            self.slot.store(table);
            if Weakness::RestedEarly.is_on() {
                self.ledgers[1 - version].rest();
            }
            self.follow(0..asked);
        }
        self.truth.acknowledged.set(generation);
        self.settle(1 - version, reports);
        self.follow(asked..workers);
    }

    fn follow(&self, workers: Range<usize>) {
        let answered = run(all_follow(&self.workers[workers], Command::Acknowledge));
        assert_eq!(answered, Ok(()));
    }

    /// What comes to rest, and what is reported drained, has to be so.
    fn settle(&mut self, left_out: usize, reports: bool) {
        let truth = &self.truth.versions[left_out];
        if self.endpoints[left_out].in_flight() == 0 {
            assert_eq!(truth.on_their_way.get(), 0, "an instance is stopped amid a request");
        }
        let ledger = &mut self.ledgers[left_out];
        if reports {
            let (in_flight, stats) = if Weakness::CountsReadFirst.is_on() {
                let (_, stats) = ledger.read();
                (ledger.read().0, stats)
            } else {
                ledger.read()
            };
            if in_flight == 0 {
                truth.is_told(&stats);
            }
        }
        ledger.rest();
        if ledger.is_at_rest() {
            truth.is_told(&ledger.read().1);
        }
    }
}

fn arm(ledger: &mut Ledger, endpoint: &Arc<Endpoint>, workers: usize) -> Arc<Arm> {
    let (counters, endpoints) = (ledger.open(workers), [Arc::clone(endpoint)]);
    Arc::new(Arm { counters, endpoints, part: None, breaker: None })
}

/// One run of a script, in the interleaving that loom tries now.
fn play(script: &'static Script) {
    let count = script.workers.len();
    let mut ledgers = [(); VERSIONS].map(|()| Ledger::default());
    let endpoint = |number: u64| {
        let address = ([127, 0, 0, 1], 1).into();
        Arc::new(Endpoint::new(number, InstanceId::from_stored(number.to_string()), address, count))
    };
    let endpoints = [endpoint(0), endpoint(1)];
    let first = script.tables[0];
    let opened = arm(&mut ledgers[first], &endpoints[first], count);
    let slot = Arc::new(ArcSwap::new(Table::new(1, first, opened)));
    let truth = Rc::new(Truth::default());
    let mut threads = Vec::new();
    let mut workers = Vec::new();
    for (index, acts) in script.workers.iter().enumerate() {
        let (commands, inbox) = mpsc::unbounded_channel();
        workers.push(commands);
        let (slot, truth) = (Arc::clone(&slot), Rc::clone(&truth));
        threads.push(loom::thread::spawn(move || {
            Worker { index, view: View::new(&slot), inbox, truth }.work(acts);
        }));
    }
    let mut publisher = Publisher { slot, workers, ledgers, endpoints, truth };
    for (generation, version) in (2..).zip(&script.tables[1..]) {
        publisher.publish(generation, *version, script.reports);
    }
    for thread in threads {
        thread.join().expect("a worker fails the whole run");
    }
    // At the end everything is told, of whatever version.
    for version in 0..VERSIONS {
        publisher.settle(version, true);
        assert!(publisher.truth.versions[version].drained.get(), "nothing is on its way");
    }
}

/// Plays a script in every interleaving, with something taken away or not. Says how many there are,
/// or what went wrong in the first that fails.
pub fn explore(script: &'static Script, weakness: Option<Weakness>) -> Result<usize, String> {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = STEPS_MAX;
    builder.preemption_bound = script.interruptions;
    Weakness::switch_on(weakness);
    let explored = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            play(script);
        });
    }));
    Weakness::switch_on(None);
    explored.map(|()| runs.load(Ordering::Relaxed)).map_err(|why| {
        let text = why.downcast_ref::<String>().cloned();
        let text = text.or_else(|| why.downcast_ref::<&str>().map(ToString::to_string));
        text.unwrap_or_default()
    })
}
