//! `switchback explain`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use switchback_api::{Problem, RolloutDetail, code, exit};

use crate::context::Context;
use crate::render::{chart, explain};
use crate::replay::Story;
use crate::watch::now_ms;
use crate::{error_pages, select};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A rollout (r12), a service (its newest rollout), or an error code (SB0201)
    #[arg(value_name = "ROLLOUT|SERVICE|CODE")]
    target: Option<String>,
    /// Draw the evidence of the exact test over time into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
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
    // The story is worth telling without its test, as an older control plane answers it.
    let records = client.trials(&id).await.unwrap_or_default();
    let stories = records.iter().map(|record| Story::tell(record, record.settings.clone()));
    let stories = stories.collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = &args.svg {
        draw(path, stories.last(), &id)?;
    }
    let output = &mut *context.output;
    output.lines(explain::lines(&detail, &stories, now_ms(), output.look()));
    output.document(&Explained { detail: &detail, tests: &stories });
    Ok(exit::OK)
}

/// A rollout with its exact tests.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    detail: &'a RolloutDetail,
    tests: &'a [Story],
}

fn draw(path: &Path, story: Option<&Story>, id: &str) -> Result<(), Problem> {
    let story = story
        .filter(|story| !story.points.is_empty())
        .ok_or_else(|| code::UNKNOWN_ROLLOUT.problem(format!("{id} had no exact test to draw")))?;
    std::fs::write(path, chart::svg(story)).map_err(|error| {
        code::CANNOT_WRITE.problem(format!("cannot write {}: {error}", path.display()))
    })
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
