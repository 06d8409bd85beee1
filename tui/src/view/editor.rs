//! The editor: a form on one screen, raw JSON where a stored value is no job, or the three
//! versions of a job that two people changed.

mod block;

use std::ops::Range;

use carillon_core::schedule::{Schedule, ScheduleError, Upcoming};
use chrono::{DateTime, Datelike, Utc};
use chrono_tz::Tz;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_segmentation::UnicodeSegmentation;

use crate::model::editor::field::{Field, Kind};
use crate::model::editor::form::Form;
use crate::model::editor::merge::{Row, Who};
use crate::model::editor::{Body, Conflict, Editor, Raw};
use crate::text;
use crate::theme::{Role, Theme};

/// Rows around the body: the heading, the rule, the message, the keys.
const CHROME: u16 = 4;
/// Columns of a label, with the mark before it and the space after it.
const LABEL: u16 = 16;
/// From this width on, short fields share a row.
const TWO_COLUMNS: u16 = 76;
/// From this width on, the next firings have a column of their own.
const SIDE_PANEL: u16 = 124;
/// From this height on, groups of fields stand apart.
const AIRY: u16 = 26;
/// How wide that column is.
const PANEL: u16 = 46;
/// The most firings that it shows.
const PANEL_FIRINGS: usize = 10;

/// Draws the editor.
pub fn draw(frame: &mut Frame<'_>, area: Rect, editor: &Editor, theme: &Theme, now: DateTime<Utc>) {
    let buf = frame.buffer_mut();
    if area.height <= CHROME + 1 || area.width < 40 {
        return;
    }
    heading(buf, area, editor, theme);
    let body = Rect { y: area.y + 2, height: area.height - CHROME, ..area };
    let message = row(area, area.height - 2);
    let keys = row(area, area.height - 1);
    if let Some(conflict) = &editor.conflict {
        three_way(buf, body, conflict, theme);
        question(buf, message, conflict, theme);
        let take = match conflict.theirs {
            Some(_) => "take theirs",
            None => "let it go",
        };
        let hints = [("m", "keep my changes"), ("t", take), ("esc", "back")];
        hint_line(buf, keys, &hints, "", theme);
        return;
    }
    match &editor.body {
        Body::Form(form) => {
            let pen = Pen { form, zone: editor.zone, theme, now };
            pen.draw(buf, body);
        }
        Body::Raw(raw) => raw_text(buf, body, raw, theme),
    }
    say(buf, message, editor, theme);
    let state = match (editor.saving, editor.is_dirty()) {
        (true, _) => "saving …",
        (false, true) => "changed",
        (false, false) => "",
    };
    let in_text = match &editor.body {
        Body::Form(form) => form.focus.kind() == Kind::Lines,
        Body::Raw(_) => true,
    };
    let mut hints = vec![("ctrl-s", "save"), ("esc", "leave")];
    match (&editor.body, in_text) {
        (Body::Form(_), true) => hints.extend([("tab", "next field"), ("ctrl-u/r", "undo, redo")]),
        (Body::Form(form), false) if form.focus.kind() == Kind::Choice => {
            hints.extend([("space", "change"), ("tab", "next"), ("shift-tab", "previous")]);
        }
        (Body::Form(_), false) => hints.extend([("tab", "next"), ("shift-tab", "previous")]),
        (Body::Raw(_), _) => hints.push(("ctrl-u/r", "undo, redo")),
    }
    hint_line(buf, keys, &hints, state, theme);
}

fn row(area: Rect, offset: u16) -> Rect {
    Rect { y: area.y + offset, height: 1, ..area }
}

/// Writes at a column of a row, cut at its end; returns the column after it.
fn put(buf: &mut Buffer, place: Rect, col: u16, words: &str, style: Style) -> u16 {
    let room = place.width.saturating_sub(col);
    let fitted = text::cut(words, room.into());
    let (end, _) = buf.set_stringn(place.x + col, place.y, fitted, room.into(), style);
    end - place.x
}

fn put_right(buf: &mut Buffer, place: Rect, words: &str, style: Style) -> u16 {
    let wide = u16::try_from(text::width(words)).unwrap_or(u16::MAX);
    let col = place.width.saturating_sub(wide.saturating_add(1));
    put(buf, place, col, words, style);
    col
}

fn heading(buf: &mut Buffer, area: Rect, editor: &Editor, theme: &Theme) {
    let top = row(area, 0);
    let right = match editor.revision() {
        Some(revision) => format!("revision {revision}"),
        None => "not saved yet".to_owned(),
    };
    let end = put_right(buf, top, &right, theme.get(Role::Dim));
    let top = Rect { width: end.saturating_sub(1), ..top };
    put(buf, top, 2, editor.heading(), theme.get(Role::Title));
    let line = "─".repeat(area.width.into());
    put(buf, row(area, 1), 0, &line, theme.get(Role::Border));
}

fn hint_line(buf: &mut Buffer, place: Rect, hints: &[(&str, &str)], right: &str, theme: &Theme) {
    let end = put_right(buf, place, right, theme.get(Role::Warn));
    let mut col: u16 = 2;
    for (key, word) in hints {
        let wide = u16::try_from(text::width(key) + text::width(word) + 1).unwrap_or(u16::MAX);
        if col.saturating_add(wide) > end {
            continue;
        }
        col = put(buf, place, col, key, theme.get(Role::Key));
        col = put(buf, place, col + 1, word, theme.get(Role::Dim)) + 2;
    }
}

/// What happened, what is wrong, or else what the focused field is for.
fn say(buf: &mut Buffer, place: Rect, editor: &Editor, theme: &Theme) {
    let (role, words) = match (&editor.note, &editor.body) {
        (Some((role, words)), _) => (*role, words.clone()),
        (None, Body::Form(form)) => match form.worst() {
            // The error of a schedule stands under it already.
            Some((Some(field), words)) if field != Field::Schedule => {
                (Role::Error, format!("{}: {words}", field.label()))
            }
            Some((None, words)) => (Role::Error, words.to_owned()),
            _ => (Role::Dim, form.focus.hint().to_owned()),
        },
        (None, Body::Raw(_)) => {
            let words = "the stored value is not a job; it is shown as it stands";
            (Role::Dim, words.to_owned())
        }
    };
    let place = Rect { width: place.width.saturating_sub(1), ..place };
    put(buf, place, 2, &words, theme.get(role));
}

/// Draws a form.
struct Pen<'a> {
    form: &'a Form,
    zone: Tz,
    theme: &'a Theme,
    now: DateTime<Utc>,
}

/// A strip of the form: fields side by side, or what is said under the schedule.
#[derive(Debug, Clone, Copy)]
enum Strip {
    One(Field),
    Two(Field, Field),
    Schedule,
    Gap,
}

impl Strip {
    fn has(self, field: Field) -> bool {
        match self {
            Self::One(one) => one == field,
            Self::Two(one, two) => one == field || two == field,
            Self::Schedule => field == Field::Schedule,
            Self::Gap => false,
        }
    }
}

impl Pen<'_> {
    fn strips(&self, area: Rect) -> Vec<Strip> {
        use Strip::{Gap, One, Schedule, Two};
        let mut strips = vec![
            One(Field::Name),
            One(Field::Schedule),
            Schedule,
            One(Field::Zone),
            Gap,
            One(Field::Command),
            Gap,
        ];
        if area.width >= TWO_COLUMNS {
            strips.extend([
                Two(Field::Enabled, Field::Concurrency),
                Two(Field::Timeout, Field::KillGrace),
                Two(Field::StartDeadline, Field::User),
            ]);
        } else {
            strips.extend([
                One(Field::Enabled),
                One(Field::Concurrency),
                One(Field::Timeout),
                One(Field::KillGrace),
                One(Field::StartDeadline),
                One(Field::User),
            ]);
        }
        strips.extend([Gap, One(Field::Cwd), One(Field::Labels), One(Field::Description)]);
        if area.height < AIRY {
            strips.retain(|strip| !matches!(strip, Gap));
        }
        strips
    }

    fn draw(&self, buf: &mut Buffer, mut area: Rect) {
        let panel = area.width >= SIDE_PANEL;
        if panel {
            let side = Rect { x: area.right() - PANEL, width: PANEL, ..area };
            area.width -= PANEL + 2;
            self.panel(buf, side);
        }
        let strips = self.strips(area);
        // What is said of the schedule always has its rows, so that nothing jumps while typing.
        let said = match (panel, area.height >= 16) {
            (true, _) => 2,
            (false, true) => 3,
            (false, false) => 2,
        };
        let others = u16::try_from(strips.len()).unwrap_or(u16::MAX) - 2 + said;
        let command = area.height.saturating_sub(others).clamp(3, 14);
        let height_of = |strip: &Strip| match strip {
            Strip::One(Field::Command) => command,
            Strip::Schedule => said,
            Strip::One(_) | Strip::Two(..) | Strip::Gap => 1,
        };
        let focus = self.form.focus;
        let total: u16 = strips.iter().map(height_of).sum();
        let (mut before, mut through, mut y) = (None, 0, 0);
        for strip in &strips {
            let bottom = y + height_of(strip);
            if strip.has(focus) {
                before = before.or(Some(y));
                through = bottom;
            }
            y = bottom;
        }
        let before = before.unwrap_or(0);
        // Scrolled no further than needed to see all of the focused field.
        let most = total.saturating_sub(area.height);
        let first = through.saturating_sub(area.height).min(before).min(most);
        let mut y = 0;
        for strip in &strips {
            let height = height_of(strip);
            let (top, bottom) = (y, y + height);
            y = bottom;
            if top < first || top >= first + area.height {
                continue;
            }
            let place = Rect {
                y: area.y + top - first,
                height: height.min(first + area.height - top),
                ..area
            };
            self.strip(buf, place, *strip, panel);
        }
        let edge = area.width.saturating_sub(1);
        let dim = self.theme.get(Role::Dim);
        if first > 0 {
            put(buf, row(area, 0), edge, "↑", dim);
        }
        if first < most {
            put(buf, row(area, area.height - 1), edge, "↓", dim);
        }
    }

    fn strip(&self, buf: &mut Buffer, place: Rect, strip: Strip, panel: bool) {
        match strip {
            Strip::Gap => {}
            Strip::One(field) => self.field(buf, place, field),
            Strip::Two(left, right) => {
                // The choices on the right are longer than the numbers on the left.
                let half = place.width / 2 - 2;
                let a = Rect { width: half, ..place };
                let b = Rect { x: place.x + half, width: place.width - half, ..place };
                self.field(buf, a, left);
                self.field(buf, b, right);
            }
            Strip::Schedule => {
                let place = Rect {
                    x: place.x + LABEL,
                    width: place.width.saturating_sub(LABEL + 1),
                    ..place
                };
                self.under_schedule(buf, place, panel);
            }
        }
    }

    fn field(&self, buf: &mut Buffer, place: Rect, field: Field) {
        let (form, theme) = (self.form, self.theme);
        let focused = form.focus == field;
        let (mark, role) = if form.problem(field).is_some() {
            ("✗", Role::Error)
        } else if form.is_changed(field) {
            ("*", Role::Changed)
        } else {
            (" ", Role::Dim)
        };
        put(buf, place, 0, mark, theme.get(role));
        let label = if focused { Role::LabelFocused } else { Role::Label };
        put(buf, place, 2, field.label(), theme.get(label));
        let inside =
            Rect { x: place.x + LABEL, width: place.width.saturating_sub(LABEL + 1), ..place };
        if field == Field::Name && form.named {
            let name = form.text(field);
            put(buf, inside, 0, &name, theme.get(Role::Title));
            return;
        }
        let role = if focused { Role::InputFocused } else { Role::Input };
        match field.kind() {
            Kind::Choice => self.choices(buf, inside, field, focused),
            Kind::Line => {
                buf.set_style(inside, theme.get(role));
                let placeholder = match field {
                    Field::Zone => format!("{}, the fleet's", self.zone),
                    field => field.placeholder().to_owned(),
                };
                if let Some(input) = form.input(field) {
                    let window = Window::of(input.parts(), inside.width.into());
                    window.draw(buf, inside, focused, &placeholder, theme);
                }
            }
            Kind::Lines => {
                buf.set_style(inside, theme.get(role));
                block::draw(buf, inside, &form.command, focused, theme);
                let empty = form.command.area.is_empty();
                if empty && !focused {
                    let style = theme.get(Role::Placeholder);
                    put(buf, inside, 0, field.placeholder(), style);
                }
            }
        }
    }

    fn choices(&self, buf: &mut Buffer, place: Rect, field: Field, focused: bool) {
        let now = self.form.text(field);
        let mut col = 0;
        for choice in field.choices() {
            let (words, role) = match (*choice == now, focused) {
                (true, true) => (format!("[{choice}]"), Role::LabelFocused),
                (true, false) => (format!("[{choice}]"), Role::Text),
                (false, _) => (format!(" {choice} "), Role::Dim),
            };
            col = put(buf, place, col, &words, self.theme.get(role));
        }
    }

    /// Under the schedule: what is wrong with it and where, or what it means.
    fn under_schedule(&self, buf: &mut Buffer, place: Rect, panel: bool) {
        match self.form.schedule() {
            None => {
                let missing = self.form.problem(Field::Schedule);
                let role = if missing.is_some() { Role::Error } else { Role::Dim };
                let words = missing.unwrap_or("five fields, or six with seconds first");
                put(buf, place, 0, words, self.theme.get(role));
            }
            Some(Err(error)) => self.caret(buf, place, error),
            Some(Ok(schedule)) => self.meaning(buf, place, schedule, panel),
        }
    }

    /// The schedule in words, and its next firings unless they have the panel.
    fn meaning(&self, buf: &mut Buffer, place: Rect, schedule: &Schedule, panel: bool) {
        let zone = self.form.zone(self.zone);
        let words = match zone {
            Some(zone) => schedule.describe_in(zone),
            None => schedule.describe(),
        };
        let coming = match zone {
            Some(zone) if !panel => schedule.timeline(zone, self.now, 5).collect(),
            _ => Vec::new(),
        };
        let noted = coming.iter().find_map(|next| noted(next, zone?));
        // A second row for long words, where it is not needed for more.
        let rows = place.height.saturating_sub(u16::from(!panel) + u16::from(noted.is_some()));
        let lines = text::wrap(&words, place.width.into());
        let style = self.theme.get(Role::Ok);
        let mut used = 1;
        match lines.split_first() {
            Some((first, [_, ..])) if rows > 1 => {
                let rest = words.get(first.len()..).unwrap_or_default();
                put(buf, place, 0, first, style);
                put(buf, row(place, 1), 0, rest.trim_start(), style);
                used = 2;
            }
            _ => drop(put(buf, place, 0, &words, style)),
        }
        if let Some(zone) = zone
            && place.height > used
            && !panel
        {
            let below = Rect { y: place.y + used, height: place.height - used, ..place };
            self.firings(buf, below, zone, &coming, noted);
        }
    }

    fn caret(&self, buf: &mut Buffer, place: Rect, error: &ScheduleError) {
        let style = self.theme.get(Role::Error);
        let Some(input) = self.form.input(Field::Schedule) else {
            return;
        };
        let cols = usize::from(place.width);
        let typed = input.text();
        let window = Window::of(input.parts(), cols);
        let col_of = |at: usize| {
            let at = typed.floor_char_boundary(at);
            text::width(typed.get(..at).unwrap_or_default())
        };
        let Range { start, end } = error.span.clone();
        let from = col_of(start).saturating_sub(window.hidden).min(cols.saturating_sub(1));
        let to = col_of(end).saturating_sub(window.hidden).clamp(from + 1, cols.max(from + 1));
        let carets = "^".repeat(to - from);
        let from = u16::try_from(from).unwrap_or(0);
        let after = put(buf, place, from, &carets, style);
        let words = error.to_string();
        let room = usize::from(place.width.saturating_sub(after + 1));
        if text::width(&words) <= room {
            put(buf, place, after + 1, &words, style);
            return;
        }
        for (y, line) in (1..place.height).zip(text::wrap(&words, cols)) {
            put(buf, row(place, y), 0, &line, style);
        }
    }

    fn firings(
        &self,
        buf: &mut Buffer,
        place: Rect,
        zone: Tz,
        coming: &[Upcoming],
        noted: Option<String>,
    ) {
        let next = coming.iter().filter_map(|next| match next {
            Upcoming::Firing { at, .. } => Some(*at),
            Upcoming::Skipped(_) => None,
        });
        let next: Vec<_> = next.collect();
        let (dim, warn) = (self.theme.get(Role::Dim), self.theme.get(Role::Warn));
        let at = place;
        let Some((first, others)) = next.split_first() else {
            let words = noted.map_or("never again".to_owned(), |why| format!("never again: {why}"));
            put(buf, at, 0, &words, warn);
            return;
        };
        let paused = self.form.text(Field::Enabled) == "no";
        let word = if paused { "next (paused)" } else { "next" };
        let mut col = put(buf, at, 0, &format!("{word} "), dim);
        let local = first.with_timezone(&zone);
        let this_year = local.year() == self.now.with_timezone(&zone).year();
        let format = if this_year { "%a %-d %b %H:%M:%S %Z" } else { "%a %-d %b %Y %H:%M:%S %Z" };
        let words = local.format(format).to_string();
        col = put(buf, at, col, &words, self.theme.get(Role::Text));
        let away = format!(", in {}", text::ago(*first - self.now));
        put(buf, at, col, &away, dim);
        if place.height < 2 {
            return;
        }
        let at = row(place, 1);
        if let Some(note) = noted {
            put(buf, at, 0, &note, warn);
            return;
        }
        let word = if others.is_empty() { "and never again" } else { "then " };
        let mut col = put(buf, at, 0, word, dim);
        let mut last = local;
        for (i, next) in others.iter().enumerate() {
            let local = next.with_timezone(&zone);
            let format = match () {
                () if local.date_naive() == last.date_naive() => "%H:%M:%S",
                () if local.year() != last.year() => "%a %-d %b %Y %H:%M",
                () if local.month() != last.month() => "%a %-d %b %H:%M",
                () => "%a %-d %H:%M",
            };
            last = local;
            let comma = if i == 0 { "" } else { ", " };
            let words = format!("{comma}{}", local.format(format));
            // A time is shown whole or not at all.
            if usize::from(place.width.saturating_sub(col)) < words.len() {
                break;
            }
            col = put(buf, at, col, &words, dim);
        }
    }

    /// Beside the form, where there is room: the next firings.
    fn panel(&self, buf: &mut Buffer, area: Rect) {
        let theme = self.theme;
        for y in 0..area.height {
            put(buf, row(area, y), 0, "│", theme.get(Role::Border));
        }
        let inside = Rect { x: area.x + 3, width: area.width - 4, ..area };
        put(buf, row(inside, 0), 0, "Next firings", theme.get(Role::Title));
        let dim = theme.get(Role::Dim);
        let (Some(Ok(schedule)), Some(zone)) = (self.form.schedule(), self.form.zone(self.zone))
        else {
            put(buf, row(inside, 1), 0, "none yet", dim);
            return;
        };
        put(buf, row(inside, 1), 0, &format!("in {zone}"), dim);
        if self.form.text(Field::Enabled) == "no" {
            let words = "paused: they are not followed";
            put(buf, row(inside, 2), 0, words, theme.get(Role::Warn));
        }
        let mut y = 3;
        let mut fired = false;
        for next in schedule.timeline(zone, self.now, PANEL_FIRINGS) {
            if y >= area.height {
                break;
            }
            let note = match next {
                Upcoming::Firing { at, note } => {
                    let local = at.with_timezone(&zone);
                    let words = local.format("%a %e %b %Y  %H:%M:%S").to_string();
                    put(buf, row(inside, y), 0, &words, theme.get(Role::Text));
                    let away = format!("in {}", text::ago(at - self.now));
                    put_right(buf, row(inside, y), &away, dim);
                    (y, fired) = (y + 1, true);
                    note.map(|note| note.to_string())
                }
                Upcoming::Skipped(skipped) => Some(skipped.in_short()),
            };
            let cols = usize::from(inside.width.saturating_sub(2));
            for line in note.iter().flat_map(|note| text::wrap(note, cols)) {
                if y < area.height {
                    put(buf, row(inside, y), 2, &line, theme.get(Role::Warn));
                    y += 1;
                }
            }
        }
        if !fired && y < area.height {
            put(buf, row(inside, y), 0, "never again", theme.get(Role::Warn));
        }
    }
}

/// What a clock change does to a firing, and to which.
fn noted(next: &Upcoming, zone: Tz) -> Option<String> {
    match next {
        Upcoming::Firing { at, note } => {
            let local = at.with_timezone(&zone).format("%a %-d %b %H:%M");
            note.map(|note| format!("{local} {note}"))
        }
        Upcoming::Skipped(skipped) => Some(skipped.in_short()),
    }
}

/// The part of a line of text that is seen around its cursor.
struct Window {
    before: String,
    cursor: String,
    after: String,
    /// Columns that are scrolled away to the left.
    hidden: usize,
}

impl Window {
    fn of((before, after): (&str, &str), cols: usize) -> Self {
        let mut graphemes = after.graphemes(true);
        let cursor = graphemes.next().map_or_else(|| " ".to_owned(), |g| text::clean(g).into());
        let room = cols.saturating_sub(text::width(&cursor));
        let before = text::clean(before);
        let mut seen = &*before;
        let mut hidden = 0;
        let mut used = text::width(seen);
        while used > room {
            let first = seen.graphemes(true).next().unwrap_or_default();
            let wide = text::grapheme_width(first);
            (used, hidden) = (used - wide, hidden + wide);
            seen = seen.get(first.len().max(1)..).unwrap_or_default();
        }
        Self {
            before: seen.to_owned(),
            cursor,
            after: text::clean(graphemes.as_str()).into(),
            hidden,
        }
    }

    fn draw(&self, buf: &mut Buffer, place: Rect, focused: bool, placeholder: &str, theme: &Theme) {
        let plain = Style::new();
        let nothing = self.before.is_empty() && self.cursor == " " && self.after.is_empty();
        if !focused {
            // The beginning is what a reader wants.
            let whole = format!("{}{}{}", self.before, self.cursor, self.after);
            if nothing && self.hidden == 0 {
                put(buf, place, 0, placeholder, theme.get(Role::Placeholder));
            } else {
                put(buf, place, 0, whole.trim_end(), plain);
            }
            return;
        }
        let col = put(buf, place, 0, &self.before, plain);
        let col = put(buf, place, col, &self.cursor, theme.get(Role::Cursor));
        if nothing {
            put(buf, place, col + 1, placeholder, theme.get(Role::Placeholder));
        } else {
            put(buf, place, col, &self.after, plain);
        }
    }
}

fn raw_text(buf: &mut Buffer, area: Rect, raw: &Raw, theme: &Theme) {
    let cols = usize::from(area.width).saturating_sub(4);
    let (words, role) = match &raw.problem {
        Some(problem) => (format!("✗ {problem}"), Role::Error),
        None => ("✓ this is a job: it can be saved".to_owned(), Role::Ok),
    };
    let said = text::wrap(&words, cols);
    let rows = u16::try_from(said.len()).unwrap_or(u16::MAX).min(area.height / 3);
    for (y, line) in (0..rows).zip(&said) {
        put(buf, row(area, y), 2, line, theme.get(role));
    }
    let text = Rect {
        x: area.x + 2,
        y: area.y + rows + 1,
        width: area.width - 4,
        height: area.height.saturating_sub(rows + 1),
    };
    buf.set_style(text, theme.get(Role::Input));
    block::draw(buf, text, &raw.text, true, theme);
}

fn question(buf: &mut Buffer, place: Rect, conflict: &Conflict, theme: &Theme) {
    let words = match &conflict.theirs {
        Some(entry) => format!(
            "changed by somebody else meanwhile (revision {}); not saved",
            entry.mod_revision
        ),
        None => "deleted by somebody else meanwhile; not saved".to_owned(),
    };
    put(buf, place, 2, &words, theme.get(Role::Warn));
}

fn three_way(buf: &mut Buffer, area: Rect, conflict: &Conflict, theme: &Theme) {
    let last = conflict.rows.len().saturating_sub(area.height.into());
    let shown = conflict.rows.iter().skip(conflict.scroll.min(last));
    for (y, line) in (0..area.height).zip(shown) {
        let place = row(area, y);
        let (label, words, role) = match line {
            Row::Gap => continue,
            Row::Field(field, who) => {
                let (words, role) = match who {
                    Who::Mine => ("changed by you", Role::Dim),
                    Who::Theirs => ("changed by them", Role::Dim),
                    Who::Same => ("changed by both, to the same", Role::Dim),
                    Who::Both => ("changed by both", Role::Error),
                };
                let col = put(buf, place, 2, field, theme.get(Role::Title));
                put(buf, place, col + 2, words, theme.get(role));
                continue;
            }
            Row::Was(words) => ("was", words, Role::Dim),
            Row::Mine(words) => ("mine", words, Role::Added),
            Row::Theirs(words) => ("theirs", words, Role::Changed),
        };
        put(buf, place, 4, label, theme.get(Role::Label));
        let place = Rect { width: place.width.saturating_sub(1), ..place };
        put(buf, place, 12, words, theme.get(role));
    }
    if conflict.rows.is_empty() {
        let words = "both versions are the same";
        put(buf, row(area, 0), 2, words, theme.get(Role::Dim));
    }
}

#[cfg(test)]
mod tests;
