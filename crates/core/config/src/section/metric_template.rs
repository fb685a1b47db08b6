//! `metric_templates:`: metrics written once and used with arguments. They are filled in before
//! anything else is read, so a mistake is reported where it was written.

use std::collections::{BTreeMap, BTreeSet};

use switchback_domain::template::placeholders;

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::section::metric::{self, SHARED};
use crate::suggest;
use crate::table::{Kind, Table, field};
use crate::value::{Entry, Node, Value, merge};

pub(crate) static METRIC_TEMPLATE: Table = Table::new(
    "metric_template",
    "A metric with `{{args.NAME}}` in its texts; null arguments have to be given where it is used.",
    &[
        &[field("arguments", Kind::Map(&Kind::Text), "Names of arguments and their defaults.")],
        SHARED,
    ],
);

/// What names an argument between double braces.
const PREFIX: &str = "args.";

/// A service with the templates of its metrics applied.
pub(crate) fn applied(reader: &mut Reader, service: &Node) -> Node {
    let templates = templates(reader, service);
    let mut service = service.clone();
    if let Some(metrics) = child(&mut service, "metrics") {
        apply(reader, metrics, &templates);
    }
    let steps = child(&mut service, "strategy").and_then(|strategy| child(strategy, "steps"));
    if let Some(Value::List(steps)) = steps.map(|steps| &mut steps.value) {
        for step in steps {
            let metrics = child(step, "analysis").and_then(|analysis| child(analysis, "metrics"));
            if let Some(metrics) = metrics {
                apply(reader, metrics, &templates);
            }
        }
    }
    service
}

type Templates<'n> = BTreeMap<&'n str, &'n Node>;

fn templates<'n>(reader: &mut Reader, service: &'n Node) -> Templates<'n> {
    let Some(node) = service.find("metric_templates") else { return Templates::new() };
    if !matches!(node.value, Value::Map(_)) {
        let hint = "write `metric_templates: {errors: {query: error_rate, ...}}`";
        reader.wrong_type(node, "a map", hint);
    }
    for entry in node.entries() {
        reader.fields(&entry.value, &METRIC_TEMPLATE);
        metric::check_keys(reader, &entry.value);
    }
    node.entries().iter().map(|entry| (entry.key.as_str(), &entry.value)).collect()
}

fn child<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    match &mut node.value {
        Value::Map(entries) => {
            entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
        }
        Value::Scalar { .. } | Value::List(_) => None,
    }
}

fn apply(reader: &mut Reader, metrics: &mut Node, templates: &Templates<'_>) {
    let Value::List(items) = &mut metrics.value else { return };
    for item in items {
        if reader.is_full() {
            break;
        }
        if let Some(filled) = fill(reader, item, templates) {
            *item = filled;
        }
    }
}

/// The metric that a template gives; `None` if none is named or found.
fn fill(reader: &mut Reader, item: &Node, templates: &Templates<'_>) -> Option<Node> {
    let node = item.find("template")?;
    let name = reader.text(node)?;
    let Some(template) = templates.get(name.as_str()) else {
        let known: Vec<_> = templates.keys().copied().collect();
        let hint = if known.is_empty() {
            "write it under `metric_templates:` of the service, or of `defaults:`".to_owned()
        } else {
            suggest::hint(&name, &known, "templates here")
        };
        reader.report(node, Code::UnknownWord, format!("there is no template `{name}`"), hint);
        return None;
    };
    let values = arguments(reader, item, template);
    let without = |node: &Node, keys: &[&str]| {
        let entries = node.entries().iter().filter(|it| !keys.contains(&it.key.as_str()));
        Node { value: Value::Map(entries.cloned().collect()), ..Node::empty_map(node) }
    };
    let below = without(template, &["arguments"]);
    let above = without(item, &["arguments", "template"]);
    let mut filled = merge::merge(&below, &above, "metric").placed_as(item);
    substitute(&mut filled, &values);
    if let Value::Map(entries) = &mut filled.value
        && !entries.iter().any(|entry| entry.key == "name")
    {
        let value = Node { value: Value::Scalar { text: name, plain: false }, ..node.clone() };
        entries.push(Entry { key: "name".to_owned(), value });
    }
    Some(filled)
}

/// The values of a template's arguments: given, or else the defaults.
fn arguments(reader: &mut Reader, item: &Node, template: &Node) -> BTreeMap<String, String> {
    let declared = template.find("arguments").map(Node::entries).unwrap_or_default();
    let given = item.find("arguments");
    let known: Vec<_> = declared.iter().map(|entry| entry.key.as_str()).collect();
    let mut values = BTreeMap::new();
    let entries = given.map(Node::entries).unwrap_or_default();
    let given: BTreeMap<_, _> = entries.iter().map(|it| (it.key.as_str(), &it.value)).collect();
    for Entry { key, value } in declared {
        let own = given.get(key.as_str()).copied().filter(|own| !own.is_null());
        if let Some(node) = own.or_else(|| (!value.is_null()).then_some(value)) {
            values.extend(reader.text(node).map(|text| (key.clone(), text)));
        } else {
            let hint = format!("write `arguments: {{{key}: ...}}`");
            reader.missing(item, &format!("arguments.{key}"), hint);
        }
    }
    let expected: BTreeSet<_> = known.iter().copied().collect();
    for entry in entries {
        if !reader.is_full() && !expected.contains(entry.key.as_str()) {
            let message = format!("the template has no argument `{}`", entry.key);
            let hint = suggest::hint(&entry.key, &known, "its arguments");
            reader.report(&entry.value, Code::UnknownKey, message, hint);
        }
    }
    values
}

/// Fills arguments into every text. What they fill is read as if it had been written there, so a
/// number may be an argument. Names without a value stay and are reported by whoever reads them.
fn substitute(node: &mut Node, values: &BTreeMap<String, String>) {
    match &mut node.value {
        Value::Map(entries) => {
            for entry in entries {
                substitute(&mut entry.value, values);
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| substitute(item, values)),
        Value::Scalar { text, plain } => {
            let mut filled = String::new();
            let mut from = 0;
            for found in placeholders(text) {
                let value = found.name.strip_prefix(PREFIX).and_then(|name| values.get(name));
                let Some(value) = value else { continue };
                filled.push_str(&text[from..found.start]);
                filled.push_str(value);
                from = found.end;
            }
            if from > 0 {
                filled.push_str(&text[from..]);
                (*text, *plain) = (filled, true);
            }
        }
    }
}
