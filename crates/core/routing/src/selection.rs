//! A rule of a route, compiled: which paths, and what must hold beside.

use switchback_domain::route::{PathMatch, RequestMatch};

use crate::RequestView;
use crate::check::{is_below, trimmed};
use crate::condition::{self, All, hold};
use crate::index::Paths;
use crate::pattern::{Pattern, PatternError};

/// Requests of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) paths: Paths,
    pub(crate) conditions: All,
}

impl Selection {
    /// What fits `matched` below a route's prefix.
    pub(crate) fn compile(prefix: &str, matched: &RequestMatch) -> Result<Self, PatternError> {
        let below = trimmed(prefix);
        let paths = match &matched.path {
            Some(PathMatch::Exact(path)) => Paths::Exact(path.clone()),
            Some(PathMatch::Prefix(own)) if is_below(trimmed(own), below) => {
                Paths::Prefix(trimmed(own).to_owned())
            }
            None | Some(PathMatch::Prefix(_)) => Paths::Prefix(below.to_owned()),
            Some(PathMatch::Regex(text)) => Paths::Regex {
                pattern: Pattern::new(text)?,
                length: text.len(),
                below: below.to_owned(),
            },
        };
        Ok(Self { paths, conditions: condition::compile(&matched.when)? })
    }

    /// Whether a request whose host fits is of this kind.
    pub(crate) fn takes(&self, request: &RequestView<'_>) -> bool {
        let path = request.path;
        let fits = match &self.paths {
            Paths::Exact(exact) => path == exact,
            Paths::Prefix(prefix) => is_below(path, prefix),
            Paths::Regex { pattern, below, .. } => {
                is_below(path, below) && pattern.is_match(path.as_bytes())
            }
        };
        fits && hold(self.conditions.as_deref(), request)
    }
}
