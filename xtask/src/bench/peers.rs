//! Who is compared. A peer is one file with one implementation of [`Peer`] and a line in a table
//! here.

mod haproxy;
mod kamal;
pub(super) mod nginx;
pub(super) mod ours;

use anyhow::Result;

use super::plan::{Plan, Routes};
use super::world::World;

pub(super) use ours::CODEC;

/// A proxy that can be started.
pub(super) trait Peer: Sync {
    /// Ends the names of its figures.
    fn key(&self) -> &'static str;

    /// What people call it, with its version.
    fn title(&self, world: &World) -> Result<String>;

    /// Whether it is there, and can do this.
    fn can(&self, world: &World, routes: Routes) -> bool;

    /// Starts it by a plan; returns when it serves. Dropping what comes back stops it.
    fn start(&self, world: &World, plan: Plan) -> Result<Box<dyn Running>>;
}

/// A proxy that serves.
pub(super) trait Running {
    /// Where it serves.
    fn port(&self) -> u16;

    /// Where it takes HTTP/2 without encryption, if anywhere.
    fn http2_port(&self) -> Option<u16> {
        None
    }

    /// The root of its processes.
    fn pid(&self) -> u32;

    /// Makes ready what the command for another plan needs: a file, a document. Not timed.
    fn prepare(&mut self, plan: Plan) -> Result<()>;

    /// Gives the command that brings the prepared plan into force; whether it waits until that is
    /// so is the proxy's way of doing things.
    fn switch(&mut self) -> Result<()>;
}

/// Those whose throughput is compared; variants of ours are left out where the binary has none.
pub(super) const PEERS: [&dyn Peer; 5] = [
    &ours::Ours { key: OURS, codec: None },
    &ours::Ours { key: "ours_hyper", codec: Some("hyper") },
    &nginx::Nginx,
    &haproxy::HaProxy { key: "haproxy", way: haproxy::Way::Weights },
    &kamal::Kamal,
];

/// The one of them that is ours, as shipped.
pub(super) const OURS: &str = "ours";
/// The ones of them that others are divided by.
pub(super) const REFERENCES: [&str; 3] = ["nginx", "haproxy", "kamal"];

/// One way of bringing another version into service.
pub(super) struct Method {
    /// Ends the names of its figures.
    pub(super) key: &'static str,
    /// What is done, in a few words.
    pub(super) words: &'static str,
    pub(super) peer: &'static dyn Peer,
    pub(super) routes: Routes,
    /// How often, in a quick run and in a full one. A reload takes long enough that a thousand
    /// would take ten minutes.
    pub(super) times: [u32; 2],
    /// From one command's end to the next command.
    pub(super) pause_ms: u64,
}

/// Those whose switches are compared.
pub(super) const METHODS: [Method; 8] = [
    Method {
        key: OURS,
        words: "table with other weights",
        peer: &ours::Ours { key: OURS, codec: None },
        routes: Routes::One,
        times: [100, 1_000],
        pause_ms: 50,
    },
    Method {
        key: "ours_hyper",
        words: "table with other weights",
        peer: &ours::Ours { key: "ours_hyper", codec: Some("hyper") },
        routes: Routes::One,
        times: [100, 1_000],
        pause_ms: 50,
    },
    Method {
        key: "ours_10k",
        words: "the same with 10,000 routes",
        peer: &ours::Ours { key: OURS, codec: None },
        routes: Routes::Many,
        times: [10, 40],
        pause_ms: 300,
    },
    Method {
        key: "ours_hyper_10k",
        words: "the same with 10,000 routes",
        peer: &ours::Ours { key: "ours_hyper", codec: Some("hyper") },
        routes: Routes::Many,
        times: [10, 40],
        pause_ms: 300,
    },
    Method {
        key: "nginx_reload",
        words: "`nginx -s reload`",
        peer: &nginx::Nginx,
        routes: Routes::One,
        times: [10, 40],
        pause_ms: 400,
    },
    Method {
        key: "haproxy_reload",
        words: "reload by SIGUSR2 to the master",
        peer: &haproxy::HaProxy { key: "haproxy", way: haproxy::Way::Reload },
        routes: Routes::One,
        times: [10, 40],
        pause_ms: 400,
    },
    Method {
        key: "haproxy_weights",
        words: "`set server weight` on its socket",
        peer: &haproxy::HaProxy { key: "haproxy", way: haproxy::Way::Weights },
        routes: Routes::One,
        times: [100, 1_000],
        pause_ms: 50,
    },
    Method {
        key: "kamal_deploy",
        words: "`kamal-proxy deploy`",
        peer: &kamal::Kamal,
        routes: Routes::One,
        times: [5, 40],
        pause_ms: 400,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_references_exist() {
        let mut keys = PEERS.map(Peer::key).to_vec();
        assert!(REFERENCES.iter().chain([&OURS]).all(|key| keys.contains(key)));
        keys.dedup();
        assert_eq!(keys.len(), PEERS.len());
        let mut methods = METHODS.map(|method| method.key).to_vec();
        methods.sort_unstable();
        methods.dedup();
        assert_eq!(methods.len(), METHODS.len());
    }
}
