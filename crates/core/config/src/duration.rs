//! Durations as people write them: `250ms`, `10s`, `1h30m`. Always with a unit.

use std::time::Duration;

/// The longest duration that makes sense anywhere in a rollout.
pub const DURATION_MAX: Duration = Duration::from_hours(30 * 24);

/// Units in milliseconds, largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing, or something that does not start with a number.
    #[error("is not a duration")]
    NotADuration,
    /// A bare number.
    #[error("needs a unit")]
    NeedsUnit,
    /// A unit that is none of ms, s, m, h, d.
    #[error("has the unknown unit `{0}`")]
    UnknownUnit(String),
    /// `30m1h`, or one unit twice.
    #[error("has its units out of order")]
    UnitOrder,
    /// Parts of a millisecond.
    #[error("is finer than a millisecond")]
    TooFine,
    /// Above [`DURATION_MAX`].
    #[error("is longer than 30 days")]
    TooLong,
}

/// Reads a duration: numbers with the units d, h, m, s, ms, largest first (`1h30m`, `1.5s`).
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    let (mut millis, mut last_unit) = (0, u64::MAX);
    if rest.is_empty() {
        return Err(DurationError::NotADuration);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(DurationError::NotADuration);
        }
        let after = after.trim_start();
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = unit_millis(unit.trim())?;
        if unit >= last_unit {
            return Err(DurationError::UnitOrder);
        }
        millis += scaled(number, unit)?;
        (rest, last_unit) = (after, unit);
    }
    let duration = Duration::from_millis(millis);
    if duration > DURATION_MAX { Err(DurationError::TooLong) } else { Ok(duration) }
}

fn unit_millis(unit: &str) -> Result<u64, DurationError> {
    if unit.is_empty() {
        return Err(DurationError::NeedsUnit);
    }
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    known.map(|(_, millis)| *millis).ok_or_else(|| DurationError::UnknownUnit(unit.to_owned()))
}

/// `number` times `unit` in whole milliseconds, without going through floating point.
fn scaled(number: &str, unit: u64) -> Result<u64, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return Err(DurationError::NotADuration);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err(DurationError::TooFine);
    }
    let whole: u64 = whole.parse().map_err(|_| DurationError::TooLong)?;
    let parts: u64 = if fraction.is_empty() { 0 } else { fraction.parse().unwrap_or(0) };
    let divisor = 10_u64.pow(u32::try_from(fraction.len()).unwrap_or(0));
    if !(parts * unit).is_multiple_of(divisor) {
        return Err(DurationError::TooFine);
    }
    let millis = whole.checked_mul(unit).and_then(|w| w.checked_add(parts * unit / divisor));
    millis.filter(|millis| *millis <= u64::MAX / 8).ok_or(DurationError::TooLong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use switchback_domain::time::humane;

    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        let cases = [
            ("10s", 10_000),
            ("250ms", 250),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1500),
            ("2d", 172_800_000),
            ("0s", 0),
            ("10 s", 10_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        let cases = [
            ("10", DurationError::NeedsUnit),
            ("1m30", DurationError::NeedsUnit),
            ("10 sec", DurationError::UnknownUnit("sec".to_owned())),
            ("10S", DurationError::UnknownUnit("S".to_owned())),
            ("", DurationError::NotADuration),
            ("soon", DurationError::NotADuration),
            ("-5s", DurationError::NotADuration),
            ("1.2.3s", DurationError::NotADuration),
            (".s", DurationError::NotADuration),
            ("30m1h", DurationError::UnitOrder),
            ("1s1s", DurationError::UnitOrder),
            ("1.5ms", DurationError::TooFine),
            ("31d", DurationError::TooLong),
            ("99999999999999999999d", DurationError::TooLong),
            ("9999999999999999d", DurationError::TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(millis in 0_u64..10_000, seconds in 0_u64..2_592_000) {
            for duration in [Duration::from_millis(millis), Duration::from_secs(seconds)] {
                prop_assert_eq!(parse_duration(&humane(duration)), Ok(duration));
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9.]{0,25} ?(ms|s|m|h|d|x|ü)?[0-9.]{0,4}") {
            let _ = parse_duration(&text);
        }
    }
}
