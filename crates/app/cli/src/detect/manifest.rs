//! One file of a language or server, and the usual way to start what it describes.

use std::path::Path;

use serde_json::Value;

use crate::detect::{FoundService, command_of, name_from, read};

/// The first manifest that says how to start something.
pub(crate) fn service(directory: &Path, project: &str) -> Option<FoundService> {
    let all: [fn(&Path, &str) -> Option<FoundService>; 5] = [cargo, node, go, python, docker];
    all.into_iter().find_map(|one| one(directory, project))
}

fn found(name: &str, because: &str, command: Vec<String>, advice: &str) -> FoundService {
    FoundService {
        name: name_from(name, "app"),
        because: because.to_owned(),
        command,
        advice: vec![advice.to_owned()],
        ..FoundService::default()
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn cargo(directory: &Path, _project: &str) -> Option<FoundService> {
    let name = toml_name(&read(directory, "Cargo.toml")?, "[package]")?;
    let program = format!("target/release/{name}");
    let advice = "Build it with `cargo build --release`. It should listen on 127.0.0.1:$PORT.";
    Some(found(&name, "Cargo.toml", vec![program], advice))
}

fn node(directory: &Path, project: &str) -> Option<FoundService> {
    let package: Value = serde_json::from_str(&read(directory, "package.json")?).ok()?;
    let name = package["name"].as_str().unwrap_or(project);
    let command = match (package["scripts"]["start"].as_str(), package["main"].as_str()) {
        (Some(_), _) => words(&["npm", "start"]),
        (None, Some(main)) => words(&["node", main]),
        (None, None) => words(&["node", "index.js"]),
    };
    Some(found(name, "package.json", command, "It should listen on process.env.PORT."))
}

fn go(directory: &Path, _project: &str) -> Option<FoundService> {
    let text = read(directory, "go.mod")?;
    let module = text.lines().find_map(|line| line.trim().strip_prefix("module "))?;
    let name = module.trim().rsplit('/').next()?;
    let advice =
        format!("Build it with `go build -o bin/{name}`. It should listen on 127.0.0.1:$PORT.");
    Some(found(name, "go.mod", vec![format!("bin/{name}")], &advice))
}

fn python(directory: &Path, project: &str) -> Option<FoundService> {
    let pyproject = read(directory, "pyproject.toml");
    let because = match &pyproject {
        Some(_) => "pyproject.toml",
        None => read(directory, "requirements.txt").map(|_| "requirements.txt")?,
    };
    let name = pyproject.and_then(|text| toml_name(&text, "[project]"));
    let has = |file: &str| directory.join(file).is_file();
    let command = if has("manage.py") {
        words(&["python3", "manage.py", "runserver", "--noreload", "127.0.0.1:{{port}}"])
    } else {
        let main = ["app.py", "main.py", "server.py"].into_iter().find(|file| has(file));
        words(&["python3", main.unwrap_or("app.py")])
    };
    let advice = "It should listen on 127.0.0.1 and the port in the environment variable PORT.";
    Some(found(name.as_deref().unwrap_or(project), because, command, advice))
}

/// `ENTRYPOINT` and `CMD`, the last of each.
fn docker(directory: &Path, project: &str) -> Option<FoundService> {
    let text = read(directory, "Dockerfile")?;
    let last = |word: &str| text.lines().rev().find_map(|line| line.trim().strip_prefix(word));
    let mut command = exec_form(last("ENTRYPOINT ").unwrap_or("[]"))?;
    command.extend(exec_form(last("CMD ").unwrap_or("[]"))?);
    let advice = "Taken from the Dockerfile: here it runs as a local process, without the image.";
    (!command.is_empty()).then(|| found(project, "Dockerfile", command, advice))
}

fn exec_form(text: &str) -> Option<Vec<String>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    Some(command_of(text))
}

/// nginx, with its configuration written for each instance.
pub(crate) fn nginx(directory: &Path) -> Option<FoundService> {
    let name = ["nginx.conf", "nginx/nginx.conf", "conf/nginx.conf"]
        .into_iter()
        .find(|name| directory.join(name).is_file())?;
    let command = ["nginx", "-p", "{{dir}}", "-c", "{{dir}}/nginx.conf", "-g", "daemon off;"];
    Some(FoundService {
        config: vec![(name.to_owned(), "nginx.conf".to_owned())],
        ..found(
            "nginx",
            name,
            words(&command),
            "In nginx.conf: `listen 127.0.0.1:{{port}};`, and pid, logs and temporary paths below \
             `{{dir}}`.",
        )
    })
}

/// The services a compose file names.
pub(crate) fn compose_services(directory: &Path) -> Vec<String> {
    let files = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
    let text = files.into_iter().find_map(|file| read(directory, file)).unwrap_or_default();
    let inside = text.lines().skip_while(|line| line.trim_end() != "services:").skip(1);
    let inside = inside.take_while(|line| line.starts_with([' ', '#']) || line.trim().is_empty());
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = inside.filter(|line| line.trim_end().ends_with(':')).collect();
    let Some(first) = lines.first().map(|line| indent(line)) else { return Vec::new() };
    let named = lines.into_iter().filter(|line| indent(line) == first);
    named.map(|line| line.trim().trim_end_matches(':').to_owned()).collect()
}

/// `name = "..."` in a section of a TOML file.
fn toml_name(text: &str, section: &str) -> Option<String> {
    let inside = text.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
    let mut inside = inside.take_while(|line| !line.starts_with('['));
    let value = inside.find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "name").then(|| value.trim())
    })?;
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    value[1..].split(quote).next().map(str::to_owned)
}
