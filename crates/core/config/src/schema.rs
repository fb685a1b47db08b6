//! The JSON schema for editors, made from the tables that the reader itself goes by.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::section::environment::DOCUMENT;
use crate::table::{Field, Kind, Table};

const DURATION: &str = r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*)+$";
const PERCENT: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*%?\s*$";

/// The schema (draft 7) of `switchback.yaml`. It describes shapes, words and ranges; what values
/// mean together only [`crate::parse`] knows.
pub fn json_schema() -> Value {
    let mut definitions = BTreeMap::new();
    let root = reference(&DOCUMENT, &mut definitions);
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "switchback.yaml",
        "allOf": [root],
        "definitions": definitions,
    })
}

type Definitions = BTreeMap<&'static str, Value>;

fn reference(table: &'static Table, definitions: &mut Definitions) -> Value {
    if !definitions.contains_key(table.name) {
        // Taken first, so that a table may hold itself.
        definitions.insert(table.name, Value::Null);
        let definition = definition(table, definitions);
        definitions.insert(table.name, definition);
    }
    json!({"$ref": format!("#/definitions/{}", table.name)})
}

fn definition(table: &'static Table, definitions: &mut Definitions) -> Value {
    let mut properties = Map::new();
    for field in table.fields() {
        properties.insert(field.key.to_owned(), property(field, table.exactly_one, definitions));
    }
    let required: Vec<_> = table.fields().filter(|f| f.required).map(|f| f.key).collect();
    let mut definition = json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": false,
    });
    if !required.is_empty() {
        definition["required"] = json!(required);
    }
    if table.exactly_one {
        let one = |field: &Field| json!({"required": [field.key]});
        definition["oneOf"] = table.fields().map(one).collect();
    }
    definition
}

/// Null counts as not given, wherever a key may be left out.
fn property(field: &'static Field, is_step: bool, definitions: &mut Definitions) -> Value {
    let shape = kind(&field.kind, definitions);
    if field.required || is_step {
        return json!({"description": field.doc, "allOf": [shape]});
    }
    json!({"description": field.doc, "anyOf": [shape, {"type": "null"}]})
}

fn kind(of: &'static Kind, definitions: &mut Definitions) -> Value {
    match of {
        Kind::Text => json!({"type": ["string", "number", "boolean"]}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Count { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Number | Kind::Minutes => json!({"type": "number", "minimum": 0}),
        Kind::Duration => json!({"type": "string", "pattern": DURATION}),
        Kind::Window | Kind::Latency => {
            json!({"anyOf": [{"type": "number"}, {"type": "string", "pattern": DURATION}]})
        }
        Kind::Share => share(1),
        Kind::Weight | Kind::Percent => share(100),
        Kind::Amount => json!({"anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 1000},
            {"type": "string", "pattern": PERCENT},
        ]}),
        Kind::Size => json!({"type": "string", "pattern": r"^[0-9.]+\s*([KMGk]i?)?B?$"}),
        Kind::Listen => json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "pattern": "^(.*:)?[0-9]+$"},
        ]}),
        Kind::Command => {
            let word = json!({"type": ["string", "number", "boolean"]});
            json!({"anyOf": [{"type": "string"}, {"type": "array", "items": word, "minItems": 1}]})
        }
        Kind::Word(words) => json!({"enum": words}),
        Kind::Struct(table) => reference(table, definitions),
        Kind::List(item) => json!({"type": "array", "items": kind(item, definitions)}),
        Kind::Map(value) => {
            let value = json!({"anyOf": [kind(value, definitions), {"type": "null"}]});
            json!({"type": "object", "additionalProperties": value})
        }
        Kind::Either(kinds) => {
            let shapes: Vec<_> = kinds.iter().map(|of| kind(of, definitions)).collect();
            json!({"anyOf": shapes})
        }
        Kind::Null => json!({"type": "null"}),
    }
}

fn share(whole: u32) -> Value {
    json!({"anyOf": [
        {"type": "number", "minimum": 0, "maximum": whole},
        {"type": "string", "pattern": PERCENT},
    ]})
}

#[cfg(test)]
mod tests;
