//! The one clock that instances, breakers and limits are held against: nanoseconds since the
//! process first asked.

use std::sync::LazyLock;
use std::time::Instant;

use switchback_resilience::Moment;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now.
pub(crate) fn now() -> Moment {
    moment(Instant::now())
}

/// A point in time that was read already.
pub(crate) fn moment(at: Instant) -> Moment {
    let nanos = at.saturating_duration_since(*ORIGIN).as_nanos();
    Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
