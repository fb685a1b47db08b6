//! One file per command: each only parses, calls one function of the client or the
//! configuration, and prints.

mod abort;
mod analyze;
mod completions;
mod control;
mod demo;
mod deploy;
mod divert;
mod down;
mod explain;
mod generate;
mod history;
mod hold;
mod init;
mod isolate;
mod ledger;
mod lint;
mod logs;
mod maintenance;
mod man;
mod operate;
mod pause;
mod promote;
mod proxy;
mod resume;
mod retry;
mod rollback;
mod schema;
mod status;
mod tell;
mod up;

use clap::Subcommand;
use switchback_api::Problem;

use crate::context::Context;

pub(crate) use down::stop as stop_everything;

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented switchback.yaml for what is found in this directory
    Init(init::Args),
    /// Check the configuration: every mistake at once, with its place and a hint
    Lint(lint::Args),
    /// Start control plane and data plane, and bring every service to its configured version
    Up(up::Args),
    /// Bring a version of a service in, and take it back when it is bad
    Deploy(deploy::Args),
    /// Show what runs now
    Status(status::Args),
    /// List rollouts, newest first
    History(history::Args),
    /// Say why a rollout ended as it did, or what an error code means
    Explain(explain::Args),
    /// Do the exact tests of past rollouts again, as they were or with other settings
    Analyze(analyze::Args),
    /// Go back to an earlier revision, or take the active rollout back
    Rollback(rollback::Args),
    /// Let a rollout go on past a pause or an approval
    Promote(promote::Args),
    /// Stop a rollout where it is
    Pause(pause::Args),
    /// Let a paused rollout go on
    Resume(resume::Args),
    /// Take an active rollout back, or one that waits out of the queue
    Abort(abort::Args),
    /// Try again what failed
    Retry(retry::Args),
    /// Show clients a page instead of services, and serve again
    Maintenance(maintenance::Args),
    /// Refuse every request to services at once
    Isolate(isolate::Args),
    /// Let isolated services serve again
    Unisolate(isolate::Args),
    /// Give a service's requests to another version or service
    Divert(divert::Args),
    /// Let a diverted service answer its own requests again
    Undivert(divert::EndArgs),
    /// Hold requests to services back for a while
    Hold(hold::Args),
    /// Let held requests go, and hold no more back
    Release(hold::EndArgs),
    /// Show what instances printed
    Logs(logs::Args),
    /// Show what became of every request
    Ledger(ledger::Args),
    /// Look after the data plane's process
    Proxy(proxy::Args),
    /// Stop every instance, the data plane and the control plane
    Down(down::Args),
    /// Watch good releases being promoted and bad ones rolled back, under load
    Demo(demo::Args),
    /// Print the JSON schema of switchback.yaml, for editors
    Schema(schema::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write man pages into a directory
    Man(man::Args),
    /// Run the control plane on its own
    #[command(hide = true)]
    Control(control::Args),
    /// Write the reference pages that are kept under version control
    #[command(hide = true)]
    Generate(generate::Args),
}

/// Runs a command; the answer is the exit code.
pub(crate) async fn run(command: Command, context: &mut Context<'_>) -> Result<u8, Problem> {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Lint(args) => lint::run(&args, context),
        Command::Up(args) => up::run(&args, context).await,
        Command::Deploy(args) => deploy::run(args, context).await,
        Command::Status(args) => status::run(&args, context).await,
        Command::History(args) => history::run(args, context).await,
        Command::Explain(args) => explain::run(&args, context).await,
        Command::Analyze(args) => analyze::run(&args, context).await,
        Command::Rollback(args) => rollback::run(args, context).await,
        Command::Promote(args) => promote::run(args, context).await,
        Command::Pause(args) => pause::run(args, context).await,
        Command::Resume(args) => resume::run(args, context).await,
        Command::Abort(args) => abort::run(args, context).await,
        Command::Retry(args) => retry::run(args, context).await,
        Command::Maintenance(args) => maintenance::run(args, context).await,
        Command::Isolate(args) => isolate::run(args, context).await,
        Command::Unisolate(args) => isolate::end(args, context).await,
        Command::Divert(args) => divert::run(args, context).await,
        Command::Undivert(args) => divert::end(args, context).await,
        Command::Hold(args) => hold::run(args, context).await,
        Command::Release(args) => hold::end(args, context).await,
        Command::Logs(args) => logs::run(args, context).await,
        Command::Ledger(args) => ledger::run(&args, context).await,
        Command::Proxy(args) => proxy::run(args, context).await,
        Command::Down(args) => down::run(&args, context).await,
        Command::Demo(args) => demo::run(&args, context).await,
        Command::Schema(args) => Ok(schema::run(&args, context)),
        Command::Completions(args) => Ok(completions::run(&args, context)),
        Command::Man(args) => man::run(&args, context),
        Command::Control(args) => control::run(&args, context),
        Command::Generate(args) => generate::run(&args, context),
    }
}
