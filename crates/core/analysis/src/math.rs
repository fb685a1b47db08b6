//! Logarithms, sums of exponentials, and floats written down to the last bit.
//!
//! Everything goes through `libm` (a port of musl's, itself of FreeBSD's msun) and not through the
//! platform's mathematics: the same batches give the same bits on every machine.

/// Natural logarithm.
pub(crate) fn ln(number: f64) -> f64 {
    libm::log(number)
}

/// Natural exponential.
pub(crate) fn exp(number: f64) -> f64 {
    libm::exp(number)
}

/// Logarithm of the gamma function.
pub(crate) fn ln_gamma(number: f64) -> f64 {
    libm::lgamma(number)
}

/// A count as a number.
#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(crate) fn count(count: u64) -> f64 {
    count as f64
}

/// A length as a number.
#[allow(clippy::cast_precision_loss, reason = "lists here are short")]
pub(crate) fn length(length: usize) -> f64 {
    length as f64
}

/// `ln(sum(exp(term)))` without overflow; minus infinity for no terms.
pub(crate) fn ln_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + ln(terms.map(|term| exp(term - largest)).sum())
}

/// `ln(exp(a) + exp(b))`.
pub(crate) fn ln_add_exp(a: f64, b: f64) -> f64 {
    ln_sum_exp([a, b].into_iter())
}

/// Serde for floats as their 64 bits: no format rounds them, and infinity survives.
pub(crate) mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        number.to_bits().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// The same for lists.
pub(crate) mod exact_list {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(numbers: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(numbers.iter().map(|number| number.to_bits()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<u64>::deserialize(from)?.into_iter().map(f64::from_bits).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known constants, gamma(1/2) = sqrt(pi) (Abramowitz and Stegun, 6.1.8) and 20!.
    #[test]
    fn special_functions_give_the_tabulated_values() {
        assert!((ln(10.0) - std::f64::consts::LN_10).abs() < 1e-15);
        assert!((exp(1.0) - std::f64::consts::E).abs() < 1e-15);
        assert!((ln_gamma(0.5) - 0.572_364_942_924_700_1).abs() < 1e-14);
        assert!((exp(ln_gamma(21.0)) / 2_432_902_008_176_640_000.0 - 1.0).abs() < 1e-13);
    }

    #[test]
    fn numbers_come_back_from_the_journal_to_the_last_bit() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Kept {
            #[serde(with = "exact")]
            one: f64,
            #[serde(with = "exact_list")]
            list: Vec<f64>,
        }
        let list = vec![0.1 + 0.2, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE];
        let text = serde_json::to_string(&Kept { one: 1.0 / 3.0, list: list.clone() }).unwrap();
        let back: Kept = serde_json::from_str(&text).unwrap();
        let bits = |numbers: &[f64]| numbers.iter().map(|it| it.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&[back.one]), bits(&[1.0 / 3.0]));
        assert_eq!(bits(&back.list), bits(&list));
    }

    #[test]
    fn sums_of_exponentials_do_not_overflow() {
        let sum = ln_sum_exp([1000.0, 1000.0].into_iter());
        assert!((sum - (1000.0 + std::f64::consts::LN_2)).abs() < 1e-12);
        assert!(ln_sum_exp(std::iter::empty()).is_infinite());
        assert!((ln_add_exp(f64::NEG_INFINITY, 3.0) - 3.0).abs() < 1e-15);
    }
}
