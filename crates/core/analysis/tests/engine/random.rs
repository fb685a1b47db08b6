//! Random numbers of our own: the same on every machine, for ever.

/// `SplitMix64` (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// From 0 up to, but never, 1.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Standard normal (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Trials up to and with the first success of this probability.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn geometric(&mut self, probability: f64) -> u64 {
        (libm::log(1.0 - self.uniform()) / libm::log1p(-probability)) as u64 + 1
    }
}

/// Wilson's interval for a share, at 95 %.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn wilson(hits: usize, runs: usize) -> (f64, f64) {
    let (share, runs, z) = (hits as f64 / runs as f64, runs as f64, 1.959_964_f64);
    let scale = 1.0 + z * z / runs;
    let center = (share + z * z / (2.0 * runs)) / scale;
    let half = z * libm::sqrt(share * (1.0 - share) / runs + z * z / (4.0 * runs * runs)) / scale;
    (center - half, center + half)
}

/// The median of an odd number of values, or the upper one of the middle two.
pub(crate) fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}
