//! `switchback-judges [--smoke | --full] [--json] [--seed N] [--threads N] [--write PAGE]
//! [--break NAME] [--runs N]`: what `cargo xtask bench judge` runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
#![allow(clippy::cast_precision_loss, reason = "for people")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use switchback_judges::grid::{Cell, Counts, Found, Running, Subject};
use switchback_judges::report::Report;
use switchback_judges::smoke::Mutation;
use switchback_judges::{cost, figures, grid, live, page, scenarios, smoke, vectors};

/// What an instance of the live check is started with, and the directory it writes to.
const INSTANCE: &str = "--instance";
const USAGE: &str = "usage: switchback-judges [options]

  --smoke            a minute's worth, checked; the exit code says whether all of it holds
  --full             the whole protocol instead of a shorter one
  --json             print one JSON document instead of the tables
  --seed N           another seed than 1
  --threads N        as many threads; results do not depend on it
  --from DOCUMENT    run nothing: make the tables of a document written with --json
  --write PAGE       put the tables into this page, between the marks
  --break NAME       break something on purpose (smoke only): alpha, tolerance, share, counting,
                     sessions or warm-up
  --runs N           so many runs of ours per healthy scenario, a tenth of it outside of the
                     guarantee, a fifth per regression, and a thirtieth of the others
  --minutes N        begin nothing after that: fewer runs, the first ones
  --only TEXT        scenarios whose name holds this
  --ours             ours alone, without the others
  --costs            with --from: measure anew what the judge costs on this machine
  --live             the main regressions through the shipped program on this machine, beside what
                     the simulation says of them; needs --binary
  --binary FILE      the program under test
  --rounds N         rollouts of each regression: 10
  --rate N           requests a second: 500";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    mode: Mode,
    json: bool,
    seed: u64,
    threads: usize,
    write: Option<String>,
    from: Option<String>,
    mutation: Mutation,
    runs: Option<u64>,
    only: Option<String>,
    ours: bool,
    costs: bool,
    minutes: Option<u64>,
    binary: Option<PathBuf>,
    rounds: u64,
    rate: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Smoke,
    Usual,
    Full,
    Live,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Usual => "usual",
            Self::Full => "full",
            Self::Live => "live",
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, directory] = arguments.as_slice()
        && mode == INSTANCE
    {
        return told_why(live::instance::serve(Path::new(directory)).map(|()| ExitCode::SUCCESS));
    }
    match parse(&arguments).and_then(|options| run(&options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(64)
        }
    }
}

/// The code, or the error with its causes.
fn told_why(result: Result<ExitCode, live::Error>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("{}", with_causes(&error));
        ExitCode::FAILURE
    })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        mode: Mode::Usual,
        json: false,
        seed: 1,
        threads: cores,
        write: None,
        from: None,
        mutation: Mutation::Nothing,
        runs: None,
        only: None,
        ours: false,
        costs: false,
        minutes: None,
        binary: None,
        rounds: live::ROUNDS,
        rate: live::RATE,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value =
            || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
        match argument.as_str() {
            "--smoke" => options.mode = Mode::Smoke,
            "--full" => options.mode = Mode::Full,
            "--json" => options.json = true,
            "--seed" => options.seed = number(&value()?)?,
            "--threads" => options.threads = number(&value()?)?,
            "--from" => options.from = Some(value()?),
            "--write" => options.write = Some(value()?),
            "--runs" => options.runs = Some(number(&value()?)?),
            "--minutes" => options.minutes = Some(number(&value()?)?),
            "--only" => options.only = Some(value()?),
            "--ours" => options.ours = true,
            "--costs" => options.costs = true,
            "--live" => options.mode = Mode::Live,
            "--binary" => options.binary = Some(value()?.into()),
            "--rounds" => options.rounds = number(&value()?)?,
            "--rate" => options.rate = number(&value()?)?,
            "--break" => {
                let name = value()?;
                let known = Mutation::named(&name);
                options.mutation =
                    known.ok_or_else(|| format!("cannot break {name}\n\n{USAGE}"))?;
            }
            _ => return Err(format!("unknown option: {argument}\n\n{USAGE}")),
        }
    }
    if options.mutation != Mutation::Nothing && options.mode != Mode::Smoke {
        return Err(format!("--break goes with --smoke\n\n{USAGE}"));
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number\n\n{USAGE}"))
}

fn run(options: &Options) -> Result<ExitCode, String> {
    if options.mode == Mode::Live {
        return check_live(options);
    }
    if let Some(name) = &options.from {
        let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
        let mut report = Report::read(&text).map_err(|error| format!("{name}: {error}"))?;
        let cost = if options.costs { costs() } else { None };
        report.figures.extend(figures::figures(&report.found, cost));
        return deliver(options, &report);
    }
    let vectors = vectors::check();
    if !vectors.broken.is_empty() {
        let broken = vectors.broken.join("\n  ");
        eprintln!("no comparison: models of the others fail their published vectors\n  {broken}");
        return Ok(ExitCode::FAILURE);
    }
    let (counts, cells) = plan(options);
    let found = grid::run(&cells, &running(options, &told));
    let broken = if options.mode == Mode::Smoke { smoke(options, &found) } else { Vec::new() };
    let cost = costs();
    let report = Report {
        mode: options.mode.name().to_owned(),
        seed: options.seed,
        command: command(options),
        counts,
        vectors: vectors.passed,
        figures: figures::figures(&found, cost),
        found,
        broken,
    };
    deliver(options, &report)
}

fn costs() -> Option<cost::Cost> {
    scenarios::all().into_iter().next().map(|iid| cost::measure(&iid))
}

fn check_live(options: &Options) -> Result<ExitCode, String> {
    let report = match &options.from {
        Some(name) => {
            let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
            live::Report::read(&text).map_err(|error| format!("{name}: {error}"))?
        }
        None => run_live(options)?,
    };
    put(options, page::LIVE, &report.markdown())?;
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.markdown());
    }
    Ok(if report.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_live(options: &Options) -> Result<live::Report, String> {
    let Some(binary) = options.binary.clone() else {
        return Err(format!("--live needs --binary\n\n{USAGE}"));
    };
    let instance = std::env::current_exe().map_err(|error| error.to_string())?;
    let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
    let Options { rounds, rate, seed, only, .. } = options.clone();
    let live = live::Options { binary, instance, rounds, rate, seed, only };
    live::run(&live, &|words| eprintln!("live: {words}")).map_err(|error| with_causes(&error))
}

/// Puts a part into the page, if there is one.
fn put(options: &Options, part: &str, markdown: &str) -> Result<(), String> {
    let Some(name) = &options.write else { return Ok(()) };
    let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
    let text = page::put_into(&text, part, markdown);
    std::fs::write(name, text).map_err(|error| format!("{name}: {error}"))
}

fn plan(options: &Options) -> (Counts, Vec<Cell>) {
    let mut counts = match options.mode {
        Mode::Smoke => smoke::COUNTS,
        Mode::Usual | Mode::Live => Counts::USUAL,
        Mode::Full => Counts::FULL,
    };
    if let Some(runs) = options.runs {
        let part = |of: u64| (runs / of).max(5) | 1;
        let (regressions, scrapes, methods) = (part(5), part(30), part(60));
        counts = Counts { healthy: runs, regressions, scrapes, dear: part(200), methods };
    }
    let mut cells = match options.mode {
        Mode::Smoke => {
            smoke::cells(options.mutation, counts, options.mutation == Mutation::Nothing)
        }
        Mode::Usual | Mode::Full | Mode::Live => grid::cells(scenarios::all(), counts),
    };
    if let Some(only) = &options.only {
        cells.retain(|cell| cell.scenario.name.contains(only.as_str()));
    }
    if options.ours {
        cells.retain(|cell| matches!(cell.subject, Subject::Ours(..)));
    }
    (counts, cells)
}

fn running<'a>(options: &Options, tell: &'a (dyn Fn(usize, usize) + Sync)) -> Running<'a> {
    let Options { seed, threads, .. } = *options;
    let until = options.minutes.map(|minutes| Instant::now() + Duration::from_mins(minutes));
    Running { seed, threads, until, tell }
}

/// Says on the way how far it is, twenty times.
fn told(done: usize, all: usize) {
    if done * 20 / all != (done - 1) * 20 / all {
        eprintln!("{} %", done * 100 / all);
    }
}

/// What does not hold, and whether the smoke sees what is broken on purpose.
fn smoke(options: &Options, found: &[Found]) -> Vec<String> {
    let mut broken = smoke::broken(found);
    if options.mutation != Mutation::Nothing || options.only.is_some() {
        return broken;
    }
    for (mutation, name) in Mutation::ALL {
        let cells = smoke::cells(mutation, smoke::COUNTS, false);
        let found = grid::run(&cells, &running(options, &|_, _| {}));
        let seen = smoke::broken(&found);
        match seen.first() {
            Some(first) => eprintln!("broken on purpose: {name}: seen, {first}"),
            None => broken.push(format!("broken on purpose: {name}: not seen")),
        }
    }
    broken
}

fn command(options: &Options) -> String {
    let mut command = "cargo xtask bench judge".to_owned();
    match options.mode {
        Mode::Smoke => command.push_str(" --smoke"),
        Mode::Usual => {}
        Mode::Full => command.push_str(" --full"),
        Mode::Live => command.push_str(" --live"),
    }
    if let Some(minutes) = options.minutes {
        let _ = write!(command, " --minutes {minutes}");
    }
    if let Some(runs) = options.runs {
        let _ = write!(command, " --runs {runs}");
    }
    if options.seed != 1 {
        let _ = write!(command, " --seed {}", options.seed);
    }
    command
}

fn deliver(options: &Options, report: &Report) -> Result<ExitCode, String> {
    put(options, page::GRID, &report.markdown())?;
    for broken in &report.broken {
        eprintln!("broken: {broken}");
    }
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.markdown());
    }
    Ok(if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
