//! Latency: evidence that the candidate's whole distribution is slower than allowed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::{Histogram, Timestamp, Weight};

use super::alternatives::{self, ALTERNATIVES};
use super::bins::{BINS, Bins, Scale, Slack};
use super::evidence_cap::EvidenceCap;
use super::rungs::{self, LnMeans, Rung};
use super::stakes::Stakes;
use crate::math::{count, ln};

/// Least time between two guesses of what a slower candidate looks like; each costs some 20 us.
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
    /// The bets, bin by bin, [`ALTERNATIVES`] each; none of them while the baseline is not known
    /// well enough. Derived from `guessed`, as `means` is from the share: both are made again after
    /// a restart, to the bit.
    #[serde(skip)]
    rungs: Option<Vec<Rung>>,
    /// For the share last used.
    #[serde(skip)]
    means: Option<LnMeans>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Arms {
    candidate: Bins,
    baseline: Bins,
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
            rungs: None,
            means: None,
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
        let rungs = self.rungs.as_ref().map_or(0, |rungs| size_of_val(rungs.as_slice()));
        let means = self.means.as_ref().map_or(0, LnMeans::heap_bytes);
        let arms = if self.guessed.is_some() { 4 } else { 2 };
        rungs + means + 8 * (arms * BINS + 2 * BINS + 2 * ALTERNATIVES)
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
            self.rungs = None;
        }
        if self.rungs.is_none() {
            self.rungs = self.guessed.as_ref().map(|(_, arms)| {
                let Arms { candidate, baseline } = arms;
                alternatives::guess(baseline, candidate, self.cap_micros, &self.scale)
            });
        }
        if self.means.as_ref().is_none_or(|means| means.weight() != weight) {
            self.means = Some(LnMeans::new(weight));
        }
    }

    fn bet(&mut self, candidate: &Bins, baseline: &Bins) {
        let (Some(rungs), Some(means)) = (&self.rungs, &self.means) else { return };
        let counts = candidate.counts().iter().zip(baseline.counts());
        for ((candidate, baseline), bets) in counts.zip(rungs.chunks_exact(ALTERNATIVES)) {
            let both = candidate.saturating_add(*baseline);
            if both == 0 {
                continue;
            }
            let (mine, all) = (count(*candidate), count(both));
            let wealth = self.stakes.ln_wealth_mut().iter_mut();
            wealth.zip(bets).for_each(|(wealth, rung)| {
                *wealth += mine * rungs::ln_ratio(*rung) - all * means.of(*rung);
            });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const CAP_MICROS: u64 = 10_000_000;

    fn seen(requests: u64, scale: &Scale) -> Bins {
        let mut history = Histogram::default();
        (0..requests).for_each(|_| history.record(20_000));
        Bins::of_baseline(&history, 0, CAP_MICROS, scale)
    }

    #[test]
    fn a_guess_is_made_anew_after_a_second_in_which_enough_was_seen() {
        let begun = Timestamp::default();
        let (slack, half) = (Slack::from_percent(5), Weight::from_percent(50));
        let mut latency = Latency::new(&Histogram::default(), slack, CAP_MICROS, 2.0, begun);
        let empty = latency.heap_bytes();
        let mut look = |millis: u64, requests: u64| {
            let requests = seen(requests, latency.scale());
            let now = Timestamp::from_millis(millis);
            latency.observe(now, half, &Bins::default(), &requests);
            latency.guessed.as_ref().map(|(at, _)| at.as_millis())
        };
        assert_eq!(look(0, 80), Some(0), "the first look");
        assert_eq!(look(999, 80), Some(0), "too soon");
        assert_eq!(look(1000, 10), Some(1000));
        assert_eq!(look(3000, 1), Some(1000), "10 are not more than a sixteenth of 160");
        assert_eq!(look(4000, 1), Some(4000));
        let table = BINS * ALTERNATIVES * size_of::<Rung>();
        assert!(latency.heap_bytes() >= empty + table, "{}", latency.heap_bytes());
    }
}
