//! The process around the data plane: its session, its lock, its signals, its start and its end.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
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
use crate::limits::{CONNECTIONS_MAX, DESCRIPTORS_RESERVED, LOCK_WAIT_MAX};
use crate::listen::{Acceptor, Limits};
use crate::plane::Plane;
use crate::shared::Shared;
use crate::store::Store;
use crate::worker::{Command, Handle};
use crate::{Error, Options, log};

/// How often a lock, or the end of a thread, is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Runs the data plane until it is told to stop, by `POST /v1/stop`, SIGTERM or SIGINT; then
/// finishes what is in flight, for at most half a minute, and returns.
///
/// Only one can run per state directory; a second one gets [`Error::Locked`].
pub fn run(options: &Options) -> Result<(), Error> {
    let state_dir = state_dir(&options.state_dir)?;
    let _lock = lock(&state_dir)?;
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
    let threads = Threads::start(workers.max(1), connections_max, options)?;
    let control = control(options, &state_dir, threads);
    let ended = LocalSet::new().block_on(&runtime, control);
    // The next owner finds no socket rather than one that nobody answers.
    let _ = fs::remove_file(&options.admin_socket);
    ended
}

/// The threads that carry traffic.
struct Threads {
    shared: Arc<Shared>,
    workers: Vec<Handle>,
    acceptor: Acceptor,
    stop: watch::Sender<bool>,
}

impl Threads {
    fn start(count: usize, connections_max: usize, options: &Options) -> Result<Self, Error> {
        let (codec, grace) = (options.codec, options.stop_grace);
        let shared = Arc::new(Shared::new(count));
        let (stop, stopped) = watch::channel(false);
        let start =
            |index| Handle::start(index, Arc::clone(&shared), codec, stopped.clone(), grace);
        let workers = (0..count).map(start).collect::<Result<Vec<_>, _>>()?;
        let inboxes = workers.iter().map(|worker| worker.commands.clone()).collect();
        let limits =
            Limits { connections: connections_max, per_address: options.connections_per_address };
        let acceptor = Acceptor::start(Arc::clone(&shared), inboxes, limits)?;
        Ok(Self { shared, workers, acceptor, stop })
    }
}

async fn control(options: &Options, state_dir: &Path, threads: Threads) -> Result<(), Error> {
    let Threads { shared, workers, acceptor, stop } = threads;
    // Before anybody can know that we are here.
    let mut signals = options.detach.then(Signals::new).transpose()?;
    let inboxes = workers.iter().map(|worker| worker.commands.clone()).collect();
    let plane = Plane::new(Arc::clone(&shared), inboxes, acceptor, Store::new(state_dir));
    plane.restore();
    let asked = Rc::new(Notify::new());
    let admin = Admin { plane: Rc::clone(&plane), shared, stop: Rc::clone(&asked) };
    let listener = admin::bind(&options.admin_socket, state_dir)
        .map_err(|source| Error::Admin { path: options.admin_socket.clone(), source })?;
    log::note(&format!("process {} serves {}", std::process::id(), state_dir.display()));
    let answering = tokio::task::spawn_local(admin::serve(admin, listener));
    let listening = Rc::clone(&plane);
    let listening = tokio::task::spawn_local(async move { listening.retry_listening().await });
    let renewing = Rc::clone(&plane);
    let renewing = tokio::task::spawn_local(async move { renewing.renew_certificates().await });
    let collecting = Rc::clone(&plane);
    let collecting = tokio::task::spawn_local(async move { collecting.keep_collecting().await });
    match &mut signals {
        Some(signals) => tokio::select! {
            () = signals.end() => {}
            () = asked.notified() => {}
        },
        None => asked.notified().await,
    }
    plane.set_stopping();
    listening.abort();
    renewing.abort();
    finish(&plane, &workers, &stop).await;
    collecting.abort();
    answering.abort();
    Ok(())
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

/// Closes the listeners, then finishes what is in flight. The admin socket still tells how it goes.
async fn finish(plane: &Plane, workers: &[Handle], stop: &watch::Sender<bool>) {
    plane.close_listeners().await;
    // Fails only when no connection and no worker is left to be told.
    let _ = stop.send(true);
    for worker in workers {
        let _ = worker.commands.send(Command::Finish);
    }
    while !workers.iter().all(Handle::has_ended) {
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
    let mut file = opened.map_err(wrong)?;
    let patience = Instant::now() + LOCK_WAIT_MAX;
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > patience {
            return Err(Error::Locked { path: state_dir.to_owned() });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    // For people only: the lock itself is the truth.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
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
