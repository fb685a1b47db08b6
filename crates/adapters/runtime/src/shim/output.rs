//! The instance's output on its way from the pipes to the log.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::STACK_BYTES;
use crate::log::format_record;
use crate::log::lines::Lines;
use crate::log::write::{Kept, LogWriter, wall_ms};
use crate::settings::Limits;

/// Read from a pipe at once: all that a pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;
/// Formatted records handed to the log at once: many short lines grow when formatted. Less when
/// the log's files are small, so that they stay so.
const BATCH_BYTES: u64 = 64 * 1024;
/// A rest after each chunk of a flood: what is dropped is read at 64 MB/s at most, so that the
/// flood costs its process its speed and the others nothing.
const FLOOD_REST: Duration = Duration::from_millis(1);

/// The threads that read one process's output.
pub(super) type Readers = Vec<JoinHandle<()>>;

/// The log, shared with the threads that read the pipes.
#[derive(Debug, Clone)]
pub(super) struct Output {
    log: Arc<Mutex<LogWriter>>,
    batch_bytes: u64,
}

impl Output {
    pub(super) fn open(directory: PathBuf, limits: &Limits) -> io::Result<Self> {
        let log = Arc::new(Mutex::new(LogWriter::open(directory, limits)?));
        Ok(Self { log, batch_bytes: BATCH_BYTES.min(limits.log_file_bytes / 2) })
    }

    /// Writes a line of the supervisor's own.
    pub(super) fn note(&self, text: &str) {
        self.log().note(text);
    }

    /// Reads both pipes until they are closed.
    pub(super) fn read(&self, stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> Readers {
        let stdout = stdout.map(|pipe| self.reader(pipe, "stdout"));
        let stderr = stderr.map(|pipe| self.reader(pipe, "stderr"));
        // Without a thread its pipe is closed, and writing to it fails in the instance.
        stdout.into_iter().chain(stderr).filter_map(Result::ok).collect()
    }

    fn reader(
        &self,
        pipe: impl Read + Send + 'static,
        stream: &'static str,
    ) -> io::Result<JoinHandle<()>> {
        let output = self.clone();
        let read = move || output.pump(pipe, stream);
        thread::Builder::new().name(stream.to_owned()).stack_size(STACK_BYTES).spawn(read)
    }

    fn pump(&self, mut pipe: impl Read, stream: &str) {
        let (mut chunk, mut lines) = (vec![0; CHUNK_BYTES], Lines::default());
        loop {
            let length = match pipe.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let mut batch = Batch::new(self, stream);
            lines.push(&chunk[..length], |line| batch.add(line));
            // A full chunk without the end of a line is a flood, too.
            let endless = batch.is_untouched() && length == CHUNK_BYTES;
            if batch.flush() == Kept::Flood || endless {
                thread::sleep(FLOOD_REST);
            }
        }
        let mut batch = Batch::new(self, stream);
        lines.finish(|line| batch.add(line));
        batch.flush();
    }

    fn log(&self) -> MutexGuard<'_, LogWriter> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records on their way to the log.
struct Batch<'a> {
    output: &'a Output,
    stream: &'a str,
    at_ms: u64,
    records: Vec<u8>,
    lines: u64,
    kept: Kept,
}

impl<'a> Batch<'a> {
    fn new(output: &'a Output, stream: &'a str) -> Self {
        let (records, at_ms) = (Vec::new(), wall_ms());
        Self { output, stream, at_ms, records, lines: 0, kept: Kept::Offered }
    }

    fn add(&mut self, line: &[u8]) {
        format_record(&mut self.records, self.at_ms, self.stream, line);
        self.lines += 1;
        if self.records.len() as u64 >= self.output.batch_bytes {
            self.flush();
        }
    }

    fn is_untouched(&self) -> bool {
        self.lines == 0 && self.kept == Kept::Offered
    }

    /// Whether anything of it was too much.
    fn flush(&mut self) -> Kept {
        if self.lines > 0 && self.output.log().append(&self.records, self.lines) == Kept::Flood {
            self.kept = Kept::Flood;
        }
        self.records.clear();
        self.lines = 0;
        self.kept
    }
}
