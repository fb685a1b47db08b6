//! The processes of a site, found by what the kernel says of them: no process is signalled that
//! does not carry the site's own directory in its arguments or environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal};

/// What a process does for a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Control,
    Proxy,
    Shim,
    Instance,
    /// A command line somebody typed, and what a test itself started.
    Other,
}

/// A living process of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    parent: u32,
    pub(crate) role: Role,
    /// The version it runs; instances only.
    pub(crate) version: Option<String>,
    /// The instance it is, or looks after.
    pub(crate) instance: Option<String>,
    /// Its arguments, for people.
    pub(crate) arguments: String,
}

/// Every living process that works for the state directory; the test itself is none of them.
pub(crate) fn of_state_dir(state_dir: &Path) -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<Process> = pids
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| describe(pid, state_dir))
        .collect();
    found.sort_by_key(|process| (process.role, process.pid));
    // A child between fork and exec looks like its parent, and is nobody yet. What the control
    // plane starts with an instance's environment is a probe; instances are children of shims.
    let is_nobody = |process: &Process| {
        let parent = found.iter().find(|other| other.pid == process.parent);
        parent.is_some_and(|parent| {
            let is_probe = (parent.role, process.role) == (Role::Control, Role::Instance);
            is_probe || parent.arguments == process.arguments
        })
    };
    let nobody: Vec<u32> = found.iter().filter(|p| is_nobody(p)).map(|p| p.pid).collect();
    found.retain(|process| !nobody.contains(&process.pid));
    found
}

/// Whether a process runs; one that ended and waits to be collected does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// SIGKILL. A process that is gone already is what was wanted.
pub(crate) fn kill9(pid: u32) {
    signal(pid, Signal::KILL);
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let number = i32::try_from(pid).expect("process ids are small");
    let pid = Pid::from_raw(number).expect("process ids are not 0");
    // No such process: it is gone.
    let _ = rustix::process::kill_process(pid, signal);
}

fn describe(pid: u32, state_dir: &Path) -> Option<Process> {
    // Gone meanwhile, another user's, or a zombie: none of ours.
    let arguments = split(&fs::read(format!("/proc/{pid}/cmdline")).ok()?);
    let environment = split(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default());
    let variables: BTreeMap<&str, &str> =
        environment.iter().filter_map(|variable| variable.split_once('=')).collect();
    let below = |text: &str| Path::new(text).starts_with(state_dir);
    let instance = variables.get("SWITCHBACK_DIR").is_some_and(|directory| below(directory));
    if !instance && !arguments.iter().any(|argument| below(argument)) {
        return None;
    }
    let role = match arguments.get(1).map(String::as_str) {
        Some("control") => Role::Control,
        Some("proxy") => Role::Proxy,
        Some("shim") => Role::Shim,
        Some(_) | None if instance => Role::Instance,
        Some(_) | None => Role::Other,
    };
    let shim_of = || Path::new(arguments.get(2)?).file_name()?.to_str();
    let named = match role {
        Role::Shim => shim_of(),
        Role::Instance => variables.get("SWITCHBACK_INSTANCE").copied(),
        Role::Control | Role::Proxy | Role::Other => None,
    };
    let version = variables.get("SWITCHBACK_VERSION").filter(|_| role == Role::Instance);
    let (_, parent) = state_and_parent(pid)?;
    Some(Process {
        pid,
        parent,
        role,
        version: version.map(ToString::to_string),
        instance: named.map(ToOwned::to_owned),
        arguments: arguments.join(" "),
    })
}

fn split(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
