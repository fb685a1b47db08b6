//! What the exact test saw and concluded, for people.

use switchback_analysis::label::errors::BETS;
use switchback_domain::Histogram;

use crate::render::chart;
use crate::render::look::{Look, Tone};
use crate::render::number::count;
use crate::render::table::{self, Cell, indented};
use crate::render::when::took;
use crate::replay::{Side, Story};

/// The whole of it.
pub(crate) fn lines(story: &Story, look: Look) -> Vec<String> {
    let mut lines = vec![format!("  {}", look.paint(tone(story), &headline(story)))];
    lines.push(format!("  {}", look.paint(Tone::Dim, &terms(story))));
    lines.extend(indented(sides(story, look), 2));
    lines.extend(indented(evidence(story, look), 2));
    lines.push(format!("  {}", effect(story)));
    lines.extend(chart::terminal(story, look));
    if story.truncated {
        lines.push("  the beginning is complete; of the end only the state was kept".to_owned());
    }
    lines
}

fn tone(story: &Story) -> Tone {
    if story.evidence.fired.is_some() { Tone::Bad } else { Tone::Plain }
}

/// What it came to and what that cost.
pub(crate) fn headline(story: &Story) -> String {
    let counts = story.evidence.counts;
    match &story.evidence.fired {
        Some(fired) => {
            let names = ["errors", "latency", "events"].into_iter().zip(fired.blamed);
            let blamed: Vec<_> = names.filter(|(_, is)| *is).map(|(name, _)| name).collect();
            format!(
                "regressed by {} after {}; {} of the new version had failed",
                blamed.join(" and "),
                story.fired_after_ms().map_or_else(|| "some time".to_owned(), took),
                count(fired.failed_spent, "request"),
            )
        }
        None => format!(
            "no regression found in {} of the new version, {} of them failed",
            count(counts.candidate_requests, "request"),
            counts.candidate_failed,
        ),
    }
}

fn terms(story: &Story) -> String {
    let settings = &story.settings;
    let weights = story.weights.iter().map(|(at, weight)| format!("{weight} from {}", took(*at)));
    format!(
        "chance of a false alarm {}%, latency tolerance {:.1}%, error ratio {}, coin {} at {}",
        settings.alpha * 100.0,
        (settings.slack.factor() - 1.0) * 100.0,
        settings.error_ratio,
        story.salt,
        weights.collect::<Vec<_>>().join(", "),
    )
}

fn sides(story: &Story, look: Look) -> Vec<String> {
    let quantile = |latency: &Histogram, share: f64| {
        let micros = latency.quantile(share);
        micros.map_or_else(
            || "-".to_owned(),
            |micros| format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10),
        )
    };
    let row = |name: &str, side: &Side| {
        let mut cells = vec![Cell::text(name)];
        cells.extend([side.requests, side.failed, side.unfinished].map(Cell::number));
        cells.extend([0.5, 0.9, 0.99].map(|share| Cell::number(quantile(&side.latency, share))));
        cells
    };
    let rows = [row("new", &story.candidate), row("old", &story.baseline)];
    table::lines(&["VERSION", "REQUESTS", "FAILED", "HUNG", "P50", "P90", "P99"], &rows, look)
}

/// Evidence per metric, and the alternatives it comes from.
fn evidence(story: &Story, look: Look) -> Vec<String> {
    let found = &story.evidence;
    let best = |wealth: &[f64], names: &[String]| {
        let best = wealth.iter().zip(names).max_by(|a, b| a.0.total_cmp(b.0));
        best.map_or_else(String::new, |(wealth, name)| format!("{name} ({wealth:.1})"))
    };
    let times: Vec<String> = BETS.iter().map(|bet| format!("{bet} times the errors")).collect();
    let slower = latency_names();
    let row = |name: &str, evidence: f64, needed: String, best: String| {
        let evidence = Cell::number(format!("{evidence:.2}"));
        vec![Cell::text(name), evidence, Cell::number(needed), Cell::text(best)]
    };
    let line = format!("{:.2}", found.line);
    let rows = [
        row("errors", found.errors, String::new(), best(&found.errors_wealth, &times)),
        row("latency", found.latency, String::new(), best(&found.latency_wealth, &slower)),
        row("together", found.together, line, String::new()),
    ];
    table::lines(&["EVIDENCE", "LN E", "NEEDED", "STRONGEST ALTERNATIVE"], &rows, look)
}

/// As `switchback_analysis` orders them.
fn latency_names() -> Vec<String> {
    let shifts = ["1.1", "1.2", "1.35", "1.5", "2", "3", "5", "10"];
    let shifts = shifts.map(|shift| format!("all {shift} times slower"));
    let tails = [(1, 3), (5, 3), (20, 3), (1, 10), (5, 10), (20, 10)];
    let tails = tails.map(|(share, shift)| format!("{share}% {shift} times slower"));
    let learned = std::iter::once("as the new version was".to_owned());
    shifts.into_iter().chain(tails).chain(learned).collect()
}

fn effect(story: &Story) -> String {
    let of = |bound: Option<f64>| bound.map_or_else(|| "?".to_owned(), |it| format!("{it:.2}"));
    let (low, high) = story.evidence.error_ratio_interval;
    format!(
        "error ratio new : old between {} and {} (95%, at every moment of the test)",
        of(low),
        of(high)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn it_says_what_was_found_what_it_cost_and_on_what_terms() {
        let text = lines(&samples::story(), Look::PLAIN).join("\n");
        assert!(text.contains("regressed by errors after"), "{text}");
        assert!(text.contains("requests of the new version had failed"), "{text}");
        assert!(text.contains("chance of a false alarm 1%, latency tolerance 5.0%"), "{text}");
        assert!(text.contains("coin r12 at 5% from"), "{text}");
        assert!(text.contains("error ratio new : old between"), "{text}");
        assert!(text.contains("times the errors ("), "{text}");
        let names = latency_names();
        assert_eq!(names.len(), samples::story().evidence.latency_wealth.len());
    }
}
