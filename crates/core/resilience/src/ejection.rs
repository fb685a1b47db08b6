//! When an instance is passed over: one that refuses connections for a moment, one that fails
//! again and again for longer each time (Envoy's outlier detection).

use std::time::Duration;

use switchback_domain::resilience::EjectionPolicy;

use crate::Moment;

/// How long an instance that just refused a connection is passed over: long enough not to try it
/// with every request, short enough that a restarted one is used at once.
const REFUSED: Duration = Duration::from_secs(1);
/// The longest ejection: Envoy's.
const EJECTION_MAX: Duration = Duration::from_mins(5);

/// Whether one more of `total` instances may be ejected while `ejected` are: at most half of them,
/// and never the last.
pub fn may_eject(ejected: usize, total: usize) -> bool {
    (ejected + 1) * 2 <= total
}

/// What is held against one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ejection {
    in_a_row: u32,
    ejections: u32,
    refused_until: Moment,
    ejected_until: Moment,
}

impl Ejection {
    /// It answered well: nothing in a row any more. After as long without an ejection as the last
    /// one took, that one is forgotten too.
    pub fn succeeded(&mut self, policy: &EjectionPolicy, now: Moment) {
        self.in_a_row = 0;
        if self.ejections > 0 && now.since(self.ejected_until) >= self.length(policy) {
            self.ejections -= 1;
            self.ejected_until = now;
        }
    }

    /// It refused a connection: passed over for a moment, whatever the policy.
    pub fn refused(&mut self, now: Moment) {
        self.refused_until = now + REFUSED;
    }

    /// It took a connection again.
    pub fn took_connection(&mut self) {
        self.refused_until = Moment::default();
    }

    /// It failed. Returns whether it is ejected now; `may` says whether another one may be.
    pub fn failed(&mut self, policy: &EjectionPolicy, now: Moment, may: bool) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row < policy.failures.max(1) || self.is_ejected(now) || !may {
            return false;
        }
        self.in_a_row = 0;
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_until = now + self.length(policy);
        true
    }

    /// Until when it is passed over; a point in the past when it is not.
    pub fn until(&self) -> Moment {
        self.refused_until.max(self.ejected_until)
    }

    /// Whether it is ejected, not only passed over for having refused a connection.
    pub fn is_ejected(&self, now: Moment) -> bool {
        self.ejected_until > now
    }

    /// Whether nothing is held against it that a good answer would change.
    pub fn is_clean(&self) -> bool {
        self.in_a_row == 0 && self.ejections == 0
    }

    fn length(&self, policy: &EjectionPolicy) -> Duration {
        policy.base.saturating_mul(self.ejections).min(EJECTION_MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: EjectionPolicy = EjectionPolicy { failures: 5, base: Duration::from_secs(30) };

    fn at(seconds: u64) -> Moment {
        Moment::default() + Duration::from_secs(seconds)
    }

    fn fail(ejection: &mut Ejection, times: u32, now: Moment) -> bool {
        (0..times).filter(|_| ejection.failed(&POLICY, now, true)).count() > 0
    }

    #[test]
    fn five_failures_in_a_row_eject_and_each_time_for_longer() {
        let mut one = Ejection::default();
        assert!(!fail(&mut one, 4, at(1)));
        one.succeeded(&POLICY, at(1));
        assert!(!fail(&mut one, 4, at(1)), "not in a row");
        assert!(fail(&mut one, 1, at(1)));
        assert_eq!(one.until(), at(31));
        assert!(!fail(&mut one, 9, at(2)), "it is out already");
        assert!(one.failed(&POLICY, at(40), true), "it failed on while it was out");
        assert_eq!(one.until(), at(100));
        one.succeeded(&POLICY, at(101));
        assert!(!one.is_clean(), "not forgotten at once");
        one.succeeded(&POLICY, at(160));
        one.succeeded(&POLICY, at(190));
        assert!(one.is_clean());
    }

    #[test]
    fn a_refused_connection_is_a_matter_of_a_moment() {
        let mut one = Ejection::default();
        one.refused(at(10));
        assert_eq!((one.until(), one.is_ejected(at(10))), (at(11), false));
        one.took_connection();
        assert!(one.until() < at(10));
        assert!(fail(&mut one, 5, at(20)));
        one.took_connection();
        assert_eq!(one.until(), at(50), "an ejection stands");
    }

    proptest! {
        #[test]
        fn never_more_than_half_and_never_the_last(total in 1_usize..60) {
            let mut ejected = 0;
            while may_eject(ejected, total) {
                ejected += 1;
            }
            prop_assert!(ejected * 2 <= total);
            prop_assert!(ejected < total);
            prop_assert!((ejected + 1) * 2 > total, "as many as allowed");
        }

        #[test]
        fn no_ejection_is_longer_than_five_minutes(rounds in 1_u32..40) {
            let mut one = Ejection::default();
            let mut now = at(1);
            for _ in 0..rounds {
                prop_assert!(fail(&mut one, 5, now));
                prop_assert!(one.until().since(now) <= EJECTION_MAX);
                now = one.until() + Duration::from_millis(1);
            }
        }
    }
}
