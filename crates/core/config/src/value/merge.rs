//! One tree over another: maps merge key by key, everything else is replaced, null takes away.

use std::collections::BTreeMap;

use super::{Entry, Node, Value};

/// Keys that say the same thing in different ways, by the key of the map they stand in. An overlay
/// that uses one of them means it instead of the others.
const ALTERNATIVES: [(&[&str], &[&[&str]]); 4] = [
    (&["health_check", "startup", "liveness", "readiness"], &[&["path"], &["tcp"], &["command"]]),
    (&["route", "preview"], &[&["host"], &["hosts"]]),
    (
        &["session_affinity"],
        &[&["cookie_name", "max_age"], &["cookie"], &["header"], &["source_ip"]],
    ),
    (&["strategy"], &[&["steps"], &["step_weights"], &["step_weight", "max_weight"], &["canary"]]),
];

/// `overlay` over `base`; both are values of the key `name`. Every value keeps its own place, and
/// a merged map that of `base`.
pub(crate) fn merge(base: &Node, overlay: &Node, name: &str) -> Node {
    let (Value::Map(below), Value::Map(above)) = (&base.value, &overlay.value) else {
        return overlay.clone();
    };
    if name == "strategy" && kind_differs(base, overlay) {
        return overlay.clone();
    }
    let replaced = |key: &str| is_replaced(name, key, above);
    let mut entries: Vec<Entry> =
        below.iter().filter(|entry| !replaced(&entry.key)).cloned().collect();
    let kept = below.iter().map(|entry| entry.key.as_str()).filter(|key| !replaced(key));
    let places: BTreeMap<_, _> = kept.zip(0..).collect();
    for entry in above {
        let place = places.get(entry.key.as_str());
        match place.and_then(|place: &usize| entries.get_mut(*place)) {
            Some(existing) => existing.value = merge(&existing.value, &entry.value, &entry.key),
            None => entries.push(entry.clone()),
        }
    }
    Node { value: Value::Map(entries), ..Node::empty_map(base) }
}

/// Whether the overlay says in another way what `key` says.
fn is_replaced(name: &str, key: &str, above: &[Entry]) -> bool {
    let groups = ALTERNATIVES.iter().filter(|(names, _)| names.contains(&name));
    groups.flat_map(|(_, ways)| ways.iter().map(move |way| (way, ways))).any(|(way, ways)| {
        let other = |entry: &Entry| {
            let key = entry.key.as_str();
            ways.iter().any(|other| other != way && other.contains(&key))
        };
        way.contains(&key) && above.iter().any(other)
    })
}

/// Steps of one strategy mean nothing to another.
fn kind_differs(base: &Node, overlay: &Node) -> bool {
    let kind = |node: &Node| {
        let shorthand = node.find("canary").map(|_| "canary".to_owned());
        node.find("type").and_then(Node::scalar).map(str::to_owned).or(shorthand)
    };
    matches!((kind(base), kind(overlay)), (Some(below), Some(above)) if below != above)
}
