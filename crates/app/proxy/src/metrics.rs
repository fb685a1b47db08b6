//! The counters as Prometheus text, computed on the control thread when somebody asks.

use std::collections::BTreeMap;
use std::fmt::Write;

use switchback_domain::{ArmStats, ServiceKey};
use switchback_ports::data_plane::{Report, RouteReport};

/// Upper bounds of the histogram in microseconds: from a millisecond to ten seconds, the usual
/// steps of Prometheus clients and some finer ones where services live.
const BOUNDS: [(u64, &str); 14] = [
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
];

#[derive(Default)]
struct Series {
    stats: ArmStats,
    in_flight: u64,
    ejections: u64,
    ejected: usize,
    opened: u64,
}

/// The whole page.
pub(crate) fn page(report: &Report, connections: usize) -> String {
    // Two releases of one version (a configuration rollback) are one series.
    let mut series: BTreeMap<String, Series> = BTreeMap::new();
    for arm in &report.arms {
        let (key, version) = (&arm.arm.service, &arm.version);
        // Names hold nothing that would have to be escaped.
        let labels = format!(
            "service=\"{}\",environment=\"{}\",version=\"{version}\"",
            key.service, key.environment
        );
        let one = series.entry(labels).or_default();
        one.stats = one.stats.merge(&arm.stats);
        one.in_flight += arm.in_flight;
        one.ejections += arm.trouble.ejections;
        one.ejected += arm.trouble.ejected.len();
        one.opened += arm.trouble.breaker_opened;
    }
    let mut text = String::new();
    requests(&mut text, &series);
    durations(&mut text, &series);
    in_flight(&mut text, &series);
    trouble(&mut text, &series);
    by_service(&mut text, report);
    own(&mut text, report, connections);
    text
}

/// Writing to a `String` cannot fail.
macro_rules! line {
    ($text:expr, $($argument:tt)*) => {
        let _ = writeln!($text, $($argument)*);
    };
}

/// Failures that the client saw as a 502, 503 or 504 of ours count as 5xx.
fn requests(text: &mut String, series: &BTreeMap<String, Series>) {
    line!(text, "# HELP http_requests_total Requests by the class of the answer clients got.");
    line!(text, "# TYPE http_requests_total counter");
    for (labels, Series { stats, .. }) in series {
        let own = stats.connect_failed
            + stats.broken
            + stats.timed_out
            + stats.breaker_open
            + stats.dropped;
        for (class, count) in stats.responses.iter().enumerate() {
            let count = count + if class == 4 { own } else { 0 };
            line!(text, "http_requests_total{{{labels},code_class=\"{}xx\"}} {count}", class + 1);
        }
    }
    line!(
        text,
        "# HELP switchback_proxy_failures_total Requests without a whole answer, by cause."
    );
    line!(text, "# TYPE switchback_proxy_failures_total counter");
    for (labels, Series { stats, .. }) in series {
        let causes = [
            ("connect_failed", stats.connect_failed),
            ("broken", stats.broken),
            ("timed_out", stats.timed_out),
            ("breaker_open", stats.breaker_open),
            ("client_gone", stats.client_gone),
            ("dropped", stats.dropped),
            ("cut", stats.cut),
            ("tunnel_cut", stats.tunnels_cut),
        ];
        for (cause, count) in causes {
            line!(text, "switchback_proxy_failures_total{{{labels},cause=\"{cause}\"}} {count}");
        }
    }
    line!(text, "# HELP switchback_proxy_retries_total Attempts repeated elsewhere.");
    line!(text, "# TYPE switchback_proxy_retries_total counter");
    for (labels, Series { stats, .. }) in series {
        line!(text, "switchback_proxy_retries_total{{{labels}}} {}", stats.retried);
    }
}

fn durations(text: &mut String, series: &BTreeMap<String, Series>) {
    let name = "http_request_duration_seconds";
    line!(text, "# HELP {name} Time to the end of the response.");
    line!(text, "# TYPE {name} histogram");
    for (labels, Series { stats, .. }) in series {
        let mut buckets = stats.latency.buckets().peekable();
        let mut count = 0;
        for (bound, le) in BOUNDS {
            while let Some((_, more)) = buckets.next_if(|(upper, _)| *upper <= bound) {
                count += more;
            }
            line!(text, "{name}_bucket{{{labels},le=\"{le}\"}} {count}");
        }
        let total = stats.latency.count();
        line!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
        #[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let sum = stats.latency.mean().unwrap_or(0.0) * total as f64 / 1e6;
        line!(text, "{name}_sum{{{labels}}} {sum:.6}");
        line!(text, "{name}_count{{{labels}}} {total}");
    }
}

fn in_flight(text: &mut String, series: &BTreeMap<String, Series>) {
    line!(text, "# HELP http_requests_in_flight Requests on their way now.");
    line!(text, "# TYPE http_requests_in_flight gauge");
    for (labels, one) in series {
        line!(text, "http_requests_in_flight{{{labels}}} {}", one.in_flight);
    }
}

fn trouble(text: &mut String, series: &BTreeMap<String, Series>) {
    line!(text, "# HELP switchback_proxy_ejections_total Instances passed over for failing.");
    line!(text, "# TYPE switchback_proxy_ejections_total counter");
    for (labels, one) in series {
        line!(text, "switchback_proxy_ejections_total{{{labels}}} {}", one.ejections);
    }
    line!(text, "# HELP switchback_proxy_ejected Instances that are passed over now.");
    line!(text, "# TYPE switchback_proxy_ejected gauge");
    for (labels, one) in series {
        line!(text, "switchback_proxy_ejected{{{labels}}} {}", one.ejected);
    }
    line!(text, "# HELP switchback_proxy_breaker_opened_total Circuit breakers that opened.");
    line!(text, "# TYPE switchback_proxy_breaker_opened_total counter");
    for (labels, one) in series {
        line!(text, "switchback_proxy_breaker_opened_total{{{labels}}} {}", one.opened);
    }
}

/// What no version has to do with.
fn by_service(text: &mut String, report: &Report) {
    type Outcomes = fn(&RouteReport) -> Vec<(&'static str, u64)>;
    let families: [(&str, &str, &str, Outcomes); 6] = [
        ("fallbacks_total", "counter", "Answers in place of the version's, by kind.", |of| {
            vec![("version", of.rescued), ("stale", of.stale), ("answer", of.canned)]
        }),
        ("retries_denied_total", "counter", "Repetitions above the budget.", |of| {
            vec![("", of.unrepeated)]
        }),
        (
            "turned_away_total",
            "counter",
            "Requests that an operation turned away, by cause.",
            |of| {
                vec![
                    ("maintenance", of.maintenance),
                    ("isolated", of.isolated),
                    ("hold_full", of.hold_full),
                    ("hold_expired", of.hold_expired),
                    ("hold_left", of.hold_left),
                    ("rate_limited", of.rate_limited),
                    ("client_limited", of.client_limited),
                    ("bulkhead_full", of.bulkhead_full),
                    ("pending_left", of.pending_left),
                    ("overloaded", of.overloaded),
                ]
            },
        ),
        ("held", "gauge", "Requests held back now.", |of| vec![("", of.held)]),
        ("released_total", "counter", "Held requests that went on.", |of| vec![("", of.released)]),
        ("mirrored_total", "counter", "Copies of requests for the candidate, by outcome.", |of| {
            vec![
                ("answered", of.mirrored),
                ("dropped", of.mirror_dropped),
                ("failed", of.mirror_failed),
            ]
        }),
    ];
    for (name, kind, help, outcomes) in families {
        line!(text, "# HELP switchback_proxy_{name} {help}");
        line!(text, "# TYPE switchback_proxy_{name} {kind}");
        for of in &report.routes {
            let ServiceKey { environment, service } = &of.service;
            let labels = format!("service=\"{service}\",environment=\"{environment}\"");
            for (outcome, count) in outcomes(of) {
                let outcome = match outcome {
                    "" => String::new(),
                    outcome => format!(",outcome=\"{outcome}\""),
                };
                line!(text, "switchback_proxy_{name}{{{labels}{outcome}}} {count}");
            }
        }
    }
}

fn own(text: &mut String, report: &Report, connections: usize) {
    let generation = report.generation;
    line!(text, "# HELP switchback_proxy_generation Number of the table in force in its epoch.");
    line!(text, "# TYPE switchback_proxy_generation gauge");
    let epoch = generation.epoch.0;
    line!(text, "switchback_proxy_generation{{epoch=\"{epoch}\"}} {}", generation.counter);
    let listening = report.listeners.iter().filter(|listener| listener.error.is_none()).count();
    let numbers = [
        ("unrouted_total", "counter", "Requests without a route or split.", report.unrouted),
        ("refused_total", "counter", "Requests refused before routing.", report.refused),
        ("connections", "gauge", "Open client connections and tunnels.", connections as u64),
        ("listeners", "gauge", "Addresses listened on.", listening as u64),
    ];
    for (name, kind, help, value) in numbers {
        line!(text, "# HELP switchback_proxy_{name} {help}");
        line!(text, "# TYPE switchback_proxy_{name} {kind}");
        line!(text, "switchback_proxy_{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use switchback_ports::data_plane::conformance::sample_arm;
    use switchback_ports::data_plane::{ArmReport, ArmTrouble};

    use super::*;

    fn arm(release: &str, micros: &[u64]) -> ArmReport {
        let mut stats =
            ArmStats { responses: [0, 2, 0, 0, 0], timed_out: 1, ..ArmStats::default() };
        for micros in micros {
            stats.latency.record(*micros);
        }
        let sample = sample_arm(release, &[]);
        let version = sample_arm("v1", &[]).version;
        let in_flight_by_instance = BTreeMap::new();
        ArmReport {
            arm: sample.id,
            version,
            in_flight: 1,
            in_flight_by_instance,
            stats,
            trouble: ArmTrouble::default(),
        }
    }

    #[test]
    fn releases_of_one_version_are_one_series_and_buckets_are_cumulative() {
        let arms = vec![arm("a", &[900, 2_000]), arm("b", &[40_000, 99_000_000])];
        let isolated =
            RouteReport { isolated: 3, held: 2, ..RouteReport::new(arms[0].arm.service.clone()) };
        let text = page(&Report { arms, routes: vec![isolated], ..Report::default() }, 7);
        let labels = "service=\"sample\",environment=\"test\",version=\"v1\"";
        for expected in [
            format!("http_requests_total{{{labels},code_class=\"2xx\"}} 4"),
            format!("http_requests_total{{{labels},code_class=\"5xx\"}} 2"),
            format!("http_request_duration_seconds_bucket{{{labels},le=\"0.001\"}} 1"),
            format!("http_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 3"),
            format!("http_request_duration_seconds_bucket{{{labels},le=\"30\"}} 3"),
            format!("http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("http_requests_in_flight{{{labels}}} 2"),
            "switchback_proxy_turned_away_total{service=\"sample\",environment=\"test\",outcome=\"isolated\"} 3".to_owned(),
            "switchback_proxy_held{service=\"sample\",environment=\"test\"} 2".to_owned(),
            "switchback_proxy_generation{epoch=\"0\"} 0".to_owned(),
            "switchback_proxy_connections 7".to_owned(),
        ] {
            assert_eq!(
                text.lines().filter(|line| **line == expected).count(),
                1,
                "{expected}\n{text}"
            );
        }
    }
}
