//! The one table: columns with priorities that drop on narrow screens, a heading, and as many rows
//! as fit. Only the rows that are seen are formatted.

use ratatui::Frame;
use ratatui::layout::Rect;

use crate::model::list::List;
use crate::text;
use crate::theme::{Role, Theme};

/// A column as it wants to be drawn.
#[derive(Debug, Clone, Copy)]
pub struct Column<C> {
    /// Which.
    pub id: C,
    /// Its heading.
    pub title: &'static str,
    /// The narrowest that is useful, in columns of the terminal.
    pub min: u16,
    /// What its content usually needs: given before a column that is merely nice to have gets any.
    pub usual: u16,
    /// The widest that is useful.
    pub max: u16,
    /// The order in which columns get room: 0 is never dropped.
    pub rank: u8,
    /// Whether it is set flush right.
    pub right: bool,
}

/// Shorthand for a column.
pub const fn column<C>(id: C, title: &'static str, min: u16, max: u16, rank: u8) -> Column<C> {
    Column { id, title, min, usual: min, max, rank, right: false }
}

/// The same, set flush right.
pub const fn number<C>(id: C, title: &'static str, min: u16, max: u16, rank: u8) -> Column<C> {
    Column { id, title, min, usual: min, max, rank, right: true }
}

/// From this rank on a column is merely nice to have.
const NICE: u8 = 6;

impl<C: Copy> Column<C> {
    /// The same column, whose content usually needs `usual`.
    pub const fn usually(self, usual: u16) -> Self {
        Self { usual, ..self }
    }
}

/// Which columns fit into `width`, and how wide each is, in their order on the screen.
pub fn fit<C: Copy>(columns: &[Column<C>], width: u16) -> Vec<(Column<C>, u16)> {
    let mut ranked: Vec<usize> = (0..columns.len()).collect();
    ranked.sort_by_key(|i| columns.get(*i).map(|c| c.rank));
    let mut left = width;
    let mut widths: Vec<Option<u16>> = vec![None; columns.len()];
    let mut wanted = 0;
    for &i in &ranked {
        let Some(column) = columns.get(i) else {
            continue;
        };
        let gap = u16::from(left < width);
        let reserved = if column.rank < NICE { 0 } else { wanted };
        if column.min + gap + reserved > left {
            if column.rank > 0 {
                break;
            }
            continue;
        }
        left -= column.min + gap;
        wanted += column.usual - column.min;
        if let Some(slot) = widths.get_mut(i) {
            *slot = Some(column.min);
        }
    }
    for &i in &ranked {
        if let (Some(column), Some(Some(slot))) = (columns.get(i), widths.get_mut(i)) {
            let more = (column.usual - *slot).min(left);
            *slot += more;
            left -= more;
        }
    }
    // What is left goes round, so that no column takes all of it.
    loop {
        let before = left;
        for &i in &ranked {
            if let (Some(column), Some(Some(slot))) = (columns.get(i), widths.get_mut(i))
                && left > 0
                && *slot < column.max
            {
                *slot += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    let fitted = columns.iter().zip(widths);
    fitted.filter_map(|(c, w)| Some((*c, w?))).collect()
}

/// What stands in one cell: pieces of text, each with its meaning.
#[derive(Debug, Clone, Default)]
pub struct Cell(Vec<(String, Role)>);

impl Cell {
    /// Text of one meaning.
    pub fn new(text: impl Into<String>, role: Role) -> Self {
        Self(vec![(text.into(), role)])
    }

    /// Plain text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Role::Text)
    }

    /// Text that matters less.
    pub fn dim(text: impl Into<String>) -> Self {
        Self::new(text, Role::Dim)
    }

    /// With a further piece.
    pub fn then(mut self, text: impl Into<String>, role: Role) -> Self {
        self.0.push((text.into(), role));
        self
    }
}

/// How the table is drawn.
#[derive(Debug)]
pub struct Look<'a> {
    /// The colours.
    pub theme: &'a Theme,
    /// Whether the data may be out of date.
    pub stale: bool,
}

/// Draws the heading and the visible rows of `list`.
pub fn draw<C: Copy, K: Ord + Clone>(
    frame: &mut Frame<'_>,
    area: Rect,
    look: &Look<'_>,
    columns: &[Column<C>],
    arrow: impl Fn(C) -> &'static str,
    list: &List<K>,
    cell: impl Fn(&K, C) -> Cell,
) {
    let theme = look.theme;
    // One column at the left belongs to the marks.
    let columns = fit(columns, area.width.saturating_sub(1));
    let header = theme.get(Role::Header);
    let buffer = frame.buffer_mut();
    buffer.set_style(Rect { height: 1, ..area }, header);
    let mut x = area.x + 1;
    for (column, width) in &columns {
        let title = format!("{}{}", column.title, arrow(column.id));
        let title = align(&title, usize::from(*width), column.right);
        buffer.set_string(x, area.y, title, header);
        x += width + 1;
    }
    let rows = usize::from(area.height.saturating_sub(1));
    for (y, (selected, key)) in (area.y + 1..).zip(list.visible().take(rows)) {
        let marked = list.is_marked(key);
        let whole = Rect { y, height: 1, ..area };
        if marked {
            buffer.set_string(area.x, y, "*", theme.get(Role::Marked));
        }
        let mut x = area.x + 1;
        for (column, width) in &columns {
            let Cell(pieces) = cell(key, column.id);
            let mut room = usize::from(*width);
            let mut at = x;
            let single = pieces.len() == 1;
            for (piece, role) in pieces {
                let fitted = match single {
                    true => align(&piece, room, column.right),
                    false => text::fit(&piece, text::width(&text::clean(&piece)).min(room)),
                };
                let taken = text::width(&fitted);
                let role = match (look.stale, marked) {
                    (true, _) => Role::Dim,
                    (false, true) => Role::Marked,
                    (false, false) => role,
                };
                buffer.set_string(at, y, fitted, theme.get(role));
                at += u16::try_from(taken).unwrap_or(u16::MAX);
                room = room.saturating_sub(taken);
            }
            x += width + 1;
        }
        if selected {
            buffer.set_style(whole, theme.get(Role::Selected));
        }
    }
}

fn align(piece: &str, width: usize, right: bool) -> String {
    match right {
        true => text::fit_right(piece, width),
        false => text::fit(piece, width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<char>; 3] =
        [column('a', "A", 5, 10, 0), column('b', "B", 10, 20, 2), number('c', "C", 4, 4, 1)];

    fn widths(width: u16) -> Vec<(char, u16)> {
        fit(&COLUMNS, width).iter().map(|(c, w)| (c.id, *w)).collect()
    }

    #[test]
    fn columns_drop_by_rank_and_grow_together() {
        assert_eq!(widths(5), [('a', 5)]);
        assert_eq!(widths(10), [('a', 5), ('c', 4)]);
        assert_eq!(widths(20), [('a', 10), ('c', 4)]);
        assert_eq!(widths(21), [('a', 5), ('b', 10), ('c', 4)]);
        assert_eq!(widths(28), [('a', 9), ('b', 13), ('c', 4)]);
        assert_eq!(widths(90), [('a', 10), ('b', 20), ('c', 4)]);
    }
}
