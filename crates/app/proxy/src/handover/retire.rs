//! The old process after another one has taken over: connections follow between two requests, the
//! rest is finished here, counted to the end, and the process with it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use switchback_ports::crash_point;
use switchback_ports::data_plane::{ArmReport, RouteReport};
use switchback_routing::ArmId;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::give::step;
use super::wire::{DESCRIPTORS_MAX, Reader, Writer, ends};
use super::{Bound, First, FromNew, FromOld, PROTOCOL, Past, Place, doors};
use crate::codec::own::Leaving;
use crate::limits::{RETIRING_COUNT_INTERVAL, RETIRING_LOST_MAX, RETIRING_MAX};
use crate::log;
use crate::plane::Plane;
use crate::worker::{Command, Handle};

/// A connection to an instance on its way to the process that serves now.
#[derive(Debug)]
pub(crate) struct LeavingLink {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) to: Bound,
}

/// The connection to the process that serves now.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// It has a use for connections to instances.
    pub(super) takes_links: bool,
}

/// Finishes everything, and tells so by `stop`; returns when nothing is left. `grace` is what there
/// is when the whole data plane is to end.
pub(crate) async fn retire(
    plane: &Plane,
    workers: &[Handle],
    state_dir: &Path,
    successor: Successor,
    grace: Duration,
    stop: watch::Sender<bool>,
) {
    let (out, outbox) = mpsc::unbounded_channel();
    let (links_out, links) = mpsc::unbounded_channel();
    let _ = stop.send(true);
    for worker in workers {
        let _ = worker.commands.send(Command::Leave(out.clone(), links_out.clone()));
    }
    let mut ticks = interval(RETIRING_COUNT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retiring = Retiring {
        plane,
        workers,
        outbox,
        links,
        waiting: Vec::new(),
        told: BTreeMap::new(),
        told_sums: Default::default(),
        batches_told: 0,
        deadline: Instant::now() + RETIRING_MAX,
        finishing: false,
        grace,
        ticks,
    };
    let mut successor = Some(successor);
    while let Some(present) = successor {
        if retiring.speak(present).await.is_ok() {
            return;
        }
        successor = retiring.look_for_another(state_dir).await;
    }
}

struct Retiring<'p> {
    plane: &'p Plane,
    workers: &'p [Handle],
    outbox: mpsc::UnboundedReceiver<Leaving>,
    /// To instances: a worker sends what rests of them before it sends connections of clients.
    links: mpsc::UnboundedReceiver<LeavingLink>,
    /// Taken out of the outbox, and not there for sure.
    waiting: Vec<Leaving>,
    /// What the successor was told last.
    told: BTreeMap<ArmId, ArmReport>,
    told_sums: (u64, u64, Vec<RouteReport>),
    /// The place of the last batch that it was told of.
    batches_told: u64,
    deadline: Instant,
    /// The workers were told to end.
    finishing: bool,
    grace: Duration,
    ticks: Interval,
}

impl Retiring<'_> {
    /// Speaks with the successor to the end; an error when it has gone away before.
    async fn speak(&mut self, mut successor: Successor) -> io::Result<()> {
        let Successor { reader, writer, takes_links } = &mut successor;
        let mut said_so = false;
        self.hand_out(writer).await?;
        loop {
            tokio::select! {
                Some(link) = self.links.recv() => {
                    self.hand_links_out(writer, *takes_links, vec![link]).await?;
                }
                Some(leaving) = self.outbox.recv() => {
                    self.waiting.push(leaving);
                    // Whoever takes the connection has a use for them at once.
                    self.hand_links_out(writer, *takes_links, Vec::new()).await?;
                    self.hand_out(writer).await?;
                }
                said = reader.receive() => match said?.0 {
                    FromNew::Follow { table } => self.follow(writer, *table).await?,
                    FromNew::Stop => self.finish(self.grace),
                    FromNew::Farewell => return Ok(()),
                    FromNew::Welcome
                    | FromNew::Ready
                    | FromNew::Refused { .. }
                    | FromNew::Serving => {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                },
                _ = self.ticks.tick() => {
                    let over = self.is_over().await;
                    self.count(writer).await?;
                    if over && !std::mem::replace(&mut said_so, true) {
                        crash_point("replaced before it is done");
                        writer.send(&FromOld::Done, &[]).await?;
                        crash_point("replaced before its farewell");
                    }
                }
            }
        }
    }

    /// Sends these connections to instances, and those that wait.
    async fn hand_links_out(
        &mut self,
        writer: &Writer,
        takes_links: bool,
        mut some: Vec<LeavingLink>,
    ) -> io::Result<()> {
        loop {
            while some.len() < DESCRIPTORS_MAX
                && let Ok(more) = self.links.try_recv()
            {
                some.push(more);
            }
            if some.is_empty() {
                return Ok(());
            }
            // Whoever does not know them opens its own.
            if takes_links {
                let to = some.iter().map(|link| link.to.clone()).collect();
                let descriptors: Vec<_> = some.iter().map(|link| link.stream.as_fd()).collect();
                writer.send(&FromOld::Links { to }, &descriptors).await?;
            }
            some.clear();
        }
    }

    /// Sends what waits, and what comes meanwhile.
    async fn hand_out(&mut self, writer: &Writer) -> io::Result<()> {
        loop {
            while self.waiting.len() < DESCRIPTORS_MAX
                && let Ok(more) = self.outbox.try_recv()
            {
                self.waiting.push(more);
            }
            let some = &self.waiting[..self.waiting.len().min(DESCRIPTORS_MAX)];
            if some.is_empty() {
                return Ok(());
            }
            let place = |leaving: &Leaving| Place {
                listen: leaving.entry.listen,
                client: leaving.entry.client,
            };
            let from = some.iter().map(place).collect();
            let descriptors: Vec<_> = some.iter().map(|leaving| leaving.stream.as_fd()).collect();
            writer.send(&FromOld::Connections { from }, &descriptors).await?;
            self.waiting.drain(..descriptors.len());
        }
    }

    async fn follow(
        &mut self,
        writer: &Writer,
        table: switchback_routing::Table,
    ) -> io::Result<()> {
        let generation = table.generation;
        let followed = self.plane.follow(table).await;
        // Workers that were told to end start nothing any more, by whatever table.
        let failed = followed.err().filter(|_| !self.finishing);
        // First what is on its way by the tables before: then it can only fall.
        self.count(writer).await?;
        writer.send(&FromOld::Followed { generation, failed }, &[]).await
    }

    /// Tells what has changed.
    async fn count(&mut self, writer: &Writer) -> io::Result<()> {
        let mut report = self.plane.own_report();
        let sums = (report.unrouted, report.refused, report.routes.clone());
        let mut changed = sums != self.told_sums;
        report.arms.retain(|arm| {
            let news = self.told.get(&arm.arm) != Some(arm);
            changed |= news;
            news
        });
        let batches = self.plane.gathered_since(self.batches_told);
        if !changed && batches.batches.is_empty() {
            return Ok(());
        }
        self.batches_told = batches.next.place;
        self.told_sums = sums;
        self.told.extend(report.arms.iter().map(|arm| (arm.arm.clone(), arm.clone())));
        writer.send(&FromOld::Counted { report: Box::new(report), batches }, &[]).await
    }

    /// Tells the workers to end.
    fn finish(&mut self, grace: Duration) {
        if !self.finishing {
            self.finishing = true;
            for worker in self.workers {
                let _ = worker.commands.send(Command::Finish(grace));
            }
        }
    }

    /// Whether every request has its outcome; sees to the end of the workers when their work is.
    async fn is_over(&mut self) -> bool {
        // Those that this one has replaced may still hand connections over; and workers take what
        // they have of rollouts' requests with them when they end.
        let is_empty = self.plane.connections() == 0
            && self.plane.elders.attended() == 0
            && !self.plane.collect().await;
        if is_empty || Instant::now() >= self.deadline {
            self.finish(Duration::ZERO);
        }
        self.finishing && self.workers.iter().all(Handle::has_ended)
    }

    /// The successor is gone, or has one itself: looks for the next one. `None` when everything
    /// has ended, and nobody came to be told.
    async fn look_for_another(&mut self, state_dir: &Path) -> Option<Successor> {
        let patience = Instant::now() + RETIRING_LOST_MAX;
        let mut patient = true;
        loop {
            let over = self.is_over().await;
            if let Ok(successor) = self.join(state_dir).await {
                return Some(successor);
            }
            if over && Instant::now() > patience {
                return None;
            }
            if patient && Instant::now() > patience {
                patient = false;
                self.stay();
            }
            self.ticks.tick().await;
        }
    }

    async fn join(&mut self, state_dir: &Path) -> io::Result<Successor> {
        let stream = step(UnixStream::connect(doors::socket(state_dir))).await?;
        let (mut reader, writer) = ends(stream);
        let report = self.plane.own_report();
        self.told = report.arms.iter().map(|arm| (arm.arm.clone(), arm.clone())).collect();
        let (id, batches_read) = (self.plane.id().to_owned(), self.batches_told);
        let past = Box::new(Past { id, report, before: Vec::new(), batches_read });
        // Whoever comes says what it knows of them by taking no more: all are told once more.
        self.batches_told = 0;
        step(writer.send(&First::Elder { protocol: PROTOCOL, past }, &[])).await?;
        // One that is being replaced itself hangs up: nothing must be on its way to it.
        match step(reader.receive()).await?.0 {
            // It has connections to the instances by now.
            FromNew::Welcome => Ok(Successor { reader, writer, takes_links: false }),
            FromNew::Ready
            | FromNew::Refused { .. }
            | FromNew::Serving
            | FromNew::Follow { .. }
            | FromNew::Stop
            | FromNew::Farewell => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Nobody comes to take connections over: they are served here until their clients have heard
    /// that they should go.
    fn stay(&mut self) {
        log::note("the process that took over is gone; what is connected here is finished here");
        for worker in self.workers {
            let _ = worker.commands.send(Command::Stay);
        }
        while let Ok(more) = self.outbox.try_recv() {
            self.waiting.push(more);
        }
        for leaving in self.waiting.drain(..) {
            self.plane.give(leaving.stream, leaving.entry);
        }
    }
}
