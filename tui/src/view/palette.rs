//! The palette: a typed command and those that fit it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::status::typed;
use crate::model::Model;
use crate::model::layers::Palette;
use crate::text;
use crate::theme::Role;

/// How many commands are offered at once.
const OFFERED: usize = 10;

/// Draws the palette.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, palette: &Palette) {
    let theme = &model.theme;
    let choices = palette.choices(model.place(), model.read_only);
    let shown = choices.len().clamp(1, OFFERED);
    let height = u16::try_from(shown + 3).unwrap_or(u16::MAX);
    let title = "command (tab completes, enter runs)";
    let inside = super::popup(frame, area, (70, height), title, theme);
    let prompt = Rect { height: 1, ..inside };
    frame.buffer_mut().set_string(prompt.x, prompt.y, ":", theme.get(Role::Key));
    let field = Rect { x: prompt.x + 1, width: prompt.width.saturating_sub(1), ..prompt };
    let hint = ("type a part of its name", theme.get(Role::Dim));
    typed(frame, field, &palette.input, theme.get(Role::Text), hint);
    let list = Rect { y: inside.y + 1, height: inside.height.saturating_sub(1), ..inside };
    if choices.is_empty() {
        super::line(frame, list, 0, " no such command here", theme.get(Role::Dim));
        return;
    }
    let first = (palette.at + 1).saturating_sub(usize::from(list.height));
    let lines: Vec<Line<'_>> = choices
        .iter()
        .enumerate()
        .skip(first)
        .take(usize::from(list.height))
        .map(|(i, spec)| {
            let hint = match model.keymap.keys_of(spec.command).first() {
                Some(chord) => chord.to_string(),
                None => String::new(),
            };
            let line = Line::from(vec![
                Span::styled(text::fit(&format!(" {}", spec.name), 18), theme.get(Role::Accent)),
                Span::styled(text::fit(&hint, 10), theme.get(Role::Key)),
                Span::styled(text::fit(spec.help, 40), theme.get(Role::Text)),
            ]);
            match i == palette.at {
                true => line.patch_style(theme.get(Role::Selected)),
                false => line,
            }
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), list);
}
