//! Whatever is in the file, `parse` answers: with a document, or with mistakes that have a place,
//! a message and a hint.

use proptest::prelude::*;
use proptest::sample::Index;
use switchback_config::{NODES_MAX, SERVICES_MAX, TEXT_LENGTH_MAX, parse};

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
    // Few values, much memory: texts through aliases, and keys that are part of many paths.
    let text = "x".repeat(100_000);
    let texts = format!("project: p\nx-a: &a {text}\nx-list: [{}]\n", "*a,".repeat(1000));
    let paths = format!("project: p\n? x-{text}\n: [{}]\n", "1,".repeat(1000));
    for text in [long, many, texts, paths] {
        let mistakes = parse(&text, "case").unwrap_err();
        assert_eq!(mistakes.as_slice()[0].code.as_str(), "SB0102");
        assert_eq!(mistakes.len(), 1);
    }
    let wrong: Vec<_> = (0..5000).map(|n| format!("k{n}: 1")).collect();
    let mistakes = parse(&format!("{{{}}}", wrong.join(", ")), "case").unwrap_err();
    assert!((1000..1100).contains(&mistakes.len()), "{}", mistakes.len());
    for nested in ["[".repeat(50_000), "- ".repeat(50_000), "{a: ".repeat(50_000)] {
        check(&nested);
    }
}

/// A file with so many services, in so many environments, with a default of so many bytes.
fn services(count: usize, environments: usize, default: usize) -> String {
    let lines = |count: usize, line: &dyn Fn(usize) -> String| -> String {
        (0..count).map(line).collect::<Vec<_>>().concat()
    };
    let services = lines(count, &|n| format!("  s{n}: {{route: {{host: s{n}.x}}}}\n"));
    let environments = lines(environments, &|n| format!("  e{n}: {{}}\n"));
    let long = "x".repeat(default);
    let defaults = format!("command: ./x, route: {{listen: 80}}, env: {{A: {long}}}");
    format!(
        "project: p\nenvironments:\n{environments}defaults: {{{defaults}}}\nservices:\n{services}"
    )
}

#[test]
fn a_file_holds_thousands_of_services_and_no_more_than_were_measured() {
    let document = parse(&services(1000, 2, 10), "case").unwrap();
    let name = document.environments().last().unwrap();
    assert_eq!(document.environment(name).unwrap().services.len(), 1000);
    let refused = [
        (services(SERVICES_MAX + 1, 1, 1), "10001 services are more than one file can hold"),
        (services(SERVICES_MAX / 4 + 1, 4, 1), "2501 services in 4 environments are more than"),
        (services(1000, 1, 200_000), "1000 services hold more than 1000000 values"),
    ];
    for (text, message) in refused {
        let mistakes = parse(&text, "case").unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes}");
        let mistake = &mistakes.as_slice()[0];
        assert_eq!(mistake.code.as_str(), "SB0102");
        assert!(mistake.message.starts_with(message), "{mistake}");
    }
}

#[test]
fn of_many_bad_services_the_first_mistakes_are_shown() {
    let text = services(3000, 1, 1).replace("command: ./x, ", "");
    let mistakes = parse(&text, "case").unwrap_err();
    assert_eq!(mistakes.len(), 1001, "{}", mistakes.len());
}
