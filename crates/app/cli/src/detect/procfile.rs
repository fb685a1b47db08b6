//! `Procfile`: one process type a line.

use std::path::Path;

use crate::detect::{FoundService, command_of, name_from, read};

/// A process type that runs once per deploy, not a service.
const RELEASE: &str = "release";

/// A service per process type.
pub(crate) fn services(directory: &Path) -> Vec<FoundService> {
    let text = read(directory, "Procfile").unwrap_or_default();
    text.lines().filter_map(service).collect()
}

fn service(line: &str) -> Option<FoundService> {
    let (name, command) = line.trim().split_once(':')?;
    let word = |found: char| found.is_ascii_alphanumeric() || matches!(found, '-' | '_');
    let command = command_of(command);
    if name.is_empty() || !name.chars().all(word) || name == RELEASE || command.is_empty() {
        return None;
    }
    Some(FoundService {
        name: name_from(name, "web"),
        because: "Procfile".to_owned(),
        command,
        ..FoundService::default()
    })
}
