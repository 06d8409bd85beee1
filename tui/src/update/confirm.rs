//! Questions: which button a key presses, and what a yes leads to.

use crossterm::event::{KeyCode, KeyEvent};

use crate::effect::{Effect, Ticket};
use crate::key::Chord;
use crate::model::Model;
use crate::model::layers::{Confirm, Focus, KillWatch, Layer, Pending};

/// What a key makes of a question.
pub(super) enum Answer {
    /// It is still open.
    Open,
    /// Nothing happens.
    No,
    /// It happens.
    Yes,
}

/// Takes a key. Cancel is focused at first; Enter presses the focused button, and the other one
/// only when the number that was asked for is typed.
pub(super) fn key(question: &mut Confirm, key: KeyEvent) -> Answer {
    let last = question.targets.len().saturating_sub(1);
    match key.code {
        KeyCode::Esc => return Answer::No,
        _ if Chord::from(key).is_interrupt() => return Answer::No,
        KeyCode::Enter => match question.focus {
            Focus::Cancel => return Answer::No,
            Focus::Act if question.is_armed() => return Answer::Yes,
            Focus::Act => {}
        },
        KeyCode::Tab | KeyCode::BackTab => {
            question.focus = match question.focus {
                Focus::Cancel => Focus::Act,
                Focus::Act => Focus::Cancel,
            };
        }
        KeyCode::Left => question.focus = Focus::Cancel,
        KeyCode::Right => question.focus = Focus::Act,
        KeyCode::Up => question.scroll = question.scroll.saturating_sub(1),
        KeyCode::Down => question.scroll = (question.scroll + 1).min(last),
        KeyCode::Char(c) if question.count.is_some() && !c.is_ascii_digit() => {}
        _ if question.count.is_some() => {
            question.typed.key(key);
        }
        _ => {}
    }
    Answer::Open
}

/// Does what was confirmed. The layer of the question is already gone.
pub(super) fn act(model: &mut Model, pending: Pending) -> Vec<Effect> {
    match pending {
        Pending::Kill(targets) => {
            let runs = targets.iter().map(|t| (t.job.clone(), t.run)).collect();
            let mut watch = KillWatch::new(targets, model.now);
            watch.follow(&model.replica, model.now);
            model.layers.push(Layer::Kill(watch));
            model.runs.list.clear_marks();
            model.jobs.list.clear_marks();
            vec![Effect::Kill(runs)]
        }
        Pending::Delete(jobs) => {
            model.jobs.list.clear_marks();
            let gone = |layer: &Layer| matches!(layer, Layer::Details(d) if jobs.iter().any(|(j, _)| *j == d.job));
            model.layers.retain(|layer| !gone(layer));
            vec![Effect::DeleteJobs(jobs)]
        }
        Pending::Run(jobs) => {
            model.jobs.list.clear_marks();
            vec![Effect::RunNow(jobs)]
        }
        Pending::Save(saves) => {
            model.jobs.list.clear_marks();
            let ticket = |model: &mut Model| Ticket(model.number());
            saves.into_iter().map(|save| Effect::SaveJob { ticket: ticket(model), save }).collect()
        }
        Pending::Drain(worker) => vec![Effect::Drain { worker, on: true }],
        Pending::Discard => {
            if matches!(model.layers.last(), Some(Layer::Editor { .. })) {
                model.layers.pop();
            }
            Vec::new()
        }
        Pending::Quit => vec![Effect::Quit],
    }
}
