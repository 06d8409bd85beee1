//! Keys of the editor.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::effect::SaveJob;
use crate::model::editor::field::Kind;
use crate::model::editor::form::Form;
use crate::model::editor::{Body, Editor};

/// What the editor must know of the world.
#[derive(Debug, Clone, Copy)]
pub struct Ctx {
    /// The time.
    pub now: DateTime<Utc>,
    /// The fleet's zone.
    pub zone: Tz,
}

/// What follows from a key.
#[derive(Debug, PartialEq)]
pub enum EditorReply {
    /// The editor stays open.
    Stay,
    /// The job is to be written.
    Save(SaveJob),
    /// The editor is to be closed.
    Close,
    /// Something typed would be lost: the operator is to be asked.
    AskDiscard,
}

/// Takes a key.
pub fn key(editor: &mut Editor, key: KeyEvent, ctx: &Ctx) -> EditorReply {
    editor.zone = ctx.zone;
    if editor.conflict.is_some() {
        return in_conflict(editor, key);
    }
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    if key.code == KeyCode::Esc {
        return match editor.is_dirty() || editor.saving {
            true => EditorReply::AskDiscard,
            false => EditorReply::Close,
        };
    }
    if editor.saving {
        // What is typed now would be lost when the save succeeds.
        return EditorReply::Stay;
    }
    editor.note = None;
    if ctrl && key.code == KeyCode::Char('s') {
        return editor.save().map_or(EditorReply::Stay, EditorReply::Save);
    }
    match &mut editor.body {
        Body::Form(form) => in_form(form, key),
        Body::Raw(raw) => {
            raw.text.area.input(key);
            editor.look_at_raw();
        }
    }
    EditorReply::Stay
}

/// Takes pasted text into the focused field.
pub fn paste(editor: &mut Editor, text: &str, ctx: &Ctx) {
    editor.zone = ctx.zone;
    if editor.saving || editor.conflict.is_some() {
        return;
    }
    editor.note = None;
    match &mut editor.body {
        Body::Form(form) => {
            match form.focus.kind() {
                Kind::Lines => {
                    form.command.area.insert_str(text);
                }
                Kind::Line => {
                    // The line break at the end of a copied line is not meant.
                    let text = text.trim_end_matches(['\r', '\n']).replace(['\r', '\n', '\t'], " ");
                    if let Some(input) = form.input_mut(form.focus) {
                        input.insert(&text);
                    }
                }
                Kind::Choice => {}
            }
            form.check();
        }
        Body::Raw(raw) => {
            raw.text.area.insert_str(text);
            editor.look_at_raw();
        }
    }
}

fn in_form(form: &mut Form, key: KeyEvent) {
    match key.code {
        KeyCode::BackTab => return form.step(false),
        KeyCode::Tab if key.modifiers.contains(KeyModifiers::SHIFT) => return form.step(false),
        KeyCode::Tab => return form.step(true),
        _ => {}
    }
    match (form.focus.kind(), key.code) {
        (Kind::Lines, _) => {
            form.command.area.input(key);
            form.check();
        }
        (_, KeyCode::Enter | KeyCode::Down) => form.step(true),
        (_, KeyCode::Up) => form.step(false),
        (Kind::Choice, KeyCode::Char(' ' | 'l') | KeyCode::Right) => form.turn(true),
        (Kind::Choice, KeyCode::Char('h') | KeyCode::Left) => form.turn(false),
        (Kind::Choice, _) => {}
        (Kind::Line, _) => {
            if form.input_mut(form.focus).is_some_and(|input| input.key(key)) {
                form.check();
            }
        }
    }
}

fn in_conflict(editor: &mut Editor, key: KeyEvent) -> EditorReply {
    let Some(conflict) = &mut editor.conflict else {
        return EditorReply::Stay;
    };
    match key.code {
        KeyCode::Char('m') => editor.keep_mine(),
        KeyCode::Char('t') => {
            return match editor.take_theirs() {
                true => EditorReply::Stay,
                false => EditorReply::Close,
            };
        }
        KeyCode::Esc => editor.conflict = None,
        KeyCode::Char('j') | KeyCode::Down => {
            let last = conflict.rows.len().saturating_sub(1);
            conflict.scroll = (conflict.scroll + 1).min(last);
        }
        KeyCode::Char('k') | KeyCode::Up => conflict.scroll = conflict.scroll.saturating_sub(1),
        _ => {}
    }
    EditorReply::Stay
}
