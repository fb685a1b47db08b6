//! Log lines of instances.

use switchback_api::LogEntry;

use crate::render::look::{Look, Tone, clean};
use crate::render::when;

/// Time (UTC), instance and line; what is not the service's stdout is marked.
pub(crate) fn line(entry: &LogEntry, look: Look) -> String {
    let tone = match entry.stream.as_str() {
        "stderr" => Tone::Warn,
        "switchback" => Tone::Dim,
        _ => Tone::Plain,
    };
    let mark = match entry.stream.as_str() {
        "stdout" => "|",
        "stderr" => "!",
        _ => "*",
    };
    let head = format!("{}Z {}", when::time(entry.at_ms), clean(&entry.instance));
    let text = look.paint(tone, &clean(&entry.text));
    format!("{} {mark} {text}", look.paint(Tone::Dim, &head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn a_line_names_its_instance_and_stream() {
        let mut entry = samples::log_entry();
        assert_eq!(
            line(&entry, Look::PLAIN),
            "00:00:12.300Z production.api.4e5f6a7b.0 | listening on 40001"
        );
        entry.stream = "stderr".to_owned();
        entry.text = "\x1b[31moh\x1b[0m".to_owned();
        assert!(line(&entry, Look::PLAIN).ends_with("! ?[31moh?[0m"));
    }
}
