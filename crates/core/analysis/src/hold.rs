//! Trouble that both versions have: no reason to roll back, and none to go on.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::Timestamp;

use crate::label::errors::ErrorCounts;

/// How far back to look.
const WINDOW: Duration = Duration::from_secs(10);
/// Errors of the baseline within the window before there is any trouble.
const ERRORS_MIN: u64 = 10;
/// Below this share of failing requests there is none.
const RATE_MIN: f64 = 0.01;
/// Nor below this multiple of the usual share.
const MULTIPLE_MIN: f64 = 5.0;

/// Who is in trouble now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// Nobody, or the candidate alone: the label test's business.
    None,
    /// The baseline, as far as one can tell.
    Baseline,
    /// Both versions: a dependency, the network, the clients.
    Both,
}

/// Watches the last ten seconds of both versions, second by second.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SharedTrouble {
    /// (second, counts), oldest first.
    recent: VecDeque<(u64, ErrorCounts)>,
    /// Requests and errors of the baseline in quiet times.
    usual: ErrorCounts,
}

impl SharedTrouble {
    /// Begins with what the baseline did before the rollout.
    pub fn new(usual: ErrorCounts) -> Self {
        Self { recent: VecDeque::new(), usual }
    }

    /// Counts what ended.
    pub fn observe(&mut self, now: Timestamp, counts: ErrorCounts) {
        let second = now.as_millis() / 1000;
        let oldest = second.saturating_sub(WINDOW.as_secs());
        while self.recent.front().is_some_and(|(at, _)| *at <= oldest) {
            let is_quiet = self.now() == Trouble::None;
            if let Some((_, counts)) = self.recent.pop_front().filter(|_| is_quiet) {
                self.usual = self.usual.plus(counts);
            }
        }
        match self.recent.back_mut() {
            // A clock that goes back adds to the newest second.
            Some((at, sum)) if *at >= second => *sum = sum.plus(counts),
            Some(_) | None => self.recent.push_back((second, counts)),
        }
    }

    /// Who is in trouble, as of the last counts.
    pub fn now(&self) -> Trouble {
        let recent = self.window();
        let limit = (self.usual.baseline_rate() * MULTIPLE_MIN).max(RATE_MIN);
        if recent.baseline_failed < ERRORS_MIN || recent.baseline_rate() <= limit {
            return Trouble::None;
        }
        if recent.candidate_rate() > limit { Trouble::Both } else { Trouble::Baseline }
    }

    /// The last ten seconds.
    pub fn window(&self) -> ErrorCounts {
        self.recent.iter().fold(ErrorCounts::default(), |sum, (_, counts)| sum.plus(*counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(trouble: &mut SharedTrouble, at: u64, candidate_failed: u64, baseline_failed: u64) {
        let counts = ErrorCounts {
            candidate_requests: 50,
            candidate_failed,
            baseline_requests: 950,
            baseline_failed,
        };
        trouble.observe(Timestamp::from_millis(at * 1000), counts);
    }

    #[test]
    fn an_outage_of_both_is_seen_within_a_second_and_is_over_ten_seconds_after_its_end() {
        let mut trouble = SharedTrouble::default();
        (0..60).for_each(|at| second(&mut trouble, at, 0, 1));
        assert_eq!(trouble.now(), Trouble::None);
        second(&mut trouble, 60, 15, 285);
        assert_eq!(trouble.now(), Trouble::Both);
        (61..71).for_each(|at| second(&mut trouble, at, 0, 1));
        assert_eq!(trouble.now(), Trouble::None);
    }

    #[test]
    fn a_bad_candidate_is_no_shared_trouble_and_a_bad_baseline_no_reason_to_go_on() {
        let mut trouble = SharedTrouble::default();
        (0..20).for_each(|at| second(&mut trouble, at, 25, 1));
        assert_eq!(trouble.now(), Trouble::None);
        second(&mut trouble, 20, 0, 300);
        let mut bad_baseline = SharedTrouble::default();
        (0..20).for_each(|at| second(&mut bad_baseline, at, 0, 300));
        assert_eq!(bad_baseline.now(), Trouble::Baseline);
    }

    #[test]
    fn a_clock_that_goes_back_adds_to_the_newest_second() {
        let mut trouble = SharedTrouble::default();
        for at in [5, 4, 6, 7] {
            second(&mut trouble, at, 1, 2);
        }
        let window = trouble.window();
        assert_eq!((window.candidate_failed, window.baseline_failed), (4, 8));
        for (at, left) in [(14, 5), (15, 4), (16, 4), (17, 4)] {
            second(&mut trouble, at, 1, 2);
            assert_eq!(trouble.window().candidate_failed, left, "at {at}");
        }
    }

    #[test]
    fn a_candidate_that_answers_in_an_outage_of_the_baseline_shares_no_trouble() {
        let mut trouble = SharedTrouble::default();
        let counts = ErrorCounts {
            candidate_requests: 0,
            candidate_failed: 0,
            baseline_requests: 950,
            baseline_failed: 300,
        };
        trouble.observe(Timestamp::from_millis(1000), counts);
        assert_eq!(trouble.now(), Trouble::Baseline);
    }

    #[test]
    fn an_outage_does_not_become_the_usual_state() {
        let mut trouble = SharedTrouble::default();
        (0..600).for_each(|at| second(&mut trouble, at, 15, 285));
        assert_eq!(trouble.now(), Trouble::Both);
    }
}
