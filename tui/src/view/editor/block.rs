//! Several lines of text with a cursor. Drawn here and not by the widget of the text area, which
//! would send invisible characters to the terminal as they are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_segmentation::UnicodeSegmentation;

use crate::model::editor::form::Block;
use crate::text;
use crate::theme::{Role, Theme};

/// Where tabs stop.
const TAB: usize = 4;

/// A piece of a line: where it is drawn and what it was.
struct Piece<'a> {
    row: usize,
    col: usize,
    shown: std::borrow::Cow<'a, str>,
    /// Whether it is a stand-in for something invisible.
    control: bool,
    /// Characters of the line before it, and in it.
    chars: std::ops::Range<usize>,
}

/// Lays a line out in rows of `cols` columns.
fn pieces(line: &str, cols: usize) -> impl Iterator<Item = Piece<'_>> {
    let (mut row, mut col, mut chars) = (0, 0, 0);
    line.graphemes(true).map(move |grapheme| {
        let (shown, wide) = if grapheme == "\t" {
            let wide = TAB - col % TAB;
            (" ".repeat(wide).into(), wide)
        } else {
            let shown = text::clean(grapheme);
            let wide = text::width(&shown);
            (shown, wide)
        };
        if col + wide > cols && col > 0 {
            (row, col) = (row + 1, 0);
        }
        let piece = Piece {
            row,
            col,
            control: grapheme != "\t" && *shown != *grapheme,
            shown,
            chars: chars..chars + grapheme.chars().count(),
        };
        (col, chars) = (col + wide, piece.chars.end);
        piece
    })
}

/// The rows of a line, with room for the cursor at its end.
fn height(line: &str, cols: usize) -> usize {
    if line.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return line.len() / cols + 1;
    }
    let last = pieces(line, cols).last();
    last.map_or(1, |p| {
        let end = p.col + text::width(&p.shown);
        p.row + 1 + usize::from(end >= cols)
    })
}

/// The row and column of a place in a line.
fn spot(line: &str, cols: usize, at: usize) -> (usize, usize) {
    let mut end = (0, 0);
    for piece in pieces(line, cols) {
        if piece.chars.contains(&at) {
            return (piece.row, piece.col);
        }
        end = (piece.row, piece.col + text::width(&piece.shown));
    }
    if end.1 >= cols { (end.0 + 1, 0) } else { end }
}

/// Draws the rows around the cursor; the style of the place stays beneath.
pub(super) fn draw(buf: &mut Buffer, place: Rect, block: &Block, focused: bool, theme: &Theme) {
    let cols = usize::from(place.width).max(1);
    let rows = usize::from(place.height);
    let cursor = block.area.cursor();
    let lines = block.area.lines();
    let heights: Vec<usize> = lines.iter().map(|line| height(line, cols)).collect();
    let above: usize = heights.iter().take(cursor.0).sum();
    let (row, col) = lines.get(cursor.0).map_or((0, 0), |l| spot(l, cols, cursor.1));
    let at = above + row;
    // As little as is needed to see the cursor, and no emptiness below the end.
    let total: usize = heights.iter().sum();
    let first =
        block.scroll.get().clamp((at + 1).saturating_sub(rows), at).min(total.saturating_sub(rows));
    block.scroll.set(first);
    let selection = block.area.selection_range();
    let mut top = 0;
    for (index, (line, height)) in lines.iter().zip(&heights).enumerate() {
        let start = top;
        top += height;
        if top <= first {
            continue;
        }
        if start >= first + rows {
            break;
        }
        for piece in pieces(line, cols) {
            let Some(y) = (start + piece.row).checked_sub(first) else {
                continue;
            };
            if y >= rows {
                break;
            }
            let mut style = match piece.control {
                true => theme.get(Role::Control),
                false => Style::new(),
            };
            let here = (index, piece.chars.start);
            if selection.is_some_and(|(from, to)| from <= here && here < to) {
                style = style.patch(theme.get(Role::Match));
            }
            if focused && index == cursor.0 && piece.chars.contains(&cursor.1) {
                style = style.patch(theme.get(Role::Cursor));
            }
            set(buf, place, (y, piece.col), &piece.shown, style);
        }
    }
    let at_end = lines.get(cursor.0).is_some_and(|l| l.chars().count() <= cursor.1);
    if focused && at_end {
        set(buf, place, (at - first, col), " ", theme.get(Role::Cursor));
    }
    let style = theme.get(Role::Dim);
    let mark = place.width.saturating_sub(1).into();
    if first > 0 && rows > 1 {
        set(buf, place, (0, mark), "↑", style);
    }
    if total > first + rows && rows > 1 {
        set(buf, place, (rows - 1, mark), "↓", style);
    }
}

fn set(buf: &mut Buffer, place: Rect, (row, col): (usize, usize), shown: &str, style: Style) {
    let (Ok(y), Ok(x)) = (u16::try_from(row), u16::try_from(col)) else {
        return;
    };
    if y < place.height && x < place.width {
        let room = usize::from(place.width - x);
        buf.set_stringn(place.x + x, place.y + y, shown, room, style);
    }
}
