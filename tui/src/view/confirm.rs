//! Questions, and the way of a kill.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::status::typed;
use crate::model::layers::{Confirm, Focus, KillStep, KillWatch, Watched};
use crate::text;
use crate::theme::{Role, Theme};

/// How many targets are listed at once.
const LISTED: usize = 8;

/// Draws a question with its exact targets.
pub fn draw(frame: &mut Frame<'_>, area: Rect, theme: &Theme, question: &Confirm) {
    let room = usize::from(area.height).saturating_sub(8).clamp(1, LISTED);
    let listed = question.targets.len().min(room);
    let more = question.targets.len() > listed;
    let prompt = usize::from(question.count.is_some());
    let height = listed + usize::from(more) + 2 + prompt + 2 + 2;
    let size = (72, u16::try_from(height).unwrap_or(u16::MAX));
    let inside = super::popup(frame, area, size, &question.title, theme);
    let first = question.scroll.min(question.targets.len() - listed);
    let mut row = 0;
    for target in question.targets.iter().skip(first).take(listed) {
        super::line(frame, inside, row, &format!(" {target}"), theme.get(Role::Text));
        row += 1;
    }
    if more {
        let (from, to) = (first + 1, first + listed);
        let place = format!(" {from} to {to} of {} (up, down)", question.targets.len());
        super::line(frame, inside, row, &place, theme.get(Role::Dim));
        row += 1;
    }
    let note = Rect {
        x: inside.x + 1,
        y: inside.y + row,
        width: inside.width.saturating_sub(2),
        height: 2.min(inside.height.saturating_sub(row)),
    };
    let text = Paragraph::new(question.note.as_str()).wrap(Wrap { trim: true });
    frame.render_widget(text.style(theme.get(Role::Dim)), note);
    row += 2;
    if let Some(count) = question.count
        && row < inside.height
    {
        let ask = format!(" type {count} to go on: ");
        super::line(frame, inside, row, &ask, theme.get(Role::Warn));
        let used = u16::try_from(text::width(&ask)).unwrap_or(0);
        let field = Rect {
            x: inside.x + used,
            y: inside.y + row,
            width: inside.width.saturating_sub(used),
            height: 1,
        };
        typed(frame, field, &question.typed, theme.get(Role::Text), ("", theme.get(Role::Dim)));
        row += 1;
    }
    let button = |label: &str, focused: bool, role: Role| {
        let style = match focused {
            true => theme.get(role).patch(theme.get(Role::Selected)),
            false => theme.get(role),
        };
        let label = match focused {
            true => format!("> {label} <"),
            false => format!("  {label}  "),
        };
        Span::styled(label, style)
    };
    let act = if question.is_armed() { Role::Error } else { Role::Dim };
    let buttons = Line::from(vec![
        button("Cancel", question.focus == Focus::Cancel, Role::Text),
        Span::raw("   "),
        button(question.verb, question.focus == Focus::Act, act),
        Span::styled("   tab moves, enter presses", theme.get(Role::Dim)),
    ]);
    let place = Rect {
        x: inside.x + 1,
        y: (inside.y + row + 1).min(inside.bottom().saturating_sub(1)),
        width: inside.width.saturating_sub(1),
        height: 1,
    };
    frame.render_widget(buttons, place);
}

/// Draws how far the kill of each run has come.
pub fn kill(frame: &mut Frame<'_>, area: Rect, theme: &Theme, watch: &KillWatch) {
    let room = usize::from(area.height).saturating_sub(6).clamp(2, LISTED * 2) / 2;
    let listed = watch.runs.len().min(room);
    let height = listed * 2 + 4 + usize::from(watch.error.is_some());
    let over = watch.is_over();
    let gone = watch.runs.iter().filter(|w| w.step == KillStep::Gone).count();
    let title = match (over, watch.runs.len()) {
        (true, 1) => "killed".to_owned(),
        (true, n) => format!("killed {n} runs"),
        (false, 1) => "killing".to_owned(),
        (false, n) => format!("killing: {gone} of {n} gone"),
    };
    let size = (72, u16::try_from(height).unwrap_or(u16::MAX));
    let inside = super::popup(frame, area, size, &title, theme);
    let first = watch.scroll.min(watch.runs.len() - listed);
    let mut row = 0;
    for watched in watch.runs.iter().skip(first).take(listed) {
        let target = &watched.target;
        let pid = target.pid.map_or_else(|| "not started".to_owned(), |p| format!("pid {p}"));
        let name = format!(" {} on {}, {pid}", target.job, target.worker);
        super::line(frame, inside, row, &name, theme.get(Role::Text));
        let place = Rect {
            x: inside.x + 3,
            y: inside.y + row + 1,
            width: inside.width.saturating_sub(3),
            height: 1,
        };
        if row + 1 < inside.height {
            frame.render_widget(ladder(theme, watched), place);
        }
        row += 2;
    }
    if let Some(why) = &watch.error {
        super::line(frame, inside, row, &format!(" {why}"), theme.get(Role::Error));
        row += 1;
    }
    let last = match over {
        true => " esc closes",
        false => " esc leaves this dialog; the kill goes on",
    };
    super::line(frame, inside, row + 1, last, theme.get(Role::Dim));
}

/// The steps that were seen: a run that ends by SIGTERM never needed SIGKILL.
fn ladder(theme: &Theme, watched: &Watched) -> Line<'static> {
    let steps = [
        (KillStep::Asked, "sent"),
        (KillStep::Requested, "requested"),
        (KillStep::Received, "received"),
        (KillStep::Terminated, "terminated"),
        (KillStep::Killed, "killed"),
    ];
    let mut spans = Vec::new();
    for (step, word) in steps.into_iter().filter(|(step, _)| *step <= watched.seen) {
        let now = step == watched.step;
        let role = if now { Role::Warn } else { Role::Dim };
        spans.push(Span::styled(word, theme.get(role)));
        spans.push(Span::styled(" > ", theme.get(Role::Dim)));
    }
    if watched.step == KillStep::Gone {
        let after =
            watched.took.map_or_else(String::new, |t| format!(" after {}", text::duration(t)));
        spans.push(Span::styled(format!("gone{after}"), theme.get(Role::Ok)));
    } else {
        spans.push(Span::styled("…", theme.get(Role::Dim)));
    }
    Line::from(spans)
}
