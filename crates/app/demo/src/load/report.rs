//! What became of the requests: every one sent is answered, failed, or still on its way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use switchback_domain::Histogram;

use super::connection::{Answer, Failure};

/// Stands for the version of an answer that names none: the data plane's own, usually.
pub const NO_VERSION: &str = "-";

/// Versions told apart; the answers of further ones are counted as [`NO_VERSION`].
const VERSIONS_MAX: usize = 64;

/// The ledger of a load.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadReport {
    /// Requests that left, or would have left if the connection had been accepted.
    pub sent: u64,
    /// Arrivals that never left, because all connections were busy for too long. Not in `sent`.
    pub skipped: u64,
    /// Complete answers by version: `x-version`, or the first word of the body of a 200.
    pub answered: BTreeMap<String, u64>,
    /// Those of them with a status of 500 and above.
    pub errors: BTreeMap<String, u64>,
    /// Complete answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests without a complete answer.
    pub failures: Failures,
    /// Connections the server closed, announced or not, between two requests.
    pub connections_closed_by_server: u64,
    /// Connections that were opened.
    pub connections_opened: u64,
    /// From when an answered request was due to leave until its answer was complete, in
    /// microseconds: waiting for a free connection counts, and so does the timer's rounding to
    /// the next millisecond.
    pub latency: Histogram,
}

/// Requests without a complete answer, by what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// The connection was refused or not accepted in time.
    pub connect: u64,
    /// A connection that had served before was closed under the request, before any byte of the
    /// answer: the mark of a server that hangs up on its clients.
    pub reused_before_byte: u64,
    /// A new connection was closed before any byte of the answer.
    pub fresh_before_byte: u64,
    /// The answer broke off.
    pub mid_response: u64,
    /// What came was not HTTP.
    pub malformed: u64,
    /// The answer was not complete in time.
    pub timeout: u64,
}

impl Failures {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.connect
            + self.reused_before_byte
            + self.fresh_before_byte
            + self.mid_response
            + self.malformed
            + self.timeout
    }
}

impl LoadReport {
    /// Complete answers.
    pub fn answered_total(&self) -> u64 {
        self.answered.values().sum()
    }

    /// Requests on their way.
    pub fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.answered_total() + self.failures.total())
    }

    pub(super) fn count_answer(&mut self, answer: &Answer, latency_micros: u64) {
        let named = answer.version.as_deref().unwrap_or(NO_VERSION);
        let known = self.answered.contains_key(named) || self.answered.len() < VERSIONS_MAX;
        let version = if known { named } else { NO_VERSION };
        add(&mut self.answered, version);
        if answer.status >= 500 {
            add(&mut self.errors, version);
        }
        *self.by_status.entry(answer.status).or_default() += 1;
        self.connections_closed_by_server += u64::from(answer.closes);
        self.latency.record(latency_micros);
    }

    pub(super) fn count_failure(&mut self, failure: Failure) {
        let failures = &mut self.failures;
        let count = match failure {
            Failure::Connect => &mut failures.connect,
            Failure::ReusedBeforeByte => &mut failures.reused_before_byte,
            Failure::FreshBeforeByte => &mut failures.fresh_before_byte,
            Failure::MidResponse => &mut failures.mid_response,
            Failure::Malformed => &mut failures.malformed,
            Failure::Timeout => &mut failures.timeout,
        };
        *count += 1;
    }
}

fn add(counts: &mut BTreeMap<String, u64>, version: &str) {
    match counts.get_mut(version) {
        Some(count) => *count += 1,
        None => drop(counts.insert(version.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_invents_versions_does_not_fill_the_memory() {
        let mut report = LoadReport::default();
        for number in 0..1000 {
            let version = Some(format!("v{number}"));
            report.sent += 1;
            report.count_answer(&Answer { status: 200, version, closes: false }, 1);
        }
        assert!(report.answered.len() <= VERSIONS_MAX + 1);
        assert_eq!((report.answered_total(), report.in_flight()), (1000, 0));
    }
}
