//! YAML text to the tree: anchors, aliases and merge keys resolved, within fixed limits.
//!
//! Iterative, so that no nesting can exhaust the stack. What a value means is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::{Entry, Node, Place, Value};
use crate::diagnostic::Code;
use crate::reader::Reader;

/// Longest text that is looked at, in bytes: 800 for each of the most services there may be.
pub const TEXT_LENGTH_MAX: usize = 8 * 1024 * 1024;
/// Deepest nesting; the vocabulary needs nine levels.
pub const DEPTH_MAX: usize = 32;
/// Most values, keys included: 40 for each of the most services there may be. Aliases are counted in
/// full, so that aliases of aliases cannot fill the memory.
pub const NODES_MAX: usize = 400_000;

/// The tree of a text. `None` after a mistake that leaves nothing to go on with; mistakes that do
/// not (a key twice, a tag) are reported and the rest is returned.
pub(crate) fn load(text: &str, reader: &mut Reader) -> Option<Node> {
    let start = Place { line: 1, column: 1 };
    if text.len() > TEXT_LENGTH_MAX {
        let message = format!("is longer than {} MiB", TEXT_LENGTH_MAX >> 20);
        reader.report_at(start, "", Code::Limit, message, "keep data out of the configuration");
        return None;
    }
    let mut loader = Loader {
        reader: &mut *reader,
        frames: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        nodes: 0,
    };
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = match next {
            Ok(found) => found,
            Err(error) => {
                report_syntax(text, &error, loader.reader);
                return None;
            }
        };
        let place = place_of(&span.start);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
        }
        if documents > 1 {
            let message = "a second document starts here";
            let hint = "keep one document; use `environments:` for variants";
            loader.reader.report_at(place, "", Code::Structure, message, hint);
            return None;
        }
        loader.event(event, place)?;
    }
    let root = loader.root.filter(|root| !root.is_null());
    if root.is_none() {
        let hint = "run `switchback init` for a commented start";
        reader.report_at(start, "", Code::Structure, "is empty", hint);
    }
    root
}

fn place_of(marker: &Marker) -> Place {
    let saturate = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: saturate(marker.line().max(1)), column: saturate(marker.col() + 1) }
}

/// What is only noticed at the end of the file is shown at the end of its last line.
fn within(text: &str, place: Place) -> Place {
    let written = text.trim_end();
    let written = written.replace("\r\n", "\n").replace('\r', "\n");
    let saturate = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let last = saturate(written.matches('\n').count() + 1);
    if place.line <= last {
        return place;
    }
    let line = written.rsplit('\n').next().unwrap_or_default();
    Place { line: last, column: saturate(line.chars().count() + 1) }
}

fn report_syntax(text: &str, error: &ScanError, reader: &mut Reader) {
    let place = within(text, place_of(error.marker()));
    let at = usize::try_from(place.line).unwrap_or(usize::MAX);
    // The scanner may notice a tab only on the line after it.
    let nearby = text.lines().enumerate().skip(at.saturating_sub(2)).take(2);
    let tab = nearby
        .filter_map(|(index, line)| {
            let indent = line.len() - line.trim_start().len();
            Some((index + 1, line[..indent].chars().position(|found| found == '\t')?))
        })
        .last();
    if let Some((line, column)) = tab {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        let place = Place { line, column: u32::try_from(column + 1).unwrap_or(u32::MAX) };
        let hint = "indent with spaces";
        reader.report_at(place, "", Code::Syntax, "YAML does not indent with tabs", hint);
        return;
    }
    let message = format!("not valid YAML: {}", error.info());
    let line = text.lines().nth(at.saturating_sub(1)).unwrap_or_default();
    reader.report_at(place, "", Code::Syntax, message, syntax_hint(error.info(), line));
}

fn syntax_hint(info: &str, line: &str) -> &'static str {
    if line.contains("{{") {
        return "put quotes around text with `{{...}}`: inside of `[ ]` and `{ }` and at the start \
                of a value, YAML takes braces for its own";
    }
    if info.contains("anchor") {
        return "an alias `*name` needs an anchor `&name` before it";
    }
    if info.contains("quoted") || info.contains("escape") {
        return "close every quote, and double a `'` inside single quotes";
    }
    if info.contains("flow") || info.contains("','") || info.contains("']'") {
        return "close every `[` and `{`, and put a comma between items";
    }
    "check the indentation here and on the line above, and quote text that holds `: ` or ` #`"
}

/// A collection that is still open.
struct Frame {
    kind: Kind,
    place: Place,
    key_place: Place,
    path: Arc<str>,
    anchor: usize,
    /// Whether it stands where a key belongs.
    is_key: bool,
}

enum Kind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// In which line each of its own keys stands.
        lines: BTreeMap<String, u32>,
        /// The key whose value comes next.
        pending: Option<Pending>,
        /// What `<<` brings in.
        merged: Vec<Node>,
    },
}

struct Pending {
    key: String,
    place: Place,
    role: Role,
}

/// What becomes of a key's value.
enum Role {
    Own,
    /// Its entries are brought in (`<<`).
    Merge,
    /// The key is there already or no key at all, which was reported; its value is not kept.
    Dropped,
}

struct Loader<'r> {
    reader: &'r mut Reader,
    frames: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
}

impl Loader<'_> {
    /// Takes one event; `None` ends the loading.
    fn event(&mut self, event: Event<'_>, place: Place) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), place);
                let string_tag = tag.is_some_and(|tag| tag.suffix == "str");
                let plain = style == ScalarStyle::Plain && !string_tag;
                self.scalar(text.into_owned(), plain, anchor, place)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), place);
                self.open(Kind::List(Vec::new()), anchor, place)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), place);
                let (entries, lines, merged) = (Vec::new(), BTreeMap::new(), Vec::new());
                let kind = Kind::Map { entries, lines, pending: None, merged };
                self.open(kind, anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, place),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Some(()),
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, place: Place) {
        let Some(tag) = tag else { return };
        if !tag.is_yaml_core_schema() {
            let path = self.next_path();
            let message = format!("tag `{tag}` is not supported");
            self.reader.report_at(place, &path, Code::Structure, message, "leave the tag out");
        }
    }

    fn scalar(&mut self, text: String, plain: bool, anchor: usize, place: Place) -> Option<()> {
        self.count(1 + portions(&text), 1, place)?;
        if self.awaits_key() {
            self.take_key(text, plain, place);
            return Some(());
        }
        let key_place = self.key_place(place);
        // An empty value has no place of its own worth showing.
        let place = if text.is_empty() && plain { key_place } else { place };
        let path = self.next_path();
        self.count(portions(&path), 1, place)?;
        let node = Node { value: Value::Scalar { text, plain }, place, key_place, path };
        self.finish(node, anchor);
        Some(())
    }

    fn open(&mut self, kind: Kind, anchor: usize, place: Place) -> Option<()> {
        self.count(1, 1, place)?;
        let is_key = self.awaits_key();
        let (path, key_place) = (self.next_path(), self.key_place(place));
        self.count(portions(&path), 1, place)?;
        if is_key {
            let message = "a map or a list cannot be a key";
            let hint = "quote text that starts with `{`, `[` or `?`, such as `\"{{port}}\"`";
            self.reader.report_at(place, &path, Code::Structure, message, hint);
        }
        self.frames.push(Frame { kind, place, key_place, path, anchor, is_key });
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        let frame = self.frames.pop()?;
        if frame.is_key {
            // It was reported; the value that follows is read for its mistakes and dropped.
            self.set_key(Pending { key: "?".to_owned(), place: frame.place, role: Role::Dropped });
            return Some(());
        }
        let value = match frame.kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { mut entries, merged, .. } => {
                self.bring_in(&mut entries, merged)?;
                Value::Map(entries)
            }
        };
        let Frame { place, key_place, path, anchor, .. } = frame;
        self.finish(Node { value, place, key_place, path }, anchor);
        Some(())
    }

    /// Merge keys: what the map says itself wins, then the earlier of several.
    fn bring_in(&mut self, entries: &mut Vec<Entry>, merged: Vec<Node>) -> Option<()> {
        if merged.is_empty() {
            return Some(());
        }
        let mut known: BTreeSet<_> = entries.iter().map(|entry| entry.key.clone()).collect();
        for source in merged {
            let (place, maps) = match source.value {
                Value::List(items) => (source.place, items),
                Value::Map(_) | Value::Scalar { .. } => (source.place, vec![source]),
            };
            for map in maps {
                let Value::Map(inherited) = map.value else {
                    let hint = "write `<<: *name` with the anchor of a map";
                    let message = "`<<` takes a map or a list of maps";
                    self.reader.report_at(place, &map.path, Code::WrongType, message, hint);
                    return None;
                };
                for entry in inherited {
                    if known.insert(entry.key.clone()) {
                        entries.push(entry);
                    }
                }
            }
        }
        Some(())
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Option<()> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let path = self.next_path();
            let hint = "an alias cannot stand inside of what it refers to";
            self.reader.report_at(place, &path, Code::Structure, "refers to itself", hint);
            return None;
        };
        if self.awaits_key() {
            let (text, plain) = match node.value {
                Value::Scalar { text, plain } => (text, plain),
                Value::List(_) | Value::Map(_) => (String::new(), true),
            };
            self.take_key(text, plain, place);
            return Some(());
        }
        let (size, depth) = node.extent();
        self.count(size, depth, place)?;
        self.finish(node, 0);
        Some(())
    }

    fn finish(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.frames.last_mut().map(|frame| &mut frame.kind) {
            None => self.root = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { entries, pending, merged, .. }) => match pending.take() {
                Some(Pending { key, role: Role::Own, .. }) => {
                    entries.push(Entry { key, value: node });
                }
                Some(Pending { role: Role::Merge, .. }) => merged.push(node),
                Some(Pending { role: Role::Dropped, .. }) | None => {}
            },
        }
    }

    fn take_key(&mut self, key: String, plain: bool, place: Place) {
        let Some(frame) = self.frames.last_mut() else { return };
        let Kind::Map { lines, pending, .. } = &mut frame.kind else { return };
        let mut role = if plain && key == "<<" { Role::Merge } else { Role::Own };
        if let Some(line) = lines.get(&key) {
            let path = below(&frame.path, &key);
            let message = format!("`{key}` appears twice; the first is on line {line}");
            let hint = "keep one of the two";
            self.reader.report_at(place, &path, Code::DuplicateKey, message, hint);
            role = Role::Dropped;
        }
        if matches!(role, Role::Own) {
            lines.insert(key.clone(), place.line);
        }
        *pending = Some(Pending { key, place, role });
    }

    fn set_key(&mut self, key: Pending) {
        if let Some(Frame { kind: Kind::Map { pending, .. }, .. }) = self.frames.last_mut() {
            *pending = Some(key);
        }
    }

    fn awaits_key(&self) -> bool {
        let kind = self.frames.last().map(|frame| &frame.kind);
        matches!(kind, Some(Kind::Map { pending: None, .. }))
    }

    fn key_place(&self, otherwise: Place) -> Place {
        match self.frames.last().map(|frame| &frame.kind) {
            Some(Kind::Map { pending: Some(pending), .. }) => pending.place,
            Some(Kind::Map { pending: None, .. } | Kind::List(_)) | None => otherwise,
        }
    }

    fn next_path(&self) -> Arc<str> {
        let Some(frame) = self.frames.last() else { return Arc::from("") };
        match &frame.kind {
            Kind::List(items) => format!("{}[{}]", frame.path, items.len()).into(),
            Kind::Map { pending: Some(pending), .. } => below(&frame.path, &pending.key),
            Kind::Map { pending: None, .. } => Arc::clone(&frame.path),
        }
    }

    fn count(&mut self, size: usize, depth: usize, place: Place) -> Option<()> {
        self.nodes += size;
        let message = if self.frames.len() + depth > DEPTH_MAX {
            format!("nests more than {DEPTH_MAX} levels deep")
        } else if self.nodes > NODES_MAX {
            format!("holds more than {NODES_MAX} values, aliases and long texts counted in full")
        } else {
            return Some(());
        };
        let hint = "no configuration needs that; check the aliases and brackets";
        self.reader.report_at(place, "", Code::Limit, message, hint);
        None
    }
}

/// Bytes of text that count as one more value: neither long texts nor long keys fill the memory.
const PORTION: usize = 128;

/// How many values more a text counts as.
pub(super) fn portions(text: &str) -> usize {
    text.len() / PORTION
}

/// The path of a key.
pub(crate) fn below(path: &str, key: &str) -> Arc<str> {
    if path.is_empty() { Arc::from(key) } else { format!("{path}.{key}").into() }
}
