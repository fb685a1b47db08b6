//! A Runtime in memory, for tests of what stands above it: instances run at once, and a test can
//! let them crash, vanish, or refuse.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use switchback_domain::probe::ProbeResult;
use switchback_domain::{Generation, InstanceId};
use tokio::sync::Notify;

use super::{
    Error, Instance, InstanceSpec, LogCursor, LogLine, LogPage, LogQuery, ProcessState, Runtime,
    Usage,
};

/// The first port given out; nothing listens there.
const FIRST_PORT: u16 = 20_000;

/// The fake. Starts, stops and restarts happen at once; `execute` passes unless the program is
/// `false` or `sleep` (which never ends in time), or [`FakeRuntime::answer_execute`] says
/// otherwise. A clone is another runtime at the same place.
#[derive(Debug, Clone, Default)]
pub struct FakeRuntime {
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct World {
    newest: Option<Generation>,
    instances: BTreeMap<InstanceId, Instance>,
    logs: BTreeMap<InstanceId, Vec<LogLine>>,
    usages: BTreeMap<InstanceId, Usage>,
    answers: BTreeMap<InstanceId, ProbeResult>,
    refusals: VecDeque<&'static str>,
    ports_given: u16,
    pids_given: u32,
    starts: BTreeMap<InstanceId, u32>,
}

impl FakeRuntime {
    /// What the runtime knows about one instance.
    pub fn instance(&self, id: &InstanceId) -> Option<Instance> {
        self.world().instances.get(id).cloned()
    }

    /// How often a process was started for an instance, over all its lives.
    pub fn starts(&self, id: &InstanceId) -> u32 {
        self.world().starts.get(id).copied().unwrap_or_default()
    }

    /// Puts the process of an instance into a state. Unknown instances are left alone.
    pub fn set_process(&self, id: &InstanceId, process: ProcessState) {
        self.change(id, |instance| instance.process = process);
    }

    /// Says where an instance answers; `None` for not yet.
    pub fn set_address(&self, id: &InstanceId, address: Option<SocketAddr>) {
        self.change(id, |instance| instance.address = address);
    }

    /// The process ends by itself and waits to be started again.
    pub fn crash(&self, id: &InstanceId, exit: &str, crash_loop: bool) {
        let next_start_in = Duration::from_millis(100);
        self.change(id, |instance| {
            instance.process = ProcessState::BackingOff { next_start_in, crash_loop };
            instance.last_exit = Some(exit.to_owned());
        });
    }

    /// The process that waited is started again.
    pub fn recover(&self, id: &InstanceId) {
        let mut world = self.world();
        let pid = world.next_pid(id);
        if let Some(instance) = world.instances.get_mut(id) {
            instance.process = ProcessState::Running { pid };
            instance.restarts += 1;
        }
        drop(world);
        self.changed.notify_one();
    }

    /// Supervisor and process vanish.
    pub fn lose(&self, id: &InstanceId) {
        self.set_process(id, ProcessState::Lost);
    }

    /// Adds a line to the log of an instance.
    pub fn push_log(&self, id: &InstanceId, stream: &str, text: &str) {
        self.world().log(id, stream, text);
    }

    /// What `usage` answers for an instance from now on.
    pub fn set_usage(&self, id: &InstanceId, usage: Usage) {
        self.world().usages.insert(id.clone(), usage);
    }

    /// What `execute` answers for an instance from now on.
    pub fn answer_execute(&self, id: &InstanceId, answer: ProbeResult) {
        self.world().answers.insert(id.clone(), answer);
    }

    /// Lets one coming call of `operation` (`start`, `stop`, `restart`) fail without effect.
    pub fn refuse_next(&self, operation: &'static str) {
        self.world().refusals.push_back(operation);
    }

    fn change(&self, id: &InstanceId, change: impl FnOnce(&mut Instance)) {
        if let Some(instance) = self.world().instances.get_mut(id) {
            change(instance);
        }
        self.changed.notify_one();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn admit(&mut self, given: Generation) -> Result<(), Error> {
        if let Some(seen) = self.newest.filter(|seen| *seen > given) {
            return Err(Error::Fenced { given, seen });
        }
        self.newest = Some(given);
        Ok(())
    }

    fn refuse(&mut self, operation: &'static str, id: &InstanceId) -> Result<(), Error> {
        let Some(at) = self.refusals.iter().position(|refused| *refused == operation) else {
            return Ok(());
        };
        self.refusals.remove(at);
        let source = io::Error::other("refused by the test");
        Err(Error::Failed { operation, instance: id.clone(), source })
    }

    fn next_pid(&mut self, id: &InstanceId) -> u32 {
        *self.starts.entry(id.clone()).or_default() += 1;
        self.pids_given += 1;
        let pid = self.pids_given;
        self.log(id, "stdout", &format!("started as process {pid}"));
        pid
    }

    fn log(&mut self, id: &InstanceId, stream: &str, text: &str) {
        let lines = self.logs.entry(id.clone()).or_default();
        let at_ms = lines.len() as u64;
        lines.push(LogLine { at_ms, stream: stream.to_owned(), text: text.to_owned() });
    }

    fn known(&self, id: &InstanceId) -> Result<&Instance, Error> {
        self.instances.get(id).ok_or_else(|| Error::Unknown(id.clone()))
    }

    fn start(&mut self, spec: &InstanceSpec) {
        let earlier = self.instances.remove(&spec.id);
        let alive = earlier.as_ref().is_some_and(|instance| instance.process != ProcessState::Lost);
        if let Some(instance) = earlier.clone().filter(|_| alive) {
            self.instances.insert(spec.id.clone(), instance);
            return;
        }
        let port = FIRST_PORT + self.ports_given % 10_000;
        self.ports_given += 1;
        let instance = Instance {
            spec: spec.clone(),
            address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            process: ProcessState::Running { pid: self.next_pid(&spec.id) },
            restarts: earlier.map_or(0, |instance| instance.restarts + 1),
            last_exit: None,
        };
        self.instances.insert(spec.id.clone(), instance);
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn take_charge(&self, generation: Generation) -> Result<(), Error> {
        self.world().admit(generation)
    }

    async fn ensure_running(
        &self,
        spec: &InstanceSpec,
        generation: Generation,
    ) -> Result<(), Error> {
        {
            let mut world = self.world();
            world.admit(generation)?;
            world.refuse("start", &spec.id)?;
            world.start(spec);
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn ensure_stopped(&self, id: &InstanceId, generation: Generation) -> Result<(), Error> {
        {
            let mut world = self.world();
            world.admit(generation)?;
            world.refuse("stop", id)?;
            world.instances.remove(id);
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn restart(&self, id: &InstanceId, reason: &str) -> Result<(), Error> {
        {
            let mut world = self.world();
            world.known(id)?;
            world.refuse("restart", id)?;
            world.log(id, "switchback", &format!("starting anew: {reason}"));
        }
        self.change(id, |instance| instance.last_exit = Some("exit code 0".to_owned()));
        self.recover(id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Instance>, Error> {
        Ok(self.world().instances.values().cloned().collect())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn execute(
        &self,
        id: &InstanceId,
        argv: &[String],
        _timeout: Duration,
    ) -> Result<ProbeResult, Error> {
        let world = self.world();
        world.known(id)?;
        let passed = argv.first().is_some_and(|program| program != "false" && program != "sleep");
        let detail = format!("exit code {}", u8::from(!passed));
        let answer = world.answers.get(id).cloned();
        Ok(answer.unwrap_or(ProbeResult { passed, detail }))
    }

    async fn usage(&self, id: &InstanceId) -> Result<Usage, Error> {
        let world = self.world();
        world.known(id)?;
        Ok(world.usages.get(id).copied().unwrap_or_default())
    }

    async fn logs(&self, id: &InstanceId, query: LogQuery) -> Result<LogPage, Error> {
        let world = self.world();
        let lines = world.logs.get(id).ok_or_else(|| Error::Unknown(id.clone()))?;
        let (from, to) = match query {
            LogQuery::Tail(count) => (lines.len().saturating_sub(count), lines.len()),
            LogQuery::After(LogCursor(place), count) => {
                let from = place.parse().unwrap_or(0).min(lines.len());
                (from, from.saturating_add(count).min(lines.len()))
            }
        };
        Ok(LogPage { lines: lines[from..to].to_vec(), next: LogCursor(to.to_string()) })
    }
}

#[cfg(test)]
mod tests {
    use switchback_domain::Epoch;

    use super::super::conformance;
    use super::*;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        let command = ["server".to_owned()];
        let runtime = FakeRuntime::default();
        conformance::check(&runtime, &|ordinal| conformance::spec(&command, ordinal)).await;
        let runtime = FakeRuntime::default();
        let spec = conformance::spec(&command, 0);
        conformance::check_adoption(&runtime, &runtime.clone(), &spec).await;
    }

    #[tokio::test]
    async fn a_test_can_let_things_go_wrong() {
        let (runtime, spec) = (FakeRuntime::default(), conformance::spec(&["x".to_owned()], 0));
        let generation = Generation::first(Epoch(1));
        runtime.refuse_next("start");
        assert!(runtime.ensure_running(&spec, generation).await.is_err());
        runtime.ensure_running(&spec, generation).await.unwrap();
        runtime.crash(&spec.id, "exit code 1", true);
        let crashed = runtime.instance(&spec.id).unwrap();
        assert!(matches!(crashed.process, ProcessState::BackingOff { crash_loop: true, .. }));
        runtime.lose(&spec.id);
        runtime.ensure_running(&spec, generation).await.unwrap();
        assert_eq!(
            (runtime.starts(&spec.id), runtime.instance(&spec.id).unwrap().restarts),
            (2, 1)
        );
    }
}
