//! `HAProxy`: a map for routes, server weights for shares, and two ways to change those.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::bench::address::{answers, free_port};
use crate::bench::plan::{Plan, Routes, VERSIONS, map};
use crate::bench::process::Process;
use crate::bench::world::World;

use super::{Peer, Running};

const FILE: &str = "haproxy.cfg";
/// A command on the socket is answered at once.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How weights are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By a command on its socket.
    Weights,
    /// By another configuration and a new worker process.
    Reload,
}

/// See the module.
pub(super) struct HaProxy {
    pub(super) key: &'static str,
    pub(super) way: Way,
}

impl Peer for HaProxy {
    fn key(&self) -> &'static str {
        self.key
    }

    fn title(&self, world: &World) -> Result<String> {
        let output = Command::new(&world.programs.haproxy).arg("-v").output()?;
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = words.split_whitespace().nth(2).context("haproxy has no version")?;
        Ok(format!("HAProxy {}", version.split('-').next().unwrap_or(version)))
    }

    fn can(&self, _: &World, _: Routes) -> bool {
        true
    }

    fn start(&self, world: &World, plan: Plan) -> Result<Box<dyn Running>> {
        let directory = world.directory("haproxy")?;
        let (port, threads, way) = (free_port()?, world.cores, self.way);
        if plan.routes == Routes::Many {
            std::fs::write(directory.join("routes.map"), map("versions"))?;
        }
        std::fs::write(directory.join(FILE), configuration(plan, port, threads, &directory))?;
        let mut command = Command::new(&world.programs.haproxy);
        command.args(match way {
            Way::Weights => ["-db", "-f"],
            Way::Reload => ["-W", "-f"],
        });
        let mut process = Process::start(
            {
                command.arg(directory.join(FILE));
                command
            },
            &directory,
        )?;
        let (host, path) = plan.sample();
        process.wait(|| answers(port, host, path))?;
        Ok(Box::new(Serving { process, way, plan, port, threads, directory }))
    }
}

struct Serving {
    process: Process,
    way: Way,
    plan: Plan,
    port: u16,
    threads: usize,
    directory: PathBuf,
}

impl Running for Serving {
    fn port(&self) -> u16 {
        self.port
    }

    fn http2_port(&self) -> Option<u16> {
        Some(self.port)
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn prepare(&mut self, plan: Plan) -> Result<()> {
        self.plan = plan;
        let text = configuration(plan, self.port, self.threads, &self.directory);
        std::fs::write(self.directory.join(FILE), text).context("cannot write a configuration")
    }

    fn switch(&mut self) -> Result<()> {
        match self.way {
            Way::Weights => set_weights(&self.directory.join("admin"), self.plan),
            Way::Reload => self.process.signal(Signal::USR2),
        }
    }
}

/// Raises before it lowers, so that somebody always serves.
fn set_weights(socket: &Path, plan: Plan) -> Result<()> {
    let mut pairs: Vec<_> = VERSIONS.into_iter().zip(plan.shares()).collect();
    pairs.sort_by_key(|(_, share)| std::cmp::Reverse(*share));
    let command = |(version, share)| format!("set server versions/{version} weight {share}");
    let commands: Vec<_> = pairs.into_iter().map(command).collect();
    let mut stream = UnixStream::connect(socket).context("HAProxy's socket is gone")?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    writeln!(stream, "{}", commands.join("; "))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.trim().is_empty(), "HAProxy refused the weights: {}", answer.trim());
    Ok(())
}

fn configuration(plan: Plan, port: u16, threads: usize, directory: &Path) -> String {
    let directory = directory.display();
    let mut text = format!(
        "global
  maxconn 9000
  nbthread {threads}
  stats socket {directory}/admin mode 600 level admin expose-fd listeners
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend public
  bind 127.0.0.1:{port}
  option forwardfor
  http-request set-header X-Request-ID %[uuid()] unless {{ req.hdr(x-request-id) -m found }}
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
"
    );
    // Writing to a String cannot fail, here and below.
    let _ = match plan.routes {
        Routes::One => writeln!(text, "  default_backend versions"),
        Routes::Many => {
            writeln!(text, "  use_backend %[base,map_beg({directory}/routes.map,none)]")
        }
    };
    text.push_str("backend versions\n  balance roundrobin\n");
    for ((version, upstream), share) in VERSIONS.iter().zip(plan.upstreams).zip(plan.shares()) {
        let _ = writeln!(text, "  server {version} 127.0.0.1:{upstream} weight {share}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_weights_and_many_routes_a_map() {
        let plan = Plan { routes: Routes::Many, upstreams: [81, 82], second_percent: 10 };
        let text = configuration(plan, 80, 2, Path::new("/x"));
        assert!(text.contains("server v1 127.0.0.1:81 weight 90\n"));
        assert!(text.contains("server v2 127.0.0.1:82 weight 10\n"));
        assert!(text.contains("map_beg(/x/routes.map,none)"));
    }
}
