//! Rules by host and path, arranged so that a request meets few of them, and the first that
//! fits is the right one. What is right stands in the documentation of [`crate::Router`].

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::RequestView;
use crate::check::is_below;
use crate::condition::{All, hold};
use crate::pattern::Pattern;

/// The paths of a rule, its route's prefix taken into account.
#[derive(Debug, Clone)]
pub(crate) enum Paths {
    Exact(String),
    /// Without closing slashes.
    Prefix(String),
    /// Below a prefix without closing slashes.
    Regex {
        pattern: Pattern,
        length: usize,
        below: String,
    },
}

/// The rules of one address.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    exact: HashMap<Box<str>, Rules>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Rules>,
    any: Rules,
}

impl Hosts {
    /// The rules for a host as configured; `None` is any.
    pub(crate) fn of(&mut self, host: Option<&str>) -> &mut Rules {
        match host.map(|host| (host, host.strip_prefix("*."))) {
            Some((_, Some(rest))) => self.wildcard.entry(rest.into()).or_default(),
            Some((host, None)) => self.exact.entry(host.into()).or_default(),
            None => &mut self.any,
        }
    }

    /// To be called once all rules are there, before any is looked for.
    pub(crate) fn settle(&mut self) {
        let named = self.exact.values_mut().chain(self.wildcard.values_mut());
        for rules in named.chain([&mut self.any]) {
            rules.settle();
        }
    }

    /// The entry for a request with this host, in lower case and without port.
    pub(crate) fn find(&self, host: &str, request: &RequestView<'_>) -> Option<usize> {
        let exact = || self.exact.get(host)?.find(request);
        let wildcard = || {
            let rest = host.split_once('.').filter(|_| !self.wildcard.is_empty())?.1;
            self.wildcard.get(rest)?.find(request)
        };
        exact().or_else(wildcard).or_else(|| self.any.find(request))
    }
}

/// The rules of one host.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    exact: HashMap<Box<str>, Bucket>,
    /// The longest first.
    patterns: Vec<PatternRule>,
    /// By [`PrefixRule::place`], once settled: one run of memory, of which a lookup sees a line
    /// or two.
    prefixes: Vec<PrefixRule>,
    /// Most segments any prefix has, and most bytes: bound the work whatever path a client sends.
    depth_max: usize,
    length_max: usize,
}

/// Rules that take the same paths, those with most conditions first.
type Bucket = Vec<Rule>;

#[derive(Debug)]
struct Rule {
    entry: usize,
    conditions: All,
}

#[derive(Debug)]
struct PatternRule {
    pattern: Pattern,
    length: usize,
    below: Box<str>,
    rule: Rule,
}

#[derive(Debug)]
struct PrefixRule {
    /// Of the prefix: finds it without looking at texts that lie elsewhere.
    hash: u32,
    prefix: Box<str>,
    rule: Rule,
}

impl PrefixRule {
    fn place(&self) -> (u32, &str) {
        (self.hash, &self.prefix)
    }
}

/// FNV-1a. Only an operator's prefixes are kept by it, so nobody can choose what collides.
fn hash_of(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Rule {
    fn takes(&self, request: &RequestView<'_>) -> bool {
        hold(self.conditions.as_deref(), request)
    }

    /// Less is asked earlier.
    fn rank(&self) -> Reverse<usize> {
        Reverse(self.conditions.as_ref().map_or(0, |all| all.len()))
    }
}

impl Rules {
    /// Adds a rule behind all that were added before and are as narrow.
    pub(crate) fn insert(&mut self, paths: Paths, conditions: All, entry: usize) {
        let rule = Rule { entry, conditions };
        let bucket = match paths {
            Paths::Exact(path) => self.exact.entry(path.into()).or_default(),
            Paths::Prefix(prefix) => {
                self.depth_max = self.depth_max.max(prefix.matches('/').count());
                self.length_max = self.length_max.max(prefix.len());
                let hash = hash_of(&prefix);
                return self.prefixes.push(PrefixRule { hash, prefix: prefix.into(), rule });
            }
            Paths::Regex { pattern, length, below } => {
                let rank = (Reverse(length), rule.rank());
                let at = self
                    .patterns
                    .partition_point(|other| (Reverse(other.length), other.rule.rank()) <= rank);
                let rule = PatternRule { pattern, length, below: below.into(), rule };
                return self.patterns.insert(at, rule);
            }
        };
        let at = bucket.partition_point(|other| other.rank() <= rule.rank());
        bucket.insert(at, rule);
    }

    /// Puts what was added in order.
    fn settle(&mut self) {
        self.prefixes.sort_by(|one, other| {
            let by_place = one.place().cmp(&other.place());
            by_place.then_with(|| one.rule.rank().cmp(&other.rule.rank()))
        });
        self.prefixes.shrink_to_fit();
    }

    fn below(&self, prefix: &str, request: &RequestView<'_>) -> Option<usize> {
        let hash = hash_of(prefix);
        let start = self.prefixes.partition_point(|rule| rule.hash < hash);
        let same_hash = self.prefixes[start..].iter().take_while(|rule| rule.hash == hash);
        let mut fitting = same_hash.filter(|rule| *rule.prefix == *prefix);
        fitting.find(|rule| rule.rule.takes(request)).map(|rule| rule.rule.entry)
    }

    fn find(&self, request: &RequestView<'_>) -> Option<usize> {
        let first =
            |bucket: &Bucket| bucket.iter().find(|rule| rule.takes(request)).map(|rule| rule.entry);
        let path = request.path;
        if !self.exact.is_empty()
            && let Some(entry) = self.exact.get(path).and_then(first)
        {
            return Some(entry);
        }
        let fits = |found: &&PatternRule| {
            is_below(path, &found.below)
                && found.pattern.is_match(path.as_bytes())
                && found.rule.takes(request)
        };
        if let Some(found) = self.patterns.iter().find(fits) {
            return Some(found.rule.entry);
        }
        self.prefixes_of(path).find_map(|prefix| self.below(prefix, request))
    }

    /// What a path may lie below, the longest first: every beginning of it that ends where a
    /// segment ends and is not longer than the longest prefix there is.
    fn prefixes_of<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> + use<'p> {
        let (depth_max, length_max) = (self.depth_max, self.length_max);
        let end = path.match_indices('/').nth(depth_max).map_or(path.len(), |(at, _)| at);
        let shorter = |prefix: &&'p str| prefix.rfind('/').map(|end| &prefix[..end]);
        std::iter::successors(Some(&path[..end]), shorter)
            .skip_while(move |prefix| prefix.len() > length_max)
    }
}
