//! Conditions on a metric's number, such as `result < 0.05 and result <= baseline * 1.5`: parsed
//! once, evaluated without ever failing. Not here: where the numbers come from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longer conditions are programs.
const LENGTH_MAX: usize = 500;
/// So are more deeply nested ones.
const DEPTH_MAX: usize = 32;

/// A comparison of `result` (the candidate's number) and `baseline`, or several joined by `and`,
/// `or`, `not` (also `&&`, `||`, `!`); numbers may be added, subtracted, multiplied and divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    text: String,
    truth: Truth,
}

/// Where a condition cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why} at character {column} of the condition")]
pub struct SyntaxError {
    /// From 1, in characters of the condition.
    pub column: usize,
    /// What is wrong there.
    pub why: String,
}

/// The numbers that a condition speaks of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    /// The candidate's.
    pub result: f64,
    /// The baseline's, where it was asked for.
    pub baseline: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
enum Truth {
    Compare(Term, Comparison, Term),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

#[derive(Debug, Clone, PartialEq)]
enum Term {
    Constant(f64),
    Result,
    Baseline,
    Negative(Box<Self>),
    Combined(Box<Self>, Arithmetic, Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    Different,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Arithmetic {
    Plus,
    Minus,
    Times,
    Over,
}

impl Condition {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > LENGTH_MAX {
            let why = format!("is longer than {LENGTH_MAX} bytes");
            return Err(SyntaxError { column: 1, why });
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
        let whole = parser.expression(0)?;
        let column = parser.column();
        if !matches!(parser.peek(), Token::End) {
            return Err(SyntaxError { column, why: "expected an operator or the end".to_owned() });
        }
        Ok(Self { text: text.to_owned(), truth: whole.truth(1)? })
    }

    /// Whether it holds; `None` when a number it needs is missing, NaN or infinite.
    pub fn holds(&self, numbers: Numbers) -> Option<bool> {
        self.truth.evaluate(numbers)
    }

    /// Whether it speaks of the baseline.
    pub fn needs_baseline(&self) -> bool {
        self.truth.needs_baseline()
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Condition {
    type Error = SyntaxError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.text
    }
}

impl Truth {
    fn evaluate(&self, numbers: Numbers) -> Option<bool> {
        Some(match self {
            Self::Compare(left, how, right) => {
                how.holds(left.evaluate(numbers)?, right.evaluate(numbers)?)
            }
            // Both sides are looked at: a missing number is never hidden by the other side.
            Self::And(left, right) => left.evaluate(numbers)? & right.evaluate(numbers)?,
            Self::Or(left, right) => left.evaluate(numbers)? | right.evaluate(numbers)?,
            Self::Not(inner) => !inner.evaluate(numbers)?,
        })
    }

    fn needs_baseline(&self) -> bool {
        match self {
            Self::Compare(left, _, right) => left.needs_baseline() || right.needs_baseline(),
            Self::And(left, right) | Self::Or(left, right) => {
                left.needs_baseline() || right.needs_baseline()
            }
            Self::Not(inner) => inner.needs_baseline(),
        }
    }
}

impl Term {
    fn evaluate(&self, numbers: Numbers) -> Option<f64> {
        let number = match self {
            Self::Constant(number) => *number,
            Self::Result => numbers.result,
            Self::Baseline => numbers.baseline?,
            Self::Negative(inner) => -inner.evaluate(numbers)?,
            Self::Combined(left, how, right) => {
                let (left, right) = (left.evaluate(numbers)?, right.evaluate(numbers)?);
                match how {
                    Arithmetic::Plus => left + right,
                    Arithmetic::Minus => left - right,
                    Arithmetic::Times => left * right,
                    Arithmetic::Over => left / right,
                }
            }
        };
        number.is_finite().then_some(number)
    }

    fn needs_baseline(&self) -> bool {
        match self {
            Self::Constant(_) | Self::Result => false,
            Self::Baseline => true,
            Self::Negative(inner) => inner.needs_baseline(),
            Self::Combined(left, _, right) => left.needs_baseline() || right.needs_baseline(),
        }
    }
}

impl Comparison {
    #[allow(clippy::float_cmp, reason = "the user asks for exactly this")]
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Greater => left > right,
            Self::AtLeast => left >= right,
            Self::Equal => left == right,
            Self::Different => left != right,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Number(f64),
    Result,
    Baseline,
    Open,
    Close,
    Not,
    Binary(Operator),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Or,
    And,
    Compare(Comparison),
    Calculate(Arithmetic),
}

impl Operator {
    /// Larger ones hold their sides more tightly.
    fn strength(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Compare(_) => COMPARES,
            Self::Calculate(Arithmetic::Plus | Arithmetic::Minus) => 4,
            Self::Calculate(Arithmetic::Times | Arithmetic::Over) => 5,
        }
    }
}

const COMPARES: u8 = 3;
const TIGHTEST: u8 = 6;

/// Longer symbols stand before their beginnings.
const SYMBOLS: [(&str, Token); 17] = [
    ("<=", Token::Binary(Operator::Compare(Comparison::AtMost))),
    (">=", Token::Binary(Operator::Compare(Comparison::AtLeast))),
    ("==", Token::Binary(Operator::Compare(Comparison::Equal))),
    ("!=", Token::Binary(Operator::Compare(Comparison::Different))),
    ("&&", Token::Binary(Operator::And)),
    ("||", Token::Binary(Operator::Or)),
    ("<", Token::Binary(Operator::Compare(Comparison::Less))),
    (">", Token::Binary(Operator::Compare(Comparison::Greater))),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    ("+", Token::Binary(Operator::Calculate(Arithmetic::Plus))),
    ("-", Token::Binary(Operator::Calculate(Arithmetic::Minus))),
    ("*", Token::Binary(Operator::Calculate(Arithmetic::Times))),
    ("/", Token::Binary(Operator::Calculate(Arithmetic::Over))),
    // As Argo Rollouts has it: the first element of the answer.
    ("result[0]", Token::Result),
    ("baseline[0]", Token::Baseline),
];

const WORDS: [(&str, Token); 5] = [
    ("result", Token::Result),
    ("baseline", Token::Baseline),
    ("and", Token::Binary(Operator::And)),
    ("or", Token::Binary(Operator::Or)),
    ("not", Token::Not),
];

/// The tokens with the columns they start at, and the end.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let (mut found, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start();
        let column = text[..text.len() - rest.len()].chars().count() + 1;
        if rest.is_empty() {
            found.push((column, Token::End));
            return Ok(found);
        }
        let (length, token) = token(rest).map_err(|why| SyntaxError { column, why })?;
        found.push((column, token));
        rest = &rest[length..];
    }
}

/// The first token of a text that does not begin with a space, with its length in bytes.
fn token(text: &str) -> Result<(usize, Token), String> {
    if let Some((symbol, token)) = SYMBOLS.iter().find(|(symbol, _)| text.starts_with(symbol)) {
        return Ok((symbol.len(), *token));
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let length = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let word = &text[..length];
    if let Some((_, token)) = WORDS.iter().find(|(known, _)| *known == word) {
        return Ok((length, *token));
    }
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        // `2e-3`: the sign belongs to the number.
        let signed = word.ends_with(['e', 'E']) && text[length..].starts_with(['-', '+']);
        let more = if signed { text[length + 1..].find(|c| !is_word(c)) } else { Some(0) };
        let length = match (signed, more) {
            (true, more) => length + 1 + more.unwrap_or(text.len() - length - 1),
            (false, _) => length,
        };
        let number = text[..length].parse().ok().filter(|number: &f64| number.is_finite());
        return number
            .map(|number| (length, Token::Number(number)))
            .ok_or_else(|| format!("`{}` is not a number", &text[..length]));
    }
    let shown =
        if word.is_empty() { &text[..text.chars().next().map_or(0, char::len_utf8)] } else { word };
    Err(format!("`{shown}` means nothing here; write `result`, `baseline`, numbers and operators"))
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

/// What a part of a condition is.
enum Part {
    Truth(Truth),
    Term(Term),
}

impl Part {
    fn truth(self, column: usize) -> Result<Truth, SyntaxError> {
        match self {
            Self::Truth(truth) => Ok(truth),
            Self::Term(_) => {
                let why = "expected a comparison such as `result < 1`, found a number".to_owned();
                Err(SyntaxError { column, why })
            }
        }
    }

    fn term(self, column: usize) -> Result<Term, SyntaxError> {
        match self {
            Self::Term(term) => Ok(term),
            Self::Truth(_) => {
                Err(SyntaxError { column, why: "expected a number, found a comparison".to_owned() })
            }
        }
    }
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.next).map_or(Token::End, |(_, token)| *token)
    }

    fn column(&self) -> usize {
        self.tokens.get(self.next).or_else(|| self.tokens.last()).map_or(1, |(column, _)| *column)
    }

    /// An expression of operators at least this strong: precedence climbing.
    fn expression(&mut self, strength_min: u8) -> Result<Part, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("too deeply nested"));
        }
        let start = self.column();
        let mut left = self.operand()?;
        while let Token::Binary(operator) = self.peek() {
            if operator.strength() < strength_min {
                break;
            }
            self.next += 1;
            let at = self.column();
            let right = self.expression(operator.strength() + 1)?;
            left = joined(left, start, operator, right, at)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<Part, SyntaxError> {
        let token = self.peek();
        let expected = "expected a number, `result` or `baseline`";
        if matches!(token, Token::End) {
            return Err(self.error(&format!("{expected}, found the end")));
        }
        self.next += 1;
        let at = self.column();
        match token {
            Token::Number(number) => Ok(Part::Term(Term::Constant(number))),
            Token::Result => Ok(Part::Term(Term::Result)),
            Token::Baseline => Ok(Part::Term(Term::Baseline)),
            Token::Open => {
                let inner = self.expression(0)?;
                if !matches!(self.peek(), Token::Close) {
                    return Err(self.error("expected `)`"));
                }
                self.next += 1;
                Ok(inner)
            }
            Token::Not => {
                let inner = self.expression(COMPARES)?.truth(at)?;
                Ok(Part::Truth(Truth::Not(Box::new(inner))))
            }
            Token::Binary(Operator::Calculate(Arithmetic::Minus)) => {
                let inner = self.expression(TIGHTEST)?.term(at)?;
                Ok(Part::Term(Term::Negative(Box::new(inner))))
            }
            Token::Binary(_) | Token::Close | Token::End => {
                self.next -= 1;
                Err(self.error(expected))
            }
        }
    }

    fn error(&self, why: &str) -> SyntaxError {
        SyntaxError { column: self.column(), why: why.to_owned() }
    }
}

fn joined(
    left: Part,
    left_at: usize,
    operator: Operator,
    right: Part,
    right_at: usize,
) -> Result<Part, SyntaxError> {
    Ok(match operator {
        Operator::Or | Operator::And => {
            let left = Box::new(left.truth(left_at)?);
            let right = Box::new(right.truth(right_at)?);
            let is_and = matches!(operator, Operator::And);
            Part::Truth(if is_and { Truth::And(left, right) } else { Truth::Or(left, right) })
        }
        Operator::Compare(how) => {
            Part::Truth(Truth::Compare(left.term(left_at)?, how, right.term(right_at)?))
        }
        Operator::Calculate(how) => {
            let (left, right) = (left.term(left_at)?, right.term(right_at)?);
            Part::Term(Term::Combined(Box::new(left), how, Box::new(right)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, result: f64, baseline: Option<f64>) -> Option<bool> {
        Condition::parse(text).unwrap().holds(Numbers { result, baseline })
    }

    #[test]
    fn conditions_mean_what_they_say() {
        for (text, expected) in [
            ("result < 0.05", true),
            ("result[0] >= 5e-2", false),
            ("result > 1 or result == 0.04", true),
            ("not result > 1 and result != 0", true),
            ("!(result > 1 || result < 0.01) && result <= 0.04", true),
            ("result <= baseline * 1.5", false),
            ("result - baseline < 0.03 and baseline > -1", true),
            ("1 + 2 * 3 == 7 and (1 + 2) * 3 == 9 and 8 / 4 / 2 == 1", true),
        ] {
            assert_eq!(holds(text, 0.04, Some(0.02)), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_no_number_is_neither_true_nor_false() {
        assert_eq!(holds("result < 1 or baseline < 1", 0.0, None), None);
        assert_eq!(holds("result / baseline < 2", 1.0, Some(0.0)), None);
        assert_eq!(holds("result != 1", f64::NAN, None), None);
        assert_eq!(holds("not result < 1", f64::INFINITY, None), None);
    }

    #[test]
    fn mistakes_are_named_with_their_column() {
        for (text, column, part) in [
            ("", 1, "found the end"),
            ("result", 1, "expected a comparison"),
            ("result < ", 10, "found the end"),
            ("result < 1 2", 12, "expected an operator"),
            ("result < 1.2.3", 10, "is not a number"),
            ("(result < 1", 12, "expected `)`"),
            ("rate < 1", 1, "`rate` means nothing"),
            ("result < 1 and 5", 16, "expected a comparison"),
            ("result < 1 < 2", 1, "expected a number"),
            ("result ü 1", 8, "`ü` means nothing"),
            ("result = 1", 8, "`=` means nothing"),
        ] {
            let error = Condition::parse(text).unwrap_err();
            assert_eq!(error.column, column, "{text}: {error}");
            assert!(error.why.contains(part), "{text}: {error}");
        }
        let deep = format!("{}result{} < 1", "(".repeat(100), ")".repeat(100));
        assert!(Condition::parse(&deep).unwrap_err().why.contains("nested"));
        assert!(Condition::parse(&"1".repeat(600)).is_err());
    }

    #[test]
    fn a_condition_is_stored_as_it_was_written() {
        let condition = Condition::parse("result  <1").unwrap();
        assert_eq!(String::from(condition.clone()), "result  <1");
        assert_eq!(Condition::try_from("result  <1".to_owned()), Ok(condition));
    }
}
