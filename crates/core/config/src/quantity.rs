//! Numbers with a sign or unit: percentages, amounts of instances, sizes in bytes.

use switchback_domain::Weight;

/// A whole number, or a share of the replicas in basis points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    Count(u32),
    Share(u32),
}

impl Amount {
    /// Of `replicas`, a share rounded up.
    pub(crate) fn rounded_up(self, replicas: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Share(points) => {
                clamp((u64::from(points) * u64::from(replicas)).div_ceil(10_000))
            }
        }
    }

    /// Of `replicas`, a share rounded down.
    pub(crate) fn rounded_down(self, replicas: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Share(points) => clamp(u64::from(points) * u64::from(replicas) / 10_000),
        }
    }
}

fn clamp(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The number before a `%`.
pub(crate) fn percent(text: &str) -> Option<f64> {
    decimal(text.trim().strip_suffix('%')?.trim_end())
}

/// Percent to a fraction, without the noise that a plain division leaves (`99.9%` is 0.999).
pub(crate) fn fraction(percent: f64) -> f64 {
    (percent * 1e8).round() / 1e10
}

/// A number written with digits and at most one point: no signs, exponents or infinities.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let found = text.parse::<f64>().ok().filter(|number| number.is_finite());
    found.filter(|_| plain && text.len() <= 20)
}

/// Percent to basis points; `None` when finer than that or above `percent_max`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked against percent_max first"
)]
pub(crate) fn basis_points(percent: f64, percent_max: f64) -> Option<u32> {
    if !(0.0..=percent_max).contains(&percent) {
        return None;
    }
    let points = (percent * 100.0).round();
    ((points - percent * 100.0).abs() < 1e-6).then_some(points as u32)
}

/// Percent to a weight.
pub(crate) fn weight(percent: f64) -> Option<Weight> {
    let points = u16::try_from(basis_points(percent, 100.0)?).ok()?;
    Weight::from_basis_points(points).ok()
}

const SIZES: [(&str, u64); 11] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Bytes with a unit.
pub(crate) fn size(text: &str) -> Option<f64> {
    let text = text.trim();
    let (unit, factor) = SIZES.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = decimal(text.strip_suffix(unit)?.trim_end())?;
    #[allow(clippy::cast_precision_loss, reason = "factors are at most 2^30")]
    let bytes = number * *factor as f64;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_become_basis_points() {
        assert_eq!(percent("99.5%"), Some(99.5));
        assert_eq!(percent("25 %"), Some(25.0));
        for text in ["25", "%", "-1%", "1e2%", "NaN%", "inf%", "1.2.3%"] {
            assert_eq!(percent(text), None, "{text}");
        }
        assert_eq!(weight(12.5).map(Weight::basis_points), Some(1250));
        assert_eq!(weight(33.33).map(Weight::basis_points), Some(3333));
        assert_eq!(weight(33.333), None);
        assert_eq!(weight(100.01), None);
    }

    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        let quarter = Amount::Share(2500);
        assert_eq!((quarter.rounded_up(1), quarter.rounded_down(1)), (1, 0));
        assert_eq!((quarter.rounded_up(5), quarter.rounded_down(5)), (2, 1));
        assert_eq!(Amount::Count(2).rounded_up(1), 2);
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(size("512MiB"), Some(536_870_912.0));
        assert_eq!(size("1.5 GiB"), Some(1_610_612_736.0));
        assert_eq!(size("100B"), Some(100.0));
        assert_eq!(size("512"), None);
        assert_eq!(size("MiB"), None);
    }
}
