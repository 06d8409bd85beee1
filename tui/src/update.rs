//! What each message does to the model. Plain functions: no I/O, no clock, nothing awaited.

pub mod commands;
pub mod confirm;
pub mod editor;
pub mod keys;
pub mod log;

use std::collections::BTreeSet;

use carillon_core::keys::Key;
use carillon_core::records::Page;
use carillon_core::replica::Feed;
use carillon_core::run::RunRecord;
use chrono::{DateTime, Utc};
use crossterm::event::{Event, KeyEventKind};

use crate::effect::{Effect, SaveKind, Ticket};
use crate::model::jobs::JobColumn;
use crate::model::layers::Layer;
use crate::model::toasts::Level;
use crate::model::{Model, View};
use crate::msg::{ActError, LogPart, Msg, Store};

/// Changes the model by one message, which came at `now`, and returns what is to be done outside.
pub fn update(model: &mut Model, msg: Msg, now: DateTime<Utc>) -> Vec<Effect> {
    model.now = now;
    match msg {
        Msg::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => {
            model.dirty = true;
            model.settle();
            let effects = keys::key(model, key);
            model.settle();
            effects
        }
        Msg::Input(Event::Paste(text)) => {
            model.dirty = true;
            keys::paste(model, &text)
        }
        Msg::Input(Event::Resize(columns, rows)) => {
            model.screen = (columns, rows);
            model.dirty = true;
            model.settle();
            Vec::new()
        }
        Msg::Input(_) => Vec::new(),
        Msg::Tick => {
            model.toasts.expire(now);
            if model.jobs.depends_on_time() {
                model.jobs.outdate();
            }
            model.dirty = true;
            Vec::new()
        }
        Msg::Fleet(feed) => {
            fleet(model, &feed);
            Vec::new()
        }
        Msg::Recent(records) => {
            model.connection.mongo.delivered(now);
            recent(model, &records);
            Vec::new()
        }
        Msg::Live(records) => {
            model.connection.mongo.delivered(now);
            model.runs.learn(records);
            model.dirty = true;
            Vec::new()
        }
        Msg::History { generation, result } => {
            history(model, generation, result);
            if model.history.must_go_on() {
                let generation = model.number();
                return model.history.next_page(generation).into_iter().collect();
            }
            Vec::new()
        }
        Msg::Log { run, part } => {
            log_part(model, run, part);
            Vec::new()
        }
        Msg::Saved { ticket, job, what, result } => {
            saved(model, ticket, &job, what, result);
            Vec::new()
        }
        Msg::Acted { action, result } => {
            acted(model, &action, result);
            Vec::new()
        }
        Msg::Health { store, health } => {
            let back = health.up && model.connection.of(store).is_stale();
            model.connection.of(store).measured(health);
            model.dirty = true;
            // What could not be read while the store was away is asked for again.
            if back && store == Store::Mongo && model.history.error.is_some() {
                let generation = model.number();
                return vec![model.history.reload(generation)];
            }
            Vec::new()
        }
        Msg::Theme(result) => {
            match result {
                Ok(theme) => model.theme = *theme,
                Err(why) => model.toasts.show(Level::Error, why, now),
            }
            model.dirty = true;
            Vec::new()
        }
        Msg::Resume => {
            model.dirty = true;
            vec![Effect::Repaint]
        }
    }
}

fn fleet(model: &mut Model, feed: &Feed) {
    let (before, now) = (model.replica.revision, model.now);
    let touched = model.replica.apply(&model.keys, feed, now);
    match feed {
        Feed::Lost { reason } => {
            model.connection.etcd.lost(reason, now);
            model.dirty = true;
            return;
        }
        // The rest of the list is on its way.
        Feed::Part { .. } => {}
        Feed::Snapshot { .. } | Feed::Changes { .. } => {
            model.dirty |= model.connection.etcd.is_stale();
            model.connection.etcd.delivered(now);
            model.dirty |= !touched.is_empty() || model.replica.revision != before || !model.synced;
            model.synced = true;
        }
    }
    outdate(model, &touched);
    let replica = &model.replica;
    for layer in &mut model.layers {
        if let Layer::Kill(watch) = layer {
            watch.follow(replica, now);
        }
    }
}

/// Marks the indexes that the touched keys belong to, and only those.
fn outdate(model: &mut Model, touched: &BTreeSet<Key>) {
    let by_runs = model.jobs.sort.column == JobColumn::State || !model.jobs.filter.is_empty();
    let mut decided: Vec<RunRecord> = Vec::new();
    for key in touched {
        match key {
            Key::Job(_) | Key::Settings => model.jobs.outdate(),
            Key::Running(..) => {
                model.runs.outdate();
                if by_runs {
                    model.jobs.outdate();
                }
            }
            Key::KillJob(_) | Key::KillRun(..) => model.runs.outdate(),
            Key::Worker(_) | Key::Drain(_) => model.workers.outdate(),
            // What MongoDB has not acknowledged yet is known all the same.
            Key::Done(job, id) => {
                let done = model.replica.done.get(&(job.clone(), *id));
                decided.extend(done.map(|d| d.value.clone()));
            }
            Key::Cursor(..) | Key::Trigger(..) | Key::Unknown(_) | Key::Misnamed(..) => {}
        }
    }
    if !decided.is_empty() {
        recent(model, &decided);
    }
}

fn recent(model: &mut Model, records: &[RunRecord]) {
    model.dirty |= model.jobs.learn(records);
    model.history.learn(records);
    for layer in &mut model.layers {
        if let Layer::Details(details) = layer
            && let Some(Ok(known)) = &mut details.records
        {
            let job = details.job.as_str();
            for record in records.iter().filter(|r| r.job_name == job) {
                match known.iter_mut().find(|r| r.id == record.id) {
                    Some(old) => old.clone_from(record),
                    None => known.push(record.clone()),
                }
                model.dirty = true;
            }
            known.sort_by_key(|r| std::cmp::Reverse((r.start_time, r.id)));
            known.truncate(commands::DETAIL_RECORDS);
        }
    }
    if model.view == View::History {
        model.dirty = true;
    }
}

fn history(model: &mut Model, generation: u64, result: Result<Page, String>) {
    if let Ok(page) = &result {
        model.jobs.learn(&page.records);
        model.connection.mongo.delivered(model.now);
    }
    model.dirty = true;
    for layer in &mut model.layers {
        if let Layer::Details(details) = layer
            && details.generation == generation
        {
            details.records = Some(result.map(|page| page.records));
            return;
        }
    }
    model.history.answered(generation, result);
}

fn log_part(model: &mut Model, of: carillon_core::id::RunId, part: LogPart) {
    for layer in &mut model.layers {
        if let Layer::Log { run, view } = layer
            && *run == of
        {
            match part {
                LogPart::Chunks(chunks) => view.push(chunks),
                LogPart::Ended(record) => view.ended(*record),
                LogPart::Failed(why) => view.failed(&why),
            }
            model.dirty = true;
            return;
        }
    }
}

fn saved(
    model: &mut Model,
    ticket: Ticket,
    job: &str,
    what: SaveKind,
    result: Result<i64, ActError>,
) {
    model.dirty = true;
    let now = model.now;
    let asker = model
        .layers
        .iter()
        .position(|l| matches!(l, Layer::Editor { ticket: t, .. } if *t == ticket));
    match result {
        Ok(_) => {
            if let Some(at) = asker {
                model.layers.remove(at);
                if let Ok(name) = job.parse() {
                    model.settle();
                    model.jobs.list.select(&name);
                }
            }
            let text = format!("{} {}", job, what.done());
            model.toasts.show(Level::Done, text, now);
        }
        Err(error) => {
            let editor = asker.and_then(|at| match model.layers.get_mut(at) {
                Some(Layer::Editor { editor, .. }) => Some(editor),
                _ => None,
            });
            match (editor, error) {
                (Some(editor), ActError::Conflict { theirs }) => {
                    editor.conflict(theirs.map(|entry| *entry));
                }
                (Some(editor), error) => editor.failed(words(error)),
                (None, error) => {
                    let text = format!("{} {job}: {}", what.verb(), words(error));
                    model.toasts.show(Level::Error, text, now);
                }
            }
        }
    }
}

fn acted(model: &mut Model, action: &str, result: Result<String, ActError>) {
    model.dirty = true;
    let now = model.now;
    match result {
        Ok(text) => model.toasts.show(Level::Done, text, now),
        Err(error) => {
            let why = words(error);
            for layer in &mut model.layers {
                if let Layer::Kill(watch) = layer
                    && action.starts_with("kill")
                {
                    watch.error = Some(why.clone());
                }
            }
            let text = format!("{action}: {why}");
            model.toasts.show(Level::Error, text, now);
        }
    }
}

fn words(error: ActError) -> String {
    match error {
        ActError::Conflict { theirs: Some(_) } => {
            "somebody else changed it meanwhile; nothing was written".to_owned()
        }
        ActError::Conflict { theirs: None } => {
            "somebody else deleted it meanwhile; nothing was written".to_owned()
        }
        ActError::Refused(why) | ActError::Unreachable(why) => why,
    }
}

#[cfg(test)]
mod tests;
