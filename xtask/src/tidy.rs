//! What neither rustfmt nor clippy can see: opening words, length, forbidden words by folder.
//!
//! The tables are the rules; each says in its message what to do instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::code::{Line, lines};

/// No file is longer, its tests included.
const LINES_MAX: usize = 800;

/// Folders nobody wrote by hand.
const SKIPPED: [&str; 4] = ["target", ".git", ".switchback", "node_modules"];

/// Files that are read: code, and texts that people copy from.
const ENDINGS: [&str; 9] = ["rs", "md", "toml", "yml", "yaml", "sh", "py", "conf", "run"];

/// Where a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All Rust code.
    Code,
    /// Code that is no test.
    Production,
    /// Tests.
    Tests,
    /// `crates/core`, tests included.
    Core,
    /// `crates/core` without `routing`, which answers one request at a time, is never replayed,
    /// and looks hosts up by their hash.
    Replayed,
    /// Everything people read: comments, strings, documents.
    Text,
}

struct Rule {
    scope: Scope,
    /// Any of these, as whole words. Split, so that this file keeps its own rules.
    words: &'static [&'static str],
    /// What to do instead.
    instead: &'static str,
    /// A comment that begins so, on the line or the one above, says why it is right here.
    excuse: Option<&'static str>,
}

const RULES: [Rule; 8] = [
    Rule {
        scope: Scope::Code,
        words: &["#[ignore", "#[should_panic"],
        instead: "a test runs and asserts, or goes",
        excuse: None,
    },
    Rule {
        scope: Scope::Code,
        words: &["todo!", "unimplemented!", "dbg!"],
        instead: "finish it, or leave it out",
        excuse: None,
    },
    Rule {
        scope: Scope::Production,
        words: &[".unwrap()"],
        instead: "handle it, or say with `expect` why it holds",
        excuse: None,
    },
    Rule {
        scope: Scope::Tests,
        words: &["thread::sleep", "time::sleep"],
        instead: "await the event; where none can be awaited, poll with a deadline and say so in \
                  a comment that begins with `// sleep:`",
        excuse: Some("// sleep:"),
    },
    Rule {
        scope: Scope::Core,
        words: &["Instant", "SystemTime"],
        instead: "core has no clock: take a Timestamp",
        excuse: None,
    },
    Rule {
        scope: Scope::Replayed,
        words: &["HashMap", "HashSet"],
        instead: "a replay must take the same order: use a BTreeMap",
        excuse: None,
    },
    Rule {
        scope: Scope::Text,
        words: &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")],
        instead: "do it, or write an issue",
        excuse: None,
    },
    Rule {
        scope: Scope::Text,
        words: &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")],
        instead: "a path of one machine does not belong here",
        excuse: None,
    },
];

/// Every violation as `file:line: what is wrong`.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut texts = BTreeMap::new();
    for path in files(root)? {
        let name = path.strip_prefix(root)?.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        texts.insert(name, text);
    }
    Ok(check_all(&texts))
}

fn check_all(texts: &BTreeMap<String, String>) -> Vec<String> {
    let modules: Vec<_> = texts.iter().flat_map(|(name, text)| test_modules(name, text)).collect();
    let violations = |(name, text): (&String, &String)| {
        let is_declared = modules.iter().any(|module| {
            name.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with(['.', '/']))
        });
        violations(&File { name, text, is_test: is_declared || is_test_file(name) })
    };
    texts.iter().flat_map(violations).collect()
}

/// A file to check.
struct File<'a> {
    /// Its path from the repository's root.
    name: &'a str,
    text: &'a str,
    /// Whether only tests use it.
    is_test: bool,
}

impl File<'_> {
    fn is_rust(&self) -> bool {
        Path::new(self.name).extension().is_some_and(|ending| ending == "rs")
    }
}

/// Paths, without ending, of the modules that a file declares as `#[cfg(test)] mod name;`.
fn test_modules(name: &str, text: &str) -> Vec<String> {
    let stem = name.strip_suffix(".rs").unwrap_or_default();
    let (folder, file) = stem.rsplit_once('/').unwrap_or(("", stem));
    let folder = if matches!(file, "lib" | "main") { folder } else { stem };
    let declared = |line: &Line<'_>| {
        let module = line.code.trim().strip_suffix(';')?.rsplit_once("mod ")?.1;
        line.is_test.then(|| format!("{folder}/{module}"))
    };
    lines(text).iter().filter_map(declared).collect()
}

fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        let read = || format!("cannot read {}", folder.display());
        for entry in std::fs::read_dir(&folder).with_context(read)? {
            let entry = entry.with_context(read)?;
            let (path, kind) = (entry.path(), entry.file_type().with_context(read)?);
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if kind.is_dir() && !SKIPPED.contains(&&*name) {
                open.push(path);
            } else if kind.is_file() && ENDINGS.contains(&name.rsplit('.').next().unwrap_or("")) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn violations(file: &File<'_>) -> Vec<String> {
    let (name, is_rust, text) = (file.name, file.is_rust(), file.text);
    let mut found = Vec::new();
    if is_rust && !text.starts_with("//! ") {
        found.push(format!("{name}:1: opens without `//!` words on what is here"));
    }
    let lines = lines(text);
    if is_rust && lines.len() > LINES_MAX {
        let length = lines.len();
        found.push(format!("{name}:{LINES_MAX}: {length} lines, split it at {LINES_MAX}"));
    }
    for (index, line) in lines.iter().enumerate() {
        let above = index.checked_sub(1).map_or("", |above| lines[above].text);
        let broken = RULES.iter().filter_map(|rule| rule.breaks(file, line, above));
        found.extend(broken);
    }
    found
}

impl Rule {
    fn breaks(&self, file: &File<'_>, line: &Line<'_>, above: &str) -> Option<String> {
        let is_test = line.is_test || file.is_test;
        let (name, is_rust) = (file.name, file.is_rust());
        // What measures the core needs a clock.
        let measures = name.contains("/benches/") || name.contains("/examples/");
        let is_core = name.starts_with("crates/core/") && !measures;
        let is_in_scope = match self.scope {
            Scope::Text => true,
            Scope::Code => is_rust,
            Scope::Production => is_rust && !is_test,
            Scope::Tests => is_rust && is_test,
            Scope::Core => is_rust && is_core,
            Scope::Replayed => is_rust && is_core && !name.starts_with("crates/core/routing/"),
        };
        let text = if self.scope == Scope::Text { line.text } else { &line.code };
        let word = self.words.iter().find(|word| is_in_scope && has_word(text, word))?;
        let is_excused = self
            .excuse
            .is_some_and(|excuse| [line.text, above].iter().any(|it| it.contains(excuse)));
        (!is_excused).then(|| format!("{name}:{}: `{word}`: {}", line.number, self.instead))
    }
}

/// Files that by their place hold nothing but tests, and what only tests use.
fn is_test_file(name: &str) -> bool {
    let mut folders = name.split('/');
    folders.any(|it| matches!(it, "tests" | "benches" | "testing" | "conformance.rs"))
}

/// Whether `text` holds `word` and the word does not go on at an end that is a letter.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let is_open = |end: Option<char>, next: Option<char>| {
        end.is_some_and(is_part) && next.is_some_and(is_part)
    };
    text.match_indices(word).any(|(at, _)| {
        let before = is_open(word.chars().next(), text[..at].chars().next_back());
        let after = is_open(word.chars().next_back(), text[at + word.len()..].chars().next());
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENING: &str = "//! Words.\n";

    fn found(name: &str, body: &str) -> Vec<String> {
        check_all(&[(name.to_owned(), format!("{OPENING}{body}"))].into())
    }

    #[test]
    fn each_rule_names_file_and_line() {
        let later = concat!("// TO", "DO later");
        let path = concat!("see /wo", "rk/x");
        let cases = [
            ("crates/ports/src/a.rs", "#[ignore]", "#[ignore"),
            ("crates/ports/src/a.rs", "fn f() { todo!() }", "todo!"),
            ("crates/ports/src/a.rs", "fn f() { x.unwrap() }", ".unwrap()"),
            ("tests/a.rs", "std::thread::sleep(x);", "thread::sleep"),
            ("crates/app/cli/tests/a.rs", "tokio::time::sleep(x).await;", "time::sleep"),
            ("crates/core/domain/src/a.rs", "use std::time::Instant;", "Instant"),
            ("crates/core/domain/tests/a.rs", "let a: HashMap<A, B>;", "HashMap"),
            ("crates/ports/src/a.rs", later, concat!("TO", "DO")),
            ("docs/a.md", path, concat!("/wo", "rk/")),
        ];
        for (name, body, word) in cases {
            let found = found(name, body);
            let start = format!("{name}:2: `{word}`: ");
            assert!(found.len() == 1 && found[0].starts_with(&start), "{start} {found:?}");
        }
    }

    #[test]
    fn what_the_rules_allow_is_left_alone() {
        let cases = [
            ("crates/ports/src/a.rs", "let a = \"todo!\"; // x.unwrap()"),
            ("crates/ports/src/a.rs", "#[cfg(test)]\nmod tests {\n    x.unwrap()\n}"),
            ("crates/ports/src/a.rs", "use std::time::Instant;\nthread::sleep(x);"),
            ("crates/ports/src/a.rs", "x.unwrap_or(0)"),
            ("crates/core/domain/src/a.rs", "struct InstanceInstant;"),
            ("tests/a.rs", "// sleep: nothing tells when\nthread::sleep(x);"),
            ("tests/a.rs", "thread::sleep(x); // sleep: nothing tells when"),
        ];
        for (name, body) in cases {
            assert_eq!(found(name, body), [""; 0], "{body}");
        }
    }

    #[test]
    fn modules_that_only_tests_see_are_tests() {
        let parents = [("a/src/lib.rs", "a/src"), ("a/src/b.rs", "a/src/b")];
        for (parent, folder) in parents {
            let declaration = "//! Words.\n#[cfg(test)]\nmod aid;\nmod aided;\n";
            let mut texts = BTreeMap::from([(parent.to_owned(), declaration.to_owned())]);
            for inner in ["aid.rs", "aid/deep.rs", "aided.rs"] {
                texts.insert(format!("{folder}/{inner}"), "//! Words.\nx.unwrap();".to_owned());
            }
            let found = check_all(&texts);
            let start = format!("{folder}/aided.rs:2: ");
            assert!(found.len() == 1 && found[0].starts_with(&start), "{found:?}");
        }
    }

    #[test]
    fn a_file_says_what_it_is_and_is_not_too_long() {
        let bare = |name: &str| violations(&File { name, text: "fn f() {}", is_test: false });
        assert_eq!(bare("a.rs"), ["a.rs:1: opens without `//!` words on what is here"]);
        assert_eq!(bare("a.md"), [""; 0]);
        assert_eq!(found("a.rs", &"//\n".repeat(LINES_MAX - 1)).len(), 0);
        assert_eq!(found("a.rs", &"//\n".repeat(LINES_MAX)).len(), 1);
    }
}
