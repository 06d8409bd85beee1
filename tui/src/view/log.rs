//! The output of a run: a heading, the output across the whole width so that it can be copied from
//! the terminal, and a line of keys.

use std::ops::Range;

use carillon_core::run::{Outcome, Stream};
use chrono::{DateTime, TimeDelta, Utc};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_segmentation::UnicodeSegmentation;

use crate::model::log::lines::{Line, Source, Streams};
use crate::model::log::search::Search;
use crate::model::log::{LogView, Stamps, State};
use crate::text;
use crate::text::ansi::Paint;
use crate::theme::{Role, Theme};

/// Rows around the text: the heading, the rule, the keys.
const CHROME: u16 = 3;

/// The keys at the bottom, the ones to be known first.
const KEYS: [(&str, &str); 9] = [
    ("esc", "back"),
    ("/", "search"),
    ("f", "follow"),
    ("o", "stream"),
    ("w", "wrap"),
    ("t", "time"),
    ("y", "copy"),
    ("g/G", "start/end"),
    ("h/l", "sideways"),
];

/// Draws the log view.
pub fn draw(frame: &mut Frame<'_>, area: Rect, log: &LogView, theme: &Theme, now: DateTime<Utc>) {
    let buf = frame.buffer_mut();
    if area.height <= CHROME || area.width < 20 {
        return;
    }
    let body = Rect { y: area.y + 2, height: area.height - CHROME, ..area };
    let gutter = log.stamps.cols() + 1;
    log.set_drawn(usize::from(body.width).saturating_sub(gutter), body.height.into());
    heading(buf, row(area, 0), log, theme, now);
    rule(buf, row(area, 1), log, theme);
    if log.is_empty() {
        let words = match log.state {
            State::Waiting => "waiting for output …",
            _ => "no output yet",
        };
        put(buf, row(body, 0), 1, words, theme.get(Role::Dim));
    }
    for (y, (number, line, part)) in (body.y..body.bottom()).zip(log.visible()) {
        let place = Rect { y, height: 1, ..body };
        output(buf, place, log, theme, Part { number, line, part });
    }
    footer(buf, row(area, area.height - 1), log, theme);
}

fn row(area: Rect, offset: u16) -> Rect {
    Rect { y: area.y + offset, height: 1, ..area }
}

/// Writes at a column of a row, cut at its end; returns the column after it.
fn put(buf: &mut Buffer, place: Rect, col: u16, words: &str, style: Style) -> u16 {
    let room = place.width.saturating_sub(col);
    let (end, _) = buf.set_stringn(place.x + col, place.y, words, room.into(), style);
    end - place.x
}

/// Writes styled words up to the right end of a row, with one column to spare; returns the column
/// where they begin.
fn put_right(buf: &mut Buffer, place: Rect, parts: &[(String, Style)]) -> u16 {
    let wide: usize = parts.iter().map(|(words, _)| text::width(words)).sum();
    let wide = u16::try_from(wide).unwrap_or(u16::MAX);
    let start = place.width.saturating_sub(wide.saturating_add(1));
    let mut col = start;
    for (words, style) in parts {
        col = put(buf, place, col, words, *style);
    }
    start
}

fn heading(buf: &mut Buffer, place: Rect, log: &LogView, theme: &Theme, now: DateTime<Utc>) {
    let (words, role) = condition(log, now);
    let right = [(words, theme.get(role))];
    let end = put_right(buf, place, &right).saturating_sub(2);
    let place = Rect { width: end, ..place };
    let dim = theme.get(Role::Dim);
    let name = text::cut(&log.job, usize::from(end).saturating_sub(2));
    let mut col = put(buf, place, 1, &name, theme.get(Role::Title));
    let mut facts = Vec::new();
    if !log.facts.worker.is_empty() {
        facts.push(format!("on {}", text::clean(&log.facts.worker)));
    }
    if let Some(since) = log.facts.since {
        facts.push(since.format("%Y-%m-%d %H:%M:%S UTC").to_string());
    }
    facts.push(format!("run {}", log.run));
    for fact in facts {
        // A fact is shown whole or not at all.
        let needed = text::width(&fact) + 2;
        if usize::from(end.saturating_sub(col)) >= needed {
            col = put(buf, place, col + 2, &fact, dim);
        }
    }
}

/// How the run is, in a few words.
fn condition(log: &LogView, now: DateTime<Utc>) -> (String, Role) {
    if let Some(record) = &log.facts.record {
        let took = text::duration(record.duration(now));
        let (sign, role) = match record.outcome {
            Outcome::Succeeded => ("✓", Role::Ok),
            Outcome::Failed | Outcome::TimedOut | Outcome::Lost => ("✗", Role::Error),
            Outcome::Running => ("»", Role::Running),
            Outcome::Killed | Outcome::Missed => ("!", Role::Warn),
            Outcome::Skipped => ("-", Role::Dim),
        };
        return (format!("{sign} {} {took}", record.outcome), role);
    }
    let elapsed = log.facts.since.map(|since| {
        let past = (now - since).max(TimeDelta::zero());
        // Whole seconds: tenths would flicker.
        text::duration(TimeDelta::seconds(past.num_seconds().max(1))).replace(".0s", "s")
    });
    match log.state {
        State::Failed => ("✗ unreadable".to_owned(), Role::Error),
        State::Waiting => ("opening …".to_owned(), Role::Dim),
        State::Live | State::Ended => (
            format!("» running {}", elapsed.unwrap_or_default()).trim_end().to_owned(),
            Role::Running,
        ),
    }
}

fn rule(buf: &mut Buffer, place: Rect, log: &LogView, theme: &Theme) {
    let border = theme.get(Role::Border);
    let dim = theme.get(Role::Dim);
    put(buf, place, 0, &"─".repeat(place.width.into()), border);
    let (streams, role) = match log.streams {
        Streams::Both => ("stdout + stderr", Role::Dim),
        Streams::Only(Stream::Stdout) => ("stdout only", Role::Accent),
        Streams::Only(Stream::Stderr) => ("stderr only", Role::Accent),
    };
    let mut modes = vec![(streams, theme.get(role))];
    modes.push((if log.wrap { "wrapped" } else { "one row a line" }, dim));
    match log.stamps {
        Stamps::Off => {}
        Stamps::Clock => modes.push(("time in UTC", dim)),
        Stamps::Elapsed => modes.push(("time since the start", dim)),
    }
    let dropped = log.lines.dropped();
    let mut right = text::count(log.lines.said(), "line");
    if dropped > 0 {
        right = format!("{right}, the first {} let go", text::grouped(dropped));
    }
    let right = [(format!(" {right} "), dim)];
    let end = put_right(buf, place, &right);
    let mut col = 1;
    for (words, style) in modes {
        let words = format!(" {words} ");
        if col + u16::try_from(words.len()).unwrap_or(u16::MAX) + 1 > end {
            break;
        }
        col = put(buf, place, col, &words, style) + 1;
    }
}

/// A row of the screen: which line, and which part of it.
#[derive(Clone, Copy)]
struct Part<'a> {
    number: u64,
    line: &'a Line,
    part: usize,
}

fn output(buf: &mut Buffer, place: Rect, log: &LogView, theme: &Theme, part: Part<'_>) {
    let Part { number, line, part } = part;
    let dim = theme.get(Role::Dim);
    let mut col = 0;
    if log.stamps != Stamps::Off {
        if part == 0 {
            put(buf, place, 0, &stamp(log, line), dim);
        }
        col = u16::try_from(log.stamps.cols()).unwrap_or(0);
    }
    let (mark, style) = match line.source {
        Source::Notice(_) => (" ", dim),
        Source::Stream(Stream::Stderr) => ("▌", theme.get(Role::Stderr)),
        Source::Stream(Stream::Stdout) if line.row.overwritten && part == 0 => ("«", dim),
        Source::Stream(Stream::Stdout) => (" ", dim),
    };
    col = put(buf, place, col, mark, style);
    let place = Rect { x: place.x + col, width: place.width.saturating_sub(col), ..place };
    let cols = usize::from(place.width);
    let base = match line.source {
        Source::Notice(role) => theme.get(role),
        Source::Stream(_) => Style::new(),
    };
    let text = &*line.row.text;
    let found: Vec<Range<usize>> = match (&log.search, line.source) {
        (Some(search), Source::Stream(_)) => search.needle.find(text).collect(),
        _ => Vec::new(),
    };
    let here = log.search.as_ref().is_some_and(|s| s.at == Some(number));
    let found_style = theme.get(match here {
        true => Role::MatchCurrent,
        false => Role::Match,
    });
    let range = if log.wrap {
        let pieces = line.row.pieces(cols);
        pieces.get(part).cloned().unwrap_or(0..0)
    } else {
        0..text.len()
    };
    let left = if log.wrap { 0 } else { log.left };
    let shown = text.get(range.clone()).unwrap_or_default();
    let mut spans = line.row.spans.iter().peekable();
    let mut paint = Paint::default();
    let mut at_col = 0;
    for (offset, grapheme) in shown.grapheme_indices(true) {
        let at = range.start + offset;
        while let Some(span) = spans.next_if(|s| s.start as usize <= at) {
            paint = span.paint;
        }
        let wide = text::grapheme_width(grapheme);
        let start = at_col;
        at_col += wide;
        if start < left {
            continue;
        }
        if at_col > left + cols {
            break;
        }
        let mut style = base.patch(paint.style(theme));
        if found.iter().any(|range| range.contains(&at)) {
            style = style.patch(found_style);
        }
        let x = u16::try_from(start - left).unwrap_or(u16::MAX);
        put(buf, place, x, grapheme, style);
    }
    if !log.wrap && cols > 2 {
        if left > 0 && line.row.cols > 0 {
            put(buf, place, 0, "‹", theme.get(Role::Accent));
        }
        if usize::from(line.row.cols) > left + cols {
            put(buf, place, place.width - 1, "›", theme.get(Role::Accent));
        }
    }
}

fn stamp(log: &LogView, line: &Line) -> String {
    match (log.stamps, log.facts.since) {
        (Stamps::Elapsed, Some(since)) => {
            let ms = (line.at - since).num_milliseconds().max(0);
            let (s, ms) = (ms / 1_000, ms % 1_000);
            let words = match s {
                0..3_600 => format!("+{}:{:02}.{ms:03}", s / 60, s % 60),
                _ => format!("+{}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60),
            };
            text::fit_right(&words, log.stamps.cols() - 1)
        }
        (Stamps::Off, _) => String::new(),
        _ => line.at.format("%H:%M:%S%.3f").to_string(),
    }
}

fn footer(buf: &mut Buffer, place: Rect, log: &LogView, theme: &Theme) {
    let dim = theme.get(Role::Dim);
    if let Some(input) = &log.typing {
        let count = log.search.as_ref().map_or(0, Search::count);
        let words = match input.text().is_empty() {
            true => "enter finds, esc leaves".to_owned(),
            false => text::count(count as u64, "line"),
        };
        let end = put_right(buf, place, &[(words, dim)]).saturating_sub(2);
        let place = Rect { width: end, ..place };
        let (before, after) = input.parts();
        let mut after = after.graphemes(true);
        let cursor = after.next().unwrap_or(" ");
        let col = put(buf, place, 0, " /", theme.get(Role::Key));
        // What is typed last is what is looked at.
        let room = usize::from(end.saturating_sub(col)).saturating_sub(2);
        let mut head = before;
        while text::width(head) > room {
            let first = head.graphemes(true).next().map_or(1, str::len);
            head = head.get(first..).unwrap_or_default();
        }
        let col = put(buf, place, col, &text::clean(head), theme.get(Role::Text));
        let col = put(buf, place, col, cursor, theme.get(Role::Cursor));
        put(buf, place, col, after.as_str(), theme.get(Role::Text));
        return;
    }
    let mut right = Vec::new();
    if let Some(search) = &log.search {
        let total = search.count();
        let words = match (search.rank(), total) {
            (_, 0) => "not found".to_owned(),
            (Some(rank), _) => format!("{rank} of {total}"),
            (None, _) => text::count(total as u64, "line"),
        };
        let needle = text::cut(search.needle.text(), 20);
        right.push((format!("/{needle} "), theme.get(Role::Accent)));
        right.push((format!("{words}  "), dim));
    }
    if log.follow {
        let live = matches!(log.state, State::Live | State::Waiting);
        let words = if live { "following" } else { "end" };
        let role = if live { Role::Running } else { Role::Dim };
        right.push((words.to_owned(), theme.get(role)));
    } else {
        if log.arrived > 0 {
            let words = format!(" {} new ", text::grouped(log.arrived));
            right.push((words, theme.get(Role::Badge)));
            right.push((" ".to_owned(), dim));
        }
        let last = log.visible().last().map_or(0, |(number, ..)| number);
        let seen = log.lines.index(log.streams, last) + 1;
        let percent = seen.saturating_mul(100) / log.len().max(1);
        right.push((format!("paused at {percent} %"), theme.get(Role::Warn)));
    }
    let end = put_right(buf, place, &right).saturating_sub(1);
    let place = Rect { width: end, ..place };
    let searching = log.search.is_some().then_some(("n/N", "next/previous"));
    let mut col = 1;
    let first = searching.into_iter();
    for (key, word) in first.chain(KEYS) {
        let sideways = key == "h/l";
        if sideways && log.wrap {
            continue;
        }
        let wide = u16::try_from(key.len() + word.len() + 3).unwrap_or(u16::MAX);
        if col + wide > end + 1 {
            break;
        }
        col = put(buf, place, col, key, theme.get(Role::Key));
        col = put(buf, place, col + 1, word, dim) + 2;
    }
}

#[cfg(test)]
mod tests;
