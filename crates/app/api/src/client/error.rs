//! What can go wrong between the command line and the control plane.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Code, Problem, code};

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket, or there is none.
    #[error("no control plane answers on {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("the control socket {} may only be used by its owner", socket.display())]
    Permission {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket cannot be reached for another reason.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke before the answer was complete.
    #[error("the control plane broke the connection off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("the control plane gave no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The answer is not what this build understands.
    #[error("the control plane's answer was not understood: {0}")]
    NotUnderstood(String),
    /// The control plane said no.
    #[error("{}", .0.message)]
    Problem(Box<Problem>),
}

impl Error {
    /// Sorts the reasons why a connection could not be made.
    pub(super) fn connect(socket: &Path, source: io::Error) -> Self {
        let socket = socket.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::Permission { socket };
        }
        // A socket file without a listener is what a killed control plane leaves behind.
        let gone = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        if gone.contains(&source.kind()) {
            return Self::NotRunning { socket };
        }
        Self::Connect { socket, source }
    }

    /// Whether the control plane may be back in a moment: it is restarting, or was killed.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::Connect { .. } | Self::Broken(_) | Self::Silent(_) => {
                true
            }
            Self::Permission { .. } | Self::NotUnderstood(_) => false,
            Self::Problem(problem) => problem.code == code::SHUTTING_DOWN.id,
        }
    }

    /// The kind of error, for those this side of the socket found.
    fn code(&self) -> Code {
        match self {
            Self::NotRunning { .. } => code::NOT_RUNNING,
            Self::Permission { .. } => code::SOCKET_PERMISSION,
            Self::Connect { .. } | Self::Broken(_) | Self::Silent(_) => code::CONNECTION_LOST,
            Self::NotUnderstood(_) => code::ANSWER_NOT_UNDERSTOOD,
            Self::Problem(_) => code::INTERNAL,
        }
    }

    /// What a user sees of it: the control plane's own words where there are any.
    pub fn into_problem(self) -> Problem {
        let hint = match &self {
            Self::Problem(problem) => return problem.as_ref().clone(),
            Self::NotRunning { .. } => "start it with `switchback up`, or `switchback up --detach`",
            Self::Permission { .. } => "run the command as the user that ran `switchback up`",
            Self::Connect { .. } | Self::Broken(_) | Self::Silent(_) => {
                "look whether it runs with `switchback status`; its log is control.log in the \
                 state directory"
            }
            Self::NotUnderstood(_) => {
                "the command line and the control plane may be different builds: restart the \
                 control plane with `switchback up`"
            }
        };
        let mut details = Vec::new();
        let mut cause = std::error::Error::source(&self);
        while let Some(error) = cause {
            details.push(error.to_string());
            cause = error.source();
        }
        self.code().problem(self.to_string()).hint(hint).details(details)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error.into_problem()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    #[test]
    fn a_refused_connection_is_sorted_by_its_reason() {
        let sorted = |kind: io::ErrorKind| {
            let error = Error::connect(Path::new("/s"), io::Error::from(kind));
            (error.is_passing(), error.into_problem().code)
        };
        assert_eq!(sorted(io::ErrorKind::NotFound), (true, "SB0201".to_owned()));
        assert_eq!(sorted(io::ErrorKind::ConnectionRefused), (true, "SB0201".to_owned()));
        assert_eq!(sorted(io::ErrorKind::PermissionDenied), (false, "SB0204".to_owned()));
        assert_eq!(sorted(io::ErrorKind::OutOfMemory), (true, "SB0202".to_owned()));
    }

    #[test]
    fn causes_are_listed_once() {
        let source = io::Error::other("no more descriptors");
        let problem = Error::connect(Path::new("/s"), source).into_problem();
        assert_eq!(problem.message, "cannot connect to /s");
        assert_eq!(problem.details, ["no more descriptors"]);
        assert_eq!(problem.exit_code, exit::UNAVAILABLE);
    }

    #[test]
    fn only_a_control_plane_that_goes_down_is_worth_waiting_for() {
        let said = |code: Code| Error::Problem(Box::new(code.problem("no")));
        assert!(said(code::SHUTTING_DOWN).is_passing());
        assert!(!said(code::UNKNOWN_ROLLOUT).is_passing());
    }
}
