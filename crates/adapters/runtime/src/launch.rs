//! From a workload to a command: the templates that are known when an instance starts are filled,
//! and its configuration files are written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use switchback_domain::template::{Variables, render};
use switchback_ports::runtime::InstanceSpec;

use crate::layout::{Durability, InstancePaths, replace};

/// A command, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) working_dir: PathBuf,
    /// Beside the inherited environment.
    pub(crate) environment: BTreeMap<String, String>,
}

/// Fills a command of the instance: its own, or one that runs beside it.
pub(crate) fn launch(
    spec: &InstanceSpec,
    paths: &InstancePaths,
    port: u16,
    argv: &[String],
) -> io::Result<Launch> {
    let variables = variables(spec, paths, port);
    let mut argv = argv.iter().map(|argument| render(argument, &variables));
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "the command is empty");
    let program = argv.next().filter(|program| !program.is_empty()).ok_or_else(missing)?;
    let own = spec.workload.env.iter();
    let mut environment: BTreeMap<String, String> =
        own.map(|(name, value)| (name.clone(), render(value, &variables))).collect();
    if let Some(name) = environment.keys().find(|name| name.is_empty() || name.contains('=')) {
        let text = format!("{name:?} cannot be the name of an environment variable");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    environment.extend(ours(spec, paths, port));
    let working_dir = PathBuf::from(render(&spec.workload.working_dir, &variables));
    Ok(Launch { program, arguments: argv.collect(), working_dir, environment })
}

fn variables(spec: &InstanceSpec, paths: &InstancePaths, port: u16) -> Variables {
    Variables::from([
        ("port", port.to_string()),
        ("instance", spec.id.to_string()),
        ("dir", paths.work().to_string_lossy().into_owned()),
    ])
}

/// What every instance is told; a workload cannot set these to anything else.
fn ours(spec: &InstanceSpec, paths: &InstancePaths, port: u16) -> [(String, String); 6] {
    [
        ("PORT", port.to_string()),
        ("SWITCHBACK_VERSION", spec.version.to_string()),
        ("SWITCHBACK_SERVICE", spec.key.service.to_string()),
        ("SWITCHBACK_ENVIRONMENT", spec.key.environment.to_string()),
        ("SWITCHBACK_INSTANCE", spec.id.to_string()),
        ("SWITCHBACK_DIR", paths.work().to_string_lossy().into_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// Writes the instance's configuration files below its directory, replacing earlier ones.
pub(crate) fn write_files(spec: &InstanceSpec, paths: &InstancePaths, port: u16) -> io::Result<()> {
    let variables = variables(spec, paths, port);
    fs::create_dir_all(paths.work())?;
    for file in &spec.workload.config {
        let named = |error: io::Error| {
            let text = format!("cannot write configuration file {:?}: {error}", file.target);
            io::Error::new(error.kind(), text)
        };
        let target = inside(&paths.work(), &file.target).map_err(named)?;
        let parent = target.parent().map_or(Ok(()), fs::create_dir_all);
        let content = render(&file.content, &variables).into_bytes();
        // A file that is right already needs no room: a full disk does not keep it from starting.
        if fs::read(&target).is_ok_and(|earlier| earlier == content) {
            continue;
        }
        let written = parent.and_then(|()| replace(&target, &content, Durability::Process));
        written.map_err(named)?;
    }
    Ok(())
}

/// A path below the directory: neither absolute nor with `..` in it.
fn inside(directory: &Path, target: &str) -> io::Result<PathBuf> {
    let path = Path::new(target);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if target.is_empty() || !plain {
        let text = "it must be a relative path without \"..\"";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(directory.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_the_directory_of_the_instance() {
        let directory = Path::new("/d");
        assert_eq!(inside(directory, "conf/nginx.conf").unwrap(), Path::new("/d/conf/nginx.conf"));
        for target in ["", "/etc/passwd", "../x", "a/../../x", "./x", "a/.."] {
            assert!(inside(directory, target).is_err(), "{target:?}");
        }
    }
}
