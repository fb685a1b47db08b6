//! A command of the binary under test while it runs, and how it ended.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::thread;

use serde_json::Value;

use crate::site::wait_for;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// -1 when a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The JSON document that is printed last.
    pub(crate) fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Everything that was printed.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// A command that runs.
pub(crate) struct Running {
    /// `None` once it was left.
    child: Option<Child>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// A command that writes into two files.
    pub(crate) fn new(child: Child, stdout: PathBuf, stderr: PathBuf) -> Self {
        Self { child: Some(child), stdout, stderr }
    }

    /// Waits until it ends.
    pub(crate) fn wait(mut self) -> Ended {
        let mut status = None;
        wait_for("the command's end", || {
            let child = self.child.as_mut().expect("it was not left");
            status = child.try_wait().expect("the child is ours");
            status.is_some()
        });
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Ended {
            code: status.and_then(|status| status.code()).unwrap_or(-1),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
        }
    }
}

impl Running {
    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        let child = self.child.as_mut().expect("it was not left");
        child.try_wait().expect("the child is ours").is_some()
    }

    /// Leaves it running; its process id. Whoever sweeps the site finds it.
    pub(crate) fn leave(mut self) -> u32 {
        let child = self.child.take().expect("it is taken once");
        let pid = child.id();
        // Its end has to be collected, or a zombie stays for as long as the tests run.
        thread::spawn(move || drop({ child }.wait()));
        pid
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if child.try_wait().is_ok_and(|status| status.is_none()) {
            // A failed test: nobody waits any more.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
