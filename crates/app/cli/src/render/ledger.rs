//! What became of every request.

use std::fmt::Write as _;

use switchback_api::{Ledger, LedgerEntry};

use crate::render::look::{Look, Tone};
use crate::render::number::count;
use crate::render::table::{self, Cell};

/// One line per version, and the sum: dropped by us must be 0, and what we cut is named.
pub(crate) fn lines(ledger: &Ledger, look: Look) -> Vec<String> {
    let headers = [
        "SERVICE",
        "VERSION",
        "ACCEPTED",
        "ANSWERED",
        "FAILED BY VERSION",
        "CLIENT GONE",
        "CUT BY US",
        "IN FLIGHT",
        "RETRIED",
        "DROPPED",
    ];
    let rows: Vec<_> = ledger.versions.iter().map(row).collect();
    let mut lines = table::lines(&headers, &rows, look);
    let dropped: u64 = ledger.versions.iter().map(|entry| entry.stats.dropped).sum();
    let accepted: u64 = ledger.versions.iter().map(|entry| entry.stats.accepted).sum();
    let cut: u64 = ledger.versions.iter().map(|entry| entry.stats.cut).sum();
    let tunnels: u64 = ledger.versions.iter().map(|entry| entry.stats.tunnels_cut).sum();
    let tone = if dropped + cut + tunnels == 0 { Tone::Good } else { Tone::Bad };
    let mut text = format!("{}, {dropped} dropped by us", count(accepted, "request"));
    if cut + tunnels > 0 {
        let tunnels = count(tunnels, "tunnel");
        // Writing to a String cannot fail.
        let _ = write!(text, ", {cut} and {tunnels} cut by us when their time to end was over");
    }
    lines.push(look.paint(tone, &text));
    let bytes_in: u64 = ledger.versions.iter().map(|entry| entry.stats.bytes_in).sum();
    let bytes_out: u64 = ledger.versions.iter().map(|entry| entry.stats.bytes_out).sum();
    if bytes_in + bytes_out > 0 {
        lines.push(format!("bodies: {} in, {} out", bytes(bytes_in), bytes(bytes_out)));
    }
    if ledger.unrouted + ledger.refused > 0 {
        lines.push(format!(
            "beside them: {} without a route, {} refused as invalid",
            ledger.unrouted, ledger.refused
        ));
    }
    lines
}

/// In the largest unit that leaves something before the point.
fn bytes(count: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.into_iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} B"),
    }
}

fn row(entry: &LedgerEntry) -> Vec<Cell> {
    let stats = &entry.stats;
    let bad =
        |number: u64| Cell::number(number).tone(if number > 0 { Tone::Bad } else { Tone::Plain });
    vec![
        Cell::text(entry.key.to_string()),
        Cell::text(entry.version.as_str()),
        Cell::number(stats.accepted),
        Cell::number(stats.answered()),
        bad(stats.failed()),
        Cell::number(stats.client_gone),
        bad(stats.cut),
        Cell::number(entry.in_flight),
        Cell::number(stats.retried),
        bad(stats.dropped),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn what_was_cut_is_named() {
        let mut ledger = samples::ledger();
        (ledger.versions[0].stats.cut, ledger.versions[0].stats.tunnels_cut) = (2, 1);
        let text = lines(&ledger, Look::PLAIN).join("\n");
        assert!(text.contains("0 dropped by us, 2 and 1 tunnel cut by us"), "{text}");
    }

    #[test]
    fn the_sum_says_what_was_dropped() {
        let text = lines(&samples::ledger(), Look::PLAIN).join("\n");
        let expected = "\
SERVICE         VERSION  ACCEPTED  ANSWERED  FAILED BY VERSION  CLIENT GONE  CUT BY US  IN FLIGHT  RETRIED  DROPPED
production/api  v1           1000       997                  3            0          0          1        2        0
1000 requests, 0 dropped by us
bodies: 12.3 kB in, 4.5 MB out
beside them: 5 without a route, 1 refused as invalid";
        assert_eq!(text, expected);
    }
}
