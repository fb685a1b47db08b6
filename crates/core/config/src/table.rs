//! The keys of each section as data: the reader refuses what is not in them, and the JSON schema
//! is made of them. A section's table stands in the section's file.

use std::slice;

/// A map with fixed keys.
pub(crate) struct Table {
    /// Its name in the schema.
    pub(crate) name: &'static str,
    /// What it is, for editors.
    pub(crate) doc: &'static str,
    /// Its keys; several groups, so that sections can share some.
    pub(crate) groups: &'static [&'static [Field]],
    /// Whether exactly one of the keys is given, as in a step.
    pub(crate) exactly_one: bool,
}

/// One key of a table.
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    /// What it does and its default, for editors.
    pub(crate) doc: &'static str,
    /// Whether the map is incomplete without it, wherever it stands.
    pub(crate) required: bool,
}

/// What a value may look like.
pub(crate) enum Kind {
    /// Text; numbers and booleans are taken as written.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Count { min: u32, max: u32 },
    /// A number.
    Number,
    /// A duration with a unit.
    Duration,
    /// A duration with a unit, or bare seconds as in the documents.
    Window,
    /// A duration with a unit, or bare milliseconds as in the documents.
    Latency,
    /// `25%` or a fraction.
    Share,
    /// `25%` or `25`.
    Weight,
    /// A whole number or a percentage of the replicas.
    Amount,
    /// A number of percent, with or without its sign.
    Percent,
    /// A number of minutes.
    Minutes,
    /// Bytes with a unit.
    Size,
    /// `127.0.0.1:8080`, `:8080` or `8080`.
    Listen,
    /// A command line or a list of words.
    Command,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A map with fixed keys.
    Struct(&'static Table),
    /// A list.
    List(&'static Kind),
    /// A map with keys of the user's.
    Map(&'static Kind),
    /// Any of these.
    Either(&'static [Kind]),
    /// Nothing at all.
    Null,
}

impl Kind {
    /// The table of a map with fixed keys.
    fn table(&self) -> Option<&'static Table> {
        if let Self::Struct(table) = self { Some(table) } else { None }
    }
}

/// An optional key.
pub(crate) const fn field(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { key, kind, doc, required: false }
}

/// A key that must be there.
pub(crate) const fn required(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { key, kind, doc, required: true }
}

impl Table {
    /// A table of optional and required keys.
    pub(crate) const fn new(
        name: &'static str,
        doc: &'static str,
        groups: &'static [&'static [Field]],
    ) -> Self {
        Self { name, doc, groups, exactly_one: false }
    }

    /// All keys.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static Field> + use<> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// Whether a key is known.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.fields().any(|field| field.key == key)
    }

    /// The key of a table right below this one that knows `key`: where it may have been meant.
    pub(crate) fn home_of(&self, key: &str) -> Option<&'static str> {
        let inner = |kind: &'static Kind| {
            let kinds = if let Kind::Either(kinds) = kind { kinds } else { slice::from_ref(kind) };
            kinds.iter().find_map(Kind::table)
        };
        let homes = self.fields().filter_map(|field| Some((field.key, inner(&field.kind)?)));
        homes.into_iter().find(|(_, table)| table.knows(key)).map(|(key, _)| key)
    }
}
