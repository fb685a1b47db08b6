//! The process around the data plane: its session, its lock, its signals, its start and its end.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use crate::admin::{self, Admin};
use crate::handover::{self, Doors, Estate, Until};
use crate::limits::{ACCESS_LOG_FINISH_MAX, CONNECTIONS_MAX, DESCRIPTORS_RESERVED, LOCK_WAIT_MAX};
use crate::listen::{Acceptor, Limits};
use crate::plane::Plane;
use crate::shared::Shared;
use crate::store::Store;
use crate::worker::{Command, Handle};
use crate::{Error, Options, log};

/// How often a lock, or the end of a thread, is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often a process that was replaced and does not answer is looked for.
const ELDERS_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the data plane until it is told to stop, by `POST /v1/stop`, SIGTERM or SIGINT; then
/// finishes what is in flight, for at most half a minute, and returns.
///
/// Only one can run per state directory; a second one gets [`Error::Locked`].
pub fn run(options: &Options) -> Result<(), Error> {
    let state_dir = state_dir(&options.state_dir)?;
    let lock = if options.take_over { None } else { Some(lock(&state_dir)?) };
    if options.detach {
        // Fails only if this process leads a group already: then it has a session to itself.
        let _ = rustix::process::setsid();
    }
    let connections_max = raise_descriptor_limit();
    let workers = options
        .workers
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::Runtime)?;
    let threads = Threads::start(workers.max(1), connections_max, options, &state_dir)?;
    LocalSet::new().block_on(&runtime, control(options, &state_dir, threads, lock))
}

/// The threads that carry traffic.
struct Threads {
    shared: Arc<Shared>,
    workers: Vec<Handle>,
    acceptor: Acceptor,
    stop: watch::Sender<bool>,
}

impl Threads {
    fn start(
        count: usize,
        connections_max: usize,
        options: &Options,
        state_dir: &Path,
    ) -> Result<Self, Error> {
        let codec = options.codec;
        let shared = Arc::new(Shared::new(count, state_dir));
        let (stop, stopped) = watch::channel(false);
        let start = |index| Handle::start(index, Arc::clone(&shared), codec, stopped.clone());
        let workers = (0..count).map(start).collect::<Result<Vec<_>, _>>()?;
        let inboxes = workers.iter().map(|worker| worker.commands.clone()).collect();
        let limits =
            Limits { connections: connections_max, per_address: options.connections_per_address };
        let acceptor = Acceptor::start(Arc::clone(&shared), inboxes, limits)?;
        Ok(Self { shared, workers, acceptor, stop })
    }
}

async fn control(
    options: &Options,
    state_dir: &Path,
    threads: Threads,
    lock: Option<File>,
) -> Result<(), Error> {
    let Threads { shared, workers, acceptor, stop } = threads;
    // Before anybody can know that we are here.
    let mut signals = options.detach.then(Signals::new).transpose()?;
    let inboxes = workers.iter().map(|worker| worker.commands.clone()).collect();
    let store = Store::new(state_dir);
    let plane = Plane::new(Arc::clone(&shared), inboxes, acceptor, store, &options.version);
    let Estate { lock, admin: listener, handover } = match lock {
        Some(lock) => begin(&plane, options, state_dir, lock)?,
        None => succeed(&plane, options, state_dir).await?,
    };
    let asked = Rc::new(Notify::new());
    let access_log = Arc::clone(&shared.access_log);
    let admin = Admin { plane: Rc::clone(&plane), shared, stop: Rc::clone(&asked) };
    log::note(&format!("process {} serves {}", std::process::id(), state_dir.display()));
    let answering = tokio::task::spawn_local(admin::serve(admin, listener));
    let looking = tokio::task::spawn_local(look_after(Rc::clone(&plane)));
    let renewing = Rc::clone(&plane);
    let renewing = tokio::task::spawn_local(async move { renewing.renew_certificates().await });
    let collecting = Rc::clone(&plane);
    let collecting = tokio::task::spawn_local(async move { collecting.keep_collecting().await });
    let (mut successor, giver) = handover::serve(&plane, lock, handover);
    let taken_over = loop {
        tokio::select! {
            // Held until the names of the sockets are gone, or somebody else has them.
            Ok(successor) = &mut successor => break Some(successor),
            () = end_of(signals.as_mut()) => if plane.set_stopping().await { break None },
            () = asked.notified() => break None,
        }
    };
    looking.abort();
    if let Some(successor) = taken_over {
        log::note(&format!("process {} was replaced", std::process::id()));
        let grace = options.stop_grace;
        handover::retire(&plane, &workers, state_dir, successor, grace, stop).await;
    } else {
        finish(&plane, &workers, &stop, options.stop_grace).await;
        // The next owner finds no socket rather than one that nobody answers.
        handover::remove(&options.admin_socket, state_dir);
    }
    access_log.finish(ACCESS_LOG_FINISH_MAX);
    renewing.abort();
    collecting.abort();
    answering.abort();
    drop(giver);
    Ok(())
}

/// Starts where no process runs.
fn begin(plane: &Plane, options: &Options, state_dir: &Path, lock: File) -> Result<Estate, Error> {
    plane.restore();
    let wrong = |(path, source)| Error::Admin { path, source };
    let doors = Doors::bind(&options.admin_socket, state_dir, Until::Bound).map_err(wrong)?;
    doors.open().map_err(wrong)?;
    Ok(Estate { lock, admin: doors.admin, handover: doors.handover })
}

/// Takes over from the process that runs.
async fn succeed(plane: &Rc<Plane>, options: &Options, state_dir: &Path) -> Result<Estate, Error> {
    let taken = handover::take(plane, &options.admin_socket, state_dir).await;
    let estate = taken.map_err(Error::TakeOver)?;
    sign(&estate.lock);
    let saving = Rc::clone(plane);
    tokio::task::spawn_local(async move { saving.save_inherited().await });
    Ok(estate)
}

/// What has to be looked at now and then.
async fn look_after(plane: Rc<Plane>) {
    let elders = async {
        let mut tick = tokio::time::interval(ELDERS_INTERVAL);
        loop {
            tick.tick().await;
            plane.look_after_elders();
        }
    };
    tokio::join!(plane.retry_listening(), elders);
}

/// The signal to end; none comes to a part of another process.
async fn end_of(signals: Option<&mut Signals>) {
    match signals {
        Some(signals) => signals.end().await,
        None => std::future::pending().await,
    }
}

/// The signals a process of its own obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let catch = |kind| signal(kind).map_err(Error::Runtime);
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Waits until one says that this is the end.
    async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // A terminal that closes is no reason to stop serving.
                _ = self.hang_up.recv() => {}
            }
        }
    }
}

/// Closes the listeners, then finishes what is in flight, here and in those that were replaced.
/// The admin socket still tells how it goes.
async fn finish(plane: &Plane, workers: &[Handle], stop: &watch::Sender<bool>, grace: Duration) {
    plane.close_listeners().await;
    plane.elders.stop();
    // Fails only when no connection and no worker is left to be told.
    let _ = stop.send(true);
    for worker in workers {
        let _ = worker.commands.send(Command::Finish(grace));
    }
    // What was replaced has the same grace, and a moment to say that it is done.
    let elders_until = Instant::now() + grace + LOCK_WAIT_MAX;
    while !workers.iter().all(Handle::has_ended)
        || (plane.elders.counts().0 > 0 && Instant::now() < elders_until)
    {
        plane.look_after_elders();
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Makes the state directory and gives its absolute path.
fn state_dir(path: &Path) -> Result<std::path::PathBuf, Error> {
    let wrong = |source| Error::StateDir { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(wrong)?;
    fs::canonicalize(path).map_err(wrong)
}

/// Takes the state directory; the kernel lets go of it when this process ends, however it does.
fn lock(state_dir: &Path) -> Result<File, Error> {
    let path = state_dir.join(crate::LOCK_FILE);
    let wrong = |source| Error::StateDir { path: path.clone(), source };
    let opened =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(wrong)?;
    let patience = Instant::now() + LOCK_WAIT_MAX;
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > patience {
            return Err(Error::Locked { path: state_dir.to_owned() });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    sign(&file);
    Ok(file)
}

/// For people only: the lock itself is the truth.
fn sign(mut lock: &File) {
    let pid = format!("{}\n", std::process::id());
    let _ = lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0)));
    let _ = lock.write_all(pid.as_bytes());
}

/// Takes all the file descriptors the system grants, and says how many client connections they
/// carry: each needs a second one for its instance.
fn raise_descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let granted = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let granted = granted.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    (granted.saturating_sub(DESCRIPTORS_RESERVED) / 2).clamp(1, CONNECTIONS_MAX)
}
