//! The chunked transfer coding, read: sizes, extensions, data, trailers. No I/O.
//!
//! Extensions are checked by their grammar (RFC 9112, 7.1.1) and dropped. Line ends are CR LF,
//! sizes are hex digits and nothing else.

use crate::limits::{CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// Not what it claims to be, or beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit, or after some.
    Size {
        digits: u8,
    },
    /// Blanks after the size or after an extension: only `;` may follow.
    Blank,
    Name {
        begun: bool,
    },
    NameBlank,
    Value {
        begun: bool,
    },
    Quoted,
    Escaped,
    AfterQuoted,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Ended,
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    left: u64,
    line: usize,
    trailers: Vec<u8>,
}

/// What the next bytes are: so many of framing, then so many of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) framing: usize,
    pub(super) data: usize,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size { digits: 0 }, left: 0, line: 0, trailers: Vec::new() }
    }

    /// Whether the whole body, with its trailers, was seen.
    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The lines of the trailers with the empty one; empty if there were none.
    pub(super) fn trailers(&self) -> &[u8] {
        if self.trailers == b"\r\n" { &[] } else { &self.trailers }
    }

    /// Looks at the next bytes, up to the end of one run of data or the end of the body.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, Malformed> {
        let mut framing = 0;
        while framing < bytes.len() && self.state != State::Ended {
            if self.state == State::Data {
                let rest = bytes.len() - framing;
                let data = usize::try_from(self.left).unwrap_or(rest).min(rest);
                self.left -= data as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Step { framing, data });
            }
            self.state = self.next(bytes[framing])?;
            framing += 1;
        }
        Ok(Step { framing, data: 0 })
    }

    #[allow(clippy::match_same_arms, reason = "one line per state and byte reads as the grammar")]
    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        if self.line > CHUNK_LINE_BYTES_MAX && self.state != State::Trailers {
            return Err(Malformed);
        }
        let next = match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => self.digit(digits, byte)?,
            (State::Size { digits: 0 }, _) => return Err(Malformed),
            (State::Name { begun: false }, b' ' | b'\t') => State::Name { begun: false },
            (State::Name { .. }, _) if is_token(byte) => State::Name { begun: true },
            (State::Name { begun: false }, _) => return Err(Malformed),
            (State::Name { .. } | State::NameBlank, b'=') => State::Value { begun: false },
            (State::Name { .. } | State::NameBlank, b' ' | b'\t') => State::NameBlank,
            (State::Value { begun: false }, b' ' | b'\t') => State::Value { begun: false },
            (State::Value { begun: false }, b'"') => State::Quoted,
            (State::Value { .. }, _) if is_token(byte) => State::Value { begun: true },
            (State::Value { begun: false }, _) => return Err(Malformed),
            (State::Quoted, b'"') => State::AfterQuoted,
            (State::Quoted, b'\\') => State::Escaped,
            (State::Quoted | State::Escaped, b'\t' | b' '..=b'~' | 0x80..) => State::Quoted,
            (State::NameBlank, b';') => State::Name { begun: false },
            (State::Blank | State::Size { .. } | State::AfterQuoted, b';') => {
                State::Name { begun: false }
            }
            (State::Name { .. } | State::Value { .. }, b';') => State::Name { begun: false },
            (State::Blank | State::Size { .. } | State::AfterQuoted, b' ' | b'\t') => State::Blank,
            (State::Value { .. }, b' ' | b'\t') => State::Blank,
            (State::Size { .. } | State::AfterQuoted, b'\r') => State::SizeLf,
            (State::Name { .. } | State::Value { .. }, b'\r') => State::SizeLf,
            (State::SizeLf, b'\n') => self.size_ends(),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => self.line_begins(State::Size { digits: 0 }),
            (State::Trailers, _) => self.trailer(byte)?,
            _ => return Err(Malformed),
        };
        Ok(next)
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<State, Malformed> {
        let value = char::from(byte).to_digit(16).ok_or(Malformed)?;
        // Sixteen digits are all of 64 bits; more of them, even zeros, serve no honest sender.
        if digits >= 16 {
            return Err(Malformed);
        }
        self.left = self.left << 4 | u64::from(value);
        Ok(State::Size { digits: digits + 1 })
    }

    fn size_ends(&mut self) -> State {
        self.line = 0;
        if self.left == 0 { State::Trailers } else { State::Data }
    }

    fn line_begins(&mut self, state: State) -> State {
        self.line = 0;
        state
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Malformed> {
        let after_cr = self.trailers.last() == Some(&b'\r');
        if (byte == b'\n') != after_cr || self.trailers.len() >= TRAILER_BYTES_MAX {
            return Err(Malformed);
        }
        self.trailers.push(byte);
        let ended = self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n");
        Ok(if ended { State::Ended } else { State::Trailers })
    }
}

/// Whether a byte may be part of a name (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All data, the trailers, and how many bytes the body took.
    type Read = (Vec<u8>, Vec<u8>, usize);

    /// `None` if it is not complete.
    fn read(bytes: &[u8]) -> Result<Option<Read>, Malformed> {
        let (mut chunked, mut data, mut at) = (Chunked::new(), Vec::new(), 0);
        while at < bytes.len() && !chunked.has_ended() {
            let step = chunked.step(&bytes[at..])?;
            at += step.framing;
            data.extend_from_slice(&bytes[at..at + step.data]);
            at += step.data;
        }
        Ok(chunked.has_ended().then(|| (data, chunked.trailers().to_vec(), at)))
    }

    #[test]
    fn data_and_trailers_are_found_however_the_bytes_are_cut() {
        let bytes =
            b"5;a=b;c=\"d\\\"\";e\r\nhello\r\n000a ; x = y\r\n0123456789\r\n0\r\nx: 1\r\n\r\nGET";
        let whole = read(bytes).unwrap().unwrap();
        assert_eq!(whole.0, b"hello0123456789");
        assert_eq!((whole.1.as_slice(), whole.2), (&b"x: 1\r\n\r\n"[..], bytes.len() - 3));
        let (mut chunked, mut data) = (Chunked::new(), Vec::new());
        for byte in &bytes[..bytes.len() - 3] {
            let step = chunked.step(&[*byte]).unwrap();
            data.extend_from_slice(&[*byte][step.framing..step.framing + step.data]);
        }
        assert!(chunked.has_ended());
        assert_eq!((data, chunked.trailers().to_vec()), (whole.0, whole.1));
    }

    #[test]
    fn what_is_not_the_grammar_is_refused() {
        for bad in [
            "\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\t\r\n",
            "5;\r\n",
            "5; \r\n",
            "5;a b\r\n",
            "5;a=\r\n",
            "5;a=\"b\r\n",
            "5;a=\"b\"c\r\n",
            "5;a=b\n",
            "5;a\0\r\n",
            "5;=b\r\n",
            "0x5\r\n",
            "+5\r\n",
            "-5\r\n",
            "5_0\r\n",
            "5,5\r\n",
            "5\n",
            "5\r5",
            "00000000000000005\r\n",
            "11111111111111111\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "0\r\n\n",
            "0\r\nx: 1\n\r\n",
            "0\r\nx: 1\r\r\n\r\n",
            "0\r\n\rx",
        ] {
            assert_eq!(read(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
        let long = format!("5;{}\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX));
        assert_eq!(read(long.as_bytes()), Err(Malformed));
        let bomb = format!("0\r\n{}\r\n", "x: 1\r\n".repeat(TRAILER_BYTES_MAX / 6 + 1));
        assert_eq!(read(bomb.as_bytes()), Err(Malformed));
    }
}
