//! The table of jobs.

use carillon_core::id::JobName;
use carillon_core::job::JobEntry;
use carillon_core::run::Outcome;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use ratatui::Frame;
use ratatui::layout::Rect;

use super::table::{self, Cell, Column, Look, column, number};
use crate::command::Command;
use crate::model::Model;
use crate::model::jobs::{JobColumn, JobState, Past, Seen};
use crate::text;
use crate::theme::Role;

const COLUMNS: [Column<JobColumn>; 9] = [
    column(JobColumn::State, "STATE", 10, 12, 1),
    column(JobColumn::Name, "NAME", 14, 36, 0).usually(16),
    column(JobColumn::Schedule, "SCHEDULE", 11, 22, 3).usually(17),
    column(JobColumn::Next, "NEXT", 7, 7, 2),
    column(JobColumn::At, "AT", 18, 20, 7).usually(20),
    column(JobColumn::Last, "LAST", 13, 14, 4),
    number(JobColumn::Took, "TOOK", 6, 7, 5),
    column(JobColumn::Strip, "LAST 20", 20, 20, 6),
    column(JobColumn::Labels, "LABELS", 10, 60, 8),
];

/// Draws the jobs, or says what to do where there are none.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let jobs = &model.jobs;
    let look = Look { theme: &model.theme, stale: model.connection.etcd.is_stale() };
    let cell = |name: &JobName, id| match model.job(name) {
        Some(entry) => job_cell(model, entry, id),
        None => Cell::default(),
    };
    let arrow = |id| jobs.sort.arrow(id);
    table::draw(frame, area, &look, &COLUMNS, arrow, &jobs.list, cell);
    if !jobs.list.rows().is_empty() {
        return;
    }
    let body = Rect { y: area.y + 1, height: area.height - 1, ..area };
    if !model.synced {
        super::empty(frame, body, &model.theme, &super::status::connecting(model));
    } else if model.replica.jobs.is_empty() {
        let what = match model.read_only {
            true => "run `carillon apply -f FILE` to write one".to_owned(),
            false => format!(
                "press {} to write one, or run `carillon apply -f FILE`",
                model.keymap.hint(Command::New)
            ),
        };
        let lines = [format!("no jobs yet under {}/jobs/", model.keys.fleet()), what];
        super::empty(frame, body, &model.theme, &lines);
    } else {
        super::empty(frame, body, &model.theme, &super::status::no_match(model));
    }
}

fn job_cell(model: &Model, entry: &JobEntry, id: JobColumn) -> Cell {
    let live = model.replica.live_of(&entry.name).count();
    let past = model.jobs.past(&entry.name);
    let last = past.and_then(|p| p.last());
    match id {
        JobColumn::State => state_cell(JobState::of(entry, live)),
        JobColumn::Name => Cell::plain(entry.name.as_str()),
        JobColumn::Schedule => match (entry.job(), &entry.state) {
            (Some(job), _) => Cell::plain(job.cron_expr.as_str()),
            (None, Err(problems)) => Cell::new(problems.to_string(), Role::Error),
            (None, Ok(_)) => Cell::default(),
        },
        JobColumn::Next => next_cell(model, entry),
        JobColumn::At => at_cell(model, entry),
        JobColumn::Last => match last {
            Some(seen) => {
                let ago = text::ago(model.now - seen.at());
                Cell::new(short(seen.outcome), role(seen.outcome))
                    .then(format!(" {ago}"), Role::Dim)
            }
            None => Cell::dim("-"),
        },
        JobColumn::Took => match last.and_then(Seen::took) {
            Some(took) => Cell::plain(text::duration(took)),
            None => Cell::dim("-"),
        },
        JobColumn::Strip => past
            .into_iter()
            .flat_map(Past::strip)
            .fold(Cell::default(), |cell, outcome| cell.then(glyph(outcome), role(outcome))),
        JobColumn::Labels => Cell::dim(entry.job().map_or_else(String::new, |job| {
            let labels = job.labels.iter().map(|(k, v)| format!("{k}={v}"));
            labels.collect::<Vec<_>>().join(" ")
        })),
    }
}

fn state_cell(state: JobState) -> Cell {
    match state {
        JobState::Broken => Cell::new("✗ broken", Role::Error),
        JobState::Running(1) => Cell::new("» running", Role::Running),
        JobState::Running(n) => Cell::new(format!("» running {n}"), Role::Running),
        JobState::Enabled => Cell::new("✓ enabled", Role::Ok),
        JobState::Paused => Cell::new("- paused", Role::Dim),
    }
}

fn next_cell(model: &Model, entry: &JobEntry) -> Cell {
    match (model.replica.next_firing(entry, model.now), entry.job()) {
        (Some(next), _) => Cell::plain(format!("in {}", text::ago(next - model.now))),
        (None, Some(job)) if job.enabled => Cell::dim("never"),
        (None, _) => Cell::dim("-"),
    }
}

fn at_cell(model: &Model, entry: &JobEntry) -> Cell {
    let next = model.replica.next_firing(entry, model.now);
    let checked = entry.state.as_ref().ok();
    let zone = checked.and_then(|c| model.replica.zone_of(c).ok());
    next.map_or_else(Cell::default, |next| {
        Cell::dim(clock(next, model.now, zone.unwrap_or(Tz::UTC)))
    })
}

/// A time for people: the weekday within a week, the date beyond.
pub fn clock(at: DateTime<Utc>, now: DateTime<Utc>, zone: Tz) -> String {
    let local = at.with_timezone(&zone);
    let format = match (at - now).abs() < TimeDelta::days(6) {
        true => "%a %H:%M:%S %Z",
        false => "%Y-%m-%d %H:%M %Z",
    };
    local.format(format).to_string()
}

/// The colour of an outcome.
pub fn role(outcome: Outcome) -> Role {
    match outcome {
        Outcome::Running => Role::Running,
        Outcome::Succeeded => Role::Ok,
        Outcome::Failed | Outcome::TimedOut | Outcome::Lost => Role::Error,
        Outcome::Killed | Outcome::Missed => Role::Warn,
        Outcome::Skipped => Role::Dim,
    }
}

/// One column for an outcome, that tells them apart without colours.
pub fn glyph(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Running => "»",
        Outcome::Succeeded => "▪",
        Outcome::Failed => "✗",
        Outcome::TimedOut => "T",
        Outcome::Killed => "K",
        Outcome::Lost => "?",
        Outcome::Skipped => "-",
        Outcome::Missed => "m",
    }
}

/// An outcome in at most nine letters.
pub fn short(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "ok",
        Outcome::TimedOut => "timed out",
        other => other.as_str(),
    }
}
