//! The composition root: the only file that sees every layer, and so the only one that knows
//! what each of the processes is made of.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use switchback_acme::AcmeCertificates;
use switchback_api::{Problem, code};
use switchback_control::{Error, Neighbours, Options};
use switchback_dataplane::ProxyDataPlane;
use switchback_demo::service::ServiceOptions;
use switchback_domain::{EnvironmentName, acme, with_causes};
use switchback_metrics::HttpMetrics;
use switchback_ports::journal;
use switchback_runtime::{
    InstanceProber, ProcessRuntime, SHIM_EXEC_SUBCOMMAND, SHIM_SUBCOMMAND, shim_exec_main,
    shim_main,
};
use switchback_store::SqliteJournal;

/// The journal's file in the state directory.
const JOURNAL_NAME: &str = "journal.db";
/// Threads of the control plane: one for the driver, which may wait for the disk, one for probes.
const THREADS: usize = 2;

/// What a control plane is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The configuration.
    pub(crate) config: PathBuf,
    /// Where journal, logs and sockets live; made when missing.
    pub(crate) state_dir: PathBuf,
    /// The environment; `None` takes the configuration's default.
    pub(crate) environment: Option<EnvironmentName>,
}

/// Runs the control plane on this thread until it ends: after `down`, or with an error.
pub(crate) fn run_control_plane(launch: &Launch) -> Result<(), Problem> {
    let executable = std::env::current_exe().map_err(|error| internal(&error))?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let threads = builder.worker_threads(THREADS).enable_all().build();
    let threads = threads.map_err(|error| internal(&error))?;
    let result = threads.block_on(async {
        let neighbours = neighbours(&launch.state_dir, executable)?;
        let options = Options {
            config: launch.config.clone(),
            state_dir: launch.state_dir.clone(),
            socket: crate::paths::control_socket(&launch.state_dir),
            environment: launch.environment.clone(),
        };
        switchback_control::run(options, neighbours).await.map_err(|error| problem(&error))
    });
    // Probes and reports on their way are nobody's business any more.
    threads.shutdown_background();
    result
}

fn neighbours(state_dir: &Path, executable: PathBuf) -> Result<Neighbours, Problem> {
    let options = switchback_runtime::Options::new(state_dir.join("runtime"), executable.clone());
    let runtime = ProcessRuntime::new(options).map_err(|error| {
        code::INSTANCE_FILES.problem(format!("the runtime's files cannot be used: {error}"))
    })?;
    let runtime = Arc::new(runtime);
    let proxy = switchback_dataplane::Options::new(state_dir, executable);
    let data_plane = Arc::new(ProxyDataPlane::new(proxy));
    let path = state_dir.join(JOURNAL_NAME);
    Ok(Neighbours {
        runtime: runtime.clone(),
        prober: Arc::new(InstanceProber::new(runtime)),
        metrics: Arc::new(HttpMetrics),
        data_plane: data_plane.clone(),
        supervision: data_plane,
        certificates: Arc::new(AcmeCertificates::new(state_dir.join(acme::DIRECTORY))),
        journal: Box::new(move || Ok(Box::new(SqliteJournal::open(&path)?))),
    })
}

fn problem(error: &Error) -> Problem {
    let kind = match error {
        Error::Locked { .. } => code::ALREADY_RUNNING,
        Error::File { .. } => code::CANNOT_WRITE,
        Error::Configuration(_) => code::CONFIG_INVALID,
        Error::Journal { source: journal::Error::Full, .. } => code::JOURNAL_FULL,
        Error::Journal { source: journal::Error::Damaged { .. }, .. } => code::JOURNAL_DAMAGED,
        Error::Journal { source: journal::Error::Fenced { .. }, .. } | Error::Fenced => {
            code::FENCED
        }
        Error::Journal { source: journal::Error::TooNew { .. }, .. } | Error::Record(_) => {
            code::JOURNAL_TOO_NEW
        }
        Error::Journal { source: journal::Error::Failed { .. }, .. } => code::JOURNAL_IO,
    };
    kind.problem(with_causes(error))
}

fn internal(error: &dyn std::error::Error) -> Problem {
    code::INTERNAL.problem(with_causes(error))
}

/// The hidden subcommands that are processes of their own: the data plane, an instance's shim,
/// the trampoline that becomes the instance, and the demo's service. They are told apart before
/// anything else is set up, so that a shim stays small. `None`: this is the command line.
pub(crate) fn run_role(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.peekable();
    let role = arguments.next()?;
    // `proxy upgrade` is a command like any other.
    let has_flags = arguments.peek().is_some_and(|next| next.to_string_lossy().starts_with("--"));
    match role.to_str()? {
        SHIM_SUBCOMMAND => Some(shim_main(Path::new(&arguments.next()?))),
        SHIM_EXEC_SUBCOMMAND => Some(shim_exec_main(arguments)),
        "proxy" if has_flags && arguments.peek().is_none_or(|next| next != "--help") => {
            Some(run_proxy(arguments))
        }
        "demo-service" => Some(run_demo_service(arguments)),
        _ => None,
    }
}

/// `proxy --state-dir DIR [--codec own|hyper]`; `SWITCHBACK_CODEC` where the codec is not named.
fn run_proxy(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match switchback_proxy::Options::from_arguments(arguments) {
        Ok(options) => options,
        Err(error) => return complain(&format!("proxy: {error}")),
    };
    match switchback_proxy::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&with_causes(&error)),
    }
}

/// `demo-service [KEY=VALUE ...]`: listens on `PORT`, answers as `SWITCHBACK_VERSION`.
fn run_demo_service(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let settings = arguments.map(|word| word.to_string_lossy().into_owned());
    let options = match ServiceOptions::from_environment(settings) {
        Ok(options) => options,
        Err(error) => return complain(&with_causes(&error)),
    };
    match switchback_demo::service::run(options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(&with_causes(&error)),
    }
}

/// These processes have no reader; what they say goes to their log.
fn complain(why: &str) -> ExitCode {
    use std::io::Write as _;
    // Without a log there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "switchback: {why}");
    ExitCode::from(switchback_api::exit::INTERNAL)
}
