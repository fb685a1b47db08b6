//! Many schedules: spread over the processors, added up in an order of their own, so that the
//! result does not depend on how many threads there were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::random::mix;
use crate::simulation::run;
use crate::trace::{Mark, Trace};

/// One of so many schedules is run twice, and has to leave the same fingerprint.
const TWICE: u64 = 100;
/// Failing seeds that are listed.
const LISTED: usize = 20;

/// What many schedules showed.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Schedules that were run.
    pub schedules: u64,
    /// Of those, so many were run twice.
    pub repeated: u64,
    /// Events that engines were told.
    pub events: u64,
    /// Messages that control planes were told.
    pub messages: u64,
    /// Faults that struck.
    pub strikes: u64,
    /// The seeds under which something did not hold, and what.
    pub failures: BTreeMap<u64, String>,
    /// What was reached, how often.
    pub marks: BTreeMap<Mark, u64>,
    /// Where rollouts were before and after which event.
    pub transitions: BTreeMap<Mark, BTreeSet<&'static str>>,
    /// One fingerprint over all.
    pub hash: u64,
}

impl Tally {
    fn add(&mut self, seed: u64, result: Result<Trace, String>) {
        self.schedules += 1;
        match result {
            Ok(trace) => {
                self.events += trace.events;
                self.messages += trace.messages;
                self.strikes += trace.strikes;
                self.hash = self.hash.wrapping_add(mix(seed, trace.hash));
                for (mark, count) in trace.marks {
                    *self.marks.entry(mark).or_default() += count;
                }
                for (from_and_event, to) in trace.transitions {
                    self.transitions.entry(from_and_event).or_default().extend(to);
                }
            }
            Err(what) => {
                self.failures.insert(seed, what);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.repeated += other.repeated;
        self.events += other.events;
        self.messages += other.messages;
        self.strikes += other.strikes;
        self.failures.extend(other.failures);
        self.hash = self.hash.wrapping_add(other.hash);
        for (mark, count) in other.marks {
            *self.marks.entry(mark).or_default() += count;
        }
        for (from_and_event, to) in other.transitions {
            self.transitions.entry(from_and_event).or_default().extend(to);
        }
    }

    /// What was to be reached and was not.
    pub fn unreached(&self) -> Vec<String> {
        let missing = crate::sometimes::SOMETIMES.iter();
        let missing = missing.filter(|mark| !self.marks.contains_key(*mark));
        missing.map(|(kind, detail)| format!("{kind}: {detail}")).collect()
    }

    /// The document that a run ends with.
    pub fn document(&self, first: u64, took: std::time::Duration, threads: usize) -> Value {
        let seconds = took.as_secs_f64().max(0.001);
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let per_second = (self.schedules as f64 / seconds).round();
        let listed: Vec<_> = self.failures.iter().take(LISTED).collect();
        let listed: Vec<_> =
            listed.iter().map(|(seed, what)| json!({"seed": seed, "what": what})).collect();
        json!({
            "schedules": self.schedules,
            "first_seed": first,
            "violations": self.failures.len(),
            "failing": listed,
            "per_second": per_second,
            "seconds": (seconds * 10.0).round() / 10.0,
            "threads": threads,
            "run_twice": self.repeated,
            "events": self.events,
            "messages": self.messages,
            "faults": self.strikes,
            "fingerprint": format!("{:016x}", self.hash),
            "sometimes_reached": crate::sometimes::SOMETIMES.len() - self.unreached().len(),
            "sometimes_unreached": self.unreached(),
        })
    }
}

/// Runs one schedule; one of a hundred twice.
fn run_one(seed: u64, tally: &mut Tally) {
    let result = run(seed, None, false).0.map_err(|failure| failure.what);
    if seed.is_multiple_of(TWICE)
        && let Ok(first) = &result
    {
        tally.repeated += 1;
        let again = run(seed, None, false).0.map(|trace| trace.hash);
        if again.ok() != Some(first.hash) {
            return tally.add(seed, Err("run twice, it was not the same".to_owned()));
        }
    }
    tally.add(seed, result);
}

/// Runs schedules `first` to `first + count - 1` on so many threads.
///
/// # Panics
/// When a schedule does.
pub fn run_many(first: u64, count: u64, threads: usize) -> Tally {
    let next = AtomicU64::new(0);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return tally;
            }
            run_one(first + index, &mut tally);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut all = Tally::default();
        for worker in workers {
            all.merge(worker.join().expect("a simulation does not panic"));
        }
        all
    })
}

/// The first of the schedules that fails, if any, and how many of them do; stops after so many
/// failures. For seeded bugs.
///
/// # Panics
/// When a schedule does.
pub fn find_failures(
    first: u64,
    count: u64,
    threads: usize,
    enough: u64,
    prepare: impl Fn() + Sync,
) -> (Option<u64>, u64, u64) {
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let work = || {
        prepare();
        let (mut earliest, mut ran) = (None::<u64>, 0);
        while !is_over.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            ran += 1;
            if run(first + index, None, false).0.is_err() {
                earliest = Some(earliest.map_or(index, |known| known.min(index)));
                if found.fetch_add(1, Ordering::Relaxed) + 1 >= enough {
                    is_over.store(true, Ordering::Relaxed);
                }
            }
        }
        (earliest, ran)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let results: Vec<_> =
            workers.into_iter().map(|w| w.join().expect("a simulation does not panic")).collect();
        let earliest = results.iter().filter_map(|(earliest, _)| *earliest).min();
        (earliest, found.load(Ordering::Relaxed), results.iter().map(|(_, ran)| ran).sum())
    })
}

/// A stopwatch for the document.
pub fn timed<T>(act: impl FnOnce() -> T) -> (T, std::time::Duration) {
    let began = Instant::now();
    let result = act();
    (result, began.elapsed())
}
