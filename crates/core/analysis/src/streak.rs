//! A number that is read now and then, and how long it has been above its limit without a break.

use std::time::Duration;

use switchback_domain::trigger::Threshold;
use switchback_domain::{Finding, Outcome, Timestamp};

use crate::text;
use crate::trail::gap_max;

/// Readings above the limit before anything fires, however short the window: one outlier is none.
const READINGS_MIN: u32 = 3;

/// One rule about one number: CPU, memory, or a custom metric.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    rule: String,
    title: String,
    write: fn(f64) -> String,
    limit: Threshold,
    gap_max: Duration,
    streak: Option<Streak>,
}

/// Readings above the limit, without one below and without a gap.
#[derive(Debug, Clone, Copy)]
struct Streak {
    first: Timestamp,
    last: Timestamp,
    readings: u32,
}

impl Gauge {
    /// A rule and what people call its number; `interval` is the time between two readings, where
    /// it is known to be long.
    pub(crate) fn new(
        rule: impl Into<String>,
        title: impl Into<String>,
        write: fn(f64) -> String,
        limit: Threshold,
        interval: Duration,
    ) -> Self {
        let gap_max = gap_max(limit.window).max(interval * 2);
        Self { rule: rule.into(), title: title.into(), write, limit, gap_max, streak: None }
    }

    /// Forgets what was seen.
    pub(crate) fn clear(&mut self) {
        self.streak = None;
    }

    /// Takes a reading; `None`, NaN and infinity are no reading.
    pub(crate) fn read(&mut self, now: Timestamp, reading: Option<f64>) -> Finding {
        let Threshold { threshold: limit, window } = self.limit;
        let Some(number) = reading.filter(|number| number.is_finite()) else {
            return self.finding(Outcome::Undecided, None, " (no reading)");
        };
        if text::exceeds(number, limit) == Some(false) {
            self.streak = None;
            return self.finding(Outcome::Safe, Some(number), "");
        }
        let streak = self.extend(now);
        let above = now.since(streak.first);
        if limit.is_finite() && above >= window && streak.readings >= READINGS_MIN {
            let note = format!(" for {}", text::span(above));
            return self.finding(Outcome::Regressed, Some(number), &note);
        }
        let note = format!(" (for {} of {} so far)", text::span(above), text::span(window));
        self.finding(Outcome::Undecided, Some(number), &note)
    }

    fn extend(&mut self, now: Timestamp) -> Streak {
        let unbroken = self.streak.filter(|streak| now.since(streak.last) <= self.gap_max);
        let mut streak = unbroken.unwrap_or(Streak { first: now, last: now, readings: 0 });
        streak.last = now;
        streak.readings = streak.readings.saturating_add(1);
        self.streak = Some(streak);
        streak
    }

    fn finding(&self, outcome: Outcome, observed: Option<f64>, note: &str) -> Finding {
        let number = observed.map_or_else(|| "unknown".to_owned(), self.write);
        let limit = text::limit(self.limit.threshold, self.write);
        Finding {
            rule: self.rule.clone(),
            outcome,
            observed,
            limit: text::writable(self.limit.threshold),
            baseline: None,
            summary: format!("{} {number}, limit {limit}{note}", self.title),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(window: u64) -> Gauge {
        let limit = Threshold { threshold: 0.85, window: Duration::from_secs(window) };
        Gauge::new("cpu_usage", "CPU use", text::cores, limit, Duration::ZERO)
    }

    fn read(gauge: &mut Gauge, second: u64, number: f64) -> Outcome {
        gauge.read(Timestamp::from_millis(second * 1000), Some(number)).outcome
    }

    #[test]
    fn one_reading_below_the_limit_starts_the_window_anew() {
        let mut gauge = gauge(20);
        for second in 0..20 {
            assert_eq!(read(&mut gauge, second, 0.9), Outcome::Undecided, "{second}");
        }
        assert_eq!(read(&mut gauge, 20, 0.84), Outcome::Safe);
        for second in 21..41 {
            assert_eq!(read(&mut gauge, second, 0.9), Outcome::Undecided, "{second}");
        }
        assert_eq!(read(&mut gauge, 41, 0.9), Outcome::Regressed);
    }

    #[test]
    fn a_gap_or_too_few_readings_never_fire() {
        let mut gauge = gauge(20);
        for second in [0, 11, 22, 33, 44, 55] {
            assert_eq!(read(&mut gauge, second, 9.0), Outcome::Undecided, "gap before {second}");
        }
        let mut gauge = self::gauge(8);
        assert_eq!(read(&mut gauge, 0, 9.0), Outcome::Undecided);
        assert_eq!(read(&mut gauge, 9, 9.0), Outcome::Undecided, "two readings");
        assert_eq!(read(&mut gauge, 10, 9.0), Outcome::Regressed);
    }

    #[test]
    fn what_is_no_number_is_no_reading() {
        let mut gauge = gauge(10);
        for odd in [None, Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY)] {
            let finding = gauge.read(Timestamp::from_millis(0), odd);
            assert_eq!((finding.outcome, finding.observed), (Outcome::Undecided, None));
            assert_eq!(finding.summary, "CPU use unknown, limit 0.85 cores (no reading)");
        }
    }

    #[test]
    fn a_limit_that_is_no_number_is_never_kept() {
        for odd in [f64::NAN, f64::INFINITY] {
            let limit = Threshold { threshold: odd, window: Duration::from_secs(1) };
            let mut gauge =
                Gauge::new("memory_usage", "memory", text::bytes, limit, Duration::ZERO);
            for second in 0..10 {
                assert_eq!(read(&mut gauge, second, 1.0), Outcome::Undecided);
            }
        }
    }
}
