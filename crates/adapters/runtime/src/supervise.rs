//! The runtime's side of supervision, in plain blocking calls: who should run, who does, and what
//! it takes to make the one the other. One call per instance at a time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use switchback_domain::{Generation, InstanceId};
use switchback_ports::crash_point;
use switchback_ports::runtime::{Error, Instance, InstanceSpec, ProcessState, Usage};

use crate::generation::{Passage, admit};
use crate::layout::{Durability, InstancePaths, Layout, read_json, remove, replace, replace_json};
use crate::proc_fs::{Identity, stat};
use crate::record::{Phase, Record, monotonic_ms};
use crate::settings::Options;
use crate::stop::{signal, stop};
use crate::{SHIM_SUBCOMMAND, proc_fs};

/// How long a shim may take to come up on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How long a shim may take to act on a restart.
const RESTART_PATIENCE: Duration = Duration::from_secs(2);
/// How often to look for what a shim is expected to write.
const POLL: Duration = Duration::from_millis(5);
/// How long the processes of a dead shim may take to vanish after they were killed.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// One lock per instance.
type Locks = HashMap<InstanceId, Arc<Mutex<()>>>;

/// All instances below one directory.
pub(crate) struct Supervisor {
    pub(crate) layout: Layout,
    pub(crate) options: Options,
    /// Shims that this process started: its children, to be waited for when they end.
    children: Mutex<Vec<Child>>,
    /// Dead shims whose processes are known to be gone.
    swept: Mutex<HashMap<InstanceId, Identity>>,
    locks: Mutex<Locks>,
}

impl Supervisor {
    pub(crate) fn new(mut options: Options) -> io::Result<Self> {
        let layout = Layout::create(&options.state_dir)?;
        // Shims are started from another directory than this one.
        options.executable = std::path::absolute(&options.executable)?;
        let (children, swept, locks) = Default::default();
        Ok(Self { layout, options, children, swept, locks })
    }

    /// See [`switchback_ports::Runtime::ensure_running`].
    pub(crate) fn ensure_running(
        &self,
        spec: &InstanceSpec,
        generation: Generation,
    ) -> Result<(), Error> {
        let lock = self.lock_of(&spec.id);
        let _guard = locked(&lock);
        self.admit(generation)?;
        self.start(spec).map_err(failed("start", &spec.id))
    }

    /// See [`switchback_ports::Runtime::ensure_stopped`].
    pub(crate) fn ensure_stopped(
        &self,
        id: &InstanceId,
        generation: Generation,
    ) -> Result<(), Error> {
        let lock = self.lock_of(id);
        let stopped = {
            let _guard = locked(&lock);
            self.admit(generation)?;
            self.stop(id).map_err(failed("stop", id))
        };
        self.reap();
        stopped
    }

    fn start(&self, spec: &InstanceSpec) -> io::Result<()> {
        let paths = self.layout.instance(&spec.id)?;
        if paths.stopping().exists() {
            // A stop was interrupted: what it was to end is not what is asked for now.
            self.stop(&spec.id)?;
        }
        let record = record(&paths);
        let alive = record.as_ref().is_some_and(|record| record.shim.is_alive());
        let stored: Option<InstanceSpec> = read_json(&paths.spec()).unwrap_or_default();
        match stored {
            Some(stored) if alive && stored.release != spec.release => {
                let text = format!("it runs with release {}", stored.release);
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Some(_) if alive => return Ok(()),
            // The description was lost, not the instance.
            None if alive => return self.describe(spec, &paths),
            Some(_) | None => {}
        }
        if let Some(record) = record {
            record.shim.kill_members(KILL_PATIENCE)?;
        }
        self.describe(spec, &paths)?;
        self.start_shim(&paths)
    }

    /// Writes down what is to run; the description comes last: without it there is no instance.
    fn describe(&self, spec: &InstanceSpec, paths: &InstancePaths) -> io::Result<()> {
        fs::create_dir_all(paths.work())?;
        let (earlier_log, log) = (paths.stopped.join("log"), paths.log());
        // Not there in a first life; and another control plane may be faster.
        let _ = fs::rename(earlier_log, log);
        remove(&paths.stopped)?;
        replace_json(&paths.limits(), &self.options.limits, Durability::Disk)?;
        replace_json(&paths.spec(), spec, Durability::Disk)?;
        File::open(self.layout.instances())?.sync_all()
    }

    fn start_shim(&self, paths: &InstancePaths) -> io::Result<()> {
        let errors = File::create(paths.shim_errors())?;
        let mut shim = Command::new(&self.options.executable)
            .arg0("switchback")
            .arg(SHIM_SUBCOMMAND)
            .arg(&paths.directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()?;
        crash_point("shim spawned");
        let started = await_shim(&mut shim, paths);
        if started.is_err() {
            // It wrote no record, so it started nothing.
            let _ = shim.kill();
        }
        self.children().push(shim);
        started
    }

    fn stop(&self, id: &InstanceId) -> io::Result<()> {
        let paths = self.layout.instance(id)?;
        if !paths.directory.exists() {
            return Ok(());
        }
        replace(&paths.stopping(), b"", Durability::Disk)?;
        let spec: Option<InstanceSpec> = read_json(&paths.spec()).unwrap_or_default();
        stop(&self.layout, &paths, spec.as_ref(), self.options.limits.stopped_kept)?;
        crash_point("instance put aside");
        self.swept().remove(id);
        Ok(())
    }

    /// See [`switchback_ports::Runtime::restart`].
    pub(crate) fn restart(&self, id: &InstanceId, reason: &str) -> Result<(), Error> {
        let (paths, _) = self.known(id)?;
        let lock = self.lock_of(id);
        let _guard = locked(&lock);
        tell_to_restart(&paths, reason).map_err(failed("restart", id))
    }

    /// See [`switchback_ports::Runtime::list`].
    pub(crate) fn list(&self) -> Result<Vec<Instance>, Error> {
        self.reap();
        let entries = fs::read_dir(self.layout.instances()).map_err(Error::Unavailable)?;
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::Unavailable)?.file_name();
            let id = InstanceId::from_stored(name.to_string_lossy());
            // Anything else in there, and half-made instances, were never promised.
            if let Ok((paths, spec)) = self.known(&id) {
                found.push(self.look_at(&paths, spec));
            }
        }
        found.sort_unstable_by(|left, right| left.spec.id.cmp(&right.spec.id));
        Ok(found)
    }

    fn look_at(&self, paths: &InstancePaths, spec: InstanceSpec) -> Instance {
        let record = record(paths);
        let process = match &record {
            _ if paths.stopping().exists() => ProcessState::Stopping,
            Some(record) if record.shim.is_alive() => record.process(monotonic_ms()),
            _ if self.is_busy(&spec.id) => ProcessState::Starting,
            Some(record) => {
                self.sweep(&spec.id, &record.shim);
                ProcessState::Lost
            }
            None => ProcessState::Lost,
        };
        Instance {
            address: record.as_ref().and_then(Record::address),
            process,
            restarts: record.as_ref().map_or(0, |record| record.restarts),
            last_exit: record.and_then(|record| record.last_exit),
            spec,
        }
    }

    /// Kills what a dead shim left behind, once: its processes have nobody to end them.
    fn sweep(&self, id: &InstanceId, shim: &Identity) {
        if self.swept().get(id) == Some(shim) {
            return;
        }
        if shim.kill_members(KILL_PATIENCE).is_ok() {
            self.swept().insert(id.clone(), shim.clone());
        }
    }

    /// See [`switchback_ports::Runtime::usage`].
    pub(crate) fn usage(&self, id: &InstanceId) -> Result<Usage, Error> {
        let (paths, _) = self.known(id)?;
        let record = record(&paths).filter(|record| record.shim.is_alive());
        let lost = || failed("measure", id)(supervisor_gone());
        let record = record.ok_or_else(lost)?;
        let members = record.shim.session().map_err(failed("measure", id))?;
        // What ended before was waited for by the shim.
        let earlier = stat(record.shim.pid).map_or(0, |shim| shim.children_ticks);
        let ticks = |process: &proc_fs::Stat| process.own_ticks + process.children_ticks;
        let ticks = earlier + members.iter().map(ticks).sum::<u64>();
        let pages: u64 = members.iter().map(|process| process.resident_pages).sum();
        #[allow(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
        let cpu_seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Usage { cpu_seconds, memory_bytes: pages * rustix::param::page_size() as u64 })
    }

    /// The instance that was asked for and not stopped.
    pub(crate) fn known(&self, id: &InstanceId) -> Result<(InstancePaths, InstanceSpec), Error> {
        let unknown = || Error::Unknown(id.clone());
        let paths = self.layout.instance(id).map_err(|_| unknown())?;
        let spec = read_json(&paths.spec()).map_err(failed("look up", id))?;
        Ok((paths, spec.ok_or_else(unknown)?))
    }

    /// Waits for shims that ended, so that they do not stay as zombies.
    pub(crate) fn reap(&self) {
        self.children().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// Turns an older writer away; see [`switchback_ports::Runtime::take_charge`].
    pub(crate) fn admit(&self, given: Generation) -> Result<(), Error> {
        match admit(&self.layout, given).map_err(Error::Unavailable)? {
            Passage::Open => Ok(()),
            Passage::Fenced(seen) => Err(Error::Fenced { given, seen }),
        }
    }

    fn lock_of(&self, id: &InstanceId) -> Arc<Mutex<()>> {
        let mut locks = locked(&self.locks);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(id.clone()).or_default())
    }

    /// Whether a call for this instance is under way.
    fn is_busy(&self, id: &InstanceId) -> bool {
        locked(&self.locks).get(id).is_some_and(|lock| Arc::strong_count(lock) > 1)
    }

    fn children(&self) -> MutexGuard<'_, Vec<Child>> {
        locked(&self.children)
    }

    fn swept(&self) -> MutexGuard<'_, HashMap<InstanceId, Identity>> {
        locked(&self.swept)
    }
}

/// The shim's record; one that cannot be read says as little as none.
pub(crate) fn record(paths: &InstancePaths) -> Option<Record> {
    read_json(&paths.state).unwrap_or_default()
}

/// Puts the instance and the operation to an error.
pub(crate) fn failed(operation: &'static str, id: &InstanceId) -> impl Fn(io::Error) -> Error {
    let id = id.clone();
    move |source| Error::Failed { operation, instance: id.clone(), source }
}

fn supervisor_gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "its supervisor is gone")
}

/// Nothing that these locks guard is left half-done by a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a living shim has the instance: this one, or one that was faster.
fn await_shim(shim: &mut Child, paths: &InstancePaths) -> io::Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let ended = shim.try_wait()?;
        if record(paths).is_some_and(|record| record.shim.is_alive()) {
            return Ok(());
        }
        if ended.is_some() {
            let reason = fs::read_to_string(paths.shim_errors()).unwrap_or_default();
            return Err(io::Error::other(format!("its supervisor ended: {}", reason.trim())));
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its supervisor does not come up"));
        }
        thread::sleep(POLL);
    }
}

/// Signals the shim, and waits until it has begun to act: whoever asks for the state afterwards
/// does not see the old process as running.
fn tell_to_restart(paths: &InstancePaths, reason: &str) -> io::Result<()> {
    let before = record(paths).ok_or_else(supervisor_gone)?;
    let handle = before.shim.open()?.ok_or_else(supervisor_gone)?;
    replace(&paths.restart_reason(), reason.as_bytes(), Durability::Process)?;
    signal(&handle, Signal::HUP)?;
    let deadline = Instant::now() + RESTART_PATIENCE;
    let unmoved = |record: Record| record.phase == before.phase && record.phase != Phase::Starting;
    while record(paths).is_some_and(unmoved) && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    Ok(())
}
