//! Short messages that go away by themselves.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// How many are kept on the screen: more would cover the view.
const KEPT: usize = 4;

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something was done.
    Done,
    /// Something to know.
    Note,
    /// Something was not done.
    Error,
}

/// A message with its end.
#[derive(Debug, Clone)]
pub struct Toast {
    /// How much it matters.
    pub level: Level,
    /// One or two lines.
    pub text: String,
    until: DateTime<Utc>,
}

/// The messages on the screen, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Toasts(VecDeque<Toast>);

impl Toasts {
    /// Shows a message: errors for ten seconds, others for four.
    pub fn show(&mut self, level: Level, text: impl Into<String>, now: DateTime<Utc>) {
        let secs = if level == Level::Error { 10 } else { 4 };
        let text = text.into();
        // The same message again starts its time anew instead of filling the screen.
        self.0.retain(|t| t.text != text);
        self.0.push_back(Toast { level, text, until: now + TimeDelta::seconds(secs) });
        while self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// Removes what has been shown long enough.
    pub fn expire(&mut self, now: DateTime<Utc>) {
        self.0.retain(|toast| toast.until > now);
    }

    /// Removes all; false when there were none.
    pub fn dismiss(&mut self) -> bool {
        let any = !self.0.is_empty();
        self.0.clear();
        any
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Toast> {
        self.0.iter()
    }

    /// Whether nothing is shown.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
