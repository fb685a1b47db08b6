//! Where a benchmark runs: the programs, and a directory that goes away.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use tempfile::TempDir;

use super::peers::CODEC;

/// What wrk runs.
const SCRIPT: &str = include_str!("../../../benches/load.lua");

/// The programs that take part.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) nginx: PathBuf,
    pub(super) haproxy: PathBuf,
    pub(super) wrk: PathBuf,
    /// Of Debian's `nghttp2-client`: without it, HTTP/2 is left out.
    pub(super) h2load: Option<PathBuf>,
    /// No Debian package: without it, the peer is left out.
    pub(super) kamal_proxy: Option<PathBuf>,
    pub(super) switchback: PathBuf,
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) programs: Programs,
    pub(super) quick: bool,
    /// Whether somebody else built what is measured.
    pub(super) binary_given: bool,
    /// Threads that each proxy may use.
    pub(super) cores: usize,
    /// Whether our binary lets the codec be chosen.
    pub(super) has_codecs: bool,
    /// The workspace.
    pub(super) root: PathBuf,
    directory: TempDir,
    made: Cell<u32>,
    interrupted: Arc<AtomicBool>,
}

impl World {
    /// Finds the programs, and builds ours if no `binary` is given.
    pub(super) fn new(root: &Path, binary: Option<&Path>, quick: bool) -> Result<Self> {
        let programs = Programs::find(root, binary)?;
        raise_descriptors()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("cannot take signals")?;
        }
        let directory = tempfile::Builder::new().prefix("switchback-bench-").tempdir()?;
        std::fs::write(directory.path().join("load.lua"), SCRIPT)?;
        let cores = std::thread::available_parallelism()?.get();
        let has_codecs = holds(&std::fs::read(&programs.switchback)?, CODEC.as_bytes());
        let (made, binary_given) = (Cell::new(0), binary.is_some());
        let root = root.to_owned();
        Ok(Self {
            programs,
            quick,
            binary_given,
            cores,
            has_codecs,
            root,
            directory,
            made,
            interrupted,
        })
    }

    /// The script for wrk.
    pub(super) fn script(&self) -> PathBuf {
        self.directory.path().join("load.lua")
    }

    /// A new directory of its own.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf> {
        self.made.set(self.made.get() + 1);
        let path = self.directory.path().join(format!("{name}-{}", self.made.get()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// An error once the user asked to stop.
    pub(super) fn go_on(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

impl Programs {
    fn find(root: &Path, binary: Option<&Path>) -> Result<Self> {
        let debian = |program: &str| {
            find(program).with_context(|| {
                format!("{program} is missing: install the Debian package {program}")
            })
        };
        let (nginx, haproxy, wrk) = (debian("nginx")?, debian("haproxy")?, debian("wrk")?);
        let (h2load, kamal_proxy) = (find("h2load"), find("kamal-proxy"));
        if kamal_proxy.is_none() {
            say("kamal-proxy is not there and is left out; to have it: go install \
                 github.com/basecamp/kamal-proxy/cmd/kamal-proxy@latest");
        }
        let switchback = match binary {
            Some(binary) => std::path::absolute(binary)?,
            None => build(root)?,
        };
        ensure!(switchback.is_file(), "{} is no file", switchback.display());
        Ok(Self { nginx, haproxy, wrk, h2load, kamal_proxy, switchback })
    }
}

/// A program on the search path, or where Debian and Go put what is not on it.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let more = [PathBuf::from("/usr/sbin"), home.join("go/bin")];
    let mut folders = std::env::split_paths(&path).chain(more);
    folders.find_map(|folder| Some(folder.join(program)).filter(|file| file.is_file()))
}

/// Builds the release binary and says where it lies.
pub(super) fn build(root: &Path) -> Result<PathBuf> {
    say("building switchback");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--package", "switchback"]);
    command.arg("--message-format=json-render-diagnostics").current_dir(root);
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo cannot build switchback");
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = text.lines().filter_map(executable).next_back();
    executable.context("cargo built no executable")
}

/// Whether a program holds a word: its environment variables are among its words.
fn holds(program: &[u8], word: &[u8]) -> bool {
    program.windows(word.len()).any(|window| window == word)
}

fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(message["executable"].as_str()?.into())
}

/// As many descriptors as the system allows, for this process and those it starts.
fn raise_descriptors() -> Result<()> {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit { current: maximum, maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).context("cannot raise the file limit")
}

/// Tells the user how far things are, beside the results.
pub(super) fn say(words: &str) {
    eprintln!("bench: {words}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","executable":"/x/switchback"}"#;
        assert_eq!(executable(line), Some("/x/switchback".into()));
        for other in [r#"{"executable":null}"#, "{}", "no json"] {
            assert_eq!(executable(other), None);
        }
    }

    #[test]
    fn a_word_is_found_in_a_program() {
        assert!(holds(b"\0SSWITCH\0", b"SWITCH"));
        assert!(!holds(b"\0SWITC\0", b"SWITCH"));
    }
}
