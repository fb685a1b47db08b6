//! Cuts a stream of bytes into lines of bounded length.

use super::LINE_BYTES_MAX;

/// Holds the line that has not ended yet; never more than [`LINE_BYTES_MAX`] of it.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    unfinished: Vec<u8>,
    started: bool,
}

impl Lines {
    /// Hands every line that ends in `bytes` to `take`, without its `\n` or `\r\n`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE_BYTES_MAX - self.unfinished.len();
            self.unfinished.extend_from_slice(&text[..text.len().min(room)]);
            self.started = true;
            if ended {
                self.finish(&mut take);
            }
        }
    }

    /// The stream ended: what is left counts as a line.
    pub(crate) fn finish(&mut self, mut take: impl FnMut(&[u8])) {
        if self.started {
            take(self.unfinished.strip_suffix(b"\r").unwrap_or(&self.unfinished));
        }
        self.unfinished.clear();
        self.started = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| found.push(line.to_vec()));
        }
        lines.finish(|line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let expected: Vec<&[u8]> = vec![b"one", b"", b"two", b"rest"];
        assert_eq!(lines(&[b"one\n\ntwo\r\nrest"]), expected);
        let bytes: Vec<&[u8]> = b"one\n\ntwo\r\nrest".chunks(1).collect();
        assert_eq!(lines(&bytes), expected);
        assert!(lines(&[b""]).is_empty());
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_next_one_is_whole() {
        let endless = vec![b'x'; LINE_BYTES_MAX];
        let found = lines(&[&endless, &endless, b"more\nnext\n"]);
        assert_eq!(found, [endless, b"next".to_vec()]);
    }
}
