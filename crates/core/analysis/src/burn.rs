//! SLO burn rate in several windows: a guard of the whole service, not a test of the candidate.
//!
//! A candidate with 5 % of the traffic hides in it for hours; trouble that hits both versions does
//! not. So what fires here is a reason to hold, or an alarm after promotion.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::Timestamp;

use crate::math::count;

/// Slots per long window; the short one is a twelfth of it, that is five slots.
const SLOTS: u32 = 60;
const SLOTS_SHORT: u64 = 5;
/// Bad events in the long window before a rate means anything.
const BAD_MIN: u64 = 10;

/// What an alarm asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Wake somebody.
    Page,
    /// Have a look within days.
    Ticket,
}

/// The windows of the SRE workbook, chapter 5: long window, burn rate, urgency. At these rates 2 %,
/// 5 % and 10 % of a 30-day budget are gone within the window.
pub const RULES: [(Duration, f64, Urgency); 3] = [
    (Duration::from_hours(1), 14.4, Urgency::Page),
    (Duration::from_hours(6), 6.0, Urgency::Page),
    (Duration::from_hours(72), 1.0, Urgency::Ticket),
];

/// Watches one service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BurnRate {
    #[serde(with = "crate::math::exact")]
    objective: f64,
    windows: Vec<Window>,
}

/// (slot, bad, all) of a long window, oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Window(VecDeque<(u64, u64, u64)>);

/// A rule that fires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alarm {
    /// The long window.
    pub window: Duration,
    /// What the rule asks for.
    pub urgency: Urgency,
    /// Burn rate over the long window: 1 uses up the budget exactly at the end of the period.
    pub burn: f64,
    /// The rate at which it fires.
    pub limit: f64,
}

impl BurnRate {
    /// Begins; `objective` is the share of requests that must succeed, such as 0.999.
    pub fn new(objective: f64) -> Self {
        let windows = RULES.iter().map(|_| Window::default()).collect();
        Self { objective: objective.clamp(0.0, 1.0 - 1e-9), windows }
    }

    /// Counts requests of the whole service.
    pub fn observe(&mut self, now: Timestamp, requests: u64, bad: u64) {
        for (window, rule) in self.windows.iter_mut().zip(RULES) {
            window.observe(slot(now, rule.0), bad, requests);
        }
    }

    /// The rules that fire: both the long window and its last twelfth burn faster than allowed.
    pub fn alarms(&self, now: Timestamp) -> Vec<Alarm> {
        let look = |(window, (long, limit, urgency)): (&Window, (Duration, f64, Urgency))| {
            let slot = slot(now, long);
            let (bad, all) = window.sum(slot, u64::from(SLOTS));
            let (bad_short, all_short) = window.sum(slot, SLOTS_SHORT);
            let burn = self.burn(bad, all);
            let fires = bad >= BAD_MIN && burn > limit && self.burn(bad_short, all_short) > limit;
            fires.then_some(Alarm { window: long, urgency, burn, limit })
        };
        self.windows.iter().zip(RULES).filter_map(look).collect()
    }

    fn burn(&self, bad: u64, all: u64) -> f64 {
        if all == 0 { 0.0 } else { count(bad) / count(all) / (1.0 - self.objective) }
    }
}

fn slot(now: Timestamp, long: Duration) -> u64 {
    let millis = u64::try_from((long / SLOTS).as_millis()).unwrap_or(1).max(1);
    now.as_millis() / millis
}

impl Window {
    fn observe(&mut self, slot: u64, bad: u64, all: u64) {
        match self.0.back_mut() {
            // A clock that goes back adds to the newest slot.
            Some(newest) if newest.0 >= slot => {
                newest.1 = newest.1.saturating_add(bad);
                newest.2 = newest.2.saturating_add(all);
            }
            Some(_) | None => self.0.push_back((slot, bad, all)),
        }
        let oldest = slot.saturating_sub(u64::from(SLOTS));
        while self.0.front().is_some_and(|(at, _, _)| *at < oldest) {
            self.0.pop_front();
        }
    }

    fn sum(&self, now: u64, slots: u64) -> (u64, u64) {
        let is_within = |(slot, _, _): &&(u64, u64, u64)| slot + slots > now;
        let add = |sum: (u64, u64), slot: &(u64, u64, u64)| (sum.0 + slot.1, sum.1 + slot.2);
        self.0.iter().filter(is_within).fold((0, 0), add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes of 1,000 requests until the rule of the hour fires, after a quiet one.
    fn minutes_until_alarm(bad_per_minute: u64) -> Option<u64> {
        let mut burn = BurnRate::new(0.999);
        let at = |minute: u64| Timestamp::from_millis(minute * 60_000);
        (0..60).for_each(|minute| burn.observe(at(minute), 1000, 0));
        (60..600).find_map(|minute| {
            burn.observe(at(minute), 1000, bad_per_minute);
            burn.alarms(at(minute)).iter().any(|it| it.window == RULES[0].0).then_some(minute - 59)
        })
    }

    #[test]
    fn a_rate_fires_when_the_budgets_share_is_gone() {
        // (1 - SLO) / error ratio * window * burn: 0.001 / 0.05 * 60 * 14.4 = 17.3 minutes.
        assert_eq!(minutes_until_alarm(50), Some(18));
        assert_eq!(minutes_until_alarm(1), None, "a burn of one is what the budget is for");
    }

    #[test]
    fn an_alarm_ends_when_the_short_window_is_clean() {
        let mut burn = BurnRate::new(0.999);
        let at = |minute: u64| Timestamp::from_millis(minute * 60_000);
        (0..60).for_each(|minute| burn.observe(at(minute), 1000, 100));
        assert_eq!(burn.alarms(at(59)).len(), 3);
        (60..66).for_each(|minute| burn.observe(at(minute), 1000, 0));
        assert!(burn.alarms(at(65)).iter().all(|alarm| alarm.window > RULES[0].0));
    }

    #[test]
    fn a_slot_leaves_a_window_when_it_is_as_old_as_the_window_is_long() {
        let mut window = Window(VecDeque::new());
        (0..200).for_each(|slot| window.observe(slot, 1, 10));
        assert_eq!(window.sum(199, 5), (5, 50));
        assert_eq!(window.sum(204, 5), (0, 0));
        assert_eq!(window.sum(199, 1000), (u64::from(SLOTS) + 1, 10 * (u64::from(SLOTS) + 1)));
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let mut window = Window(VecDeque::new());
        for slot in [7, 6, 5] {
            window.observe(slot, 1, 10);
        }
        assert_eq!(window.sum(7, 1), (3, 30));
    }

    #[test]
    fn a_handful_of_errors_at_night_wakes_nobody() {
        let mut burn = BurnRate::new(0.999);
        burn.observe(Timestamp::from_millis(1), 20, 9);
        assert!(burn.alarms(Timestamp::from_millis(2)).is_empty());
    }
}
