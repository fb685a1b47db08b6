//! Colours, symbols and widths: what a terminal can show.

use switchback_domain::{InstanceHealth, Outcome, Weight};

/// How text may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether escape sequences for colours are welcome.
    pub(crate) color: bool,
    /// Whether more than ASCII can be shown.
    pub(crate) utf8: bool,
    /// Columns.
    pub(crate) width: usize,
}

/// What a piece of text says by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// All is well.
    Good,
    /// Something failed.
    Bad,
    /// Not yet, or not quite.
    Warn,
    /// Beside the point.
    Dim,
    /// The point.
    Strong,
}

impl Look {
    /// No colours, ASCII only.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { color: false, utf8: false, width: 100 };

    /// The text in a colour.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let sequence = match tone {
            Tone::Plain => "",
            Tone::Good => "\x1b[32m",
            Tone::Bad => "\x1b[31m",
            Tone::Warn => "\x1b[33m",
            Tone::Dim => "\x1b[2m",
            Tone::Strong => "\x1b[1m",
        };
        if !self.color || sequence.is_empty() || text.is_empty() {
            return text.to_owned();
        }
        format!("{sequence}{text}\x1b[0m")
    }

    /// Between what was and what will be.
    pub(crate) fn arrow(self) -> &'static str {
        if self.utf8 { "→" } else { "->" }
    }

    /// Between two facts on a line.
    pub(crate) fn dot(self) -> &'static str {
        if self.utf8 { "·" } else { "-" }
    }

    /// Before something that went well, or not, or is open.
    pub(crate) fn mark(self, tone: Tone) -> String {
        let (utf8, ascii) = match tone {
            Tone::Good => ("✓", "+"),
            Tone::Bad => ("✗", "x"),
            Tone::Warn => ("?", "?"),
            Tone::Plain | Tone::Dim | Tone::Strong => ("·", "."),
        };
        self.paint(tone, if self.utf8 { utf8 } else { ascii })
    }

    /// A share as a bar of so many cells. A share above zero shows at least one.
    pub(crate) fn bar(self, weight: Weight, cells: usize) -> String {
        let points = usize::from(weight.basis_points());
        let full = (points * cells + 5_000) / 10_000;
        let full = if points > 0 { full.max(1) } else { 0 };
        let (on, off) = if self.utf8 { ("█", "░") } else { ("#", ".") };
        format!("{}{}", on.repeat(full), off.repeat(cells - full))
    }
}

/// The colour of what a judge says.
pub(crate) fn outcome_tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Regressed => Tone::Bad,
        Outcome::Safe => Tone::Good,
        Outcome::Undecided => Tone::Warn,
    }
}

/// The word and colour for how an instance does.
pub(crate) fn health(health: InstanceHealth) -> (&'static str, Tone) {
    match health {
        InstanceHealth::Starting => ("starting", Tone::Warn),
        InstanceHealth::Ready => ("ready", Tone::Good),
        InstanceHealth::Unready => ("unready", Tone::Bad),
        InstanceHealth::Exited => ("exited", Tone::Bad),
        InstanceHealth::CrashLoop => ("crash loop", Tone::Bad),
        InstanceHealth::Stopping => ("stopping", Tone::Dim),
    }
}

/// Text from outside on one line: control characters, which could move the cursor or change the
/// terminal, become spaces or question marks.
pub(crate) fn clean(text: &str) -> String {
    let tame = |found: char| match found {
        '\t' | '\n' | '\r' => ' ',
        _ if found.is_control() => '?',
        _ => found,
    };
    text.trim_end().chars().map(tame).collect()
}

/// Columns a text takes: escape sequences take none.
pub(crate) fn width(text: &str) -> usize {
    visible(text).filter(|(_, visible)| *visible).count()
}

/// The text cut to so many columns, colours ended.
pub(crate) fn clip(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns;
    let mut clipped = String::new();
    for (found, is_visible) in visible(text) {
        if is_visible && left == 0 {
            break;
        }
        left -= usize::from(is_visible);
        clipped.push(found);
    }
    if text.contains('\x1b') {
        clipped.push_str("\x1b[0m");
    }
    clipped
}

/// Characters with whether they take a column. Our escape sequences all end with `m`.
fn visible(text: &str) -> impl Iterator<Item = (char, bool)> + '_ {
    let mut escaped = false;
    text.chars().map(move |found| {
        escaped |= found == '\x1b';
        let is_visible = !escaped;
        escaped &= found != 'm';
        (found, is_visible)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOR: Look = Look { color: true, utf8: true, width: 80 };

    #[test]
    fn colours_only_where_welcome() {
        assert_eq!(Look::PLAIN.paint(Tone::Bad, "x"), "x");
        assert_eq!(COLOR.paint(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!((Look::PLAIN.arrow(), COLOR.arrow()), ("->", "→"));
    }

    #[test]
    fn bars_show_small_shares_and_whole_ones() {
        let bar = |percent| Look::PLAIN.bar(Weight::from_percent(percent), 10);
        assert_eq!(bar(0), "..........");
        assert_eq!(bar(1), "#.........");
        assert_eq!(bar(25), "###.......");
        assert_eq!(bar(100), "##########");
    }

    #[test]
    fn widths_and_cuts_do_not_count_escapes() {
        let text = format!("{} tail", COLOR.paint(Tone::Good, "ready"));
        assert_eq!(width(&text), 10);
        assert_eq!(clip(&text, 3), "\x1b[32mrea\x1b[0m");
        assert_eq!(clip("short", 10), "short");
        assert_eq!(clip("→→→", 2), "→→");
    }

    #[test]
    fn what_services_print_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\tc\r\n"), "a?[2Jb c");
        assert_eq!(clean("ü → \u{9b}x"), "ü → ?x");
    }
}
