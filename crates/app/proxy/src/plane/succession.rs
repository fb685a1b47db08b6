//! The plane's part in a handover: what it gives to a successor, and what it takes from whom it
//! succeeds.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Instant;

use switchback_ports::data_plane::{Batches, Counted, Cursor, Report};
use switchback_routing::{Router, Table};
use tokio::sync::MutexGuard;
use tokio::time::timeout;

use super::Plane;
use crate::batches::Gathered;
use crate::handover::{Bound, LeavingLink, Legacy, Offer, Past, Place};
use crate::limits::ACKNOWLEDGE_MAX;
use crate::log;
use crate::service::Entry;
use crate::tls::{Book, Mode};
use crate::worker::Command;

impl Plane {
    /// This process among all there ever were.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its binary's version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Waits until no table is on its way into force or to the disk; none is while this is held.
    pub(crate) async fn quiet(&self) -> (MutexGuard<'_, ()>, MutexGuard<'_, ()>) {
        (self.publishing.lock().await, self.saving.lock().await)
    }

    /// Whether this process gives nothing away any more: it ends, or has been replaced.
    pub(crate) fn is_ending(&self) -> bool {
        let state = self.state.borrow();
        state.stopping || state.retired
    }

    /// Whether another process has taken over.
    pub(crate) fn is_retired(&self) -> bool {
        self.state.borrow().retired
    }

    /// What a successor needs, and the listeners it is to have. To be called while all is quiet.
    pub(crate) async fn offer(&self) -> Result<(Offer, Vec<TcpListener>), String> {
        let report = self.own_report();
        let current = self.shared.table.load_full();
        let table = serde_json::to_value(&current.table).map_err(|error| error.to_string())?;
        let shared = self.acceptor.share().await;
        let open = report.listeners.iter().filter(|listener| listener.error.is_none());
        let is_whole = open.map(|listener| listener.address).eq(shared.iter().map(|(a, _)| *a));
        if !is_whole {
            return Err("no descriptors are left for the listeners".to_owned());
        }
        let offer = Offer {
            version: self.version.clone(),
            incarnation: report.incarnation,
            acknowledged: report.generation,
            saved: self.state.borrow().saved,
            table,
            listeners: report.listeners,
            gathered: self.state.borrow().batches.gathered(&Cursor::default()),
            ticket_keys: self.certificates.tickets.keys_for_a_successor(),
        };
        Ok((offer, shared.into_iter().map(|(_, listener)| listener).collect()))
    }

    /// From now on every question is answered by what has been counted up to here: nobody may
    /// read more from this process than its successor knows. Gives what it knows; of what was
    /// gathered, what it was not `told` yet.
    pub(crate) fn freeze(&self, told: &Cursor) -> (Vec<Past>, Gathered) {
        let report = self.report();
        let mut state = self.state.borrow_mut();
        state.frozen = Some(report);
        let batches_read = state.batches.seal();
        let gathered = state.batches.gathered(told);
        drop(state);
        let (id, report) = (self.id.clone(), self.own_report());
        let mut pasts = vec![Past { id, report, before: Vec::new(), batches_read }];
        pasts.extend(self.elders.pasts());
        (pasts, gathered)
    }

    /// Goes on where the process before was, with what it gathered of rollouts' requests.
    pub(crate) fn go_on_gathering(&self, gathered: Gathered) {
        self.state.borrow_mut().batches.go_on(Instant::now(), gathered);
    }

    /// Takes what a process has gathered that was replaced.
    pub(crate) fn adopt(&self, batches: Vec<Counted>) {
        self.state.borrow_mut().batches.adopt(Instant::now(), batches);
    }

    /// What this process has gathered since it was replaced, after a place.
    pub(crate) fn gathered_since(&self, place: u64) -> Batches {
        self.state.borrow().batches.since(place)
    }

    /// Nobody took over after all.
    pub(crate) fn thaw(&self) {
        let mut state = self.state.borrow_mut();
        state.frozen = None;
        state.batches.unseal();
        drop(state);
        self.thawed.notify_waiters();
    }

    /// Whether another process has taken over; while one is about to, waits for how it ends.
    pub(crate) async fn is_replaced(&self) -> bool {
        loop {
            let thawed = self.thawed.notified();
            if self.is_retired() || self.state.borrow().frozen.is_none() {
                return self.is_retired();
            }
            thawed.await;
        }
    }

    /// Another process has taken over.
    pub(crate) fn retired(&self) {
        self.state.borrow_mut().retired = true;
        self.thawed.notify_waiters();
        self.acceptor.let_go();
        self.elders.let_go();
    }

    /// Becomes what another process was, but does not serve yet.
    pub(crate) fn inherit(&self, offer: Offer, listeners: Vec<TcpListener>) -> Result<(), String> {
        let table: Table = serde_json::from_value(offer.table)
            .map_err(|error| format!("its table is not understood: {error}"))?;
        let router = Router::new(&table).map_err(|invalid| format!("its table: {invalid}"))?;
        // What this one cannot read is served by the other one still.
        let book = self.certificates.load(&table, &Book::default(), Mode::Strict)?;
        let mut inherited = listeners.into_iter();
        self.certificates.tickets.with_ticket_keys(offer.ticket_keys);
        // Before the table: its trials are those of the process before.
        self.go_on_gathering(offer.gathered);
        {
            let mut state = self.state.borrow_mut();
            state.incarnation = offer.incarnation;
            (state.acknowledged, state.saved) = (offer.acknowledged, offer.saved);
            for listener in offer.listeners {
                if listener.error.is_none()
                    && let Some(socket) = inherited.next()
                {
                    state.inherited.push((listener.address, socket));
                }
                state.listeners.insert(listener.address, listener.error);
            }
        }
        self.swap(table, router, book);
        Ok(())
    }

    /// Accepts on the listeners that it inherited.
    pub(crate) fn open_inherited(&self) {
        for (address, listener) in std::mem::take(&mut self.state.borrow_mut().inherited) {
            self.acceptor.open(address, listener);
        }
    }

    /// Sees to it that the table it inherited is on disk.
    pub(crate) async fn save_inherited(&self) {
        let generation = self.shared.table.load().table.generation;
        self.save(generation).await;
    }

    /// Serves its last requests by another table, which is somebody else's to listen for and to
    /// save. The error is a sentence for people.
    pub(crate) async fn follow(&self, table: Table) -> Result<(), String> {
        let current = self.shared.table.load_full();
        if table.generation > current.table.generation {
            let router = Router::new(&table).map_err(|invalid| invalid.to_string())?;
            let book = self.certificates.load(&table, &current.tls, Mode::Strict)?;
            self.swap(table, router, book);
        }
        let followed = timeout(ACKNOWLEDGE_MAX, self.workers_follow()).await;
        followed.map_err(|_| "a worker did not answer".to_owned())??;
        let current = self.shared.table.load_full();
        self.state.borrow_mut().registry.settle(&current.table);
        Ok(())
    }

    /// Has those that were replaced follow the table in force, without waiting for them.
    pub(crate) fn remind(&self) {
        self.elders.remind(&self.shared.table.load().table);
    }

    /// Gives connections to the workers.
    pub(crate) fn take_in(&self, from: Vec<Place>, descriptors: Vec<OwnedFd>) {
        if from.len() != descriptors.len() {
            log::note(&format!(
                "{} connections were announced, {} came",
                from.len(),
                descriptors.len()
            ));
        }
        for (Place { listen, client }, descriptor) in from.into_iter().zip(descriptors) {
            // What is encrypted stays where its keys are.
            self.give(descriptor.into(), Entry { listen, client, secure: false });
        }
    }

    /// Gives connections to instances to the workers, in turn.
    pub(crate) fn take_links_in(&self, to: Vec<Bound>, descriptors: Vec<OwnedFd>) {
        for (to, descriptor) in to.into_iter().zip(descriptors) {
            let (stream, turn) = (descriptor.into(), self.links_taken_in.get());
            self.links_taken_in.set(turn.wrapping_add(1));
            // A worker that has ended needs none.
            let _ = self.workers[turn % self.workers.len()]
                .send(Command::Link(LeavingLink { stream, to }));
        }
    }

    /// Gives a connection to a worker.
    pub(crate) fn give(&self, stream: std::net::TcpStream, entry: Entry) {
        self.acceptor.take_in(stream, entry);
    }

    /// Client connections and tunnels of this process.
    pub(crate) fn connections(&self) -> usize {
        (0..self.shared.workers()).map(|worker| self.shared.connections(worker)).sum()
    }

    /// Adds what a process has counted that has ended.
    pub(crate) fn lay_to_rest(&self, legacies: impl IntoIterator<Item = Legacy>) {
        let mut state = self.state.borrow_mut();
        for legacy in legacies {
            state.unrouted_before += legacy.unrouted;
            state.refused_before += legacy.refused;
            for route in &legacy.routes {
                self.shared.routes(0).change(&route.service, |sum| sum.add(route));
            }
            for arm in &legacy.arms {
                state.registry.add(arm);
            }
        }
    }

    /// Looks for processes that were replaced and have died.
    pub(crate) fn look_after_elders(&self) {
        self.lay_to_rest(self.elders.dead());
    }

    /// What every question is answered by.
    pub(crate) fn report(&self) -> Report {
        if let Some(frozen) = &self.state.borrow().frozen {
            return frozen.clone();
        }
        let mut report = self.own_report();
        self.elders.add_to(&mut report);
        report
    }
}
