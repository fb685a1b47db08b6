//! Earlier snapshots of cumulative values: what to subtract to get a window.
//!
//! Knows nothing about what the values mean. Bounded: at most [`SNAPSHOTS_MAX`] and two are kept.

use std::collections::VecDeque;
use std::time::Duration;

use switchback_domain::Timestamp;

/// Snapshots kept per window. A window is therefore at most 1/32 longer than asked for (and one
/// look, when looks are rarer), never shorter; a snapshot is a few kilobytes.
pub(crate) const SNAPSHOTS_MAX: u32 = 32;

/// Looks further apart than a quarter of the window are a gap, but never those closer than this:
/// a busy machine delays a look by seconds.
const GAP_MIN: Duration = Duration::from_secs(10);

/// The longest time between two looks that still counts as having watched all along.
pub(crate) fn gap_max(window: Duration) -> Duration {
    (window / 4).max(GAP_MIN)
}

/// Which snapshot a window begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// The newest one that is at least a window old.
    Trailing,
    /// Always the first one.
    Fixed,
}

/// Snapshots of something that is counted up.
#[derive(Debug, Clone)]
pub(crate) struct Trail<T> {
    window: Duration,
    begin: Begin,
    kept: VecDeque<(Timestamp, T)>,
    last: Timestamp,
}

/// Where a window begins.
pub(crate) struct Anchor<'a, T> {
    /// The snapshot taken then.
    pub(crate) value: &'a T,
    /// How long ago.
    pub(crate) watched: Duration,
    /// Whether the whole window was watched.
    pub(crate) is_complete: bool,
}

impl<T: Clone> Trail<T> {
    /// For the last `window`, again and again.
    pub(crate) fn trailing(window: Duration) -> Self {
        Self { window, begin: Begin::Trailing, kept: VecDeque::new(), last: Timestamp::default() }
    }

    /// For everything since the first look, complete after `window`.
    pub(crate) fn fixed(window: Duration) -> Self {
        Self { begin: Begin::Fixed, ..Self::trailing(window) }
    }

    /// How long a window is.
    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    /// Starts anew with the next look.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Where the window that ends `now` begins; `None` at the first look and after a gap.
    pub(crate) fn look_back(&mut self, now: Timestamp) -> Option<Anchor<'_, T>> {
        if now.since(self.last) > gap_max(self.window) {
            self.clear();
        }
        let is_old = |entry: &(Timestamp, T)| now.since(entry.0) >= self.window;
        while self.begin == Begin::Trailing && self.kept.get(1).is_some_and(is_old) {
            self.kept.pop_front();
        }
        let (at, value) = self.kept.front()?;
        let watched = now.since(*at);
        Some(Anchor { value, watched, is_complete: watched >= self.window })
    }

    /// Notes that somebody looked `now`, and keeps the value if it will be needed.
    pub(crate) fn keep(&mut self, now: Timestamp, value: &T) {
        self.last = now;
        let spacing = self.window / SNAPSHOTS_MAX;
        let is_needed = match (self.kept.back(), self.begin) {
            (None, _) => true,
            (Some(_), Begin::Fixed) => false,
            (Some((newest, _)), Begin::Trailing) => now.since(*newest) >= spacing,
        };
        if is_needed {
            self.kept.push_back((now, value.clone()));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_window_begins_at_least_its_length_ago_and_not_much_more() {
        let mut trail = Trail::trailing(Duration::from_secs(320));
        for second in 1..=5000 {
            if let Some(anchor) = trail.look_back(at(second)) {
                let watched = anchor.watched.as_secs();
                assert_eq!(anchor.is_complete, watched >= 320);
                assert!(watched <= 330, "{watched}");
                assert_eq!(watched, second - anchor.value);
            }
            trail.keep(at(second), &second);
            assert!(trail.len() <= SNAPSHOTS_MAX as usize + 2);
        }
    }

    #[test]
    fn a_gap_starts_anew() {
        let mut trail = Trail::trailing(Duration::from_secs(20));
        trail.keep(at(1), &1);
        assert!(trail.look_back(at(11)).is_some());
        assert!(trail.look_back(at(12)).is_none());
    }

    #[test]
    fn a_fixed_trail_remembers_only_its_first_look() {
        let mut trail = Trail::fixed(Duration::from_mins(1));
        (1..=300).for_each(|second| trail.keep(at(second), &second));
        assert_eq!(trail.len(), 1);
        let anchor = trail.look_back(at(300)).map(|anchor| (*anchor.value, anchor.is_complete));
        assert_eq!(anchor, Some((1, true)));
    }
}
