//! A request's head: read strictly, and written anew for the instance in the same pass. No I/O.

use std::cell::Cell;
use std::io::Write;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ops::Range;

use http::uri::Authority;
use http::{Method, StatusCode};
use httparse::Status;

use super::chunked::{Chunked, Malformed};
use super::fields::{Fields, Kind, Usual, list_has, range_in, write_field, write_number};
use super::inbound::Body;
use crate::exchange::is_idempotent;
use crate::headers::is_host;
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};
use crate::service::{Entry, Refusal};
use crate::trace;

/// What is to be known of a request beside its bytes. Ranges are places in the bytes it was read
/// from.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about one message")]
pub(super) struct Head {
    /// How long the head is.
    pub(super) bytes: usize,
    /// What the host is; `None` for an old client that names none.
    pub(super) host: Option<Range<usize>>,
    pub(super) method: Range<usize>,
    /// The path without its query.
    pub(super) path: Range<usize>,
    /// What follows the `?`; empty without one.
    pub(super) query: Range<usize>,
    pub(super) body: Body,
    /// `HEAD`: the answer has no body whatever it says.
    pub(super) has_bodiless_answer: bool,
    /// May be sent twice: idempotent and without a body.
    pub(super) is_repeatable: bool,
    /// HTTP/1.0: no chunks, no interim responses.
    pub(super) is_old: bool,
    pub(super) keeps_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) wants_upgrade: bool,
    /// Where in the instance's version stands whether the trace, begun here, is recorded.
    pub(super) sampled_at: Option<usize>,
}

const fn bad(reason: &'static str) -> Refusal {
    Refusal::bad(StatusCode::BAD_REQUEST, reason)
}

/// Reads a head at the start of `raw` and appends the instance's version of it to `out`. `None`
/// while it is not complete; what was appended then is worth nothing.
pub(super) fn read(raw: &[u8], entry: &Entry, out: &mut Vec<u8>) -> Result<Option<Head>, Refusal> {
    let mut storage = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    if raw == b"\r" {
        return Ok(None);
    }
    // One empty line before a request is tolerated, as RFC 9112 asks (2.2); no other prelude is.
    let skipped = if raw.starts_with(b"\r\n") { 2 } else { 0 };
    let text = &raw[skipped..];
    if text.first().is_some_and(|first| !first.is_ascii_graphic()) {
        return Err(bad("the request is none"));
    }
    let bytes = match request.parse_with_uninit_headers(text, &mut storage) {
        Ok(Status::Complete(bytes)) if bytes <= HEADER_BYTES_MAX => bytes,
        Ok(Status::Partial) if text.len() < HEADER_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Refusal::bad(status, "the header is too large"));
        }
        Err(httparse::Error::Version) if names_a_version(text) => {
            let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return Err(Refusal::bad(status, "only HTTP/1.1 and HTTP/1.0 are offered here"));
        }
        Err(_) => return Err(bad("the request is none")),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(bad("the request is none"));
    };
    let fields = Fields::new(&text[..bytes], request.headers)
        .map_err(|Malformed| bad("a line of the header does not end in CR LF"))?;
    let line = Line { raw, method, target, is_old: version == 0 };
    let mut head = line.head(&fields)?;
    head.bytes = skipped + bytes;
    head.sampled_at = write(&line, &fields, &head, entry, out);
    Ok(Some(head))
}

/// Whether a request line is one but for its version.
fn names_a_version(text: &[u8]) -> bool {
    let line = text.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let is_version = |word: &[u8]| word.len() == 8 && word.starts_with(b"HTTP/");
    words.next().is_some_and(is_version) && words.next().is_none()
}

/// The request line.
struct Line<'a> {
    raw: &'a [u8],
    method: &'a str,
    target: &'a str,
    is_old: bool,
}

impl Line<'_> {
    fn head(&self, fields: &Fields<'_, '_>) -> Result<Head, Refusal> {
        if self.method == "CONNECT" {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Err(Refusal::bad(status, "CONNECT is not offered here"));
        }
        let body = self.framing(fields)?;
        let target = Target::of(self.target, self.method)?;
        let host = self.host(&target, fields)?.map(|host| range_in(self.raw, host));
        let expects_continue = self.expectation(fields)?;
        let method = Method::from_bytes(self.method.as_bytes()).unwrap_or(Method::POST);
        Ok(Head {
            bytes: 0,
            host,
            method: range_in(self.raw, self.method.as_bytes()),
            path: range_in(self.raw, target.path().as_bytes()),
            query: range_in(self.raw, target.query().as_bytes()),
            has_bodiless_answer: method == Method::HEAD,
            is_repeatable: is_idempotent(&method) && body.has_ended(),
            is_old: self.is_old,
            keeps_alive: !fields.connection_has(Usual::Close)
                && (!self.is_old || fields.connection_has(Usual::KeepAlive)),
            expects_continue: expects_continue && !body.has_ended(),
            wants_upgrade: !self.is_old && body.has_ended() && protocol(fields).is_some(),
            sampled_at: None,
            body,
        })
    }

    /// How the body ends. Whatever two readers could understand differently is refused.
    fn framing(&self, fields: &Fields<'_, '_>) -> Result<Body, Refusal> {
        let length = fields.content_length().map_err(|Malformed| bad("Content-Length is none"))?;
        let coded = fields.all(Kind::TransferEncoding).next().is_some();
        if coded && length.is_some() {
            return Err(bad("both Content-Length and Transfer-Encoding"));
        }
        if coded && self.is_old {
            return Err(bad("Transfer-Encoding in HTTP/1.0"));
        }
        match (fields.is_chunked(), length) {
            (Ok(true), _) => Ok(Body::Chunked(Chunked::new())),
            (Ok(false), Some(length)) => Ok(Body::length(length)),
            (Ok(false), None) => Ok(Body::Ended),
            (Err(Malformed), _) => {
                let reason = "no transfer coding but chunked is offered here";
                Err(Refusal::bad(StatusCode::NOT_IMPLEMENTED, reason))
            }
        }
    }

    /// The host that the client asks for: an absolute target overrides the field (RFC 9112, 3.2.2).
    fn host<'t>(
        &self,
        target: &Target<'t>,
        fields: &Fields<'_, 't>,
    ) -> Result<Option<&'t [u8]>, Refusal> {
        let field =
            fields.only(Kind::Host).map_err(|Malformed| bad("more than one Host header"))?;
        if field.is_none() && !self.is_old {
            return Err(bad("no Host header"));
        }
        let is_named = |name: &str| Authority::try_from(name).is_ok() && is_host(name.as_bytes());
        if field.is_none_or(is_host) && target.authority.is_none_or(is_named) {
            Ok(target.authority.map(str::as_bytes).or(field))
        } else {
            Err(bad("the Host header is not a host"))
        }
    }

    fn expectation(&self, fields: &Fields<'_, '_>) -> Result<bool, Refusal> {
        let mut expected = false;
        for value in fields.all(Kind::Expect).filter(|_| !self.is_old) {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                let status = StatusCode::EXPECTATION_FAILED;
                return Err(Refusal::bad(status, "the only expectation met is 100-continue"));
            }
            expected = true;
        }
        Ok(expected)
    }
}

/// The bytes a target may be of.
static OF_TARGET: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0x21);
    while byte < 0x7f {
        table[byte] = !matches!(byte, 0x22 | 0x23 | 0x3c | 0x3e | 0x5c | 0x5e | 0x60);
        byte += 1;
    }
    table
};

/// A request target, taken apart.
struct Target<'a> {
    authority: Option<&'a str>,
    /// Path and query; empty where an absolute target has none.
    rest: &'a str,
}

impl<'a> Target<'a> {
    fn of(text: &'a str, method: &str) -> Result<Self, Refusal> {
        if text.len() > TARGET_BYTES_MAX {
            return Err(Refusal::bad(StatusCode::URI_TOO_LONG, "the target is too long"));
        }
        if !text.bytes().all(|byte| OF_TARGET[usize::from(byte)]) {
            return Err(bad("the target is none"));
        }
        if text.starts_with('/') || (text == "*" && method == "OPTIONS") {
            return Ok(Self { authority: None, rest: text });
        }
        let schemes = ["http://", "https://"];
        let after = |scheme: &&str| {
            let (start, rest) = text.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let Some(named) = schemes.iter().find_map(after) else {
            return Err(bad("the target is none"));
        };
        let end = named.find(['/', '?']).unwrap_or(named.len());
        let (authority, rest) = named.split_at(end);
        Ok(Self { authority: Some(authority), rest })
    }

    fn path(&self) -> &'a str {
        self.rest.split_once('?').map_or(self.rest, |(path, _)| path)
    }

    fn query(&self) -> &'a str {
        // Empty, but in its place.
        let end = &self.rest[self.rest.len()..];
        self.rest.split_once('?').map_or(end, |(_, query)| query)
    }
}

/// The protocol an upgrade is asked to. `h2c` does not count: an instance that took it would
/// answer in a protocol nobody here looks into.
fn protocol<'b>(fields: &Fields<'_, 'b>) -> Option<&'b [u8]> {
    let protocol = fields.all(Kind::Upgrade).next()?;
    let http2 = protocol.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"));
    (fields.connection_has(Usual::Upgrade) && !http2).then_some(protocol)
}

/// Writes the instance's version. Gives the place of a trace's sampled flag, if one is begun.
fn write(
    line: &Line<'_>,
    fields: &Fields<'_, '_>,
    head: &Head,
    entry: &Entry,
    out: &mut Vec<u8>,
) -> Option<usize> {
    let target = Target::of(line.target, line.method).map_or("/", |target| target.rest);
    out.extend_from_slice(line.method.as_bytes());
    out.extend_from_slice(if target.starts_with(['/', '*']) { b" " } else { b" /" });
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    write_host(line.raw, head, entry, out);
    out.extend_from_slice(b"\r\n");
    let is_traced = is_traced(fields);
    let seen = Cell::new(Seen::default());
    fields.copy(out, |kind, field| {
        if fields.is_nominated(field.name) {
            return false;
        }
        let before = seen.get();
        match kind {
            Kind::Other => {}
            Kind::ForwardedProto => seen.set(Seen { proto: true, ..before }),
            Kind::ForwardedHost => seen.set(Seen { host: true, ..before }),
            Kind::RequestId => seen.set(Seen { id: true, ..before }),
            Kind::TraceParent | Kind::TraceState if is_traced => {}
            Kind::Host
            | Kind::Connection
            | Kind::ContentLength
            | Kind::TransferEncoding
            | Kind::Te
            | Kind::Upgrade
            | Kind::Expect
            | Kind::HopByHop
            | Kind::KeepAlive
            | Kind::ForwardedFor
            | Kind::TraceParent
            | Kind::TraceState => return false,
        }
        true
    });
    write_framing(fields, head, out);
    write_forwarded(line.raw, fields, head, entry, seen.get(), out);
    let sampled_at = (!is_traced).then(|| begin_trace(out));
    out.extend_from_slice(b"\r\n");
    sampled_at
}

/// Whether the client's trace goes on.
fn is_traced(fields: &Fields<'_, '_>) -> bool {
    let parent = fields.only(Kind::TraceParent).ok().flatten();
    parent.is_some_and(trace::is_valid) && !fields.is_nominated("traceparent")
}

fn begin_trace(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(b"traceparent: ");
    let start = out.len();
    out.extend_from_slice(&trace::begin());
    out.extend_from_slice(b"\r\n");
    start + trace::SAMPLED_AT
}

/// Which fields of ours the client has sent already.
#[derive(Clone, Copy, Default)]
struct Seen {
    proto: bool,
    host: bool,
    id: bool,
}

fn write_host(raw: &[u8], head: &Head, entry: &Entry, out: &mut Vec<u8>) {
    match head.host.clone().and_then(|host| raw.get(host)) {
        Some(host) => out.extend_from_slice(host),
        // Writing to memory cannot fail.
        None => drop(write!(out, "{}", entry.listen)),
    }
}

fn write_framing(fields: &Fields<'_, '_>, head: &Head, out: &mut Vec<u8>) {
    let length = match &head.body {
        Body::Length(left) => Some(*left),
        Body::Chunked(_) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            None
        }
        // "0" is told only where it was.
        Body::Ended | Body::UntilClose => fields.content_length().ok().flatten(),
    };
    if let Some(length) = length {
        out.extend_from_slice(b"content-length: ");
        write_number(out, length);
        out.extend_from_slice(b"\r\n");
    }
    if fields.all(Kind::Te).any(|value| list_has(value, "trailers")) {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    if let Some(protocol) = protocol(fields).filter(|_| head.wants_upgrade) {
        out.extend_from_slice(b"connection: upgrade\r\n");
        write_field(out, b"upgrade", protocol);
    }
}

fn write_forwarded(
    raw: &[u8],
    fields: &Fields<'_, '_>,
    head: &Head,
    entry: &Entry,
    seen: Seen,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"x-forwarded-for: ");
    if !fields.is_nominated("x-forwarded-for") {
        for earlier in fields.all(Kind::ForwardedFor) {
            out.extend_from_slice(earlier);
            out.extend_from_slice(b", ");
        }
    }
    write_address(entry.client.ip(), out);
    if !seen.proto {
        out.extend_from_slice(b"\r\nx-forwarded-proto: http");
    }
    if !seen.host {
        out.extend_from_slice(b"\r\nx-forwarded-host: ");
        write_host(raw, head, entry, out);
    }
    if !seen.id {
        out.extend_from_slice(b"\r\nx-request-id: ");
        out.extend_from_slice(&trace::request_id());
    }
    out.extend_from_slice(b"\r\n");
}

fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                if octet > 99 {
                    out.push(b'0' + octet / 100);
                }
                if octet > 9 {
                    out.push(b'0' + octet / 10 % 10);
                }
                out.push(b'0' + octet % 10);
            }
        }
        // Writing to memory cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

#[cfg(test)]
mod tests;
