//! The evidence over time against the line it has to reach: in the terminal, and as SVG.

use crate::render::look::{Look, Tone};
use crate::replay::{Point, Story};

/// Rows and columns of the terminal's chart.
const ROWS: usize = 8;
const COLUMNS: usize = 60;
/// What the SVG measures, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 48.0;
/// Evidence below this is drawn there: how good a good version looks does not matter.
const LOWEST: f64 = -3.0;

/// What is drawn: the end of time, and the largest evidence.
struct Frame {
    end_ms: u64,
    top: f64,
}

impl Frame {
    fn of(story: &Story) -> Self {
        let highest = story.points.iter().map(|point| point.together);
        let top = highest.fold(story.evidence.line, f64::max) * 1.1;
        Self { end_ms: story.points.last().map_or(1, |point| point.at_ms.max(1)), top }
    }

    /// 0 at the beginning, 1 at the end.
    #[allow(clippy::cast_precision_loss, reason = "rollouts end within 2^52 milliseconds")]
    fn across(&self, at_ms: u64) -> f64 {
        at_ms as f64 / self.end_ms as f64
    }

    /// 0 at the lowest, 1 at the top.
    fn up(&self, evidence: f64) -> f64 {
        (evidence.max(LOWEST) - LOWEST) / (self.top - LOWEST)
    }
}

/// A small chart: a column is the strongest evidence of its time.
pub(crate) fn terminal(story: &Story, look: Look) -> Vec<String> {
    if story.points.is_empty() {
        return Vec::new();
    }
    let frame = Frame::of(story);
    let mut columns = [None::<f64>; COLUMNS];
    for point in &story.points {
        let column = &mut columns[cell(frame.across(point.at_ms), COLUMNS)];
        *column = Some(column.map_or(point.together, |highest| highest.max(point.together)));
    }
    let line = cell(frame.up(story.evidence.line), ROWS);
    let (dot, dash) = if look.utf8 { ("●", "─") } else { ("*", "-") };
    let row = |row: usize| {
        let cells = columns.iter().map(|column| match column {
            Some(evidence) if cell(frame.up(*evidence), ROWS) == row => dot,
            Some(_) | None if row == line => dash,
            Some(_) | None => " ",
        });
        let label =
            if row == line { format!("{:5.1}", story.evidence.line) } else { String::new() };
        let tone = if row >= line { Tone::Bad } else { Tone::Plain };
        let text = cells.collect::<String>();
        format!("  {label:>6} {}", look.paint(tone, text.trim_end()))
    };
    let mut lines: Vec<String> = (0..ROWS).rev().map(row).collect();
    let end = crate::render::when::took(frame.end_ms);
    lines.push(format!("  {:>6} 0s{end:>width$}", "ln E", width = COLUMNS - 2));
    lines
}

/// The cell of a share from 0 to 1.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares are 0 to 1, cells are few"
)]
fn cell(share: f64, cells: usize) -> usize {
    ((share * cells as f64) as usize).min(cells - 1)
}

/// A drawing: all evidence, that of errors and of latency, and the line.
pub(crate) fn svg(story: &Story) -> String {
    let frame = Frame::of(story);
    let x = |at_ms: u64| MARGIN + frame.across(at_ms) * (WIDTH - 2.0 * MARGIN);
    let y = |evidence: f64| HEIGHT - MARGIN - frame.up(evidence) * (HEIGHT - 2.0 * MARGIN);
    let path = |of: fn(&Point) -> f64| {
        let points = story.points.iter();
        let points = points.map(|point| format!("{:.1},{:.1}", x(point.at_ms), y(of(point))));
        points.collect::<Vec<_>>().join(" ")
    };
    let curve = |points: String, color: &str, name: &str, place: f64| {
        format!(
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" points=\"{points}\"/>\n\
             <text x=\"{place}\" y=\"20\" fill=\"{color}\">{name}</text>\n"
        )
    };
    let line = y(story.evidence.line);
    let (right, bottom) = (WIDTH - MARGIN, HEIGHT - MARGIN);
    let end = crate::render::when::took(frame.end_ms);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <line x1=\"{MARGIN}\" y1=\"{line:.1}\" x2=\"{right}\" y2=\"{line:.1}\" stroke=\"#c00\" \
         stroke-dasharray=\"6 4\"/>\n\
         <text x=\"4\" y=\"{line:.1}\" fill=\"#c00\">{:.1}</text>\n\
         <text x=\"{MARGIN}\" y=\"{}\">0s</text>\n\
         <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{end}</text>\n\
         <text x=\"{MARGIN}\" y=\"20\">{}: ln evidence against the new version</text>\n",
        story.evidence.line,
        bottom + 20.0,
        bottom + 20.0,
        story.rollout,
    );
    text += &curve(path(|point| point.latency), "#58a", "latency", 520.0);
    text += &curve(path(|point| point.errors), "#c80", "errors", 460.0);
    text += &curve(path(|point| point.together), "#000", "together", 590.0);
    text + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn the_chart_climbs_to_the_line() {
        let story = samples::story();
        let lines = terminal(&story, Look::PLAIN);
        assert_eq!(lines.len(), ROWS + 1);
        assert!(lines[0].contains('*'), "it ends above the line: {lines:#?}");
        assert!(
            lines.iter().any(|line| line.contains("--") && line.contains(" 4.6")),
            "{lines:#?}"
        );
        assert!(lines[ROWS].contains("0s"));
    }

    #[test]
    fn the_drawing_is_well_formed() {
        let text = svg(&samples::story());
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        assert_eq!(text.matches("<polyline").count(), 3);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
