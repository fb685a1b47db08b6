//! Latency: evidence that the candidate's whole distribution is slower than allowed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::{Histogram, Timestamp, Weight};

use super::alternatives::{self, ALTERNATIVES};
use super::bins::{BINS, Bins, Scale, Slack};
use super::evidence_cap::EvidenceCap;
use super::odds::share_of;
use super::stakes::Stakes;
use crate::math::{count, exp, ln};

/// Least time between two guesses of what a slower candidate looks like; each costs some 50 us.
const GUESS_AFTER: Duration = Duration::from_secs(1);
/// Requests that a new guess is worth: this part more than at the last one.
const GROWTH_WORTH: u64 = 16;

/// The e-process of latency (design page, 3.1): null "the candidate is stochastically at most as
/// slow as the baseline, but for the slack", which [`Bins::of_candidate`] takes off.
///
/// A request in bin `k` multiplies alternative `f` by `f_k / (rho f_k + 1 - rho)` if it was the
/// candidate's and by `1 / (rho f_k + 1 - rho)` if it was the baseline's. Alternatives are guessed
/// from what ended before the batch they bet on, so the expectation is at most 1 whatever the
/// guesses are worth.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Latency {
    scale: Scale,
    cap_micros: u64,
    seen: Arms,
    /// What was seen at the last guess: the tables follow from it.
    guessed: Option<(Timestamp, Arms)>,
    stakes: Stakes,
    cap: EvidenceCap,
    last: Timestamp,
    /// Derived: rebuilt from `guessed` after a restart.
    #[serde(skip)]
    tables: Option<Tables>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Arms {
    candidate: Bins,
    baseline: Bins,
}

/// `ln f` and `ln(rho f + 1 - rho)`, bin by bin, [`ALTERNATIVES`] numbers each.
#[derive(Debug, Clone)]
struct Tables {
    weight: Weight,
    /// `None`: the baseline is not known well enough to bet.
    ln_ratio: Option<Vec<f64>>,
    ln_mean: Vec<f64>,
}

impl Latency {
    /// Begins. `history` is what the baseline did before the rollout; `slack` how much slower the
    /// candidate may be; `cap_micros` the age at which a request counts as not ended, with the slack
    /// taken off; `nats_per_second` the evidence cap.
    pub fn new(
        history: &Histogram,
        slack: Slack,
        cap_micros: u64,
        nats_per_second: f64,
        started: Timestamp,
    ) -> Self {
        let scale = Scale::from(slack);
        let baseline = Bins::of_baseline(history, 0, cap_micros, &scale);
        Self {
            scale,
            cap_micros,
            seen: Arms { candidate: Bins::default(), baseline },
            guessed: None,
            stakes: Stakes::new(alternatives::weights(), started),
            cap: EvidenceCap::new(nats_per_second),
            last: started,
            tables: None,
        }
    }

    /// The bins that [`Self::observe`] wants.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Takes what ended, of requests that were assigned while the candidate's share was `weight`.
    pub fn observe(&mut self, now: Timestamp, weight: Weight, candidate: &Bins, baseline: &Bins) {
        self.stakes.start_due(now);
        if weight != Weight::ZERO && weight != Weight::ALL {
            self.guess(now, weight);
            self.bet(candidate, baseline);
        }
        self.cap.follow(self.stakes.ln_total(), now.since(self.last));
        self.last = self.last.max(now);
        self.seen.candidate.add(candidate);
        self.seen.baseline.add(baseline);
    }

    /// Log evidence that the candidate is slower than allowed, after the evidence cap.
    pub fn ln_evidence(&self) -> f64 {
        self.cap.ln_evidence()
    }

    /// The same before the cap.
    pub fn ln_evidence_uncapped(&self) -> f64 {
        self.stakes.ln_total()
    }

    /// Log wealth of each alternative: shifts of 1.1, 1.2, 1.35, 1.5, 2, 3, 5 and 10; 1, 5 and 20 %
    /// of the requests slower by 3, then by 10; the one learned from the candidate.
    pub fn ln_wealth(&self) -> &[f64] {
        self.stakes.ln_wealth()
    }

    /// Bytes held on the heap, tables included.
    pub fn heap_bytes(&self) -> usize {
        let tables = self.tables.as_ref().map_or(0, |tables| {
            tables.ln_mean.capacity() + tables.ln_ratio.as_ref().map_or(0, Vec::capacity)
        });
        let arms = if self.guessed.is_some() { 4 } else { 2 };
        8 * (tables + arms * BINS + 2 * BINS + 2 * ALTERNATIVES)
    }

    /// Makes the tables for `weight`, from a guess that is at most a second old.
    fn guess(&mut self, now: Timestamp, weight: Weight) {
        let is_worth_it = |then: &Bins, now: &Bins| {
            let (then, now) = (then.total(), now.total());
            now.saturating_sub(then) > then / GROWTH_WORTH
        };
        let is_due = self.guessed.as_ref().is_none_or(|(at, then)| {
            now.since(*at) >= GUESS_AFTER
                && (is_worth_it(&then.baseline, &self.seen.baseline)
                    || is_worth_it(&then.candidate, &self.seen.candidate))
        });
        if is_due {
            self.guessed = Some((now, self.seen.clone()));
            self.tables = None;
        }
        let ln_ratio = match self.tables.take() {
            Some(tables) if tables.weight == weight => {
                self.tables = Some(tables);
                return;
            }
            Some(tables) => tables.ln_ratio,
            None => self.guessed.as_ref().and_then(|(_, arms)| {
                let Arms { candidate, baseline } = arms;
                alternatives::ln_ratios(baseline, candidate, self.cap_micros, &self.scale)
            }),
        };
        self.tables = Some(Tables::new(weight, ln_ratio));
    }

    fn bet(&mut self, candidate: &Bins, baseline: &Bins) {
        let Some(tables) = &self.tables else { return };
        let Some(ln_ratio) = &tables.ln_ratio else { return };
        let rows =
            ln_ratio.chunks_exact(ALTERNATIVES).zip(tables.ln_mean.chunks_exact(ALTERNATIVES));
        let counts = candidate.counts().iter().zip(baseline.counts());
        for ((candidate, baseline), (ratio, mean)) in counts.zip(rows) {
            let both = candidate.saturating_add(*baseline);
            if both == 0 {
                continue;
            }
            let (mine, all) = (count(*candidate), count(both));
            let wealth = self.stakes.ln_wealth_mut().iter_mut();
            let bets = ratio.iter().zip(mean);
            wealth
                .zip(bets)
                .for_each(|(wealth, (ratio, mean))| *wealth += mine * ratio - all * mean);
        }
    }
}

impl Tables {
    fn new(weight: Weight, ln_ratio: Option<Vec<f64>>) -> Self {
        let share = share_of(weight);
        // The bin before often has the same ratio: one logarithm for both.
        let mut before = [(0.0, 0.0); ALTERNATIVES];
        let mean = |(at, ln_ratio): (usize, &f64)| {
            let before = &mut before[at % ALTERNATIVES];
            if ln_ratio.to_bits() != f64::to_bits(before.0) {
                *before = (*ln_ratio, ln(share * exp(*ln_ratio) + (1.0 - share)));
            }
            before.1
        };
        let ln_mean = ln_ratio.iter().flatten().enumerate().map(mean).collect();
        Self { weight, ln_ratio, ln_mean }
    }
}

/// Expected growth of the label product per request, candidate's or baseline's, if every request
/// of the candidate takes `factor` times as long and that is known: what planning needs.
pub(crate) fn information(baseline: &Bins, factor: f64, share: f64) -> f64 {
    let pairs = alternatives::densities(baseline, factor);
    let growth = |(old, new): &(f64, f64)| {
        let ratio = new / old;
        let mean = share * ratio + 1.0 - share;
        share * new * ln((ratio / mean).max(f64::MIN_POSITIVE)) - (1.0 - share) * old * ln(mean)
    };
    pairs.iter().map(growth).sum()
}
