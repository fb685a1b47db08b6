//! What is changed in the headers on their way through. Pure.
//!
//! Hop-by-hop fields (also those that `Connection` names) go; `X-Forwarded-*` and `x-request-id`
//! come. `Trailer` stays: trailers are passed on.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};

use crate::trace;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The subject of the client's certificate, told to instances when it was verified.
pub(crate) const CLIENT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");

/// Fields that concern one connection only, beside `Connection` itself. Who a client is, is one of
/// them: this side says it to the instance, nobody else does.
pub(crate) const HOP_BY_HOP: [HeaderName; 7] = [
    CLIENT_SUBJECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    UPGRADE,
];

/// Prepares a request's headers for the instance: `host` is what the client asked for, `chunked`
/// whether a body of unknown length follows. `Expect` goes because the continue was already ours
/// to answer.
pub(crate) fn to_instance(
    headers: &mut HeaderMap,
    client: IpAddr,
    host: &HeaderValue,
    chunked: bool,
) {
    let trailers = wants_trailers(headers);
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    headers.insert(HOST, host.clone());
    forwarded_for(headers, client);
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
    headers.entry(REQUEST_ID).or_insert_with(request_id);
}

/// Prepares a response's headers for the client.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

/// Tells the instance how the client came, and whom it has proved to be. What the client said of
/// that itself was taken out before.
pub(crate) fn introduce(headers: &mut HeaderMap, secure: bool, subject: Option<HeaderValue>) {
    if secure {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    }
    if let Some(subject) = subject {
        headers.insert(CLIENT_SUBJECT, subject);
    }
}

/// Keeps the trace that the client has begun, if it is one, or begins one.
pub(crate) fn trace(headers: &mut HeaderMap, sampled: bool) {
    let mut parents = headers.get_all(TRACE_PARENT).iter();
    if let (Some(only), None) = (parents.next(), parents.next())
        && trace::is_valid(only.as_bytes())
    {
        return;
    }
    let mut value = trace::begin();
    if sampled {
        value[trace::SAMPLED_AT] = b'1';
    }
    headers.remove(TRACE_STATE);
    if let Ok(value) = HeaderValue::from_bytes(&value) {
        headers.insert(TRACE_PARENT, value);
    }
}

/// HTTP/2 lets a client cut its cookies in pieces; everybody else wants them in one.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> =
        headers.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(http::header::COOKIE, whole);
    }
}

/// Whether the body is framed in a way that can be passed on: by length, by `chunked` alone, or by
/// the end of the connection. Any other transfer coding would be lost with its header.
pub(crate) fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(only), None) => only.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// The bytes a host's name may be of.
static OF_NAME: [bool; 256] = {
    let (marks, mut table, mut byte) = (b"-._~%!$&'()*+,;=", [false; 256], 0_u8);
    while byte < 0x80 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether this text is a host with an optional port: a name, an IPv4 or a bracketed IPv6 address.
pub(crate) fn is_host(text: &[u8]) -> bool {
    let (name, port) = match text {
        [b'[', ..] => {
            text.split_at(text.iter().position(|byte| *byte == b']').map_or(0, |at| at + 1))
        }
        _ => text.split_at(text.iter().position(|byte| *byte == b':').unwrap_or(text.len())),
    };
    let of_name = |byte: &u8| OF_NAME[usize::from(*byte)];
    let of_address = |byte: &u8| byte.is_ascii_alphanumeric() || b":._~-%".contains(byte);
    let is_name = match name {
        [] => false,
        [b'[', inside @ .., b']'] => !inside.is_empty() && inside.iter().all(of_address),
        name => name.iter().all(of_name),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_name && is_port
}

/// Asks for, or answers, an upgrade to `protocol`.
pub(crate) fn upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The protocol a message asks to change to. `h2c` does not count: an instance that took it would
/// answer in a protocol nobody here looks into.
pub(crate) fn upgrade_wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let named = connection_names(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    let http2 = protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
    (named && !http2).then(|| protocol.clone())
}

/// The seconds a server says it keeps a resting connection, from `Keep-Alive: timeout=5`.
pub(crate) fn keep_alive_seconds(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("keep-alive")?.to_str().ok()?;
    text.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.trim().parse().ok())
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let protected = |name: &HeaderName| *name == HOST || *name == CONTENT_LENGTH;
    if headers.contains_key(CONNECTION) {
        let parse = |name: &str| HeaderName::try_from(name).ok();
        let named: Vec<HeaderName> = connection_names(headers).filter_map(parse).collect();
        for name in named.iter().filter(|name| !protected(name)) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    // The transfer encoding decides the length; a length beside it is a lie (RFC 9112, 6.3).
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
}

fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case("trailers"))
}

/// Appends the client to the addresses that earlier proxies wrote.
fn forwarded_for(headers: &mut HeaderMap, client: IpAddr) {
    let mut line = Vec::new();
    for earlier in headers.get_all(FORWARDED_FOR) {
        line.extend_from_slice(earlier.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(client.to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&line) {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn request_id() -> HeaderValue {
    HeaderValue::from_bytes(&trace::request_id()).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn hop_by_hop_fields_go_and_the_end_to_end_ones_stay() {
        let mut sent = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "host, content-length"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("proxy-authorization", "x"),
            ("expect", "100-continue"),
            ("content-length", "3"),
            ("x-forwarded-for", "10.0.0.1"),
            ("trailer", "x-sum"),
        ]);
        let host = HeaderValue::from_static("a.test:80");
        to_instance(&mut sent, "127.0.0.9".parse().unwrap(), &host, false);
        let id = sent.remove("x-request-id").unwrap();
        assert_eq!(id.len(), 32);
        let expected = headers(&[
            ("content-length", "3"),
            ("te", "trailers"),
            ("host", "a.test:80"),
            ("trailer", "x-sum"),
            ("x-forwarded-for", "10.0.0.1, 127.0.0.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a.test:80"),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn only_hosts_are_hosts() {
        for good in ["a", "a.test:80", "127.0.0.1", "[::1]", "[::1]:8080", "a_b.test", "a:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "u@a", "a/b", "a:80:1", "a:x", "a:123456", "[::1", "[]", "[::1]x",
            "a?", "a#", "a\\b",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn what_is_there_already_is_kept() {
        let mut sent = headers(&[
            ("x-request-id", "mine"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer.test"),
        ]);
        let host = HeaderValue::from_static("inner.test");
        to_instance(&mut sent, "::1".parse().unwrap(), &host, true);
        assert_eq!(sent["x-request-id"], "mine");
        assert_eq!(sent["x-forwarded-proto"], "https");
        assert_eq!(sent["x-forwarded-host"], "outer.test");
        assert_eq!(sent["transfer-encoding"], "chunked");
    }

    #[test]
    fn a_trace_goes_on_with_its_state_or_begins_anew_without() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let mut sent = headers(&[("tracestate", "a=1"), ("traceparent", parent)]);
        let before = sent.clone();
        trace(&mut sent, true);
        assert_eq!(sent, before, "what the client decided stays");
        sent.append("traceparent", HeaderValue::from_static(parent));
        trace(&mut sent, true);
        assert_eq!((sent.len(), sent["traceparent"] == parent), (1, false), "two are none");
        assert!(sent["traceparent"].to_str().unwrap().ends_with("-01"));
    }

    #[test]
    fn a_length_beside_a_transfer_encoding_goes() {
        let mut answer = headers(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        to_client(&mut answer);
        assert!(answer.is_empty());
    }

    #[test]
    fn upgrades_need_connection_and_are_never_h2c() {
        let asks = |lines: &[(&'static str, &'static str)]| upgrade_wanted(&headers(lines));
        assert!(asks(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]).is_some());
        assert!(asks(&[("upgrade", "websocket")]).is_none());
        assert!(asks(&[("connection", "upgrade"), ("upgrade", "h2c")]).is_none());
    }

    #[test]
    fn an_announced_keep_alive_is_read() {
        let seconds = |text| keep_alive_seconds(&headers(&[("keep-alive", text)]));
        assert_eq!(seconds("timeout=5"), Some(5));
        assert_eq!(seconds("max=100, timeout=2"), Some(2));
        assert_eq!(seconds("nonsense"), None);
    }
}
