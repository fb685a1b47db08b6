//! Closed-loop load: as many requests as a number of connections can carry, by wrk, or by h2load
//! where streams are asked for.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::plan::{HOSTS, PREFIXES, Routes};
use super::world::World;

/// Requests made ready before the clock runs, spread over the routes.
const REQUESTS_READY: usize = 2_000;

/// What the clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    /// So many streams at once on each connection.
    Http2 {
        streams: u16,
    },
}

impl Protocol {
    /// Whether there is a program that speaks it.
    pub(super) fn can(self, world: &World) -> bool {
        self == Self::Http1 || world.programs.h2load.is_some()
    }
}

/// One load on one proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) port: u16,
    pub(super) connections: u16,
    pub(super) duration: Duration,
    pub(super) routes: Routes,
    /// Ends the request's path.
    pub(super) path: &'static str,
    pub(super) protocol: Protocol,
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
        if let (Protocol::Http2 { streams }, Some(program)) =
            (self.protocol, &world.programs.h2load)
        {
            return self.run_streams(program, &world.directory("h2load")?.join("log"), streams);
        }
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

impl Load {
    /// The same over HTTP/2; `log` gets a line for each request.
    fn run_streams(&self, program: &Path, log: &Path, streams: u16) -> Result<Outcome> {
        let seconds = self.duration.as_secs().max(1);
        let mut command = Command::new(program);
        command.args(["--threads=1", &format!("--clients={}", self.connections)]);
        command.arg(format!("--max-concurrent-streams={streams}"));
        command.arg(format!("--duration={seconds}")).arg(format!("--log-file={}", log.display()));
        command.arg(format!("http://127.0.0.1:{}{}", self.port, self.path));
        let output = command.output().context("cannot start h2load")?;
        ensure!(output.status.success(), "h2load failed");
        let text = std::fs::read_to_string(log).context("h2load wrote no log")?;
        std::fs::remove_file(log).context("cannot remove h2load's log")?;
        #[allow(clippy::cast_precision_loss, reason = "a benchmark takes seconds")]
        parse_log(&text, seconds as f64)
    }
}

/// Reads lines of a start, a status and a duration, in microseconds.
#[allow(clippy::cast_precision_loss, reason = "requests of one run stay far below 2^52")]
fn parse_log(text: &str, seconds: f64) -> Result<Outcome> {
    let (mut durations, mut errors) = (Vec::new(), 0.0);
    for line in text.lines() {
        let mut fields = line.split('\t').skip(1);
        match (fields.next(), fields.next().and_then(|field| field.parse::<f64>().ok())) {
            (Some("200"), Some(duration)) => durations.push(duration),
            (Some(_), _) => errors += 1.0,
            (None, _) => bail!("h2load's log has another form: {line}"),
        }
    }
    durations.sort_unstable_by(f64::total_cmp);
    let count = durations.len();
    let at = |percent: usize| durations.get(count * percent / 100).map(|micros| micros / 1e3);
    let (Some(p50_ms), Some(p99_ms)) = (at(50), at(99)) else {
        bail!("h2load got no answer at all");
    };
    Ok(Outcome { requests: count as f64, seconds, p50_ms, p99_ms, errors })
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
    fn the_log_of_streams_is_read_line_by_line() {
        let text = "1\t200\t2000\n2\t200\t1000\n3\t503\t9\n4\t200\t3000\n";
        let expected =
            Outcome { requests: 3.0, seconds: 2.0, p50_ms: 2.0, p99_ms: 3.0, errors: 1.0 };
        assert_eq!(parse_log(text, 2.0).unwrap(), expected);
        assert!(parse_log("", 2.0).is_err() && parse_log("x", 2.0).is_err());
    }

    #[test]
    fn a_run_without_answers_is_an_error() {
        let none = "figures requests=0 duration_us=1000000 p50_us=0 p99_us=0 errors=64\n";
        for text in ["", "figures requests=1", "figures requests=x duration_us=1", none] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
