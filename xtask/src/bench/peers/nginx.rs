//! nginx: virtual servers and locations, `split_clients` for shares, a reload for changes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bench::address::{answers, free_port};
use crate::bench::plan::{HOSTS, Plan, Routes, VERSIONS, host, prefixes};
use crate::bench::process::{Process, run};
use crate::bench::world::World;

use super::{Peer, Running};

const FILE: &str = "nginx.conf";

/// The same headers as ours.
const HEADERS: &str = "\
proxy_http_version 1.1;
proxy_set_header Connection '';
proxy_set_header Host $host;
proxy_set_header X-Request-ID $request_id;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Host $host;
proxy_max_temp_file_size 0;
";

/// See the module.
pub(super) struct Nginx;

impl Peer for Nginx {
    fn key(&self) -> &'static str {
        "nginx"
    }

    fn title(&self, world: &World) -> Result<String> {
        let output = Command::new(&world.programs.nginx).arg("-v").output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let version = words.trim().rsplit('/').next().context("nginx has no version")?;
        Ok(format!("nginx {version}"))
    }

    fn can(&self, _: &World, _: Routes) -> bool {
        true
    }

    fn start(&self, world: &World, plan: Plan) -> Result<Box<dyn Running>> {
        let directory = world.directory("nginx")?;
        let (port, http2_port, cores) = (free_port()?, free_port()?, world.cores);
        let program = world.programs.nginx.clone();
        std::fs::write(directory.join(FILE), configuration(plan, [port, http2_port], cores))?;
        let mut command = Command::new(&program);
        in_directory(&mut command, &directory);
        let mut process = Process::start(command, &directory)?;
        let (host, path) = plan.sample();
        process.wait(|| answers(port, host, path))?;
        Ok(Box::new(Serving { process, port, http2_port, cores, program, directory }))
    }
}

struct Serving {
    process: Process,
    port: u16,
    http2_port: u16,
    cores: usize,
    program: PathBuf,
    directory: PathBuf,
}

impl Running for Serving {
    fn port(&self) -> u16 {
        self.port
    }

    fn http2_port(&self) -> Option<u16> {
        Some(self.http2_port)
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn prepare(&mut self, plan: Plan) -> Result<()> {
        let text = configuration(plan, [self.port, self.http2_port], self.cores);
        std::fs::write(self.directory.join(FILE), text).context("cannot write a configuration")
    }

    fn switch(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        in_directory(&mut command, &self.directory);
        run(command.args(["-s", "reload"]))
    }
}

/// Lets nginx keep all its files in a directory.
pub(in crate::bench) fn in_directory(command: &mut Command, directory: &Path) {
    command.arg("-p").arg(directory).arg("-c").arg(directory.join(FILE));
    command.arg("-e").arg(directory.join("errors"));
}

/// A configuration around what belongs into its `http` block.
pub(in crate::bench) fn frame(workers: usize, http: &str) -> String {
    // Workers would give up root, and then could not read a directory that only root may.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        "{user}daemon off;\nworker_processes {workers};\npid nginx.pid;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
         fastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n\
         keepalive_requests 1000000000;\nkeepalive_timeout 1h;\n{http}}}\n"
    )
}

fn configuration(plan: Plan, [port, http2_port]: [u16; 2], workers: usize) -> String {
    let mut http = format!("{HEADERS}http2_max_requests 1000000000;\n");
    for (upstream, version) in plan.upstreams.iter().zip(VERSIONS) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            http,
            "upstream {version} {{ server 127.0.0.1:{upstream}; keepalive 256; \
             keepalive_requests 1000000000; keepalive_timeout 1h; }}"
        );
    }
    let arm = match plan.second_percent {
        0 => VERSIONS[0],
        100 => VERSIONS[1],
        percent => {
            let [first, second] = VERSIONS;
            let split = format!("{percent}% {second}; * {first};");
            let _ = writeln!(http, "split_clients $request_id $arm {{ {split} }}");
            "$arm"
        }
    };
    match plan.routes {
        Routes::One => {
            let pass = format!("location / {{ proxy_pass http://{arm}; }}");
            let listen = format!("listen 127.0.0.1:{port}; listen 127.0.0.1:{http2_port} http2;");
            let _ = writeln!(http, "server {{ {listen} {pass} }}");
        }
        Routes::Many => {
            http.push_str("server_names_hash_max_size 16384;\n");
            let mut locations = String::new();
            for prefix in prefixes() {
                let _ = write!(locations, "location {prefix}/ {{ proxy_pass http://{arm}; }} ");
            }
            for host in (0..HOSTS).map(host) {
                let named = format!("listen 127.0.0.1:{port}; server_name {host};");
                let _ = writeln!(http, "server {{ {named} {locations}}}");
            }
        }
    }
    frame(workers, &http)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_one_only_where_both_get_something() {
        let plan = Plan { routes: Routes::One, upstreams: [81, 82], second_percent: 10 };
        assert!(configuration(plan, [80, 81], 2).contains("{ 10% v2; * v1; }"));
        let all = configuration(plan.all_on(1), [80, 81], 2);
        assert!(all.contains("proxy_pass http://v2;") && !all.contains("split_clients"));
    }

    #[test]
    fn many_routes_are_servers_with_locations() {
        let plan = Plan { routes: Routes::Many, upstreams: [81, 82], second_percent: 10 };
        let text = configuration(plan, [80, 81], 2);
        assert_eq!(text.matches("server_name host").count(), HOSTS);
        assert_eq!(text.matches("location /prefix").count(), 10_000);
    }
}
