//! The table of records.

use carillon_core::id::RunId;
use carillon_core::run::{Outcome, RunRecord};
use chrono_tz::Tz;
use ratatui::Frame;
use ratatui::layout::Rect;

use super::jobs::{clock, role, short};
use super::table::{self, Cell, Column, Look, column, number};
use crate::model::Model;
use crate::text;
use crate::theme::Role;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HistoryColumn {
    Time,
    Job,
    Outcome,
    Exit,
    Took,
    Worker,
    Trigger,
    Why,
}

const COLUMNS: [Column<HistoryColumn>; 8] = [
    column(HistoryColumn::Time, "STARTED", 16, 20, 1),
    column(HistoryColumn::Job, "JOB", 14, 32, 0),
    column(HistoryColumn::Outcome, "OUTCOME", 9, 10, 0),
    number(HistoryColumn::Exit, "EXIT", 5, 6, 4),
    number(HistoryColumn::Took, "TOOK", 7, 8, 2),
    column(HistoryColumn::Worker, "WORKER", 8, 16, 3),
    column(HistoryColumn::Trigger, "TRIGGER", 8, 8, 6),
    column(HistoryColumn::Why, "WHY", 12, 400, 5),
];

/// Draws the records, newest first.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let history = &model.history;
    let look = Look { theme: &model.theme, stale: model.connection.mongo.is_stale() };
    let zone = model.replica.settings().0.zone().unwrap_or(Tz::UTC);
    let cell = |id: &RunId, column| match history.record(*id) {
        Some(record) => record_cell(model, record, column, zone),
        None => Cell::default(),
    };
    table::draw(frame, area, &look, &COLUMNS, |_| "", &history.list, cell);
    let body = Rect { y: area.y + 1, height: area.height - 1, ..area };
    if let Some(why) = &history.error {
        let lines = [
            format!("the history cannot be read: {why}"),
            format!("from {}", model.connection.mongo.place),
        ];
        if history.list.rows().is_empty() {
            super::empty(frame, body, &model.theme, &lines);
        }
    } else if history.list.rows().is_empty() {
        let lines = match (history.loading, history.filter.is_empty()) {
            (true, _) => vec!["reading…".to_owned()],
            (false, true) => vec![
                "no run has been recorded yet".to_owned(),
                "a job that fires leaves its record here".to_owned(),
            ],
            (false, false) => super::status::no_match(model),
        };
        super::empty(frame, body, &model.theme, &lines);
    }
}

fn record_cell(model: &Model, record: &RunRecord, id: HistoryColumn, zone: Tz) -> Cell {
    match id {
        HistoryColumn::Time => Cell::plain(clock(record.start_time, model.now, zone)),
        HistoryColumn::Job => Cell::plain(record.job_name.as_str()),
        HistoryColumn::Outcome => Cell::new(short(record.outcome), role(record.outcome)),
        HistoryColumn::Exit => exit(record).map_or_else(|| Cell::dim("-"), Cell::plain),
        HistoryColumn::Took => match record.took(model.now) {
            None => Cell::dim("-"),
            Some(so_far) if record.outcome == Outcome::Running => {
                Cell::new(super::running::span(so_far), Role::Running)
            }
            Some(took) => Cell::plain(text::duration(took)),
        },
        HistoryColumn::Worker => Cell::plain(record.worker.as_str()),
        HistoryColumn::Trigger => Cell::dim(record.trigger.to_string()),
        HistoryColumn::Why => Cell::dim(why(record)),
    }
}

/// How the process ended: its exit code, or `SIG9`.
pub fn exit(record: &RunRecord) -> Option<String> {
    match (record.exit_code, record.signal) {
        (_, Some(signal)) => Some(format!("SIG{signal}")),
        (Some(code), None) => Some(code.to_string()),
        (None, None) => None,
    }
}

/// What there is to say about the outcome.
pub fn why(record: &RunRecord) -> String {
    let mut words = match &record.reason {
        Some(reason) if record.err.is_empty() => reason.clone(),
        _ => record.err.clone(),
    };
    if let Some(count) = record.count.filter(|n| *n > 1) {
        words = format!("{count} slots: {words}");
    }
    if let Some(by) = record.killed_by.as_ref().map(|by| format!("killed by {by}"))
        && !words.starts_with(&by)
    {
        words = format!("{by} {words}");
    }
    words.trim_end().to_owned()
}
