//! The document as a tree in which every value knows where it was written.
//!
//! A value keeps its place and its path through aliases, merges and overlays, so one mistake in
//! `defaults:` is one message, not one per service.

pub(crate) mod load;
pub(crate) mod merge;

use std::sync::Arc;

/// A place in the file: line and column from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value with its origin.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Where the value starts.
    pub(crate) place: Place,
    /// Where its key starts; the value's place for items of lists and the root.
    pub(crate) key_place: Place,
    /// Dotted path in the document as written; empty for the root.
    pub(crate) path: Arc<str>,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A scalar as written. Only a plain one (without quotes) can be a number, a bool or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Node,
}

impl Node {
    /// The text of a scalar without quotes.
    pub(crate) fn plain(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, plain: true } => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text of any scalar.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether it is YAML's null, which counts as not given.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.plain(), Some("" | "~" | "null" | "Null" | "NULL"))
    }

    /// The entries of a map; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Scalar { .. } | Value::List(_) => &[],
        }
    }

    /// The value of a key, unless it is null.
    pub(crate) fn find(&self, key: &str) -> Option<&Self> {
        let entry = self.entries().iter().find(|entry| entry.key == key)?;
        (!entry.value.is_null()).then_some(&entry.value)
    }

    /// How many values it holds, itself included and a long text counted as several, and how deep
    /// they nest.
    pub(crate) fn extent(&self) -> (usize, usize) {
        let add = |(size, depth): (usize, usize), node: &Self| {
            let (inner, below) = node.extent();
            (size + inner, depth.max(below + 1))
        };
        match &self.value {
            Value::Scalar { text, .. } => (1 + load::portions(text), 1),
            Value::List(items) => items.iter().fold((1, 1), add),
            Value::Map(entries) => {
                let keys: usize = entries.iter().map(|entry| load::portions(&entry.key)).sum();
                entries.iter().map(|entry| &entry.value).fold((1 + keys, 1), add)
            }
        }
    }

    /// The same value, said to stand where `other` stands.
    pub(crate) fn placed_as(self, other: &Self) -> Self {
        Self {
            value: self.value,
            place: other.place,
            key_place: other.key_place,
            path: Arc::clone(&other.path),
        }
    }

    /// A map that nobody wrote, said to stand where `other` stands.
    pub(crate) fn empty_map(other: &Self) -> Self {
        let value = Value::Map(Vec::new());
        Self {
            value,
            place: other.place,
            key_place: other.key_place,
            path: Arc::clone(&other.path),
        }
    }
}
