//! The grid as a whole: the same results on any number of threads, and a smoke that sees what is
//! broken on purpose. Small, because tests are built without optimization; CI runs the whole smoke
//! (`cargo xtask bench judge --smoke`).

use switchback_judges::grid::{self, Cell, Counts, Found, Running};
use switchback_judges::smoke::{self, Mutation};
use switchback_judges::{scenarios, stream, vectors};

const FEW: Counts = Counts { healthy: 30, regressions: 41, scrapes: 2, dear: 1, methods: 1 };

fn found(cells: &[Cell], threads: usize) -> Vec<Found> {
    grid::run(cells, &Running { seed: 1, threads, until: None, tell: &|_, _| {} })
}

/// Ours alone, in scenarios that take little time.
fn quick(mutation: Mutation, names: &[&str]) -> Vec<Cell> {
    let mut cells = smoke::cells(mutation, FEW, false);
    cells.retain_mut(|cell| {
        cell.seconds = cell.seconds.min(120);
        names.contains(&cell.scenario.name.as_str())
    });
    cells
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let scenarios = scenarios::all().into_iter().filter(|it| it.name == "errors 0.1 -> 5 %");
    let mut cells = grid::cells(scenarios.collect(), FEW);
    for cell in &mut cells {
        cell.seconds = 180;
    }
    let one = found(&cells, 1);
    assert_eq!(one, found(&cells, 4));
    assert!(one.len() > 15, "ours, by scrapes, and on streams: {}", one.len());
}

#[test]
fn what_is_broken_on_purpose_is_seen_and_what_is_whole_is_not() {
    let cases = [
        (Mutation::Nothing, "errors 0.1 -> 1 %"),
        (Mutation::Nothing, "latency x1.05, at the tolerance"),
        (Mutation::Alpha, "errors 0.1 -> 1 %"),
        (Mutation::Tolerance, "latency x1.05, at the tolerance"),
        (Mutation::Share, "errors 0.1 -> 1 %"),
        (Mutation::WarmUp, "cold start, warm-up 120 s"),
    ];
    for (mutation, name) in cases {
        let cells = quick(mutation, &[name]);
        assert!(!cells.is_empty(), "{name}");
        let mut broken = smoke::broken(&found(&cells, 2));
        if mutation == Mutation::Nothing {
            // Medians of so few runs may lie anywhere near their bounds.
            broken.retain(|words| !words.contains("median"));
        }
        assert_eq!(broken.is_empty(), mutation == Mutation::Nothing, "{mutation:?}: {broken:?}");
    }
}

#[test]
fn the_default_is_the_judge_as_it_ships() {
    let ours = stream::Ours::default();
    assert_eq!(ours.settings, switchback_analysis::Settings::default());
    assert_eq!(ours.counts_failures, 1);
}

#[test]
fn the_others_hold_their_published_vectors() {
    let report = vectors::check();
    assert!(report.broken.is_empty(), "{:#?}", report.broken);
}
