//! Named places at which a process can be made to die, in the very binary that ships: what
//! `kill -9` at the worst moment does is to be tested there and nowhere else.
//!
//! Nothing happens unless the environment names a directory; a passage then costs one look at a
//! flag. Not for hot paths: no request passes a crash point.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The variable of the environment that names the directory; a test sets it, nobody else.
///
/// Files in it: `at` says where to die, as a serial number, a blank and a label; `reached` gets a
/// line with the label of each passage; `died` is made by the one process that dies for a serial
/// number, and says which one it was for and, in a line of its own, its process id. A label is a point's name, `#`, and the how-manieth
/// passage of one process it was since `at` changed.
pub const CRASH_DIRECTORY: &str = "SWITCHBACK_CRASH_DIRECTORY";

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// One passage. Does not return when the process is to die here.
pub fn crash_point(name: impl Display) {
    let armed = ARMED.get_or_init(|| {
        let directory = PathBuf::from(std::env::var_os(CRASH_DIRECTORY)?);
        Some(Armed { directory, passages: Mutex::default() })
    });
    if let Some(armed) = armed
        && armed.is_last(&name.to_string())
    {
        die();
    }
}

struct Armed {
    directory: PathBuf,
    passages: Mutex<Passages>,
}

/// How often each point was passed since `at` was changed to this.
#[derive(Default)]
struct Passages {
    at: String,
    counts: BTreeMap<String, u32>,
}

impl Armed {
    /// Counts a passage; whether it is the one to die at.
    fn is_last(&self, name: &str) -> bool {
        // No order, or none that can be read: nobody is to die.
        let Ok(at) = fs::read_to_string(self.directory.join("at")) else { return false };
        let Some((_, label)) = at.split_once(' ') else { return false };
        let passed = self.pass(&at, name);
        append(&self.directory.join("reached"), &passed);
        label == passed && self.is_first(&at)
    }

    fn pass(&self, at: &str, name: &str) -> String {
        let mut passages = self.passages.lock().unwrap_or_else(PoisonError::into_inner);
        if passages.at != at {
            *passages = Passages { at: at.to_owned(), counts: BTreeMap::new() };
        }
        let count = passages.counts.entry(name.to_owned()).or_default();
        *count += 1;
        format!("{name}#{count}")
    }

    /// Whether nobody died for this order yet.
    fn is_first(&self, at: &str) -> bool {
        let died = self.directory.join("died");
        let pid = std::process::id();
        let own = self.directory.join(format!("died.{pid}"));
        // Whoever links first dies; a former order's mark was removed by whoever gave this one.
        let marked =
            fs::write(&own, format!("{at}\n{pid}\n")).and_then(|()| fs::hard_link(&own, &died));
        let _ = fs::remove_file(&own);
        marked.is_ok()
    }
}

fn append(path: &Path, line: &str) {
    let opened: std::io::Result<File> = OpenOptions::new().create(true).append(true).open(path);
    // A line in one write: those of several processes do not mix. Without it a point is not found.
    let _ = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}

/// As after `kill -9`, nothing is unwound, written or said.
fn die() -> ! {
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_dies_once_at_the_passage_that_was_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let process =
            || Armed { directory: directory.path().to_owned(), passages: Mutex::default() };
        let (one, other) = (process(), process());
        assert!(!one.is_last("write"), "no order");
        fs::write(path("at"), "1 write#2").unwrap();
        assert_eq!([one.is_last("write"), one.is_last("read")], [false, false]);
        assert!(one.is_last("write"));
        assert_eq!([other.is_last("write"), other.is_last("write")], [false, false]);
        fs::remove_file(path("died")).unwrap();
        fs::write(path("at"), "2 write#1").unwrap();
        assert!(other.is_last("write"), "counted anew for a new order");
        let reached = fs::read_to_string(path("reached")).unwrap();
        assert_eq!(reached, "write#1\nread#1\nwrite#2\nwrite#1\nwrite#2\nwrite#1\n");
    }
}
