//! Makes a failing schedule small: leaves out faults and operators' commands for as long as it
//! still fails (delta debugging).

use std::collections::BTreeSet;

use crate::faults::Strike;
use crate::simulation::run;
use crate::trace::Failure;

/// Runs tried before the smallest one so far has to do.
const TRIES: u32 = 600;

/// A failing schedule with as few faults as could be found.
#[derive(Debug)]
pub struct Reduced {
    /// What struck in the schedule as it was drawn.
    pub struck: usize,
    /// What is left of it, by name and occasion.
    pub left: Vec<String>,
    /// What fails then, with the timeline.
    pub failure: Failure,
}

/// Reduces a seed. `None` when it does not fail.
pub fn reduce(seed: u64) -> Option<Reduced> {
    let (result, struck) = run(seed, None, true);
    let mut failure = result.err()?;
    let (mut kept, mut tries) = (struck.clone(), 0);
    let mut parts = 2;
    while kept.len() > 1 && parts <= kept.len() && tries < TRIES {
        let size = kept.len().div_ceil(parts);
        let smaller = (0..parts).find_map(|part| {
            tries += 1;
            let without = |index: &usize| *index / size != part;
            let rest: Vec<Strike> =
                (0..kept.len()).filter(without).map(|index| kept[index]).collect();
            let allowed: BTreeSet<Strike> = rest.iter().copied().collect();
            let (result, struck) = run(seed, Some(allowed), true);
            result.err().map(|failure| (failure, struck))
        });
        match smaller {
            Some((smaller, struck)) => {
                (failure, kept) = (smaller, struck);
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    if let (Err(without), _) = run(seed, Some(BTreeSet::new()), true) {
        (failure, kept) = (without, Vec::new());
    }
    let left = kept.iter().map(|(fault, occasion)| format!("{fault:?} #{occasion}")).collect();
    Some(Reduced { struck: struck.len(), left, failure })
}
