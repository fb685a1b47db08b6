//! One version behind the proxy: what it does with a number of requests.

use std::collections::BTreeMap;

use switchback_domain::Histogram;
use switchback_domain::histogram::upper_bound;

use crate::law::Law;
use crate::random::{Alias, PoissonTable, Random};

/// How a version behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Latency of its answers, failed ones too.
    pub law: Law,
    /// Share of the answers that are failures.
    pub fails: f64,
    /// Share of the requests that never end.
    pub hangs: f64,
}

impl Version {
    /// Answers by this law and fails so often.
    pub fn new(law: Law, fails: f64) -> Self {
        Self { law, fails, hangs: 0.0 }
    }
}

/// How finely latencies are drawn: buckets of the data plane taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Each bucket, 64 per octave.
    Fine,
    /// Four at a time: half a bin of the judge. For both versions alike, so an equal candidate
    /// stays equal.
    Coarse,
}

impl Grain {
    const fn step(self) -> usize {
        match self {
            Self::Fine => 1,
            Self::Coarse => 4,
        }
    }
}

/// A version made ready for drawing.
#[derive(Debug, Clone)]
pub struct Ready {
    fails: f64,
    hangs: f64,
    /// The latency of each atom in microseconds, ascending, and its probability.
    atoms: Vec<(u64, f64)>,
    alias: Alias,
}

impl Ready {
    /// Prepares a version.
    pub fn new(version: &Version, grain: Grain) -> Self {
        let masses = version.law.masses();
        let atom = |(at, masses): (usize, &[f64])| {
            let middle = at * grain.step() + grain.step() / 2;
            (upper_bound(middle), masses.iter().sum::<f64>())
        };
        let all = masses.chunks(grain.step()).enumerate().map(atom);
        let atoms: Vec<(u64, f64)> = all.filter(|(_, mass)| *mass > 1e-9).collect();
        let weights: Vec<f64> = atoms.iter().map(|(_, mass)| *mass).collect();
        Self { fails: version.fails, hangs: version.hangs, alias: Alias::new(&weights), atoms }
    }

    /// What becomes of one request.
    pub fn answer(&self, random: &mut Random) -> Answer {
        if random.chance(self.hangs) {
            return Answer::Never;
        }
        let (micros, _) = self.atoms[self.alias.draw(random)];
        Answer::After { micros, is_failure: random.chance(self.fails) }
    }

    /// Probability of a failed answer or of none.
    pub fn fails(&self) -> f64 {
        self.hangs + (1.0 - self.hangs) * self.fails
    }
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It hangs.
    Never,
    /// It is answered.
    After {
        /// So much later.
        micros: u64,
        /// With a failure.
        is_failure: bool,
    },
}

/// What became of some requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drawn {
    /// Requests that were answered.
    pub answered: u64,
    /// Failures among them.
    pub failed: u64,
    /// Requests without an end.
    pub hung: u64,
    /// Latencies in microseconds with their counts, ascending.
    pub latencies: Vec<(u64, u32)>,
}

impl Drawn {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.answered + self.hung
    }

    /// The longest latency in microseconds.
    pub fn slowest(&self) -> u64 {
        self.latencies.last().map_or(0, |(micros, _)| *micros)
    }

    /// The latencies as the data plane hands them on.
    pub fn histogram(&self) -> Histogram {
        let mut latency = Histogram::default();
        for (micros, count) in &self.latencies {
            latency.record_many(*micros, u64::from(*count));
        }
        latency
    }
}

/// Draws requests; keeps tables between draws. One per run or thread: the draws depend on the
/// random numbers alone.
#[derive(Debug, Default)]
pub struct Draws {
    counts: Vec<u32>,
    /// Tables by (who asks, mean).
    tables: BTreeMap<(usize, u64), Vec<PoissonTable>>,
}

impl Draws {
    /// Lets a Poisson number of requests of this mean come to `version`, known as `key`.
    pub fn some(
        &mut self,
        random: &mut Random,
        key: usize,
        version: &Ready,
        mean: f64,
        drawn: &mut Drawn,
    ) {
        drawn.latencies.clear();
        // With many requests the atoms are drawn, with few the requests. Thinned Poisson counts
        // are independent and Poisson, so it is the same law.
        if mean >= version.atoms.len() as f64 {
            let hung = mean * version.hangs;
            drawn.hung = if hung > 0.0 { random.poisson(hung) } else { 0 };
            let answered = mean - hung;
            let table = |(_, mass): &(u64, f64)| PoissonTable::new(mass * answered);
            let tables = self
                .tables
                .entry((key, mean.to_bits()))
                .or_insert_with(|| version.atoms.iter().map(table).collect());
            for (table, (micros, _)) in tables.iter().zip(&version.atoms) {
                let count = table.draw(random) as u32;
                if count > 0 {
                    drawn.latencies.push((*micros, count));
                }
            }
            drawn.answered = drawn.latencies.iter().map(|(_, count)| u64::from(*count)).sum();
        } else {
            let requests = random.poisson(mean);
            drawn.hung = random.binomial(requests, version.hangs);
            drawn.answered = requests - drawn.hung;
            self.one_by_one(random, version, drawn);
        }
        drawn.failed = random.binomial(drawn.answered, version.fails);
    }

    fn one_by_one(&mut self, random: &mut Random, version: &Ready, drawn: &mut Drawn) {
        if self.counts.len() < version.atoms.len() {
            self.counts.resize(version.atoms.len(), 0);
        }
        let (mut low, mut high) = (usize::MAX, 0);
        for _ in 0..drawn.answered {
            let at = version.alias.draw(random);
            self.counts[at] += 1;
            (low, high) = (low.min(at), high.max(at));
        }
        for at in low..=high {
            if self.counts[at] > 0 {
                drawn.latencies.push((version.atoms[at].0, std::mem::take(&mut self.counts[at])));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1.5 times 2^16: where four buckets begin.
    const EDGE: u64 = 98_304;

    #[test]
    fn one_by_one_and_all_at_once_draw_the_same_law() {
        let version =
            Ready::new(&Version { law: Law::usual(), fails: 0.01, hangs: 0.02 }, Grain::Coarse);
        let mut totals = Vec::new();
        for (mean, times) in [(10.0, 20_000), (1000.0, 200)] {
            let (mut random, mut draws) = (Random::new(3, "arm", 1), Draws::default());
            let mut found = Drawn::default();
            let mut total = [0.0; 4];
            for _ in 0..times {
                draws.some(&mut random, 0, &version, mean, &mut found);
                let slow = found.latencies.iter().filter(|(micros, _)| *micros >= EDGE);
                let slow: u32 = slow.map(|(_, count)| *count).sum();
                let parts = [found.requests(), found.failed, found.hung, u64::from(slow)];
                total.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part as f64);
            }
            totals.push(total);
        }
        let slow = 1.0 - Law::usual().below(EDGE as f64);
        let expected = [200_000.0, 1960.0, 4000.0, slow * 196_000.0];
        for total in totals {
            for (total, expected) in total.iter().zip(expected) {
                assert!(
                    (total - expected).abs() < 5.0 * libm::sqrt(expected),
                    "{total} {expected}"
                );
            }
        }
    }
}
