//! A ceiling on locked packages, so that a new dependency tree is a decision and not an accident.

use std::path::Path;

use anyhow::{Context, Result};

/// What is above the ceiling.
pub(crate) fn check(root: &Path, max: &str) -> Result<Vec<String>> {
    let max: usize = max.parse().with_context(|| format!("{max:?} is no number"))?;
    let lock =
        std::fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let count = count(&lock);
    println!("locked: {count} packages, at most {max}");
    let message =
        || format!("Cargo.lock: {count} packages; drop one or raise the ceiling of {max}");
    Ok((count > max).then(message).into_iter().collect())
}

fn count(lock: &str) -> usize {
    lock.lines().filter(|line| *line == "[[package]]").count()
}

#[cfg(test)]
mod tests {
    #[test]
    fn packages_are_counted_once_each() {
        let lock =
            "version = 4\n[[package]]\nname = \"a\"\n\n[[package]]\nname = \"[[package]]\"\n";
        assert_eq!(super::count(lock), 2);
    }
}
