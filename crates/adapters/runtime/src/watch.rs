//! Wakes the control plane when a shim writes its record, or dies: its lock file is then closed,
//! however it ended. Where the kernel has no watch to give, it wakes up regularly instead.

use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use tokio::sync::Notify;

/// How often to wake up without a watch.
const FALLBACK_INTERVAL: Duration = Duration::from_millis(100);
/// A dying shim closes its lock file a moment before it counts as dead: so long after the last
/// event whoever looks then is woken up once more.
const ECHO: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Room for a few dozen events; what they say does not matter.
const EVENT_BYTES: usize = 4096;

/// A watch on one directory, kept by a thread that ends with it.
pub(crate) struct Watch {
    happened: Arc<Notify>,
    /// Closed on drop, which the thread sees. `None` when there is no thread.
    alive: Option<PipeWriter>,
}

impl Watch {
    pub(crate) fn new(directory: &Path) -> Self {
        let happened = Arc::new(Notify::new());
        let alive = start(directory, &happened).ok();
        Self { happened, alive }
    }

    /// Returns when something happened since the last call.
    pub(crate) async fn changed(&self) {
        if self.alive.is_some() {
            self.happened.notified().await;
        } else {
            tokio::time::sleep(FALLBACK_INTERVAL).await;
        }
    }
}

fn start(directory: &Path, happened: &Arc<Notify>) -> io::Result<PipeWriter> {
    let descriptor = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let events = WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::CLOSE_WRITE;
    add_watch(&descriptor, directory, events)?;
    let (closed, alive) = io::pipe()?;
    let happened = Arc::clone(happened);
    let watch = move || {
        let mut echo = None;
        while let Ok(came) = wait(&descriptor, &closed, echo) {
            happened.notify_one();
            echo = came.then_some(&ECHO);
        }
    };
    thread::Builder::new().name("runtime-watch".to_owned()).spawn(watch)?;
    Ok(alive)
}

/// Waits for events, at most so long, and takes all of them. Says whether any came; an error when
/// the watch is not wanted any more.
fn wait(descriptor: &OwnedFd, closed: &PipeReader, at_most: Option<&Timespec>) -> io::Result<bool> {
    let mut sources = [PollFd::new(descriptor, PollFlags::IN), PollFd::new(closed, PollFlags::IN)];
    match poll(&mut sources, at_most) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if !sources[1].revents().is_empty() {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let came = !sources[0].revents().is_empty();
    drain(descriptor).map(|()| came)
}

fn drain(descriptor: &OwnedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
    let mut reader = Reader::new(descriptor, &mut buffer);
    loop {
        match reader.next() {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
