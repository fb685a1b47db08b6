//! `switchback explain`.

use serde::Serialize;
use switchback_api::{Problem, code, exit};

use crate::context::Context;
use crate::render::explain;
use crate::watch::now_ms;
use crate::{error_pages, select};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A rollout (r12), a service (its newest rollout), or an error code (SB0201)
    #[arg(value_name = "ROLLOUT|SERVICE|CODE")]
    target: Option<String>,
}

/// An error code's page.
#[derive(Serialize)]
struct Page<'a> {
    code: &'a str,
    page: &'a str,
}

pub(crate) async fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let target = args.target.as_deref();
    if let Some(text) = target.filter(|text| error_pages::is_code(text)) {
        return page(text, context);
    }
    let client = context.client()?;
    let environment = context.environment();
    let id = select::newest(&client, target, environment.as_ref()).await?;
    let detail = client.rollout(&id).await?;
    let output = &mut *context.output;
    output.lines(explain::lines(&detail, now_ms(), output.look()));
    output.document(&detail);
    Ok(exit::OK)
}

/// Prints an error code's page. Needs no control plane.
fn page(text: &str, context: &mut Context<'_>) -> Result<u8, Problem> {
    let Some((code, page)) = error_pages::find(text) else {
        return Err(code::UNKNOWN_CODE
            .problem(format!("there is no error code {text}"))
            .hint("codes look like SB0201; docs/errors lists them all"));
    };
    context.output.line(page.trim_end());
    context.output.document(&Page { code, page });
    Ok(exit::OK)
}
