//! The control side: takes tables, swaps them in, and knows when every worker has followed.
//!
//! **Why "acknowledged, and nothing in flight" means drained.** A worker is one thread. It looks a
//! request's version up in its table and raises that version's in-flight count in one stretch
//! without `await` (`service::assign`). An acknowledgement is a message that the same thread
//! handles between two such stretches; the new table was stored before the message was sent, so
//! every stretch after the acknowledgement sees the new table (or a newer one). Hence a request
//! that chose something the new table leaves out raised its count *before* the acknowledgement,
//! and the reader, who received the acknowledgement, sees it raised. After the last
//! acknowledgement such a count can only fall; each shard read as 0 stays 0, so a sum of 0 is the
//! truth and not a snapshot of moving parts.
//!
//! The same holds per instance. The first instance is chosen in the same poll as the version, so
//! before any later acknowledgement. A repetition chooses from the newest table, or, when that no
//! longer names the version, stays with the instance whose count it still holds up (`exchange`).
//!
//! **Traffic goes first, the disk follows.** A table is swapped in, then written, and `publish`
//! answers after both: whoever waits for the answer (to stop what the table leaves out) knows that
//! a restart does not bring it back. A crash between the two leaves the older table on disk, and
//! that is served after the restart until the control plane, which sees the new incarnation in the
//! report, publishes again. So that the older table lets no former control plane back in, the first
//! table of an epoch is written before it is served. Tables that come while one is being written
//! are served at once, and only the newest of them is written. One that cannot be written is served
//! all the same, and the report carries a warning until a write succeeds.

mod succession;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use switchback_domain::Generation;
use switchback_ports::crash_point;
use switchback_ports::data_plane::admin::{Health, PublishAnswer};
use switchback_ports::data_plane::{Batches as Answer, Cursor, ListenerReport, Report};
use switchback_routing::{Route, Router, Table};
use tokio::sync::{mpsc, oneshot};

use crate::batches::Batches;
use crate::cohorts::TICK;
use crate::handover::Elders;
use crate::limits::{ACKNOWLEDGE_MAX, CERTIFICATE_LOOK};
use crate::listen::{Acceptor, RETRY_INTERVAL, bind};
use crate::log;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::store::Store;
use crate::tls::{Book, Loader, Mode};
use crate::view::all_follow;
use crate::worker::Command;

/// See the module. Lives on the control thread.
#[derive(Debug)]
pub(crate) struct Plane {
    id: String,
    version: String,
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    pub(crate) acceptor: Acceptor,
    /// The processes this one has replaced, as long as they are there.
    pub(crate) elders: Elders,
    /// Connections to instances that came from those.
    links_taken_in: Cell<usize>,
    store: Store,
    certificates: Loader,
    state: RefCell<State>,
    /// Told when a handover has ended, either way.
    thawed: tokio::sync::Notify,
    /// One table at a time is put into force.
    publishing: tokio::sync::Mutex<()>,
    /// One table at a time is written.
    saving: tokio::sync::Mutex<()>,
    collecting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Goes on from process to process when one takes over from another.
    incarnation: String,
    registry: Registry,
    batches: Batches,
    /// Every address the table names, and why it is not listened on.
    listeners: BTreeMap<SocketAddr, Option<String>>,
    /// The table on disk is not the one in force, and why.
    unsaved: Option<String>,
    /// The newest table on disk.
    saved: Generation,
    /// What was wrong with the table found at the start.
    set_aside: Option<String>,
    /// The newest table that every worker serves from.
    acknowledged: Generation,
    stopping: bool,
    /// Another process has taken over.
    retired: bool,
    /// What every question is answered by while another process takes over, and after.
    frozen: Option<Report>,
    /// Listeners of the process that this one takes over from, until it does.
    inherited: Bound,
    /// What processes have counted that have ended.
    unrouted_before: u64,
    refused_before: u64,
}

type Bound = Vec<(SocketAddr, TcpListener)>;

impl Plane {
    pub(crate) fn new(
        shared: Arc<Shared>,
        workers: Vec<mpsc::UnboundedSender<Command>>,
        acceptor: Acceptor,
        store: Store,
        version: &str,
    ) -> Rc<Self> {
        let id = format!("{:016x}", rand::random::<u64>());
        let state = State {
            incarnation: id.clone(),
            registry: Registry::new(shared.workers()),
            batches: Batches::default(),
            listeners: BTreeMap::new(),
            unsaved: None,
            saved: Generation::default(),
            set_aside: None,
            acknowledged: Generation::default(),
            stopping: false,
            retired: false,
            frozen: None,
            inherited: Vec::new(),
            unrouted_before: 0,
            refused_before: 0,
        };
        Rc::new(Self {
            id,
            version: version.to_owned(),
            shared,
            workers,
            acceptor,
            elders: Elders::default(),
            links_taken_in: Cell::default(),
            store,
            certificates: Loader::new(),
            state: RefCell::new(state),
            thawed: tokio::sync::Notify::new(),
            publishing: tokio::sync::Mutex::new(()),
            saving: tokio::sync::Mutex::new(()),
            collecting: tokio::sync::Mutex::new(()),
        })
    }

    /// Serves the last table again. Addresses that somebody else took meanwhile are reported and
    /// tried again; everything else is served at once.
    pub(crate) fn restore(&self) {
        let table = match self.store.load() {
            Ok(Some(table)) => table,
            Ok(None) => return,
            Err(reason) => {
                log::note(&reason);
                self.state.borrow_mut().set_aside = Some(reason);
                return;
            }
        };
        let router = match Router::new(&table) {
            Ok(router) => router,
            Err(invalid) => {
                let reason = self.store.set_aside(&invalid.to_string());
                log::note(&reason);
                self.state.borrow_mut().set_aside = Some(reason);
                return;
            }
        };
        let addresses: Vec<_> = router.addresses().collect();
        // No request was taken yet, so nobody has to acknowledge.
        let mut state = self.state.borrow_mut();
        (state.acknowledged, state.saved) = (table.generation, table.generation);
        drop(state);
        let loaded = self.certificates.load(&table, &Book::default(), Mode::Lenient);
        self.swap(table, router, loaded.unwrap_or_default());
        for address in addresses {
            self.try_listen(address);
        }
    }

    /// Takes a table; see the port's `publish`.
    pub(crate) async fn publish(&self, table: Table) -> PublishAnswer {
        let given = table.generation;
        crash_point("table before its swap");
        let answer = self.put_in_force(table).await;
        crash_point("table before it is saved");
        match answer {
            PublishAnswer::Serving { .. } | PublishAnswer::Unacknowledged { .. } => {
                self.save(given).await;
            }
            PublishAnswer::Fenced { .. } | PublishAnswer::Refused { .. } => {}
        }
        crash_point("table before the answer");
        answer
    }

    async fn put_in_force(&self, table: Table) -> PublishAnswer {
        let _one_at_a_time = self.publishing.lock().await;
        if self.is_retired() {
            let reason = "another process has taken over".to_owned();
            return PublishAnswer::Unacknowledged { reason };
        }
        let current = self.shared.table.load_full();
        let (given, seen) = (table.generation, current.table.generation);
        if given < seen {
            return PublishAnswer::Fenced { given, seen };
        }
        if table == current.table {
            return self.acknowledged(given).await;
        }
        if given == seen {
            let reason = format!("generation {given} is in force already, with another content");
            return PublishAnswer::Refused { reason };
        }
        let router = match current.router.next(&current.table, &table) {
            Ok(router) => router,
            Err(invalid) => return PublishAnswer::Refused { reason: invalid.to_string() },
        };
        let book = match self.certificates.load(&table, &current.tls, Mode::Strict) {
            Ok(book) => book,
            Err(reason) => return PublishAnswer::Refused { reason },
        };
        let bound = match self.bind_new(&table, &router) {
            Ok(bound) => bound,
            Err(reason) => return PublishAnswer::Refused { reason },
        };
        if given.epoch > seen.epoch {
            let result = self.store.save(&table);
            self.was_saved(given, result);
        }
        self.swap(table, router, book);
        let answer = self.acknowledged(given).await;
        self.switch_listeners(bound);
        // The old table is dropped here, on this thread, after every worker let go of it.
        drop(current);
        answer
    }

    /// Takes the addresses that are new in `table`: all of them or none. One that could not be
    /// taken at the start is not new; it must not hold up the others' traffic.
    fn bind_new(&self, table: &Table, router: &Router) -> Result<Bound, String> {
        let state = self.state.borrow();
        let new = router.addresses().filter(|address| !state.listeners.contains_key(address));
        let bind = |address| match bind(address) {
            Ok(listener) => Ok((address, listener)),
            Err(error) => {
                let wants = |route: &&Route| route.addresses().any(|own| own == address);
                let whose = table.routes.iter().find(wants).map(|route| &route.service);
                let whose = whose.map(|service| format!(" for {service}")).unwrap_or_default();
                Err(format!("cannot listen on {address}{whose}: {error}"))
            }
        };
        new.map(bind).collect()
    }

    /// Writes the table in force to disk, unless one as new as `generation` is there already.
    async fn save(&self, generation: Generation) {
        let _one_at_a_time = self.saving.lock().await;
        if self.state.borrow().saved >= generation || self.is_retired() {
            return;
        }
        let (store, current) = (self.store.clone(), self.shared.table.load_full());
        let generation = current.table.generation;
        // On a thread of its own: the disk may take its time, questions and tables may not.
        let write = tokio::task::spawn_blocking(move || store.save(&current.table));
        let result = write.await.unwrap_or_else(|error| Err(error.to_string()));
        self.was_saved(generation, result);
    }

    fn was_saved(&self, generation: Generation, result: Result<(), String>) {
        let mut state = self.state.borrow_mut();
        state.unsaved = result.err();
        match &state.unsaved {
            Some(reason) => log::note(reason),
            None => state.saved = generation,
        }
    }

    fn swap(&self, table: Table, router: Router, book: Book) {
        let current = self.shared.table.load_full();
        let State { registry, batches, .. } = &mut *self.state.borrow_mut();
        let parts = batches.parts(&table, |id| registry.latency(id));
        let arms = registry.arms(&table, &current, &parts);
        let guards = registry.guards(&table);
        let next = current.next(table, router, arms, guards, Arc::new(book));
        self.shared.table.store(Arc::new(next));
    }

    /// Waits until every worker, and every process that this one has replaced, serves from the
    /// table in force; then settles what it left out.
    async fn acknowledged(&self, generation: Generation) -> PublishAnswer {
        let current = self.shared.table.load_full();
        let elders = self.elders.follow(&current.table);
        let all = async { tokio::try_join!(self.workers_follow(), elders) };
        match tokio::time::timeout(ACKNOWLEDGE_MAX, all).await {
            Ok(Ok(_)) => {
                let mut state = self.state.borrow_mut();
                state.registry.settle(&current.table);
                state.acknowledged = generation;
                PublishAnswer::Serving { generation }
            }
            Ok(Err(reason)) => PublishAnswer::Unacknowledged { reason },
            Err(_) => {
                let (retiring, _) = self.elders.counts();
                let others = if retiring > 0 { ", or a process that was replaced," } else { "" };
                let reason = format!("a worker{others} did not answer in {ACKNOWLEDGE_MAX:?}");
                PublishAnswer::Unacknowledged { reason }
            }
        }
    }

    /// Returns when every worker serves from the table in force.
    async fn workers_follow(&self) -> Result<(), String> {
        all_follow(&self.workers, Command::Acknowledge).await
    }

    /// Opens what was bound and closes what the table in force does not name any more.
    fn switch_listeners(&self, bound: Bound) {
        let current = self.shared.table.load_full();
        let named: BTreeSet<_> = current.router.addresses().collect();
        let mut state = self.state.borrow_mut();
        for (address, listener) in bound {
            self.acceptor.open(address, listener);
            state.listeners.insert(address, None);
        }
        state.listeners.retain(|address, error| {
            let kept = named.contains(address);
            if !kept && error.is_none() {
                self.acceptor.close(*address);
            }
            kept
        });
    }

    fn try_listen(&self, address: SocketAddr) {
        let error = match bind(address) {
            Ok(listener) => {
                self.acceptor.open(address, listener);
                None
            }
            Err(error) => Some(format!("cannot listen on {address}: {error}")),
        };
        self.state.borrow_mut().listeners.insert(address, error);
    }

    /// Tries addresses again that somebody else had at the start, for as long as they are named.
    pub(crate) async fn retry_listening(&self) {
        let mut tick = tokio::time::interval(RETRY_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let _not_during_a_handover = self.publishing.lock().await;
            let state = self.state.borrow();
            let failed = state.listeners.iter().filter(|(_, error)| error.is_some());
            let failed: Vec<_> = failed.map(|(address, _)| *address).collect();
            drop(state);
            for address in failed {
                self.try_listen(address);
            }
        }
    }

    /// Gathers what the workers counted of rollouts' requests, tick by tick.
    pub(crate) async fn keep_collecting(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_open = false;
        loop {
            tick.tick().await;
            let has_trial = self.shared.table.load().arms.iter().any(|arm| arm.part.is_some());
            if is_open || has_trial {
                is_open = self.collect().await;
            }
        }
    }

    /// Once. Says whether there is more to come of requests that were accepted by now.
    pub(crate) async fn collect(&self) -> bool {
        // Two at once would give the cohorts of one tick in two batches.
        let _one_at_a_time = self.collecting.lock().await;
        let ask = |worker: &mpsc::UnboundedSender<Command>| {
            let (sender, answer) = oneshot::channel();
            // A worker that is gone has handed over all it had.
            let _ = worker.send(Command::Collect(sender));
            answer
        };
        let waiting: Vec<_> = self.workers.iter().map(ask).collect();
        let mut collected = Vec::with_capacity(waiting.len());
        for answer in waiting {
            collected.extend(answer.await.ok());
        }
        self.state.borrow_mut().batches.add(Instant::now(), collected)
    }

    /// What was counted of rollouts' requests after a cursor.
    pub(crate) fn batches(&self, after: &Cursor) -> Answer {
        let state = self.state.borrow();
        state.batches.after(&state.incarnation, after)
    }

    /// Reads certificates again when their files change, and swaps them in. What is broken then
    /// does not take the place of what serves.
    pub(crate) async fn renew_certificates(&self) {
        let mut tick = tokio::time::interval(CERTIFICATE_LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let _one_at_a_time = self.publishing.lock().await;
            let current = self.shared.table.load_full();
            if !current.tls.is_stale() {
                continue;
            }
            let table = current.table.clone();
            // What cannot be used is kept as it was, so this loads all that there is.
            let Ok(book) = self.certificates.load(&table, &current.tls, Mode::Strict) else {
                continue;
            };
            let Ok(router) = current.router.next(&current.table, &table) else { continue };
            self.swap(table, router, book);
            for warning in self.shared.table.load().tls.warnings(SystemTime::now()) {
                log::note(&warning);
            }
        }
    }

    /// Whether a table could be served, as far as its routes and files tell; the reason if not.
    pub(crate) fn check(&self, table: &Table) -> Result<(), String> {
        Router::new(table).map_err(|invalid| invalid.to_string())?;
        let current = self.shared.table.load_full();
        self.certificates.load(table, &current.tls, Mode::Strict).map(|_| ())
    }

    /// What this process alone knows and counts.
    pub(crate) fn own_report(&self) -> Report {
        let state = self.state.borrow();
        let encryption = self.shared.table.load().tls.warnings(SystemTime::now());
        let listener = |(address, error): (&SocketAddr, &Option<String>)| ListenerReport {
            address: *address,
            error: error.clone(),
        };
        Report {
            incarnation: state.incarnation.clone(),
            generation: state.acknowledged,
            arms: state.registry.report(),
            unrouted: state.unrouted_before + self.shared.unrouted_sum(),
            refused: state.refused_before + self.shared.refused_sum(),
            listeners: state.listeners.iter().map(listener).collect(),
            routes: self.shared.route_reports(),
            warnings: state
                .unsaved
                .iter()
                .chain(&state.set_aside)
                .cloned()
                .chain(encryption)
                .chain(self.shared.access_log.trouble())
                .collect(),
            version: self.version.clone(),
        }
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.state.borrow();
        let (retiring, taken_over) = self.elders.counts();
        Health {
            pid: std::process::id(),
            incarnation: state.incarnation.clone(),
            generation: self.shared.table.load().table.generation,
            stopping: state.stopping || state.retired,
            version: self.version.clone(),
            retiring,
            taken_over,
        }
    }

    /// From now on only what was begun is finished. `false` when another process serves: then this
    /// one ends by itself, and that one is to be told.
    pub(crate) async fn set_stopping(&self) -> bool {
        // A handover that has begun comes to its end first, so that one of the two is told.
        let _quiet = self.quiet().await;
        let mut state = self.state.borrow_mut();
        state.stopping |= !state.retired;
        state.stopping
    }

    /// Lets every address go; returns when all that was accepted is in the workers' hands.
    pub(crate) async fn close_listeners(&self) {
        self.acceptor.close_all().await;
    }
}

#[cfg(test)]
mod tests {
    use switchback_domain::Epoch;

    use super::*;

    /// A plane whose workers are the test.
    fn plane(directory: &std::path::Path) -> (Rc<Plane>, Vec<mpsc::UnboundedReceiver<Command>>) {
        let shared = Arc::new(Shared::new(2, directory));
        let (workers, inboxes): (Vec<_>, Vec<_>) =
            (0..2).map(|_| mpsc::unbounded_channel()).unzip();
        let acceptor = {
            let limits = crate::listen::Limits { connections: 1, per_address: None };
            Acceptor::start(Arc::clone(&shared), workers.clone(), limits).unwrap()
        };
        (Plane::new(shared, workers, acceptor, Store::new(directory), "0.0.0"), inboxes)
    }

    fn table(counter: u64) -> Table {
        Table { generation: Generation { epoch: Epoch(1), counter }, ..Table::default() }
    }

    async fn acknowledge(inbox: &mut mpsc::UnboundedReceiver<Command>) {
        match inbox.recv().await {
            Some(Command::Acknowledge(done)) => done.send(()).unwrap(),
            other => panic!("not asked to acknowledge: {other:?}"),
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_table_is_published_only_when_every_worker_has_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let (plane, mut inboxes) = plane(directory.path());
        let mut publishing = std::pin::pin!(plane.publish(table(1)));
        for inbox in &mut inboxes {
            tokio::select! {
                biased;
                early = &mut publishing => panic!("published too early: {early:?}"),
                () = acknowledge(inbox) => {}
            }
            assert_eq!(plane.health().generation, table(1).generation, "in force at once");
        }
        let answer = publishing.await;
        assert_eq!(answer, PublishAnswer::Serving { generation: table(1).generation });
        assert_eq!(plane.report().generation, table(1).generation);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_table_is_in_force_before_it_is_on_disk_and_answered_after() {
        let directory = tempfile::tempdir().unwrap();
        let (plane, mut inboxes) = plane(directory.path());
        let mut follow = async || {
            for inbox in &mut inboxes {
                acknowledge(inbox).await;
            }
        };
        let (first, ()) = tokio::join!(plane.publish(table(1)), follow());
        assert_eq!(first, PublishAnswer::Serving { generation: table(1).generation });
        // A disk that hangs: whoever opens the file to write waits for somebody who reads.
        let hanging = directory.path().join("proxy-table.json.new");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &hanging, kind, 0o600.into(), 0).unwrap();
        let mut publishing = std::pin::pin!(async {
            tokio::join!(plane.publish(table(2)), plane.publish(table(3)))
        });
        tokio::select! {
            biased;
            early = &mut publishing => panic!("answered before it was written: {early:?}"),
            () = async { follow().await; follow().await } => {}
        }
        assert_eq!(plane.health().generation, table(3).generation, "in force all the same");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let reader = rustix::fs::open(&hanging, flags, rustix::fs::Mode::empty()).unwrap();
        std::fs::remove_file(&hanging).unwrap();
        publishing.await;
        drop(reader);
        assert_eq!(Store::new(directory.path()).load(), Ok(Some(table(3))));
        assert!(plane.report().warnings.is_empty());
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_first_table_of_an_epoch_is_on_disk_before_it_is_served() {
        let directory = tempfile::tempdir().unwrap();
        let (plane, mut inboxes) = plane(directory.path());
        let mut publishing = std::pin::pin!(plane.publish(table(1)));
        tokio::select! {
            biased;
            early = &mut publishing => panic!("published too early: {early:?}"),
            () = acknowledge(&mut inboxes[0]) => {}
        }
        assert_eq!(Store::new(directory.path()).load(), Ok(Some(table(1))));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_worker_that_hangs_or_is_gone_is_told_of_and_can_be_asked_again() {
        let directory = tempfile::tempdir().unwrap();
        let (plane, mut inboxes) = plane(directory.path());
        let answer = plane.publish(table(1)).await;
        assert!(matches!(answer, PublishAnswer::Unacknowledged { .. }), "{answer:?}");
        assert_eq!(plane.report().generation, Generation::default(), "not by every worker yet");
        let again = async {
            for inbox in &mut inboxes {
                // Two questions wait: the first one's asker has gone.
                let _ = inbox.recv().await;
                acknowledge(inbox).await;
            }
        };
        let (answer, ()) = tokio::join!(plane.publish(table(1)), again);
        assert_eq!(answer, PublishAnswer::Serving { generation: table(1).generation });
        inboxes.pop();
        let (answer, ()) = tokio::join!(plane.publish(table(2)), acknowledge(&mut inboxes[0]));
        assert!(matches!(answer, PublishAnswer::Unacknowledged { .. }), "{answer:?}");
    }
}
