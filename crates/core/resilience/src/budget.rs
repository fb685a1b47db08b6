//! How many repetitions are allowed: a share of the requests of the last ten seconds, and a few
//! beside (Finagle's retry budget). So repetitions can never become a storm of their own.

use std::time::Duration;

use switchback_domain::resilience::RetryPolicy;

use crate::Moment;
use crate::moment::nanos;

/// After this long an unused repetition expires: Finagle's.
const LIFE: Duration = Duration::from_secs(10);
const SLOTS: usize = 10;
/// A repetition costs so many tokens; a request earns its share of that.
const COST: i64 = 10_000;

/// The balance of the last ten seconds, in slots of one second.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    /// Tokens each request earns.
    earned: i64,
    /// Tokens that are always there for ten seconds.
    reserve: i64,
    slots: [i64; SLOTS],
    /// The number of the newest slot since the clock's zero.
    newest: u64,
}

impl RetryBudget {
    /// The budget of one of `holders` that share what is always allowed.
    pub fn new(policy: &RetryPolicy, holders: u32) -> Self {
        let per_life = i64::from(policy.per_second_min) * i64::try_from(SLOTS).unwrap_or(1);
        Self {
            earned: i64::from(policy.budget.basis_points()),
            reserve: per_life * COST / i64::from(holders.max(1)),
            slots: [0; SLOTS],
            newest: 0,
        }
    }

    /// A request came.
    pub fn deposit(&mut self, now: Moment) {
        let slot = self.slot(now);
        self.slots[slot] = self.slots[slot].saturating_add(self.earned);
    }

    /// Asks for a repetition, and takes it out of the budget if there is one.
    pub fn withdraw(&mut self, now: Moment) -> bool {
        let slot = self.slot(now);
        let balance = self.slots.iter().fold(self.reserve, |sum, slot| sum.saturating_add(*slot));
        if balance < COST {
            return false;
        }
        self.slots[slot] -= COST;
        true
    }

    /// The slot of now; empties those that have expired.
    fn slot(&mut self, now: Moment) -> usize {
        let length = nanos(LIFE) / SLOTS as u64;
        let number = (now.as_nanos() / length).max(self.newest);
        let passed = (number - self.newest).min(SLOTS as u64);
        for expired in 0..passed {
            self.slots[index(number - expired)] = 0;
        }
        self.newest = number;
        index(number)
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

    fn policy(percent: u16, per_second_min: u32) -> RetryPolicy {
        let budget = Weight::from_percent(percent);
        RetryPolicy { budget, per_second_min, ..RetryPolicy::default() }
    }

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn spend(budget: &mut RetryBudget, now: Moment) -> usize {
        (0..100_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_in_a_second() {
        let mut budget = RetryBudget::new(&policy(20, 10), 1);
        assert_eq!(spend(&mut budget, at(60_000)), 100, "ten seconds' worth of the reserve");
        (0..1_000).for_each(|_| budget.deposit(at(61_000)));
        assert_eq!(spend(&mut budget, at(61_000)), 200);
        assert_eq!(spend(&mut budget, at(69_900)), 0);
        assert_eq!(spend(&mut budget, at(80_000)), 100, "debts and savings expire");
    }

    #[test]
    fn what_is_not_used_expires() {
        let mut budget = RetryBudget::new(&policy(20, 0), 1);
        (0..50).for_each(|_| budget.deposit(at(1_000)));
        assert_eq!(spend(&mut budget.clone(), at(10_900)), 10);
        assert_eq!(spend(&mut budget, at(11_000)), 0);
    }

    #[test]
    fn holders_share_the_reserve() {
        let each = RetryBudget::new(&policy(0, 10), 4);
        assert_eq!(spend(&mut each.clone(), at(1_000)), 25);
    }

    proptest! {
        #[test]
        fn in_ten_seconds_never_more_than_share_and_reserve(
            events in prop::collection::vec((0_u64..3_000, any::<bool>()), 1..400),
            percent in 0_u16..=100,
            per_second_min in 0_u32..5,
        ) {
            let mut budget = RetryBudget::new(&policy(percent, per_second_min), 1);
            let (mut now, mut requests, mut repeated) = (100_000, Vec::new(), Vec::new());
            for (pause, is_request) in events {
                now += pause;
                if is_request {
                    budget.deposit(at(now));
                    requests.push(now);
                } else if budget.withdraw(at(now)) {
                    repeated.push(now);
                }
            }
            for end in &repeated {
                // A slot of one second is the finest the machine sees.
                let within = |from: u64, times: &[u64]| {
                    times.iter().filter(|time| (from..=*end).contains(*time)).count() as u64
                };
                let allowed = within(end.saturating_sub(20_000), &requests) * u64::from(percent) / 100
                    + u64::from(per_second_min) * 10;
                prop_assert!(within(end - 8_999, &repeated) <= allowed);
            }
        }
    }
}
