//! Where the demo plays: a directory of its own with a configuration, a control plane in the
//! background, and a free port on the loopback address.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use switchback_api::{Client, DownRequest, Problem, code};
use tempfile::TempDir;

use super::acts::{Act, BEHAVIOUR, Pace};
use crate::compose::Launch;
use crate::{daemon, paths};

/// The only service.
pub(super) const SERVICE: &str = "shop";

/// The place of the demo. Removed when dropped.
pub(super) struct Site {
    directory: TempDir,
    address: SocketAddr,
    client: Client,
    launch: Launch,
}

impl Site {
    pub(super) fn new(pace: Pace) -> Result<Self, Problem> {
        let directory = tempfile::Builder::new().prefix("switchback-demo-").tempdir();
        let directory = directory.map_err(|error| cannot_write(&std::env::temp_dir(), &error))?;
        let state_dir = directory.path().join(paths::STATE_NAME);
        let launch = Launch {
            config: directory.path().join(paths::CONFIG_NAME),
            state_dir: state_dir.clone(),
            environment: None,
        };
        let client = Client::new(paths::control_socket(&state_dir));
        let site = Self { directory, address: free_address()?, client, launch };
        site.configure(&super::acts::ACTS[0], pace)?;
        Ok(site)
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Where requests go.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes the configuration for an act, as a user would edit it between two releases.
    pub(super) fn configure(&self, act: &Act, pace: Pace) -> Result<(), Problem> {
        let path = &self.launch.config;
        fs::write(path, self.text(act, pace)?).map_err(|error| cannot_write(path, &error))
    }

    fn text(&self, act: &Act, pace: Pace) -> Result<String, Problem> {
        let program =
            std::env::current_exe().map_err(|error| code::INTERNAL.problem(error.to_string()))?;
        let program = program.to_string_lossy().into_owned();
        let command: Vec<&str> =
            [program.as_str(), "demo-service"].into_iter().chain(BEHAVIOUR).collect();
        // JSON is YAML, whatever the path holds.
        let command = serde_json::to_string(&command)
            .map_err(|error| code::INTERNAL.problem(error.to_string()))?;
        let (address, strategy) = (self.address, act.strategy_lines(pace));
        Ok(format!(
            "project: demo\n\
             services:\n  {SERVICE}:\n    version: v1\n    command: {command}\n    replicas: 3\n    \
             health_check: {{path: /ready, interval: 200ms, timeout: 2s, min_healthy_time: 500ms}}\n    \
             route: {{listen: \"{address}\"}}\n{strategy}    \
             max_surge: 1\n    progress_deadline: 30s\n    scale_down_delay: 1s\n    \
             drain_timeout: 10s\n"
        ))
    }

    /// Starts the control plane, which starts the data plane.
    pub(super) async fn start(&self) -> Result<(), Problem> {
        daemon::start_detached(&self.launch, &self.client).await.map(drop)
    }

    /// Stops everything; also when something went wrong before.
    pub(super) async fn down(&self) -> Result<(), Problem> {
        let request = DownRequest { by: "the demo".to_owned() };
        crate::commands::stop_everything(&self.client, &request).await
    }
}

/// A port that was free a moment ago.
fn free_address() -> Result<SocketAddr, Problem> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    bound.map_err(|error| code::LISTEN_IN_USE.problem(format!("no free port: {error}")))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Problem {
    code::CANNOT_WRITE.problem(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::acts::ACTS;

    #[test]
    fn the_configuration_of_every_act_has_no_mistakes() {
        let site = Site::new(Pace::FAST).unwrap();
        for act in &ACTS {
            let text = site.text(act, Pace::FAST).unwrap();
            switchback_config::parse(&text, "switchback.yaml").unwrap();
        }
    }
}
