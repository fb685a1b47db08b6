//! Warm-up: new instances are slow because they are new. Latency waits, errors do not.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::{Histogram, Timestamp};

use crate::label::bins::Slack;

/// Shadow requests before their latency says anything.
const SHADOW_MIN: u64 = 50;
/// Quantiles that have to be back within the tolerance.
const QUANTILES: [f64; 2] = [0.5, 0.9];

/// How latency is kept out of the judgement while the candidate warms up (design page, 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Warmup {
    /// Copies of safe requests go to the new instances until they are as fast as the old ones, or
    /// this time is over. Preferred: it costs no user a slow answer.
    Shadow(Duration),
    /// Both versions have fresh instances of the same age: nothing to wait for.
    Twins,
    /// Latencies of this time do not count. At least four of the warm-up's time constants.
    Excluded(Duration),
}

/// Where the warm-up stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Wait before sending users.
    Warming,
    /// Send users; latency counts from this point on.
    Ready(Timestamp),
}

impl Warmup {
    /// Where the warm-up of instances that were ready at `ready` stands at `now`. `shadow` are the
    /// latencies of the newest shadow requests (not of all: the first ones were cold). Rests on
    /// time and on shadow traffic alone, so what it leaves out depends on no label.
    pub fn progress(
        self,
        ready: Timestamp,
        now: Timestamp,
        shadow: &Histogram,
        baseline: &Histogram,
        slack: Slack,
    ) -> Progress {
        match self {
            Self::Twins => Progress::Ready(ready),
            Self::Excluded(time) => Progress::Ready(ready + time),
            Self::Shadow(_) if is_warm(shadow, baseline, slack) => Progress::Ready(now),
            Self::Shadow(longest) if now.since(ready) >= longest => Progress::Ready(now),
            Self::Shadow(_) => Progress::Warming,
        }
    }
}

/// Whether shadow requests are answered within the tolerance.
pub fn is_warm(shadow: &Histogram, baseline: &Histogram, slack: Slack) -> bool {
    let holds = |quantile: f64| {
        let (new, old) = (shadow.quantile(quantile), baseline.quantile(quantile));
        new.zip(old).is_some_and(|(new, old)| slack.take_off(new) <= old)
    };
    shadow.count() >= SHADOW_MIN && QUANTILES.into_iter().all(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(micros: u64) -> Histogram {
        let mut latency = Histogram::default();
        (0..100).for_each(|step| latency.record(micros + step));
        latency
    }

    #[test]
    fn shadows_end_the_warm_up_when_they_are_fast_or_after_their_time() {
        let (start, slack) = (Timestamp::from_millis(1000), Slack::from_percent(5));
        let warmup = Warmup::Shadow(Duration::from_mins(1));
        let look = |now: Timestamp, micros: u64| {
            warmup.progress(start, now, &answers(micros), &answers(50_000), slack)
        };
        let soon = start + Duration::from_secs(5);
        assert_eq!(look(soon, 150_000), Progress::Warming);
        assert_eq!(look(soon, 51_000), Progress::Ready(soon));
        let late = start + Duration::from_mins(1);
        assert_eq!(look(late, 150_000), Progress::Ready(late));
        assert!(!is_warm(&Histogram::default(), &answers(50_000), slack), "no shadow is no proof");
    }

    #[test]
    fn an_excluded_time_ends_by_the_clock() {
        let none = Histogram::default();
        let (start, time) = (Timestamp::from_millis(1000), Duration::from_mins(2));
        let progress =
            Warmup::Excluded(time).progress(start, start, &none, &none, Slack::from_percent(0));
        assert_eq!(progress, Progress::Ready(start + time));
    }
}
