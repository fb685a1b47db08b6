//! Whatever is in the file, `parse` answers: with a document, or with mistakes that have a place,
//! a message and a hint.

use proptest::prelude::*;
use proptest::sample::Index;
use switchback_config::{NODES_MAX, TEXT_LENGTH_MAX, parse};

const SAMPLES: [&str; 7] = [
    include_str!("../../../../tests/sample-configs/valid/routes.yaml"),
    include_str!("../../../../tests/sample-configs/invalid/route-rules.yaml"),
    include_str!("../../../../tests/sample-configs/valid/everything.yaml"),
    include_str!("../../../../tests/sample-configs/valid/documents.yaml"),
    include_str!("../../../../tests/sample-configs/valid/anchors.yaml"),
    include_str!("../../../../tests/sample-configs/invalid/contradictions.yaml"),
    include_str!("../../../../tests/sample-configs/invalid/units.yaml"),
];

/// What people and editors do to files by accident.
const PIECES: [&str; 24] = [
    "\t",
    "\n",
    "\r\n",
    " ",
    "  ",
    ":",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "&a ",
    "*a ",
    "<<: ",
    "~",
    "-1",
    "1e999",
    "999999999999999999999999",
    "ü",
    "\u{feff}",
    "? ",
];

fn check(text: &str) {
    let Err(mistakes) = parse(text, "case") else { return };
    assert!(!mistakes.is_empty(), "refused without a reason:\n{text}");
    // A lone carriage return is a line break to YAML.
    let lines = text.matches(['\n', '\r']).count() + 1;
    for mistake in mistakes {
        let line = usize::try_from(mistake.line).unwrap_or(0);
        assert!((1..=lines).contains(&line) && mistake.column > 0, "{mistake}");
        assert!(!mistake.message.is_empty() && !mistake.hint.is_empty(), "{mistake}");
    }
}

fn boundary(text: &str, index: Index) -> usize {
    let at = index.index(text.len() + 1);
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_samples_are_answered(
        sample in prop::sample::select(&SAMPLES[..]),
        edits in prop::collection::vec(
            (any::<Index>(), any::<Index>(), prop::sample::select(&PIECES[..]), 0..4_u8), 1..6),
    ) {
        let mut text = sample.to_owned();
        for (from, to, piece, edit) in edits {
            let (from, to) = (boundary(&text, from), boundary(&text, to));
            let (from, to) = (from.min(to), from.max(to));
            match edit {
                0 => text.insert_str(from, piece),
                1 => {
                    let one = text[from..].chars().next().map_or(0, char::len_utf8);
                    text.replace_range(from..from + one, "");
                }
                2 => text.replace_range(from..to, piece),
                _ => {
                    let copied = text[from..to].to_owned();
                    text.insert_str(boundary_near(&text, text.len() / 2), &copied);
                }
            }
        }
        check(&text);
    }

    #[test]
    fn any_text_is_answered(text in "(?s).{0,200}") {
        check(&text);
    }

    #[test]
    fn any_value_of_any_key_is_answered(
        key in prop::sample::select(&[
            "replicas", "command", "env", "config", "health_check", "route", "strategy",
            "max_surge", "drain_timeout", "rollback", "smoke_tests", "version", "working_dir",
        ][..]),
        value in "[-a-z0-9.%:{}\\[\\]\", /*&~$|<>]{0,30}",
    ) {
        check(&format!("project: p\nservices: {{a: {{command: x, route: {{listen: 1}},\n {key}: {value}}}}}\n"));
        check(&format!("project: p\nservices:\n  a:\n    {key}: {value}\n"));
    }
}

fn boundary_near(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[test]
fn huge_files_are_refused_at_once() {
    let long = format!("project: p\n# {}\n", "x".repeat(TEXT_LENGTH_MAX));
    let many = format!("project: p\nx-list: [{}]\n", "1,".repeat(NODES_MAX + 1));
    for text in [long, many] {
        let mistakes = parse(&text, "case").unwrap_err();
        assert_eq!(mistakes.as_slice()[0].code.as_str(), "SB0102");
        assert_eq!(mistakes.len(), 1);
    }
    let wide: Vec<_> = (0..201).map(|n| format!("s{n}: {{command: x}}")).collect();
    let wide = format!("project: p\nservices: {{{}}}\n", wide.join(", "));
    let mistakes = parse(&wide, "case").unwrap_err();
    assert_eq!(mistakes.as_slice()[0].code.as_str(), "SB0102");
    let wrong: Vec<_> = (0..5000).map(|n| format!("k{n}: 1")).collect();
    let mistakes = parse(&format!("{{{}}}", wrong.join(", ")), "case").unwrap_err();
    assert!((1000..1100).contains(&mistakes.len()), "{}", mistakes.len());
    for nested in ["[".repeat(50_000), "- ".repeat(50_000), "{a: ".repeat(50_000)] {
        check(&nested);
    }
}
