//! `rollback.exact_test:`: the test with a stated chance of error, which is on by itself.

use std::time::Duration;

use switchback_domain::trigger::ExactTest;

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::table::{Kind, Table, field};
use crate::value::{Node, Value};

/// Longer warm-ups hide a slow release for as long.
const WARM_UP_MAX: Duration = Duration::from_mins(30);

pub(crate) static EXACT_TEST: Table = Table::new(
    "exact_test",
    "Compares the requests of both versions that chance assigned, continuously, and takes the new \
     one back when it fails more often or is slower. `false` switches it off.",
    &[&[
        field(
            "alpha",
            Kind::Share,
            "Chance that a healthy release is ever taken back by this test. Default: 1%.",
        ),
        field(
            "error_ratio",
            Kind::Number,
            "How many times the old version's error rate is no regression, 1 to 1.9. Default: 1.",
        ),
        field(
            "latency_tolerance",
            Kind::Share,
            "How much slower is no regression. Default: 5%, and 10% with fewer than three \
             instances of the new version.",
        ),
        field(
            "warm_up",
            Kind::Duration,
            "How long latencies do not count after the first request; errors do. Default: 15s.",
        ),
        field(
            "nats_per_second",
            Kind::Number,
            "How fast evidence about latency may grow, so that a single stall is no reason. \
             Default: 2.",
        ),
    ]],
);

/// Reads the section; `None` is off.
pub(crate) fn exact_test(reader: &mut Reader, node: &Node) -> Option<ExactTest> {
    let default = ExactTest::DEFAULT;
    if matches!(node.value, Value::Scalar { .. }) {
        return reader.boolean(node).unwrap_or(true).then_some(default);
    }
    let fields = reader.fields(node, &EXACT_TEST);
    let alpha = fields.read("alpha", reader, |r, node| chance(r, node, "1%"));
    let error_ratio = fields.read("error_ratio", reader, |r, node| r.number(node, 1.0..=1.9));
    let tolerance = fields.read("latency_tolerance", reader, tolerance);
    let warm_up = fields.read("warm_up", reader, warm_up);
    let nats = fields.read("nats_per_second", reader, |r, node| r.number(node, 0.01..=1000.0));
    Some(ExactTest {
        alpha: alpha.unwrap_or(default.alpha),
        error_ratio: error_ratio.unwrap_or(default.error_ratio),
        latency_tolerance: tolerance,
        nats_per_second: nats.unwrap_or(default.nats_per_second),
        warm_up: warm_up.unwrap_or(default.warm_up),
    })
}

/// A chance of a false alarm; a small one is `such_as`.
pub(super) fn chance(reader: &mut Reader, node: &Node, such_as: &str) -> Option<f64> {
    let alpha = reader.share(node)?;
    if alpha > 0.0 && alpha <= 0.5 {
        return Some(alpha);
    }
    let hint = format!("write a small chance, such as {such_as}");
    reader.report(node, Code::OutOfRange, "is not above 0 and at most 50%", hint);
    None
}

/// In basis points.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is 0 to 1")]
fn tolerance(reader: &mut Reader, node: &Node) -> Option<u16> {
    reader.share(node).map(|share| (share * 10_000.0).round() as u16)
}

fn warm_up(reader: &mut Reader, node: &Node) -> Option<Duration> {
    let warm_up = reader.duration(node)?;
    if warm_up <= WARM_UP_MAX {
        return Some(warm_up);
    }
    reader.report(node, Code::OutOfRange, "is longer than 30m", "write 30m or less");
    None
}
