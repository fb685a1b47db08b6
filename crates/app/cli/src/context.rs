//! What every command starts from: the options, the output, and where things are.

use std::path::PathBuf;

use switchback_api::{Client, Problem, code};
use switchback_domain::EnvironmentName;

use crate::arguments::Global;
use crate::compose::Launch;
use crate::output::Output;
use crate::paths;

/// What a command is given.
pub(crate) struct Context<'a> {
    /// The options of every command.
    pub(crate) global: Global,
    /// The configuration as it was named, before or after the command.
    pub(crate) file: Option<PathBuf>,
    /// Where to print.
    pub(crate) output: &'a mut Output,
}

impl Context<'_> {
    /// The configuration's path.
    pub(crate) fn config_path(&self) -> Result<PathBuf, Problem> {
        paths::config(self.file.as_deref(), &here()?)
    }

    /// Where journal, logs and sockets live.
    pub(crate) fn state_dir(&self) -> Result<PathBuf, Problem> {
        paths::state_dir(self.global.state_dir.as_deref(), self.file.as_deref(), &here()?)
    }

    /// The control plane of this state directory. Says nothing about whether it runs.
    pub(crate) fn client(&self) -> Result<Client, Problem> {
        Ok(Client::new(paths::control_socket(&self.state_dir()?)))
    }

    /// What a control plane needs to be started here.
    pub(crate) fn launch(&self) -> Result<Launch, Problem> {
        Ok(Launch {
            config: self.config_path()?,
            state_dir: self.state_dir()?,
            environment: self.environment(),
        })
    }

    /// The environment that was asked for.
    pub(crate) fn environment(&self) -> Option<EnvironmentName> {
        self.global.environment.clone()
    }
}

/// Who asks, for the audit: the user's name, or number.
pub(crate) fn by() -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let named = named.filter(|name| !name.is_empty());
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// The current directory.
pub(crate) fn here() -> Result<PathBuf, Problem> {
    std::env::current_dir().map_err(|error| {
        code::INTERNAL.problem(format!("the current directory cannot be read: {error}"))
    })
}
