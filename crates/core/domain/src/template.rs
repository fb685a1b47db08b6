//! `{{name}}` in commands, environment variables and files. Nothing else is ever replaced.

use std::collections::BTreeMap;

/// Names and their values.
pub type Variables = BTreeMap<&'static str, String>;

/// Names known when a release is made.
pub const RELEASE_VARIABLES: [&str; 4] = ["version", "environment", "service", "project"];
/// Names known when an instance starts.
pub const INSTANCE_VARIABLES: [&str; 3] = ["port", "instance", "dir"];
/// Names known when a hook runs.
pub const HOOK_VARIABLES: [&str; 2] = ["address", "rollout"];

/// A `{{name}}` found in a text: where its braces start, in bytes, and the trimmed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder<'a> {
    /// Byte offset of `{{`.
    pub start: usize,
    /// Byte offset after `}}`.
    pub end: usize,
    /// The name between the braces.
    pub name: &'a str,
}

/// Every `{{name}}` in a text. An opening without a closing is plain text, and so is one whose
/// inside is not a plain word: other template languages use these braces too.
pub fn placeholders(text: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(open) = text[from..].find("{{").map(|at| from + at) {
        let Some(close) = text[open..].find("}}").map(|at| open + at) else { break };
        let name = text[open + 2..close].trim();
        let plain = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        if plain {
            found.push(Placeholder { start: open, end: close + 2, name });
            from = close + 2;
        } else {
            from = open + 2;
        }
    }
    found
}

/// Replaces the placeholders that have a value; leaves the others as they are.
pub fn render(text: &str, variables: &Variables) -> String {
    let mut rendered = String::with_capacity(text.len());
    let mut from = 0;
    for placeholder in placeholders(text) {
        let Some(value) = variables.get(placeholder.name) else { continue };
        rendered.push_str(&text[from..placeholder.start]);
        rendered.push_str(value);
        from = placeholder.end;
    }
    rendered.push_str(&text[from..]);
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_filled_and_others_stay() {
        let variables = Variables::from([("port", "8080".to_owned())]);
        assert_eq!(
            render("a {{port}} {{ port }} {{other}} {{", &variables),
            "a 8080 8080 {{other}} {{"
        );
        assert_eq!(render("{{#if x}}{{port}}", &variables), "{{#if x}}8080");
        assert_eq!(render("ü{{port}}ü", &variables), "ü8080ü");
    }
}
