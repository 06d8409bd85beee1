//! The lines around a view: the tabs, the hints, and the status of both stores.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use crate::command::{Command, Context};
use crate::model::connection::Link;
use crate::model::input::Input;
use crate::model::{Model, View};
use crate::text;
use crate::theme::Role;

/// The columns that the names of the views take.
const TABS_WIDTH: u16 = 54;

/// Draws the first line: the views and how many rows this one has.
pub fn tabs(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let theme = &model.theme;
    let mut spans = vec![Span::styled(" carillon ", theme.get(Role::Title))];
    for (number, view) in (1..).zip(View::ALL) {
        let style = match view == model.view {
            true => theme.get(Role::Accent),
            false => theme.get(Role::Dim),
        };
        spans.push(Span::styled(format!(" {number} "), theme.get(Role::Key)));
        let name = match view == model.view {
            true => format!("[{}]", view.name()),
            false => format!(" {} ", view.name()),
        };
        spans.push(Span::styled(name, style));
    }
    frame.render_widget(Line::from(spans), area);
    let count = count(model);
    let left = area.width.saturating_sub(TABS_WIDTH);
    if text::width(&count) < usize::from(left) {
        let right = Rect { x: area.right() - left, width: left, ..area };
        let count = Line::styled(count, theme.get(Role::Dim)).right_aligned();
        frame.render_widget(count, right);
    }
}

fn count(model: &Model) -> String {
    let of = |shown: usize, all: usize| match shown == all {
        true => format!("{all}"),
        false => format!("{shown} of {all}"),
    };
    let (counted, marks) = match model.view {
        View::Jobs => {
            let (shown, all) = (model.jobs.list.rows().len(), model.replica.jobs.len());
            (format!("{} jobs", of(shown, all)), model.jobs.list.marks())
        }
        View::Running => {
            let all = model.replica.all_live().count();
            let shown = model.runs.list.rows().len();
            (format!("{} runs", of(shown, all)), model.runs.list.marks())
        }
        View::History => {
            let more = if model.history.has_more() { "+" } else { "" };
            (format!("{}{more} records", model.history.list.rows().len()), 0)
        }
        View::Workers => {
            let all = model.replica.workers.len();
            let shown = of(model.workers.list.rows().len(), all);
            (format!("{shown} worker{}", if all == 1 { "" } else { "s" }), 0)
        }
    };
    match marks {
        0 => format!("{counted} "),
        n => format!("{counted}, {n} marked "),
    }
}

/// Draws the line above the status: what is wrong, or the active filter, or the useful keys.
pub fn hints(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let theme = &model.theme;
    let link = match model.view {
        View::History => &model.connection.mongo,
        View::Jobs | View::Running | View::Workers => &model.connection.etcd,
    };
    if let Some(health) = link.health.as_ref().filter(|h| !h.up)
        && model.synced
    {
        let since = text::ago(model.now - health.since);
        let warning = format!(
            " {} has been away for {since}; this is what was known. {}",
            if model.view == View::History { "mongo" } else { "etcd" },
            health.detail
        );
        super::line(frame, area, 0, &warning, theme.get(Role::Warn));
        return;
    }
    let filter = match model.view {
        View::Jobs => &model.jobs.filter,
        View::Running => &model.runs.filter,
        View::History => &model.history.filter,
        View::Workers => &model.workers.filter,
    };
    let mut spans = vec![Span::raw(" ")];
    if !filter.is_empty() {
        let shown = text::clean(filter.text()).into_owned();
        spans.push(Span::styled(format!("/{shown}"), theme.get(Role::Match)));
        spans.push(Span::styled("  esc clears   ", theme.get(Role::Dim)));
    }
    let key_style = theme.get(Role::Key);
    for (command, word) in useful(model.place()) {
        if command.spec().is_some_and(|s| s.is_offered(model.read_only)) {
            spans.push(Span::styled(model.keymap.hint(*command), key_style));
            spans.push(Span::styled(format!(" {word}  "), theme.get(Role::Dim)));
        }
    }
    frame.render_widget(Line::from(spans), area);
}

fn useful(place: Context) -> &'static [(Command, &'static str)] {
    match place {
        Context::Running => &[
            (Command::Open, "output"),
            (Command::Kill, "kill"),
            (Command::Filter, "filter"),
            (Command::Help, "help"),
            (Command::Quit, "quit"),
        ],
        Context::History => &[
            (Command::Open, "output"),
            (Command::Run, "run again"),
            (Command::Filter, "filter"),
            (Command::Reload, "reload"),
            (Command::Help, "help"),
            (Command::Quit, "quit"),
        ],
        Context::Workers => &[
            (Command::Open, "runs"),
            (Command::Drain, "drain"),
            (Command::Undrain, "undrain"),
            (Command::Filter, "filter"),
            (Command::Help, "help"),
            (Command::Quit, "quit"),
        ],
        Context::Details => &[
            (Command::Edit, "edit"),
            (Command::Run, "run"),
            (Command::Output, "output"),
            (Command::Pause, "pause"),
            (Command::Kill, "kill"),
            (Command::Back, "back"),
        ],
        Context::Jobs | Context::Global | Context::Scroll | Context::Table => &[
            (Command::New, "new"),
            (Command::Edit, "edit"),
            (Command::Run, "run"),
            (Command::Output, "output"),
            (Command::Pause, "pause"),
            (Command::Kill, "kill"),
            (Command::Filter, "filter"),
            (Command::Help, "help"),
            (Command::Quit, "quit"),
        ],
    }
}

/// Draws the filter that is being typed, over the hints.
pub fn filter(frame: &mut Frame<'_>, area: Rect, model: &Model, input: &Input) {
    let theme = &model.theme;
    frame.render_widget(Clear, area);
    frame.buffer_mut().set_style(area, theme.get(Role::Text));
    frame.buffer_mut().set_string(area.x, area.y, " /", theme.get(Role::Key));
    let field = Rect { x: area.x + 2, width: area.width.saturating_sub(2), ..area };
    let hint = match model.view {
        View::History => "words, !word, job:NAME, outcome:failed, worker:ID, then enter",
        View::Running => "words, !word, job:NAME, worker:ID, state:running",
        View::Workers => "words, !word, label:zone=a, state:draining",
        View::Jobs => "words, !word, label:team=pay, state:failed, state:paused",
    };
    typed(frame, field, input, theme.get(Role::Text), (hint, theme.get(Role::Dim)));
}

/// Draws a line of typed text with the terminal's cursor in it, and a hint while it is empty.
pub fn typed(
    frame: &mut Frame<'_>,
    area: Rect,
    input: &Input,
    style: Style,
    (hint, dim): (&str, Style),
) {
    let (before, after) = input.parts();
    let (before, after) = (text::clean(before), text::clean(after));
    // The part around the cursor is what is shown of a long line.
    let room = usize::from(area.width.saturating_sub(1));
    let mut shown = before.as_ref();
    while text::width(shown) > room {
        let first = shown.chars().next().map_or(1, char::len_utf8);
        shown = shown.get(first..).unwrap_or("");
    }
    let at = u16::try_from(text::width(shown)).unwrap_or(0);
    let line = match before.is_empty() && after.is_empty() {
        true => Line::styled(hint.to_owned(), dim),
        false => Line::styled(format!("{shown}{after}"), style),
    };
    frame.render_widget(Paragraph::new(line), area);
    frame.set_cursor_position((area.x + at, area.y));
}

/// Draws the last line: each store by itself, and whether this console may change anything.
pub fn bar(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let theme = &model.theme;
    let base = theme.get(Role::StatusBar);
    frame.buffer_mut().set_style(area, base);
    let mut spans = vec![Span::raw(" ")];
    if model.read_only {
        spans.push(Span::styled("READ-ONLY ", theme.get(Role::Warn)));
    }
    store(&mut spans, model, "etcd", &model.connection.etcd);
    if model.synced {
        spans.push(Span::raw(format!(" rev {}", model.replica.revision)));
    }
    spans.push(Span::raw("  "));
    store(&mut spans, model, "mongo", &model.connection.mongo);
    let fleet = text::clean(model.keys.fleet()).into_owned();
    let jobs = model.replica.jobs.len();
    let live = model.replica.all_live().count();
    let workers = model.replica.workers.len();
    let counts = format!("{jobs} jobs {live} running {workers} workers {fleet} ");
    let line = Line::from(spans);
    let used = u16::try_from(line.width()).unwrap_or(u16::MAX);
    frame.render_widget(line.style(base), area);
    let room = area.width.saturating_sub(used + 1);
    if usize::from(room) >= text::width(&counts) {
        let right = Rect { x: area.right() - room, width: room, ..area };
        frame.render_widget(Line::styled(counts, base).right_aligned(), right);
    }
}

fn store(spans: &mut Vec<Span<'static>>, model: &Model, name: &'static str, link: &Link) {
    let theme = &model.theme;
    let base = theme.get(Role::StatusBar);
    let (mark, words, role) = match &link.health {
        None => ("…", " connecting".to_owned(), Role::Warn),
        Some(health) if health.up => {
            let rtt = health.rtt.map(|rtt| {
                let micros = rtt.as_micros();
                format!(" {}.{}ms", micros / 1000, micros % 1000 / 100)
            });
            ("✓", rtt.unwrap_or_default(), Role::Ok)
        }
        Some(health) => {
            let since = text::ago(model.now - link.heard.unwrap_or(health.since));
            let words = match link.heard {
                Some(_) => format!(" away, data {since} old"),
                None => format!(" not reached for {since}"),
            };
            ("✗", words, Role::Error)
        }
    };
    spans.push(Span::styled(format!("{name} "), base));
    spans.push(Span::styled(mark, base.patch(theme.get(role))));
    spans.push(Span::styled(words, base));
}

/// What an empty view says while etcd has not answered yet: what is tried, where, and why not.
pub(super) fn connecting(model: &Model) -> Vec<String> {
    let link = &model.connection.etcd;
    match link.health.as_ref().filter(|h| !h.up) {
        None => vec![format!("connecting to etcd at {}…", link.place)],
        Some(health) => vec![
            format!("etcd at {} does not answer: {}", link.place, health.detail),
            format!("trying again since {}", text::ago(model.now - health.since)),
            "is the address right? give another with --etcd URL or CARILLON_ETCD".to_owned(),
        ],
    }
}

/// What a view says when the filter matches nothing.
pub(super) fn no_match(model: &Model) -> Vec<String> {
    vec![
        "nothing matches the filter".to_owned(),
        format!("{} clears it", model.keymap.hint(Command::Back)),
    ]
}
