//! Just enough of a certificate's encoding (DER) to tell when it is good and whose it is. Chains
//! and signatures are the TLS library's to check; nothing is decided here that it would.

use std::fmt::Write as _;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
/// More attributes than any name has; what follows is left out.
const ATTRIBUTES_MAX: usize = 32;

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Good from this second since 1970 on.
    pub not_before: i64,
    /// Good up to this one.
    pub not_after: i64,
    /// Its subject as RFC 4514 writes it, in ASCII: `CN=alice,O=Example`.
    pub subject: String,
}

/// Reads a certificate; `None` if it is none.
pub fn facts(certificate: &[u8]) -> Option<Facts> {
    let mut signed = Input(Input(certificate).take(SEQUENCE)?);
    let mut body = Input(signed.take(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.next()?;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        body.next()?;
    }
    let mut validity = Input(body.take(SEQUENCE)?);
    let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
    Some(Facts { not_before, not_after, subject: subject(Input(body.take(SEQUENCE)?))? })
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The next element: its tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let digits;
            (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if digits.len() > 3 {
                return None;
            }
            length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        }
        let content;
        (content, self.0) = rest.split_at_checked(length)?;
        Some((tag, content))
    }

    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = digits.get(range).filter(|part| part.iter().all(u8::is_ascii_digit))?;
        std::str::from_utf8(part).ok()?.parse().ok()
    };
    let (year, rest) = match tag {
        UTC_TIME => {
            (number(0..2).map(|year| if year < 50 { year + 2000 } else { year + 1900 })?, 2)
        }
        GENERALIZED_TIME => (number(0..4)?, 4),
        _ => return None,
    };
    let part = |index: usize| number(rest + 2 * index..rest + 2 * index + 2);
    let (month, day) = (part(0)?, part(1)?);
    let seconds = part(2)? * 3_600 + part(3)? * 60 + part(4)?;
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && digits.len() == rest + 10;
    valid.then(|| days(year, month, day) * 86_400 + seconds)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (month * 153 + 2) / 5 + day - 719_469
}

/// The last attribute first, as RFC 4514 has it.
fn subject(mut name: Input<'_>) -> Option<String> {
    let mut parts = Vec::new();
    while !name.0.is_empty() && parts.len() < ATTRIBUTES_MAX {
        let mut set = Input(name.take(SET)?);
        let mut attribute = Input(set.take(SEQUENCE)?);
        let kind = kind(attribute.take(OBJECT)?);
        let (_, value) = attribute.next()?;
        parts.push(format!("{kind}={}", escaped(value)));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn kind(object: &[u8]) -> String {
    let known = match object {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x05] => "serialNumber",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x0a] => "O",
        [0x55, 0x04, 0x0b] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01] => "emailAddress",
        other => return other.iter().fold("OID".to_owned(), |text, byte| text + &hex(*byte)),
    };
    known.to_owned()
}

fn hex(byte: u8) -> String {
    format!(".{byte:02x}")
}

/// Printable ASCII, with everything else, and what would end the value early, escaped.
fn escaped(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.iter().enumerate() {
        let at_edge = index == 0 || index == last;
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b'#' | b' ' if at_edge => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            0x20..=0x7e => text.push(char::from(*byte)),
            other => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\{other:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(time((UTC_TIME, b"700101000000Z")), Some(0));
        assert_eq!(time((UTC_TIME, b"491231235959Z")), Some(2_524_607_999));
        assert_eq!(time((GENERALIZED_TIME, b"20240229120000Z")), Some(1_709_208_000));
        assert_eq!(time((GENERALIZED_TIME, b"99991231235959Z")), Some(253_402_300_799));
        for bad in [&b"20240229120000"[..], b"2024022912000Z", b"20241329120000Z", b"Z", b""] {
            assert_eq!(time((GENERALIZED_TIME, bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn a_subject_can_neither_end_early_nor_leave_ascii() {
        assert_eq!(escaped(b"Example, Inc=\r\n"), "Example\\, Inc\\=\\0D\\0A");
        assert_eq!(escaped("J\u{fc}rgen".as_bytes()), "J\\C3\\BCrgen");
        assert_eq!(escaped(b" # "), "\\ #\\ ");
    }

    #[test]
    fn garbage_is_no_certificate() {
        let mut bytes = vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(facts(&bytes), None);
        bytes[1] = 0x82;
        assert_eq!(facts(&bytes), None);
        for length in 0..64 {
            assert_eq!(facts(&vec![0x30; length]), None);
        }
    }
}
