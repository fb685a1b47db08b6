//! kamal-proxy: one target per service, changed by `deploy`. It has no weights without a cookie
//! of the application's, so it takes part where there is one route and no split.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bench::address::{answers, free_port};
use crate::bench::plan::{Plan, Routes};
use crate::bench::process::{Process, run};
use crate::bench::world::World;

use super::{Peer, Running};

/// See the module.
pub(super) struct Kamal;

impl Peer for Kamal {
    fn key(&self) -> &'static str {
        "kamal"
    }

    fn title(&self, _: &World) -> Result<String> {
        // It does not tell its version.
        Ok("kamal-proxy".to_owned())
    }

    fn can(&self, world: &World, routes: Routes) -> bool {
        world.programs.kamal_proxy.is_some() && routes == Routes::One
    }

    fn start(&self, world: &World, plan: Plan) -> Result<Box<dyn Running>> {
        let program = world.programs.kamal_proxy.clone().context("kamal-proxy is missing")?;
        let directory = world.directory("kamal")?;
        let (port, unused) = (free_port()?, free_port()?);
        let mut command = command(&program, &directory);
        command.args(["run", "--http-port", &port.to_string()]);
        command.args(["--https-port", &unused.to_string()]);
        let mut process = Process::start(command, &directory)?;
        let socket = directory.join("socket");
        process.wait(|| socket.exists())?;
        let mut serving = Serving { process, port, program, directory, target: String::new() };
        serving.prepare(plan)?;
        serving.switch()?;
        let (host, path) = plan.sample();
        serving.process.wait(|| answers(port, host, path))?;
        Ok(Box::new(serving))
    }
}

struct Serving {
    process: Process,
    port: u16,
    program: PathBuf,
    directory: PathBuf,
    target: String,
}

impl Running for Serving {
    fn port(&self) -> u16 {
        self.port
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn prepare(&mut self, plan: Plan) -> Result<()> {
        let version = usize::from(plan.second_percent > 0);
        self.target = format!("127.0.0.1:{}", plan.upstreams[version]);
        Ok(())
    }

    fn switch(&mut self) -> Result<()> {
        let target = &self.target;
        let mut command = command(&self.program, &self.directory);
        command.args(["deploy", "service", "--target", target, "--health-check-path", "/"]);
        run(&mut command)
    }
}

/// Keeps everything it writes in a directory.
fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("HOME", directory).env("TMPDIR", directory).env("XDG_RUNTIME_DIR", directory);
    command.env("KAMAL_PROXY_SOCKET", directory.join("socket"));
    command
}
