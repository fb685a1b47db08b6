//! Scalars with a meaning: each reader reports what is wrong with a value and then yields nothing.

use std::ops::RangeInclusive;
use std::time::Duration;

use switchback_domain::name;

use crate::diagnostic::Code;
use crate::duration::{DurationError, parse_duration};
use crate::quantity::{self, Amount};
use crate::reader::{Reader, found};
use crate::suggest;
use crate::value::Node;

/// Bare numbers in durations, where the documents write them.
#[derive(Clone, Copy)]
pub(crate) enum Bare {
    Refused,
    Seconds,
    Milliseconds,
}

impl Reader {
    /// Text; a number or boolean is taken as written, so `version: 1.20` stays `1.20`.
    pub(crate) fn text(&mut self, node: &Node) -> Option<String> {
        let Some(text) = node.scalar().filter(|_| !node.is_null()) else {
            self.wrong_type(node, "text", "write one value, in quotes if it holds `: ` or ` #`");
            return None;
        };
        if text.contains('\0') {
            let hint = "take the `\\0` out";
            self.report(node, Code::OutOfRange, "holds a NUL character", hint);
            return None;
        }
        Some(text.to_owned())
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match node.plain() {
            Some("true" | "True" | "TRUE") => Some(true),
            Some("false" | "False" | "FALSE") => Some(false),
            Some(_) | None => {
                self.wrong_type(node, "`true` or `false`", boolean_hint(node));
                None
            }
        }
    }

    /// A whole number within a range.
    pub(crate) fn count(&mut self, node: &Node, range: RangeInclusive<u32>) -> Option<u32> {
        let (low, high) = (range.start(), range.end());
        let Some(number) = node.plain().and_then(|text| text.parse::<i128>().ok()) else {
            let hint = format!("write a number from {low} to {high}, without quotes or unit");
            self.wrong_type(node, "a whole number", hint);
            return None;
        };
        let count = u32::try_from(number).ok().filter(|count| range.contains(count));
        if count.is_none() {
            let hint = format!("write a number from {low} to {high}");
            self.report(node, Code::OutOfRange, format!("{number} is out of range"), hint);
        }
        count
    }

    /// A number within a range.
    pub(crate) fn number(&mut self, node: &Node, range: RangeInclusive<f64>) -> Option<f64> {
        let Some(number) = node.plain().and_then(quantity::decimal) else {
            self.wrong_type(node, "a number", "write a number such as `2.0`");
            return None;
        };
        if !range.contains(&number) {
            let hint = format!("write a number from {} to {}", range.start(), range.end());
            self.report(node, Code::OutOfRange, format!("{number} is out of range"), hint);
            return None;
        }
        Some(number)
    }

    /// A duration with a unit.
    pub(crate) fn duration(&mut self, node: &Node) -> Option<Duration> {
        self.duration_or_bare(node, Bare::Refused)
    }

    /// A duration with a unit that is not zero.
    pub(crate) fn duration_above_zero(&mut self, node: &Node) -> Option<Duration> {
        let duration = self.duration(node)?;
        self.above_zero(node, duration)
    }

    /// A duration above zero where the documents write bare numbers.
    pub(crate) fn duration_or_bare(&mut self, node: &Node, bare: Bare) -> Option<Duration> {
        let Some(text) = node.scalar().filter(|_| !node.is_null()) else {
            self.wrong_type(node, "a duration", "write a number with a unit: `10s`");
            return None;
        };
        let with_unit = match (bare, quantity::decimal(text)) {
            (Bare::Refused, _) | (_, None) => text.to_owned(),
            (Bare::Seconds, Some(_)) => format!("{text}s"),
            (Bare::Milliseconds, Some(_)) => format!("{text}ms"),
        };
        match parse_duration(&with_unit) {
            Ok(duration) => match bare {
                Bare::Refused => Some(duration),
                Bare::Seconds | Bare::Milliseconds => self.above_zero(node, duration),
            },
            Err(error) => {
                let hint = duration_hint(text, &error);
                self.report(node, Code::Unit, format!("{} {error}", found(node)), hint);
                None
            }
        }
    }

    fn above_zero(&mut self, node: &Node, duration: Duration) -> Option<Duration> {
        if duration.is_zero() {
            let hint = "write a duration above zero: `10s`";
            self.report(node, Code::OutOfRange, "must be longer than zero", hint);
            return None;
        }
        Some(duration)
    }

    /// A share from 0 to 1, written as `25%` or as a fraction.
    pub(crate) fn share(&mut self, node: &Node) -> Option<f64> {
        let text = node.scalar().unwrap_or_default();
        let (share, shown) = match (quantity::percent(text), quantity::decimal(text)) {
            (Some(percent), _) => (quantity::fraction(percent), format!("{percent}%")),
            (None, Some(fraction)) => (fraction, text.to_owned()),
            (None, None) => {
                self.wrong_type(node, "a share", "write `5%` or `0.05`");
                return None;
            }
        };
        if share > 1.0 {
            let hint = if text.ends_with('%') {
                "shares go from `0%` to `100%`".to_owned()
            } else {
                format!("write `{text}%` if percent are meant")
            };
            self.report(node, Code::OutOfRange, format!("{shown} is more than the whole"), hint);
            return None;
        }
        Some(share)
    }

    /// A number of percent above 0, with or without its sign.
    pub(crate) fn percent(&mut self, node: &Node) -> Option<f64> {
        let text = node.scalar().unwrap_or_default();
        let Some(percent) = quantity::percent(text).or_else(|| quantity::decimal(text)) else {
            self.wrong_type(node, "a percentage", "write `25%`");
            return None;
        };
        if percent > 0.0 && quantity::basis_points(percent, 100.0).is_some() {
            return Some(percent);
        }
        let message = format!("{percent}% is out of range");
        let hint = "write a percentage above 0 and up to 100, with at most two decimals";
        self.report(node, Code::OutOfRange, message, hint);
        None
    }

    /// A number of instances, or a percentage of the replicas.
    pub(crate) fn amount(&mut self, node: &Node) -> Option<Amount> {
        const COUNT_MAX: u32 = 1000;
        let text = node.scalar().unwrap_or_default();
        if let Some(percent) = quantity::percent(text) {
            let share = quantity::basis_points(percent, 100.0);
            if share.is_none() {
                let message = format!("{percent}% is out of range");
                self.report(node, Code::OutOfRange, message, "write `0%` to `100%`");
            }
            return share.map(Amount::Share);
        }
        if node.plain().is_some_and(|text| text.parse::<i128>().is_ok()) {
            return self.count(node, 0..=COUNT_MAX).map(Amount::Count);
        }
        self.wrong_type(node, "a number or a percentage", "write `1` or `25%`");
        None
    }

    /// Bytes with a unit.
    pub(crate) fn size(&mut self, node: &Node) -> Option<f64> {
        let text = node.scalar().unwrap_or_default();
        let size = quantity::size(text).filter(|bytes| *bytes > 0.0);
        if size.is_none() {
            let message = format!("expected a size, found {}", found(node));
            self.report(node, Code::Unit, message, "write a size with its unit: `512MiB`");
        }
        size
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, node: &Node, choices: &[(&str, T)]) -> Option<T> {
        let known: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let Some(text) = node.scalar().filter(|_| !node.is_null()) else {
            self.wrong_type(node, "a word", format!("one of: {}", known.join(", ")));
            return None;
        };
        let choice = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if choice.is_none() {
            let hint = suggest::hint(text, &known, "one of");
            self.report(
                node,
                Code::UnknownWord,
                format!("{} is not known here", found(node)),
                hint,
            );
        }
        choice
    }

    /// A checked name.
    pub(crate) fn name<T>(
        &mut self,
        node: &Node,
        check: impl FnOnce(String) -> Result<T, name::Error>,
    ) -> Option<T> {
        let text = self.text(node)?;
        let checked = check(text.clone());
        checked.map_err(|error| self.bad_name(node, &text, &error)).ok()
    }

    /// A name that is a key of a map.
    pub(crate) fn key_name<T>(
        &mut self,
        key: &str,
        value: &Node,
        check: impl FnOnce(String) -> Result<T, name::Error>,
    ) -> Option<T> {
        let at = Node { place: value.key_place, ..Node::empty_map(value) };
        check(key.to_owned()).map_err(|error| self.bad_name(&at, key, &error)).ok()
    }

    fn bad_name(&mut self, node: &Node, text: &str, error: &name::Error) {
        let hint = match error {
            name::Error::Empty => "give it a name".to_owned(),
            name::Error::TooLong => format!("use at most {} characters", name::NAME_LENGTH_MAX),
            name::Error::Character { .. } => match plain_name(text) {
                Some(plain) => format!("write `{plain}`"),
                None => "write a name such as `api` or `v1.2.3`".to_owned(),
            },
        };
        let message = format!("the name `{}` {error}", crate::reader::shortened(text));
        self.report(node, Code::Name, message, hint);
    }
}

/// A name close to the given one that is allowed everywhere.
fn plain_name(text: &str) -> Option<String> {
    let character = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let plain: String = text.chars().map(character).collect();
    let plain = plain.trim_matches('-').to_owned();
    (!plain.is_empty() && plain != text).then_some(plain)
}

fn boolean_hint(node: &Node) -> &'static str {
    match node.scalar().unwrap_or_default().to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" | "1" => "write `true`, without quotes",
        "no" | "off" | "false" | "0" => "write `false`, without quotes",
        _ => "write `true` or `false`",
    }
}

fn duration_hint(text: &str, error: &DurationError) -> String {
    let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    match error {
        DurationError::NeedsUnit if digits == text => {
            format!("write `{digits}s` for seconds, or `{digits}ms`, `{digits}m`, `{digits}h`")
        }
        DurationError::NeedsUnit => "give every number a unit: `1m30s`".to_owned(),
        DurationError::UnknownUnit(unit) => match unit_meant(unit) {
            Some(meant) => format!("write `{digits}{meant}`; units are ms, s, m, h, d"),
            None => "units are ms, s, m, h, d, as in `10s`".to_owned(),
        },
        DurationError::NotADuration => "write a number with a unit: `10s`".to_owned(),
        DurationError::UnitOrder => "write the largest unit first: `1h30m`".to_owned(),
        DurationError::TooFine => "use whole milliseconds: `250ms`".to_owned(),
        DurationError::TooLong => "use at most `30d`".to_owned(),
    }
}

fn unit_meant(unit: &str) -> Option<&'static str> {
    match unit.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "d" | "day" | "days" => Some("d"),
        "ms" | "msec" | "millis" | "milliseconds" | "millisecond" => Some("ms"),
        _ => None,
    }
}
