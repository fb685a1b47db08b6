//! W3C trace context: who keeps a trace, and how one is begun. Pure but for the dice.
//!
//! A `traceparent` that is one goes on untouched, with its `tracestate`: nothing here reports
//! spans, so nothing here stands between the caller's span and the instance's. Any other is
//! replaced by one of ours, without a `tracestate`.

use rand::Rng;

/// Bytes of a `traceparent` of version 00.
pub(crate) const LENGTH: usize = 55;
/// Where in it the digit stands that tells whether the trace is recorded.
pub(crate) const SAMPLED_AT: usize = LENGTH - 1;

/// Two hex digits for each byte.
static DIGITS: [[u8; 2]; 256] = {
    let (mut pairs, mut byte) = ([[0; 2]; 256], 0);
    while byte < 256 {
        let digits = b"0123456789abcdef";
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Whether this is a `traceparent`: of version 00, or of a later one that begins like it.
pub(crate) fn is_valid(value: &[u8]) -> bool {
    let Some((known, rest)) = value.split_at_checked(LENGTH) else { return false };
    let is_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_some_hex = |part: &[u8]| is_hex(part) && part.iter().any(|digit| *digit != b'0');
    let version = &known[..2];
    let fits = match version {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => is_hex(version) && rest.first().is_none_or(|next| *next == b'-'),
    };
    fits && [2, 35, 52].iter().all(|dash| known[*dash] == b'-')
        && is_some_hex(&known[3..35])
        && is_some_hex(&known[36..52])
        && is_hex(&known[53..])
}

/// A trace begun here, not recorded.
pub(crate) fn begin() -> [u8; LENGTH] {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut drawn = [0; 24];
    rand::rng().fill_bytes(&mut drawn);
    let (trace, span) = drawn.split_at_mut(16);
    for id in [&mut *trace, &mut *span] {
        // Zero is no identifier.
        id[0] |= u8::from(id.iter().all(|byte| *byte == 0));
    }
    write_hex(trace, &mut value[3..35]);
    write_hex(span, &mut value[36..52]);
    value
}

/// The trace's own identifier in a valid `traceparent`.
pub(crate) fn id_of(value: &str) -> Option<&str> {
    value.get(3..35)
}

/// A request's identifier: 32 hex digits, drawn.
pub(crate) fn request_id() -> [u8; 32] {
    let (mut drawn, mut digits) = ([0; 16], [0; 32]);
    rand::rng().fill_bytes(&mut drawn);
    write_hex(&drawn, &mut digits);
    digits
}

fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(digits.as_chunks_mut().0) {
        *pair = DIGITS[usize::from(*byte)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_what_the_recommendation_allows_is_kept() {
        let later = format!("cc{}-what-the-future-will-be-like", &SAMPLE[2..]);
        for good in [SAMPLE, &SAMPLE.replace("-01", "-00"), &later, &later[..55]] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        let changed = |at: usize, to: &str| {
            let mut text = SAMPLE.to_owned();
            text.replace_range(at..at + to.len(), to);
            text
        };
        for bad in [
            String::new(),
            SAMPLE[..54].to_owned(),
            format!("{SAMPLE}-00"),
            format!("{SAMPLE} "),
            changed(0, "ff"),
            changed(0, "0X"),
            changed(3, "4BF9"),
            changed(3, &"0".repeat(32)),
            changed(36, &"0".repeat(16)),
            changed(35, "_"),
            changed(53, "0g"),
            format!("{}.x", changed(0, "01")),
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_trace_begun_here_is_valid_new_and_not_recorded() {
        let [one, other] = [begin(), begin()];
        assert!(is_valid(&one) && is_valid(&other) && one != other);
        assert_eq!(one[SAMPLED_AT], b'0');
        assert_eq!(id_of(SAMPLE), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    }
}
