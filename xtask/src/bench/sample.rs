//! What a process and its descendants use: CPU time and memory, from `/proc`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;

/// User and system time of the tree below `pid`, in seconds. Processes that ended do not count.
#[allow(clippy::cast_precision_loss, reason = "ticks of one run stay far below 2^52")]
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let table = processes()?;
    let ticks: u64 = tree(pid, &table).iter().filter_map(|pid| Some(table.get(pid)?.ticks)).sum();
    Ok(ticks as f64 / clock_ticks_per_second() as f64)
}

/// Proportional set size of the tree below `pid`, in bytes.
pub(super) fn memory_bytes(pid: u32) -> Result<u64> {
    let table = processes()?;
    let mut sum = 0;
    for pid in tree(pid, &table) {
        // One that ends meanwhile uses nothing.
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        sum += parse_pss(&text).unwrap_or(0);
    }
    Ok(sum)
}

/// The processes of the tree below `pid`, itself first.
pub(super) fn descendants(pid: u32) -> Result<Vec<u32>> {
    Ok(tree(pid, &processes()?))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    ticks: u64,
}

fn processes() -> Result<BTreeMap<u32, Process>> {
    let mut found = BTreeMap::new();
    for entry in Path::new("/proc").read_dir().context("cannot read /proc")? {
        let entry = entry.context("cannot read /proc")?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        // Processes come and go.
        let Ok(text) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(process) = parse_stat(&text) {
            found.insert(pid, process);
        }
    }
    Ok(found)
}

fn tree(root: u32, table: &BTreeMap<u32, Process>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(table.iter().filter(|(_, it)| it.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// Parent, user and system time; the name in parentheses may hold blanks and parentheses.
fn parse_stat(text: &str) -> Option<Process> {
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let parent = u32::try_from(number(1)?).ok()?;
    Some(Process { parent, ticks: number(11)? + number(12)? })
}

fn parse_pss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_from_behind_the_name() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 9 9 9\n";
        assert_eq!(parse_stat(text), Some(Process { parent: 7, ticks: 200 }));
        assert_eq!(parse_stat("42 (a) S x"), None);
    }

    #[test]
    fn pss_is_told_from_its_parts() {
        let text = "55 rollup\nRss:  9 kB\nPss_Dirty: 1 kB\nPss:        12 kB\n";
        assert_eq!(parse_pss(text), Some(12 * 1024));
        assert_eq!(parse_pss(""), None);
    }

    #[test]
    fn a_tree_holds_grandchildren_and_nobody_else() {
        let parents = [(1, 0), (2, 1), (3, 2), (4, 1), (5, 9)];
        let table =
            parents.iter().map(|(pid, parent)| (*pid, Process { parent: *parent, ticks: 0 }));
        assert_eq!(tree(1, &table.collect()), [1, 2, 4, 3]);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(memory_bytes(std::process::id()).unwrap() > 0);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }
}
