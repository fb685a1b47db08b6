//! What a rule's finding is worth: which of them come with a stated chance of error.

use std::fmt;

/// The kind of promise behind a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Randomized labels: the chance of a false rollback is at most alpha, whatever traffic does.
    Exact,
    /// Holds as long as the model of the series does (a steady rate within a scrape, a bounded
    /// conditional mean of a gauge).
    ModelBased,
    /// A threshold somebody chose. No chance of error is known.
    Heuristic,
    /// Says something about the data, not about the candidate.
    DataQuality,
}

impl Guarantee {
    /// The guarantee of a finding, by its rule. Rules this crate does not know are thresholds.
    pub fn of_rule(rule: &str) -> Self {
        match rule {
            "errors" | "latency" | "events" => Self::Exact,
            "scraped" | "gauge" => Self::ModelBased,
            "data" | "assignment" | "both_arms" => Self::DataQuality,
            _ => Self::Heuristic,
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::ModelBased => "model-based",
            Self::Heuristic => "heuristic",
            Self::DataQuality => "data quality",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guarantee_has_a_word_of_its_own() {
        let words = ["errors", "scraped", "p99", "data"].map(Guarantee::of_rule);
        let words = words.map(|guarantee| guarantee.to_string());
        assert_eq!(words, ["exact", "model-based", "heuristic", "data quality"]);
    }
}
