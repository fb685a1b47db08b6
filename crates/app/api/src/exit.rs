//! The exit codes of the command line. Scripts rely on them: a meaning never changes.
//!
//! 64 and above follow `sysexits.h`. 2 is never used: shells and test runners mean their own
//! things by it.

/// Done: promoted, or whatever was asked for.
pub const OK: u8 = 0;
/// The deployment failed: rolled back, withdrawn or superseded.
pub const FAILED: u8 = 1;
/// The command line was not understood, or names something that does not exist.
pub const USAGE: u8 = 64;
/// The control plane cannot be reached.
pub const UNAVAILABLE: u8 = 69;
/// Switchback itself failed.
pub const INTERNAL: u8 = 70;
/// A file could not be written.
pub const WRITE: u8 = 74;
/// Not now, but the same command may work later.
pub const BUSY: u8 = 75;
/// Rejected by policy, or not permitted.
pub const REJECTED: u8 = 77;
/// The configuration has mistakes, or is missing.
pub const CONFIG: u8 = 78;
/// Ctrl-C ended the watching; what was watched goes on.
pub const INTERRUPTED: u8 = 130;

/// Every exit code with its meaning, ascending: the reference page is made from it.
pub const ALL: &[(u8, &str)] = &[
    (OK, "done: the version was promoted, or whatever was asked for has happened"),
    (FAILED, "the deployment failed: it was rolled back, withdrawn or superseded"),
    (USAGE, "the command line was not understood, or names something that does not exist"),
    (UNAVAILABLE, "the control plane cannot be reached"),
    (INTERNAL, "Switchback itself failed"),
    (WRITE, "a file could not be written"),
    (BUSY, "not now, but the same command may work later"),
    (REJECTED, "rejected by policy, or not permitted"),
    (CONFIG, "the configuration has mistakes, or is missing"),
    (INTERRUPTED, "Ctrl-C ended the watching; the rollout goes on"),
];
