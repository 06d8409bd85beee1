//! The table of workers.

use carillon_core::fleet::{WorkerEntry, rules_version};
use carillon_core::id::WorkerId;
use chrono::TimeDelta;
use ratatui::Frame;
use ratatui::layout::Rect;

use super::table::{self, Cell, Column, Look, column, number};
use crate::model::Model;
use crate::model::workers::{SKEW_WARNING, WorkerColumn, state_word};
use crate::text;
use crate::theme::Role;

const COLUMNS: [Column<WorkerColumn>; 11] = [
    column(WorkerColumn::Id, "WORKER", 12, 20, 0),
    column(WorkerColumn::State, "STATE", 11, 12, 1),
    number(WorkerColumn::Load, "RUNS", 7, 9, 2),
    number(WorkerColumn::Late, "LATE P99", 9, 9, 3),
    number(WorkerColumn::Skew, "SKEW", 7, 8, 4),
    number(WorkerColumn::Lag, "LAG", 5, 7, 6),
    number(WorkerColumn::Up, "UP", 6, 7, 5),
    column(WorkerColumn::Host, "HOST", 10, 24, 7),
    column(WorkerColumn::Version, "VERSION", 8, 10, 9),
    column(WorkerColumn::Rules, "RULES", 8, 10, 10),
    column(WorkerColumn::Labels, "LABELS", 10, 60, 8),
];

/// Draws the workers.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let workers = &model.workers;
    let look = Look { theme: &model.theme, stale: model.connection.etcd.is_stale() };
    let cell = |id: &WorkerId, column| match model.replica.workers.get(id) {
        Some(worker) => worker_cell(model, worker, column),
        None => Cell::default(),
    };
    let arrow = |id| workers.sort.arrow(id);
    table::draw(frame, area, &look, &COLUMNS, arrow, &workers.list, cell);
    if workers.list.rows().is_empty() {
        let body = Rect { y: area.y + 1, height: area.height - 1, ..area };
        let lines = match (model.synced, model.replica.workers.is_empty()) {
            (false, _) => super::status::connecting(model),
            (true, true) => vec![
                "no worker is registered: nothing fires".to_owned(),
                "start `carillon-worker` on a machine of the fleet".to_owned(),
            ],
            (true, false) => super::status::no_match(model),
        };
        super::empty(frame, body, &model.theme, &lines);
    }
}

fn worker_cell(model: &Model, worker: &WorkerEntry, id: WorkerColumn) -> Cell {
    let dash = || Cell::dim("-");
    if id == WorkerColumn::Id {
        return Cell::plain(worker.id.as_str());
    }
    let told = match &worker.value {
        Ok(told) => told,
        Err(why) => {
            return match id {
                WorkerColumn::State => Cell::new("unreadable", Role::Error),
                WorkerColumn::Host => Cell::new(why.as_str(), Role::Error),
                _ => dash(),
            };
        }
    };
    match id {
        WorkerColumn::Id => dash(),
        WorkerColumn::State => {
            let word = state_word(&model.replica, worker);
            Cell::new(word, if word == "ready" { Role::Ok } else { Role::Warn })
        }
        WorkerColumn::Load => {
            let full = told.running >= told.capacity;
            let role = if full { Role::Warn } else { Role::Text };
            Cell::new(format!("{}/{}", told.running, told.capacity), role)
        }
        WorkerColumn::Late => told.lateness_p99_millis.map_or_else(dash, |ms| {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            Cell::plain(text::duration(TimeDelta::milliseconds(ms)))
        }),
        WorkerColumn::Skew => worker.skew.map_or_else(dash, |skew| {
            let off = skew.abs() > SKEW_WARNING;
            let role = if off { Role::Warn } else { Role::Text };
            let sign = match skew.num_milliseconds() {
                0 => "",
                ..0 => "-",
                _ => "+",
            };
            Cell::new(format!("{sign}{}", text::duration(skew.abs())), role)
        }),
        WorkerColumn::Lag => {
            // In revisions; a worker writes its own registration, so a few are normal.
            let lag = (worker.mod_revision - told.watch_revision).max(0);
            let role = if lag > 1000 { Role::Warn } else { Role::Text };
            Cell::new(lag.to_string(), role)
        }
        WorkerColumn::Up => Cell::plain(text::ago(model.now - told.started)),
        WorkerColumn::Host => match &told.standing_by {
            Some(why) => Cell::new(format!("{}: {why}", told.host), Role::Warn),
            None => Cell::plain(format!("{} ({})", told.host, told.pid)),
        },
        WorkerColumn::Version => Cell::dim(told.version.as_str()),
        WorkerColumn::Rules => {
            // Other rules than this console's: what is shown here is not what fires there.
            let role = if told.rules_version == rules_version() { Role::Dim } else { Role::Warn };
            Cell::new(told.rules_version.as_str(), role)
        }
        WorkerColumn::Labels => {
            let labels = told.labels.iter().map(|(k, v)| format!("{k}={v}"));
            Cell::dim(labels.collect::<Vec<_>>().join(" "))
        }
    }
}
