//! The switch storm: every kind of exchange there is, while weights and versions change fifty
//! times, the data plane's process is replaced twenty times, and the control plane and instances
//! are killed. It proves that no request is lost, that no idle connection is closed, and that the
//! ledger adds up: each request stands in it once, with the outcome that its client saw.

mod http1;
mod http2;
mod tally;
mod visitors;
mod weather;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use switchback_api::RolloutOutcome;
use switchback_api::client::Progress;
use switchback_demo::load::{Load, LoadHandle, LoadOptions, LoadReport};
use switchback_domain::ArmStats;

use crate::process::Role;
use crate::recipe::{BINARY, free_address};
use crate::site::{Site, all_answered, wait_for};
use tally::{Tally, Visits};
use visitors::{Kept, Resting, Visitors};
use weather::Toll;

/// A longer storm has more rollouts: this names their number.
const ROLLOUTS: &str = "SWITCHBACK_STORM_ROLLOUTS";
const ROLLOUTS_MIN: usize = 5;
/// Each rollout goes through all of them.
const WEIGHTS: [u8; 10] = [1, 3, 10, 20, 35, 50, 65, 80, 95, 100];
/// Requests every second to `web`, beside all that lasts; and to `frail`, of either method.
const RATES: [u32; 2] = [120, 40];

const HEALTH: &str = "{path: /ready, interval: 50ms, timeout: 5s, min_healthy_time: 50ms}";
/// What may be repeated is, however often that happens to the few requests of a test.
const RETRIES: &str = "{attempts: 5, min_per_second: 100}";
/// What lasts makes a version look slow; here the clients judge, and nobody else.
const NO_JUDGE: &str = "{exact_test: false, triggers: {error_rate: false, response_time: false, \
                        latency_p95: false, cpu_usage: false, health_checks: false}}";

/// Three services on one data plane, because what cannot be safe has to be told apart. `web` is
/// switched, and nothing of it may fail. Instances of `frail` are killed: what may be repeated is
/// answered all the same, and a failure of anything else is named. Clients of `held` stay longer
/// than they are waited for: each is cut, and named.
struct Storm {
    site: Site,
    frail: SocketAddr,
    held: SocketAddr,
}

impl Storm {
    fn up() -> Self {
        let (frail, held) = (free_address(), free_address());
        let site = Site::with("latency=3ms", |recipe| {
            let steps = WEIGHTS.map(|weight| format!("{{set_weight: {weight}}}, {{pause: 30ms}}"));
            recipe.set("strategy", format!("{{type: canary, steps: [{}]}}", steps.join(", ")));
            recipe.set("scale_down_delay", "100ms");
            recipe.set("health_check", HEALTH);
            recipe.set("rollback", NO_JUDGE);
            recipe.append(&service("frail", "f1", frail, 3, "10s"));
            recipe.append(&service("held", "h1", held, 1, "500ms"));
        });
        site.up();
        let storm = Self { site, frail, held };
        wait_for("all services", || storm.site.status().services.iter().all(|s| s.serves));
        storm
    }

    /// One version after the other, each through all weights; how many weights there were.
    fn rolls_out(&self, raging: &Mutex<()>) -> usize {
        let asked = std::env::var(ROLLOUTS).ok().and_then(|count| count.parse().ok());
        let count = asked.unwrap_or(ROLLOUTS_MIN).max(ROLLOUTS_MIN);
        for version in 2..count + 2 {
            // A command is not answered by a control plane that dies; the rollout goes on.
            let calm = || raging.lock().expect("nobody panics with it");
            let id = {
                let _calm = calm();
                self.site.begin(&format!("v{version}"))
            };
            let mut follow = self.site.follow(&id);
            while !matches!(self.site.wait(follow.next()), Ok(Progress::Ended)) {}
            let _calm = calm();
            let ended = self.site.rollout(&id);
            assert_eq!(ended.outcome, Some(RolloutOutcome::Promoted), "{ended:#?}");
        }
        count * WEIGHTS.len()
    }

    /// Clients that stay: the data plane is replaced, their version is, and they are cut.
    fn cuts_who_stays(&self, visitors: &Visitors) -> usize {
        let kept = Kept::open(visitors, self.held);
        let count = kept.count();
        self.site.run(&["proxy", "upgrade"]).exits(0);
        self.site.run(&["deploy", "held", "--version", "h2"]).exits(0);
        kept.are_cut(visitors);
        count
    }

    /// What became of all requests to a service, by the ledger. All of them have ended.
    fn account(&self, service: &str) -> ArmStats {
        let mut sum = ArmStats::default();
        wait_for("the end of all requests in the ledger", || {
            let entries = self.site.ledger().versions.into_iter();
            let entries = entries.filter(|entry| entry.key.service.as_str() == service);
            let (mut in_flight, mut stats) = (0, ArmStats::default());
            for entry in entries {
                in_flight += entry.in_flight;
                stats = stats.merge(&entry.stats);
            }
            sum = stats;
            in_flight == 0
        });
        let ends = sum.finished() + sum.client_gone + sum.dropped + sum.cut;
        assert_eq!(sum.accepted, ends, "{service}: accepted = answered + named: {sum:#?}");
        sum
    }
}

/// Steady requests, whatever the answers do.
fn load(address: SocketAddr, rate_per_second: u32, post_share: f64) -> LoadHandle {
    let options = LoadOptions { rate_per_second, post_share, ..LoadOptions::new(address) };
    Load::start(options).expect("the load can be started")
}

/// Another service of the file, replaced all at once.
fn service(name: &str, version: &str, listen: SocketAddr, replicas: u8, drain: &str) -> String {
    let keys = [
        ("version", version.to_owned()),
        ("command", format!("{BINARY} demo-service latency=3ms")),
        ("replicas", replicas.to_string()),
        ("health_check", HEALTH.to_owned()),
        ("route", format!("{{listen: \"{listen}\", resilience: {{retries: {RETRIES}}}}}")),
        ("strategy", "{type: blue-green, steps: [{set_weight: 100}]}".to_owned()),
        ("rollback", NO_JUDGE.to_owned()),
        ("scale_down_delay", "100ms".to_owned()),
        ("stop_timeout", "1s".to_owned()),
        ("drain_timeout", drain.to_owned()),
    ];
    let lines: Vec<_> = keys.iter().map(|(key, value)| format!("    {key}: {value}")).collect();
    format!("  {name}:\n{}", lines.join("\n"))
}

/// Answers that are no success, of a load whose requests all got one.
fn refusals(report: &LoadReport) -> u64 {
    assert_eq!(
        (report.failures.total(), report.connections_closed_by_server),
        (0, 0),
        "{report:#?}"
    );
    assert_eq!((report.answered_total(), report.skipped), (report.sent, 0), "{report:#?}");
    report.sent - report.by_status.get(&200).copied().unwrap_or_default()
}

/// `web`: everything answered, but to those who went away.
fn adds_up(stats: &ArmStats, visits: &Visits, more: u64) {
    let sum = |of: fn(&Tally) -> u64| visits.values().map(of).sum::<u64>();
    let (sent, left, tunnels) = (sum(|t| t.sent), sum(|t| t.left), sum(|t| t.tunnels));
    let faults = [stats.connect_failed, stats.broken, stats.timed_out, stats.breaker_open];
    assert_eq!((faults, stats.dropped), ([0; 4], 0), "{stats:#?}");
    assert_eq!((stats.cut, stats.tunnels_cut), (0, 0), "{stats:#?}");
    assert_eq!(stats.accepted, sent + more, "{stats:#?}\n{visits:#?}");
    assert_eq!((stats.client_gone, stats.responses[0]), (left, tunnels), "{visits:#?}");
    assert_eq!(stats.responses[1], sent + more - left - tunnels, "{stats:#?}");
}

/// Ends the weather, also when a rollout has failed: whoever waits for it would wait for ever.
struct Calming<'a>(&'a AtomicBool);

impl Drop for Calming<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_storm_of_switches_upgrades_and_deaths_loses_nothing_and_names_every_cut() {
    let storm = Storm::up();
    let site = &storm.site;
    let visitors = Visitors::start(site.address());
    let resting = Resting::open(&visitors, site.address());
    let web = load(site.address(), RATES[0], 0.3);
    let repeatable = load(storm.frail, RATES[1], 0.0);
    let others = load(storm.frail, RATES[1], 1.0);
    let (over, raging) = (AtomicBool::new(false), Mutex::new(()));
    let (switches, toll) = thread::scope(|scope| {
        let weather = scope.spawn(|| weather::rages(site, "f1", &raging, &over));
        let calming = Calming(&over);
        let switches = storm.rolls_out(&raging);
        drop(calming);
        (switches, weather.join().expect("the weather goes on to its end"))
    });
    assert!(switches >= 50, "{switches}");
    let Toll { upgrades, control_deaths, instance_deaths } = toll;
    assert!(upgrades >= 20 && control_deaths >= 3 && instance_deaths >= 3, "{toll:?}");
    let stayed = storm.cuts_who_stays(&visitors) as u64;

    let rested = resting.ask_again(&visitors);
    let web = site.stop(web);
    all_answered(&web);
    assert_eq!((refusals(&web), web.connections_closed_by_server), (0, 0));
    let visits = visitors.stop();
    assert!(visits.values().all(Tally::is_flawless), "{visits:#?}");
    adds_up(&storm.account("web"), &visits, web.sent + rested);

    let (repeatable, others) = (site.stop(repeatable), site.stop(others));
    let frail = storm.account("frail");
    assert_eq!(refusals(&repeatable), 0, "{repeatable:#?}");
    assert_eq!(frail.accepted, repeatable.sent + others.sent);
    assert_eq!(frail.failed(), refusals(&others), "each is named once: {frail:#?}");

    let held = storm.account("held");
    assert_eq!((held.cut, held.tunnels_cut), (stayed / 2, stayed / 2), "{held:#?}");
    let ledger = site.ledger();
    assert_eq!((ledger.unrouted, ledger.refused), (0, 0));
    wait_for("the end of all processes that were replaced", || site.pids(Role::Proxy).len() == 1);
}
