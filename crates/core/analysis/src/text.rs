//! Numbers as people read them, and the one comparison with a limit.

use std::time::Duration;

use switchback_domain::time::humane;

/// Relative room for rounding: `199 / 200` must keep a limit that was written as `99.5%`.
const ROUNDING: f64 = 1e-9;

/// Whether a number is above a limit; `None` when either is NaN or infinite.
pub(crate) fn exceeds(number: f64, limit: f64) -> Option<bool> {
    let comparable = number.is_finite() && limit.is_finite();
    comparable.then(|| number > limit + ROUNDING * limit.abs())
}

/// The limit if it can be written down (JSON has no NaN), else zero; the summary says which.
pub(crate) fn writable(limit: f64) -> f64 {
    if limit.is_finite() { limit } else { 0.0 }
}

/// A limit in its unit, or what is wrong with it.
pub(crate) fn limit(limit: f64, write: fn(f64) -> String) -> String {
    if limit.is_finite() { write(limit) } else { "not a number".to_owned() }
}

/// A time of watching, to the second once it is longer than ten of them.
pub(crate) fn span(duration: Duration) -> String {
    let is_long = duration >= Duration::from_secs(10);
    humane(if is_long { Duration::from_secs(duration.as_secs()) } else { duration })
}

/// `5.2%`.
pub(crate) fn percent(share: f64) -> String {
    format!("{}%", digits(share * 100.0))
}

/// `84 ms` below a second, else `2.3 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{} ms", digits(seconds * 1000.0));
    }
    format!("{} s", digits(seconds))
}

/// `2.05x`.
pub(crate) fn times(ratio: f64) -> String {
    format!("{}x", digits(ratio))
}

/// `0.85 cores`.
pub(crate) fn cores(cores: f64) -> String {
    format!("{} cores", digits(cores))
}

/// `512 MiB`.
pub(crate) fn bytes(bytes: f64) -> String {
    format!("{} MiB", digits(bytes / 1_048_576.0))
}

/// A number without a unit.
pub(crate) fn plain(number: f64) -> String {
    digits(number)
}

/// At most two decimals, or two significant digits of a small number.
fn digits(number: f64) -> String {
    let decimals = if number.abs() < 0.1 { 4 } else { 2 };
    let written = format!("{number:.decimals$}");
    written.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(percent(0.05), "5%");
        assert_eq!(percent(0.0524), "5.24%");
        assert_eq!(percent(1.0), "100%");
        assert_eq!(percent(0.0), "0%");
        assert_eq!(percent(0.0001), "0.01%");
        assert_eq!(["0.0524", "0.1", "1.23"], [0.0524, 0.1, 1.2345].map(plain));
        assert_eq!(seconds(0.084), "84 ms");
        assert_eq!([0.999, 1.0, 2.0].map(seconds), ["999 ms", "1 s", "2 s"]);
        assert_eq!(bytes(536_870_912.0), "512 MiB");
        assert_eq!(span(Duration::from_millis(40_250)), "40s");
        assert_eq!(span(Duration::from_mins(2)), "2m");
    }

    #[test]
    fn a_number_equal_to_its_limit_keeps_it_whatever_the_rounding() {
        assert_eq!(exceeds(0.1 + 0.2, 0.3), Some(false));
        assert_eq!(exceeds(0.300_001, 0.3), Some(true));
        // The room goes with the limit.
        assert_eq!(exceeds(1_000.000_000_5, 1_000.0), Some(false));
        assert_eq!(exceeds(1_000.000_002, 1_000.0), Some(true));
        assert_eq!(exceeds(0.000_001_000_1, 0.000_001), Some(true));
        assert_eq!(exceeds(f64::NAN, 0.3), None);
        assert_eq!(exceeds(0.3, f64::INFINITY), None);
    }
}
