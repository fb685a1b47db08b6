//! Reads an HTTP/1.1 response as it arrives: where it ends, its status, and whose it is.

use switchback_domain::Version;

use super::connection::Answer;

/// Larger heads are no answers of a service under test.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// A version's first word is looked for in so many bytes of the body.
const BODY_START_BYTES: usize = 80;
/// A line of a chunked body: a size, an extension, a trailer.
const LINE_BYTES_MAX: usize = 8 << 10;

/// What came was not a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Incomplete,
    Complete(Answer),
}

/// A response so far.
#[derive(Debug, Default)]
pub(super) struct Response {
    /// Bytes of the head, or of an unfinished line of a chunked body.
    pending: Vec<u8>,
    head: Option<Head>,
    body_start: Vec<u8>,
}

#[derive(Debug)]
struct Head {
    status: u16,
    version: Option<String>,
    closes: bool,
    body: Body,
}

/// What is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// So many bytes.
    Length(u64),
    /// Everything until the connection ends.
    UntilClose,
    /// The line with the next chunk's size.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Trailers, up to an empty line.
    Trailers,
    /// Nothing.
    Done,
}

impl Response {
    /// Takes the bytes that arrived next.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Progress, Malformed> {
        let mut rest = bytes;
        let joined;
        while self.head.is_none() {
            self.pending.extend_from_slice(rest);
            let Some((head, length)) = parse_head(&self.pending)? else {
                return Ok(Progress::Incomplete);
            };
            if (100..200).contains(&head.status) {
                self.pending.drain(..length);
                rest = &[];
                continue;
            }
            joined = std::mem::take(&mut self.pending);
            rest = &joined[length..];
            self.head = Some(head);
            break;
        }
        self.take_body(rest)
    }

    /// The answer, if the end of the connection completes it.
    pub(super) fn at_end(&mut self) -> Option<Answer> {
        let until_close = |head: &mut Head| head.body == Body::UntilClose;
        let head = self.head.take_if(until_close)?;
        Some(answer(head, &self.body_start))
    }

    fn take_body(&mut self, mut rest: &[u8]) -> Result<Progress, Malformed> {
        let Some(head) = &mut self.head else { return Ok(Progress::Incomplete) };
        loop {
            head.body = match head.body {
                Body::Length(0) | Body::Done => break,
                Body::UntilClose => {
                    skip(&mut rest, u64::MAX, &mut self.body_start);
                    return Ok(Progress::Incomplete);
                }
                _ if rest.is_empty() => return Ok(Progress::Incomplete),
                Body::Length(left) => {
                    Body::Length(left - skip(&mut rest, left, &mut self.body_start))
                }
                Body::Chunk(left) => match left - skip(&mut rest, left, &mut self.body_start) {
                    0 => Body::ChunkEnd,
                    left => Body::Chunk(left),
                },
                Body::ChunkSize | Body::ChunkEnd | Body::Trailers => {
                    let Some(line) = take_line(&mut rest, &mut self.pending)? else {
                        return Ok(Progress::Incomplete);
                    };
                    after_line(head.body, &line)?
                }
            };
        }
        let Some(mut head) = self.head.take() else { return Ok(Progress::Incomplete) };
        // More than was announced: whatever it is, the connection cannot be used again.
        head.closes |= !rest.is_empty();
        Ok(Progress::Complete(answer(head, &self.body_start)))
    }
}

fn after_line(body: Body, line: &[u8]) -> Result<Body, Malformed> {
    match body {
        Body::ChunkSize => Ok(match chunk_size(line)? {
            0 => Body::Trailers,
            size => Body::Chunk(size),
        }),
        Body::ChunkEnd if line.is_empty() => Ok(Body::ChunkSize),
        Body::ChunkEnd => Err(Malformed),
        Body::Trailers if line.is_empty() => Ok(Body::Done),
        Body::Trailers | Body::Length(_) | Body::UntilClose | Body::Chunk(_) | Body::Done => {
            Ok(body)
        }
    }
}

fn answer(head: Head, body_start: &[u8]) -> Answer {
    let Head { status, version, closes, .. } = head;
    let named = version.or_else(|| (status == 200).then(|| first_word(body_start)).flatten());
    Answer { status, version: named, closes }
}

fn first_word(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let word = text.split_whitespace().next()?;
    Version::new(word).ok().map(String::from)
}

/// Skips up to `limit` bytes, keeping the first few of the body; returns how many.
fn skip(rest: &mut &[u8], limit: u64, body_start: &mut Vec<u8>) -> u64 {
    let length = rest.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
    let (skipped, left) = rest.split_at(length);
    let room = BODY_START_BYTES.saturating_sub(body_start.len());
    body_start.extend_from_slice(&skipped[..length.min(room)]);
    *rest = left;
    length as u64
}

/// Takes a line without its end, if all of it is there; keeps its beginning otherwise.
fn take_line(rest: &mut &[u8], pending: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Malformed> {
    let end = rest.iter().position(|byte| *byte == b'\n');
    let (line, left) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
    pending.extend_from_slice(line);
    *rest = left;
    if pending.len() > LINE_BYTES_MAX {
        return Err(Malformed);
    }
    if end.is_none() {
        return Ok(None);
    }
    let mut line = std::mem::take(pending);
    line.truncate(line.len() - 1);
    match line.pop() {
        Some(b'\r') => Ok(Some(line)),
        _ => Err(Malformed),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let text = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let digits = text.split(';').next().unwrap_or_default().trim_end();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Malformed);
    }
    u64::from_str_radix(digits, 16).map_err(|_| Malformed)
}

/// The head and its length in bytes; `None` when there is more to come.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
    };
    let status = parsed.code.ok_or(Malformed)?;
    let mut head =
        Head { status, version: None, closes: parsed.version == Some(0), body: Body::UntilClose };
    for header in parsed.headers.iter() {
        take_header(&mut head, header.name, header.value)?;
    }
    if matches!(status, 204 | 304) {
        head.body = Body::Done;
    }
    head.closes |= head.body == Body::UntilClose;
    Ok(Some((head, length)))
}

fn take_header(head: &mut Head, name: &str, value: &[u8]) -> Result<(), Malformed> {
    let text = || std::str::from_utf8(value).map(str::trim).map_err(|_| Malformed);
    if name.eq_ignore_ascii_case("x-version") {
        head.version = Some(text()?.to_owned());
    } else if name.eq_ignore_ascii_case("connection") {
        let names = text()?.split(',').map(str::trim);
        head.closes |= names.clone().any(|name| name.eq_ignore_ascii_case("close"));
    } else if name.eq_ignore_ascii_case("transfer-encoding") {
        if !text()?.eq_ignore_ascii_case("chunked") {
            return Err(Malformed);
        }
        head.body = Body::ChunkSize;
    } else if name.eq_ignore_ascii_case("content-length") {
        let length = Body::Length(text()?.parse().map_err(|_| Malformed)?);
        // Two lengths that differ, or a length beside chunks: nobody can tell where it ends.
        if head.body != Body::UntilClose && head.body != length {
            return Err(Malformed);
        }
        head.body = length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to bytes that arrive in pieces, then the end of the connection.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<Answer>, Malformed> {
        let mut response = Response::default();
        for piece in bytes.chunks(piece) {
            if let Progress::Complete(answer) = response.take(piece)? {
                return Ok(Some(answer));
            }
        }
        Ok(response.at_end())
    }

    fn read_any(bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
        let whole = read(bytes, usize::MAX);
        for piece in 1..bytes.len() {
            assert_eq!(read(bytes, piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn answer(status: u16, version: Option<&str>, closes: bool) -> Answer {
        Answer { status, version: version.map(ToOwned::to_owned), closes }
    }

    #[test]
    fn every_framing_in_pieces_of_any_size() {
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Version: v7\r\n\r\nv2 hello";
        assert_eq!(read_any(length), Ok(Some(answer(200, Some("v7"), false))));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\nv2\r\nA;x=y\r\n hello all\r\n0\r\nTrailer: x\r\n\r\n";
        assert_eq!(read_any(chunked), Ok(Some(answer(200, Some("v2"), false))));
        let until_close = b"HTTP/1.1 200 OK\r\n\r\nv3 hello";
        assert_eq!(read_any(until_close), Ok(Some(answer(200, Some("v3"), true))));
        let none =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        assert_eq!(read_any(none), Ok(Some(answer(204, None, true))));
    }

    #[test]
    fn the_words_of_an_error_are_no_version() {
        let text = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 7\r\n\r\nnothing";
        assert_eq!(read_any(text), Ok(Some(answer(503, None, false))));
    }

    #[test]
    fn an_answer_that_breaks_off_is_no_answer() {
        for text in [
            &b"HTTP/1.1 200 OK\r\nContent-Le"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nv2 hell",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nv2\r\n0\r\n",
        ] {
            assert_eq!(read_any(text), Ok(None));
        }
    }

    #[test]
    fn nonsense_is_malformed() {
        for text in [
            &b"\x00\xffSQUEAK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked, x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nv2\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nv2x\r\n0\r\n\r\n",
        ] {
            assert_eq!(read_any(text), Err(Malformed), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn bytes_after_the_end_spoil_the_connection() {
        let more = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv2HTTP/1.1 200 OK\r\n";
        assert_eq!(read(more, usize::MAX), Ok(Some(answer(200, Some("v2"), true))));
    }
}
