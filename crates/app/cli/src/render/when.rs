//! Times and durations for people. Wall-clock times are UTC and say so.

use std::time::Duration;

/// How long: `0.4s`, `42.1s`, `3m 05s`, `2h 10m`, `3d 4h`.
pub(crate) fn took(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}.{}s", millis % 1000 / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// How long ago: `just now`, `42s ago`, `3m ago`. A time that lies ahead (somebody set the
/// clock) is now.
pub(crate) fn ago(at_ms: u64, now_ms: u64) -> String {
    let seconds = Duration::from_millis(now_ms.saturating_sub(at_ms)).as_secs();
    match seconds {
        0 => "just now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86_400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// Time since a start, with a sign: `+12.3s`.
pub(crate) fn since(at_ms: u64, start_ms: u64) -> String {
    format!("+{}", took(at_ms.saturating_sub(start_ms)))
}

/// Date and time: `2026-11-21 03:04:05 UTC`.
pub(crate) fn date(at_ms: u64) -> String {
    let (year, month, day) = civil(at_ms / 86_400_000);
    format!("{year:04}-{month:02}-{day:02} {} UTC", &time(at_ms)[..8])
}

/// Time of the day: `03:04:05.678`.
pub(crate) fn time(at_ms: u64) -> String {
    switchback_domain::Timestamp::from_millis(at_ms).to_string()
}

/// Year, month and day of a number of days since 1970-01-01: Howard Hinnant's `civil_from_days`
/// for dates after it.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_grow_through_their_units() {
        let cases = [
            (430, "0.4s"),
            (42_190, "42.1s"),
            (185_000, "3m 05s"),
            (7_800_000, "2h 10m"),
            (273_600_000, "3d 4h"),
        ];
        for (millis, text) in cases {
            assert_eq!(took(millis), text);
        }
        assert_eq!(since(12_300, 0), "+12.3s");
    }

    #[test]
    fn a_clock_that_went_back_is_now() {
        assert_eq!(ago(10_000, 5_000), "just now");
        assert_eq!(ago(0, 200_000), "3m ago");
        assert_eq!(ago(0, 200_000_000), "2d ago");
    }

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_795_230_245_678), "2026-11-21 03:04:05 UTC");
    }
}
