//! The schema says what the parser does: every key of it is taken, and every valid sample fits it.

use serde_json::{Value, json};

use super::json_schema;
use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::value::{self, Node};

const SAMPLES: [&str; 5] = [
    include_str!("../../../../../tests/sample-configs/valid/routes.yaml"),
    include_str!("../../../../../tests/sample-configs/valid/everything.yaml"),
    include_str!("../../../../../tests/sample-configs/valid/documents.yaml"),
    include_str!("../../../../../tests/sample-configs/valid/minimal.yaml"),
    include_str!("../../../../../tests/sample-configs/valid/anchors.yaml"),
];

/// A node as an editor sees it.
fn to_json(node: &Node) -> Value {
    match &node.value {
        value::Value::List(items) => items.iter().map(to_json).collect(),
        value::Value::Map(entries) => {
            let pairs = entries.iter().map(|entry| (entry.key.clone(), to_json(&entry.value)));
            Value::Object(pairs.collect())
        }
        value::Value::Scalar { text, plain: false } => json!(text),
        value::Value::Scalar { text, plain: true } => match text.as_str() {
            _ if node.is_null() => Value::Null,
            "true" => json!(true),
            "false" => json!(false),
            other => match (other.parse::<i64>(), other.parse::<f64>()) {
                (Ok(whole), _) => json!(whole),
                (Err(_), Ok(number)) => json!(number),
                (Err(_), Err(_)) => json!(other),
            },
        },
    }
}

fn load(text: &str) -> Value {
    let mut reader = Reader::new("sample");
    let node = value::load::load(text, &mut reader);
    to_json(&node.unwrap_or_else(|| panic!("{:?}", reader.into_mistakes())))
}

/// As much of JSON schema as ours uses, patterns of texts left out.
fn fits(schema: &Value, value: &Value, root: &Value) -> bool {
    let list = |key: &str| schema[key].as_array().cloned().unwrap_or_default();
    let is_type = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        other => panic!("the schema says type {other:?}"),
    };
    let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    let types = schema["type"].is_null() || types.iter().any(is_type);
    let referred = schema["$ref"].as_str().is_none_or(|target| {
        let target = root.pointer(target.trim_start_matches('#')).expect("the target exists");
        fits(target, value, root)
    });
    let bound = |key: &str, holds: fn(f64, f64) -> bool| match (&schema[key], value.as_f64()) {
        (Value::Number(limit), Some(number)) => limit.as_f64().is_some_and(|l| holds(number, l)),
        _ => true,
    };
    let one_of = list("oneOf");
    let required = list("required");
    let text = |key: &Value| key.as_str().unwrap_or_default().to_owned();
    let words = list("enum");
    let any_of = list("anyOf");
    types
        && referred
        && bound("minimum", |number, limit| number >= limit)
        && bound("maximum", |number, limit| number <= limit)
        && list("allOf").iter().all(|inner| fits(inner, value, root))
        && (any_of.is_empty() || any_of.iter().any(|inner| fits(inner, value, root)))
        && (one_of.is_empty()
            || one_of.iter().filter(|inner| fits(inner, value, root)).count() == 1)
        && (words.is_empty() || words.contains(value))
        && required.iter().all(|key| !value.is_object() || value.get(text(key)).is_some())
        && members_fit(schema, value, root)
}

fn members_fit(schema: &Value, value: &Value, root: &Value) -> bool {
    if let (Some(items), Value::Array(values)) = (schema.get("items"), value) {
        return values.iter().all(|value| fits(items, value, root));
    }
    let Value::Object(members) = value else { return true };
    members.iter().all(|(key, value)| {
        let (own, others) = (&schema["properties"][key], &schema["additionalProperties"]);
        let is_note = key.starts_with("x-") && !schema["patternProperties"].is_null();
        if !own.is_null() {
            fits(own, value, root)
        } else if is_note || others.is_null() {
            true
        } else {
            others.as_bool().unwrap_or_else(|| fits(others, value, root))
        }
    })
}

#[test]
fn every_valid_sample_fits_the_schema() {
    let schema = json_schema();
    for sample in SAMPLES {
        assert!(fits(&schema, &load(sample), &schema), "{sample}");
    }
}

#[test]
fn what_the_parser_refuses_by_shape_does_not_fit() {
    let schema = json_schema();
    let cases = [
        "{project: p, services: {a: {command: x, replcias: 2}}}",
        "{project: p, services: {a: {command: x, replicas: 0}}}",
        "{project: p, services: {a: {command: x, runtime: docker}}}",
        "{project: p, services: {a: {command: x, strategy: {type: canary, steps: [{hook: {}}]}}}}",
        "{project: p, services: {a: {command: x, strategy: {type: canary, steps: [{}]}}}}",
        "{services: {a: {command: x}}}",
    ];
    for text in cases {
        assert!(!fits(&schema, &load(text), &schema), "{text}");
        assert!(crate::parse(text, "case").is_err(), "{text}");
    }
}

/// Every way from a definition to a map with fixed keys, as nested YAML with `{}` for the inner.
fn ways(schema: &Value, shape: &Value, around: &str, found: &mut Vec<(String, String)>) {
    if around.len() > 400 {
        return;
    }
    for inner in ["anyOf", "allOf"].iter().filter_map(|key| shape[key].as_array()).flatten() {
        ways(schema, inner, around, found);
    }
    if let Some(items) = shape.get("items") {
        ways(schema, items, &around.replace('@', "[@]"), found);
    }
    if let Some(inner) = shape.get("additionalProperties").filter(|inner| inner.is_object()) {
        ways(schema, inner, &around.replace('@', "{name: @}"), found);
    }
    let Some(target) = shape["$ref"].as_str() else { return };
    let table = schema.pointer(target.trim_start_matches('#')).expect("the target exists");
    for (key, inner) in table["properties"].as_object().expect("a table has keys") {
        found.push((around.to_owned(), key.clone()));
        ways(schema, inner, &around.replace('@', &format!("{{{key}: @}}")), found);
    }
}

#[test]
fn every_key_of_the_schema_is_known_to_the_parser_and_no_other() {
    let schema = json_schema();
    let mut found = Vec::new();
    ways(&schema, &schema, "@", &mut found);
    assert!(found.len() > 150, "only {} keys", found.len());
    let unknown = |around: &str, key: &str| {
        // What is missing beside the key does not matter here.
        let mut text = around.replace('@', &format!("{{{key}: }}"));
        if around.len() > 1 && !around.starts_with("{services") {
            text.replace_range(..1, "{services: {name: {command: x}}, ");
        }
        match crate::parse(&text, "case") {
            Ok(_) => false,
            Err(mistakes) => mistakes.as_slice().iter().any(|m| m.code == Code::UnknownKey),
        }
    };
    for (around, key) in &found {
        assert!(!unknown(around, key), "{around} {key}");
        assert!(unknown(around, "no_such_key"), "{around} takes any key");
    }
}
