//! Closed-loop load by wrk: as many requests as a number of connections can carry.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::plan::{HOSTS, PREFIXES, Routes};
use super::world::World;

/// Requests made ready before the clock runs, spread over the routes.
const REQUESTS_READY: usize = 2_000;

/// One load on one proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) port: u16,
    pub(super) connections: u16,
    pub(super) duration: Duration,
    pub(super) routes: Routes,
    /// Ends the request's path.
    pub(super) path: &'static str,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    pub(super) requests: f64,
    pub(super) seconds: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Connections, reads, writes and statuses that failed, and timeouts.
    pub(super) errors: f64,
}

impl Load {
    /// Runs to the end.
    pub(super) fn run(&self, world: &World) -> Result<Outcome> {
        let mut command = Command::new(&world.programs.wrk);
        command.args(["--threads", "1", "--latency", "--script"]).arg(world.script());
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{}s", self.duration.as_secs().max(1))]);
        command.arg(format!("http://127.0.0.1:{}", self.port)).args(["--", self.path]);
        if self.routes == Routes::Many {
            command.args([HOSTS, PREFIXES, REQUESTS_READY].map(|number| number.to_string()));
        }
        let output = command.output().context("cannot start wrk")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "wrk failed: {}", words.trim());
        parse(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Reads the line that the script writes at the end.
fn parse(text: &str) -> Result<Outcome> {
    let line = text.lines().find_map(|line| line.strip_prefix("figures "));
    let line = line.with_context(|| format!("wrk printed no figures: {text}"))?;
    let field = |name: &str| -> Result<f64> {
        let mut pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
        let value = value.with_context(|| format!("wrk printed no {name}"))?;
        value.parse().with_context(|| format!("wrk's {name} is no number: {value}"))
    };
    let outcome = Outcome {
        requests: field("requests")?,
        seconds: field("duration_us")? / 1e6,
        p50_ms: field("p50_us")? / 1e3,
        p99_ms: field("p99_us")? / 1e3,
        errors: field("errors")?,
    };
    if outcome.requests < 1.0 || outcome.seconds <= 0.0 {
        bail!("wrk got no answer at all: {line}");
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_among_other_words() {
        let text = "Running 1s test @ http://127.0.0.1:1\n  2000 requests in 1.0s\n\
            figures requests=2000 duration_us=1000000 p50_us=150 p99_us=2500 errors=3\n";
        let expected =
            Outcome { requests: 2000.0, seconds: 1.0, p50_ms: 0.15, p99_ms: 2.5, errors: 3.0 };
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_run_without_answers_is_an_error() {
        let none = "figures requests=0 duration_us=1000000 p50_us=0 p99_us=0 errors=64\n";
        for text in ["", "figures requests=1", "figures requests=x duration_us=1", none] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
