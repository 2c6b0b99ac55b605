//! Aligned columns without borders, for people and for `awk` alike.

use anstyle::Style;

use crate::cli::error::CliError;
use crate::cli::output::{BOLD, Output};

const GAP: usize = 2;

#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        let text = text.into();
        // An empty cell would shift the columns of whoever splits on blanks.
        let text = if text.is_empty() { "-".to_owned() } else { text };
        Self { text, style: Style::new() }
    }
}

impl Table {
    pub(crate) fn new(header: impl Into<Vec<&'static str>>) -> Self {
        Self { header: header.into(), rows: vec![] }
    }

    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    pub(crate) fn print(&self, out: &Output) -> Result<(), CliError> {
        out.raw(self.render(out).as_bytes())
    }

    fn render(&self, out: &Output) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let mut text = String::new();
        let header = self.header.iter().map(|name| (*name, BOLD));
        line(&mut text, out, &widths, header);
        for row in &self.rows {
            line(&mut text, out, &widths, row.iter().map(|cell| (cell.text.as_str(), cell.style)));
        }
        text
    }
}

/// Padding comes after the colours, and the last column has none: no trailing blanks.
fn line<'a>(
    text: &mut String,
    out: &Output,
    widths: &[usize],
    cells: impl ExactSizeIterator<Item = (&'a str, Style)>,
) {
    let last = cells.len().saturating_sub(1);
    for (column, (cell, style)) in cells.enumerate() {
        text.push_str(&out.paint(style, cell));
        if column < last {
            let width = widths.get(column).copied().unwrap_or(0) + GAP;
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    text.push('\n');
}

/// `key   value` lines.
pub(crate) fn pairs(
    out: &Output,
    pairs: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<(), CliError> {
    let pairs: Vec<_> = pairs.into_iter().collect();
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + GAP;
    let text = pairs.iter().fold(String::new(), |text, (key, value)| {
        let pad = " ".repeat(width - key.len());
        text + &out.paint(BOLD, key) + &pad + value + "\n"
    });
    out.raw(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{ColorChoice, GREEN};

    fn table() -> Table {
        let mut table = Table::new(["NAME", "STATE", "IMAGE"]);
        table.row(["web".into(), Cell::styled("running", GREEN), "debian".into()]);
        table.row(["a-long-name".into(), "stopped".into(), "".into()]);
        table
    }

    #[test]
    fn columns_align_and_nothing_trails() {
        let plain = Output::new(ColorChoice::Never, false, false);
        let expected = "\
NAME         STATE    IMAGE
web          running  debian
a-long-name  stopped  -
";
        assert_eq!(table().render(&plain), expected);
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let colored = Output::new(ColorChoice::Always, false, false);
        let text = table().render(&colored);
        assert!(text.contains("web          \x1b[32mrunning\x1b[0m  debian\n"), "{text:?}");
    }
}
