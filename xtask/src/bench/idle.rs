//! What a connection costs that rests between two requests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::address::local;
use super::sample;

/// Time for a proxy to come to rest after the last answer.
const SETTLE: Duration = Duration::from_secs(1);
/// Any answer comes sooner.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: host0.test\r\n\r\n";

/// Bytes of memory per connection, of the processes below `pid`, over `count` connections that
/// had one answer each.
#[allow(clippy::cast_precision_loss, reason = "memory of one machine stays far below 2^52")]
pub(super) fn bytes_per_connection(port: u16, pid: u32, count: u16) -> Result<f64> {
    let before = sample::memory_bytes(pid)?;
    let held = hold(port, count.into())?;
    std::thread::sleep(SETTLE);
    let after = sample::memory_bytes(pid)?;
    drop(held);
    Ok((after as f64 - before as f64) / f64::from(count))
}

/// So many connections that had one answer each.
pub(super) fn hold(port: u16, count: u32) -> Result<Vec<TcpStream>> {
    let connection = |_| {
        let mut stream = TcpStream::connect_timeout(&local(port), ANSWER_MAX)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        ask(&mut stream)?;
        Ok(stream)
    };
    let held: Result<Vec<_>> = (0..count).map(connection).collect();
    held.context("cannot hold an idle connection")
}

/// One request and its answer.
pub(super) fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(REQUEST)?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_complete(&bytes)? {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "closed before the answer was complete");
        bytes.extend_from_slice(&buffer[..read]);
    }
    Ok(())
}

/// Whether an answer of known length is all there.
fn is_complete(bytes: &[u8]) -> Result<bool> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    Ok(bytes.len() >= end + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        for length in 0..answer.len() {
            assert!(!is_complete(&answer[..length]).unwrap());
        }
        assert!(is_complete(answer).unwrap());
        assert!(is_complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
