//! What goes wrong, in the API's form.

use switchback_api::{Problem, code};
use switchback_domain::with_causes;
use switchback_engine::Rejection;
use switchback_ports::journal;

use crate::book::ApplyError;

/// The journal does not take anything.
pub(crate) fn journal(error: &journal::Error) -> Problem {
    let kind = match error {
        journal::Error::Full => code::JOURNAL_FULL,
        journal::Error::Fenced { .. } => code::FENCED,
        journal::Error::Damaged { .. } => code::JOURNAL_DAMAGED,
        journal::Error::TooNew { .. } => code::JOURNAL_TOO_NEW,
        journal::Error::Failed { .. } => code::JOURNAL_IO,
    };
    kind.problem(with_causes(error))
        .hint("traffic goes on as it is; nothing can be deployed until the journal can be written")
}

pub(crate) fn from_apply(error: &ApplyError) -> Problem {
    match error {
        ApplyError::Journal(error) => journal(error),
        ApplyError::Rejected(rejection) => from_rejection(rejection),
    }
}

pub(crate) fn from_rejection(rejection: &Rejection) -> Problem {
    let (kind, hint) = match rejection {
        Rejection::Busy { .. } => {
            (code::BUSY, "wait for it, or use --on-busy queue or --on-busy supersede")
        }
        Rejection::QueueFull(_) => {
            (code::QUEUE_FULL, "--on-busy supersede replaces those that wait")
        }
        Rejection::Unchanged => (
            code::ALREADY_SERVING,
            "a change of version, command or configuration makes a new release",
        ),
        Rejection::NoRollout => {
            (code::NOT_IN_THIS_PHASE, "`switchback history` shows how the others ended")
        }
        Rejection::NotNow { .. } => {
            (code::NOT_IN_THIS_PHASE, "`switchback status` shows where it is")
        }
    };
    kind.problem(rejection.to_string()).hint(hint)
}
