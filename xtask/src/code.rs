//! A line of Rust without its strings and comments, and whether it belongs to a test.
//!
//! Reads line by line, not by grammar: good enough for code that rustfmt has formatted.

/// What a checker wants to know about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: usize,
    /// As written.
    pub(crate) text: &'a str,
    /// Without comments and the insides of strings.
    pub(crate) code: String,
    /// Inside of a `#[cfg(test)]` item.
    pub(crate) is_test: bool,
}

/// Splits a file.
pub(crate) fn lines(file: &str) -> Vec<Line<'_>> {
    let mut state = State::Code;
    let mut test = Test::No;
    let mut found = Vec::new();
    for (index, text) in file.lines().enumerate() {
        let code = strip(text, &mut state);
        test = test.after(text);
        found.push(Line { number: index + 1, text, code, is_test: test != Test::No });
        if test == Test::Ends {
            test = Test::No;
        }
    }
    found
}

/// Where a line is in relation to an item under `#[cfg(test)]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    No,
    /// The attribute was seen; the item begins with this indent.
    Announced(usize),
    /// In the item's block, which closes at this indent.
    Inside(usize),
    /// The item's last line.
    Ends,
}

impl Test {
    fn after(self, line: &str) -> Self {
        let text = line.trim();
        let indent = line.len() - line.trim_start().len();
        match self {
            Self::No | Self::Ends if text.starts_with("#[cfg(test)]") => Self::Announced(indent),
            Self::No | Self::Ends => Self::No,
            Self::Announced(indent) if text.ends_with('{') => Self::Inside(indent),
            Self::Announced(_) if text.ends_with(';') => Self::Ends,
            Self::Announced(indent) => Self::Announced(indent),
            Self::Inside(outer) if indent == outer && text.starts_with('}') => Self::Ends,
            Self::Inside(outer) => Self::Inside(outer),
        }
    }
}

/// What a line begins in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    /// A string that goes on from the line before.
    Text,
    /// A raw string that ends with a quote and this many `#`.
    Raw(usize),
}

fn strip(line: &str, state: &mut State) -> String {
    let mut code = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        rest = match *state {
            State::Code => strip_code(rest, &mut code, state),
            State::Text => skip_text(rest, state),
            State::Raw(hashes) => skip_raw(rest, hashes, state),
        };
    }
    code
}

fn strip_code<'a>(rest: &'a str, code: &mut String, state: &mut State) -> &'a str {
    if rest.starts_with("//") {
        return "";
    }
    if let Some(literal) = character(rest) {
        return &rest[literal..];
    }
    let is_word_before = code.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    let prefix = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'));
    if let Some(raw) = prefix.filter(|_| !is_word_before) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(inside) = raw[hashes..].strip_prefix('"') {
            *state = State::Raw(hashes);
            code.push('"');
            return inside;
        }
    }
    let first = rest.chars().next().unwrap_or_default();
    if first == '"' {
        *state = State::Text;
    }
    code.push(first);
    &rest[first.len_utf8()..]
}

/// The length of the character literal that `rest` begins with; lifetimes are none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if let Some(escaped) = inside.strip_prefix('\\') {
        let after = escaped.char_indices().nth(1)?.0;
        return Some(2 + after + escaped[after..].find('\'')? + 1);
    }
    let first = inside.chars().next()?;
    inside[first.len_utf8()..].starts_with('\'').then(|| 2 + first.len_utf8())
}

fn skip_text<'a>(rest: &'a str, state: &mut State) -> &'a str {
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '"' => {
                *state = State::Code;
                return &rest[at + 1..];
            }
            _ => {}
        }
    }
    ""
}

fn skip_raw<'a>(rest: &'a str, hashes: usize, state: &mut State) -> &'a str {
    let end = format!("\"{}", "#".repeat(hashes));
    let Some(at) = rest.find(&end) else { return "" };
    *state = State::Code;
    &rest[at + end.len()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(file: &str) -> Vec<String> {
        lines(file).into_iter().map(|line| line.code.trim().to_owned()).collect()
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        let cases = [
            (r#"let a = "x"; // y"#, vec![r#"let a = "; "#.trim()]),
            (r#"let a = "\"x"; b"#, vec![r#"let a = "; b"#]),
            ("let a = '\"'; b", vec!["let a = ; b"]),
            (r"let a = '\''; b", vec!["let a = ; b"]),
            ("fn f<'a>(x: &'a str) {}", vec!["fn f<'a>(x: &'a str) {}"]),
            (r##"let a = r#"x"y"#; b"##, vec![r#"let a = "; b"#]),
            ("let a = \"x\ny\"; b", vec!["let a = \"", "; b"]),
            ("/// doc", vec![""]),
        ];
        for (file, expected) in cases {
            assert_eq!(code(file), expected, "{file}");
        }
    }

    #[test]
    fn only_items_under_cfg_test_are_tests() {
        let file = "fn a() {}\n#[cfg(test)]\nfn b() {\n    x\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod tests;\nfn d() {}\n\
                    impl E {\n    #[cfg(test)]\n    fn f() {\n    }\n    fn g() {}\n}\n";
        let tests: Vec<_> =
            lines(file).iter().filter(|line| line.is_test).map(|line| line.number).collect();
        assert_eq!(tests, [2, 3, 4, 5, 7, 8, 11, 12, 13]);
    }
}
