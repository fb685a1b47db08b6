//! Commands: a line that is split as a shell splits it, or a list of words taken as they are.

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::section::template::{self, Scope};
use crate::value::{Node, Value};
use crate::words::{SplitError, split_words};

/// Program and arguments, with at least a program.
pub(crate) fn command(reader: &mut Reader, node: &Node, scope: Scope) -> Option<Vec<String>> {
    let words = if let Value::List(items) = &node.value {
        let words: Vec<_> =
            items.iter().filter_map(|item| template::text(reader, item, scope)).collect();
        if words.len() < items.len() {
            return None;
        }
        words
    } else {
        let line = template::text(reader, node, scope)?;
        split_words(&line).map_err(|error| report_split(reader, node, &error)).ok()?
    };
    if words.first().is_none_or(|program| program.trim().is_empty()) {
        let hint = "name a program: `command: ./server --port {{port}}`";
        reader.report(node, Code::Command, "names no program", hint);
        return None;
    }
    Some(words)
}

fn report_split(reader: &mut Reader, node: &Node, error: &SplitError) {
    let hint = match error {
        SplitError::Unclosed(_) => "close the quote, or write a list: `[program, argument]`",
        SplitError::Backslash => "write `\\\\` for a backslash",
        SplitError::Shell(_) => "write `[\"sh\", \"-c\", \"...\"]` for a shell, or quote the word",
        SplitError::Variable(name) if name.contains("PORT") => "write `{{port}}`",
        SplitError::Variable(_) => "write `{{version}}`",
    };
    reader.report(node, Code::Command, error.to_string(), hint);
}
