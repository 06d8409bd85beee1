//! Keys of the log.
use crate::effect::Effect;
use crate::model::log::LogView;
use crossterm::event::{KeyCode, KeyEvent};
/// Reply.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogReply {
    Stay,
    Close,
    Effects(Vec<Effect>),
}
/// Key.
pub fn key(_log: &mut LogView, key: KeyEvent) -> LogReply {
    if key.code == KeyCode::Esc {
        LogReply::Close
    } else {
        LogReply::Stay
    }
}
