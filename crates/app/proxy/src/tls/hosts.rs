//! Something per host name: an exact name, then `*.NAME` for one label more, then any. Pure.

use std::collections::HashMap;

/// See the module. Names are in lower case.
#[derive(Debug)]
pub(crate) struct Hosts<T> {
    exact: HashMap<String, T>,
    /// By what follows the asterisk and its dot.
    below: HashMap<String, T>,
    any: Option<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), any: None }
    }
}

impl<T> Hosts<T> {
    /// Sets what belongs to a name; `None` is any. The first one stays.
    pub(crate) fn insert(&mut self, host: Option<&str>, value: T) {
        match host.map(|host| (host, host.strip_prefix("*."))) {
            None => _ = self.any.get_or_insert(value),
            Some((_, Some(below))) => _ = self.below.entry(below.to_owned()).or_insert(value),
            Some((exact, None)) => _ = self.exact.entry(exact.to_owned()).or_insert(value),
        }
    }

    /// What belongs to this very name, or to those one label above it.
    pub(crate) fn named(&self, host: &str) -> Option<&T> {
        let below = || self.below.get(host.split_once('.')?.1);
        self.exact.get(host).or_else(below)
    }

    /// What was set for this, also for `*.NAME`.
    pub(crate) fn exactly(&self, host: &str) -> Option<&T> {
        host.strip_prefix("*.").map_or_else(|| self.exact.get(host), |below| self.below.get(below))
    }

    /// What belongs to every name.
    pub(crate) fn any(&self) -> Option<&T> {
        self.any.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_name_counts() {
        let mut hosts = Hosts::default();
        for (name, value) in [(Some("a.test"), 1), (Some("*.test"), 2), (None, 3), (None, 4)] {
            hosts.insert(name, value);
        }
        let found = ["a.test", "b.test", "x.b.test", "test", ""].map(|name| hosts.named(name));
        assert_eq!(found, [Some(&1), Some(&2), None, None, None], "a wildcard is one label");
        assert_eq!(hosts.any(), Some(&3));
        assert_eq!(hosts.exactly("*.test"), Some(&2));
    }
}
