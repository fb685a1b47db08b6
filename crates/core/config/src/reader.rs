//! Collects mistakes while sections read their keys. A section reports and goes on with a default,
//! so that one run finds everything.

use std::fmt::Write as _;

use crate::diagnostic::{Code, Diagnostic};
use crate::suggest;
use crate::table::Table;
use crate::value::load::below;
use crate::value::{Node, Place, Value};

/// Nobody mends more mistakes than this in one go, and each carries its own texts.
const MISTAKES_MAX: usize = 1000;

/// Collects the mistakes of one file.
pub(crate) struct Reader {
    file: String,
    mistakes: Vec<Diagnostic>,
}

impl Reader {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), mistakes: Vec::new() }
    }

    /// What was found so far, in the order of finding.
    pub(crate) fn into_mistakes(self) -> Vec<Diagnostic> {
        self.mistakes
    }

    /// Whether nothing that is found from now on will be shown.
    pub(crate) fn is_full(&self) -> bool {
        self.mistakes.len() > MISTAKES_MAX
    }

    /// A mistake in a value.
    pub(crate) fn report(
        &mut self,
        node: &Node,
        code: Code,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report_at(node.place, &node.path, code, message, hint);
    }

    /// A mistake at a place.
    pub(crate) fn report_at(
        &mut self,
        place: Place,
        path: &str,
        code: Code,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (message, hint, code) = match self.mistakes.len() {
            0..MISTAKES_MAX => (message.into(), hint.into(), code),
            MISTAKES_MAX => {
                let message = "there are more mistakes than these".to_owned();
                (message, "mend these first".to_owned(), Code::Limit)
            }
            _ => return,
        };
        self.mistakes.push(Diagnostic {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            message,
            hint,
            code,
        });
    }

    /// A key that is not there.
    pub(crate) fn missing(&mut self, node: &Node, key: &str, hint: impl Into<String>) {
        let path = below(&node.path, key);
        self.report_at(node.key_place, &path, Code::MissingKey, "is missing", hint);
    }

    /// A value of another shape.
    pub(crate) fn wrong_type(&mut self, node: &Node, expected: &str, hint: impl Into<String>) {
        let message = format!("expected {expected}, found {}", found(node));
        self.report(node, Code::WrongType, message, hint);
    }

    /// Opens a map with fixed keys; unknown ones are reported, and so are missing required ones.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, table: &'static Table) -> Fields<'n> {
        if !matches!(node.value, Value::Map(_)) {
            self.wrong_type(node, "a map", map_hint(node, table));
            return Fields { node, table };
        }
        for entry in node.entries() {
            if self.is_full() {
                break;
            }
            if !table.knows(&entry.key) && !entry.key.starts_with("x-") {
                let hint = unknown_key_hint(&entry.key, table);
                let message = format!("unknown key `{}`", entry.key);
                let (place, path) = (entry.value.key_place, &entry.value.path);
                self.report_at(place, path, Code::UnknownKey, message, hint);
            }
        }
        for field in table.fields().filter(|field| field.required) {
            if node.find(field.key).is_none() {
                self.missing(node, field.key, format!("add `{}`: {}", field.key, field.doc));
            }
        }
        Fields { node, table }
    }

    /// The items of a list.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, example: &str) -> &'n [Node] {
        let Value::List(items) = &node.value else {
            self.wrong_type(node, "a list", format!("write `{example}`"));
            return &[];
        };
        items
    }
}

/// What the map may have been meant to be, when only its main value was written.
fn map_hint(node: &Node, table: &'static Table) -> String {
    let text = node.scalar().unwrap_or_default();
    let is_word = !text.is_empty() && !text.contains(['"', '\'', '{']) && text.len() <= 40;
    let main = ["listen", "path", "command", "duration", "threshold"].into_iter().find(|key| {
        let fits = match *key {
            "path" => text.starts_with('/'),
            "command" => text.parse::<f64>().is_err(),
            _ => true,
        };
        table.knows(key) && fits
    });
    match main {
        Some(main) if is_word => format!("write `{{{main}: {text}}}`"),
        Some(_) | None => {
            let keys: Vec<_> = table.fields().map(|field| field.key).collect();
            format!("write a map with some of: {}", keys.join(", "))
        }
    }
}

fn unknown_key_hint(key: &str, table: &'static Table) -> String {
    let known: Vec<_> = table.fields().map(|field| field.key).collect();
    if let Some(near) = suggest::nearest(key, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    if let Some(home) = table.home_of(key) {
        return format!("`{key}` belongs under `{home}:`");
    }
    let mut hint = format!("known keys: {}", known.join(", "));
    let _ = write!(hint, "; or `x-{key}` for notes of your own");
    hint
}

/// What a value looks like, for messages.
pub(crate) fn found(node: &Node) -> String {
    match &node.value {
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
        Value::Scalar { .. } if node.is_null() => "nothing".to_owned(),
        Value::Scalar { text, plain: true } => format!("`{}`", shortened(text)),
        Value::Scalar { text, plain: false } => format!("the text \"{}\"", shortened(text)),
    }
}

/// The start of a text, printable, for messages.
pub(crate) fn shortened(text: &str) -> String {
    const LENGTH_MAX: usize = 40;
    let visible: String = text.escape_debug().take(LENGTH_MAX).collect();
    if text.chars().count() > LENGTH_MAX { format!("{visible}...") } else { visible }
}

/// The keys of an opened map. Of a value that is not a map, all keys are absent.
pub(crate) struct Fields<'n> {
    node: &'n Node,
    table: &'static Table,
}

impl<'n> Fields<'n> {
    /// The value of a key of the table, unless absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        debug_assert!(self.table.knows(key), "{key} is read but not in {}", self.table.name);
        self.node.find(key)
    }

    /// The value of a key, read.
    pub(crate) fn read<T>(
        &self,
        key: &str,
        reader: &mut Reader,
        read: impl FnOnce(&mut Reader, &'n Node) -> Option<T>,
    ) -> Option<T> {
        self.get(key).and_then(|node| read(reader, node))
    }

    /// Whether the value is a map at all.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The map itself.
    pub(crate) fn node(&self) -> &'n Node {
        self.node
    }
}
