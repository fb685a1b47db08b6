//! A runtime in a directory of its own, with means to look at and harm what it started.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use switchback_domain::{Epoch, Generation, InstanceId};
use switchback_ports::Runtime;
use switchback_ports::runtime::conformance::{spec, wait_for};
use switchback_ports::runtime::{Instance, InstanceSpec, LogCursor, LogQuery, ProcessState};
use switchback_runtime::{Limits, Options, ProcessRuntime};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn generation(counter: u64) -> Generation {
    Generation { epoch: Epoch(1), counter }
}

pub(crate) fn runs(instance: &Instance) -> bool {
    matches!(instance.process, ProcessState::Running { .. })
}

pub(crate) fn pid_of(instance: &Instance) -> i32 {
    let ProcessState::Running { pid } = instance.process else { panic!("{instance:?}") };
    i32::try_from(pid).unwrap()
}

pub(crate) fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub(crate) fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// An instance that runs a shell script.
pub(crate) fn script(text: &str) -> InstanceSpec {
    spec(&shell(text), 0)
}

pub(crate) struct World {
    pub(crate) runtime: ProcessRuntime,
    pub(crate) options: Options,
    directory: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options =
            Options { limits, ..Options::new(directory.path().join("state"), executable()) };
        let runtime = ProcessRuntime::new(options.clone()).unwrap();
        Self { runtime, options, directory }
    }

    /// As another control plane would see the same directory.
    pub(crate) fn another(&self) -> ProcessRuntime {
        ProcessRuntime::new(self.options.clone()).unwrap()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.options.state_dir.canonicalize().unwrap()
    }

    pub(crate) fn instance_directory(&self, id: &InstanceId) -> PathBuf {
        self.root().join("instances").join(id.as_str())
    }

    /// A place outside of the runtime's directory.
    pub(crate) fn outside(&self) -> &Path {
        self.directory.path()
    }

    /// Starts an instance and waits until it runs.
    pub(crate) async fn run(&self, spec: &InstanceSpec) -> Instance {
        self.start(spec).await;
        self.wait(spec, runs).await
    }

    pub(crate) async fn start(&self, spec: &InstanceSpec) {
        self.runtime.ensure_running(spec, generation(1)).await.unwrap();
    }

    pub(crate) async fn stop(&self, spec: &InstanceSpec) {
        self.runtime.ensure_stopped(&spec.id, generation(1)).await.unwrap();
    }

    pub(crate) async fn wait(
        &self,
        spec: &InstanceSpec,
        wanted: impl Fn(&Instance) -> bool,
    ) -> Instance {
        wait_for(&self.runtime, &spec.id, wanted).await
    }

    /// Waits for a line of output, and returns the log up to now.
    pub(crate) async fn wait_for_line(&self, spec: &InstanceSpec, part: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let query = LogQuery::After(LogCursor::default(), 100_000);
            let page = self.runtime.logs(&spec.id, query).await.unwrap();
            let lines: Vec<String> = page.lines.into_iter().map(|line| line.text).collect();
            if lines.iter().any(|line| line.contains(part)) {
                return lines;
            }
            assert!(Instant::now() < deadline, "no {part:?} in {lines:?}");
            // sleep: a log file can only be read again; bounded by the deadline.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn state_file(&self, id: &InstanceId) -> PathBuf {
        self.root().join("supervision").join(format!("{id}.json"))
    }

    /// What the shim says.
    pub(crate) fn state(&self, id: &InstanceId) -> Value {
        serde_json::from_slice(&fs::read(self.state_file(id)).unwrap()).unwrap()
    }

    pub(crate) fn shim(&self, id: &InstanceId) -> i32 {
        i32::try_from(self.state(id)["shim"]["pid"].as_i64().unwrap()).unwrap()
    }

    /// The command lines of all living processes that come from this world: shims by their
    /// argument, everything else by the directory in its environment.
    pub(crate) fn processes(&self) -> Vec<String> {
        let root = self.root().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            let marked = environment.contains(&format!("SWITCHBACK_DIR={root}/"));
            if marked || command.contains(&format!("shim {root}/")) {
                found.push(format!("{} {command}", entry.file_name().display()));
            }
        }
        found
    }

    /// Waits until there are `count` processes of this world.
    pub(crate) async fn wait_for_processes(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.processes().len() != count {
            assert!(Instant::now() < deadline, "{:?}", self.processes());
            // sleep: the process table can only be read again; bounded by the deadline.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for World {
    /// Whatever a test did, nothing of it stays.
    fn drop(&mut self) {
        let runtime = self.another();
        let stop_all = async move {
            let last = Generation::first(Epoch(u32::MAX));
            for instance in runtime.list().await.unwrap_or_default() {
                let _ = runtime.ensure_stopped(&instance.spec.id, last).await;
            }
        };
        let block = move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(stop_all);
        };
        let _ = std::thread::spawn(block).join();
    }
}

/// The example `shim_host`, which cargo builds beside the tests.
pub(crate) fn executable() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.parent().and_then(Path::parent).unwrap();
    let executable = target.join("examples").join("shim_host");
    assert!(executable.exists(), "build it with: cargo build --example shim_host");
    executable
}
