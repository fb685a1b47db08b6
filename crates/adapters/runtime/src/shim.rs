//! The supervisor of one instance: starts its command, keeps its output, starts it again when it
//! ends, ends it when told to. Plain threads and little memory: there is one per instance.
//!
//! It is told what to do by signals: SIGTERM to stop, SIGHUP to start the process anew. What it
//! knows it says in its [`Record`].

pub(crate) mod backoff;
pub(crate) mod exec;
mod output;
mod port;
mod process;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use signal_hook::consts::signal::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use switchback_ports::crash_point;
use switchback_ports::runtime::InstanceSpec;

use crate::layout::{Durability, InstancePaths, overwrite_json, read_json, remove, replace_json};
use crate::proc_fs::Identity;
use crate::record::{Phase, Record, monotonic_ms};
use crate::settings::Limits;

use backoff::BackOff;
use output::Output;
use process::Process;
pub(crate) use process::signal_text;

/// How long to wait for the lock while nobody says that the instance is supervised.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often a record that did not fit on a full disk is tried again.
const RECORD_RETRY: Duration = Duration::from_secs(1);
/// How often to look whether the last processes of an ending instance are gone.
const END_POLL: Duration = Duration::from_millis(20);
/// How long killed processes may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// The hidden subcommand `shim DIRECTORY`: supervises the instance that the directory describes
/// until SIGTERM. Exit code 0 when it was stopped, or when another shim has the instance.
///
/// To be called on the main thread, before any other is started: what it starts dies with the
/// thread that called it.
pub fn shim_main(directory: &Path) -> ExitCode {
    match Shim::open(directory) {
        Ok(Some(shim)) => {
            shim.run();
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            // Read by the control plane when the shim does not come up.
            drop(writeln!(io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

/// What wakes the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Stop,
    Restart,
    ChildEnded,
    TimeOut,
}

/// Why a process is ended, or that it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Itself,
    Restart,
    Stop,
}

struct Shim {
    paths: InstancePaths,
    spec: InstanceSpec,
    limits: Limits,
    record: Record,
    /// The record on disk is older than this one.
    unsaved: bool,
    /// Held for life: says that this instance has its supervisor. Its closing, however the shim
    /// ends, wakes the control plane.
    _lock: File,
    lease: Option<port::Lease>,
    output: Output,
    backoff: BackOff,
    events: Receiver<Event>,
}

impl Shim {
    /// Takes the instance, unless another shim has it.
    fn open(directory: &Path) -> io::Result<Option<Self>> {
        let paths = InstancePaths::from_directory(directory)?;
        let missing = || io::Error::other("the instance's description is missing");
        let spec: InstanceSpec = read_json(&paths.spec())?.ok_or_else(missing)?;
        let limits: Limits = read_json(&paths.limits())?.unwrap_or_default();
        leave_session()?;
        let Some(lock) = take_lock(&paths)? else { return Ok(None) };
        crash_point("shim locked");
        // Stopped while this shim was on its way.
        if paths.stopping().exists() {
            return Ok(None);
        }
        let shim = Identity::of_self()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let events = signals()?;
        let earlier: Option<Record> = read_json(&paths.state).unwrap_or_default();
        let record = Record {
            shim: shim.clone(),
            port: earlier.as_ref().and_then(|record| record.port),
            phase: Phase::Starting,
            restarts: earlier.as_ref().map_or(0, |record| record.restarts.saturating_add(1)),
            last_exit: earlier.map(|_| "its supervisor was killed".to_owned()),
        };
        let output = Output::open(paths.log(), &limits)?;
        // From here on the control plane finds this shim, and its signals are understood.
        replace_json(&paths.state, &record, Durability::Process)?;
        Ok(Some(Self {
            paths,
            spec,
            limits,
            record,
            unsaved: false,
            _lock: lock,
            lease: None,
            output,
            backoff: BackOff::default(),
            events,
        }))
    }

    fn run(mut self) {
        loop {
            let started_at = Instant::now();
            let (cause, exit) = match self.start() {
                Ok(process) => self.attend(process),
                Err(error) => (Cause::Itself, error.to_string()),
            };
            let next = match cause {
                Cause::Itself => self.back_off(started_at.elapsed(), &exit),
                Cause::Restart | Cause::Stop => cause,
            };
            if next == Cause::Stop {
                break;
            }
            self.record.restarts = self.record.restarts.saturating_add(1);
            self.record.last_exit = Some(exit);
            self.report(Phase::Starting);
        }
        self.output.note("stopped");
    }

    /// Finds a port, writes the files, starts the command.
    fn start(&mut self) -> io::Result<Process> {
        let name = self.spec.id.as_str();
        let lease = port::lease(self.lease.take(), self.record.port, name, &self.limits)?;
        let port = self.lease.insert(lease).port;
        self.record.port = Some(port);
        crate::launch::write_files(&self.spec, &self.paths, port)?;
        let command = &self.spec.workload.command;
        let launch = crate::launch::launch(&self.spec, &self.paths, port, command)?;
        crash_point("shim before process");
        let process = Process::start(&launch, &self.paths, &self.record.shim, &self.output)?;
        crash_point("shim after process");
        self.output.note(&format!("started as process {} on port {port}", process.id()));
        self.report(Phase::Running { pid: process.id() });
        Ok(process)
    }

    /// Waits until the process ends, by itself or because it is told to.
    fn attend(&mut self, mut process: Process) -> (Cause, String) {
        let cause = loop {
            match self.wait(None) {
                Event::ChildEnded => {
                    if reap(&mut process) {
                        break Cause::Itself;
                    }
                }
                Event::Restart => break self.end(&mut process, Cause::Restart),
                Event::Stop => break self.end(&mut process, Cause::Stop),
                Event::TimeOut => {}
            }
        };
        self.sweep(&mut process);
        let exit = process.exit_text(&self.paths);
        process.drain_output();
        self.output.note(&format!("ended: {exit}"));
        (cause, exit)
    }

    /// SIGTERM to the process and its group, then patience until all of them are gone or the
    /// stop timeout is over. A stop that comes while a restart is under way wins.
    fn end(&mut self, process: &mut Process, cause: Cause) -> Cause {
        let mut cause = cause;
        self.announce(cause);
        process.terminate();
        let deadline = Instant::now() + self.spec.workload.stop_timeout;
        loop {
            let gone = process.has_ended()
                && self.record.shim.members().is_ok_and(|members| members.is_empty());
            let left = deadline.saturating_duration_since(Instant::now());
            if gone || left.is_zero() {
                return cause;
            }
            let poll = if process.has_ended() { END_POLL.min(left) } else { left };
            match self.wait(Some(poll)) {
                Event::ChildEnded => {
                    reap(process);
                }
                Event::Stop if cause != Cause::Stop => {
                    cause = Cause::Stop;
                    self.announce(cause);
                }
                Event::Stop | Event::Restart | Event::TimeOut => {}
            }
        }
    }

    fn announce(&mut self, cause: Cause) {
        match cause {
            Cause::Stop => {
                self.output.note("stopping");
                self.report(Phase::Stopping);
            }
            Cause::Restart => {
                let reason = fs::read_to_string(self.paths.restart_reason()).unwrap_or_default();
                self.output.note(&format!("starting anew: {reason}"));
                self.report(Phase::Starting);
            }
            Cause::Itself => {}
        }
    }

    /// Kills what is left of the process and waits for its end.
    fn sweep(&mut self, process: &mut Process) {
        if let Err(error) = self.record.shim.kill_members(KILL_PATIENCE) {
            self.output.note(&error.to_string());
        }
        let deadline = Instant::now() + KILL_PATIENCE;
        while !reap(process) && Instant::now() < deadline {
            thread::sleep(END_POLL);
        }
    }

    /// Waits for the next start. Returns what to do then.
    fn back_off(&mut self, ran_for: Duration, exit: &str) -> Cause {
        let pause = self.backoff.ended(ran_for, rand::random(), &self.limits);
        self.record.last_exit = Some(exit.to_owned());
        let delay_ms = u64::try_from(pause.delay.as_millis()).unwrap_or(u64::MAX);
        let next_start_at_ms = monotonic_ms().saturating_add(delay_ms);
        self.report(Phase::BackingOff { next_start_at_ms, crash_loop: pause.crash_loop });
        let pace = if pause.crash_loop { ": it ends again and again" } else { "" };
        self.output.note(&format!("{exit}; next start in {delay_ms} ms{pace}"));
        let deadline = Instant::now() + pause.delay;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wait(Some(left)) {
                Event::Stop => return Cause::Stop,
                Event::Restart => return Cause::Restart,
                Event::ChildEnded => {
                    reap_strangers();
                }
                Event::TimeOut if left.is_zero() => return Cause::Itself,
                Event::TimeOut => {}
            }
        }
    }

    /// The next event, or the time out. Saves the record when the disk has room again.
    fn wait(&mut self, patience: Option<Duration>) -> Event {
        let retry = self.unsaved.then_some(RECORD_RETRY);
        let event = match patience.into_iter().chain(retry).min() {
            Some(patience) => self.events.recv_timeout(patience),
            None => self.events.recv().map_err(RecvTimeoutError::from),
        };
        if self.unsaved {
            self.save();
        }
        match event {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::TimeOut,
            // The thread that hears signals is gone: nobody could stop this shim any more.
            Err(RecvTimeoutError::Disconnected) => Event::Stop,
        }
    }

    fn report(&mut self, phase: Phase) {
        self.record.phase = phase;
        self.save();
    }

    fn save(&mut self) {
        let state = &self.paths.state;
        let saved = replace_json(state, &self.record, Durability::Process);
        self.unsaved = saved.or_else(|_| overwrite_json(state, &self.record)).is_err();
    }
}

/// A session of its own: it outlives the terminal and the control plane, and its members are
/// known by it.
fn leave_session() -> io::Result<()> {
    match rustix::process::setsid() {
        Ok(_) => Ok(()),
        // Started by hand from a shell that made it the leader of a group.
        Err(error) if rustix::process::getsid(None) == Ok(rustix::process::getpid()) => {
            let _ = error;
            Ok(())
        }
        Err(error) => Err(io::Error::other(format!("cannot start a session: {error}"))),
    }
}

/// The lock of this instance; `None` when another shim keeps it, or the instance is gone.
fn take_lock(paths: &InstancePaths) -> io::Result<Option<File>> {
    use std::os::unix::fs::MetadataExt;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let lock = File::options().write(true).create(true).truncate(false).open(&paths.lock)?;
        match lock.try_lock() {
            Ok(()) => {
                // Whoever removes the instance removes the lock while holding it.
                let same = fs::metadata(&paths.lock)
                    .is_ok_and(|now| lock.metadata().is_ok_and(|ours| ours.ino() == now.ino()));
                if same && paths.spec().exists() {
                    return Ok(Some(lock));
                }
                if !paths.spec().exists() {
                    return remove(&paths.lock).map(|()| None);
                }
            }
            Err(fs::TryLockError::WouldBlock) if is_supervised(paths) => return Ok(None),
            Err(fs::TryLockError::WouldBlock) if Instant::now() > deadline => return Ok(None),
            Err(fs::TryLockError::WouldBlock) => thread::sleep(END_POLL),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Whether the holder of the lock has made itself known.
fn is_supervised(paths: &InstancePaths) -> bool {
    let record: Option<Record> = read_json(&paths.state).unwrap_or_default();
    record.is_some_and(|record| record.shim.is_alive())
}

/// Turns signals into events. Everything else happens on the main thread: it must be the one
/// that starts children, for they die with the thread that started them.
fn signals() -> io::Result<Receiver<Event>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD])?;
    let (sender, events) = mpsc::channel();
    let listen = move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGCHLD => Event::ChildEnded,
                SIGHUP => Event::Restart,
                _ => Event::Stop,
            };
            if sender.send(event).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).stack_size(STACK_BYTES).spawn(listen)?;
    Ok(events)
}

/// Stack of the helper threads: they hold their buffers on the heap.
const STACK_BYTES: usize = 128 * 1024;

/// Waits for every child that ended; tells whether the process has, now or before.
fn reap(process: &mut Process) -> bool {
    while let Some((pid, status)) = next_ended() {
        process.ended_as(pid, status);
    }
    process.has_ended()
}

/// Grandchildren whose parents ended are given to the shim.
fn reap_strangers() {
    while next_ended().is_some() {}
}

fn next_ended() -> Option<(Pid, WaitStatus)> {
    wait(WaitOptions::NOHANG).ok().flatten()
}
