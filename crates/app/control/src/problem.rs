//! What goes wrong, in the API's form: code, words, hint and exit code.

use switchback_api::Problem;
use switchback_engine::Rejection;

use crate::book::ApplyError;

/// Exit codes of the command line that answers may ask for.
pub(crate) mod exit {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 64;
    pub(crate) const INTERNAL: u8 = 70;
    pub(crate) const BUSY: u8 = 75;
    pub(crate) const REJECTED: u8 = 77;
    pub(crate) const CONFIG: u8 = 78;
}

/// A problem with a hint.
pub(crate) fn problem(
    code: &str,
    exit_code: u8,
    message: impl Into<String>,
    hint: &str,
) -> Problem {
    Problem {
        code: code.to_owned(),
        message: message.into(),
        hint: (!hint.is_empty()).then(|| hint.to_owned()),
        details: Vec::new(),
        exit_code,
    }
}

/// The journal does not take anything.
pub(crate) fn journal(error: &dyn std::error::Error) -> Problem {
    let chain: Vec<_> = std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect();
    problem(
        "SB0701",
        exit::INTERNAL,
        chain.join(": "),
        "traffic goes on as it is; make room on the disk that holds the state directory",
    )
}

pub(crate) fn from_apply(error: &ApplyError) -> Problem {
    match error {
        ApplyError::Journal(_) => journal(error),
        ApplyError::Rejected(rejection) => from_rejection(rejection),
    }
}

fn from_rejection(rejection: &Rejection) -> Problem {
    let message = rejection.to_string();
    match rejection {
        Rejection::Busy { .. } => problem(
            "SB0304",
            exit::BUSY,
            message,
            "wait for it, or use --on-busy queue or --on-busy supersede",
        ),
        Rejection::QueueFull(_) => problem(
            "SB0305",
            exit::BUSY,
            message,
            "look at `switchback status`; --on-busy supersede replaces those that wait",
        ),
        Rejection::Unchanged => problem(
            "SB0306",
            0,
            message,
            "nothing to do; a change of version, command or configuration makes a new release",
        ),
        Rejection::NoRollout => problem(
            "SB0307",
            exit::USAGE,
            message,
            "`switchback status` shows what runs, `switchback history` what has ended",
        ),
        Rejection::NotNow { .. } => {
            problem("SB0308", exit::REJECTED, message, "`switchback status` shows where it is")
        }
    }
}
