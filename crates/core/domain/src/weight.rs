//! Shares of traffic in basis points, and splits that always sum to the whole.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::seeded::bug;

/// A share of traffic in basis points: 0 to 10,000, where 10,000 is all of it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(u16);

/// Why a weight or a split was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More than the whole.
    #[error("{0} basis points are more than 10,000")]
    TooMuch(u64),
    /// The shares of a split do not sum to the whole.
    #[error("the shares sum to {0} basis points, not to 10,000")]
    Sum(u64),
}

impl Weight {
    /// No traffic.
    pub const ZERO: Self = Self(0);
    /// All traffic.
    pub const ALL: Self = Self(10_000);

    /// A weight in basis points.
    pub fn from_basis_points(basis_points: u16) -> Result<Self, Error> {
        if basis_points > Self::ALL.0 {
            return Err(Error::TooMuch(u64::from(basis_points)));
        }
        Ok(Self(basis_points))
    }

    /// A weight in whole percent, capped at 100.
    pub const fn from_percent(percent: u16) -> Self {
        if percent >= 100 { Self::ALL } else { Self(percent * 100) }
    }

    /// The share `part / whole`, rounded down; all of it when `part >= whole`.
    pub fn ratio(part: u32, whole: u32) -> Self {
        if part >= whole {
            return Self::ALL;
        }
        let basis_points = u64::from(part) * 10_000 / u64::from(whole);
        Self(u16::try_from(basis_points).unwrap_or(Self::ALL.0))
    }

    /// Basis points, 0 to 10,000.
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// What is left of the whole.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(10_000 - self.0)
    }

    /// How many of `replicas` it takes to carry this share, rounded up.
    pub fn share_of(self, replicas: u32) -> u32 {
        let product = u64::from(self.0) * u64::from(replicas);
        let instances =
            if bug("share-rounded-down") { product / 10_000 } else { product.div_ceil(10_000) };
        u32::try_from(instances).unwrap_or(u32::MAX)
    }
}

impl TryFrom<u16> for Weight {
    type Error = Error;
    fn try_from(basis_points: u16) -> Result<Self, Error> {
        Self::from_basis_points(basis_points)
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> u16 {
        weight.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => f.pad(&format!("{whole}%")),
            (whole, part) if part % 10 == 0 => f.pad(&format!("{whole}.{}%", part / 10)),
            (whole, part) => f.pad(&format!("{whole}.{part:02}%")),
        }
    }
}

/// Who gets which share. Either empty (nobody serves) or summing to exactly 10,000 (invariant 3).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(
    try_from = "Vec<(T, Weight)>",
    into = "Vec<(T, Weight)>",
    bound(serialize = "T: Serialize + Clone", deserialize = "T: Deserialize<'de>")
)]
pub struct Split<T>(Vec<(T, Weight)>);

impl<T> Split<T> {
    /// Nobody serves.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// One version serves everything.
    pub fn all(target: T) -> Self {
        Self(vec![(target, Weight::ALL)])
    }

    /// `candidate` gets `weight`, `baseline` the rest; shares of zero are left out.
    pub fn between(baseline: T, candidate: T, weight: Weight) -> Self {
        let rest = if bug("rest-rounded") {
            Weight(weight.complement().0 / 100 * 100 + 1)
        } else {
            weight.complement()
        };
        let shares = [(baseline, rest), (candidate, weight)];
        Self(shares.into_iter().filter(|(_, share)| *share != Weight::ZERO).collect())
    }

    /// Checks that the shares sum to the whole.
    pub fn new(mut shares: Vec<(T, Weight)>) -> Result<Self, Error> {
        let sum: u64 = shares.iter().map(|(_, weight)| u64::from(weight.0)).sum();
        if !shares.is_empty() && sum != u64::from(Weight::ALL.0) {
            return Err(Error::Sum(sum));
        }
        // A table has 10,000 of them, which have just been read.
        shares.shrink_to_fit();
        Ok(Self(shares))
    }

    /// The shares in order.
    pub fn shares(&self) -> &[(T, Weight)] {
        &self.0
    }
}

impl<T: PartialEq> Split<T> {
    /// The share of one target; zero if it is not in the split.
    pub fn weight_of(&self, target: &T) -> Weight {
        self.0.iter().find(|(name, _)| name == target).map_or(Weight::ZERO, |(_, weight)| *weight)
    }
}

impl<T> TryFrom<Vec<(T, Weight)>> for Split<T> {
    type Error = Error;
    fn try_from(shares: Vec<(T, Weight)>) -> Result<Self, Error> {
        Self::new(shares)
    }
}

impl<T> From<Split<T>> for Vec<(T, Weight)> {
    fn from(split: Split<T>) -> Self {
        split.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_sums_to_the_whole_or_is_refused() {
        for basis_points in 0..=10_000 {
            let weight = Weight::from_basis_points(basis_points).unwrap();
            let split = Split::between("old", "new", weight);
            assert!(Split::new(split.shares().to_vec()).is_ok());
            assert_eq!(split.weight_of(&"new"), weight);
        }
        let short = vec![("a", Weight::from_percent(50)), ("b", Weight::from_percent(49))];
        assert_eq!(Split::new(short).unwrap_err(), Error::Sum(9_900));
    }

    #[test]
    fn replicas_for_a_share_round_up() {
        assert_eq!(Weight::from_percent(5).share_of(3), 1);
        assert_eq!(Weight::from_percent(50).share_of(3), 2);
        assert_eq!(Weight::ALL.share_of(3), 3);
        assert_eq!(Weight::ZERO.share_of(3), 0);
    }

    #[test]
    fn weights_print_as_percent() {
        assert_eq!(Weight::from_percent(5).to_string(), "5%");
        assert_eq!(Weight::from_basis_points(1250).unwrap().to_string(), "12.5%");
        assert_eq!(Weight::from_basis_points(3333).unwrap().to_string(), "33.33%");
    }
}
