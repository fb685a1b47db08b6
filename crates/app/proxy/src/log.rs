//! The data plane's few words, on standard error: its supervisor keeps them in a file.

use std::io::Write;

/// Writes one line. A full disk must not stop traffic, so failing to write is nothing.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "switchback proxy: {text}");
}
