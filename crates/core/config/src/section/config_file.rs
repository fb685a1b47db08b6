//! `config:`: files rendered for each instance. Reading the sources is the caller's.

use std::collections::BTreeSet;

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::section::template::{self, Scope};
use crate::service::ConfigSource;
use crate::table::{Kind, Table, required};
use crate::value::Node;

pub(crate) static CONFIG_FILE: Table = Table::new(
    "config_file",
    "A file that is written for each instance, with its templates filled in.",
    &[&[
        required("source", Kind::Text, "The file to read, relative to this one."),
        required(
            "target",
            Kind::Text,
            "Where to write it, below the instance's directory {{dir}}.",
        ),
    ]],
);

/// The files of a service.
pub(crate) fn config_files(reader: &mut Reader, node: &Node) -> Vec<ConfigSource> {
    let items = reader.list(node, "[{source: app.conf, target: app.conf}]");
    let (mut sources, mut targets) = (Vec::new(), BTreeSet::new());
    for item in items {
        let fields = reader.fields(item, &CONFIG_FILE);
        let source = fields.read("source", reader, source);
        let target = fields.read("target", reader, target);
        let (Some(source), Some(target)) = (source, target) else { continue };
        if !targets.insert(target.clone()) {
            let message = format!("`{target}` is written by two entries");
            reader.report(item, Code::Contradiction, message, "give every file its own target");
        }
        let (line, column) = (item.place.line, item.place.column);
        sources.push(ConfigSource { source, target, line, column });
    }
    sources
}

fn source(reader: &mut Reader, node: &Node) -> Option<String> {
    let source = template::text(reader, node, Scope::Release)?;
    if source.is_empty() || source.ends_with('/') {
        reader.report(node, Code::Path, "names no file", "write a path such as `conf/app.conf`");
        return None;
    }
    Some(source)
}

fn target(reader: &mut Reader, node: &Node) -> Option<String> {
    let target = template::text(reader, node, Scope::Release)?;
    let problem = if target.starts_with('/') {
        "must be relative: it lies in the instance's directory"
    } else if target.split('/').any(|part| part == "..") {
        "must not leave the instance's directory with `..`"
    } else if target.split('/').any(|part| part.is_empty() || part == ".") {
        "is not a plain file path"
    } else {
        return Some(target);
    };
    reader.report(node, Code::Path, problem, "write a path such as `conf/app.conf`");
    None
}
