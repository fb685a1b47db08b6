//! Regular expressions: linear in time whatever a client sends, bounded in size whatever somebody
//! writes, and always about the whole text. Without Unicode tables: `\w` and `(?i)` are ASCII.

use regex::bytes::{Regex, RegexBuilder};

/// Nobody can read a longer one.
pub const PATTERN_LENGTH_MAX: usize = 1000;
/// Bytes a compiled one may take, and as much again for the states met while matching.
const SIZE_MAX: usize = 1 << 18;

/// A compiled expression that fits whole texts.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// More than [`PATTERN_LENGTH_MAX`] bytes.
    #[error("is longer than {PATTERN_LENGTH_MAX} characters")]
    TooLong,
    /// Compiled it would be too large: a repetition of a repetition, mostly.
    #[error("is too large once it is compiled")]
    TooLarge,
    /// No expression, and why.
    #[error("is not a regular expression: {0}")]
    Syntax(String),
}

impl Pattern {
    /// Compiles an expression.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_LENGTH_MAX {
            return Err(PatternError::TooLong);
        }
        // First by itself: `a)|(b` only looks like an expression between brackets of ours.
        build(text)?;
        build(&format!(r"\A(?:{text})\z")).map(Self)
    }

    /// Whether it fits the text from the first to the last byte.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

fn build(text: &str) -> Result<Regex, PatternError> {
    let mut builder = RegexBuilder::new(text);
    builder.unicode(false).size_limit(SIZE_MAX).dfa_size_limit(SIZE_MAX);
    builder.build().map_err(|error| {
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            return PatternError::TooLarge;
        }
        PatternError::Syntax(reason(&error.to_string()))
    })
}

/// The last line of the library's drawing, which says what is wrong.
fn reason(text: &str) -> String {
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_fits_the_whole_text() {
        let fits =
            |pattern: &str, text: &str| Pattern::new(pattern).unwrap().is_match(text.as_bytes());
        assert!(fits("a|ab", "ab"));
        assert!(!fits("a|b", "ab"));
        assert!(fits("(?i)de-.*", "DE-at"));
        assert!(fits(r"/v\d+/.*", "/v12/x"));
        assert!(!fits(r"/v\d+", "/v12\n"));
        assert!(fits("ü?", "ü"), "characters beyond ASCII are their bytes");
        assert!(Pattern::new(".").unwrap().is_match(b"\xff"));
    }

    #[test]
    fn bad_expressions_say_why_in_one_line() {
        let message = |pattern: &str| Pattern::new(pattern).unwrap_err().to_string();
        assert_eq!(message("a)|(b"), "is not a regular expression: unopened group");
        assert_eq!(message("("), "is not a regular expression: unclosed group");
        assert_eq!(message(&"a".repeat(1001)), "is longer than 1000 characters");
        assert_eq!(message("(a{1000}){1000}"), "is too large once it is compiled");
        assert!(message(r"(?=a)").contains("look-around"), "{}", message(r"(?=a)"));
        for hostile in ["(?x)a # ", r"\", "[[:", "(?P<", "a{,", "\0("] {
            let _ = Pattern::new(hostile);
        }
    }
}
