//! `strategy: {canary: {...}}`: the canary-config.yml of the deployment documents, as it stands.

use std::time::Duration;

use switchback_domain::Weight;
use switchback_domain::strategy::{AnalysisStep, Step};

use crate::quantity;
use crate::reader::Reader;
use crate::section::step::{default_thresholds, ladder};
use crate::table::{Kind, Table, field};
use crate::value::Node;

pub(crate) static CANARY: Table = Table::new(
    "canary",
    "A canary in the words of the deployment documents.",
    &[&[
        field("initial_traffic_percent", Kind::Percent, "The first weight. Default: 5."),
        field(
            "traffic_increase_percent",
            Kind::Percent,
            "The second weight; it doubles from there to 100. Default: 25.",
        ),
        field("traffic_increase_interval_minutes", Kind::Minutes, "Time per step. Default: 5."),
        field("success_threshold_percent", Kind::Percent, "Must succeed. Default: 99.5."),
        field("error_rate_threshold_percent", Kind::Percent, "May fail. Default: 1."),
    ]],
);

/// The document says `5% -> 25% -> 50% -> 100%`: the initial weight, then the increase, doubled
/// until all traffic is there; at each an analysis as long as the interval.
pub(crate) fn steps(reader: &mut Reader, node: &Node) -> Vec<Step> {
    let fields = reader.fields(node, &CANARY);
    let mut percent =
        |key: &str, default: f64| fields.read(key, reader, Reader::percent).unwrap_or(default);
    let initial = percent("initial_traffic_percent", 5.0);
    let increase = percent("traffic_increase_percent", 25.0);
    let success = quantity::fraction(percent("success_threshold_percent", 99.5));
    let error = quantity::fraction(percent("error_rate_threshold_percent", 1.0));
    let minutes = fields.read("traffic_increase_interval_minutes", reader, minutes);
    let mut thresholds = default_thresholds();
    thresholds.success_rate_min = Some(success);
    thresholds.error_rate_max = Some(error);
    let duration = minutes.unwrap_or(Duration::from_mins(5));
    ladder(&weights(initial, increase), &AnalysisStep { duration, thresholds })
}

fn minutes(reader: &mut Reader, node: &Node) -> Option<Duration> {
    let minutes = reader.number(node, 0.01..=10_000.0)?;
    Some(Duration::from_secs_f64((minutes * 60.0).round().max(1.0)))
}

fn weights(initial: f64, increase: f64) -> Vec<Weight> {
    let mut weights: Vec<_> = quantity::weight(initial).into_iter().collect();
    let mut next = increase;
    while next < 100.0 {
        weights.extend(quantity::weight(next).filter(|_| next > initial));
        next *= 2.0;
    }
    weights.extend((initial < 100.0).then_some(Weight::ALL));
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_numbers_give_the_documents_ladder() {
        let percent = |weights: Vec<Weight>| {
            weights.into_iter().map(|weight| weight.basis_points() / 100).collect::<Vec<_>>()
        };
        assert_eq!(percent(weights(5.0, 25.0)), [5, 25, 50, 100]);
        assert_eq!(percent(weights(10.0, 10.0)), [10, 20, 40, 80, 100]);
        assert_eq!(percent(weights(50.0, 25.0)), [50, 100]);
        assert_eq!(percent(weights(100.0, 25.0)), [100]);
        assert_eq!(weights(1.0, 0.01).len(), 9);
    }
}
