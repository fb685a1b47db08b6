//! `hook:` and `smoke_tests:`: commands that the control plane runs.

use std::time::Duration;

use switchback_domain::strategy::Hook;

use crate::reader::Reader;
use crate::section::command::command;
use crate::section::template::Scope;
use crate::table::{Kind, Table, field, required};
use crate::value::{Node, Value};

/// Flagger's default for its gates.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) static HOOK: Table = Table::new(
    "hook",
    "A command run by the control plane; exit code 0 goes on. {{address}} is the first \
     candidate's address.",
    &[&[
        field("name", Kind::Text, "What it is called in the output. Default: the program's name."),
        required("command", Kind::Command, "Program and arguments."),
        field("timeout", Kind::Duration, "How long it may take. Default: 10s."),
    ]],
);

/// A hook: a map, or just its command.
pub(crate) fn hook(reader: &mut Reader, node: &Node) -> Option<Hook> {
    if !matches!(node.value, Value::Map(_)) {
        let argv = command(reader, node, Scope::Hook)?;
        return Some(Hook { name: program_name(&argv), argv, timeout: TIMEOUT });
    }
    let fields = reader.fields(node, &HOOK);
    let name = fields.read("name", reader, Reader::text);
    let timeout = fields.read("timeout", reader, Reader::duration_above_zero);
    let argv = fields.read("command", reader, |r, node| command(r, node, Scope::Hook))?;
    let name = name.unwrap_or_else(|| program_name(&argv));
    Some(Hook { name, argv, timeout: timeout.unwrap_or(TIMEOUT) })
}

/// A list of hooks.
pub(crate) fn hooks(reader: &mut Reader, node: &Node) -> Vec<Hook> {
    let items = reader.list(node, "[{name: ping, command: \"./ping {{address}}\"}]");
    items.iter().filter_map(|item| hook(reader, item)).collect()
}

fn program_name(argv: &[String]) -> String {
    let program = argv.first().map_or("hook", String::as_str);
    program.rsplit('/').next().unwrap_or(program).to_owned()
}
