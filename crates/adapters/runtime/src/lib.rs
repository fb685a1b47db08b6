//! Where instances run: local processes, each under a small supervising shim of its own.
//!
//! [`ProcessRuntime`] is the control plane's side, [`shim_main`] and [`shim_exec_main`] are what
//! the binary runs for the hidden subcommands `shim` and `shim-exec`. They share nothing but
//! files and signals, so that either side can be killed at any moment. Not here: when to probe,
//! and what an answer means for a rollout.

mod command;
mod generation;
mod launch;
mod layout;
mod log;
mod probe;
mod proc_fs;
mod process;
mod record;
mod settings;
mod shim;
mod stop;
mod supervise;
mod watch;

pub use probe::{InstanceProber, probe};
pub use process::ProcessRuntime;
pub use settings::{Limits, Options};
pub use shim::exec::shim_exec_main;
pub use shim::shim_main;

/// The hidden subcommand whose only argument is an instance's directory: see [`shim_main`].
pub const SHIM_SUBCOMMAND: &str = "shim";
/// The hidden subcommand whose arguments all go to [`shim_exec_main`].
pub const SHIM_EXEC_SUBCOMMAND: &str = "shim-exec";
