//! When a certificate is to be ordered: at once if there is none, at two thirds of its life, and
//! after a failure later and later. An authority that names a time is taken at its word.
//!
//! Times are the wall clock's: certificates and authorities go by it.

use std::time::Duration;

use switchback_domain::Timestamp;

/// After the first failure. With the doubling there are five attempts in the first hour: what
/// Let's Encrypt allows one account to fail for a name.
const PAUSE_FIRST: Duration = Duration::from_mins(2);
/// However often it has failed, a certificate with a third of 90 days left is tried 120 times.
const PAUSE_MAX: Duration = Duration::from_hours(6);
/// Doublings beyond this change nothing that the longest pause would not cut.
const DOUBLINGS_MAX: u32 = 16;
/// Certificates that were ordered together are not renewed together: up to a twentieth of their
/// lives earlier.
const SPREAD: f64 = 0.05;

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: Timestamp,
    /// Not after.
    pub until: Timestamp,
}

impl Validity {
    /// When it is to be renewed; `random` spreads those of the same age.
    pub fn renewal(&self, random: u32) -> Timestamp {
        let life = self.until.since(self.from);
        self.from + life * 2 / 3 - life.mul_f64(SPREAD * share(random))
    }
}

/// What has been tried since the last success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// How often it failed.
    pub count: u32,
    /// When it did so last.
    pub last: Timestamp,
    /// Before when the authority does not want to be asked again.
    pub not_before: Timestamp,
}

impl Failures {
    /// One more, at `now`, with what the authority said about asking again.
    #[must_use]
    pub fn and(self, now: Timestamp, not_before: Option<Timestamp>) -> Self {
        let not_before = not_before.unwrap_or_default().max(self.not_before);
        Self { count: self.count.saturating_add(1), last: now, not_before }
    }

    /// Somebody says that the cause is gone: nothing has to be waited for but the authority.
    #[must_use]
    pub fn forgiven(self) -> Self {
        Self { count: 0, ..self }
    }

    /// The first moment for another attempt.
    fn pause_ends(&self, random: u32) -> Timestamp {
        let Some(doublings) = self.count.checked_sub(1) else { return self.not_before };
        let pause = PAUSE_FIRST.saturating_mul(1 << doublings.min(DOUBLINGS_MAX)).min(PAUSE_MAX);
        let pause = pause + pause.mul_f64(share(random) / 4.0);
        (self.last + pause).max(self.not_before)
    }
}

/// When the next certificate is to be ordered. `random` is drawn once for each certificate.
pub fn order_due(kept: Option<&Validity>, failures: &Failures, random: u32) -> Timestamp {
    let wanted = kept.map_or_else(Timestamp::default, |kept| kept.renewal(random));
    wanted.max(failures.pause_ends(random))
}

fn share(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn days(count: u64) -> Timestamp {
        Timestamp::from_millis(count * 86_400_000)
    }

    fn minutes(count: u64) -> Timestamp {
        days(100) + Duration::from_mins(count)
    }

    #[test]
    fn what_is_missing_is_due_at_once_and_what_is_there_at_two_thirds_of_its_life() {
        assert_eq!(order_due(None, &Failures::default(), 7), Timestamp::default());
        let kept = Validity { from: days(100), until: days(190) };
        assert_eq!(order_due(Some(&kept), &Failures::default(), 0), days(160));
        let early = order_due(Some(&kept), &Failures::default(), u32::MAX);
        assert_eq!(early, days(160) - Duration::from_hours(108));
        let nonsense = Validity { from: days(2), until: days(1) };
        assert_eq!(nonsense.renewal(u32::MAX), days(2), "a life of nothing");
    }

    #[test]
    fn an_hour_sees_five_attempts_and_pauses_end_at_six_hours() {
        let mut failures = Failures::default();
        let mut at = Vec::new();
        let mut now = minutes(0);
        for _ in 0..12 {
            at.push(now.since(minutes(0)).as_secs() / 60);
            failures = failures.and(now, None);
            now = order_due(None, &failures, 0);
        }
        assert_eq!(at[..6], [0, 2, 6, 14, 30, 62]);
        assert_eq!(at[11] - at[10], 360);
    }

    #[test]
    fn the_authority_is_taken_at_its_word_also_when_failures_are_forgiven() {
        let failures = Failures::default().and(minutes(0), Some(minutes(90)));
        assert_eq!(order_due(None, &failures, u32::MAX), minutes(90));
        assert_eq!(order_due(None, &failures.forgiven(), u32::MAX), minutes(90));
        let later = failures.and(minutes(91), None);
        assert_eq!(order_due(None, &later, 0), minutes(95));
        assert_eq!(order_due(None, &later.forgiven(), 0), minutes(90));
    }

    proptest! {
        #[test]
        fn nothing_is_asked_before_its_pause_has_ended(
            count in 1_u32.., last in 0_u64..1 << 50, wish in 0_u64..1 << 50, random: u32,
        ) {
            let (last, not_before) = (Timestamp::from_millis(last), Timestamp::from_millis(wish));
            let failures = Failures { count, last, not_before };
            let due = order_due(None, &failures, random);
            prop_assert!(due >= last + PAUSE_FIRST && due >= not_before);
        }
    }
}
