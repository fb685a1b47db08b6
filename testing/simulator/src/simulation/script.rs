//! Scenarios: scripts of what people, instances and neighbours do, and the transcript of what the
//! control plane makes of it. Nothing is drawn but the small delays of every day.
//!
//! A line `> command` is played; the lines after it, up to the next command, are what happened.

use std::time::Duration;

use switchback_domain::metric::{
    Endpoint, MetricQueries, MetricRule, MetricSource, MetricSpec, OnInsufficient,
};
use switchback_domain::route::{Destination, Maintenance, PauseLimits, RouteMode};
use switchback_domain::strategy::{
    AnalysisStep, BusyPolicy, FailureAction, Hook, RolloutPolicy, Step, StrategyKind,
};
use switchback_domain::trigger::{CustomMetric, ExactTest, Threshold, Thresholds, Triggers};
use switchback_domain::{InstanceId, ReleaseId, ServiceKey, Weight};
use switchback_engine::{Command, EventKind, Request, RequestKind, RolloutId, describe_phase};
use switchback_ports::Journal;

use super::Simulation;
use crate::agenda::Happening;
use crate::faults::Fault;
use crate::golden;
use crate::nature::{Condition, Load, Nature, Temper};
use crate::operator;

/// Delays of every day are drawn from this seed, in every scenario.
const SEED: u64 = 7;

/// Plays the commands of a transcript and says what it should be.
pub fn play(transcript: &str) -> Result<String, String> {
    let mut simulation = Simulation::scripted(SEED);
    let mut lines = Vec::new();
    let mut before_first = true;
    for (number, line) in transcript.lines().enumerate() {
        if let Some(command) = line.strip_prefix("> ") {
            before_first = false;
            lines.push(line.to_owned());
            let played = simulation.obey(command);
            played.map_err(|why| format!("line {}: {command}: {why}", number + 1))?;
            let told = std::mem::take(&mut simulation.witness.get().trace.timeline);
            lines.extend(told.iter().map(|line| format!("    {}", without_policy(line))));
        } else if before_first || line.starts_with('#') || line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// Plays a scenario and gives the journal it leaves behind, with the states it led to.
pub fn record_golden(script: &str) -> Result<String, String> {
    let mut simulation = Simulation::scripted(SEED);
    for command in script.lines().filter_map(|line| line.strip_prefix("> ")) {
        simulation.obey(command)?;
    }
    let journal = simulation.disk.open(0);
    let snapshots = journal.snapshots().map_err(|error| error.to_string())?;
    let Some(life) = &simulation.life else { return Err("nobody is in charge".to_owned()) };
    let states = golden::states(&life.control);
    Ok(golden::write(&journal.records_after(0), &snapshots, &states))
}

impl Simulation {
    /// A control plane with nothing to do, in a world where nothing goes wrong by itself.
    fn scripted(seed: u64) -> Self {
        let mut simulation = Self::new(seed, Some(std::collections::BTreeSet::new()), true);
        simulation.witness.get().trace.timeline.clear();
        simulation.dice.get().end();
        simulation.agenda = crate::agenda::Agenda::default();
        simulation.after(Duration::ZERO, Happening::Restart);
        simulation.keys.truncate(1);
        simulation.plane.rate = 50;
        simulation.wall_base = 0;
        simulation.look_every = 1_000;
        simulation
    }

    fn obey(&mut self, command: &str) -> Result<(), String> {
        let words: Vec<_> = command.split_whitespace().collect();
        let key = self.keys[0].clone();
        let by = "ada".to_owned();
        match words[..] {
            ["version", name, ref traits @ ..] => self.invent(&key, name, traits)?,
            ["deploy", name, ref options @ ..] => {
                self.deploy(&key, RequestKind::Deploy, name, options)?;
            }
            ["rollback", name] => self.deploy(&key, RequestKind::Rollback, name, &[])?,
            ["promote"] => self.command(&key, Command::Promote { full: false, by }),
            ["promote", "--full"] => self.command(&key, Command::Promote { full: true, by }),
            ["pause"] => self.command(&key, Command::Pause { by, reason: None }),
            ["resume"] => self.command(&key, Command::Resume { by }),
            ["maintenance"] => self.operate(&key, RouteMode::Maintenance(Maintenance::default())),
            ["isolate"] => self.operate(&key, RouteMode::Isolate),
            ["hold"] => self.operate(&key, RouteMode::Pause(PauseLimits::default())),
            ["divert", name] => {
                let to = Destination::Version(ReleaseId::from_stored(name));
                self.operate(&key, RouteMode::Divert { to });
            }
            ["serve"] => self.operate(&key, RouteMode::Serve),
            ["abort"] => self.command(&key, Command::Abort { by, reason: None }),
            ["abort", waiting] => {
                let id = waiting.trim_start_matches('r').parse();
                let rollout = RolloutId(id.map_err(|_| "a rollout like r2")?);
                self.command(&key, Command::Cancel { rollout, by, reason: None });
            }
            ["wait", time] => self.wait(duration(time)?)?,
            ["kill", id] => self.hit(id, Condition::Exited)?,
            ["lose", id] => self.hit(id, Condition::Lost)?,
            ["crash"] => self.crash_now(),
            ["back", "up"] => self.copied = self.disk.copies().pop().unwrap_or(0),
            ["restore"] if self.life.is_none() => self.restore(self.copied),
            ["restore"] => return Err("crash first".to_owned()),
            ["freeze"] => self.freeze(),
            ["reboot"] => self.reboot(),
            ["plane", "restarts"] => {
                self.plane.restart(self.time);
                self.note_served();
            }
            ["plane", "unreachable", time] => self.outage_until = self.time + duration(time)?,
            ["figures", "silent", time] => self.silent_until = self.time + duration(time)?,
            ["figures", "frozen"] => self.plane.freeze(true),
            ["figures", "move"] => self.plane.freeze(false),
            ["traffic", rate] => {
                self.count_requests();
                self.plane.rate = rate.parse().map_err(|_| "a number of requests per second")?;
            }
            ["next", fault] => self.arrange(fault)?,
            ["clock", "steps", time] => {
                self.ahead += duration(time)?;
                self.set_clocks();
            }
            ["status"] => self.tell_status(&key),
            _ => return Err("no such command".to_owned()),
        }
        self.witness.get().failure.take().map_or(Ok(()), Err)
    }

    fn crash_now(&mut self) {
        self.die("now");
    }

    fn command(&mut self, key: &ServiceKey, command: Command) {
        self.ask(key, EventKind::Commanded(command));
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) -> Result<(), String> {
        let until = self.time + time;
        while let Some((at, happening)) = self.agenda.pop() {
            if at > until {
                self.agenda.enter(at, happening);
                break;
            }
            self.time = self.time.max(at);
            self.set_clocks();
            self.happen(happening);
            if let Some(what) = self.witness.get().failure.take() {
                return Err(what);
            }
        }
        self.time = until;
        self.set_clocks();
        Ok(())
    }

    fn invent(&mut self, key: &ServiceKey, name: &str, traits: &[&str]) -> Result<(), String> {
        let load = Load::default();
        let mut nature =
            Nature { temper: Temper::Steady, errors: 0, start: 2_000, stop: 500, load };
        for word in traits {
            match *word {
                "never-ready" => nature.temper = Temper::NeverReady,
                "crash-loops" => nature.temper = Temper::CrashLoop,
                "flaps" => nature.temper = Temper::Flaps,
                "limps" => nature.temper = Temper::Limps,
                "dies" => nature.temper = Temper::Dies,
                "fails" => nature.errors = 300,
                "fails-now-and-then" => nature.errors = 20,
                "answers-slowly" => nature.load.latency *= 3,
                "computes-much" => nature.load.cores *= 5.0,
                "grows" => nature.load.memory_bytes *= 5,
                "sells-less" => nature.load.number *= 5.0,
                "starts-slowly" => nature.start = 60_000,
                "stops-slowly" => nature.stop = 40_000,
                _ => return Err(format!("no such trait: {word}")),
            }
        }
        let id = ReleaseId::from_stored(name);
        self.witness.get().seen(key).errors.insert(id.clone(), nature.errors);
        self.natures.insert((key.clone(), id), nature);
        Ok(())
    }

    fn deploy(
        &mut self,
        key: &ServiceKey,
        kind: RequestKind,
        name: &str,
        options: &[&str],
    ) -> Result<(), String> {
        let number = name.trim_start_matches('v').parse().map_err(|_| "a version like v2")?;
        if !self.natures.contains_key(&(key.clone(), ReleaseId::from_stored(name))) {
            self.invent(key, name, &[])?;
        }
        let (policy, accept_no_rollback) = policy(options)?;
        let Some(life) = &mut self.life else { return Err("nobody is in charge".to_owned()) };
        let (id, asked_at) = (life.control.take_id(), life.control.now());
        let release = operator::release(key, number, 8_000);
        let by = "ada".to_owned();
        let request =
            Request { id, kind, release, policy, accept_no_rollback, by, asked_at, wall_ms: 0 };
        self.ask(key, EventKind::Requested(Box::new(request)));
        Ok(())
    }

    fn hit(&mut self, name: &str, to: Condition) -> Result<(), String> {
        let id = InstanceId::from_stored(format!("{}.{name}", self.instance_prefix()));
        if !self.runtime.instances.contains_key(&id) {
            return Err(format!("there is no instance {id}"));
        }
        self.change(&id, to);
        Ok(())
    }

    fn instance_prefix(&self) -> String {
        format!("{}.{}", self.keys[0].environment, self.keys[0].service)
    }

    fn arrange(&mut self, fault: &str) -> Result<(), String> {
        let fault = match fault {
            "answer-of-the-data-plane-is-lost" => Fault::AnswerLost,
            "table-is-lost" => Fault::TableLost,
            "table-comes-late" => Fault::TableLate,
            "table-comes-twice" => Fault::TableTwice,
            "start-fails" => Fault::StartFails,
            "start-is-in-doubt" => Fault::StartInDoubt,
            "stop-fails" => Fault::StopFails,
            "stop-is-in-doubt" => Fault::StopInDoubt,
            "hook-fails" => Fault::HookFails,
            "hook-says-nothing" => Fault::HookSilent,
            "write-is-in-doubt" => Fault::DiskInDoubt,
            "write-fails" => Fault::DiskFails,
            "disk-is-full" => Fault::DiskFull,
            "dies-amid-a-write" => Fault::CrashAtWrite,
            "dies-amid-its-orders" => Fault::CrashAmidOrders,
            "probe-is-wrong" => Fault::ProbeWrong,
            "change-is-missed" => Fault::ChangeMissed,
            "list-is-out-of-date" => Fault::ListStale,
            "batches-are-told-twice" => Fault::BatchesTwice,
            "batches-are-lost" => Fault::BatchesLost,
            "binary-is-older" => Fault::OlderBinary,
            _ => return Err(format!("no such fault: {fault}")),
        };
        self.dice.get().arrange(fault);
        Ok(())
    }

    fn tell_status(&mut self, key: &ServiceKey) {
        let service = self.service(key);
        let phase = service.rollout.as_ref().map_or("idle", |r| describe_phase(&r.phase));
        let shares = service.traffic.split.shares().iter();
        let shares: Vec<_> =
            shares.map(|(release, weight)| format!("{release} {weight}")).collect();
        let pool = |(release, pool): (&ReleaseId, &switchback_engine::Pool)| {
            format!("{release} {} of {} ready", pool.ready(), pool.desired)
        };
        let pools: Vec<_> = service.pools.iter().map(pool).collect();
        let waits = service.queue.len();
        let (shares, pools) = (shares.join(", "), pools.join(", "));
        self.line(|| format!("= {phase}; traffic: {shares}; instances: {pools}; waiting: {waits}"));
    }
}

/// The command above says it, and more briefly.
fn without_policy(line: &str) -> &str {
    line.find(" RolloutPolicy {").map_or(line, |at| &line[..at]).trim_end()
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
    let minutes = text.strip_suffix('m').and_then(|number| number.parse::<u64>().ok());
    let seconds = seconds.or_else(|| minutes.map(|minutes| minutes * 60));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text} is no time like 10s or 2m"))
}

fn policy(options: &[&str]) -> Result<(RolloutPolicy, bool), String> {
    let mut policy = RolloutPolicy {
        replicas: 2,
        strategy: StrategyKind::Rolling,
        steps: Vec::new(),
        max_surge: 1,
        max_unavailable: 0,
        progress_deadline: Duration::from_secs(30),
        drain_timeout: Duration::from_secs(10),
        scale_down_delay: Duration::from_secs(5),
        failure_action: FailureAction::Rollback,
        auto_promote: true,
        on_busy: BusyPolicy::Queue,
        triggers: Triggers::default(),
        exact_test: None,
        smoke_tests: Vec::new(),
        revision_history_limit: 3,
    };
    let mut accepts = false;
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = || value.parse::<u32>().map_err(|_| format!("{name} needs a number"));
        match (name, value) {
            ("rolling", _) => policy.strategy = StrategyKind::Rolling,
            ("blue-green", _) => policy.strategy = StrategyKind::BlueGreen,
            ("canary", _) => policy.strategy = StrategyKind::Canary,
            ("steps", _) => policy.steps = value.split(',').map(step).collect::<Result<_, _>>()?,
            ("replicas", _) => policy.replicas = number()?,
            ("surge", _) => policy.max_surge = number()?,
            ("unavailable", _) => policy.max_unavailable = number()?,
            ("history", _) => policy.revision_history_limit = number()?,
            ("deadline", _) => policy.progress_deadline = duration(value)?,
            ("drain", _) => policy.drain_timeout = duration(value)?,
            ("hold-back", _) => policy.scale_down_delay = duration(value)?,
            ("exact-test", _) => policy.exact_test = Some(ExactTest::DEFAULT),
            ("asks", _) => policy.auto_promote = false,
            ("smoke", _) => policy.smoke_tests = vec![hook("smoke test")],
            ("failure", "pause") => policy.failure_action = FailureAction::Pause,
            ("failure", "continue") => policy.failure_action = FailureAction::Continue,
            ("busy", "supersede") => policy.on_busy = BusyPolicy::Supersede,
            ("busy", "refuse") => policy.on_busy = BusyPolicy::Refuse,
            ("accept-no-rollback", _) => accepts = true,
            _ => trigger(&mut policy.triggers, name, f64::from(number()?))?,
        }
    }
    Ok((policy, accepts))
}

fn trigger(triggers: &mut Triggers, name: &str, number: f64) -> Result<(), String> {
    let over = |seconds, threshold| Threshold { threshold, window: Duration::from_secs(seconds) };
    match name {
        // In per cent.
        "errors-below" => triggers.error_rate = Some(over(10, number / 100.0)),
        "response-time-below" => triggers.response_time = Some(over(10, number / 100.0)),
        // In milliseconds.
        "p95-below" => triggers.latency_p95 = Some(over(10, number / 1_000.0)),
        // In per cent of a core.
        "processor-below" => triggers.cpu_usage = Some(over(10, number / 100.0)),
        // In MiB.
        "memory-below" => triggers.memory_usage = Some(over(10, number * 1_048_576.0)),
        "failed-checks-below" => triggers.health_checks = Some(over(60, number)),
        "command-below" => triggers.custom.push(CustomMetric {
            name: "stock".to_owned(),
            argv: vec!["./stock".to_owned()],
            limit: over(10, number),
            interval: Duration::from_secs(2),
        }),
        "source-below" => triggers.metrics.push(metric(number)),
        _ => return Err(format!("no such option: {name}")),
    }
    Ok(())
}

fn metric(max: f64) -> MetricSpec {
    MetricSpec {
        name: "refunds".to_owned(),
        source: MetricSource::Prometheus(Endpoint {
            url: "http://127.0.0.1:9090".to_owned(),
            authorization_env: None,
        }),
        queries: MetricQueries::Number { candidate: "{{version}}".to_owned(), baseline: None },
        rule: MetricRule::Range { min: None, max: Some(max) },
        interval: Duration::from_secs(2),
        initial_delay: Duration::ZERO,
        failure_limit: 2,
        consecutive_error_limit: 4,
        inconclusive_limit: 0,
        dry_run: false,
        critical: true,
        on_insufficient: OnInsufficient::Hold,
    }
}

fn step(text: &str) -> Result<Step, String> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    Ok(match name {
        "weight" => {
            let percent = value.parse().map_err(|_| format!("{text} needs a number"))?;
            Step::SetWeight(Weight::from_percent(percent))
        }
        "pause" if value.is_empty() => Step::Pause { duration_ms: None },
        "pause" => Step::Pause {
            duration_ms: Some(u64::try_from(duration(value)?.as_millis()).unwrap_or(u64::MAX)),
        },
        "approve" => Step::Approve,
        "hook" => Step::Hook(hook("hook")),
        "analysis" => Step::Analysis(AnalysisStep {
            duration: duration(value)?,
            thresholds: Thresholds {
                success_rate_min: None,
                error_rate_max: Some(0.05),
                latency_p95_max: None,
                latency_p99_max: None,
                latency_ratio_max: None,
                samples_min: 20,
                metrics: Vec::new(),
            },
        }),
        _ => return Err(format!("no such step: {text}")),
    })
}

fn hook(name: &str) -> Hook {
    let (name, argv) = (name.to_owned(), vec!["./check".to_owned()]);
    Hook { name, argv, timeout: Duration::from_secs(2) }
}
