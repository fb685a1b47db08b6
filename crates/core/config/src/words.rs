//! A command line into words, as a shell does with quotes and backslashes, and nothing more: no
//! variables, no pipes, no globs. What looks like one of those is an error with a way out.

/// Why a command line cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote without its partner.
    #[error("has an unclosed {0}")]
    Unclosed(char),
    /// A backslash at the very end.
    #[error("ends with a backslash")]
    Backslash,
    /// `|`, `&&`, `>` and the like as words of their own.
    #[error("holds `{0}`, which only a shell understands")]
    Shell(String),
    /// `$PORT` outside of quotes.
    #[error("holds `{0}`, which nobody expands")]
    Variable(String),
}

/// Words that mean that a shell was expected.
const OPERATORS: [&str; 10] = ["|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1"];

/// Splits a command line into words.
pub fn split_words(line: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_with(Word::default);
        match character {
            '\'' => word.quote(&mut characters, '\'')?,
            '"' => word.quote(&mut characters, '"')?,
            '\\' => {
                word.text.push(characters.next().ok_or(SplitError::Backslash)?);
                word.is_quoted = true;
            }
            other => word.text.push(other),
        }
    }
    words.extend(word);
    words.into_iter().map(Word::checked).collect()
}

#[derive(Default)]
struct Word {
    text: String,
    is_quoted: bool,
}

impl Word {
    fn quote(&mut self, characters: &mut std::str::Chars<'_>, end: char) -> Result<(), SplitError> {
        self.is_quoted = true;
        loop {
            match characters.next().ok_or(SplitError::Unclosed(end))? {
                found if found == end => return Ok(()),
                '\\' if end == '"' => {
                    let next = characters.next().ok_or(SplitError::Unclosed(end))?;
                    // Inside double quotes a shell keeps the backslash before anything else.
                    if !matches!(next, '"' | '\\' | '$' | '`') {
                        self.text.push('\\');
                    }
                    self.text.push(next);
                }
                other => self.text.push(other),
            }
        }
    }

    fn checked(self) -> Result<String, SplitError> {
        if self.is_quoted {
            return Ok(self.text);
        }
        let text = self.text.as_str();
        if OPERATORS.contains(&text) || text.starts_with("$(") || text.starts_with('`') {
            return Err(SplitError::Shell(self.text));
        }
        let variable = ["${PORT}", "$PORT", "$SWITCHBACK_VERSION"];
        match variable.into_iter().find(|name| text.contains(name)) {
            Some(name) => Err(SplitError::Variable(name.to_owned())),
            None => Ok(self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_as_in_a_shell() {
        let cases: [(&str, &[&str]); 8] = [
            ("a b  c", &["a", "b", "c"]),
            ("  a\tb\n", &["a", "b"]),
            ("sh -c 'exec app --port $PORT'", &["sh", "-c", "exec app --port $PORT"]),
            (r#"a "b \"c\" \d" e"#, &["a", r#"b "c" \d"#, "e"]),
            (r"a\ b '' x", &["a b", "", "x"]),
            ("--name='x y'", &["--name=x y"]),
            ("a '|' \\;", &["a", "|", ";"]),
            ("", &[]),
        ];
        for (line, words) in cases {
            assert_eq!(split_words(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn what_needs_a_shell_is_refused() {
        assert_eq!(split_words("a 'b"), Err(SplitError::Unclosed('\'')));
        assert_eq!(split_words("a \"b\\"), Err(SplitError::Unclosed('"')));
        assert_eq!(split_words("a \\"), Err(SplitError::Backslash));
        assert_eq!(split_words("cd x && ./run"), Err(SplitError::Shell("&&".to_owned())));
        assert_eq!(split_words("app --port=$PORT"), Err(SplitError::Variable("$PORT".to_owned())));
    }
}
