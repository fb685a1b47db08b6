//! Header fields as slices: which ones concern the connection, and the checks that make the
//! framing of a message unmistakable. No I/O.

use std::ops::Range;

use http::header::HeaderName;
use httparse::Header;

use super::chunked::Malformed;
use crate::limits::HEADERS_MAX;

/// What a field is to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    Upgrade,
    Expect,
    /// Concerns one connection only.
    HopByHop,
    KeepAlive,
    ForwardedFor,
    ForwardedProto,
    ForwardedHost,
    RequestId,
    TraceParent,
    TraceState,
    Other,
}

impl Kind {
    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Names are told apart by their length first: most fields are compared with nothing.
pub(super) fn kind_of(name: &str) -> Kind {
    let candidates: &[(&str, Kind)] = match name.len() {
        2 => &[("te", Kind::Te)],
        4 => &[("host", Kind::Host)],
        6 => &[("expect", Kind::Expect)],
        7 => &[("upgrade", Kind::Upgrade)],
        10 => &[
            ("connection", Kind::Connection),
            ("keep-alive", Kind::KeepAlive),
            ("tracestate", Kind::TraceState),
        ],
        11 => &[("traceparent", Kind::TraceParent)],
        12 => &[("x-request-id", Kind::RequestId)],
        14 => &[("content-length", Kind::ContentLength)],
        15 => &[("x-forwarded-for", Kind::ForwardedFor)],
        16 => &[("proxy-connection", Kind::HopByHop), ("x-forwarded-host", Kind::ForwardedHost)],
        17 => &[
            ("transfer-encoding", Kind::TransferEncoding),
            ("x-forwarded-proto", Kind::ForwardedProto),
        ],
        18 => &[("proxy-authenticate", Kind::HopByHop)],
        19 => &[("proxy-authorization", Kind::HopByHop)],
        21 => &[("x-client-cert-subject", Kind::HopByHop)],
        _ => &[],
    };
    let same = |(candidate, _): &&(&str, Kind)| is_same(name, candidate);
    candidates.iter().find(same).map_or(Kind::Other, |(_, kind)| *kind)
}

/// Whether a field's name is this one of the same length, of lower case letters and `-`: those are
/// what they are with the bit of the lower case, and no other byte of a name becomes one by it.
fn is_same(name: &str, candidate: &str) -> bool {
    let mut pairs = name.bytes().zip(candidate.bytes());
    pairs.all(|(byte, wanted)| byte | 0x20 == wanted)
}

/// What `Connection` usually says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Usual {
    Close,
    KeepAlive,
    Upgrade,
}

impl Usual {
    /// It says something else.
    const OTHER: u8 = 1 << 7;

    fn bit(self) -> u8 {
        1 << self as u8
    }

    fn bit_of(name: &[u8]) -> u8 {
        match name.len() {
            5 if name.eq_ignore_ascii_case(b"close") => Self::Close.bit(),
            10 if name.eq_ignore_ascii_case(b"keep-alive") => Self::KeepAlive.bit(),
            7 if name.eq_ignore_ascii_case(b"upgrade") => Self::Upgrade.bit(),
            _ => Self::OTHER,
        }
    }
}

/// The fields of a head and what each of them is.
#[derive(Debug)]
pub(super) struct Fields<'h, 'b> {
    head: &'b [u8],
    headers: &'h [Header<'b>],
    kinds: [Kind; HEADERS_MAX],
    /// A bit for each kind that is there: most questions are about kinds that are not.
    present: u16,
    /// A bit for each of [`Usual`] in all `Connection` fields, and one for anything else.
    connection: u8,
    length: Result<Option<u64>, Malformed>,
}

impl<'h, 'b> Fields<'h, 'b> {
    /// Takes the fields of a head whose every line has to end in CR LF.
    pub(super) fn new(head: &'b [u8], headers: &'h [Header<'b>]) -> Result<Self, Malformed> {
        if !has_strict_lines(head, headers) {
            return Err(Malformed);
        }
        let mut kinds = [Kind::Other; HEADERS_MAX];
        let mut present = 0;
        for (kind, header) in kinds.iter_mut().zip(headers) {
            *kind = kind_of(header.name);
            present |= kind.bit();
        }
        let (connection, length) = (0, Ok(None));
        let mut fields = Self { head, headers, kinds, present, connection, length };
        fields.connection =
            fields.connection_names().map(Usual::bit_of).fold(0, |all, bit| all | bit);
        fields.length = fields.read_length();
        Ok(fields)
    }

    /// Copies the fields that pass, as [`write_field`] would write them: those that stand so in the
    /// head, with their neighbours in one piece.
    pub(super) fn copy(&self, out: &mut Vec<u8>, passes: impl Fn(Kind, &Header<'_>) -> bool) {
        let mut run = 0..0;
        for (_, field) in self.iter().filter(|(kind, field)| passes(*kind, field)) {
            let name = range_in(self.head, field.name.as_bytes());
            let value = range_in(self.head, field.value);
            let line = name.start..value.end + 2;
            let is_canonical = name.end + 2 == value.start
                && self.head.get(name.end..value.start) == Some(b": ")
                && self.head.get(value.end..line.end) == Some(b"\r\n");
            if is_canonical && run.end == line.start {
                run.end = line.end;
                continue;
            }
            out.extend_from_slice(self.head.get(run).unwrap_or_default());
            run = 0..0;
            if is_canonical {
                run = line;
            } else {
                write_field(out, field.name.as_bytes(), field.value);
            }
        }
        out.extend_from_slice(self.head.get(run).unwrap_or_default());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Kind, &'h Header<'b>)> {
        self.kinds.iter().copied().zip(self.headers)
    }

    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = &'b [u8]> {
        let headers = if self.present & kind.bit() == 0 { &[] } else { self.headers };
        let all = self.kinds.iter().zip(headers);
        all.filter(move |(found, _)| **found == kind).map(|(_, header)| header.value)
    }

    /// The only field of a kind: `None` without one, an error with several.
    pub(super) fn only(&self, kind: Kind) -> Result<Option<&'b [u8]>, Malformed> {
        let mut all = self.all(kind);
        match (all.next(), all.next()) {
            (only, None) => Ok(only),
            (_, Some(_)) => Err(Malformed),
        }
    }

    /// The names in all `Connection` fields.
    pub(super) fn connection_names(&self) -> impl Iterator<Item = &'b [u8]> {
        self.all(Kind::Connection).flat_map(tokens)
    }

    pub(super) fn connection_has(&self, usual: Usual) -> bool {
        self.connection & usual.bit() != 0
    }

    /// Whether `Connection` names this field, and fields that would otherwise be passed on. What
    /// frames a message is never negotiable.
    pub(super) fn is_nominated(&self, name: &str) -> bool {
        let named = |found: &[u8]| found.eq_ignore_ascii_case(name.as_bytes());
        self.connection & Usual::OTHER != 0 && self.connection_names().any(named)
    }

    /// The body's length, if one is given: digits, once.
    pub(super) fn content_length(&self) -> Result<Option<u64>, Malformed> {
        self.length
    }

    fn read_length(&self) -> Result<Option<u64>, Malformed> {
        let Some(text) = self.only(Kind::ContentLength)? else { return Ok(None) };
        if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
        text.parse().map(Some).map_err(|_| Malformed)
    }

    /// Whether the body is chunked, and nothing but chunked.
    pub(super) fn is_chunked(&self) -> Result<bool, Malformed> {
        match self.only(Kind::TransferEncoding)? {
            None => Ok(false),
            Some(coding) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
            Some(_) => Err(Malformed),
        }
    }
}

/// The values of the fields of this name, in lower case, in a head that was read before.
pub(super) fn values<'h>(head: &'h [u8], name: &str) -> impl Iterator<Item = &'h [u8]> {
    head.split(|byte| *byte == b'\n').filter_map(move |line| {
        let (own, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        own.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a list such as `gzip, trailers` holds this name.
pub(super) fn list_has(line: &[u8], name: &str) -> bool {
    tokens(line).any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
}

/// Where in `head` a part of it lies.
pub(super) fn range_in(head: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(head.as_ptr().addr());
    start..start + part.len()
}

/// The parser takes a bare LF for a line end; others might not, and see other fields than we do.
fn has_strict_lines(head: &[u8], headers: &[Header<'_>]) -> bool {
    let begins_a_line = |header: &Header<'_>| {
        let start = range_in(head, header.name.as_bytes()).start;
        start.checked_sub(2).is_some_and(|before| head.get(before..start) == Some(b"\r\n"))
    };
    head.ends_with(b"\r\n\r\n") && headers.iter().all(begins_a_line)
}

/// Whether a trailer section, without its fields' meaning, is one.
pub(super) fn check_trailers(section: &[u8]) -> Result<(), Malformed> {
    each_trailer(section, |_, _| {})
}

/// Copies the trailers that may be passed on: none that frames, routes or authenticates.
pub(super) fn copy_trailers(section: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    each_trailer(section, |name, value| {
        let named = |forbidden: &HeaderName| forbidden.as_str().eq_ignore_ascii_case(name);
        if kind_of(name) == Kind::Other && !FORBIDDEN_TRAILERS.iter().any(named) {
            write_field(out, name.as_bytes(), value);
        }
    })
}

fn each_trailer(section: &[u8], mut take: impl FnMut(&str, &[u8])) -> Result<(), Malformed> {
    if section.is_empty() {
        return Ok(());
    }
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let headers = match httparse::parse_headers(section, &mut storage) {
        Ok(httparse::Status::Complete((bytes, headers))) if bytes == section.len() => headers,
        Ok(_) | Err(_) => return Err(Malformed),
    };
    for header in headers {
        let start = range_in(section, header.name.as_bytes()).start;
        // The line before the first one ended with the last chunk's size.
        if start > 0 && !section[..start].ends_with(b"\r\n") {
            return Err(Malformed);
        }
        take(header.name, header.value);
    }
    Ok(())
}

/// Fields that must not arrive after the decisions they are made for (RFC 9110, 6.5.1).
const FORBIDDEN_TRAILERS: [HeaderName; 6] = [
    http::header::AUTHORIZATION,
    http::header::COOKIE,
    http::header::SET_COOKIE,
    http::header::CONTENT_ENCODING,
    http::header::CONTENT_TYPE,
    http::header::TRAILER,
];

pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub(super) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a number in hex digits, as chunk sizes are.
pub(super) fn write_hex(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - (number | 1).leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[number >> (4 * place) & 15]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_by_hop_field_is_known_here_too() {
        for name in &crate::headers::HOP_BY_HOP {
            let kind = kind_of(&name.as_str().to_ascii_uppercase());
            let known = [Kind::HopByHop, Kind::KeepAlive, Kind::Te, Kind::Upgrade];
            assert!(known.contains(&kind), "{name}: {kind:?}");
        }
        assert_eq!(kind_of("x-request-ix"), Kind::Other);
    }

    #[test]
    fn values_are_found_by_name_and_nowhere_else() {
        let head =
            b"GET /x-a: HTTP/1.1\r\nX-A: 1\r\nx-ab: 2\r\ny: x-a: 3\r\nx-a:4 \r\nx-a:\r\n\r\n";
        let found: Vec<_> = values(head, "x-a").collect();
        assert_eq!(found, [&b"1"[..], b"4", b""]);
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 9, 10, 255, 256, 4_096, 65_535, usize::MAX] {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            write_number(&mut decimal, number as u64);
            write_hex(&mut hex, number);
            assert_eq!(String::from_utf8(decimal).unwrap(), number.to_string());
            assert_eq!(String::from_utf8(hex).unwrap(), format!("{number:x}"));
        }
    }

    #[test]
    fn trailers_that_frame_or_authenticate_are_dropped() {
        let mut out = Vec::new();
        let section =
            b"x-sum: 1\r\ncontent-length: 5\r\nHost: a\r\nauthorization: b\r\ny: 2\r\n\r\n";
        copy_trailers(section, &mut out).unwrap();
        assert_eq!(out, b"x-sum: 1\r\ny: 2\r\n");
        for bad in [&b"x : 1\r\n\r\n"[..], b" x: 1\r\n\r\n", b"x: 1\r\n y\r\n\r\n", b"x\r\n\r\n"] {
            assert_eq!(copy_trailers(bad, &mut Vec::new()), Err(Malformed), "{bad:?}");
        }
    }
}
