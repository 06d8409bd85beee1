//! Keys of the form.
use crate::effect::SaveJob;
use crate::model::editor::Editor;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use crossterm::event::{KeyCode, KeyEvent};
/// Context.
#[derive(Debug, Clone, Copy)]
pub struct Ctx {
    /** Now. */
    pub now: DateTime<Utc>,
    /** Zone. */
    pub zone: Tz,
}
/// Reply.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum EditorReply {
    Stay,
    Save(SaveJob),
    Close,
    AskDiscard,
}
/// Key.
pub fn key(_editor: &mut Editor, key: KeyEvent, _ctx: &Ctx) -> EditorReply {
    if key.code == KeyCode::Esc {
        EditorReply::Close
    } else {
        EditorReply::Stay
    }
}
/// Paste.
pub fn paste(_editor: &mut Editor, _text: &str, _ctx: &Ctx) {}
