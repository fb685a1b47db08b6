//! The one place that prints: results to stdout, notes and errors to stderr, a block that is
//! redrawn in place on terminals. A reader that went away is no error: `is_closed` says so.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;
use switchback_api::Problem;

use crate::arguments::Global;
use crate::render::look::{Look, Tone, clip};
use crate::render::problem;

/// Width assumed when the terminal does not say.
const WIDTH_DEFAULT: usize = 100;

/// What results are printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Words.
    Text,
    /// One JSON document.
    Json,
    /// JSON events a line each, then one JSON document.
    JsonEvents,
}

impl Format {
    fn asked_for(global: &Global) -> Self {
        match (global.json, global.events) {
            (false, _) => Self::Text,
            (true, false) => Self::Json,
            (true, true) => Self::JsonEvents,
        }
    }
}

/// Where everything goes that a user sees.
pub(crate) struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    look: Look,
    error_look: Look,
    interactive: bool,
    format: Format,
    quiet: bool,
    /// The block drawn last: it is taken away before anything else is printed.
    block: Vec<String>,
    closed: bool,
}

impl Output {
    /// Standard output and error, as the terminal, the environment and the options want it.
    pub(crate) fn standard(global: &Global) -> Self {
        let plain = global.plain || set("NO_COLOR") || is("TERM", "dumb");
        let look = |terminal: bool| Look {
            color: terminal && !plain,
            utf8: speaks_utf8(),
            width: if terminal { terminal_width() } else { usize::MAX },
        };
        let terminal = io::stdout().is_terminal();
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            look: look(terminal),
            error_look: look(io::stderr().is_terminal()),
            interactive: terminal && !plain && !global.json,
            format: Format::asked_for(global),
            quiet: global.quiet,
            block: Vec::new(),
            closed: false,
        }
    }

    /// How results look.
    pub(crate) fn look(&self) -> Look {
        self.look
    }

    /// Whether a block can be redrawn in place.
    pub(crate) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Whether the reader has gone away: nobody is left to print for.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Prints lines of a result, unless results are JSON.
    pub(crate) fn lines(&mut self, lines: impl IntoIterator<Item = impl AsRef<str>>) {
        if self.format != Format::Text {
            return;
        }
        self.above_block(|output| {
            for line in lines {
                let _ = output.out(&format!("{}\n", line.as_ref()));
            }
        });
    }

    /// Prints one line of a result, unless results are JSON.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.lines([line]);
    }

    /// Prints one line on the way to a result, unless quiet.
    pub(crate) fn progress(&mut self, line: impl AsRef<str>) {
        if !self.quiet {
            self.lines([line]);
        }
    }

    /// Prints what else a user should know, to stderr, unless quiet.
    pub(crate) fn note(&mut self, text: impl AsRef<str>) {
        if self.quiet {
            return;
        }
        let text = self.error_look.paint(Tone::Dim, text.as_ref());
        self.above_block(|output| {
            let _ = writeln!(output.err, "{text}");
        });
    }

    /// Prints text as it is: a script, a schema, a page.
    pub(crate) fn raw(&mut self, text: &str) {
        let _ = self.out(text);
    }

    /// Prints the result as a JSON document on one line, when results are JSON.
    pub(crate) fn document(&mut self, document: &impl Serialize) {
        if self.format != Format::Text {
            self.json_line(document);
        }
    }

    /// Prints an event as a JSON line, when they were asked for.
    pub(crate) fn event(&mut self, event: &impl Serialize) {
        if self.format == Format::JsonEvents {
            self.json_line(event);
        }
    }

    /// Prints an error: words to stderr, and the JSON document that is expected last.
    pub(crate) fn problem(&mut self, problem: &Problem) {
        self.finish_block();
        self.document(problem);
        for line in problem::lines(problem, self.error_look) {
            let _ = writeln!(self.err, "{line}");
        }
    }

    /// Draws a block in the place of the last one. Only for interactive output.
    pub(crate) fn draw(&mut self, block: &[String]) {
        if !self.interactive || self.quiet {
            return;
        }
        let width = self.look.width;
        let block: Vec<String> = block.iter().map(|line| clip(line, width)).collect();
        let mut text = erase(self.block.len());
        for line in &block {
            text.push_str(line);
            text.push('\n');
        }
        let _ = self.out(&text);
        self.block = block;
    }

    /// Takes the block away for good.
    pub(crate) fn finish_block(&mut self) {
        if !self.block.is_empty() {
            let text = erase(self.block.len());
            let _ = self.out(&text);
            self.block.clear();
        }
    }

    /// Prints something that stays, above the block.
    fn above_block(&mut self, print: impl FnOnce(&mut Self)) {
        let block = std::mem::take(&mut self.block);
        let _ = self.out(&erase(block.len()));
        print(self);
        if !block.is_empty() {
            self.draw(&block);
        }
    }

    fn json_line(&mut self, document: &impl Serialize) {
        if let Ok(text) = serde_json::to_string(document) {
            let _ = self.out(&format!("{text}\n"));
        }
    }

    fn out(&mut self, text: &str) -> io::Result<()> {
        let result = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        self.closed |= result.is_err();
        result
    }
}

/// Moves up over `lines` lines and clears from there.
fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn is(name: &str, value: &str) -> bool {
    std::env::var_os(name).is_some_and(|found| found == value)
}

/// Whether the locale can show more than ASCII: the first of these that is set decides.
fn speaks_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.map(|size| usize::from(size.ws_col)).ok().filter(|w| *w > 0).unwrap_or(WIDTH_DEFAULT)
}

#[cfg(test)]
pub(crate) mod testing {
    //! An output whose text a test reads back.

    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// What was printed.
    #[derive(Clone, Default)]
    pub(crate) struct Printed(Rc<RefCell<Vec<u8>>>);

    impl Printed {
        /// As text.
        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.borrow()).into_owned()
        }
    }

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output with its stdout and stderr.
    pub(crate) fn output(global: &Global, interactive: bool) -> (Output, Printed, Printed) {
        let (out, err) = (Printed::default(), Printed::default());
        let look = Look { width: 40, ..Look::PLAIN };
        let output = Output {
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            look,
            error_look: look,
            interactive,
            format: Format::asked_for(global),
            quiet: global.quiet,
            block: Vec::new(),
            closed: false,
        };
        (output, out, err)
    }
}

#[cfg(test)]
mod tests {
    use switchback_api::code;

    use super::testing::output;
    use super::*;

    #[test]
    fn a_block_is_redrawn_in_place_and_lines_go_above_it() {
        let (mut output, out, _) = output(&Global::default(), true);
        output.draw(&["one".to_owned(), "two".to_owned()]);
        output.line("said");
        output.draw(&["three".to_owned()]);
        output.finish_block();
        let expected = "one\ntwo\n\x1b[2A\x1b[Jsaid\none\ntwo\n\x1b[2A\x1b[Jthree\n\x1b[1A\x1b[J";
        assert_eq!(out.text(), expected);
    }

    #[test]
    fn json_prints_documents_only_and_events_when_asked() {
        let json = Global { json: true, ..Global::default() };
        let (mut output, out, _) = output(&json, false);
        output.line("words");
        output.event(&1);
        output.document(&serde_json::json!({"a": 1}));
        assert_eq!(out.text(), "{\"a\":1}\n");
    }

    #[test]
    fn an_error_is_said_on_stderr_and_is_the_json_document_too() {
        let json = Global { json: true, quiet: true, ..Global::default() };
        let (mut output, out, err) = output(&json, false);
        output.note("quiet");
        output.problem(&code::NOT_RUNNING.problem("nobody"));
        assert!(out.text().contains("\"code\":\"SB0201\""));
        assert!(err.text().starts_with("error[SB0201]: nobody"), "{}", err.text());
    }
}
