//! A response's head: read strictly, and written anew for the client in the same pass. No I/O.

use std::mem::MaybeUninit;
use std::time::Duration;

use http::StatusCode;
use httparse::Status;

use super::chunked::{Chunked, Malformed};
use super::fields::{Fields, Kind, Usual, write_field, write_number};
use super::inbound::Body;
use super::outbound::Framing;
use crate::limits::{BUFFER_BYTES_MAX, HEADERS_MAX};
use crate::service::Refusal;

/// The client's side of an exchange, as far as it shapes the response.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about one message")]
pub(super) struct Client {
    /// HTTP/1.0.
    pub(super) is_old: bool,
    /// It asked with `HEAD`.
    pub(super) is_head: bool,
    /// It asked for another protocol.
    pub(super) wants_upgrade: bool,
    /// Its connection may carry another request after this one.
    pub(super) keeps_alive: bool,
}

/// What is to be known of a response beside its bytes.
#[derive(Debug)]
pub(super) struct Response {
    /// How long its head is.
    pub(super) bytes: usize,
    pub(super) status: u16,
    pub(super) body: Body,
    /// How the client gets the body.
    pub(super) framing: Framing,
    /// The instance's connection may carry another request.
    pub(super) is_reusable: bool,
    /// How long the instance says it keeps a resting connection.
    pub(super) keep_alive: Option<Duration>,
    /// The client's connection may carry another request.
    pub(super) client_keeps_alive: bool,
}

impl Response {
    /// Not the last response to the request.
    pub(super) fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Reads a head at the start of `raw` and appends the client's version of it to `out`, unless it
/// is interim and no news to the client. `None` while it is not complete.
pub(super) fn read(
    raw: &[u8],
    client: Client,
    out: &mut Vec<u8>,
) -> Result<Option<Response>, Malformed> {
    let mut storage = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, raw, &mut storage);
    let bytes = match parsed {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) if raw.len() < BUFFER_BYTES_MAX => return Ok(None),
        Ok(Status::Partial) | Err(_) => return Err(Malformed),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(Malformed);
    };
    if !raw.starts_with(b"HTTP/") || !(100..600).contains(&status) {
        return Err(Malformed);
    }
    let fields = Fields::new(&raw[..bytes], response.headers)?;
    let read = interpret(&fields, bytes, status, version, client)?;
    // The client has had its 100 from us, if it wanted one; an old one knows no interim responses.
    if !read.is_interim() || (status != 100 && !client.is_old) {
        write(&fields, &read, response.reason.unwrap_or_default(), client, out);
    }
    Ok(Some(read))
}

fn interpret(
    fields: &Fields<'_, '_>,
    bytes: usize,
    status: u16,
    version: u8,
    client: Client,
) -> Result<Response, Malformed> {
    let (length, chunked) = (fields.content_length()?, fields.is_chunked()?);
    if chunked && (length.is_some() || version == 0) {
        return Err(Malformed);
    }
    let switches = status == 101;
    if switches && !(client.wants_upgrade && fields.connection_has(Usual::Upgrade)) {
        return Err(Malformed);
    }
    let body = match (has_body(status, client), chunked, length) {
        (false, _, _) => Body::Ended,
        (true, true, _) => Body::Chunked(Chunked::new()),
        (true, false, Some(length)) => Body::length(length),
        (true, false, None) => Body::UntilClose,
    };
    let framing = match &body {
        Body::Ended | Body::Length(_) => Framing::Plain,
        Body::Chunked(_) | Body::UntilClose if client.is_old => Framing::UntilClose,
        Body::Chunked(_) | Body::UntilClose => Framing::Chunked,
    };
    let lasts = match version {
        0 => fields.connection_has(Usual::KeepAlive),
        _ => !fields.connection_has(Usual::Close),
    };
    let is_reusable = lasts && !switches && !matches!(body, Body::UntilClose);
    let client_keeps_alive = client.keeps_alive && framing != Framing::UntilClose;
    let keep_alive = fields.all(Kind::KeepAlive).find_map(announced);
    Ok(Response { bytes, status, body, framing, is_reusable, keep_alive, client_keeps_alive })
}

/// Whether a body follows a head (RFC 9112, 6.3).
fn has_body(status: u16, client: Client) -> bool {
    !client.is_head && status >= 200 && status != 204 && status != 304
}

/// From `timeout=5, max=100`.
fn announced(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let seconds = |part: &str| part.trim().strip_prefix("timeout=")?.trim().parse().ok();
    text.split(',').find_map(seconds).map(Duration::from_secs)
}

fn write(
    fields: &Fields<'_, '_>,
    read: &Response,
    reason: &str,
    client: Client,
    out: &mut Vec<u8>,
) {
    write_status(client.is_old, read.status, reason, out);
    fields.copy(out, |kind, field| {
        let passes = match kind {
            Kind::Other
            | Kind::Host
            | Kind::Expect
            | Kind::ForwardedFor
            | Kind::ForwardedProto
            | Kind::ForwardedHost
            | Kind::RequestId
            | Kind::TraceParent
            | Kind::TraceState => true,
            Kind::Connection
            | Kind::ContentLength
            | Kind::TransferEncoding
            | Kind::Te
            | Kind::Upgrade
            | Kind::HopByHop
            | Kind::KeepAlive => false,
        };
        passes && !fields.is_nominated(field.name)
    });
    write_length(fields, read, out);
    if read.status == 101 {
        out.extend_from_slice(b"connection: upgrade\r\n");
        for protocol in fields.all(Kind::Upgrade) {
            write_field(out, b"upgrade", protocol);
        }
    } else if !read.is_interim() {
        write_persistence(client.is_old, read.client_keeps_alive, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The status line.
fn write_status(is_old: bool, status: u16, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    write_number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What frames the body, or tells how long it would be (`HEAD`, 304).
fn write_length(fields: &Fields<'_, '_>, read: &Response, out: &mut Vec<u8>) {
    let told = read.status >= 200 && read.status != 204;
    if read.framing == Framing::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if let Ok(Some(length)) = fields.content_length()
        && told
    {
        out.extend_from_slice(b"content-length: ");
        write_number(out, length);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_persistence(is_old: bool, keeps_alive: bool, out: &mut Vec<u8>) {
    match (keeps_alive, is_old) {
        (false, _) => out.extend_from_slice(b"connection: close\r\n"),
        (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (true, false) => {}
    }
}

/// Adds a field to a head that was just written.
pub(super) fn add_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.truncate(out.len() - b"\r\n".len());
    write_field(out, name, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends an answer of our own.
pub(super) fn write_refusal(refusal: &Refusal, client: Client, out: &mut Vec<u8>) {
    let StatusReason { status, reason } = StatusReason::of(refusal.status);
    write_status(client.is_old, status, reason, out);
    let body = refusal.body();
    for (name, value) in refusal.fields() {
        write_field(out, name.as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"content-length: ");
    write_number(out, body.len() as u64);
    out.extend_from_slice(b"\r\n");
    write_persistence(client.is_old, client.keeps_alive && !refusal.close, out);
    out.extend_from_slice(b"\r\n");
    if !client.is_head {
        out.extend_from_slice(&body);
    }
}

struct StatusReason {
    status: u16,
    reason: &'static str,
}

impl StatusReason {
    fn of(status: StatusCode) -> Self {
        Self { status: status.as_u16(), reason: status.canonical_reason().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client =
        Client { is_old: false, is_head: false, wants_upgrade: false, keeps_alive: true };

    fn answer(text: &str, client: Client) -> Option<(Response, String)> {
        let mut out = Vec::new();
        let read = read(text.as_bytes(), client, &mut out).ok()?.expect("it is complete");
        Some((read, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn an_answer_that_two_readers_could_frame_differently_is_none() {
        for fields in [
            "content-length: 3\r\ntransfer-encoding: chunked",
            "content-length: 3\r\ncontent-length: 3",
            "content-length: 3x",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding : chunked",
            "x: 1\r\n folded",
            "x: 1\ny: 1",
            "x: a\0b",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert!(answer(&text, CLIENT).is_none(), "{fields:?}");
        }
        for text in [
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            "HTTP/1.1 099 No\r\n\r\n",
            "HTTP/1.1 600 No\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nx: 1\r\n\r\n",
        ] {
            assert!(answer(text, CLIENT).is_none(), "{text:?}");
        }
    }

    #[test]
    fn the_end_of_a_body_is_told_to_each_client_in_its_words() {
        let old = Client { is_old: true, ..CLIENT };
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let close = "HTTP/1.1 200 OK\r\nx: 1\r\n\r\n";
        for (text, client, framing, keeps_alive, reusable) in [
            (length, CLIENT, Framing::Plain, true, true),
            (chunked, CLIENT, Framing::Chunked, true, true),
            (close, CLIENT, Framing::Chunked, true, false),
            (length, old, Framing::Plain, true, true),
            (chunked, old, Framing::UntilClose, false, true),
            (close, old, Framing::UntilClose, false, false),
        ] {
            let (read, written) = answer(text, client).unwrap();
            let told = (read.framing, read.client_keeps_alive, read.is_reusable);
            assert_eq!(told, (framing, keeps_alive, reusable), "{text:?}");
            assert_eq!(written.contains("connection: close"), !keeps_alive, "{written}");
            assert_eq!(written.starts_with("HTTP/1.0"), client.is_old, "{written}");
        }
    }

    #[test]
    fn answers_without_a_body_have_none_whatever_they_say() {
        let head = Client { is_head: true, ..CLIENT };
        for (text, client, length) in [
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", CLIENT, false),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", CLIENT, true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", head, true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", head, false),
        ] {
            let (read, written) = answer(text, client).unwrap();
            assert!(read.body.has_ended() && read.is_reusable, "{text:?}");
            assert_eq!(written.contains("content-length: 5"), length, "{written}");
            assert!(!written.contains("transfer-encoding"), "{written}");
        }
    }

    #[test]
    fn hop_by_hop_fields_go_and_the_instance_says_how_long_it_rests() {
        let text = concat!(
            "HTTP/1.1 200 Fine\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n",
            "Proxy-Authenticate: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"
        );
        let (read, written) = answer(text, CLIENT).unwrap();
        let expected =
            "HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ncontent-length: 0\r\n\r\n";
        assert_eq!((read.keep_alive, written.as_str()), (Some(Duration::from_secs(5)), expected));
        let closing = answer("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", CLIENT).unwrap().0;
        let old = answer("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", CLIENT).unwrap().0;
        assert!(!closing.is_reusable && !old.is_reusable);
    }

    #[test]
    fn interim_answers_pass_except_the_one_that_was_ours() {
        let (read, written) =
            answer("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n", CLIENT).unwrap();
        assert!(read.is_interim());
        assert_eq!(written, "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n");
        let (read, written) = answer("HTTP/1.1 100 Continue\r\n\r\n", CLIENT).unwrap();
        assert!(read.is_interim() && written.is_empty());
        let old = Client { is_old: true, ..CLIENT };
        assert!(answer("HTTP/1.1 103 Early Hints\r\n\r\n", old).unwrap().1.is_empty());
    }
}
