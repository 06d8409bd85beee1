//! The table of live runs.

use carillon_core::id::{JobName, RunId};
use carillon_core::run::{LiveRun, RunState};
use chrono::TimeDelta;
use ratatui::Frame;
use ratatui::layout::Rect;

use super::table::{self, Cell, Column, Look, column, number};
use crate::model::Model;
use crate::model::runs::{RunColumn, find, state_word};
use crate::text;
use crate::theme::Role;

const COLUMNS: [Column<RunColumn>; 8] = [
    column(RunColumn::Job, "JOB", 14, 32, 0),
    column(RunColumn::State, "STATE", 14, 14, 3),
    column(RunColumn::Worker, "WORKER", 8, 16, 1),
    number(RunColumn::Pid, "PID", 7, 8, 4),
    number(RunColumn::Elapsed, "ELAPSED", 8, 8, 2),
    number(RunColumn::Cpu, "CPU", 7, 8, 6),
    number(RunColumn::Memory, "MEMORY", 7, 8, 5),
    column(RunColumn::LastLine, "LAST LINE", 12, 400, 7),
];

/// Draws the live runs.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let runs = &model.runs;
    let look = Look { theme: &model.theme, stale: model.connection.etcd.is_stale() };
    let cell = |key: &(JobName, RunId), id| match find(&model.replica, key) {
        Some(live) => run_cell(model, live, id),
        None => Cell::default(),
    };
    let arrow = |id| runs.sort.arrow(id);
    table::draw(frame, area, &look, &COLUMNS, arrow, &runs.list, cell);
    if runs.list.rows().is_empty() {
        let body = Rect { y: area.y + 1, height: area.height - 1, ..area };
        let lines = match (model.synced, model.replica.live.is_empty()) {
            (false, _) => super::status::connecting(model),
            (true, true) => vec!["nothing is running".to_owned()],
            (true, false) => super::status::no_match(model),
        };
        super::empty(frame, body, &model.theme, &lines);
    }
}

fn run_cell(model: &Model, live: &LiveRun, id: RunColumn) -> Cell {
    let told = model.runs.telemetry(live.run);
    let dash = || Cell::dim("-");
    match id {
        RunColumn::Job => Cell::plain(live.job.as_str()),
        RunColumn::State => {
            let word = state_word(&model.replica, live);
            let role = match live.value.state {
                RunState::Running if word == "running" => Role::Running,
                RunState::Claimed if word == "starting" => Role::Dim,
                RunState::Killed => Role::Error,
                _ => Role::Warn,
            };
            Cell::new(word, role)
        }
        RunColumn::Worker => Cell::plain(live.value.worker.as_str()),
        RunColumn::Pid => live.value.pid.map_or_else(dash, |p| Cell::plain(p.to_string())),
        RunColumn::Elapsed => {
            let elapsed = (model.now - live.value.since).max(TimeDelta::zero());
            // Whole seconds: tenths would change with every frame.
            let whole = TimeDelta::seconds(elapsed.num_seconds());
            Cell::plain(span(whole))
        }
        RunColumn::Cpu => told
            .and_then(|r| r.cpu_millis)
            .map_or_else(dash, |ms| Cell::plain(text::duration(TimeDelta::milliseconds(ms)))),
        RunColumn::Memory => {
            told.and_then(|r| r.max_rss_bytes).map_or_else(dash, |bytes| Cell::plain(size(bytes)))
        }
        RunColumn::LastLine => {
            told.and_then(|r| r.last_line.as_deref()).map_or_else(dash, Cell::dim)
        }
    }
}

/// A span of whole seconds: `42s`, `3m07s`, `2h05m`, `3d04h`.
pub fn span(delta: TimeDelta) -> String {
    let secs = delta.num_seconds().max(0);
    match secs {
        0..60 => format!("{secs}s"),
        60..3_600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3_600..86_400 => format!("{}h{:02}m", secs / 3_600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs / 3_600 % 24),
    }
}

/// Bytes in at most seven columns: `512 B`, `1.5 MiB`.
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{} B", bytes.max(0));
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.into_iter().skip(1) {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match value < 10.0 {
        true => format!("{value:.1} {unit}"),
        false => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1_572_864, 1_047_527_424, 1 << 40].map(size);
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "999 MiB", "1.0 TiB"];
        assert_eq!(sizes, expected);
    }
}
