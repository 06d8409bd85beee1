//! Short messages, in the corner above the hints.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::Clear;

use crate::model::Model;
use crate::model::toasts::Level;
use crate::text;
use crate::theme::Role;

/// Draws the messages, the newest at the bottom.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let theme = &model.theme;
    let mut y = area.bottom().saturating_sub(1);
    let newest_first: Vec<_> = model.toasts.iter().collect();
    for toast in newest_first.into_iter().rev() {
        let (mark, role) = match toast.level {
            Level::Done => ("✓", Role::Ok),
            Level::Note => ("·", Role::Accent),
            Level::Error => ("✗", Role::Error),
        };
        let words = format!(" {mark} {} ", toast.text);
        let room = usize::from(area.width.saturating_sub(2)).max(1);
        for part in wrap(&text::clean(&words), room).into_iter().rev() {
            if y <= area.y {
                return;
            }
            y -= 1;
            let width = u16::try_from(text::width(&part)).unwrap_or(area.width);
            let place = Rect { x: area.right().saturating_sub(width + 1), y, width, height: 1 };
            frame.render_widget(Clear, place);
            let style = theme.get(Role::StatusBar).patch(theme.get(role));
            let buffer = frame.buffer_mut();
            buffer.set_stringn(place.x, y, part, usize::from(width), style);
        }
    }
}

/// At most three lines of `room` columns; a longer text ends in an ellipsis.
fn wrap(words: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for c in words.chars() {
        let wide = text::width(c.encode_utf8(&mut [0; 4]));
        if used + wide > room {
            if lines.len() == 3 {
                if let Some(last) = lines.last_mut() {
                    last.pop();
                    last.push('…');
                }
                break;
            }
            lines.push(String::new());
            used = 0;
        }
        used += wide;
        if let Some(last) = lines.last_mut() {
            last.push(c);
        }
    }
    lines
}
