//! One thread with a runtime of its own: its connections, its pool, its view of the table.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use switchback_routing::ArmId;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::LocalSet;

use crate::Error;
use crate::access_log::Buffer;
use crate::codec::own::{Leaving, Roster, Scratches};
use crate::codec::{self, Codec};
use crate::cohorts::{Cohorts, Collected};
use crate::compiled::{Arm, Compiled, Endpoint, HeldArm};
use crate::counters;
use crate::handover::{Bound, LeavingLink};
use crate::limits::UPSTREAM_IDLE_MAX;
use crate::mirror::Mirrors;
use crate::pool::{Link as _, Pool, Resting};
use crate::service::Entry;
use crate::shared::{Open, Shared};
use crate::view::View;

/// How often resting connections are looked through, and an ending worker looks whether it is done.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const END_INTERVAL: Duration = Duration::from_millis(5);

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve this connection.
    Connection(std::net::TcpStream, Entry, Open),
    /// Answer as soon as every later request is routed by the newest table.
    Acknowledge(oneshot::Sender<()>),
    /// Hand over what is complete of the requests of rollouts.
    Collect(oneshot::Sender<Collected>),
    /// Another process takes over: every connection that can goes there, between two requests;
    /// the next answer on every other one is its last. What rests of the connections to instances
    /// goes there before.
    Leave(mpsc::UnboundedSender<Leaving>, mpsc::UnboundedSender<LeavingLink>),
    /// One from another process.
    Link(LeavingLink),
    /// There is no other process any more: the next answer on every connection is its last.
    Stay,
    /// End when every connection has, or this grace is over.
    Finish(Duration),
}

/// What the tasks of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) codec: Codec,
    pub(crate) hyper_pool: Pool<codec::hyper::Link>,
    pub(crate) own_pool: Pool<codec::own::Link>,
    /// The own codec's connections, by what their clocks are.
    pub(crate) roster: Rc<Roster>,
    pub(crate) scratches: Scratches,
    pub(crate) cohorts: Rc<Cohorts>,
    pub(crate) mirrors: Mirrors,
    pub(crate) access_log: Rc<Buffer>,
    /// Told when this process is to end, at once or when all has left it: see
    /// [`Worker::is_leaving`].
    pub(crate) stop: watch::Receiver<bool>,
    /// Told of every table, and of the end.
    pub(crate) changed: Notify,
    leaving: Cell<bool>,
    /// Where connections to instances go once there is another process.
    links_out: RefCell<Option<mpsc::UnboundedSender<LeavingLink>>>,
    table: View<Compiled>,
    /// Versions by their place in the table, as they were held last.
    held: RefCell<Vec<Option<HeldArm>>>,
}

impl Worker {
    fn new(
        index: usize,
        shared: Arc<Shared>,
        codec: Codec,
        stop: watch::Receiver<bool>,
    ) -> Rc<Self> {
        let table = View::new(&shared.table);
        let cohorts = Cohorts::new(shared.born);
        let access_log = Buffer::new(Arc::clone(&shared.access_log));
        Rc::new(Self {
            index,
            shared,
            codec,
            hyper_pool: Pool::default(),
            own_pool: Pool::default(),
            roster: Rc::default(),
            scratches: Scratches::default(),
            cohorts,
            mirrors: Mirrors::default(),
            access_log,
            stop,
            changed: Notify::new(),
            leaving: Cell::new(false),
            links_out: RefCell::default(),
            table,
            held: RefCell::default(),
        })
    }

    /// Whether this process will end: the next answer on a connection that cannot be handed over
    /// is its last.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Looks into the newest table. `look` must not come back here.
    pub(crate) fn with_table<T>(&self, look: impl FnOnce(&Compiled) -> T) -> T {
        self.table.with(look)
    }

    /// Takes hold of a version, which stands at this place in the newest table.
    pub(crate) fn hold(&self, at: usize, arm: &Arc<Arm>) -> HeldArm {
        let mut held = self.held.borrow_mut();
        if held.len() <= at {
            held.resize(at + 1, None);
        }
        match &held[at] {
            Some(own) if Arc::ptr_eq(own, arm) => Rc::clone(own),
            Some(_) | None => Rc::clone(held[at].insert(Rc::new(Arc::clone(arm)))),
        }
    }

    /// Whether the newest table names this instance.
    pub(crate) fn serves(&self, endpoint: u64) -> bool {
        self.with_table(|table| table.has_endpoint(endpoint))
    }

    /// Keeps a connection to an instance for the next request, wherever that will be served.
    /// `announced` is the server's own limit for it.
    pub(crate) fn keep(
        &self,
        arm: &ArmId,
        endpoint: &Endpoint,
        link: codec::own::Link,
        announced: Option<Duration>,
        now: Instant,
    ) {
        self.own_pool.put(endpoint.id, link, announced, now);
        if self.leaving.get() {
            self.hand_out(arm, endpoint);
        }
    }

    fn hand_links_out(&self) {
        self.with_table(|table| {
            for arm in &table.arms {
                arm.endpoints.iter().for_each(|endpoint| self.hand_out(&arm.id, endpoint));
            }
        });
    }

    fn hand_out(&self, arm: &ArmId, endpoint: &Endpoint) {
        let links_out = self.links_out.borrow();
        let Some(links_out) = &*links_out else { return };
        for resting in self.own_pool.remove(endpoint.id) {
            let Ok(stream) = resting.link.into_std() else { continue };
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let to = Bound {
                arm: arm.clone(),
                instance: endpoint.instance.clone(),
                address: endpoint.address,
                rested_ms: millis(resting.since.elapsed()),
                rest_max_ms: millis(resting.rest_max),
            };
            // Whoever takes them out ends after the last worker.
            let _ = links_out.send(LeavingLink { stream, to });
        }
    }

    fn take_link_in(&self, LeavingLink { stream, to }: LeavingLink) {
        let endpoint = self.with_table(|table| {
            let arm = table.arm(&to.arm).filter(|arm| arm.upstream.is_default())?;
            let is_it =
                |one: &&Arc<Endpoint>| one.instance == to.instance && one.address == to.address;
            arm.endpoints.iter().find(is_it).map(|endpoint| endpoint.id)
        });
        // The table may have let go of the instance, and the instance of the connection.
        let (Some(endpoint), Ok(stream)) = (endpoint, TcpStream::from_std(stream)) else { return };
        let link = codec::own::Link::taken_over(stream);
        let since = Instant::now().checked_sub(Duration::from_millis(to.rested_ms));
        if let Some(since) = since.filter(|_| link.is_quiet()) {
            let rest_max = Duration::from_millis(to.rest_max_ms).min(UPSTREAM_IDLE_MAX);
            self.own_pool.keep(endpoint, Resting { link, since, rest_max });
        }
    }

    fn sweep(&self) {
        // What the table has let go of is not to be kept by who once used it.
        self.held.borrow_mut().clear();
        self.with_table(|table| {
            self.hyper_pool.sweep(|endpoint| table.has_endpoint(endpoint));
            self.own_pool.sweep(|endpoint| table.has_endpoint(endpoint));
        });
    }
}

/// A running worker, as the control thread sees it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Starts a worker.
    pub(crate) fn start(
        index: usize,
        shared: Arc<Shared>,
        codec: Codec,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::Runtime)?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let name = format!("worker-{index}");
        let work = move || {
            let worker = Worker::new(index, shared, codec, stop);
            // Not a `LocalRuntime`: with few connections its tail is several times longer
            // (docs/benchmarks.md).
            LocalSet::new().block_on(&runtime, work(worker, inbox));
            // Tasks that are left are cut off without waiting for blocking ones; there are none.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(name).spawn(work).map_err(Error::Runtime)?;
        Ok(Self { commands, thread })
    }

    /// Whether its thread is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

async fn work(worker: Rc<Worker>, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let roster = Rc::clone(&worker.roster);
    tokio::task::spawn_local(async move { roster.watch_answers().await });
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let grace = loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Connection(stream, entry, open)) => {
                    serve(Rc::clone(&worker), stream, entry, open);
                }
                Some(Command::Acknowledge(done)) => {
                    worker.sweep();
                    worker.changed.notify_waiters();
                    // Nobody waits any more: the publisher gave up.
                    let _ = done.send(());
                }
                Some(Command::Collect(answer)) => {
                    // Whoever asked has ended: so will this worker.
                    let _ = answer.send(worker.cohorts.collect(Instant::now()));
                }
                Some(Command::Link(link)) => worker.take_link_in(link),
                Some(Command::Leave(outbox, links)) => {
                    worker.leaving.set(true);
                    *worker.links_out.borrow_mut() = Some(links);
                    worker.hand_links_out();
                    worker.roster.set_outbox(Some(outbox));
                }
                Some(Command::Stay) => {
                    *worker.links_out.borrow_mut() = None;
                    worker.roster.stop();
                    worker.roster.set_outbox(None);
                }
                Some(Command::Finish(grace)) => break grace,
                None => break Duration::ZERO,
            },
            _ = sweep.tick() => {
                worker.access_log.flush();
                worker.sweep();
                worker.roster.tick();
            }
        }
    };
    finish(&worker, &mut sweep, grace).await;
}

/// Lets what there is come to its end; what has not when the grace is over is cut, and counted so.
async fn finish(worker: &Worker, sweep: &mut tokio::time::Interval, grace: Duration) {
    worker.leaving.set(true);
    worker.roster.stop();
    worker.changed.notify_waiters();
    let deadline = tokio::time::Instant::now() + grace;
    while worker.shared.connections(worker.index) > 0 && tokio::time::Instant::now() < deadline {
        tokio::select! {
            () = tokio::time::sleep(END_INTERVAL) => {}
            _ = sweep.tick() => worker.roster.tick(),
        }
    }
    counters::cut_the_rest();
}

fn serve(worker: Rc<Worker>, stream: std::net::TcpStream, entry: Entry, open: Open) {
    // Only fails when the process is out of memory or descriptors: the client sees a close.
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    if let Some(listener) = worker.with_table(|table| table.tls.listener(entry.listen).cloned()) {
        tokio::task::spawn_local(async move {
            codec::hyper::serve_encrypted(worker, stream, entry, listener).await;
            drop(open);
        });
        return;
    }
    // The own codec speaks to instances in plain HTTP/1.1 only.
    let is_plain = worker.with_table(|table| table.is_plain(entry.listen));
    let codec = if is_plain { worker.codec } else { Codec::Hyper };
    match codec {
        Codec::Own => {
            tokio::task::spawn_local(codec::own::serve(worker, stream, entry, open));
        }
        Codec::Hyper => {
            tokio::task::spawn_local(async move {
                codec::hyper::serve(worker, stream, entry).await;
                drop(open);
            });
        }
    }
}
