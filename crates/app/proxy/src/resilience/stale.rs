//! Answers that are kept for when nobody answers: which may be, and how they are written down
//! while they pass.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use switchback_routing::RequestView;

use super::guard::Guard;
use crate::clock;
use crate::service::OwnAnswer;

/// What of an answer's head is kept.
const FIELDS: [&str; 6] =
    ["content-type", "content-language", "cache-control", "etag", "last-modified", "vary"];

/// An answer that was kept.
#[derive(Debug)]
pub(crate) struct Stored {
    fields: Vec<(&'static str, String)>,
    body: Bytes,
}

/// What a request is kept by, if its answer may be at all.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    key: String,
    /// It carries what may make the answer somebody's own.
    is_personal: bool,
}

/// Looks up a value by its name, in lower case; calls back with each.
pub(crate) type Lookup<'l> = dyn Fn(&str, &mut dyn FnMut(&[u8]) -> bool) -> bool + 'l;

impl Wanted {
    /// `None` for what is never kept.
    pub(crate) fn of(guard: &Guard, asked: &RequestView<'_>) -> Option<Self> {
        guard.shelf.as_ref().filter(|_| asked.method == "GET")?;
        let has = |name| (asked.headers)(name, &mut |_| true);
        let is_personal = has("cookie") || has("authorization");
        // A preview may differ by its address alone.
        let RequestView { listen, host, path, query, .. } = asked;
        Some(Self { key: format!("{listen} {host}{path}?{query}"), is_personal })
    }

    /// The last good answer, if it is not too old.
    pub(crate) fn last(&self, guard: &Guard) -> Option<OwnAnswer> {
        let store = guard.shelf.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let (stored, age) = store.get(&self.key, clock::now())?;
        let mut fields = stored.fields.clone();
        fields.push(("age", age.as_secs().to_string()));
        fields.push(("warning", "110 switchback \"Response is Stale\"".to_owned()));
        Some(OwnAnswer { fields, body: stored.body.clone() })
    }
}

/// An answer on its way through, being written down.
#[derive(Debug)]
pub(crate) struct Capture {
    guard: Arc<Guard>,
    key: String,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
    room: usize,
    is_too_large: bool,
}

impl Capture {
    /// Begins with the head. An answer that may not be kept is no reason to keep the one before.
    pub(crate) fn begin(
        guard: &Arc<Guard>,
        wanted: Wanted,
        status: u16,
        head: &Lookup<'_>,
    ) -> Option<Box<Self>> {
        let store = guard.shelf.as_ref().filter(|_| status == 200)?;
        let mut kept = store.lock().unwrap_or_else(PoisonError::into_inner);
        if !may_be_kept(head, wanted.is_personal) {
            // What somebody of their own got says nothing about what everybody gets.
            if !wanted.is_personal {
                kept.remove(&wanted.key);
            }
            return None;
        }
        let field = |name: &'static str| {
            let mut found = None;
            head(name, &mut |value| {
                found = std::str::from_utf8(value).ok().map(str::to_owned);
                true
            });
            found.map(|value| (name, value))
        };
        Some(Box::new(Self {
            guard: Arc::clone(guard),
            key: wanted.key,
            fields: FIELDS.into_iter().filter_map(field).collect(),
            body: Vec::new(),
            room: kept.bytes_max(),
            is_too_large: false,
        }))
    }

    /// A part of the body.
    pub(crate) fn push(&mut self, part: &[u8]) {
        if self.is_too_large || self.body.len() + part.len() > self.room {
            self.is_too_large = true;
            self.body = Vec::new();
        } else {
            self.body.extend_from_slice(part);
        }
    }

    /// The whole answer has passed.
    pub(crate) fn finish(self) {
        let Some(store) = &self.guard.shelf else { return };
        let mut kept = store.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_too_large {
            return kept.remove(&self.key);
        }
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = fields + self.body.len();
        let stored = Stored { fields: self.fields, body: self.body.into() };
        kept.put(self.key, Arc::new(stored), bytes, clock::now());
    }
}

/// Whether anybody may be given this answer later (RFC 9111, 3, and stricter: cookies of a
/// request make its answer personal as much as credentials do).
fn may_be_kept(head: &Lookup<'_>, is_personal: bool) -> bool {
    let says = |name: &str, word: &str| {
        head(name, &mut |value| {
            let mut parts = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            parts.any(|part| {
                let end = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
                part[..end].trim_ascii().eq_ignore_ascii_case(word.as_bytes())
            })
        })
    };
    let has = |name| head(name, &mut |_| true);
    let forbidden = says("cache-control", "private") || says("cache-control", "no-store");
    // Without a coding, it is the one that everybody takes.
    let varies = has("content-encoding")
        || head("vary", &mut |value| !value.trim_ascii().eq_ignore_ascii_case(b"accept-encoding"));
    !forbidden && !has("set-cookie") && !varies && (!is_personal || says("cache-control", "public"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(head: &[(&str, &str)], is_personal: bool) -> bool {
        let lookup = |name: &str, visit: &mut dyn FnMut(&[u8]) -> bool| {
            let mut values = head.iter().filter(|(own, _)| *own == name);
            values.any(|(_, value)| visit(value.as_bytes()))
        };
        may_be_kept(&lookup, is_personal)
    }

    #[test]
    fn only_what_anybody_may_see_is_kept() {
        assert!(kept(&[], false));
        assert!(kept(&[("cache-control", "max-age=5"), ("vary", "Accept-Encoding")], false));
        assert!(kept(&[("cache-control", "max-age=5, Public")], true));
        assert!(!kept(&[], true));
        for (name, value) in [
            ("cache-control", "private"),
            ("cache-control", "max-age=0, no-store"),
            ("cache-control", "private=\"x\""),
            ("set-cookie", "a=b"),
            ("vary", "accept-language"),
            ("vary", "accept-encoding, cookie"),
            ("content-encoding", "gzip"),
        ] {
            assert!(!kept(&[(name, value)], false), "{name}: {value}");
        }
    }
}
