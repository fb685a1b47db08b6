//! Writes the log: bounded in size by rotation, bounded in rate by a token bucket. A line that
//! cannot be kept (flood, full disk) is counted and dropped; the instance is never held up.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{SUPERVISOR, file_numbers, file_path, format_record};
use crate::settings::Limits;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is in the file, or the disk did not take it.
    Offered,
    /// The instance writes more than its share: the caller should read on a little later.
    Flood,
}

/// The writing end of one instance's log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    directory: PathBuf,
    limits: Limits,
    number: u64,
    file: Option<File>,
    bytes: u64,
    dropped: u64,
    allowance: Allowance,
}

impl LogWriter {
    /// Goes on in a new file: the end of the last one may be torn. A disk that is full now may
    /// have room later, so nothing here fails for good.
    pub(crate) fn open(directory: PathBuf, limits: &Limits) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let number = file_numbers(&directory)?.last().copied().unwrap_or_default();
        let allowance = Allowance::new(limits, Instant::now());
        let limits = limits.clone();
        Ok(Self { directory, limits, number, file: None, bytes: 0, dropped: 0, allowance })
    }

    /// Adds whole records, `lines` of them, of the instance's output.
    pub(crate) fn append(&mut self, batch: &[u8], lines: u64) -> Kept {
        if !self.allowance.take(batch.len() as u64, Instant::now()) {
            self.dropped += lines;
            return Kept::Flood;
        }
        self.own_up();
        if self.write(batch).is_err() {
            self.dropped += lines;
        }
        Kept::Offered
    }

    /// Adds a line of the supervisor's own.
    pub(crate) fn note(&mut self, text: &str) {
        self.own_up();
        let mut record = Vec::new();
        format_record(&mut record, wall_ms(), SUPERVISOR, text.replace('\n', " ").as_bytes());
        if self.write(&record).is_err() {
            self.dropped += 1;
        }
    }

    /// Says how many lines were dropped before this place.
    fn own_up(&mut self) {
        if self.dropped == 0 {
            return;
        }
        let text = format!("{} lines were dropped here: too many, or the disk full", self.dropped);
        let mut record = Vec::new();
        format_record(&mut record, wall_ms(), SUPERVISOR, text.as_bytes());
        if self.write(&record).is_ok() {
            self.dropped = 0;
        }
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let full = self.bytes + batch.len() as u64 > self.limits.log_file_bytes;
        if self.file.is_none() || (full && self.bytes > 0) {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.write_all(batch);
        match written {
            Ok(()) => self.bytes += batch.len() as u64,
            // Part of it may be there: readers must not meet half a record.
            Err(_) => file.set_len(self.bytes)?,
        }
        written
    }

    /// Removes the oldest files first: on a full disk that makes the room for the new one.
    fn rotate(&mut self) -> io::Result<()> {
        let next = self.number + 1;
        let numbers = file_numbers(&self.directory)?;
        for number in numbers.into_iter().filter(|number| number + self.limits.log_files <= next) {
            fs::remove_file(file_path(&self.directory, number))?;
        }
        let file = File::options().append(true).create(true).open(file_path(&self.directory, next));
        self.file = Some(file?);
        (self.number, self.bytes) = (next, 0);
        Ok(())
    }
}

/// Milliseconds of the wall clock since the Unix epoch.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A token bucket of bytes.
#[derive(Debug)]
struct Allowance {
    per_second: u64,
    burst: u64,
    left: u64,
    filled_at: Instant,
}

impl Allowance {
    fn new(limits: &Limits, now: Instant) -> Self {
        let (per_second, burst) = (limits.log_bytes_per_second, limits.log_burst_bytes);
        Self { per_second, burst, left: burst, filled_at: now }
    }

    fn take(&mut self, bytes: u64, now: Instant) -> bool {
        let millis = u64::try_from((now - self.filled_at).as_millis()).unwrap_or(u64::MAX);
        let earned = self.per_second.saturating_mul(millis) / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.burst);
            self.filled_at += Duration::from_millis(millis);
        }
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Vec<u8> {
        let mut batch = Vec::new();
        format_record(&mut batch, 1, "stdout", text.as_bytes());
        batch
    }

    #[test]
    fn files_stay_within_number_and_size() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { log_file_bytes: 100, log_files: 3, ..Limits::default() };
        let mut log = LogWriter::open(directory.path().to_owned(), &limits).unwrap();
        for _ in 0..200 {
            assert_eq!(log.append(&record("a line of some length"), 1), Kept::Offered);
        }
        let numbers = file_numbers(directory.path()).unwrap();
        assert_eq!(numbers.len(), 3);
        for number in numbers {
            let length = fs::metadata(file_path(directory.path(), number)).unwrap().len();
            assert!((1..=100).contains(&length), "{length}");
        }
    }

    #[test]
    fn a_full_disk_drops_lines_and_says_so_later() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { log_file_bytes: 60, log_files: 2, ..Limits::default() };
        let mut log = LogWriter::open(directory.path().to_owned(), &limits).unwrap();
        let next = file_path(directory.path(), 1);
        std::os::unix::fs::symlink("/dev/full", &next).unwrap();
        for _ in 0..3 {
            assert_eq!(log.append(&record("lost"), 1), Kept::Offered);
        }
        fs::remove_file(&next).unwrap();
        log.file = None;
        log.append(&record("kept"), 1);
        let files = file_numbers(directory.path()).unwrap();
        let read = |number: &u64| fs::read_to_string(file_path(directory.path(), *number)).unwrap();
        let text: String = files.iter().map(read).collect();
        assert!(text.contains("3 lines were dropped") && text.contains("kept"), "{text}");
        assert!(!text.contains("lost"), "{text}");
    }

    #[test]
    fn the_allowance_is_a_burst_and_then_a_rate() {
        let limits =
            Limits { log_bytes_per_second: 1000, log_burst_bytes: 500, ..Limits::default() };
        let start = Instant::now();
        let mut allowance = Allowance::new(&limits, start);
        assert!(allowance.take(500, start));
        assert!(!allowance.take(1, start));
        assert!(!allowance.take(101, start + Duration::from_millis(100)));
        assert!(allowance.take(100, start + Duration::from_millis(100)));
        assert!(!allowance.take(501, start + Duration::from_mins(1)));
        assert!(allowance.take(500, start + Duration::from_mins(1)));
    }
}
