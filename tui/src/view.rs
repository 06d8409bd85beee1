//! Drawing: reads the model, changes nothing, does no I/O. One function per pane.

pub mod confirm;
pub mod details;
pub mod editor;
pub mod help;
pub mod history;
pub mod jobs;
pub mod log;
pub mod palette;
pub mod running;
pub mod status;
pub mod table;
pub mod toasts;
pub mod workers;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use crate::model::layers::Layer;
use crate::model::{Model, SMALLEST, View};
use crate::text;
use crate::theme::{Role, Theme};

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let theme = &model.theme;
    frame.buffer_mut().set_style(area, theme.get(Role::Text));
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (columns, rows) = SMALLEST;
        let needed =
            format!("at least {columns}x{rows} is needed, this is {}x{}", area.width, area.height);
        frame.render_widget(Paragraph::new(needed), area);
        return;
    }
    let [top, bottom] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    let [tabs, body, hints] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
            .areas(top);
    status::tabs(frame, tabs, model);
    match model.view {
        View::Jobs => jobs::draw(frame, body, model),
        View::Running => running::draw(frame, body, model),
        View::History => history::draw(frame, body, model),
        View::Workers => workers::draw(frame, body, model),
    }
    status::hints(frame, hints, model);
    status::bar(frame, bottom, model);
    for layer in &model.layers {
        match layer {
            Layer::Help { place, scroll } => help::draw(frame, top, model, *place, *scroll),
            Layer::Palette(palette) => palette::draw(frame, top, model, palette),
            Layer::Filter { input, .. } => status::filter(frame, hints, model, input),
            Layer::Confirm(question) => confirm::draw(frame, top, theme, question),
            Layer::Kill(watch) => confirm::kill(frame, top, theme, watch),
            Layer::Details(pane) => details::draw(frame, body, model, pane),
            Layer::Log { view, .. } => {
                frame.render_widget(Clear, top);
                frame.buffer_mut().set_style(top, theme.get(Role::Text));
                log::draw(frame, top, view, theme, model.now);
            }
            Layer::Editor { editor, .. } => {
                frame.render_widget(Clear, top);
                frame.buffer_mut().set_style(top, theme.get(Role::Text));
                editor::draw(frame, top, editor, theme, model.now);
            }
        }
    }
    toasts::draw(frame, top, model);
}

/// An emptied box in the middle of `area`; returns its inside.
fn popup(frame: &mut Frame<'_>, area: Rect, size: (u16, u16), title: &str, theme: &Theme) -> Rect {
    let (width, height) = (size.0.min(area.width), size.1.min(area.height));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    frame.buffer_mut().set_style(place, theme.get(Role::Text));
    let title = Span::styled(format!(" {} ", text::clean(title)), theme.get(Role::Title));
    let block = Block::bordered().border_style(theme.get(Role::BorderFocused)).title(title);
    let inside = block.inner(place);
    frame.render_widget(block, place);
    inside
}

/// Lines in the middle of an empty table.
fn empty(frame: &mut Frame<'_>, area: Rect, theme: &Theme, lines: &[String]) {
    let height = u16::try_from(lines.len()).unwrap_or(1).min(area.height);
    let place = Rect { y: area.y + (area.height - height) / 3, height, ..area };
    let lines: Vec<Line<'_>> = lines
        .iter()
        .enumerate()
        .map(|(i, line)| {
            let role = if i == 0 { Role::Text } else { Role::Dim };
            Line::styled(text::clean(line).into_owned(), theme.get(role)).centered()
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), place);
}

/// One line of text at a row of `area`, cut to its width.
fn line(frame: &mut Frame<'_>, area: Rect, row: u16, text: &str, style: Style) {
    if row < area.height {
        let fitted = text::fit(text, usize::from(area.width));
        frame.buffer_mut().set_string(area.x, area.y + row, fitted, style);
    }
}

#[cfg(test)]
mod tests;
