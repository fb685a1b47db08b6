//! What promote, pause, resume, abort and retry share: whom, why, and whether to watch.

use switchback_api::client::{Client, Command};
use switchback_api::{CommandRequest, Problem, exit};

use crate::context::{Context, by};
use crate::select;
use crate::watch::{self, Hoped};

/// Whom and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// A rollout (r12) or a service; not needed when exactly one rollout is active
    #[arg(value_name = "ROLLOUT|SERVICE")]
    pub(crate) target: Option<String>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Tells the active rollout that is meant something.
pub(crate) async fn active(
    target: Target,
    command: Command,
    full: bool,
    watch: Option<Hoped>,
    context: &mut Context<'_>,
) -> Result<u8, Problem> {
    let client = context.client()?;
    let environment = context.environment();
    let id = select::active(&client, target.target.as_deref(), environment.as_ref()).await?;
    tell(&client, &id, command, request(target.reason, full), watch, context).await
}

/// Tells the newest rollout that is meant something, ended or not.
pub(crate) async fn newest(
    target: Target,
    command: Command,
    watch: Option<Hoped>,
    context: &mut Context<'_>,
) -> Result<u8, Problem> {
    let client = context.client()?;
    let environment = context.environment();
    let id = select::newest(&client, target.target.as_deref(), environment.as_ref()).await?;
    tell(&client, &id, command, request(target.reason, false), watch, context).await
}

fn request(reason: Option<String>, full: bool) -> CommandRequest {
    CommandRequest { full, reason, by: by() }
}

async fn tell(
    client: &Client,
    id: &str,
    command: Command,
    request: CommandRequest,
    watch: Option<Hoped>,
    context: &mut Context<'_>,
) -> Result<u8, Problem> {
    let output = &mut *context.output;
    let accepted = client.command(id, command, &request).await?;
    if !accepted.rollout.is_empty() {
        output.line(format!("{} {}: accepted", command.word(), accepted.rollout));
    }
    if let Some(note) = &accepted.note {
        output.note(note);
    }
    let Some(hoped) = watch.filter(|_| !accepted.rollout.is_empty()) else {
        output.document(&accepted);
        return Ok(exit::OK);
    };
    watch::to_end(client, &accepted.rollout, hoped, output).await
}
