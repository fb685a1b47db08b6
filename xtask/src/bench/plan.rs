//! What every peer is configured to do, so that they all do the same.

use std::fmt::Write as _;

/// Hosts of the plan with many routes.
pub(super) const HOSTS: usize = 2_500;
/// Path prefixes of each of them.
pub(super) const PREFIXES: usize = 4;

/// The two versions, and the name each gives itself in `x-version`.
pub(super) const VERSIONS: [&str; 2] = ["v1", "v2"];

/// How requests find their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routes {
    /// One route for every host and path.
    One,
    /// [`HOSTS`] hosts with [`PREFIXES`] path prefixes each.
    Many,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) routes: Routes,
    /// The ports of the two versions.
    pub(super) upstreams: [u16; 2],
    /// The second version's share in percent, 0 to 100.
    pub(super) second_percent: u8,
}

impl Plan {
    /// The shares of both versions in percent.
    pub(super) fn shares(self) -> [u8; 2] {
        [100 - self.second_percent, self.second_percent]
    }

    /// The same with everything on one version: 0 or 1.
    pub(super) fn all_on(self, version: usize) -> Self {
        Self { second_percent: if version == 0 { 0 } else { 100 }, ..self }
    }

    /// A host and a path that the plan routes.
    pub(super) fn sample(self) -> (&'static str, &'static str) {
        match self.routes {
            Routes::One => ("host0.test", "/"),
            Routes::Many => ("host7.test", "/prefix3/"),
        }
    }
}

/// The name of a host of the plan with many routes.
pub(super) fn host(index: usize) -> String {
    format!("host{index}.test")
}

/// The path prefixes of a host.
pub(super) fn prefixes() -> impl Iterator<Item = String> {
    (0..PREFIXES).map(|index| format!("/prefix{index}"))
}

/// A line for every route: `HOST/PREFIX/ TARGET`.
pub(super) fn map(target: &str) -> String {
    let mut text = String::new();
    for host in (0..HOSTS).map(host) {
        for prefix in prefixes() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{host}{prefix}/ {target}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_ten_thousand_routes_and_the_sample_is_one_of_them() {
        let map = map("be");
        assert_eq!(map.lines().count(), 10_000);
        let plan = Plan { routes: Routes::Many, upstreams: [1, 2], second_percent: 10 };
        let (host, path) = plan.sample();
        assert!(map.lines().any(|line| line == format!("{host}{path} be")));
    }

    #[test]
    fn shares_are_the_whole() {
        let plan = Plan { routes: Routes::One, upstreams: [1, 2], second_percent: 10 };
        assert_eq!(plan.shares(), [90, 10]);
        assert_eq!(plan.all_on(0).shares(), [100, 0]);
        assert_eq!(plan.all_on(1).shares(), [0, 100]);
    }
}
