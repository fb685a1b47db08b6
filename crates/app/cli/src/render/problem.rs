//! Errors: code, message, details, hint.

use switchback_api::{Code, Problem};

use crate::render::look::{Look, Tone, clean};

/// An error as it is printed.
pub(crate) fn lines(problem: &Problem, look: Look) -> Vec<String> {
    let head = look.paint(Tone::Bad, &format!("error[{}]", problem.code));
    let mut lines = vec![format!("{head}: {}", clean(&problem.message))];
    lines.extend(problem.details.iter().map(|detail| format!("  {}", clean(detail))));
    if let Some(hint) = &problem.hint {
        let word = look.paint(Tone::Strong, "hint");
        lines.push(format!("{word}: {}", clean(hint)));
    }
    if Code::find(&problem.code).is_some() {
        let more = format!("`switchback explain {}` says more", problem.code);
        lines.push(look.paint(Tone::Dim, &more));
    }
    lines
}

#[cfg(test)]
mod tests {
    use switchback_api::code;

    use super::*;

    #[test]
    fn an_error_has_code_details_and_hint() {
        let problem = code::BUSY.problem("r7 is active").hint("wait").details(vec!["a".into()]);
        let text = lines(&problem, Look::PLAIN).join("\n");
        let expected = "error[SB0301]: r7 is active\n  a\nhint: wait\n\
                        `switchback explain SB0301` says more";
        assert_eq!(text, expected);
    }
}
