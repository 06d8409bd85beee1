//! The keys of a place, made from the keymap.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::command::{Context, TABLE};
use crate::keymap::Keymap;
use crate::model::Model;
use crate::text;
use crate::theme::Role;

/// Draws the help of `place`, from line `scroll` on.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, place: Context, scroll: usize) {
    let theme = &model.theme;
    let rows = rows(&model.keymap, place, model.read_only);
    let height = u16::try_from(rows.len() + 2).unwrap_or(u16::MAX);
    let title = format!("help: {} (esc closes)", place.title().to_lowercase());
    let inside = super::popup(frame, area, (76, height), &title, theme);
    let shown = usize::from(inside.height);
    let scroll = scroll.min(rows.len().saturating_sub(shown));
    let lines: Vec<Line<'_>> = rows
        .into_iter()
        .skip(scroll)
        .take(shown)
        .map(|row| match row {
            Row::Heading(title) => Line::styled(title, theme.get(Role::Header)),
            Row::Command(keys, help) => Line::from(vec![
                Span::styled(text::fit(&keys, 20), theme.get(Role::Key)),
                Span::styled(help, theme.get(Role::Text)),
            ]),
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inside);
}

enum Row {
    Heading(&'static str),
    Command(String, &'static str),
}

fn rows(keymap: &Keymap, place: Context, read_only: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for context in place.chain() {
        rows.push(Row::Heading(context.title()));
        let here = TABLE.iter().filter(|s| s.contexts.contains(context) && s.is_offered(read_only));
        for spec in here {
            let chords = keymap.keys_of(spec.command).iter();
            let keys: Vec<String> = chords.map(ToString::to_string).collect();
            let keys = match keys.is_empty() {
                true => format!(":{}", spec.name),
                false => keys.join(" "),
            };
            rows.push(Row::Command(format!("  {keys}"), spec.help));
        }
    }
    rows
}
