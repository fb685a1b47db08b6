//! Files that are generated and committed: everything below `docs/reference`.
//!
//! The binary itself knows how to write them (`switchback generate DIR`); this runs it there, or
//! into a temporary directory to compare.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Nothing here is written by hand.
const GENERATED: &str = "docs/reference";
/// Written and compared by a test of the simulator, which alone has seen the transitions.
const BY_A_TEST: &str = "transitions.md";

/// Writes them.
pub(crate) fn write(root: &Path) -> Result<()> {
    produce(root, &root.join(GENERATED))
}

/// What differs from what is committed.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    produce(root, scratch.path())?;
    let generated = contents(scratch.path())?;
    let mut committed = contents(&root.join(GENERATED))?;
    committed.remove(Path::new(BY_A_TEST));
    ensure!(!generated.is_empty(), "`switchback generate` wrote nothing");
    Ok(differences(&generated, &committed))
}

fn produce(root: &Path, directory: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "switchback", "--", "generate"])
        .arg(directory)
        .current_dir(root)
        .stdout(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "`switchback generate` failed: {status}");
    Ok(())
}

type Contents = BTreeMap<PathBuf, Vec<u8>>;

fn contents(directory: &Path) -> Result<Contents> {
    let mut found = Contents::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        if !next.exists() {
            continue;
        }
        let read = || format!("cannot read {}", next.display());
        for entry in std::fs::read_dir(&next).with_context(read)? {
            let path = entry.with_context(read)?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let content = std::fs::read(&path).with_context(read)?;
                found.insert(path.strip_prefix(directory)?.to_owned(), content);
            }
        }
    }
    Ok(found)
}

fn differences(generated: &Contents, committed: &Contents) -> Vec<String> {
    let paths: BTreeSet<_> = generated.keys().chain(committed.keys()).collect();
    let differ = |path: &&PathBuf| {
        let place = format!("{GENERATED}/{}", path.display());
        match (generated.get(*path), committed.get(*path)) {
            (Some(new), Some(old)) if new == old => None,
            (Some(new), Some(old)) => {
                Some(format!("{place}:{}: out of date", first_difference(new, old)))
            }
            (Some(_), None) => Some(format!("{place}: missing")),
            (None, _) => Some(format!("{place}: no longer generated")),
        }
    };
    let mut found: Vec<_> = paths.iter().filter_map(differ).collect();
    if !found.is_empty() {
        found.push("run `cargo xtask generate` and commit".to_owned());
    }
    found
}

/// The first line (from 1) in which two files differ.
fn first_difference(new: &[u8], old: &[u8]) -> usize {
    let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (new, old): (Vec<_>, Vec<_>) = (lines(new), lines(old));
    1 + new.iter().zip(&old).take_while(|(new, old)| new == old).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> Contents {
        files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let generated = files(&[("same", "a\n"), ("old", "a\nb\n"), ("new", "")]);
        let committed = files(&[("same", "a\n"), ("old", "a\nc\n"), ("gone", "")]);
        assert_eq!(
            differences(&generated, &committed),
            [
                "docs/reference/gone: no longer generated",
                "docs/reference/new: missing",
                "docs/reference/old:2: out of date",
                "run `cargo xtask generate` and commit",
            ]
        );
        assert!(differences(&generated, &generated).is_empty());
    }

    #[test]
    fn contents_are_read_at_every_depth() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("man")).unwrap();
        std::fs::write(directory.path().join("man/a.1"), "x").unwrap();
        assert_eq!(contents(directory.path()).unwrap(), files(&[("man/a.1", "x")]));
        assert!(contents(&directory.path().join("absent")).unwrap().is_empty());
    }
}
