//! `switchback analyze`: does the exact tests of past rollouts again, as they were or with other
//! settings.

use std::path::{Path, PathBuf};

use serde::Serialize;
use switchback_api::client::{Client, RolloutsQuery};
use switchback_api::{Problem, RolloutSummary, TrialRecord, code, exit};
use switchback_config::Document;
use switchback_domain::trigger::ExactTest;

use crate::context::Context;
use crate::render::look::Tone;
use crate::render::table::{self, Cell};
use crate::render::trial;
use crate::replay::{Story, settings_with};
use crate::{configuration, select};

/// Past rollouts that are judged again, at most.
const ROLLOUTS_MAX: u32 = 500;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["replay", "backtest"])))]
pub(crate) struct Args {
    /// Do the test of this rollout (r12), or of a service's newest one, again
    #[arg(long, value_name = "ROLLOUT|SERVICE")]
    replay: Option<String>,
    /// Do the tests of all past rollouts again with the settings configured now
    #[arg(long)]
    backtest: bool,
    /// Take `rollback.exact_test` from this configuration
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
}

pub(crate) async fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    match &args.replay {
        Some(target) => replay(target, args.with.as_deref(), context).await,
        None => backtest(args.with.as_deref(), context).await,
    }
}

/// What doing it again showed.
#[derive(Serialize)]
struct Replayed {
    /// Whether every verdict came out to the bit; with other settings there is nothing to compare.
    identical: Option<bool>,
    story: Story,
}

async fn replay(
    target: &str,
    with: Option<&Path>,
    context: &mut Context<'_>,
) -> Result<u8, Problem> {
    let client = context.client()?;
    let id = select::newest(&client, Some(target), context.environment().as_ref()).await?;
    let summary = client.rollout(&id).await?.summary;
    let records = client.trials(&id).await?;
    if records.is_empty() {
        return Err(none_kept(&id));
    }
    let document = with.map(configuration::document).transpose()?;
    let (mut replayed, mut lines) = (Vec::new(), Vec::new());
    let look = context.output.look();
    for record in &records {
        let rules = document.as_ref().map(|document| rules(document, &summary)).transpose()?;
        let (settings, identical) = match &rules {
            Some(rules) => (settings_with(record, rules), None),
            None => (record.settings.clone(), Some(is_identical(record)?)),
        };
        let story = Story::tell(record, settings)?;
        lines.extend(trial::lines(&story, look));
        lines.push(said(identical, record, look));
        replayed.push(Replayed { identical, story });
    }
    let differs = replayed.iter().any(|one| one.identical == Some(false));
    context.output.lines(lines);
    context.output.document(&replayed);
    Ok(if differs { exit::FAILED } else { exit::OK })
}

fn none_kept(id: &str) -> Problem {
    code::UNKNOWN_ROLLOUT
        .problem(format!("no exact test of {id} was kept"))
        .hint("it takes requests that a coin sent to both versions, and `rollback.exact_test` on")
}

fn is_identical(record: &TrialRecord) -> Result<bool, Problem> {
    let different = record.differences().map_err(|it| code::INTERNAL.problem(it.to_string()))?;
    Ok(different.is_empty() || record.truncated)
}

fn said(identical: Option<bool>, record: &TrialRecord, look: crate::render::look::Look) -> String {
    let verdicts = crate::render::number::count(record.verdicts.len() as u64, "verdict");
    match identical {
        Some(true) => look.paint(Tone::Good, &format!("  {verdicts} reproduced to the bit")),
        Some(false) => look.paint(Tone::Bad, "  the verdicts do not come out as they were"),
        None => "  judged with other settings than it was".to_owned(),
    }
}

/// The exact test that a configuration has for a rollout's service.
fn rules(document: &Document, summary: &RolloutSummary) -> Result<ExactTest, Problem> {
    let (environment, name) = (&summary.key.environment, &summary.key.service);
    let found = document.environment(environment).ok();
    let service = found.and_then(|it| it.services.iter().find(|service| service.name == *name));
    let service = service.ok_or_else(|| {
        code::UNKNOWN_SERVICE.problem(format!("the configuration has no {}", summary.key))
    })?;
    service.policy.exact_test_of_requests().ok_or_else(|| {
        code::CONFIG_INVALID
            .problem(format!("{}: the exact test is switched off", summary.key))
            .hint("take out `exact_test: false` and `rollback: {enabled: false}`")
    })
}

/// One past test and what would become of it.
#[derive(Serialize)]
struct Row {
    rollout: String,
    version: String,
    then: Finding,
    now: Finding,
}

/// What a test finds, and what it has cost by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Finding {
    regressed: bool,
    candidate_failed: u64,
    after_ms: Option<u64>,
}

impl Finding {
    fn of(story: &Story) -> Self {
        let fired = story.evidence.fired.as_ref();
        Self {
            regressed: fired.is_some(),
            candidate_failed: fired
                .map_or(story.evidence.counts.candidate_failed, |fired| fired.failed_spent),
            after_ms: story.fired_after_ms(),
        }
    }

    fn words(self) -> String {
        if !self.regressed {
            return format!("nothing, {} failed", self.candidate_failed);
        }
        let after = self.after_ms.map(crate::render::when::took).unwrap_or_default();
        format!("regressed after {after}, {} failed", self.candidate_failed)
    }
}

async fn backtest(with: Option<&Path>, context: &mut Context<'_>) -> Result<u8, Problem> {
    let client = context.client()?;
    let path = with.map_or_else(|| context.config_path(), |path| Ok(path.to_owned()))?;
    let document = configuration::document(&path)?;
    let mut rows = Vec::new();
    for summary in past(&client, context).await? {
        let Ok(rules) = rules(&document, &summary) else { continue };
        for record in client.trials(&summary.id).await? {
            let then = Story::tell(&record, record.settings.clone())?;
            let now = Story::tell(&record, settings_with(&record, &rules))?;
            rows.push(Row {
                rollout: summary.id.clone(),
                version: summary.to.to_string(),
                then: Finding::of(&then),
                now: Finding::of(&now),
            });
        }
    }
    let output = &mut *context.output;
    let look = output.look();
    let cells = |row: &Row| {
        let is_same = row.then == row.now;
        let tone = if is_same { Tone::Plain } else { Tone::Warn };
        vec![
            Cell::text(row.rollout.clone()),
            Cell::text(row.version.clone()),
            Cell::text(row.then.words()),
            Cell::text(row.now.words()).tone(tone),
        ]
    };
    let cells: Vec<_> = rows.iter().map(cells).collect();
    output.lines(table::lines(&["ROLLOUT", "VERSION", "FOUND THEN", "WOULD FIND"], &cells, look));
    if rows.is_empty() {
        output.note("no exact test of a past rollout was kept");
    }
    output.document(&rows);
    Ok(exit::OK)
}

async fn past(client: &Client, context: &Context<'_>) -> Result<Vec<RolloutSummary>, Problem> {
    let query = RolloutsQuery {
        environment: context.environment(),
        service: None,
        limit: Some(ROLLOUTS_MAX),
    };
    Ok(client.rollouts(&query).await?)
}
