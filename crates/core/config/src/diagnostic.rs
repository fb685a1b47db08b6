//! What a mistake looks like to its author: where, what, and what to do about it.

use std::fmt;

use serde::{Serialize, Serializer};

/// The kinds of mistakes, each with a code that `switchback explain` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// Not YAML.
    Syntax,
    /// Too long, too deep or too many values.
    Limit,
    /// YAML, but not of the shape of one document of plain maps, lists and scalars.
    Structure,
    /// One key twice in a map.
    DuplicateKey,
    /// A key nobody reads.
    UnknownKey,
    /// A key that must be there.
    MissingKey,
    /// A list where a number belongs, and the like.
    WrongType,
    /// Not one of the words allowed here.
    UnknownWord,
    /// A duration, size or share with a missing or wrong unit.
    Unit,
    /// Outside of what makes sense.
    OutOfRange,
    /// A name with characters that are not allowed.
    Name,
    /// Not an address, a port or a host name.
    Address,
    /// Not a usable path.
    Path,
    /// An unknown name between double braces.
    Template,
    /// A command that cannot be run as it stands.
    Command,
    /// Weights that do not ascend to 100 %.
    Weights,
    /// Two services want the same requests.
    RouteTaken,
    /// Two settings that cannot both hold.
    Contradiction,
    /// A regular expression that cannot be used.
    Pattern,
}

impl Code {
    /// Every code, in order.
    pub const ALL: [Self; 19] = [
        Self::Syntax,
        Self::Limit,
        Self::Structure,
        Self::DuplicateKey,
        Self::UnknownKey,
        Self::MissingKey,
        Self::WrongType,
        Self::UnknownWord,
        Self::Unit,
        Self::OutOfRange,
        Self::Name,
        Self::Address,
        Self::Path,
        Self::Template,
        Self::Command,
        Self::Weights,
        Self::RouteTaken,
        Self::Contradiction,
        Self::Pattern,
    ];

    /// The stable code: `SB0101` and up.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "SB0101",
            Self::Limit => "SB0102",
            Self::Structure => "SB0103",
            Self::DuplicateKey => "SB0104",
            Self::UnknownKey => "SB0105",
            Self::MissingKey => "SB0106",
            Self::WrongType => "SB0107",
            Self::UnknownWord => "SB0108",
            Self::Unit => "SB0109",
            Self::OutOfRange => "SB0110",
            Self::Name => "SB0111",
            Self::Address => "SB0112",
            Self::Path => "SB0113",
            Self::Template => "SB0114",
            Self::Command => "SB0115",
            Self::Weights => "SB0116",
            Self::RouteTaken => "SB0117",
            Self::Contradiction => "SB0118",
            Self::Pattern => "SB0119",
        }
    }

    /// What it means and what to do, in a sentence or two.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Syntax => {
                "The file is not valid YAML. Nothing after that place could be read, so further \
                 mistakes may follow once it is mended."
            }
            Self::Limit => "The file is larger or more deeply nested than any real one needs.",
            Self::Structure => {
                "A configuration is one YAML document made of maps with plain keys, lists and \
                 scalars. Further documents, tags and keys that are maps are refused."
            }
            Self::DuplicateKey => "One of the two would silently win, so both are refused.",
            Self::UnknownKey => {
                "No part of Switchback reads this key. Keys starting with `x-` are yours to use."
            }
            Self::MissingKey => "There is no sensible default for this key.",
            Self::WrongType => "The value has another shape than this key takes.",
            Self::UnknownWord => "This key takes one of a few words.",
            Self::Unit => {
                "Durations and sizes carry their unit (`10s`, `512MiB`), shares a percent sign \
                 (`25%`), so that nobody has to guess."
            }
            Self::OutOfRange => "The number is outside of what makes sense here.",
            Self::Name => "Names end up in file names, host names and metric labels.",
            Self::Address => "An address is `HOST:PORT`, `:PORT` or a port from 1 to 65535.",
            Self::Path => "The path is not one that can be used here.",
            Self::Template => {
                "`{{version}}`, `{{environment}}`, `{{service}}` and `{{project}}` are filled in \
                 when a release is made, `{{port}}`, `{{instance}}` and `{{dir}}` when an \
                 instance starts, `{{address}}` and `{{rollout}}` when a hook runs."
            }
            Self::Command => {
                "Commands are run directly, without a shell. Where you need one, say so: \
                 `[\"sh\", \"-c\", \"...\"]`."
            }
            Self::Weights => "A rollout gives the candidate more at each step and ends at 100 %.",
            Self::RouteTaken => "A request must belong to exactly one service.",
            Self::Contradiction => "These settings cannot both hold.",
            Self::Pattern => {
                "Expressions run on every request, so those that could be slow (look-around, \
                 back-references) or large are not offered."
            }
        }
    }

    /// Reads a code back, in any case: what `switchback explain sb0105` needs.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One mistake. Prints as `switchback.yaml:12:5: services.api.replicas: ... (SB0107)` with the
/// hint on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file as the caller called it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Where in the document: `services.api.replicas`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do; never empty.
    pub hint: String,
    /// Its kind.
    pub code: Code,
}

impl Diagnostic {
    fn order(&self) -> (u32, u32, &str, Code, &str) {
        (self.line, self.column, &self.path, self.code, &self.message)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} ({})\n  hint: {}", self.message, self.code, self.hint)
    }
}

/// Every mistake of a file, in the order of the file, each once. Never empty when returned as an
/// error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Sorts and removes doubles.
    pub(crate) fn new(mut mistakes: Vec<Diagnostic>) -> Self {
        mistakes.sort_by(|left, right| left.order().cmp(&right.order()));
        mistakes.dedup_by(|left, right| left.order() == right.order());
        Self(mistakes)
    }

    /// The mistakes in order.
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.0
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::from_text(&code.as_str().to_lowercase()), Some(code));
            assert!(!code.explanation().is_empty());
        }
    }

    #[test]
    fn a_mistake_prints_where_what_and_what_to_do() {
        let mistake = Diagnostic {
            file: "switchback.yaml".to_owned(),
            line: 12,
            column: 5,
            path: "services.api.replicas".to_owned(),
            message: "is 0".to_owned(),
            hint: "write `1`".to_owned(),
            code: Code::OutOfRange,
        };
        let text = mistake.to_string();
        assert_eq!(
            text,
            "switchback.yaml:12:5: services.api.replicas: is 0 (SB0110)\n  hint: write `1`"
        );
        let twice = Diagnostics::new(vec![mistake.clone(), mistake]);
        assert_eq!(twice.len(), 1);
        assert!(serde_json::to_string(&twice).unwrap().starts_with("[{\"file\":"));
    }
}
