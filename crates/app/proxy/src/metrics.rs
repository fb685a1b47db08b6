//! The counters as Prometheus text, computed on the control thread when somebody asks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use switchback_domain::timing::{self, Timing};
use switchback_domain::{ArmStats, Histogram, ServiceKey};
use switchback_ports::data_plane::{Report, RouteReport};

use crate::access_log::AccessLog;

/// The bounds of [`timing::BOUNDS`] in seconds, as Prometheus writes them.
const BOUNDS: [&str; timing::BOUNDS.len()] = [
    "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5",
    "10", "30",
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
pub(crate) fn page(
    report: &Report,
    connections: usize,
    expiries: &BTreeMap<String, i64>,
    log: &AccessLog,
) -> String {
    // Two releases of one version (a configuration rollback) are one series.
    let mut series: BTreeMap<String, Series> = BTreeMap::new();
    for arm in &report.arms {
        let (key, version) = (&arm.arm.service, &arm.version);
        let version = escaped(version.as_str());
        let labels = format!("{},version=\"{version}\"", of_service(key));
        let one = series.entry(labels).or_default();
        one.stats = one.stats.merge(&arm.stats);
        one.in_flight += arm.in_flight;
        one.ejections += arm.trouble.ejections;
        one.ejected += arm.trouble.ejected.len();
        one.opened += arm.trouble.breaker_opened;
    }
    let mut text = String::new();
    requests(&mut text, &series);
    failures(&mut text, &series);
    numbers(&mut text, &series);
    durations(&mut text, &series);
    trouble(&mut text, &series);
    by_service(&mut text, report);
    own(&mut text, report, connections);
    certificates(&mut text, expiries);
    logged(&mut text, log);
    text
}

/// The labels that name a service.
fn of_service(key: &ServiceKey) -> String {
    let (service, environment) = (escaped(key.service.as_str()), key.environment.as_str());
    format!("service=\"{service}\",environment=\"{}\"", escaped(environment))
}

/// A label's value. Names hold nothing that needs it today; the page must not depend on that.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Writing to a `String` cannot fail.
macro_rules! line {
    ($text:expr, $($argument:tt)*) => {
        let _ = writeln!($text, $($argument)*);
    };
}

/// Nothing where nothing is encrypted.
fn certificates(text: &mut String, expiries: &BTreeMap<String, i64>) {
    if expiries.is_empty() {
        return;
    }
    let name = "switchback_proxy_certificate_expiry_seconds";
    line!(text, "# HELP {name} When the host's certificate ends, in seconds since 1970.");
    line!(text, "# TYPE {name} gauge");
    for (host, ends) in expiries {
        line!(text, "{name}{{host=\"{}\"}} {ends}", escaped(host));
    }
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
            line!(text, "http_requests_total{{{labels},status=\"{}xx\"}} {count}", class + 1);
        }
    }
}

fn failures(text: &mut String, series: &BTreeMap<String, Series>) {
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
}

/// One number for each version.
fn numbers(text: &mut String, series: &BTreeMap<String, Series>) {
    type Read = fn(&Series) -> u64;
    let families: [(&str, &str, &str, Read); 5] = [
        ("http_requests_in_flight", "gauge", "Requests on their way now.", |of| of.in_flight),
        (
            "switchback_proxy_accepted_total",
            "counter",
            "Requests that were given to the version.",
            |of| of.stats.accepted,
        ),
        ("switchback_proxy_retries_total", "counter", "Attempts repeated elsewhere.", |of| {
            of.stats.retried
        }),
        (
            "switchback_proxy_received_bytes_total",
            "counter",
            "Bytes of request bodies from clients.",
            |of| of.stats.bytes_in,
        ),
        (
            "switchback_proxy_sent_bytes_total",
            "counter",
            "Bytes of response bodies for clients.",
            |of| of.stats.bytes_out,
        ),
    ];
    for (name, kind, help, read) in families {
        line!(text, "# HELP {name} {help}");
        line!(text, "# TYPE {name} {kind}");
        for (labels, one) in series {
            line!(text, "{name}{{{labels}}} {}", read(one));
        }
    }
}

fn durations(text: &mut String, series: &BTreeMap<String, Series>) {
    type Read = fn(&ArmStats) -> Timing;
    let families: [(&str, &str, Read); 3] = [
        ("http_request_duration_seconds", "Time to the end of the response.", |stats| {
            classic(&stats.latency)
        }),
        ("switchback_proxy_first_byte_seconds", "Time to the head of the response.", |stats| {
            stats.first_byte.clone()
        }),
        (
            "switchback_proxy_connect_seconds",
            "Time to open a connection to an instance.",
            |stats| stats.connect.clone(),
        ),
    ];
    for (name, help, read) in families {
        line!(text, "# HELP {name} {help}");
        line!(text, "# TYPE {name} histogram");
        for (labels, one) in series {
            histogram(text, name, labels, &read(&one.stats));
        }
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, timing: &Timing) {
    let mut count = 0;
    for (le, more) in BOUNDS.iter().chain(&["+Inf"]).zip(timing.counts) {
        count += more;
        line!(text, "{name}_bucket{{{labels},le=\"{le}\"}} {count}");
    }
    #[allow(clippy::cast_precision_loss, reason = "a sum of microseconds stays below 2^52")]
    let sum = timing.sum_micros as f64 / 1e6;
    line!(text, "{name}_sum{{{labels}}} {sum:.6}");
    line!(text, "{name}_count{{{labels}}} {count}");
}

/// In the classic buckets: each of the finer ones falls into one, but for at most 1.6 %.
fn classic(latency: &Histogram) -> Timing {
    let mut timing = Timing::default();
    for (upper, count) in latency.buckets() {
        timing.counts[timing::bucket_of(upper)] += count;
    }
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts and sums stay far below 2^52"
    )]
    let sum = (latency.mean().unwrap_or(0.0) * latency.count() as f64) as u64;
    Timing { sum_micros: sum, ..timing }
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
            let labels = of_service(&of.service);
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

fn logged(text: &mut String, log: &AccessLog) {
    let name = "switchback_proxy_access_log_lines_total";
    line!(text, "# HELP {name} Lines of the access log, by what became of them.");
    line!(text, "# TYPE {name} counter");
    for (outcome, count) in [("written", log.written()), ("dropped", log.dropped())] {
        line!(text, "{name}{{outcome=\"{outcome}\"}} {count}");
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
        let log = AccessLog::new("unused".into());
        let arms = vec![arm("a", &[900, 2_000]), arm("b", &[40_000, 99_000_000])];
        let isolated =
            RouteReport { isolated: 3, held: 2, ..RouteReport::new(arms[0].arm.service.clone()) };
        let report = Report { arms, routes: vec![isolated], ..Report::default() };
        let text = page(&report, 7, &BTreeMap::from([("a.test".to_owned(), 90)]), &log);
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
        let labels = "service=\"sample\",environment=\"test\",version=\"v1\"";
        for expected in [
            format!("http_requests_total{{{labels},status=\"2xx\"}} 4"),
            format!("http_requests_total{{{labels},status=\"5xx\"}} 2"),
            format!("http_request_duration_seconds_bucket{{{labels},le=\"0.001\"}} 1"),
            format!("http_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 3"),
            format!("http_request_duration_seconds_bucket{{{labels},le=\"30\"}} 3"),
            format!("http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("http_requests_in_flight{{{labels}}} 2"),
            "switchback_proxy_turned_away_total{service=\"sample\",environment=\"test\",outcome=\"isolated\"} 3".to_owned(),
            "switchback_proxy_held{service=\"sample\",environment=\"test\"} 2".to_owned(),
            "switchback_proxy_generation{epoch=\"0\"} 0".to_owned(),
            "switchback_proxy_connections 7".to_owned(),
            "switchback_proxy_certificate_expiry_seconds{host=\"a.test\"} 90".to_owned(),
        ] {
            assert_eq!(
                text.lines().filter(|line| **line == expected).count(),
                1,
                "{expected}\n{text}"
            );
        }
    }
}
