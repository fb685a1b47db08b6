//! A site: a directory with its configuration and state, everything that runs for it, and words
//! to steer and watch it. Dropping it stops everything and fails the test if something stays.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchback_api::client::{Follow, Progress};
use switchback_api::{Client, Ledger, RolloutEvent, RolloutSummary, ServiceStatus, Status};
use switchback_demo::load::{Load, LoadHandle, LoadOptions, LoadReport};
use switchback_domain::{Outcome, socket_path};

use crate::process::{self, Process, Role};
use crate::recipe::{BINARY, Recipe};
pub(crate) use crate::running::{Ended, Running};

/// Whatever is awaited comes far sooner; without it the test fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Pause between two looks where nothing can be awaited.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A directory, and everything that runs for it.
pub(crate) struct Site {
    directory: Directory,
    state_dir: PathBuf,
    recipe: Recipe,
    runtime: tokio::runtime::Runtime,
    /// Set for the control plane and whatever it starts.
    environment: Vec<(OsString, OsString)>,
    outputs: AtomicU32,
}

enum Directory {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }
}

/// Polls until a condition holds; fails the test when it does not in [`PATIENCE`].
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        // sleep: other processes are looked at, which tell nobody.
        thread::sleep(LOOK_EVERY);
    }
}

impl Site {
    /// A site with the demo's service, not started yet.
    pub(crate) fn new(settings: &str) -> Self {
        Self::with(settings, |_| {})
    }

    /// The same with a changed configuration.
    pub(crate) fn with(settings: &str, change: impl FnOnce(&mut Recipe)) -> Self {
        let directory = tempfile::Builder::new().prefix("sb-").tempdir().expect("/tmp is there");
        Self::make(Directory::Own(directory), settings, change)
    }

    /// A site in a directory that somebody else made, and removes.
    pub(crate) fn inside(
        directory: &Path,
        settings: &str,
        change: impl FnOnce(&mut Recipe),
    ) -> Self {
        Self::make(Directory::Given(directory.to_owned()), settings, change)
    }

    /// A site that is up: v1 serves.
    pub(crate) fn started(settings: &str) -> Self {
        let site = Self::new(settings);
        site.up();
        site
    }

    fn make(directory: Directory, settings: &str, change: impl FnOnce(&mut Recipe)) -> Self {
        let mut recipe = Recipe::new(settings);
        change(&mut recipe);
        let path = directory.path().canonicalize().expect("it was just made");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let site = Self {
            state_dir: path.join(".switchback"),
            directory,
            recipe,
            runtime: runtime.expect("a runtime can be made"),
            environment: Vec::new(),
            outputs: AtomicU32::new(0),
        };
        site.write_config(&site.recipe.text());
        site
    }

    /// Sets a variable of the environment of every command, and so of the control plane's.
    pub(crate) fn set_env(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.environment.push((name.into(), value.into()));
    }

    /// The directory of the configuration.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where journal, logs and sockets are.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Where the service's route listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.recipe.address
    }

    /// The configuration as it was written first.
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Replaces the configuration.
    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.path().join("switchback.yaml"), text).expect("the directory is ours");
    }

    /// Starts `switchback WORDS` in the site's directory.
    pub(crate) fn spawn(&self, words: &[&str]) -> Running {
        let number = self.outputs.fetch_add(1, Ordering::Relaxed);
        let output = |name: &str| self.path().join(format!("output-{number}.{name}"));
        let (stdout, stderr) = (output("stdout"), output("stderr"));
        let create = |path: &Path| File::create(path).expect("the directory is ours");
        let mut command = Command::new(BINARY);
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("USER", "tester").env_remove("NO_COLOR");
        command.stdout(create(&stdout)).stderr(create(&stderr));
        let child = command.spawn().expect("the binary was built");
        Running::new(child, stdout, stderr)
    }

    /// Runs `switchback WORDS` to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        self.spawn(words).wait()
    }

    /// The document that `switchback WORDS --json` prints.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.run(&[words, &["--json"]].concat()).json()
    }

    /// `up --detach`, which must succeed.
    pub(crate) fn up(&self) -> Ended {
        self.run(&["up", "--detach"]).exits(0)
    }

    /// Deploys a version of `web` and watches it to its end.
    pub(crate) fn deploy(&self, version: &str) -> Ended {
        self.spawn_deploy(version).wait()
    }

    /// The same, not waited for.
    pub(crate) fn spawn_deploy(&self, version: &str) -> Running {
        self.spawn(&["deploy", "web", "--version", version, "--json"])
    }

    /// Deploys the version `bad`, which must be taken back for this rule; answers its id and how
    /// many requests it failed.
    pub(crate) fn bad_is_taken_back(&self, rule: &str) -> (String, u64) {
        let ended = self.deploy("bad").exits(1).json();
        assert_eq!(ended["outcome"], "rolled_back", "{ended:#}");
        let id = ended["id"].as_str().expect("it has an id").to_owned();
        let detail = self.wait(self.client().rollout(&id)).expect("it is known");
        let verdict = detail.verdict.expect("it was judged");
        let cause = verdict.cause().expect("something was wrong");
        assert_eq!(
            (cause.rule.as_str(), cause.outcome),
            (rule, Outcome::Regressed),
            "{verdict:#?}"
        );
        (id, detail.summary.candidate_failed)
    }

    /// Deploys a version, unwatched; the rollout's id.
    pub(crate) fn begin(&self, version: &str) -> String {
        let accepted = self.run(&["deploy", "web", "--version", version, "--no-wait", "--json"]);
        accepted.exits(0).json()["rollout"].as_str().expect("an id").to_owned()
    }

    /// A client of the control plane.
    pub(crate) fn client(&self) -> Client {
        Client::new(socket_path(&self.state_dir, "control"))
    }

    /// Waits for something asynchronous, such as a call of the client.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let in_time = async { tokio::time::timeout(PATIENCE, future).await };
        self.runtime.block_on(in_time).expect("it ends in time")
    }

    /// What runs, by the control plane's own words.
    pub(crate) fn status(&self) -> Status {
        self.wait(self.client().status(None)).expect("the control plane answers")
    }

    /// The same of the service `web`.
    pub(crate) fn service(&self) -> ServiceStatus {
        let services = self.status().services.into_iter();
        services.into_iter().find(|service| service.key.service.as_str() == "web").expect("web")
    }

    /// The version that is promoted.
    pub(crate) fn stable(&self) -> String {
        self.service().stable.map(|stable| stable.version.to_string()).unwrap_or_default()
    }

    /// The rollout of `web` that is active; waits until there is one.
    pub(crate) fn active(&self) -> String {
        let mut active = None;
        wait_for("a rollout", || {
            active = self.service().rollout.map(|rollout| rollout.id);
            active.is_some()
        });
        active.unwrap_or_default()
    }

    /// A rollout at a glance.
    pub(crate) fn rollout(&self, id: &str) -> RolloutSummary {
        self.wait(self.client().rollout(id)).expect("the rollout is known").summary
    }

    /// Follows a rollout from its beginning, over restarts of the control plane.
    pub(crate) fn follow(&self, id: &str) -> Follow {
        self.client().follow(id)
    }

    /// Waits for an event of a rollout; fails the test when the rollout ends before.
    pub(crate) fn event(
        &self,
        follow: &mut Follow,
        what: &str,
        is_it: impl Fn(&RolloutEvent) -> bool,
    ) -> RolloutEvent {
        loop {
            match self.wait(follow.next()).expect("the control plane comes back") {
                Progress::Event(event) if is_it(&event) => return *event,
                Progress::Event(_) | Progress::Lost | Progress::Back => {}
                Progress::Ended => panic!("the rollout ended before {what}"),
            }
        }
    }

    /// Waits until a rollout has ended; how.
    pub(crate) fn ended(&self, id: &str) -> RolloutSummary {
        let mut follow = self.follow(id);
        while !matches!(self.wait(follow.next()).expect("it comes back"), Progress::Ended) {}
        self.rollout(id)
    }

    /// What became of every request since the data plane started.
    pub(crate) fn ledger(&self) -> Ledger {
        self.wait(self.client().ledger()).expect("the control plane answers")
    }

    /// Requests that the data plane dropped, by its own count.
    pub(crate) fn dropped(&self) -> u64 {
        let ledger = self.ledger();
        ledger.unrouted + ledger.versions.iter().map(|entry| entry.stats.dropped).sum::<u64>()
    }

    /// Every living process of the site.
    pub(crate) fn processes(&self) -> Vec<Process> {
        process::of_state_dir(&self.state_dir)
    }

    /// Living processes of one kind.
    pub(crate) fn pids(&self, role: Role) -> Vec<u32> {
        let all = self.processes().into_iter();
        all.filter(|process| process.role == role).map(|process| process.pid).collect()
    }

    /// Living instances of one version.
    pub(crate) fn instances(&self, version: &str) -> Vec<Process> {
        let all = self.processes().into_iter();
        all.filter(|process| process.version.as_deref() == Some(version)).collect()
    }

    /// One living instance of a version; waits until there is one.
    pub(crate) fn instance(&self, version: &str) -> Process {
        let mut found = None;
        wait_for("an instance", || {
            found = self.instances(version).pop();
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// The shim of an instance.
    pub(crate) fn shim_of(&self, instance: &Process) -> u32 {
        let mut all = self.processes().into_iter();
        let shim = all.find(|p| p.role == Role::Shim && p.instance == instance.instance);
        shim.unwrap_or_else(|| panic!("{instance:?} has no shim")).pid
    }

    /// The only process of a kind.
    pub(crate) fn pid(&self, role: Role) -> u32 {
        let pids = self.pids(role);
        assert_eq!(pids.len(), 1, "{role:?}: {:#?}", self.processes());
        pids[0]
    }

    /// `kill -9`, and waits until the kernel has done it.
    pub(crate) fn kill9(&self, pid: u32) {
        let ours = self.processes().iter().any(|process| process.pid == pid);
        assert!(ours || !process::is_alive(pid), "{pid} is none of ours");
        process::kill9(pid);
        wait_for("the killed process to be gone", || !process::is_alive(pid));
    }

    /// Kills the control plane.
    pub(crate) fn kill9_control(&self) {
        self.kill9(self.pid(Role::Control));
    }

    /// Starts a data plane as the control plane would, which is not there; its process id.
    pub(crate) fn start_proxy(&self) -> u32 {
        let state_dir = self.state_dir.to_string_lossy().into_owned();
        let number = self.spawn(&["proxy", "--state-dir", &state_dir]);
        number.leave()
    }

    /// Asserts that no instance runs twice, or under two shims.
    pub(crate) fn has_no_twins(&self) {
        let mut seen: BTreeMap<(Role, String), u32> = BTreeMap::new();
        for process in self.processes() {
            let Some(instance) = process.instance else { continue };
            if let Some(twin) = seen.insert((process.role, instance), process.pid) {
                panic!("{twin} is a twin: {:#?}", self.processes());
            }
        }
    }

    /// Waits until exactly so many instances of each version run, each under one shim.
    pub(crate) fn settles_to(&self, wanted: &[(&str, usize)]) {
        let total: usize = wanted.iter().map(|(_, count)| count).sum();
        let begun = Instant::now();
        loop {
            let all = self.processes();
            let count = |role| all.iter().filter(|process| process.role == role).count();
            let of = |version| all.iter().filter(|p| p.version.as_deref() == Some(version)).count();
            let right = wanted.iter().all(|(version, count)| of(version) == *count);
            if right && count(Role::Shim) == total && count(Role::Instance) == total {
                return self.has_no_twins();
            }
            assert!(begun.elapsed() < PATIENCE, "wanted {wanted:?}, there are {all:#?}");
            // sleep: other processes are looked at, which tell nobody.
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Steady requests to the service's route until they are stopped.
    pub(crate) fn load(&self, rate_per_second: u32) -> LoadHandle {
        let options = LoadOptions { rate_per_second, ..LoadOptions::new(self.address()) };
        Load::start(options).expect("the load can be started")
    }

    /// Waits until each of the versions, and no other, answers on the route.
    pub(crate) fn serves(&self, versions: &[&str]) {
        let mut seen = BTreeMap::new();
        wait_for("the versions on the route", || {
            let options = LoadOptions {
                rate_per_second: 200,
                connections: 4,
                requests_max: 40,
                ..LoadOptions::new(self.address())
            };
            let load = Load::start(options).expect("the load can be started");
            let report = self.wait(load.wait());
            let good = report.failures.total() == 0 && report.errors.is_empty();
            seen = report.answered;
            good && seen.keys().map(String::as_str).eq(versions.iter().copied())
        });
    }

    /// Steady requests that begin when the service answers again.
    pub(crate) fn load_when_serving(&self) -> LoadHandle {
        wait_for("the first answer", || {
            let options = LoadOptions { requests_max: 5, ..LoadOptions::new(self.address()) };
            let load = Load::start(options).expect("the load can be started");
            let report = self.wait(load.wait());
            report.failures.total() == 0 && report.errors.is_empty()
        });
        self.load(150)
    }

    /// Stops a load: what was counted.
    pub(crate) fn stop(&self, load: LoadHandle) -> LoadReport {
        self.wait(load.stop())
    }

    /// Stops a load, and asserts that every request was answered well and none was dropped.
    pub(crate) fn nothing_was_lost(&self, load: LoadHandle) -> LoadReport {
        let report = self.stop(load);
        all_answered(&report);
        assert_eq!(self.dropped(), 0, "{:#?}", self.ledger());
        report
    }

    /// `down --force`, and waits until nothing runs.
    pub(crate) fn down(&self) -> Ended {
        self.write_config(&self.recipe.text());
        self.run(&["down", "--force"])
    }

    /// Tails of the logs, for whoever looks into a failed test.
    fn last_words(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read(self.state_dir.join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<_> = text.lines().rev().take(15).collect();
            format!("{name}:\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        let history = self.run(&["history", "--plain"]).text();
        let status = self.run(&["status", "--plain"]).text();
        let explain = self.run(&["explain", "--plain"]).text();
        [tail("control.log"), tail("proxy.log"), history, status, explain].join("\n")
    }
}

/// Asserts that every request of a load was answered, and none with an error.
pub(crate) fn all_answered(report: &LoadReport) {
    assert!(report.sent > 0, "no load at all");
    assert_eq!(report.failures.total(), 0, "{report:#?}");
    assert_eq!(report.errors.values().sum::<u64>(), 0, "{report:#?}");
    assert_eq!(report.answered_total(), report.sent, "{report:#?}");
}

impl Drop for Site {
    #[allow(clippy::print_stderr, reason = "the last words of a failed test")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        let down = if self.state_dir.exists() { Some(self.down()) } else { None };
        let left = self.processes();
        for process in &left {
            process::kill9(process.pid);
        }
        if thread::panicking() {
            return;
        }
        if let Some(down) = down {
            down.exits(0);
        }
        assert!(left.is_empty(), "orphans: {left:#?}");
    }
}

/// Whether a program of a Debian package is there. Without it the test says so and is over;
/// where `SWITCHBACK_REQUIRE_PACKAGES` is set it fails.
#[allow(clippy::print_stdout, reason = "a test that did not run says so")]
pub(crate) fn require_package(package: &str, program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = directories.any(|directory| directory.join(program).is_file());
    let required = std::env::var_os("SWITCHBACK_REQUIRE_PACKAGES").is_some();
    assert!(found || !required, "the package {package} is missing, and packages are required");
    if !found {
        println!("skipped: it needs the Debian package {package}");
    }
    found
}
