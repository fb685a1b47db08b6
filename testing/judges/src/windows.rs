//! Runs that see what a scrape every 15 seconds sees: counters and histograms of the candidate, of a
//! twin of the baseline as large as the candidate, and of the baseline that serves the rest.

use std::collections::VecDeque;

use switchback_domain::histogram::{BUCKETS, bucket_of, upper_bound};

use crate::arm::{Drawn, Draws};
use crate::random::Random;
use crate::scenario::{Prepared, State};

/// Seconds between scrapes.
pub const SCRAPE: u64 = 15;
/// Scripts are asked every so many seconds.
const STEP: u64 = 5;
/// Scrapes that make a minute.
const MINUTE: usize = 4;
/// A client gives a request up after so many scrapes: half a minute.
const GIVES_UP: usize = 2;
/// Buckets of the data plane per bucket here.
const JOINED: usize = 4;

/// What was counted in a span of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Requests that ended.
    pub requests: u64,
    /// Failed ones.
    pub failed: u64,
    buckets: Vec<u32>,
}

impl Default for Window {
    fn default() -> Self {
        Self { requests: 0, failed: 0, buckets: vec![0; BUCKETS.div_ceil(JOINED)] }
    }
}

impl Window {
    fn add(&mut self, drawn: &Drawn) {
        self.requests += drawn.answered;
        self.failed += drawn.failed;
        for (micros, count) in &drawn.latencies {
            self.buckets[bucket_of(*micros) / JOINED] += count;
        }
    }

    fn give_up(&mut self, hung: u64) {
        self.requests += hung;
        self.failed += hung;
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, more)| *mine += more);
    }

    /// The share of failed requests; `None` without requests.
    pub fn error_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.failed as f64 / self.requests as f64)
    }

    /// A quantile in milliseconds, by linear interpolation within its bucket.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.buckets.iter().map(|count| u64::from(*count)).sum();
        let rank = share * all as f64;
        let mut below = 0.0;
        for (at, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = f64::from(*count);
            if below + count >= rank {
                let (low, high) = edges(at);
                return Some((low + (high - low) * (rank - below) / count) / 1000.0);
            }
            below += count;
        }
        None
    }

    /// Requests slower than so many microseconds, to the end of a bucket.
    pub fn slower(&self, micros: u64) -> u64 {
        let first = bucket_of(micros) / JOINED + 1;
        self.buckets.iter().skip(first).map(|count| u64::from(*count)).sum()
    }

    /// Answers, failed ones too.
    pub fn answered(&self) -> u64 {
        self.slower(0) + u64::from(self.buckets[0])
    }
}

/// Where a bucket begins and ends, in microseconds.
fn edges(at: usize) -> (f64, f64) {
    let begin = if at == 0 { 0.0 } else { upper_bound(at * JOINED - 1) as f64 };
    (begin, upper_bound((at * JOINED + JOINED - 1).min(BUCKETS - 1)) as f64)
}

/// Counts of all three.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arms {
    /// The version on trial.
    pub candidate: Window,
    /// Fresh replicas of the version that serves, with as much traffic as the candidate.
    pub twin: Window,
    /// The version that serves, all of the rest.
    pub production: Window,
}

impl Arms {
    fn each(&mut self) -> [&mut Window; 3] {
        [&mut self.candidate, &mut self.twin, &mut self.production]
    }
}

/// What a scrape shows.
#[derive(Debug, Clone)]
pub struct Look {
    /// Seconds since the candidate's first request.
    pub second: u64,
    /// Since the scrape before.
    pub scrape: Arms,
    /// The last minute.
    pub minute: Arms,
    /// The 90th percentile of the baseline before the rollout, microseconds.
    pub known_p90: f64,
    /// Its 99th percentile, milliseconds.
    pub known_p99_millis: f64,
}

/// Who decides by scrapes.
pub trait Judge {
    /// Whether it rolls back now.
    fn rolls_back(&mut self, look: &Look) -> bool;
}

/// A run of a prepared scenario.
pub struct Run<'a> {
    prepared: &'a Prepared<'a>,
    state: State,
    random: Random,
    draws: &'a mut Draws,
    last: VecDeque<Arms>,
    hung: VecDeque<[u64; 3]>,
    look: Look,
    /// Candidate requests so far, and failed ones.
    spent: (u64, u64),
}

impl<'a> Run<'a> {
    /// The start of a run.
    pub fn new(prepared: &'a Prepared<'a>, draws: &'a mut Draws, seed: u64, run: u64) -> Self {
        let name = &prepared.scenario.name;
        Self {
            state: State::new(seed, name, run),
            random: Random::new(seed, &format!("{name}, scraped"), run),
            draws,
            last: VecDeque::new(),
            hung: VecDeque::from(vec![[0; 3]; GIVES_UP]),
            look: Look {
                second: 0,
                scrape: Arms::default(),
                minute: Arms::default(),
                known_p90: prepared.usual().quantile(0.9),
                known_p99_millis: prepared.usual().quantile(0.99) / 1000.0,
            },
            spent: (0, 0),
            prepared,
        }
    }

    /// Candidate requests so far, and failed ones.
    pub fn spent(&self) -> (u64, u64) {
        self.spent
    }

    /// The next scrape.
    pub fn scrape(&mut self) -> &Look {
        let mut arms = Arms::default();
        let mut hung = [0; 3];
        for _ in 0..SCRAPE / STEP {
            self.step(&mut arms, &mut hung);
            self.look.second += STEP;
        }
        self.hung.push_back(hung);
        let given_up = self.hung.pop_front().unwrap_or_default();
        arms.each().into_iter().zip(given_up).for_each(|(arm, hung)| arm.give_up(hung));
        self.last.push_back(arms.clone());
        if self.last.len() > MINUTE {
            self.last.pop_front();
        }
        self.look.minute = Arms::default();
        for arms in &mut self.last.clone() {
            let sums = self.look.minute.each();
            sums.into_iter().zip(arms.each()).for_each(|(sum, arm)| sum.merge(arm));
        }
        self.look.scrape = arms;
        &self.look
    }

    fn step(&mut self, arms: &mut Arms, hung: &mut [u64; 3]) {
        let (at, span) = (self.look.second as f64, STEP as f64);
        let moment = self.prepared.scenario.moment(&mut self.state, at, span);
        let share = f64::from(moment.weight.basis_points()) / 10_000.0;
        let requests = self.prepared.scenario.rate * moment.rate * span;
        let mut drawn = Drawn::default();
        let mean = requests * share / moment.replicas as f64;
        for version in &moment.candidate[..moment.replicas] {
            let ready = &self.prepared.candidate[*version];
            self.draws.some(&mut self.random, 1000 + version, ready, mean, &mut drawn);
            arms.candidate.add(&drawn);
            hung[0] += drawn.hung;
            self.spent.0 += drawn.requests();
            self.spent.1 += drawn.failed + drawn.hung;
        }
        let ready = &self.prepared.baseline[moment.baseline];
        let rest = (1.0 - 2.0 * share).max(0.0);
        for (at, share) in [(1, share), (2, rest)] {
            let mean = requests * share;
            self.draws.some(&mut self.random, moment.baseline, ready, mean, &mut drawn);
            arms.each()[at].add(&drawn);
            hung[at] += drawn.hung;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_slow_ones_are_counted_within_a_bucket() {
        let mut window = Window::default();
        let latencies = (1..=1000).map(|at| (at * 100, 1)).collect();
        window.add(&Drawn { answered: 1000, failed: 10, hung: 0, latencies });
        for share in [0.5, 0.9, 0.99] {
            let found = window.quantile(share).unwrap_or_default();
            assert!((found / (100.0 * share) - 1.0).abs() < 0.02, "{share}: {found}");
        }
        assert!((window.slower(50_000) as f64 - 500.0).abs() < 25.0);
        assert_eq!(window.error_rate(), Some(0.01));
        assert_eq!((Window::default().quantile(0.5), Window::default().error_rate()), (None, None));
    }
}
