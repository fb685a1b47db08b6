//! The access log: one line for each request of the routes that ask for it.
//!
//! Nothing here waits: each worker fills a buffer of its own and hands it to the one thread that
//! writes. When that cannot keep up, lines are dropped and counted. Without a route that asks for
//! a log there is neither thread nor file.

mod line;
mod writer;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub(crate) use line::{Ended, Record};

use self::writer::Batch;
use crate::limits::{ACCESS_LOG_BATCH_BYTES, ACCESS_LOG_BATCHES_MAX, ACCESS_LOG_BUFFER_BYTES_MAX};

/// The log's name in the state directory.
pub(crate) const FILE: &str = "access.log";

/// The process's one log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    path: PathBuf,
    batches: OnceLock<SyncSender<Batch>>,
    tally: Arc<Tally>,
}

/// What became of the lines.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    written: AtomicU64,
    dropped: AtomicU64,
    /// Why the newest lines could not be written.
    trouble: Mutex<Option<String>>,
}

impl Tally {
    fn add_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

impl AccessLog {
    /// A log at this path, which is not touched before there is a line for it.
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, batches: OnceLock::new(), tally: Arc::default() })
    }

    /// Lines written so far.
    pub(crate) fn written(&self) -> u64 {
        self.tally.written.load(Ordering::Relaxed)
    }

    /// Lines dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.tally.dropped.load(Ordering::Relaxed)
    }

    /// Why it is not written, for people.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.tally.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until what was handed over is written, at most this long.
    pub(crate) fn finish(&self, patience: Duration) {
        let Some(batches) = self.batches.get() else { return };
        let (done, waits) = std::sync::mpsc::sync_channel(1);
        // A full queue has no room for the question either, and is not emptied soon.
        if batches.try_send(Batch::Flush(done)).is_ok() {
            let _ = waits.recv_timeout(patience);
        }
    }

    /// Hands lines to the writer; gives them back when it is behind.
    fn hand_over(&self, text: Vec<u8>, lines: u64) -> Result<(), Vec<u8>> {
        let batches =
            self.batches.get_or_init(|| writer::start(self.path.clone(), Arc::clone(&self.tally)));
        match batches.try_send(Batch::Lines(text, lines)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Batch::Lines(text, _))) => Err(text),
            Err(_) => {
                self.tally.add_dropped(lines);
                Ok(())
            }
        }
    }
}

/// One worker's part of the log.
#[derive(Debug)]
pub(crate) struct Buffer {
    log: Arc<AccessLog>,
    text: RefCell<Vec<u8>>,
    lines: Cell<u64>,
}

impl Buffer {
    pub(crate) fn new(log: Arc<AccessLog>) -> Rc<Self> {
        Rc::new(Self { log, text: RefCell::default(), lines: Cell::new(0) })
    }

    /// Takes a line that `write` appends, unless there is no room for it.
    fn take(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut text = self.text.borrow_mut();
        if text.len() >= ACCESS_LOG_BUFFER_BYTES_MAX {
            return self.log.tally.add_dropped(1);
        }
        write(&mut text);
        self.lines.set(self.lines.get() + 1);
        let is_due = text.len() >= ACCESS_LOG_BATCH_BYTES;
        drop(text);
        if is_due {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub(crate) fn flush(&self) {
        let mut text = self.text.borrow_mut();
        if text.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut *text);
        match self.log.hand_over(batch, self.lines.get()) {
            Ok(()) => self.lines.set(0),
            Err(back) => *text = back,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
        self.log.tally.add_dropped(if self.text.borrow().is_empty() {
            0
        } else {
            self.lines.get()
        });
    }
}

/// What waits for the writer is bounded: some megabytes.
const _: () = assert!(ACCESS_LOG_BATCHES_MAX * ACCESS_LOG_BUFFER_BYTES_MAX <= 16 * 1024 * 1024);
