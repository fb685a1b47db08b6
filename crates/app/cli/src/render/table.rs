//! Aligned columns.

use crate::render::look::{Look, Tone, width};

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// Text, to the left.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, right: false }
    }

    /// A number, to the right.
    pub(crate) fn number(number: impl std::fmt::Display) -> Self {
        Self { text: number.to_string(), tone: Tone::Plain, right: true }
    }

    /// The same in a colour.
    pub(crate) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// Lines of a table; nothing without rows. Columns in which every cell is empty are left out.
pub(crate) fn lines(headers: &[&str], rows: &[Vec<Cell>], look: Look) -> Vec<String> {
    let used = |column: &usize| rows.iter().any(|row| !row[*column].text.is_empty());
    let columns: Vec<usize> = (0..headers.len()).filter(used).collect();
    if columns.is_empty() {
        return Vec::new();
    }
    let widest = |column: usize| {
        let cells = rows.iter().map(|row| width(&row[column].text));
        cells.max().unwrap_or(0).max(width(headers[column]))
    };
    let widths: Vec<usize> = columns.iter().map(|column| widest(*column)).collect();
    let right = |column: usize| rows.iter().all(|row| row[column].right);
    let header: Vec<Cell> = (0..headers.len())
        .map(|column| Cell {
            text: headers[column].to_owned(),
            tone: Tone::Dim,
            right: right(column),
        })
        .collect();
    let line = |row: &Vec<Cell>| {
        let cells =
            columns.iter().zip(&widths).map(|(column, width)| padded(&row[*column], *width, look));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&header).chain(rows).map(line).collect()
}

fn padded(cell: &Cell, columns: usize, look: Look) -> String {
    let space = " ".repeat(columns.saturating_sub(width(&cell.text)));
    let text = look.paint(cell.tone, &cell.text);
    if cell.right { space + &text } else { text + &space }
}

/// The lines, moved to the right.
pub(crate) fn indented(lines: Vec<String>, columns: usize) -> Vec<String> {
    let space = " ".repeat(columns);
    lines.into_iter().map(|line| format!("{space}{line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_empty_ones_vanish() {
        let rows = vec![
            vec![Cell::text("api"), Cell::number(5), Cell::text("")],
            vec![Cell::text("worker"), Cell::number(1200), Cell::text("")],
        ];
        let lines = lines(&["NAME", "COUNT", "REASON"], &rows, Look::PLAIN);
        assert_eq!(lines, ["NAME    COUNT", "api         5", "worker   1200"]);
        assert!(super::lines(&["NAME"], &[], Look::PLAIN).is_empty());
    }

    #[test]
    fn colours_do_not_move_columns() {
        let look = Look { color: true, ..Look::PLAIN };
        let rows = vec![vec![Cell::text("a").tone(Tone::Bad), Cell::text("b")]];
        let lines = lines(&["AAA", "B"], &rows, look);
        assert_eq!(lines[1], "\x1b[31ma\x1b[0m    b");
    }
}
