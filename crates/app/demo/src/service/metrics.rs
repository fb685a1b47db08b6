//! What the service counts, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use switchback_domain::Histogram;

/// Upper bounds of the exported latency buckets, in microseconds.
const BOUNDS: [u64; 8] = [1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000];

#[derive(Debug, Default)]
pub(super) struct Metrics {
    in_flight: AtomicI64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    by_status: BTreeMap<u16, u64>,
    latency: Histogram,
    latency_micros: u64,
}

/// A request that is being answered, until dropped.
pub(super) struct InFlight<'a>(&'a Metrics);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(super) fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    pub(super) fn answered(&self, status: u16, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut counts = self.counts();
        *counts.by_status.entry(status).or_default() += 1;
        counts.latency.record(micros);
        counts.latency_micros = counts.latency_micros.saturating_add(micros);
    }

    /// Everything, as `/metrics` shows it.
    pub(super) fn render(&self, version: &str, ready: bool) -> String {
        let counts = self.counts();
        let mut text = String::with_capacity(2048);
        counts.render(version, &mut text);
        drop(counts);
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let gauges = [("http_requests_in_flight", in_flight), ("service_ready", ready.into())];
        for (name, value) in gauges {
            let _ = writeln!(text, "# TYPE {name} gauge\n{name}{{version=\"{version}\"}} {value}");
        }
        text
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn render(&self, version: &str, text: &mut String) {
        let _ = writeln!(text, "# TYPE http_requests_total counter");
        for (status, count) in &self.by_status {
            let labels = format!("version=\"{version}\",status=\"{status}\"");
            let _ = writeln!(text, "http_requests_total{{{labels}}} {count}");
        }
        let name = "http_request_duration_seconds";
        let total = self.latency.count();
        let _ = writeln!(text, "# TYPE {name} histogram");
        for bound in BOUNDS {
            let below = self.latency.buckets().filter(|(micros, _)| *micros <= bound);
            let count: u64 = below.map(|(_, count)| count).sum();
            let le = Duration::from_micros(bound).as_secs_f64();
            let _ = writeln!(text, "{name}_bucket{{version=\"{version}\",le=\"{le}\"}} {count}");
        }
        let sum = Duration::from_micros(self.latency_micros).as_secs_f64();
        let _ = writeln!(text, "{name}_bucket{{version=\"{version}\",le=\"+Inf\"}} {total}");
        let _ = writeln!(text, "{name}_sum{{version=\"{version}\"}} {sum}");
        let _ = writeln!(text, "{name}_count{{version=\"{version}\"}} {total}");
    }
}
