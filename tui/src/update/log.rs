//! Keys of the log view.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::effect::Effect;
use crate::model::log::LogView;

/// What follows from a key.
#[derive(Debug, PartialEq)]
pub enum LogReply {
    /// The view stays open.
    Stay,
    /// The view is to be closed.
    Close,
    /// Something is to be done.
    Effects(Vec<Effect>),
}

/// How far `h` and `l` go.
const SIDEWAYS: usize = 8;

/// Takes a key.
pub fn key(log: &mut LogView, key: KeyEvent) -> LogReply {
    if log.typing.is_some() {
        in_search(log, key);
        return LogReply::Stay;
    }
    let page = isize::try_from(log.page()).unwrap_or(isize::MAX);
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('d') if ctrl => log.scroll(page / 2),
        KeyCode::Char('u') if ctrl => log.scroll(-page / 2),
        KeyCode::Char('f') if ctrl => log.scroll(page),
        KeyCode::Char('b') if ctrl => log.scroll(-page),
        _ if ctrl => {}
        KeyCode::Char('j') | KeyCode::Down => log.scroll(1),
        KeyCode::Char('k') | KeyCode::Up => log.scroll(-1),
        KeyCode::PageDown | KeyCode::Char(' ') => log.scroll(page - 1),
        KeyCode::PageUp => log.scroll(1 - page),
        KeyCode::Char('g') | KeyCode::Home => log.to_start(),
        KeyCode::Char('G') | KeyCode::End => log.follow(),
        KeyCode::Char('f') if log.follow => log.pause(),
        KeyCode::Char('f') => log.follow(),
        KeyCode::Char('h') | KeyCode::Left if !log.wrap => {
            log.left = log.left.saturating_sub(SIDEWAYS);
        }
        KeyCode::Char('l') | KeyCode::Right if !log.wrap => {
            let widest = log.visible().map(|(_, line, _)| line.row.cols).max();
            let last = usize::from(widest.unwrap_or(0)).saturating_sub(SIDEWAYS);
            log.left = (log.left + SIDEWAYS).min(last.max(log.left));
        }
        KeyCode::Char('/') => log.type_search(),
        KeyCode::Char('n') => log.next_match(true),
        KeyCode::Char('N') => log.next_match(false),
        KeyCode::Char('o') => log.set_streams(log.streams.next()),
        KeyCode::Char('w') => log.set_wrap(!log.wrap),
        KeyCode::Char('t') => log.stamps = log.stamps.next(),
        KeyCode::Char('y') => return LogReply::Effects(vec![Effect::Copy(log.screen_text())]),
        KeyCode::Esc if log.search.is_some() => log.search = None,
        KeyCode::Esc | KeyCode::Char('q') => return LogReply::Close,
        _ => {}
    }
    LogReply::Stay
}

/// Takes pasted text: it is looked for where a search is being typed, and ignored elsewhere.
pub fn paste(log: &mut LogView, text: &str) {
    if let Some(input) = &mut log.typing {
        input.insert(text);
        log.search_typed();
    }
}

fn in_search(log: &mut LogView, key: KeyEvent) {
    match key.code {
        KeyCode::Esc => log.typed(false),
        KeyCode::Enter => log.typed(true),
        _ => {
            if log.typing.as_mut().is_some_and(|input| input.key(key)) {
                log.search_typed();
            }
        }
    }
}
