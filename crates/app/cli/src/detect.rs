//! What is in a directory, and how it would be started. Looks only at the names and first lines
//! of a few well-known files; guesses are marked as such for the reader of the configuration.

mod manifest;
mod procfile;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// More of a file than this is not looked at.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Services taken from one directory.
const SERVICES_MAX: usize = 20;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The project's name: the directory's, made fit.
    pub(crate) project: String,
    /// What can be started, perhaps nothing.
    pub(crate) services: Vec<FoundService>,
}

/// Something that can be started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FoundService {
    /// A fitting service name.
    pub(crate) name: String,
    /// The file it was found by.
    pub(crate) because: String,
    /// Program and arguments, with templates.
    pub(crate) command: Vec<String>,
    /// Files written for each instance: (source, target).
    pub(crate) config: Vec<(String, String)>,
    /// What its author should look at.
    pub(crate) advice: Vec<String>,
}

/// Looks at a directory. What cannot be read is not there.
pub(crate) fn look_at(directory: &Path) -> Found {
    let project = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let project = name_from(&project.file_name().unwrap_or_default().to_string_lossy(), "project");
    let mut services = procfile::services(directory);
    if services.is_empty() {
        services.extend(manifest::service(directory, &project));
    }
    services.extend(manifest::nginx(directory));
    let compose = manifest::compose_services(directory);
    if let (Some(first), false) = (services.first_mut(), compose.is_empty()) {
        first.advice.push(format!(
            "The compose file also names {}: what of it should run here?",
            compose.join(", ")
        ));
    }
    make_unique(&mut services);
    services.truncate(SERVICES_MAX);
    Found { project, services }
}

/// A text as a name: lower-case letters, digits and inner hyphens.
fn name_from(text: &str, otherwise: &str) -> String {
    let fit =
        |found: char| if found.is_ascii_alphanumeric() { found.to_ascii_lowercase() } else { '-' };
    let fitted: String = text.chars().map(fit).collect();
    let parts: Vec<&str> = fitted.split('-').filter(|part| !part.is_empty()).collect();
    let mut name = parts.join("-");
    name.truncate(switchback_domain::name::NAME_LENGTH_MAX);
    let name = name.trim_end_matches('-');
    if name.is_empty() { otherwise.to_owned() } else { name.to_owned() }
}

/// Two services never share a name.
fn make_unique(services: &mut [FoundService]) {
    for index in 1..services.len() {
        let (before, rest) = services.split_at_mut(index);
        let Some(this) = rest.first_mut() else { return };
        if before.iter().any(|other| other.name == this.name) {
            this.name = format!("{}-{}", this.name, index + 1);
        }
    }
}

/// The start of a text file, if there is one.
fn read(directory: &Path, name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(directory.join(name)).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A command line as program and arguments: split at spaces where that is all it takes, otherwise
/// through a shell. `$PORT` becomes the template.
fn command_of(line: &str) -> Vec<String> {
    let line = line.trim().replace("${PORT}", "{{port}}").replace("$PORT", "{{port}}");
    if line.contains(['"', '\'', '$', '|', '&', ';', '<', '>', '(', '`', '*', '\\', '=']) {
        return ["sh", "-c", &format!("exec {line}")].map(str::to_owned).into();
    }
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> (tempfile::TempDir, Found) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("My Shop_2");
        std::fs::create_dir(&directory).unwrap();
        for (name, content) in files {
            std::fs::write(directory.join(name), content).unwrap();
        }
        let found = look_at(&directory);
        (root, found)
    }

    fn commands(files: &[(&str, &str)]) -> Vec<String> {
        let (_root, found) = directory(files);
        assert_eq!(found.project, "my-shop-2");
        found.services.iter().map(|s| format!("{}: {}", s.name, s.command.join(" "))).collect()
    }

    #[test]
    fn an_empty_directory_has_nothing() {
        assert!(commands(&[]).is_empty());
    }

    #[test]
    fn manifests_say_how_to_start() {
        let cargo = "[workspace]\n[package]\nname = \"Api_Server\" # it\n[[bin]]\nname = \"x\"";
        assert_eq!(commands(&[("Cargo.toml", cargo)]), ["api-server: target/release/Api_Server"]);
        let package = r#"{"name": "@shop/web", "scripts": {"start": "node ."}}"#;
        assert_eq!(commands(&[("package.json", package)]), ["shop-web: npm start"]);
        let main = r#"{"name": "web", "main": "server.js"}"#;
        assert_eq!(commands(&[("package.json", main)]), ["web: node server.js"]);
        let module = "module example.org/team/mail\n\ngo 1.24\n";
        assert_eq!(commands(&[("go.mod", module)]), ["mail: bin/mail"]);
        let python = [("requirements.txt", "flask"), ("app.py", "")];
        assert_eq!(commands(&python), ["my-shop-2: python3 app.py"]);
        let django = [("pyproject.toml", "[project]\nname = 'site'"), ("manage.py", "")];
        assert_eq!(
            commands(&django),
            ["site: python3 manage.py runserver --noreload 127.0.0.1:{{port}}"]
        );
    }

    #[test]
    fn a_procfile_says_it_best() {
        let procfile = "# comment\nweb: gunicorn -b 127.0.0.1:$PORT app\nwork er: x\nrelease: a\n\
                        worker: LEVEL=1 ./work > log\n";
        let files = [("Procfile", procfile), ("package.json", "{}"), ("requirements.txt", "")];
        assert_eq!(
            commands(&files),
            ["web: gunicorn -b 127.0.0.1:{{port}} app", "worker: sh -c exec LEVEL=1 ./work > log"]
        );
    }

    #[test]
    fn a_dockerfile_helps_when_nothing_else_does() {
        let file = "FROM x\nENTRYPOINT [\"/app/run\", \"--fast\"]\nCMD [\"--port\", \"1\"]\n";
        assert_eq!(commands(&[("Dockerfile", file)]), ["my-shop-2: /app/run --fast --port 1"]);
        let shell = "FROM x\nCMD ./serve --port ${PORT}\n";
        assert_eq!(commands(&[("Dockerfile", shell)]), ["my-shop-2: ./serve --port {{port}}"]);
        assert!(commands(&[("Dockerfile", "FROM x\nCMD [broken\n")]).is_empty());
    }

    #[test]
    fn nginx_gets_its_file_and_compose_is_mentioned() {
        let compose = "services:\n  db:\n    image: x\n  cache:\n    image: y\nvolumes:\n  data:\n";
        let files = [("nginx.conf", "events {}"), ("docker-compose.yml", compose)];
        let (_root, found) = directory(&files);
        let nginx = &found.services[0];
        assert_eq!(nginx.config, [("nginx.conf".to_owned(), "nginx.conf".to_owned())]);
        assert!(nginx.command.contains(&"{{dir}}/nginx.conf".to_owned()));
        assert!(nginx.advice.iter().any(|text| text.contains("db, cache")), "{:?}", nginx.advice);
    }

    #[test]
    fn broken_files_and_odd_names_do_no_harm() {
        assert!(commands(&[("package.json", "{"), ("Cargo.toml", "[package]")]).len() <= 1);
        assert_eq!(name_from("--Ünï--", "x"), "n");
        assert_eq!(name_from("___", "x"), "x");
        assert_eq!(name_from(&"a".repeat(99), "x").len(), 63);
        let twice = "a: x\na: y\n";
        let (_root, found) = directory(&[("Procfile", twice)]);
        assert_ne!(found.services[0].name, found.services[1].name);
    }
}
