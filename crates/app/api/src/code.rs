//! Every error a user can see: its code, what it is about, and the exit code it leads to.
//!
//! Mistakes inside a configuration (`SB0101` to `SB0149`) are `switchback-config`'s own.
//! One line here, one page `docs/errors/SBnnnn.md`; a test of the command line compares the two.

use crate::{Problem, exit};

/// A kind of error. The first two digits are the area: 01 configuration, 02 command line and
/// connection, 03 deployment rejected, 04 rollout failed, 05 runtime, 06 data plane, 07 journal,
/// 09 internal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `SB0201`.
    pub id: &'static str,
    /// What it is about, in a few words.
    pub title: &'static str,
    /// The exit code the command line ends with.
    pub exit: u8,
}

impl Code {
    /// A problem of this kind. `message` says what happened to what; no hint, no details yet.
    pub fn problem(self, message: impl Into<String>) -> Problem {
        Problem {
            code: self.id.to_owned(),
            message: message.into(),
            hint: None,
            details: Vec::new(),
            exit_code: self.exit,
        }
    }

    /// The code with this id.
    pub fn find(id: &str) -> Option<Self> {
        ALL.iter().copied().find(|code| code.id.eq_ignore_ascii_case(id))
    }
}

impl Problem {
    /// The same problem with what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same problem with more lines.
    #[must_use]
    pub fn details(self, details: Vec<String>) -> Self {
        Self { details, ..self }
    }
}

macro_rules! codes {
    ($($name:ident $id:literal $exit:ident $title:literal;)*) => {
        $(
            #[doc = $title]
            pub const $name: Code = Code { id: $id, title: $title, exit: exit::$exit };
        )*

        /// Every code, ascending.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    CONFIG_NOT_FOUND "SB0150" CONFIG "no configuration was found";
    CONFIG_INVALID "SB0151" CONFIG "the configuration has mistakes";
    CONFIG_UNREADABLE "SB0152" CONFIG "the configuration cannot be read";
    CONFIG_EXISTS "SB0153" USAGE "there is a configuration already";
    UNKNOWN_ENVIRONMENT "SB0154" CONFIG "the configuration has no such environment";
    NOT_RUNNING "SB0201" UNAVAILABLE "the control plane is not running";
    CONNECTION_LOST "SB0202" UNAVAILABLE "the connection to the control plane was lost";
    CONTROL_NOT_STARTED "SB0203" UNAVAILABLE "the control plane did not start";
    SOCKET_PERMISSION "SB0204" REJECTED "the control plane belongs to another user";
    USAGE "SB0205" USAGE "the command line was not understood";
    NO_ROLLOUT_CHOSEN "SB0206" USAGE "it is not clear which rollout is meant";
    ANSWER_NOT_UNDERSTOOD "SB0207" INTERNAL "the control plane's answer was not understood";
    UNKNOWN_ROLLOUT "SB0208" USAGE "there is no such rollout";
    UNKNOWN_SERVICE "SB0209" USAGE "there is no such service";
    UNKNOWN_CODE "SB0210" USAGE "there is no such error code";
    CANNOT_WRITE "SB0211" WRITE "a file could not be written";
    ALREADY_RUNNING "SB0212" BUSY "another control plane is in charge here";
    UNKNOWN_INSTANCE "SB0213" USAGE "there is no such instance";
    BUSY "SB0301" BUSY "another rollout of the service is active";
    ROLLBACK_NOT_VERIFIED "SB0302" REJECTED "there is no verified way back";
    ALREADY_SERVING "SB0303" REJECTED "this release serves already";
    UNKNOWN_REVISION "SB0304" REJECTED "there is no such revision";
    NOTHING_TO_ROLL_BACK_TO "SB0305" REJECTED "there is nothing to roll back to";
    NOT_IN_THIS_PHASE "SB0306" REJECTED "the rollout cannot take this command now";
    QUEUE_FULL "SB0307" BUSY "too many rollouts wait already";
    NO_VERSION "SB0308" USAGE "no version was given and none is configured";
    SHUTTING_DOWN "SB0309" BUSY "the control plane is shutting down";
    OPERATION_REFUSED "SB0310" REJECTED "the operation is not possible now";
    PAGE_UNREADABLE "SB0311" USAGE "the maintenance page cannot be used";
    NEVER_READY "SB0401" FAILED "the version never became ready";
    CRASH_LOOP "SB0402" FAILED "the version ends again and again";
    REGRESSION "SB0403" FAILED "the version is worse than allowed";
    DEADLINE "SB0404" FAILED "a step made no progress within its deadline";
    HOOK_FAILED "SB0405" FAILED "a smoke test or hook failed";
    NOT_ENOUGH_DATA "SB0406" FAILED "there was not enough data to judge";
    BECAME_UNREADY "SB0407" FAILED "the version was ready and then was not";
    STUCK "SB0408" FAILED "the rollout needs an operator";
    TAKEN_BACK "SB0409" FAILED "the rollout was taken back by an operator";
    DRAIN_TIMEOUT "SB0410" FAILED "requests were still on their way when the drain time was over";
    SUPERSEDED "SB0411" FAILED "a newer rollout took this one's place";
    CANNOT_START "SB0501" FAILED "the program cannot be started";
    NO_WORKING_DIRECTORY "SB0502" FAILED "the working directory is missing";
    NO_FREE_PORT "SB0503" FAILED "no free port was found for an instance";
    INSTANCE_FILES "SB0504" FAILED "an instance's files cannot be written";
    KILLED_AFTER_TIMEOUT "SB0505" FAILED "an instance did not stop in time and was killed";
    LISTEN_IN_USE "SB0601" REJECTED "the listen address is in use";
    DATA_PLANE_SILENT "SB0602" UNAVAILABLE "the data plane does not answer";
    TABLE_REFUSED "SB0603" INTERNAL "the data plane refused a route table";
    LISTEN_PERMISSION "SB0604" REJECTED "the listen address is not permitted";
    NOT_REPLACED "SB0605" FAILED "the data plane was not replaced";
    JOURNAL_FULL "SB0701" BUSY "the disk of the journal is full";
    JOURNAL_DAMAGED "SB0702" INTERNAL "the journal is damaged";
    JOURNAL_TOO_NEW "SB0703" REJECTED "the journal was written by a newer Switchback";
    FENCED "SB0704" BUSY "a newer control plane is in charge";
    JOURNAL_IO "SB0705" INTERNAL "the journal cannot be read or written";
    INTERNAL "SB0901" INTERNAL "Switchback itself failed";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_have_a_documented_exit_code() {
        for pair in ALL.windows(2) {
            assert!(pair[0].id < pair[1].id, "{} before {}", pair[0].id, pair[1].id);
        }
        for code in ALL {
            assert!(exit::ALL.iter().any(|(exit, _)| *exit == code.exit), "{}", code.id);
            assert!(code.exit != exit::OK, "{}", code.id);
        }
        assert!(exit::ALL.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_code_is_found_in_any_case_and_makes_a_problem() {
        let problem = Code::find("sb0201").unwrap().problem("nobody listens").hint("start it");
        assert_eq!((problem.code.as_str(), problem.exit_code), ("SB0201", exit::UNAVAILABLE));
        assert_eq!(problem.hint.as_deref(), Some("start it"));
        assert_eq!(Code::find("SB9999"), None);
    }
}
