//! Random numbers of our own: the same on every machine, for ever, and a stream of its own for
//! every run, so that results do not depend on who computes them.

/// `SplitMix64` (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

/// The finalizer of `SplitMix64`.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number for a name, to be mixed into seeds (FNV-1a).
pub fn number_of(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

impl Random {
    /// The stream of one run of one cell.
    pub fn new(seed: u64, cell: &str, run: u64) -> Self {
        let start = mix(mix(seed ^ 0x5851_f42d_4c95_7f2d) ^ number_of(cell));
        Self(mix(start ^ run.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 up to, but never, 1.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// One of `0..count`.
    pub fn below(&mut self, count: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(count)) >> 64) as u64
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Successes among `trials`, each with this probability.
    pub fn binomial(&mut self, trials: u64, probability: f64) -> u64 {
        if trials == 0 || probability <= 0.0 {
            return 0;
        }
        if probability >= 1.0 {
            return trials;
        }
        if probability > 0.25 {
            return (0..trials).filter(|_| self.chance(probability)).count() as u64;
        }
        // From one success to the next.
        let scale = 1.0 / libm::log1p(-probability);
        let (mut at, mut successes) = (0.0, 0);
        loop {
            at += libm::floor(libm::log(1.0 - self.uniform()) * scale) + 1.0;
            if at > trials as f64 {
                return successes;
            }
            successes += 1;
        }
    }

    /// A Poisson count (products of uniforms; for large means the transformed rejection of
    /// Hoermann 1993).
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean < 12.0 {
            let (limit, mut product, mut count) = (libm::exp(-mean), self.uniform(), 0);
            while product > limit {
                product *= self.uniform();
                count += 1;
            }
            return count;
        }
        let b = 0.931 + 2.53 * libm::sqrt(mean);
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let squeeze = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let (u, v) = (self.uniform() - 0.5, self.uniform());
            let rim = 0.5 - u.abs();
            let count = libm::floor((2.0 * a / rim + b) * u + mean + 0.43);
            if rim >= 0.07 && v <= squeeze {
                return count as u64;
            }
            if count < 0.0 || (rim < 0.013 && v > rim) {
                continue;
            }
            let left = libm::log(v * inverse_alpha / (a / (rim * rim) + b));
            if left <= count * libm::log(mean) - mean - libm::lgamma(count + 1.0) {
                return count as u64;
            }
        }
    }
}

/// Draws from a list of weights in constant time (Walker 1977, set up as by Vose 1991).
#[derive(Debug, Clone)]
pub struct Alias(Vec<(u32, u32)>);

impl Alias {
    /// Prepares these weights; at least one must be positive.
    pub fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let count = weights.len() as f64;
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight / total * count).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|at| scaled[*at] < 1.0);
        let mut cells: Vec<(u32, u32)> =
            (0..weights.len()).map(|at| (u32::MAX, at as u32)).collect();
        while let (Some(low), Some(high)) = (small.pop(), large.pop()) {
            cells[low] = ((scaled[low] * f64::from(u32::MAX)) as u32, high as u32);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 { small.push(high) } else { large.push(high) }
        }
        Self(cells)
    }

    /// The index drawn.
    pub fn draw(&self, random: &mut Random) -> usize {
        let bits = random.bits();
        let cell = (((bits >> 32) * self.0.len() as u64) >> 32) as usize;
        let (keep, other) = self.0[cell];
        if bits as u32 <= keep { cell } else { other as usize }
    }
}

/// Poisson counts of a fixed mean in constant time.
#[derive(Debug, Clone)]
pub struct PoissonTable {
    first: u64,
    alias: Alias,
}

impl PoissonTable {
    /// Prepares this mean, which is positive. What is rarer than about one in 10^12 is left out.
    pub fn new(mean: f64) -> Self {
        let reach = 7.5 * libm::sqrt(mean) + 12.0;
        let first = libm::floor((mean - reach).max(0.0)) as u64;
        let last = libm::ceil(mean + reach) as u64;
        let mass = |count: u64| {
            let count = count as f64;
            libm::exp(count * libm::log(mean) - mean - libm::lgamma(count + 1.0))
        };
        let mut masses: Vec<f64> = (first..=last).map(mass).collect();
        while masses.len() > 1 && masses.last().is_some_and(|mass| *mass < 1e-13) {
            masses.pop();
        }
        Self { first, alias: Alias::new(&masses) }
    }

    /// A count.
    pub fn draw(&self, random: &mut Random) -> u64 {
        self.first + self.alias.draw(random) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance over many draws, in standard errors from what they should be.
    fn deviation(draw: impl Fn(&mut Random) -> f64, mean: f64, variance: f64) -> (f64, f64) {
        let mut random = Random::new(7, "moments", 1);
        let count = 200_000.0;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..200_000 {
            let value = draw(&mut random) - mean;
            sum += value;
            squares += value * value;
        }
        let off = (sum / count) / libm::sqrt(variance / count);
        (off, squares / count / variance)
    }

    #[test]
    fn counts_have_the_mean_and_variance_of_their_laws() {
        for mean in [0.001, 0.5, 5.0, 11.9, 12.1, 80.0, 950.0] {
            let table = PoissonTable::new(mean);
            for (off, spread) in [
                deviation(|random| random.poisson(mean) as f64, mean, mean),
                deviation(|random| table.draw(random) as f64, mean, mean),
            ] {
                assert!(off.abs() < 4.0 && (spread - 1.0).abs() < 0.2, "{mean}: {off} {spread}");
            }
        }
        for probability in [0.001, 0.2, 0.7] {
            let variance = 40.0 * probability * (1.0 - probability);
            let draw = |random: &mut Random| random.binomial(40, probability) as f64;
            let (off, spread) = deviation(draw, 40.0 * probability, variance);
            assert!(off.abs() < 4.0 && (spread - 1.0).abs() < 0.1, "{probability}");
        }
    }

    #[test]
    fn an_alias_table_draws_by_weight() {
        let (alias, mut random) = (Alias::new(&[1.0, 0.0, 7.0, 2.0]), Random::new(1, "", 1));
        let mut seen = [0; 4];
        (0..100_000).for_each(|_| seen[alias.draw(&mut random)] += 1);
        assert!(seen[1] == 0 && (seen[0] - 10_000_i32).abs() < 400, "{seen:?}");
        assert!((seen[2] - 70_000_i32).abs() < 700, "{seen:?}");
    }

    #[test]
    fn runs_and_cells_have_streams_of_their_own() {
        let first = |seed, cell, run| Random::new(seed, cell, run).bits();
        assert_eq!(first(1, "a", 1), first(1, "a", 1));
        let others = [first(2, "a", 1), first(1, "b", 1), first(1, "a", 2)];
        assert!(others.iter().all(|bits| *bits != first(1, "a", 1)));
    }
}
