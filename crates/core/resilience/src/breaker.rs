//! When a version is not asked any more for a while, and how it is tried again.
//!
//! Two signs, because each alone is blind to something: failures in a row are seen at once, but
//! one good answer in between hides them; a share over ten seconds sees those, but needs requests.
//! Whoever is refused here is the version's failure: the data plane counts it as such.

use std::time::Duration;

use switchback_domain::resilience::BreakerPolicy;

use crate::Moment;
use crate::moment::nanos;

const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(1);
/// Good answers in a row, one at a time, that show that it has recovered.
const PROBES: u32 = 3;
/// Who opens again so soon after closing has not recovered: the rest is doubled.
const RELAPSE: Duration = Duration::from_mins(1);
/// Doublings beyond this change nothing that a cap would not cut.
const DOUBLINGS_MAX: u32 = 20;

/// Whether a request may go to the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Yes,
    /// It may, and its end decides whether others may: tell it by [`Breaker::observe`] or
    /// [`Breaker::abandon`].
    Probe,
    /// Not before this has passed.
    No(Duration),
}

/// What a breaker does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It lets everything through.
    Closed,
    /// It lets nothing through.
    Open,
    /// It lets one request through at a time.
    HalfOpen,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { since: Moment },
    Open { until: Moment },
    HalfOpen { is_probing: bool, good: u32 },
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    good: u32,
    bad: u32,
}

/// The breaker of one version.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    bad_in_a_row: u32,
    slots: [Slot; SLOTS],
    /// The number of the newest slot since the clock's zero.
    newest: u64,
    relapses: u32,
    opened: u64,
}

impl Breaker {
    /// A closed one.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            state: State::Closed { since: Moment::default() },
            bad_in_a_row: 0,
            slots: [Slot::default(); SLOTS],
            newest: 0,
            relapses: 0,
            opened: 0,
        }
    }

    /// What it does now.
    pub fn state(&self, now: Moment) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Asks for a request.
    pub fn admit(&mut self, now: Moment) -> Admission {
        match &mut self.state {
            State::Closed { .. } => Admission::Yes,
            State::Open { until } if now < *until => Admission::No(until.since(now)),
            State::Open { .. } => {
                self.state = State::HalfOpen { is_probing: true, good: 0 };
                Admission::Probe
            }
            State::HalfOpen { is_probing: true, .. } => Admission::No(SLOT),
            State::HalfOpen { is_probing, .. } => {
                *is_probing = true;
                Admission::Probe
            }
        }
    }

    /// A request has ended, well or not. What was let through before it opened, and ends after,
    /// tells nothing new.
    pub fn observe(&mut self, now: Moment, is_good: bool, is_probe: bool) {
        match (self.state, is_probe) {
            (State::Closed { since }, _) => self.count(now, is_good, since),
            (State::HalfOpen { good, .. }, true) if is_good && good + 1 < PROBES => {
                self.state = State::HalfOpen { is_probing: false, good: good + 1 };
            }
            (State::HalfOpen { .. }, true) if is_good => self.close(now),
            (State::HalfOpen { .. }, true) => {
                self.relapses = self.relapses.saturating_add(1);
                self.open(now);
            }
            (State::HalfOpen { .. }, false) | (State::Open { .. }, _) => {}
        }
    }

    /// A probe ended without telling anything: its client went away.
    pub fn abandon(&mut self) {
        if let State::HalfOpen { is_probing, .. } = &mut self.state {
            *is_probing = false;
        }
    }

    fn count(&mut self, now: Moment, is_good: bool, since: Moment) {
        let slot = self.slot(now);
        if is_good {
            slot.good = slot.good.saturating_add(1);
            self.bad_in_a_row = 0;
            return;
        }
        slot.bad = slot.bad.saturating_add(1);
        self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
        if self.bad_in_a_row < self.policy.failures.max(1) && !self.is_share_low() {
            return;
        }
        let has_relapsed = self.opened > 0 && now.since(since) < RELAPSE;
        self.relapses = if has_relapsed { self.relapses.saturating_add(1) } else { 0 };
        self.open(now);
    }

    fn is_share_low(&self) -> bool {
        let sum = |of: fn(&Slot) -> u32| self.slots.iter().map(|slot| u64::from(of(slot))).sum();
        let (good, bad): (u64, u64) = (sum(|slot| slot.good), sum(|slot| slot.bad));
        let all = good + bad;
        let least = u64::from(self.policy.success_min.basis_points());
        all >= u64::from(self.policy.requests_min.max(1)) && good * 10_000 < least * all
    }

    fn open(&mut self, now: Moment) {
        let factor = 1_u32 << self.relapses.min(DOUBLINGS_MAX);
        let rest = self.policy.open.saturating_mul(factor).min(self.policy.open_max);
        self.state = State::Open { until: now + rest.max(self.policy.open) };
        self.opened += 1;
    }

    fn close(&mut self, now: Moment) {
        self.state = State::Closed { since: now };
        self.bad_in_a_row = 0;
        self.slots = [Slot::default(); SLOTS];
    }

    /// The slot of now; empties those that have expired.
    fn slot(&mut self, now: Moment) -> &mut Slot {
        let number = (now.as_nanos() / nanos(SLOT)).max(self.newest);
        let passed = (number - self.newest).min(SLOTS as u64);
        for expired in 0..passed {
            self.slots[index(number - expired)] = Slot::default();
        }
        self.newest = number;
        &mut self.slots[index(number)]
    }
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use switchback_domain::Weight;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy::default())
    }

    fn fail(breaker: &mut Breaker, times: u32, now: Moment) {
        (0..times).for_each(|_| breaker.observe(now, false, false));
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let mut one = breaker();
        fail(&mut one, 6, at(100));
        one.observe(at(100), true, false);
        fail(&mut one, 6, at(100));
        assert_eq!(one.admit(at(100)), Admission::Yes);
        fail(&mut one, 1, at(100));
        assert_eq!(one.admit(at(200)), Admission::No(Duration::from_millis(900)));
        assert_eq!((one.state(at(200)), one.opened()), (BreakerState::Open, 1));
    }

    #[test]
    fn a_low_share_opens_it_once_there_are_enough_requests() {
        let policy = BreakerPolicy { failures: 100, ..BreakerPolicy::default() };
        let mut one = Breaker::new(policy);
        for n in 0..9 {
            one.observe(at(n * 500), true, false);
            one.observe(at(n * 500), false, false);
        }
        one.observe(at(5_000), false, false);
        assert_eq!(one.admit(at(5_000)), Admission::Yes, "nineteen say nothing");
        one.observe(at(5_000), false, false);
        assert!(matches!(one.admit(at(5_000)), Admission::No(_)));
        let mut slow = Breaker::new(policy);
        for n in 0..100 {
            slow.observe(at(n * 2_000), n % 3 == 0, false);
        }
        assert_eq!(slow.admit(at(200_000)), Admission::Yes, "five in ten seconds say nothing");
    }

    #[test]
    fn it_is_tried_one_by_one_and_closes_after_three() {
        let mut one = breaker();
        fail(&mut one, 7, at(0));
        for _ in 0..2 {
            assert_eq!(one.admit(at(1_000)), Admission::Probe);
            assert!(matches!(one.admit(at(1_000)), Admission::No(_)), "one at a time");
            one.observe(at(1_010), true, false);
            assert!(matches!(one.admit(at(1_010)), Admission::No(_)), "an old one does not count");
            one.observe(at(1_020), true, true);
        }
        assert_eq!(one.state(at(1_020)), BreakerState::HalfOpen);
        assert_eq!(one.admit(at(1_030)), Admission::Probe);
        one.abandon();
        assert_eq!(one.admit(at(1_040)), Admission::Probe, "a client that left tells nothing");
        one.observe(at(1_050), true, true);
        assert_eq!(one.admit(at(1_050)), Admission::Yes);
        assert_eq!(one.state(at(1_050)), BreakerState::Closed);
    }

    #[test]
    fn each_relapse_doubles_the_rest_up_to_its_cap() {
        let mut one = breaker();
        fail(&mut one, 7, at(0));
        let mut now = 0;
        for seconds in [1_u64, 2, 4, 8, 16, 32, 60, 60] {
            let Admission::No(wait) = one.admit(at(now)) else { panic!("not open") };
            assert_eq!(wait, Duration::from_secs(seconds));
            now += seconds * 1_000;
            assert_eq!(one.admit(at(now)), Admission::Probe);
            one.observe(at(now), false, true);
        }
    }

    proptest! {
        #[test]
        fn all_good_never_opens_it_and_all_bad_always_does(
            failures in 1_u32..20, count in 20_u64..100,
        ) {
            let policy = BreakerPolicy { failures, ..BreakerPolicy::default() };
            let (mut good, mut bad) = (Breaker::new(policy), Breaker::new(policy));
            for n in 0..count {
                good.observe(at(n), true, false);
                bad.observe(at(n), false, false);
            }
            prop_assert_eq!(good.opened(), 0);
            prop_assert_eq!(bad.opened(), 1);
        }

        #[test]
        fn never_more_than_one_probe_is_on_its_way(
            steps in prop::collection::vec((0_u64..3_000, 0_u8..4), 1..300),
        ) {
            let policy = BreakerPolicy { success_min: Weight::from_percent(90), ..BreakerPolicy::default() };
            let mut one = Breaker::new(policy);
            let (mut now, mut is_probing) = (0, false);
            fail(&mut one, 7, at(0));
            for (pause, step) in steps {
                now += pause;
                match step {
                    0 | 1 => if one.admit(at(now)) == Admission::Probe {
                        prop_assert!(!is_probing);
                        is_probing = true;
                    },
                    2 if is_probing => {
                        one.observe(at(now), pause % 2 == 0, true);
                        is_probing = false;
                    }
                    _ => one.observe(at(now), pause % 3 == 0, false),
                }
            }
        }
    }
}
