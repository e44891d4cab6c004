//! Plain text tables.

/// Widest table, in columns of a terminal.
pub const WIDTH_MAX: usize = 160;

/// To which side the cells of a column lean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Draws a table: headings, a rule, rows. Columns are as wide as their widest cell; a row that is
/// shorter than the headings is filled with empty cells, a longer one is cut.
#[must_use]
pub fn draw(headings: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width_of = |column: usize, heading: &str| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .chain([heading.chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, (heading, _))| width_of(column, heading))
        .collect();
    let mut text = String::new();
    let titles: Vec<String> = headings
        .iter()
        .map(|(title, _)| (*title).to_owned())
        .collect();
    line(&mut text, headings, &widths, &titles);
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    line(&mut text, headings, &widths, &rule);
    for row in rows {
        line(&mut text, headings, &widths, row);
    }
    text
}

fn line(text: &mut String, headings: &[(&str, Align)], widths: &[usize], cells: &[String]) {
    let start = text.len();
    for (column, ((_, align), width)) in headings.iter().zip(widths).enumerate() {
        let cell = cells.get(column).map_or("", String::as_str);
        if column > 0 {
            text.push(' ');
        }
        match align {
            Align::Left => text.push_str(&format!("{cell:<width$}")),
            Align::Right => text.push_str(&format!("{cell:>width$}")),
        }
    }
    let end = text.trim_end().len().max(start);
    text.truncate(end);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::{Align, draw};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["a".to_owned(), "12 345".to_owned()],
            vec!["long name".to_owned()],
        ];
        let text = draw(&[("name", Align::Left), ("n", Align::Right)], &rows);
        assert_eq!(
            text,
            "name           n\n───────── ──────\na         12 345\nlong name\n"
        );
    }
}
