//! Rules by host and path, arranged so that a request meets few of them, and the first that
//! fits is the right one. What is right stands in the documentation of [`crate::Router`].

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::RequestView;
use crate::check::is_below;
use crate::condition::{All, Condition, hold};
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
    exact: HashMap<Name, Rules>,
    /// By what follows `*.`.
    wildcard: HashMap<Name, Rules>,
    any: Rules,
    shared: Shared,
    /// Where the prefixes stand in there, until settled.
    known: HashMap<Arc<str>, u32>,
}

/// What rules of many hosts have in common: there once, it is near at hand for all of them.
#[derive(Debug, Default)]
struct Shared {
    prefixes: Vec<Arc<str>>,
    conditions: Vec<Arc<[Condition]>>,
}

impl Hosts {
    /// Adds a rule for a host as configured, `None` being any, behind all that were added before
    /// and are as narrow.
    pub(crate) fn insert(&mut self, host: Option<&str>, paths: Paths, conditions: All, entry: u32) {
        let rules = match host.map(|host| (host, host.strip_prefix("*."))) {
            Some((_, Some(rest))) => self.wildcard.entry(Name::new(rest)).or_default(),
            Some((host, None)) => self.exact.entry(Name::new(host)).or_default(),
            None => &mut self.any,
        };
        let Self { shared, known, .. } = self;
        let prefix = match paths {
            Paths::Prefix(prefix) => prefix,
            Paths::Exact(path) => return rules.narrow().exact(path, Rule { entry, conditions }),
            Paths::Regex { pattern, length, below } => {
                let rule = Rule { entry, conditions };
                let rule = PatternRule { pattern, length, below: below.into(), rule };
                return rules.narrow().pattern(rule);
            }
        };
        let prefix: Arc<str> = prefix.into();
        let text = *known.entry(Arc::clone(&prefix)).or_insert_with(|| {
            shared.prefixes.push(Arc::clone(&prefix));
            place(shared.prefixes.len() - 1)
        });
        let conditions = conditions.map_or(NONE, |conditions| {
            shared.conditions.push(conditions);
            place(shared.conditions.len() - 1)
        });
        rules.prefix(
            &prefix,
            PrefixRule { hash: hash_of(&prefix), prefix: text, conditions, entry },
        );
    }

    /// To be called once all rules are there, before any is looked for.
    pub(crate) fn settle(&mut self) {
        let named = self.exact.values_mut().chain(self.wildcard.values_mut());
        for rules in named.chain([&mut self.any]) {
            rules.settle(&self.shared);
        }
        self.shared.prefixes.shrink_to_fit();
        self.known = HashMap::new();
    }

    /// The entry for a request with this host, in lower case and without port.
    pub(crate) fn find(&self, host: &str, request: &RequestView<'_>) -> Option<usize> {
        let exact = || self.exact.get(host.as_bytes())?.find(request, &self.shared);
        let wildcard = || {
            let rest = host.split_once('.').filter(|_| !self.wildcard.is_empty())?.1;
            self.wildcard.get(rest.as_bytes())?.find(request, &self.shared)
        };
        let found = exact().or_else(wildcard).or_else(|| self.any.find(request, &self.shared));
        found.and_then(|entry| usize::try_from(entry).ok())
    }
}

/// A host's name, in its place in the map: most are short, and a text that lies elsewhere is far.
#[derive(Debug)]
enum Name {
    Short(u8, [u8; 22]),
    Long(Box<[u8]>),
}

impl Name {
    fn new(name: &str) -> Self {
        let mut bytes = [0; 22];
        match (u8::try_from(name.len()), bytes.get_mut(..name.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(name.as_bytes());
                Self::Short(length, bytes)
            }
            (_, _) => Self::Long(name.as_bytes().into()),
        }
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<[u8]>::borrow(self).hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<[u8]>::borrow(self) == Borrow::<[u8]>::borrow(other)
    }
}

impl Eq for Name {}

/// The rules of one host: with its name no more than a line of memory.
#[derive(Debug, Default)]
struct Rules {
    /// What few hosts have.
    narrow: Option<Box<Narrow>>,
    /// By hash and prefix, once settled, those with most conditions first: one run of memory, of which a lookup sees a line
    /// or two.
    prefixes: Vec<PrefixRule>,
    /// Most segments any prefix has, and most bytes: bound the work whatever path a client sends.
    depth_max: u32,
    length_max: u32,
}

/// Rules that are narrower than any prefix.
#[derive(Debug, Default)]
struct Narrow {
    exact: HashMap<Box<str>, Bucket>,
    /// The longest first.
    patterns: Vec<PatternRule>,
}

/// Rules that take the same paths, those with most conditions first.
type Bucket = Vec<Rule>;

#[derive(Debug)]
struct Rule {
    entry: u32,
    conditions: All,
}

#[derive(Debug)]
struct PatternRule {
    pattern: Pattern,
    length: usize,
    below: Box<str>,
    rule: Rule,
}

/// A quarter of a line of memory.
#[derive(Debug)]
struct PrefixRule {
    /// Of the prefix: finds it without looking at texts that lie elsewhere.
    hash: u32,
    /// Its place in [`Shared`].
    prefix: u32,
    /// Their place there, or [`NONE`].
    conditions: u32,
    entry: u32,
}

const NONE: u32 = u32::MAX;

/// A table of more rules than that fits into no memory.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}

impl Shared {
    fn prefix(&self, rule: &PrefixRule) -> &str {
        let at = usize::try_from(rule.prefix).unwrap_or(usize::MAX);
        self.prefixes.get(at).map(Arc::as_ref).unwrap_or_default()
    }

    /// Those of a rule; `None` is no condition.
    fn conditions(&self, rule: &PrefixRule) -> Option<&[Condition]> {
        let at = usize::try_from(rule.conditions).unwrap_or(usize::MAX);
        self.conditions.get(at).map(Arc::as_ref)
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

    fn rank(&self) -> Reverse<usize> {
        rank(self.conditions.as_deref())
    }
}

/// Less is asked earlier.
fn rank(all: Option<&[Condition]>) -> Reverse<usize> {
    Reverse(all.map_or(0, <[Condition]>::len))
}

impl Rules {
    fn narrow(&mut self) -> &mut Narrow {
        self.narrow.get_or_insert_default()
    }

    fn prefix(&mut self, prefix: &str, rule: PrefixRule) {
        self.depth_max = self.depth_max.max(place(prefix.matches('/').count()));
        self.length_max = self.length_max.max(place(prefix.len()));
        self.prefixes.push(rule);
    }

    /// Puts what was added in order.
    fn settle(&mut self, shared: &Shared) {
        self.prefixes.sort_by_key(|rule| (rule.hash, rule.prefix, rank(shared.conditions(rule))));
        self.prefixes.shrink_to_fit();
    }

    fn below(&self, prefix: &str, request: &RequestView<'_>, shared: &Shared) -> Option<u32> {
        let hash = hash_of(prefix);
        let start = self.prefixes.partition_point(|rule| rule.hash < hash);
        let same_hash = self.prefixes[start..].iter().take_while(|rule| rule.hash == hash);
        let mut fitting = same_hash.filter(|rule| shared.prefix(rule) == prefix);
        fitting.find(|rule| hold(shared.conditions(rule), request)).map(|rule| rule.entry)
    }

    fn find(&self, request: &RequestView<'_>, shared: &Shared) -> Option<u32> {
        let narrow = self.narrow.as_ref().and_then(|narrow| narrow.find(request));
        let below = |prefix| self.below(prefix, request, shared);
        narrow.or_else(|| self.prefixes_of(request.path).find_map(below))
    }

    /// What a path may lie below, the longest first: every beginning of it that ends where a
    /// segment ends and is not longer than the longest prefix there is.
    fn prefixes_of<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> + use<'p> {
        let [depth_max, length_max] =
            [self.depth_max, self.length_max].map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        // Paths are short: a search that prepares itself takes longer.
        let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
        let end = slashes.map(|(at, _)| at).nth(depth_max).unwrap_or(path.len());
        let last_slash = |prefix: &str| prefix.bytes().rposition(|byte| byte == b'/');
        let shorter = move |prefix: &&'p str| last_slash(prefix).map(|end| &prefix[..end]);
        std::iter::successors(Some(&path[..end]), shorter)
            .skip_while(move |prefix| prefix.len() > length_max)
    }
}

impl Narrow {
    /// Adds a rule behind all that were added before and are as narrow.
    fn exact(&mut self, path: String, rule: Rule) {
        let bucket = self.exact.entry(path.into()).or_default();
        let at = bucket.partition_point(|other| other.rank() <= rule.rank());
        bucket.insert(at, rule);
    }

    /// The same for an expression.
    fn pattern(&mut self, rule: PatternRule) {
        let rank = |rule: &PatternRule| (Reverse(rule.length), rule.rule.rank());
        let at = self.patterns.partition_point(|other| rank(other) <= rank(&rule));
        self.patterns.insert(at, rule);
    }

    fn find(&self, request: &RequestView<'_>) -> Option<u32> {
        let path = request.path;
        let first =
            |bucket: &Bucket| bucket.iter().find(|rule| rule.takes(request)).map(|rule| rule.entry);
        if let Some(entry) = self.exact.get(path).and_then(first) {
            return Some(entry);
        }
        let fits = |found: &&PatternRule| {
            is_below(path, &found.below)
                && found.pattern.is_match(path.as_bytes())
                && found.rule.takes(request)
        };
        self.patterns.iter().find(fits).map(|found| found.rule.entry)
    }
}
