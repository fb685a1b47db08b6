//! The form of an instance's log: numbered files in one directory, one record per line,
//! `MILLISECONDS STREAM TEXT`. Written by the shim ([`write`]), read by the runtime ([`read`]).

pub(crate) mod lines;
pub(crate) mod read;
pub(crate) mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use switchback_ports::runtime::LogLine;

/// Longest line kept, in bytes; the rest of it is dropped.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// The stream of the supervisor's own words.
pub(crate) const SUPERVISOR: &str = "switchback";

/// Appends one record to a batch.
pub(crate) fn format_record(batch: &mut Vec<u8>, at_ms: u64, stream: &str, text: &[u8]) {
    batch.extend_from_slice(format!("{at_ms} {stream} ").as_bytes());
    batch.extend_from_slice(text);
    batch.push(b'\n');
}

/// Reads a record without its newline; `None` for what a crash left half-written.
fn parse_record(record: &[u8]) -> Option<LogLine> {
    let mut parts = record.splitn(3, |byte| *byte == b' ');
    let at_ms = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?.to_owned();
    let text = String::from_utf8_lossy(parts.next()?).into_owned();
    Some(LogLine { at_ms, stream, text })
}

/// The file with this number.
fn file_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:08}.log"))
}

/// The numbers of the files there are, ascending; none when there is no directory.
fn file_numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let number = |entry: fs::DirEntry| -> Option<u64> {
        entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok()
    };
    let mut numbers: Vec<u64> = entries.flatten().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_invalid_text_is_replaced() {
        let mut batch = Vec::new();
        format_record(&mut batch, 1_700_000_000_123, "stdout", b" two  words \xff");
        let line = parse_record(batch.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((line.at_ms, line.stream.as_str()), (1_700_000_000_123, "stdout"));
        assert_eq!(line.text, " two  words \u{fffd}");
        for torn in [&b""[..], b"17", b"17 stdout", b"x stdout text"] {
            assert_eq!(parse_record(torn), None);
        }
    }
}
