//! What a configuration means: defaults, the documents' numbers, overlays, releases.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_config::{Document, ServiceConfig, parse};
use switchback_domain::probe::ProbeAction;
use switchback_domain::strategy::{BusyPolicy, FailureAction, Step, StrategyKind};
use switchback_domain::trigger::Thresholds;
use switchback_domain::{EnvironmentName, ServiceName, Version};

const EVERYTHING: &str = include_str!("../../../../tests/sample-configs/valid/everything.yaml");
const DOCUMENTS: &str = include_str!("../../../../tests/sample-configs/valid/documents.yaml");
const ANCHORS: &str = include_str!("../../../../tests/sample-configs/valid/anchors.yaml");

fn document(text: &str) -> Document {
    parse(text, "switchback.yaml").unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn service(document: &Document, environment: &str, name: &str) -> ServiceConfig {
    let environment = EnvironmentName::new(environment).expect("a valid name");
    let name = ServiceName::new(name).expect("a valid name");
    let environment = document.environment(&environment).expect("it is in the file");
    environment.service(&name).expect("it is in the file").clone()
}

fn only(text: &str) -> ServiceConfig {
    let document = document(&format!("project: p\nservices:\n  api:\n    command: x\n{text}"));
    service(&document, "default", "api")
}

fn error_threshold(service: &ServiceConfig) -> Option<f64> {
    service.policy.triggers.error_rate.map(|limit| limit.threshold)
}

fn version(text: &str) -> Version {
    Version::new(text).expect("a valid version")
}

/// Steps in a line: `5% 60s 25% ...`.
fn shape(steps: &[Step]) -> String {
    let word = |step: &Step| match step {
        Step::SetWeight(weight) => weight.to_string(),
        Step::Analysis(analysis) => format!("{}s", analysis.duration.as_secs()),
        Step::Pause { duration_ms } => format!("pause {duration_ms:?}"),
        Step::Approve => "approve".to_owned(),
        Step::Hook(hook) => format!("hook {}", hook.name),
    };
    steps.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn thresholds(step: &Step) -> Thresholds {
    match step {
        Step::Analysis(analysis) => analysis.thresholds.clone(),
        Step::SetWeight(_) | Step::Pause { .. } | Step::Approve | Step::Hook(_) => {
            panic!("{step:?} is no analysis")
        }
    }
}

#[test]
fn a_service_with_only_a_command_has_the_stated_defaults() {
    let api = only("");
    let (policy, health) = (&api.policy, &api.workload.health);
    assert_eq!((policy.replicas, policy.max_surge, policy.max_unavailable), (1, 1, 0));
    assert_eq!(policy.strategy, StrategyKind::Rolling);
    assert!(policy.steps.is_empty() && policy.auto_promote && api.version.is_none());
    assert_eq!(policy.progress_deadline, Duration::from_mins(10));
    assert_eq!(policy.drain_timeout, Duration::from_secs(30));
    assert_eq!(policy.scale_down_delay, Duration::from_secs(30));
    assert_eq!(api.workload.stop_timeout, Duration::from_secs(10));
    assert_eq!(policy.failure_action, FailureAction::Rollback);
    assert_eq!(policy.on_busy, BusyPolicy::Queue);
    assert_eq!(policy.revision_history_limit, 10);
    assert_eq!(health.readiness.action, ProbeAction::Http { path: "/up".to_owned() });
    assert_eq!(health.readiness.interval, Duration::from_secs(1));
    assert_eq!(health.readiness.timeout, Duration::from_secs(5));
    assert_eq!((health.readiness.healthy_after, health.readiness.unhealthy_after), (2, 3));
    assert_eq!(health.min_healthy_time, Duration::from_secs(2));
    assert!(health.startup.is_none() && health.liveness.is_none());
}

#[test]
fn the_documents_triggers_are_on_until_switched_off() {
    let numbers = |api: &ServiceConfig| {
        let triggers = &api.policy.triggers;
        [
            triggers.error_rate,
            triggers.response_time,
            triggers.latency_p95,
            triggers.cpu_usage,
            triggers.memory_usage,
            triggers.health_checks,
        ]
        .map(|limit| limit.map(|limit| (limit.threshold, limit.window.as_secs())))
    };
    let documents = [
        Some((0.05, 120)),
        Some((2.0, 180)),
        Some((2.0, 300)),
        Some((0.85, 300)),
        None,
        Some((3.0, 120)),
    ];
    assert_eq!(numbers(&only("")), documents);
    assert_eq!(numbers(&only("    rollback: {enabled: false}\n")), [None; 6]);
    let some = only(
        "    rollback:\n      error_threshold: 10%\n      triggers: {cpu_usage: false, latency_p95: {threshold: 750}, memory_usage: {threshold: 1GiB}}\n",
    );
    assert_eq!(
        numbers(&some),
        [
            Some((0.1, 120)),
            Some((2.0, 180)),
            Some((0.75, 300)),
            None,
            Some((1_073_741_824.0, 120)),
            Some((3.0, 120)),
        ]
    );
}

#[test]
fn each_strategy_comes_with_its_ladder() {
    let route = "    route: {listen: 8080}\n";
    let canary = only(&format!("{route}    strategy: canary\n"));
    assert_eq!(shape(&canary.policy.steps), "5% 60s 25% 60s 50% 60s 100% 60s");
    let asked = thresholds(&canary.policy.steps[1]);
    assert_eq!((asked.success_rate_min, asked.error_rate_max), (Some(0.995), Some(0.01)));
    assert_eq!(asked.samples_min, 50);
    let blue_green = only(&format!("{route}    strategy: blue-green\n"));
    assert_eq!(shape(&blue_green.policy.steps), "10% 30s 25% 30s 50% 30s 100% 300s");
    let watched = only(&format!(
        "{route}    strategy: blue-green\n    rollback: {{monitoring_window: 90, error_threshold: 0.02}}\n"
    ));
    assert_eq!(shape(&watched.policy.steps), "10% 30s 25% 30s 50% 30s 100% 90s");
    let last = thresholds(&watched.policy.steps[7]);
    assert_eq!((last.success_rate_min, last.error_rate_max), (None, Some(0.02)));
    let rolling = only(&format!("{route}    rollback: {{monitoring_window: 90}}\n"));
    assert_eq!(shape(&rolling.policy.steps), "90s");
}

#[test]
fn shorthands_give_flaggers_and_the_documents_steps() {
    let steps = |strategy: &str| {
        shape(&only(&format!("    route: {{listen: 1}}\n    strategy: {strategy}\n")).policy.steps)
    };
    assert_eq!(steps("{step_weight: 20, max_weight: 60}"), "20% 60s 40% 60s 60% 60s 100% 60s");
    assert_eq!(steps("{step_weights: [5, 25], step_duration: 2m}"), "5% 120s 25% 120s 100% 120s");
    assert_eq!(steps("{type: canary, steps: [{set_weight: 100}]}"), "100%");
    let document = document(DOCUMENTS);
    let controller = service(&document, "default", "controller");
    assert_eq!(shape(&controller.policy.steps), "5% 300s 25% 300s 50% 300s 100% 300s");
    let asked = thresholds(&controller.policy.steps[1]);
    assert_eq!((asked.success_rate_min, asked.error_rate_max), (Some(0.995), Some(0.01)));
    let store = service(&document, "default", "graph-store");
    assert_eq!(shape(&store.policy.steps), "10% 30s 25% 30s 50% 30s 100% 300s");
    assert_eq!(thresholds(&store.policy.steps[7]).error_rate_max, Some(0.05));
    assert_eq!(store.policy.triggers.error_rate.unwrap().window, Duration::from_mins(2));
}

#[test]
fn everything_is_read_as_written() {
    let document = document(EVERYTHING);
    let names: Vec<_> = document.environments().map(EnvironmentName::as_str).collect();
    assert_eq!(names, ["development", "staging", "pre-production", "production"]);
    assert_eq!(document.default_environment().as_str(), "development");
    assert_eq!(document.project().as_str(), "shop");
    let api = service(&document, "pre-production", "api");
    assert_eq!(api.version, Some(version("1.20")));
    assert_eq!(
        shape(&api.policy.steps),
        "5% pause Some(600000) 120s 12.5% pause Some(30000) pause None approve hook warm caches \
         100% approve 60s hook announce"
    );
    let asked = thresholds(&api.policy.steps[2]);
    assert_eq!((asked.success_rate_min, asked.error_rate_max), (Some(0.999), Some(0.001)));
    assert_eq!((asked.latency_p95_max, asked.latency_p99_max), (Some(0.5), Some(1.5)));
    assert_eq!((asked.latency_ratio_max, asked.samples_min), (Some(1.5), 200));
    assert_eq!((api.policy.max_surge, api.policy.max_unavailable), (2, 1));
    assert_eq!(api.policy.failure_action, FailureAction::Pause);
    assert_eq!(api.policy.on_busy, BusyPolicy::Supersede);
    assert!(!api.policy.auto_promote);
    assert_eq!(api.policy.triggers.custom[0].limit.window, Duration::from_mins(1));
    assert_eq!(api.policy.smoke_tests[0].argv, ["./smoke", "login", "{{address}}"]);
    assert_eq!(api.policy.smoke_tests[1].name, "smoke");
    let health = &api.workload.health;
    let startup = health.startup.as_ref().unwrap();
    assert_eq!(startup.interval, Duration::from_millis(250));
    assert_eq!((startup.healthy_after, startup.timeout), (3, Duration::from_secs(2)));
    assert_eq!(health.liveness.as_ref().unwrap().action, ProbeAction::Tcp);
    assert_eq!(health.min_healthy_time, Duration::from_secs(3));
    let route = api.workload.route.unwrap();
    assert_eq!(route.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(route.path_prefix, "/api");
    assert_eq!(route.hosts, ["shop.example.com", "*.shop.example.com"]);
}

#[test]
fn overlays_merge_maps_replace_lists_and_take_away() {
    let document = document(EVERYTHING);
    let staging = service(&document, "staging", "api");
    assert_eq!(staging.policy.replicas, 2);
    assert_eq!(staging.policy.strategy, StrategyKind::Rolling);
    assert!(matches!(staging.policy.steps.as_slice(), [Step::Analysis(_)]));
    let route = staging.workload.route.unwrap();
    assert_eq!(
        (route.listen.to_string(), route.path_prefix.as_str()),
        ("127.0.0.1:9080".to_owned(), "/api")
    );
    // The service's own readiness still says what it asks.
    let ready = ProbeAction::Http { path: "/ready?version={{version}}".to_owned() };
    assert_eq!(staging.workload.health.readiness.action, ready);
    let production = service(&document, "production", "api");
    let env = &production.workload.env;
    assert_eq!(env["LOG_LEVEL"], "warn");
    assert_eq!((env["WORKERS"].as_str(), env["RATIO"].as_str()), ("4", "0.5"));
    assert_eq!(env["REGION"], "eu-1");
    assert!(!env.contains_key("DEBUG"));
    assert_eq!(production.workload.route.unwrap().hosts, ["shop.example.com"]);
    assert_eq!(production.workload.stop_timeout, Duration::from_secs(20));
    assert_eq!(service(&document, "production", "extra").policy.replicas, 1);
    let web = service(&document, "production", "web");
    assert_eq!(error_threshold(&web), Some(0.02));
    let development = EnvironmentName::new("development").unwrap();
    let worker = ServiceName::new("worker").unwrap();
    assert!(document.environment(&development).unwrap().service(&worker).is_none());
    let unknown = document.environment(&EnvironmentName::new("prodution").unwrap()).unwrap_err();
    assert_eq!(unknown.as_slice()[0].hint, "did you mean `production`?");
}

#[test]
fn an_overlay_that_says_it_in_another_way_means_it() {
    let text = "\
project: p
environments:
  one:
    services:
      api:
        health_check: {tcp: true}
        strategy: {type: blue-green}
        route: {hosts: [b.example.com]}
  two:
    services:
      api: {strategy: {step_weights: [50, 100]}, rollback: ~}
  three:
    services:
rollback: {monitoring_window: 300}
defaults: {health_check: {interval: 3s}}
services:
  api:
    command: x
    health_check: {path: /ready}
    route: {listen: 8080, host: a.example.com}
    strategy: {type: canary, steps: [{set_weight: 40%}, {set_weight: 100%}]}
    rollback: {error_threshold: 2%}
  worker: {command: y}
";
    let document = document(text);
    let one = service(&document, "one", "api");
    assert_eq!(one.workload.health.readiness.action, ProbeAction::Tcp);
    assert_eq!(one.workload.health.readiness.interval, Duration::from_secs(3));
    assert_eq!(one.workload.route.unwrap().hosts, ["b.example.com"]);
    assert_eq!(shape(&one.policy.steps), "10% 30s 25% 30s 50% 30s 100% 300s");
    let two = service(&document, "two", "api");
    assert_eq!(shape(&two.policy.steps), "50% 60s 100% 60s");
    assert_eq!(error_threshold(&two), Some(0.05));
    let three = service(&document, "three", "api");
    assert_eq!(shape(&three.policy.steps), "40% 100% 300s");
    assert_eq!(error_threshold(&three), Some(0.02));
    // Without a route there is nothing to monitor.
    assert!(service(&document, "three", "worker").policy.steps.is_empty());
}

#[test]
fn one_mistake_in_shared_values_is_one_message() {
    let text = "\
project: p
environments: {a: {}, b: {defaults: {drain_timeout: 5}}}
defaults: &d {stop_timeout: 10}
x-probe: &probe {interval: 3}
services:
  one: {command: x, health_check: *probe}
  two: {command: y, health_check: *probe}
";
    let mistakes = parse(text, "f").unwrap_err();
    let paths: Vec<_> = mistakes.as_slice().iter().map(|mistake| mistake.path.as_str()).collect();
    assert_eq!(
        paths,
        ["environments.b.defaults.drain_timeout", "defaults.stop_timeout", "x-probe.interval"]
    );
}

#[test]
fn anchors_aliases_and_merge_keys_are_followed() {
    let document = document(ANCHORS);
    let [one, two, three] = ["one", "two", "three"].map(|name| service(&document, "default", name));
    assert_eq!(one.policy.replicas, 3);
    assert_eq!(one.workload.health.readiness.interval, Duration::from_secs(2));
    assert_eq!(two.policy.replicas, 5);
    assert_eq!(
        two.workload.health.readiness.action,
        ProbeAction::Http { path: "/other".to_owned() }
    );
    assert_eq!(three.workload.command, ["./server", "--port", "{{port}}"]);
    assert_eq!(three.workload.env["B"], "1");
}

#[test]
fn a_release_has_its_templates_filled_in_and_leaves_the_instances() {
    let document = document(EVERYTHING);
    let api = service(&document, "production", "api");
    let sources = api.config_sources(&version("v7"));
    let names: Vec<_> = sources.iter().map(|source| source.source.as_str()).collect();
    assert_eq!(names, ["conf/api-production.toml", "conf/nginx-v7.conf"]);
    let missing = api.release(&version("v7"), "/srv/shop", &BTreeMap::new()).unwrap_err();
    assert_eq!(missing.source_path, "conf/api-production.toml");
    let contents: BTreeMap<_, _> = names
        .iter()
        .map(|name| ((*name).to_owned(), "port {{port}} of {{project}} {{ unknown }}".to_owned()))
        .collect();
    let release = api.release(&version("v7"), "/srv/shop", &contents).unwrap();
    assert_eq!(release.key.to_string(), "production/api");
    let workload = &release.workload;
    assert_eq!(workload.command, ["./bin/api-v7", "--port", "{{port}}", "--name", "api of shop"]);
    assert_eq!(workload.working_dir, "/srv/shop/apps/api");
    assert_eq!(workload.env["DATA"], "{{dir}}/data");
    assert_eq!(workload.config[1].target, "nginx.conf");
    assert_eq!(workload.config[1].content, "port {{port}} of shop {{ unknown }}");
    let ready = ProbeAction::Http { path: "/ready?version=v7".to_owned() };
    assert_eq!(workload.health.readiness.action, ready);
    assert_eq!(api.release(&version("v7"), "/srv/shop", &contents).unwrap().id, release.id);
    assert_ne!(
        api.release(&version("v8"), "/srv/shop", &{
            let mut contents = contents.clone();
            contents.insert("conf/nginx-v8.conf".to_owned(), String::new());
            contents
        })
        .unwrap()
        .id,
        release.id
    );
}

#[test]
fn another_strategy_comes_with_its_own_steps() {
    let document = document(EVERYTHING);
    let api = service(&document, "production", "api");
    let own = api.policy_for(None, &version("v7"));
    assert_eq!(own.steps.len(), api.policy.steps.len());
    assert_eq!(own.triggers.custom[0].argv, ["./queue-length", "api"]);
    assert_eq!(own, api.policy_for(Some(StrategyKind::Canary), &version("v7")));
    let switched = api.policy_for(Some(StrategyKind::BlueGreen), &version("v7"));
    assert_eq!(switched.strategy, StrategyKind::BlueGreen);
    assert_eq!(shape(&switched.steps), "10% 30s 25% 30s 50% 30s 100% 600s");
    assert_eq!(switched.replicas, own.replicas);
}

#[test]
fn metrics_of_counters_take_their_part_of_the_exact_tests_alpha() {
    let counters = |more: &str| {
        format!(
            "{{name: orders, source: {{prometheus: \"http://127.0.0.1:9090\"}}, \
             numerator: bad, denominator: all{more}}}"
        )
    };
    let left = |metrics: &[String]| {
        let metrics = metrics.join(", ");
        let text = format!(
            "    route: {{listen: 8080}}\n    rollback: {{monitoring_window: 5m}}\n    \
             metrics: [{metrics}]\n"
        );
        let policy = only(&text).policy;
        policy.exact_test_of_requests().map(|rules| rules.alpha).expect("it is on by itself")
    };
    let is = |left: f64, expected: f64| (left - expected).abs() < 1e-12;
    assert!(is(left(&[]), 0.01));
    assert!(is(left(&[counters("")]), 0.009));
    assert!(is(left(&[counters(", dry_run: true")]), 0.01), "advice spends nothing");
    assert!(is(left(&[counters(", alpha: 40%")]), 0.005), "half stays with the requests");
    let threshold = "{name: slow, query: latency_p95, threshold_range: {max: 1}}".to_owned();
    assert!(is(left(&[threshold]), 0.01), "a threshold has no known chance of error");
}
