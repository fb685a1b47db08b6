//! Runs schedules: `cargo xtask simulate` builds and calls this. Arguments and output only.

use std::io::Write as _;
use std::process::ExitCode;

use switchback_simulator::{bugs, play, record_golden, reduce, retell, run_many, timed};

const USAGE: &str = "\
simulate [--schedules N] [--seed S] [--threads T] [--json]   N schedules from seed S (default 0)
simulate --seed S [--all-faults]                             one schedule, reduced, with its timeline
simulate --play FILE                                         a scenario: what happens, as a transcript
simulate --record FILE                                       the journal that a scenario leaves behind
simulate --seeded-bugs [--schedules N] [--json]              which bugs on purpose are noticed";

#[derive(Default)]
struct Options {
    schedules: Option<u64>,
    seed: Option<u64>,
    threads: Option<usize>,
    json: bool,
    seeded_bugs: bool,
    all_faults: bool,
    only: Option<String>,
    play: Option<String>,
    record: Option<String>,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments;
    while let Some(argument) = rest.next() {
        let mut number = || {
            let text = rest.next().unwrap_or_default();
            text.replace('_', "").parse::<u64>().map_err(|_| format!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--schedules" => options.schedules = Some(number()?),
            "--seed" => options.seed = Some(number()?),
            "--threads" => options.threads = usize::try_from(number()?).ok(),
            "--json" => options.json = true,
            "--seeded-bugs" => options.seeded_bugs = true,
            "--all-faults" => options.all_faults = true,
            "--only" => options.only = rest.next(),
            "--play" => options.play = rest.next(),
            "--record" => options.record = rest.next(),
            other => return Err(format!("unknown option {other}\n\n{USAGE}")),
        }
    }
    Ok(options)
}

fn say(text: &str) {
    // Whoever closed the pipe does not want the rest.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            return ExitCode::from(64);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = options.threads.unwrap_or(cores);
    if let Some(file) = options.play.as_ref().or(options.record.as_ref()) {
        return told(file, options.record.is_some());
    }
    let is_fine = match (options.seeded_bugs, options.schedules, options.seed) {
        (true, schedules, _) => {
            let most = schedules.unwrap_or(bugs::SCHEDULES);
            let found = bugs::hunt(most, threads, options.only.as_deref());
            say(&if options.json { found.document().to_string() } else { found.table() });
            found.all_caught()
        }
        (false, None, Some(seed)) => tell_one(seed, options.all_faults),
        (false, schedules, seed) => {
            campaign(seed.unwrap_or(0), schedules.unwrap_or(20_000), threads, options.json)
        }
    };
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a scenario.
fn told(file: &str, records: bool) -> ExitCode {
    let script = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let played =
        script.and_then(|script| if records { record_golden(&script) } else { play(&script) });
    match played {
        Ok(text) => {
            let _ = write!(std::io::stdout().lock(), "{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{file}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn tell_one(seed: u64, all_faults: bool) -> bool {
    let told = retell(seed);
    match (told, all_faults) {
        (Ok(trace), _) => {
            say(&format!("{trace}\nseed {seed} holds"));
            true
        }
        (Err(failure), true) => {
            say(&failure.to_string());
            false
        }
        (Err(failure), false) => {
            match reduce(seed) {
                Some(reduced) => {
                    say(&reduced.failure.to_string());
                    let (left, struck) = (reduced.left.len(), reduced.struck);
                    say(&format!("{left} of {struck} faults suffice: {}", reduced.left.join(", ")));
                }
                None => say(&failure.to_string()),
            }
            false
        }
    }
}

fn campaign(first: u64, count: u64, threads: usize, json: bool) -> bool {
    let (tally, took) = timed(|| run_many(first, count, threads));
    if let Some(seed) = tally.failures.keys().next() {
        tell_one(*seed, false);
    }
    let document = tally.document(first, took, threads);
    if json {
        say(&document.to_string());
    } else {
        say(&serde_json::to_string_pretty(&document).unwrap_or_default());
    }
    // A short run cannot reach everything.
    let is_long = count >= 20_000;
    tally.failures.is_empty() && (!is_long || tally.unreached().is_empty())
}
