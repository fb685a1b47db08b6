//! Where things are: the configuration, the state directory, the control socket.

use std::path::{Path, PathBuf};

use switchback_api::{Problem, code};
use switchback_domain::socket_path;

/// The configuration's name.
pub(crate) const CONFIG_NAME: &str = "switchback.yaml";
/// The state directory's name, beside the configuration.
pub(crate) const STATE_NAME: &str = ".switchback";

/// The configuration: the given one, or the nearest one at or above `here`.
pub(crate) fn config(given: Option<&Path>, here: &Path) -> Result<PathBuf, Problem> {
    if let Some(given) = given {
        return found(here.join(given));
    }
    let nearest = here.ancestors().map(|dir| dir.join(CONFIG_NAME)).find(|path| path.is_file());
    nearest.ok_or_else(|| {
        let message = format!("no {CONFIG_NAME} in {} or any directory above it", here.display());
        code::CONFIG_NOT_FOUND
            .problem(message)
            .hint("write one with `switchback init`, or name one with --file")
    })
}

fn found(path: PathBuf) -> Result<PathBuf, Problem> {
    if path.is_file() {
        return Ok(path);
    }
    let problem = code::CONFIG_NOT_FOUND.problem(format!("{} does not exist", path.display()));
    Err(problem.hint("check the path given with --file"))
}

/// The state directory: the given one, or `.switchback` beside the configuration.
pub(crate) fn state_dir(
    given: Option<&Path>,
    file: Option<&Path>,
    here: &Path,
) -> Result<PathBuf, Problem> {
    if let Some(given) = given {
        return Ok(resolved(&here.join(given)));
    }
    let config = config(file, here)?;
    Ok(resolved(&config.parent().unwrap_or(here).join(STATE_NAME)))
}

/// The same path without links, as far as it exists: every spelling of a state directory must
/// lead to the same socket.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, resolved)) = existing else { return path.to_owned() };
    match path.strip_prefix(above) {
        Ok(rest) if rest.as_os_str().is_empty() => resolved,
        Ok(rest) => resolved.join(rest),
        Err(_) => path.to_owned(),
    }
}

/// The control plane's socket.
pub(crate) fn control_socket(state_dir: &Path) -> PathBuf {
    socket_path(state_dir, "control")
}

/// Whether control plane or data plane left a socket: one of them runs, or was killed, and so
/// instances may run still. Both remove theirs when they end in good order.
pub(crate) fn sockets_are_left(state_dir: &Path) -> bool {
    ["control", "proxy"].into_iter().any(|name| socket_path(state_dir, name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_configuration_above_wins() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(config(None, &deep).unwrap_err().code, "SB0150");
        let outer = root.path().join(CONFIG_NAME);
        std::fs::write(&outer, "").unwrap();
        assert_eq!(config(None, &deep).unwrap(), outer);
        let inner = root.path().join("a/b").join(CONFIG_NAME);
        std::fs::write(&inner, "").unwrap();
        assert_eq!(config(None, &deep).unwrap(), inner);
        assert_eq!(state_dir(None, None, &deep).unwrap(), root.path().join("a/b").join(STATE_NAME));
    }

    #[test]
    fn a_socket_left_behind_means_that_something_may_run() {
        let state = tempfile::tempdir().unwrap();
        assert!(!sockets_are_left(state.path()));
        std::fs::write(state.path().join("proxy.sock"), "").unwrap();
        assert!(sockets_are_left(state.path()));
    }

    #[test]
    fn given_paths_are_taken_from_here() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(config(Some(Path::new("x.yaml")), root.path()).unwrap_err().code, "SB0150");
        std::fs::write(root.path().join("x.yaml"), "").unwrap();
        let given = config(Some(Path::new("x.yaml")), root.path()).unwrap();
        assert_eq!(given, root.path().join("x.yaml"));
        let state = state_dir(Some(Path::new("s")), None, root.path()).unwrap();
        assert_eq!(state, root.path().join("s"));
        std::fs::create_dir(root.path().join("s")).unwrap();
        std::os::unix::fs::symlink("s", root.path().join("link")).unwrap();
        let linked = state_dir(Some(Path::new("link")), None, root.path()).unwrap();
        assert_eq!(control_socket(&linked), control_socket(&state));
    }
}
