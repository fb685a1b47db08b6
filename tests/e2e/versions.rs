//! Bad versions of every kind, one test each: the command says so with exit code 1, `explain`
//! names the cause, and the version before serves every request throughout.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;
use switchback_api::RolloutDetail;
use switchback_demo::load::{LoadHandle, LoadReport, NO_VERSION};

use crate::recipe::{self, BINARY, Recipe};
use crate::site::{Site, all_answered, wait_for};

/// Two rungs that judge for half a second each.
const JUDGED: &str = "\
{type: canary, steps: [\
{set_weight: 50}, {analysis: {duration: 500ms, error_rate: 2%, min_samples: 10}}, \
{set_weight: 100}, {analysis: {duration: 500ms, error_rate: 2%, min_samples: 10}}]}";

/// Half of the traffic for as long as any of these tests takes: only a trigger ends it.
const WATCHED: &str = "{type: canary, steps: [{set_weight: 50}, {pause: 50s}, {set_weight: 100}]}";

/// One instance, short rungs, and short patience.
fn hasty(recipe: &mut Recipe) {
    recipe.set("replicas", "1");
    recipe.set("strategy", JUDGED);
    recipe.set("progress_deadline", "20s");
    recipe.set("scale_down_delay", "100ms");
    recipe.set("drain_timeout", "1s");
    recipe.set("stop_timeout", "500ms");
    // The documents' rules are what is tested here; the exact test would mostly come first.
    recipe.set("rollback", "{exact_test: false}");
}

/// No trigger but this one, and no analysis that could come first.
fn triggered(recipe: &mut Recipe, trigger: &str) {
    hasty(recipe);
    recipe.set("strategy", WATCHED);
    let off = ["error_rate", "response_time", "latency_p95", "cpu_usage", "health_checks"];
    let mut triggers = vec![trigger.to_owned()];
    let others = off.into_iter().filter(|name| !trigger.starts_with(name));
    triggers.extend(others.map(|name| format!("{name}: false")));
    recipe.set("rollback", format!("{{exact_test: false, triggers: {{{}}}}}", triggers.join(", ")));
}

/// A version that serves under load, about to meet another one.
struct Trial {
    site: Site,
    load: LoadHandle,
    /// Process ids of what serves.
    before: Vec<u32>,
}

/// What is left to look at.
struct Story {
    site: Site,
    report: LoadReport,
    detail: RolloutDetail,
}

impl Trial {
    fn new(settings: &str, change: impl FnOnce(&mut Recipe)) -> Self {
        Self::on(Site::with(settings, |recipe| {
            hasty(recipe);
            change(recipe);
        }))
    }

    fn on(site: Site) -> Self {
        site.up();
        let load = site.load(120);
        let before = pids(&site, "v1");
        assert!(!before.is_empty(), "v1 serves");
        Self { site, load, before }
    }

    /// Deploys the version `bad`, which must be taken back for a cause with all of these words.
    fn takes_back(self, words: &[&str]) -> Story {
        let ended = self.site.deploy("bad");
        self.was_taken_back(&ended.exits(1).json(), words)
    }

    /// The version `bad` was taken back for a cause with all of these words, and nobody else was
    /// touched.
    fn was_taken_back(self, summary: &Value, words: &[&str]) -> Story {
        let Self { site, load, before } = self;
        assert_eq!(summary["outcome"], "rolled_back", "{summary:#}");
        let id = summary["id"].as_str().expect("it has an id");
        let explained = site.json(&["explain", id]);
        let cause = explained["summary"]["cause"].as_str().unwrap_or_default();
        for word in words {
            assert!(cause.contains(word), "{word:?} is not in {cause:?}");
        }
        assert!(site.run(&["explain", id]).exits(0).stdout.contains(cause), "{cause}");
        assert_eq!(pids(&site, "v1"), before, "the old version was touched");
        assert_eq!(site.stable(), "v1");
        site.settles_to(&[("v1", before.len())]);
        let report = site.stop(load);
        only_bad_answers_from(&report, "bad");
        old_version_failed_nothing(&site);
        let detail = serde_json::from_value(explained).expect("it is a rollout");
        Story { site, report, detail }
    }

    /// Deploys a version, which must be promoted without anybody noticing.
    fn promotes(self, version: &str) -> Site {
        assert_eq!(self.site.deploy(version).exits(0).json()["outcome"], "promoted");
        let report = self.site.nothing_was_lost(self.load);
        assert!(report.answered.contains_key(version), "{report:#?}");
        assert_eq!(self.site.stable(), version);
        self.site
    }
}

fn pids(site: &Site, version: &str) -> Vec<u32> {
    site.instances(version).iter().map(|process| process.pid).collect()
}

/// Every request was answered, and every bad answer was the bad version's, or the data plane's
/// for it.
fn only_bad_answers_from(report: &LoadReport, version: &str) {
    assert_eq!(report.failures.total(), 0, "{report:#?}");
    assert_eq!(report.answered_total(), report.sent, "{report:#?}");
    let others = report.errors.keys().filter(|name| *name != version && *name != NO_VERSION);
    assert_eq!(others.count(), 0, "{report:#?}");
}

fn old_version_failed_nothing(site: &Site) {
    assert_eq!(site.dropped(), 0, "{:#?}", site.ledger());
    for entry in site.ledger().versions {
        let is_old = entry.version.as_str() == "v1";
        assert!(!is_old || entry.stats.failed() == 0, "{entry:#?}");
    }
}

impl Story {
    /// The last words of the version's instance.
    fn last_words(&self) -> String {
        let words = self.detail.last_words.first().expect("the instance left some");
        words.log.join("\n")
    }

    /// The last probe of the version's instance.
    fn last_probe(&self) -> &str {
        let words = self.detail.last_words.first().expect("the instance left some");
        words.probe.as_deref().unwrap_or_default()
    }

    /// The finding that condemned it.
    fn condemned_by(&self, rule: &str) {
        let verdict = self.detail.verdict.as_ref().expect("it was judged");
        let bad =
            verdict.findings.iter().find(|f| f.outcome == switchback_domain::Outcome::Regressed);
        assert_eq!(bad.map(|finding| finding.rule.as_str()), Some(rule), "{verdict:#?}");
    }
}

#[test]
fn a_version_that_exits_at_once() {
    let story = Trial::new("bad:exit_code=3", |_| {}).takes_back(&["keeps ending", "exit code 3"]);
    assert!(story.last_words().contains("exits at once with code 3"), "{}", story.last_words());
    assert!(!story.report.answered.contains_key("bad"), "{:#?}", story.report);
    assert_eq!(story.detail.summary.candidate_requests, 0);
    let words = &story.detail.last_words[0];
    assert_eq!((words.probe.as_deref(), words.exit.as_deref()), (None, Some("exit code 3")));
}

#[test]
fn a_version_whose_program_is_missing() {
    let directory = tempfile::tempdir().expect("/tmp is there");
    symlink(BINARY, directory.path().join("server-v1")).expect("the directory is ours");
    let program = directory.path().join("server-{{version}}");
    let trial = Trial::new("", |recipe| {
        recipe.set("command", format!("\"{} demo-service\"", program.display()));
        recipe.set("progress_deadline", "2s");
    });
    trial.takes_back(&["server-bad"]);
}

#[test]
fn a_version_that_never_becomes_ready() {
    let trial = Trial::new("bad:never_ready=true", |recipe| {
        recipe.set("progress_deadline", "2s");
    });
    let story = trial.takes_back(&["0 of 1 instances of bad ready", "GET /ready", "503"]);
    assert!(story.last_probe().contains("503 Service Unavailable"), "{}", story.last_probe());
    assert!(story.last_words().contains("bad listening on"), "{}", story.last_words());
    let text = story.site.run(&["explain", &story.detail.summary.id]).exits(0).stdout;
    for part in
        ["last probe", "GET /ready", "bad listening on", &story.detail.last_words[0].instance]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_version_that_becomes_ready_and_dies() {
    let trial = Trial::new("bad:die_after_ready=700ms", |recipe| {
        recipe.set("strategy", WATCHED);
    });
    let story = trial.takes_back(&["no ready instance of bad is left", "exit code 101"]);
    assert!(story.report.answered.contains_key("bad"), "it had been ready");
}

#[test]
fn a_version_of_which_one_instance_of_two_dies_again_and_again() {
    let script = format!(
        "case $SWITCHBACK_INSTANCE in *.1) exec {BINARY} demo-service bad:die_after_ready=50ms;; \
         *) exec {BINARY} demo-service;; esac"
    );
    let trial = Trial::new("", |recipe| {
        recipe.set("replicas", "2");
        recipe.set("command", format!("[sh, -c, '{script}']"));
        recipe.set(
            "strategy",
            "{type: blue-green, steps: [{set_weight: 50}, {pause: 50s}, {set_weight: 100}]}",
        );
        recipe.set("rollback", "{exact_test: false, triggers: {health_checks: false}}");
    });
    let story = trial.takes_back(&["keeps ending", "exit code 101"]);
    assert!(story.detail.last_words.iter().any(|words| words.instance.ends_with(".1")));
}

#[test]
fn a_version_that_ignores_sigterm_is_killed_when_it_is_bad_and_when_it_is_replaced() {
    let settings = "bad:slow_stop=forever bad:error_rate=0.3 stub:slow_stop=forever";
    let trial = Trial::new(settings, |_| {});
    let story = trial.takes_back(&["error rate", "limit 2%"]);
    assert!(story.last_words().contains("SIGKILL"), "{}", story.last_words());
    let load = story.site.load(100);
    for version in ["stub", "v2"] {
        story.site.deploy(version).exits(0);
        story.site.settles_to(&[(version, 1)]);
    }
    story.site.nothing_was_lost(load);
}

/// What one instance's log may hold: four files of 4 MiB, and a bit for the others.
const LOG_BYTES_MAX: u64 = 17 << 20;

#[test]
fn a_version_that_floods_its_log_harms_nobody() {
    let flood = "yes 'a line that nobody will ever read' | head -c 80000000";
    let script = format!("test $SWITCHBACK_VERSION = v1 || {flood}; exec {BINARY} demo-service");
    let other = recipe::free_address();
    let trial = Trial::new("", |recipe| {
        recipe.set("command", format!("[sh, -c, \"{script}\"]"));
        recipe.append(&format!(
            "  other:\n    version: v1\n    command: {BINARY} demo-service\n    \
             health_check: {{path: /ready, interval: 100ms, min_healthy_time: 100ms}}\n    \
             route: {{listen: \"{other}\"}}"
        ));
    });
    let options = switchback_demo::load::LoadOptions::new(other);
    let beside = switchback_demo::load::Load::start(options).expect("the load can be started");
    let site = trial.promotes("flood");
    let unharmed = site.stop(beside);
    all_answered(&unharmed);
    let bytes = bytes_below(&site.state_dir().join("runtime"));
    assert!(bytes < LOG_BYTES_MAX, "{bytes} bytes of logs");
    let tail = site.run(&["logs", "web", "-n", "3"]).exits(0).stdout;
    assert_eq!(tail.lines().count(), 3, "{tail}");
}

fn bytes_below(directory: &std::path::Path) -> u64 {
    let entries = fs::read_dir(directory).expect("it is there").flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        // Rotated away meanwhile.
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[test]
fn a_version_that_answers_garbage() {
    let story = Trial::new("bad:garbage_rate=0.3", |_| {}).takes_back(&["error rate", "limit 2%"]);
    story.condemned_by("error_rate_max");
    assert!(story.report.by_status.contains_key(&502), "{:#?}", story.report);
}

#[test]
fn a_version_that_hangs_whole() {
    let trial = Trial::new("bad:hang_after=1s", |recipe| {
        recipe.set(
            "health_check",
            "{path: /ready, interval: 100ms, timeout: 300ms, min_healthy_time: 100ms}",
        );
        recipe.set("strategy", WATCHED);
        recipe.set("rollback", "{exact_test: false, triggers: {health_checks: false}}");
    });
    trial.takes_back(&["no ready instance of bad is left", "no complete answer within 300ms"]);
}

#[test]
fn a_version_that_hangs_now_and_then() {
    let trial = Trial::new("bad:hang_rate=0.3", |recipe| {
        let address = recipe.address;
        recipe.set("route", format!("{{listen: \"{address}\", timeout: 300ms}}"));
    });
    let story = trial.takes_back(&["error rate", "limit 2%"]);
    assert!(story.report.by_status.contains_key(&504), "{:#?}", story.report);
}

#[test]
fn a_version_that_starts_slowly_is_waited_for() {
    Trial::new("slow:ready_delay=1500ms", |_| {}).promotes("slow");
}

#[test]
fn a_version_with_more_errors() {
    let story = Trial::new("bad:error_rate=0.2", |_| {}).takes_back(&["error rate", "limit 2%"]);
    story.condemned_by("error_rate_max");
    let summary = &story.detail.summary;
    assert!(summary.candidate_failed > 0 && summary.candidate_failed < summary.candidate_requests);
}

#[test]
fn a_version_with_more_errors_meets_the_trigger_between_two_analyses() {
    let trial = Trial::new("bad:error_rate=0.3", |recipe| {
        triggered(recipe, "error_rate: {threshold: 5%, window: 1s}");
    });
    trial.takes_back(&["error rate", "limit 5%", "for 1"]).condemned_by("error_rate");
}

#[test]
fn a_version_that_is_slower_than_the_one_before() {
    let trial = Trial::new("latency=4ms bad:latency=60ms", |recipe| {
        triggered(recipe, "response_time: {threshold_multiplier: 3.0, window: 1s}");
    });
    trial.takes_back(&["mean latency", "limit 3x"]).condemned_by("response_time");
}

#[test]
fn a_version_that_is_slower_than_a_step_allows() {
    let trial = Trial::new("latency=4ms bad:latency=60ms", |recipe| {
        recipe.set(
            "strategy",
            "{type: canary, steps: [{set_weight: 50}, \
             {analysis: {duration: 500ms, latency_ratio: 3, min_samples: 10}}, \
             {set_weight: 100}]}",
        );
    });
    trial.takes_back(&["the baseline's", "limit 3x"]).condemned_by("latency_ratio_max");
}

#[test]
fn a_version_that_leaks_memory() {
    let trial = Trial::new("bad:leak_kib=512", |recipe| {
        triggered(recipe, "memory_usage: {threshold: 48MiB, window: 1s}");
    });
    trial.takes_back(&["memory", "limit 48 MiB"]).condemned_by("memory_usage");
}

#[test]
fn a_version_that_burns_the_processor() {
    let script = format!(
        "test $SWITCHBACK_VERSION = v1 || (while :; do :; done) & exec {BINARY} demo-service"
    );
    let trial = Trial::new("", |recipe| {
        triggered(recipe, "cpu_usage: {threshold: 0.15, window: 1s}");
        recipe.set("command", format!("[sh, -c, \"{script}\"]"));
    });
    trial.takes_back(&["CPU use", "limit 0.15 cores"]).condemned_by("cpu_usage");
}

#[test]
fn a_version_that_fails_its_smoke_test() {
    let trial = Trial::new("", |recipe| {
        let test = "echo {{version}} cannot log in; test {{version}} = v1";
        recipe.set("smoke_tests", format!("[{{name: log-in, command: [sh, -c, \"{test}\"]}}]"));
    });
    let story = trial.takes_back(&["log-in", "bad cannot log in"]);
    assert!(!story.report.answered.contains_key("bad"), "no traffic before the smoke test");
}

#[test]
fn a_version_whose_own_metric_is_bad() {
    let trial = Trial::new("", |recipe| {
        triggered(
            recipe,
            "custom: [{name: queue, command: [sh, -c, 'echo depth: 25'], threshold: 10, \
             interval: 200ms, window: 1s}]",
        );
    });
    trial.takes_back(&["queue 25", "limit 10"]).condemned_by("custom.queue");
}

#[test]
fn a_version_whose_probes_fail_now_and_then() {
    let directory = tempfile::tempdir().expect("/tmp is there");
    let sick = directory.path().join("sick");
    let trial = Trial::new("", |recipe| {
        triggered(recipe, "health_checks: {failures: 3, window: 30s}");
        let probe = format!("test $SWITCHBACK_VERSION = v1 || test ! -e {}", sick.display());
        recipe.set(
            "health_check",
            format!(
                "{{command: [sh, -c, \"{probe}\"], interval: 100ms, min_healthy_time: 100ms, \
                 unhealthy_after: 500}}"
            ),
        );
    });
    let running = trial.site.spawn_deploy("bad");
    wait_for("the candidate's share", || trial.site.service().split.len() == 2);
    fs::write(&sick, "").expect("the directory is ours");
    let summary = running.wait().exits(1).json();
    trial.was_taken_back(&summary, &["failed health checks"]).condemned_by("health_checks");
}

#[test]
fn a_version_without_traffic_has_shown_nothing() {
    let site = Site::with("", |recipe| {
        hasty(recipe);
        recipe.set("progress_deadline", "2s");
    });
    site.up();
    let before = pids(&site, "v1");
    let summary = site.deploy("v2").exits(1).json();
    assert_eq!(summary["outcome"], "rolled_back");
    let cause = summary["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("no verdict") && cause.contains("0 of at least 10 requests"), "{cause}");
    assert_eq!((site.stable().as_str(), pids(&site, "v1")), ("v1", before));
}

#[test]
fn a_first_version_that_fails_is_withdrawn() {
    let site = Site::with("v1:exit_code=7", hasty);
    let document = site.run(&["up", "--detach", "--json"]).exits(1).json();
    let rollout = &document["rollouts"][0];
    assert_eq!(rollout["outcome"], "withdrawn", "{document:#}");
    assert!(rollout["cause"].as_str().is_some_and(|cause| cause.contains("exit code 7")));
    site.settles_to(&[]);
    assert_eq!(site.stable(), "");
    assert_eq!(site.deploy("v2").exits(0).json()["outcome"], "promoted");
}
