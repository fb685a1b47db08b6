//! Reads the log, newest lines or from a cursor on, while the shim writes and rotates it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use switchback_ports::runtime::{LogCursor, LogLine, LogPage, LogQuery};

use super::{file_numbers, file_path, parse_record};

/// Most lines in one page: 16 KiB each at most, so that a page is never larger than the log.
const PAGE_LINES_MAX: usize = 100_000;

/// A place in the log: a file and a byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Place {
    file: u64,
    offset: u64,
}

impl Place {
    fn parse(cursor: &LogCursor) -> io::Result<Self> {
        if cursor.0.is_empty() {
            return Ok(Self::default());
        }
        let numbers = cursor.0.split_once(':');
        let place = numbers.and_then(|(file, offset)| {
            Some(Self { file: file.parse().ok()?, offset: offset.parse().ok()? })
        });
        place.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a log cursor"))
    }

    fn cursor(self) -> LogCursor {
        LogCursor(format!("{}:{}", self.file, self.offset))
    }
}

/// Answers a query from the files in `directory`; an empty page when there are none.
pub(crate) fn page(directory: &Path, query: &LogQuery) -> io::Result<LogPage> {
    match query {
        LogQuery::Tail(count) => tail(directory, (*count).min(PAGE_LINES_MAX)),
        LogQuery::After(cursor, count) => {
            after(directory, Place::parse(cursor)?, (*count).min(PAGE_LINES_MAX))
        }
    }
}

/// The newest lines: whole files, from the newest back until there are enough.
fn tail(directory: &Path, count: usize) -> io::Result<LogPage> {
    let mut lines: VecDeque<LogLine> = VecDeque::new();
    let mut end = None;
    for file in file_numbers(directory)?.into_iter().rev() {
        let mut newest = VecDeque::new();
        let place = scan(directory, Place { file, offset: 0 }, |line| {
            newest.push_back(line);
            if newest.len() + lines.len() > count {
                newest.pop_front();
            }
            true
        })?;
        end = end.or(place);
        newest.append(&mut lines);
        lines = newest;
        if lines.len() >= count {
            break;
        }
    }
    Ok(LogPage { lines: lines.into(), next: end.unwrap_or_default().cursor() })
}

/// What came after a place; what was rotated away meanwhile is left out.
fn after(directory: &Path, start: Place, count: usize) -> io::Result<LogPage> {
    let (mut lines, mut end) = (Vec::new(), start);
    // Listed before anything is read: a file with a successor does not grow any more.
    let numbers = file_numbers(directory)?;
    for file in numbers.into_iter().filter(|number| *number >= start.file) {
        if lines.len() >= count {
            break;
        }
        let offset = if file == start.file { start.offset } else { 0 };
        let reached = scan(directory, Place { file, offset }, |line| {
            lines.push(line);
            lines.len() < count
        })?;
        end = reached.unwrap_or(end);
    }
    Ok(LogPage { lines, next: end.cursor() })
}

/// Hands the complete records from a place on to `take` until it answers false. Returns the
/// place after the last record; `None` when the file was rotated away.
fn scan(
    directory: &Path,
    start: Place,
    mut take: impl FnMut(LogLine) -> bool,
) -> io::Result<Option<Place>> {
    let mut file = match File::open(file_path(directory, start.file)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(start.offset))?;
    let (mut reader, mut place, mut record) = (BufReader::new(file), start, Vec::new());
    loop {
        record.clear();
        let length = reader.read_until(b'\n', &mut record)?;
        let Some(complete) = record.strip_suffix(b"\n") else { return Ok(Some(place)) };
        place.offset += length as u64;
        if let Some(line) = parse_record(complete)
            && !take(line)
        {
            return Ok(Some(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::write::LogWriter;
    use super::*;
    use crate::settings::Limits;

    fn texts(page: &LogPage) -> Vec<&str> {
        page.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_cursor_follows_the_log_over_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { log_file_bytes: 80, log_files: 4, ..Limits::default() };
        let mut log = LogWriter::open(directory.path().to_owned(), &limits).unwrap();
        let (mut cursor, mut seen) = (LogCursor::default(), Vec::new());
        for number in 0..50 {
            log.note(&format!("line {number}"));
            if number % 3 == 2 {
                let read = page(directory.path(), &LogQuery::After(cursor, 2)).unwrap();
                seen.extend(texts(&read).into_iter().map(str::to_owned));
                let read = page(directory.path(), &LogQuery::After(read.next, 100)).unwrap();
                seen.extend(texts(&read).into_iter().map(str::to_owned));
                cursor = read.next;
            }
        }
        let expected: Vec<String> = (0..48).map(|number| format!("line {number}")).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_tail_spans_files_and_its_cursor_is_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { log_file_bytes: 80, log_files: 4, ..Limits::default() };
        let mut log = LogWriter::open(directory.path().to_owned(), &limits).unwrap();
        (0..20).for_each(|number| log.note(&number.to_string()));
        let read = page(directory.path(), &LogQuery::Tail(5)).unwrap();
        assert_eq!(texts(&read), ["15", "16", "17", "18", "19"]);
        log.note("20");
        let read = page(directory.path(), &LogQuery::After(read.next, 10)).unwrap();
        assert_eq!(texts(&read), ["20"]);
        assert_eq!(texts(&page(directory.path(), &LogQuery::Tail(0)).unwrap()), [""; 0]);
    }

    #[test]
    fn a_cursor_that_is_none_of_ours_is_refused_and_an_old_one_goes_on_at_the_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { log_file_bytes: 80, log_files: 2, ..Limits::default() };
        let mut log = LogWriter::open(directory.path().to_owned(), &limits).unwrap();
        (0..30).for_each(|number| log.note(&number.to_string()));
        let garbage = LogQuery::After(LogCursor("x:y".to_owned()), 1);
        assert!(page(directory.path(), &garbage).is_err());
        let old = LogQuery::After(LogCursor("1:0".to_owned()), 100);
        assert_eq!(texts(&page(directory.path(), &old).unwrap()).last(), Some(&"29"));
        assert_eq!(page(&directory.path().join("none"), &old).unwrap().lines, []);
    }
}
