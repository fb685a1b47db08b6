//! Benchmarks against the peers: `cargo xtask bench proxy`, `switch` and `judge`.
//!
//! Everything runs on the loopback address of this machine, in one run, and is stopped again.
//! Figures of different runs are not to be compared; ratios of one run are.

mod address;
mod goals;
mod idle;
mod judge;
mod load;
mod peers;
mod plan;
mod process;
mod proxy;
mod report;
mod sample;
mod scale;
mod statistics;
mod switch;
mod upgrade;
mod upstream;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use report::Report;
use world::World;

/// The page that holds the tables.
const PAGE: &str = "docs/benchmarks.md";

/// Words for `cargo xtask` without a command.
pub(crate) const USAGE: &str = "  bench proxy|switch  measure us beside nginx, HAProxy and kamal-proxy; needs nginx, haproxy, wrk
    --quick             less of everything, under 60 s after the build
    --json              print one JSON document instead of the tables
    --write             put the tables into docs/benchmarks.md
    --binary FILE       measure this build of switchback instead of building it
  bench judge         the judge beside others in simulated rollouts; the same results everywhere
    --smoke             less of it, under 60 s after the build; fails if anything is not as it should be
    --full              all of the protocol: hours
    --json              print one JSON document instead of the tables
    --write             put the tables into docs/decision-engine.md
    --live              the main regressions through the shipped program, beside the simulated ones
    --seed N, --threads N, --minutes N, --runs N, --only TEXT, --from FILE, --costs, --ours,
    --break NAME, --rounds N, --rate N, --binary FILE

  bench scale         the control plane with 10,000 services and 1,000 rollouts, killed and resumed
    --quick             a tenth of it, under 60 s after the build
    --json              print one JSON document instead of the table
    --write             put the table into docs/reliability.md";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Options {
    quick: bool,
    json: bool,
    write: bool,
    binary: Option<PathBuf>,
}

/// Runs one benchmark: `which`, and its options.
pub(crate) fn run(root: &Path, which: &str, arguments: &[&str]) -> Result<ExitCode> {
    match which {
        "judge" => return judge::run(root, arguments),
        "scale" => return scale::run(root, arguments),
        _ => {}
    }
    let bench = match which {
        "proxy" => proxy::run,
        "switch" => switch::run,
        _ => bail!("no such benchmark: {which}; there are proxy, switch, judge and scale"),
    };
    let options = parse(arguments)?;
    let world = World::new(root, options.binary.as_deref(), options.quick)?;
    let report = bench(&world)?;
    deliver(root, &options, &report)?;
    Ok(ExitCode::SUCCESS)
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--write" => options.write = true,
            "--binary" => {
                options.binary = Some(rest.next().context("--binary needs a file")?.into());
            }
            _ => bail!("unknown option of bench: {argument}\n\n{USAGE}"),
        }
    }
    Ok(options)
}

fn deliver(root: &Path, options: &Options, report: &Report) -> Result<()> {
    if options.write {
        let page = root.join(PAGE);
        let text = std::fs::read_to_string(&page).unwrap_or_else(|_| report::EMPTY_PAGE.to_owned());
        std::fs::write(&page, report.put_into(&text)).context("cannot write the page")?;
    }
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.markdown());
    }
    Ok(())
}

/// Where and with whom: what a reader needs to weigh the figures, and no more.
fn setting(world: &World) -> Result<String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let kernel: Vec<_> = release.split(['.', '-']).take(2).collect();
    let mut peers = Vec::new();
    for peer in peers::PEERS.iter().filter(|peer| !peer.key().starts_with(peers::OURS)) {
        if peer.can(world, plan::Routes::One) {
            peers.push(peer.title(world)?);
        }
    }
    let (cores, kernel) = (world.cores, kernel.join("."));
    Ok(format!("{cores} cores shared with load and upstream, Linux {kernel}, {}", peers.join(", ")))
}

/// A warning when others use the machine before a benchmark does.
fn busy() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    let words = "The machine was not at rest: its load average was";
    let tail = "before the run, so tails and throughput are rougher than CPU per request.";
    (load > 1.0).then(|| format!("{words} {load:.1} {tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_in_any_order_and_unknown_ones_refused() {
        let options = parse(&["--json", "--binary", "x", "--quick"]).unwrap();
        let binary = Some(PathBuf::from("x"));
        assert_eq!(options, Options { quick: true, json: true, write: false, binary });
        assert!(parse(&["--binary"]).is_err());
        assert!(parse(&["--fast"]).unwrap_err().to_string().contains("--fast"));
    }
}
