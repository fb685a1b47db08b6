//! Starts a control plane, in the background or in a thread of this process, and waits until it
//! answers.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use switchback_api::client::{Client, Error};
use switchback_api::{Problem, code};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::compose::{self, Launch};

/// The log of a control plane in the background, in the state directory.
pub(crate) const LOG_NAME: &str = "control.log";
/// A log of this size is set aside before the next start; the one set aside before is lost.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// How long a control plane may take to answer: replaying a long journal takes a few seconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Time between two looks at the socket.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines of the log shown when it did not start.
const LOG_LINES_SHOWN: usize = 10;

/// The end of a control plane in a thread of this process.
pub(crate) type Ended = oneshot::Receiver<Result<(), Problem>>;

/// Starts a control plane in a thread and returns when it answers.
pub(crate) async fn start_here(launch: Launch, client: &Client) -> Result<Ended, Problem> {
    make_state_dir(&launch.state_dir)?;
    let (tell, mut ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("control".to_owned());
    let spawned = thread.spawn(move || drop(tell.send(compose::run_control_plane(&launch))));
    spawned.map_err(|error| code::CONTROL_NOT_STARTED.problem(error.to_string()))?;
    tokio::select! {
        result = &mut ended => Err(ended_early(result)),
        result = answers(client) => result.map(|()| ended),
    }
}

/// Why a control plane in a thread ended before it answered.
pub(crate) fn ended_early(
    result: Result<Result<(), Problem>, oneshot::error::RecvError>,
) -> Problem {
    match result {
        Ok(Err(problem)) => problem,
        Ok(Ok(())) => code::CONTROL_NOT_STARTED.problem("the control plane ended at once"),
        Err(_) => code::INTERNAL.problem("the control plane's thread panicked"),
    }
}

/// Starts a control plane in the background and returns its process id when it answers.
pub(crate) async fn start_detached(launch: &Launch, client: &Client) -> Result<u32, Problem> {
    make_state_dir(&launch.state_dir)?;
    let path = launch.state_dir.join(LOG_NAME);
    let log = open_log(&path).map_err(|error| {
        code::CANNOT_WRITE.problem(format!("{} cannot be written: {error}", path.display()))
    })?;
    let mut child = spawn(launch, log).map_err(|error| {
        code::CONTROL_NOT_STARTED.problem(format!("the control plane cannot be started: {error}"))
    })?;
    let pid = child.id();
    tokio::select! {
        status = exited(&mut child) => Err(not_started(status, &path)),
        result = answers(client) => result.map(|()| pid),
    }
}

fn spawn(launch: &Launch, log: File) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("control").arg("--detached");
    command.arg("--file").arg(&launch.config).arg("--state-dir").arg(&launch.state_dir);
    if let Some(environment) = &launch.environment {
        command.arg("--env").arg(environment.as_str());
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
}

/// Makes the state directory, for its owner only: it holds sockets and what services print.
fn make_state_dir(path: &Path) -> Result<(), Problem> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        let message = format!("the state directory {} cannot be made: {error}", path.display());
        code::CANNOT_WRITE.problem(message).hint("name another one with --state-dir")
    })
}

fn open_log(path: &PathBuf) -> std::io::Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Returns when the control plane answers. An answer that is an error is one too.
async fn answers(client: &Client) -> Result<(), Problem> {
    let deadline = Instant::now() + ANSWERS_WITHIN;
    loop {
        let Err(error) = client.status(None).await else { return Ok(()) };
        if !error.is_passing() {
            return Err(error.into());
        }
        if Instant::now() >= deadline {
            let seconds = ANSWERS_WITHIN.as_secs();
            let message = format!("the control plane does not answer after {seconds} s");
            return Err(code::CONTROL_NOT_STARTED
                .problem(message)
                .details(vec![error.to_string()]));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Returns when nothing answers on the socket any more.
pub(crate) async fn gone(client: &Client, within: Duration) -> Result<(), Problem> {
    let deadline = Instant::now() + within;
    while !matches!(client.status(None).await, Err(Error::NotRunning { .. })) {
        if Instant::now() >= deadline {
            let seconds = within.as_secs();
            let message = format!("the control plane still answers after {seconds} s");
            return Err(code::CONNECTION_LOST.problem(message));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Returns when the child has ended.
async fn exited(child: &mut Child) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
            Ok(Some(status)) => return Some(status),
            Err(_) => return None,
        }
    }
}

/// Why it did not start, in its own last words, with its own exit code.
fn not_started(status: Option<ExitStatus>, log: &Path) -> Problem {
    let how = status.map_or_else(|| "ended".to_owned(), |status| format!("ended with {status}"));
    let own = status.and_then(|s| s.code()).and_then(|c| u8::try_from(c).ok()).filter(|c| *c > 0);
    let problem = code::CONTROL_NOT_STARTED
        .problem(format!("the control plane {how} before it answered"))
        .hint(format!("its whole log is {}", log.display()))
        .details(last_lines(log));
    Problem { exit_code: own.unwrap_or(problem.exit_code), ..problem }
}

fn last_lines(log: &Path) -> Vec<String> {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> =
        text.lines().rev().take(LOG_LINES_SHOWN).map(str::to_owned).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_set_aside_and_a_small_one_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOG_NAME);
        fs::write(&path, "small\n").unwrap();
        open_log(&path).unwrap();
        assert_eq!(last_lines(&path), ["small"]);
        File::create(&path).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        open_log(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert!(directory.path().join("control.log.1").exists());
    }

    #[tokio::test]
    async fn a_control_plane_that_ends_at_once_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let launch = Launch {
            config: directory.path().join("missing.yaml"),
            state_dir: directory.path().join("state"),
            environment: None,
        };
        let client = Client::new(launch.state_dir.join("control.sock"));
        let problem = start_here(launch, &client).await.unwrap_err();
        assert!(problem.message.contains("missing.yaml"), "{problem:?}");
    }
}
