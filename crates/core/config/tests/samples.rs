//! The sample configurations under `tests/sample-configs`: valid ones pass, invalid ones give
//! exactly the messages in the text file beside them. `UPDATE_SAMPLES=1` writes those files.

use std::fs;
use std::path::{Path, PathBuf};

fn samples(kind: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/sample-configs");
    let entries = fs::read_dir(root.join(kind)).expect("the samples are in the repository");
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn valid_samples_pass() {
    for path in samples("valid") {
        let text = fs::read_to_string(&path).unwrap();
        if let Err(mistakes) = switchback_config::parse(&text, "switchback.yaml") {
            panic!("{}:\n{mistakes}", path.display());
        }
    }
}

#[test]
fn invalid_samples_give_the_committed_messages() {
    let update = std::env::var_os("UPDATE_SAMPLES").is_some();
    for path in samples("invalid") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let Err(mistakes) = switchback_config::parse(&text, &name) else {
            panic!("{name} was accepted")
        };
        for mistake in mistakes.as_slice() {
            assert!(mistake.line > 0 && mistake.column > 0, "{mistake}");
            assert!(!mistake.hint.is_empty(), "{mistake}");
        }
        let expected = path.with_extension("txt");
        let found = format!("{mistakes}\n");
        if update {
            fs::write(&expected, &found).unwrap();
        }
        let committed = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(found, committed, "{name}");
    }
}

#[test]
fn ten_mistakes_give_ten_messages() {
    let path = samples("invalid").into_iter().find(|path| path.ends_with("ten-mistakes.yaml"));
    let text = fs::read_to_string(path.expect("the sample is there")).unwrap();
    let mistakes = switchback_config::parse(&text, "switchback.yaml").unwrap_err();
    assert_eq!(mistakes.len(), 10, "{mistakes}");
}
