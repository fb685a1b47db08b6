//! Bugs on purpose: `bug("its-name")` says whether this one is switched on. It never is, and costs
//! nothing, unless the feature `seeded-bugs` is on: then the simulator switches them on one at a
//! time, and has to notice.

/// Whether this bug is switched on, on this thread.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
#[allow(clippy::inline_always, reason = "nothing may be left of it")]
pub fn bug(_name: &'static str) -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Whether this bug is switched on, on this thread.
    pub fn bug(name: &'static str) -> bool {
        ON.get() == Some(name)
    }

    /// Switches a bug on, on this thread, and every other one off.
    pub fn switch_on(name: Option<&'static str>) {
        ON.set(name);
    }
}

#[cfg(feature = "seeded-bugs")]
pub use switch::{bug, switch_on};
