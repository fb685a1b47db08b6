//! Files around `switchback-config`, which is pure: reads and checks the configuration, writes a
//! new one.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use switchback_api::{Problem, code};
use switchback_config::{Diagnostics, StarterService};
use switchback_domain::{EnvironmentName, ProjectName, ServiceName};

use crate::detect::{Found, FoundService};

/// A larger file is no configuration.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The port proposed for the first service; the next ones follow.
const FIRST_PORT: u16 = 8080;

/// What a check found.
pub(crate) struct Report {
    /// How many mistakes.
    pub(crate) mistakes: usize,
    /// For people.
    pub(crate) lines: Vec<String>,
    /// For programs.
    pub(crate) document: Value,
}

/// Checks a configuration in all its environments, and that it has the one that was asked for.
/// Fails only when it cannot be read.
pub(crate) fn check(path: &Path, environment: Option<&EnvironmentName>) -> Result<Report, Problem> {
    let text = read(path)?;
    let file = shown(path);
    Ok(match parse(&text, &file, environment) {
        Ok(summary) => {
            let document = switchback_config::parse(&text, &file);
            let advice = document.map(|document| document.advice()).unwrap_or_default();
            let warnings = advice.iter().map(|said| format!("{file}: warning: {said}"));
            let sound = format!("{file}: no mistakes ({summary})");
            Report {
                mistakes: 0,
                lines: warnings.chain([sound]).collect(),
                document: json!({"file": file, "mistakes": [], "warnings": advice}),
            }
        }
        Err(mistakes) => {
            let mut lines: Vec<String> =
                mistakes.as_slice().iter().map(ToString::to_string).collect();
            let count = mistakes.len();
            let plural = if count == 1 { "mistake" } else { "mistakes" };
            lines.push(format!("{file}: {count} {plural}"));
            Report { mistakes: count, lines, document: json!({"file": file, "mistakes": mistakes}) }
        }
    })
}

/// A configuration without mistakes.
pub(crate) fn document(path: &Path) -> Result<switchback_config::Document, Problem> {
    must_be_sound(path, None)?;
    let parsed = switchback_config::parse(&read(path)?, &shown(path));
    parsed.map_err(|mistakes| code::CONFIG_INVALID.problem(mistakes.to_string()))
}

/// Fails with every mistake of a configuration.
pub(crate) fn must_be_sound(
    path: &Path,
    environment: Option<&EnvironmentName>,
) -> Result<(), Problem> {
    let text = read(path)?;
    let file = shown(path);
    let Err(mistakes) = parse(&text, &file, environment) else { return Ok(()) };
    let count = mistakes.len();
    let plural = if count == 1 { "mistake" } else { "mistakes" };
    let lines = mistakes.as_slice().iter().map(ToString::to_string);
    let details = lines.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    Err(code::CONFIG_INVALID
        .problem(format!("{file} has {count} {plural}"))
        .details(details.collect())
        .hint("`switchback lint` checks it again"))
}

/// What it describes, in a few words.
fn parse(
    text: &str,
    file: &str,
    environment: Option<&EnvironmentName>,
) -> Result<String, Diagnostics> {
    let document = switchback_config::parse(text, file)?;
    if let Some(environment) = environment {
        document.environment(environment)?;
    }
    let names: Vec<&str> = document.environments().map(EnvironmentName::as_str).collect();
    let services = document.environment(document.default_environment())?.services.len();
    let plural = if services == 1 { "service" } else { "services" };
    Ok(format!("project {}, {services} {plural}, {}", document.project(), names.join(", ")))
}

/// The JSON schema, indented, with a line's end.
pub(crate) fn schema() -> String {
    format!("{:#}\n", switchback_config::json_schema())
}

/// A commented configuration for what was found, with what its author should look at.
pub(crate) fn starter(found: &Found) -> Result<String, Problem> {
    let odd = |error: switchback_domain::name::Error| code::INTERNAL.problem(error.to_string());
    let project = ProjectName::new(found.project.as_str()).map_err(odd)?;
    let mut services = Vec::new();
    for (service, port) in found.services.iter().zip(FIRST_PORT..) {
        services.push(StarterService {
            name: ServiceName::new(service.name.as_str()).map_err(odd)?,
            command: command_line(&service.command),
            health_path: Some("/".to_owned()),
            // What takes no port answers no requests.
            listen: takes_requests(service).then_some(port),
        });
    }
    let mut text = switchback_config::starter(&project, &services);
    for service in &found.services {
        text = with_notes(&text, service);
    }
    Ok(text)
}

/// Whether a service seems to answer requests: background workers of a Procfile do not.
fn takes_requests(service: &FoundService) -> bool {
    service.because != "Procfile"
        || service.name == "web"
        || service.command.iter().any(|word| word.contains("{{port}}"))
}

/// The text with a service's advice and files below its name.
fn with_notes(text: &str, service: &FoundService) -> String {
    let head = format!("\n  {}:\n", service.name);
    let mut notes = format!("    # found by {}\n", service.because);
    for advice in &service.advice {
        let _ = writeln!(notes, "    # {advice}");
    }
    if !service.config.is_empty() {
        notes.push_str("    # written for each instance, templates filled in\n    config:\n");
    }
    for (source, target) in &service.config {
        let (source, target) = (Value::from(source.as_str()), Value::from(target.as_str()));
        let _ = writeln!(notes, "      - {{source: {source}, target: {target}}}");
    }
    text.replacen(&head, &format!("{head}{notes}"), 1)
}

/// Program and arguments on one line that splits into the same words again.
fn command_line(words: &[String]) -> String {
    let plain = |found: char| {
        found.is_ascii_alphanumeric()
            || matches!(found, '-' | '_' | '.' | '/' | ':' | '{' | '}' | '@' | '%' | '+' | ',')
    };
    let quoted = |word: &String| {
        if !word.is_empty() && word.chars().all(plain) {
            return word.clone();
        }
        format!("'{}'", word.replace('\'', r"'\''"))
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Writes a new file; an existing one only by force.
pub(crate) fn write_new(path: &Path, text: &str, force: bool) -> Result<(), Problem> {
    let mut options = OpenOptions::new();
    options.write(true);
    let file = if force {
        options.create(true).truncate(true).open(path)
    } else {
        options.create_new(true).open(path)
    };
    let written = file.and_then(|mut file: File| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            return code::CONFIG_EXISTS
                .problem(format!("{} exists already", path.display()))
                .hint("`switchback init --force` writes over it");
        }
        code::CANNOT_WRITE.problem(format!("{} cannot be written: {error}", path.display()))
    })
}

/// The text of a configuration.
fn read(path: &Path) -> Result<String, Problem> {
    let unreadable = |why: String| {
        code::CONFIG_UNREADABLE.problem(format!("{} cannot be read: {why}", path.display()))
    };
    let size = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!("it has {size} bytes, more than {FILE_BYTES_MAX}")));
    }
    let bytes = fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        unreadable(format!("it is not UTF-8 (byte {offset})")).hint("save it as UTF-8")
    })
}

/// The path as its user would type it: relative where it lies below the current directory.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_command_line_splits_into_the_same_words() {
        for list in [
            words(&["bin/api", "--port", "{{port}}"]),
            words(&["sh", "-c", "exec LEVEL='a b' ./x > log | tee \"y\" \\ $HOME; z"]),
            words(&["nginx", "-g", "daemon off;", "", "ü"]),
        ] {
            assert_eq!(switchback_config::split_words(&command_line(&list)).unwrap(), list);
        }
    }

    #[test]
    fn what_is_written_for_a_directory_has_no_mistakes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("Procfile", "web: gunicorn -b :$PORT app\nworker: A=1 ./w > log\nnginx: x\n");
        write("nginx.conf", "events {}");
        write("compose.yaml", "services:\n  db:\n    image: x\n");
        let text = starter(&detect::look_at(directory.path())).unwrap();
        let path = directory.path().join("switchback.yaml");
        write_new(&path, &text, false).unwrap();
        let report = check(&path, None).unwrap();
        assert_eq!(report.mistakes, 0, "{text}\n{}", report.lines.join("\n"));
        for part in ["# found by Procfile", "target: \"nginx.conf\"", "also names db", "8080"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(text.matches("    route:").count(), 2, "the worker has none:\n{text}");
        assert_eq!(write_new(&path, &text, false).unwrap_err().code, "SB0153");
        write_new(&path, &text, true).unwrap();
    }

    #[test]
    fn files_that_are_no_text_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switchback.yaml");
        fs::write(&path, b"project: \xff").unwrap();
        let problem = must_be_sound(&path, None).unwrap_err();
        assert_eq!(problem.code, "SB0152");
        assert!(problem.message.contains("byte 9"), "{}", problem.message);
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(must_be_sound(&path, None).unwrap_err().code, "SB0152");
    }

    #[test]
    fn every_mistake_is_listed_with_place_and_hint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switchback.yaml");
        fs::write(&path, "project: shop\nservices:\n  api: {replicas: 0, drain_timeout: 3}\n")
            .unwrap();
        let report = check(&path, None).unwrap();
        assert_eq!(report.mistakes, 3, "{}", report.lines.join("\n"));
        let text = report.lines.join("\n");
        assert!(text.contains("switchback.yaml:3:"), "{text}");
        assert_eq!(text.matches("hint: ").count(), 3, "{text}");
        assert_eq!(report.document["mistakes"].as_array().unwrap().len(), 3);
        let problem = must_be_sound(&path, None).unwrap_err();
        assert_eq!((problem.code.as_str(), problem.exit_code), ("SB0151", 78));
        assert_eq!(problem.details.len(), 6);
    }

    #[test]
    fn an_environment_that_does_not_exist_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switchback.yaml");
        fs::write(&path, "project: shop\nservices:\n  api: {command: ./api}\n").unwrap();
        let moon = EnvironmentName::new("moon").unwrap();
        assert_eq!(check(&path, None).unwrap().mistakes, 0);
        assert_eq!(check(&path, Some(&moon)).unwrap().mistakes, 1);
    }
}
