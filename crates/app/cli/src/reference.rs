//! What is made from the command line itself: completions, man pages, and the reference pages
//! under version control. Deterministic: equal builds write equal bytes.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use switchback_api::{Problem, code, exit};

use crate::arguments::Arguments;
use crate::{configuration, error_pages};

/// Names of files and what is in them.
pub(crate) type Files = Vec<(String, String)>;

/// The completion script for a shell.
pub(crate) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "switchback", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// A man page for the binary and each command.
pub(crate) fn man_pages() -> Result<Files, Problem> {
    let mut root = Arguments::command();
    root.build();
    let mut pages = vec![("switchback.1".to_owned(), man_page(&root)?)];
    for command in root.get_subcommands().filter(|command| is_shown(command)) {
        let name = format!("switchback-{}", command.get_name());
        let named = command.clone().display_name(&name);
        pages.push((format!("{name}.1"), man_page(&named)?));
    }
    Ok(pages)
}

fn man_page(command: &Command) -> Result<String, Problem> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page);
    rendered.map_err(|error: io::Error| code::INTERNAL.problem(error.to_string()))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The files under version control: CLI reference, JSON schema, error index.
pub(crate) fn files() -> Files {
    vec![
        ("cli.md".to_owned(), markdown()),
        ("switchback.schema.json".to_owned(), configuration::schema()),
        ("errors.md".to_owned(), error_index()),
    ]
}

/// Writes files into a directory.
pub(crate) fn write_all(directory: &Path, files: &Files) -> Result<(), Problem> {
    let wrong = |error: io::Error| {
        let message = format!("{} cannot be written: {error}", directory.display());
        code::CANNOT_WRITE.problem(message)
    };
    fs::create_dir_all(directory).map_err(wrong)?;
    for (name, content) in files {
        fs::write(directory.join(name), content).map_err(wrong)?;
    }
    Ok(())
}

const GENERATED: &str = "<!-- Written by `switchback generate`; change the source instead. -->";

/// The command line as a page.
fn markdown() -> String {
    let mut root = Arguments::command();
    root.build();
    let mut page = format!("# Command line\n\n{GENERATED}\n\n{}\n", about(&root));
    page.push_str("\n| Command | What it does |\n| --- | --- |\n");
    for command in root.get_subcommands().filter(|command| is_shown(command)) {
        let name = command.get_name();
        let _ = writeln!(page, "| [`{name}`](#switchback-{name}) | {} |", about(command));
    }
    page.push_str("\n## Options of every command\n\n");
    arguments(&mut page, root.get_arguments().filter(|arg| arg.is_global_set()));
    page.push_str("\n## Exit codes\n\n| Code | Meaning |\n| --- | --- |\n");
    for (code, meaning) in exit::ALL {
        let _ = writeln!(page, "| {code} | {meaning} |");
    }
    page.push_str("\n2 is never used: shells and test runners mean their own things by it.\n");
    for command in root.get_subcommands().filter(|command| is_shown(command)) {
        section(&mut page, command);
    }
    page
}

fn section(page: &mut String, command: &Command) {
    let name = command.get_name();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let _ =
        write!(page, "\n## switchback {name}\n\n{}.\n\n```text\n{usage}\n```\n", about(command));
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && arg.get_id() != "help")
        .collect();
    if !own.is_empty() {
        page.push('\n');
        arguments(page, own.into_iter());
    }
}

/// A table of arguments.
fn arguments<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    page.push_str("| Argument | Meaning |\n| --- | --- |\n");
    for arg in arguments.filter(|arg| !arg.is_hide_set()) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ =
            writeln!(page, "| `{}` | {}{} |", spelled(arg), help.replace('|', "\\|"), values(arg));
    }
}

/// `-w, --watch` or `--to <REVISION>` or `<SERVICE>`.
fn spelled(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let value = names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ");
    let mut text = String::new();
    if let Some(short) = arg.get_short() {
        let _ = write!(text, "-{short}, ");
    }
    match arg.get_long() {
        Some(long) if takes => format!("{text}--{long} {value}"),
        Some(long) => format!("{text}--{long}"),
        None => value,
    }
    .replace('|', "\\|")
}

/// The words an argument takes, and its default.
fn values(arg: &Arg) -> String {
    let mut text = String::new();
    let words = arg.get_possible_values();
    if arg.get_action().takes_values() && !words.is_empty() {
        let words: Vec<String> =
            words.iter().map(|word| format!("`{}`", word.get_name())).collect();
        let _ = write!(text, "; one of {}", words.join(", "));
    }
    if let [default] = arg.get_default_values()
        && arg.get_action().takes_values()
    {
        let _ = write!(text, "; otherwise `{}`", default.to_string_lossy());
    }
    text
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

/// Every error code with its title.
fn error_index() -> String {
    let mut page = format!(
        "# Error codes\n\n{GENERATED}\n\n`switchback explain SB0201` prints a page.\n\n\
         | Code | What it is about |\n| --- | --- |\n"
    );
    for (code, text) in error_pages::ALL {
        let _ = writeln!(page, "| [{code}](../errors/{code}.md) | {} |", error_pages::title(text));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_the_same_each_time_and_names_every_command() {
        assert_eq!(files(), files());
        let page = markdown();
        let root = Arguments::command();
        for command in root.get_subcommands() {
            let named = page.contains(&format!("\n## switchback {}\n", command.get_name()));
            assert_eq!(named, is_shown(command), "{}", command.get_name());
        }
        assert!(page.contains("`--to <REVISION>`"), "{page}");
        assert!(page.contains("one of `rolling`, `blue-green`, `canary`"), "{page}");
        assert!(error_index().contains("| [SB0201](../errors/SB0201.md) |"));
    }

    #[test]
    fn every_shell_gets_completions_with_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(shell);
            for command in ["deploy", "rollback", "explain", "ledger"] {
                assert!(script.contains(command), "{shell}: {command}");
            }
        }
    }

    #[test]
    fn man_pages_are_roff_and_hidden_commands_have_none() {
        let pages = man_pages().unwrap();
        assert!(pages.iter().all(|(_, page)| page.contains(".TH ")));
        let named = |name: &str| pages.iter().any(|(file, _)| file == name);
        assert!(named("switchback.1") && named("switchback-deploy.1"));
        assert!(!named("switchback-control.1") && !named("switchback-help.1"));
    }
}
