//! Why an expression is refused, and where in it.

use std::ops::Range;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Why an expression is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ScheduleError {
    /// Which field, such as `hour`; `schedule` where it is about the whole.
    pub field: &'static str,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// Byte range of the wrong part in the expression; empty where something is missing.
    pub span: Range<usize>,
}

impl ScheduleError {
    /// The expression and, on a second line, carets under the wrong part: `expr` must be the text
    /// that was parsed. Control and other invisible characters are shown as U+FFFD, and of a very
    /// long expression only the surroundings of the wrong part.
    #[must_use]
    pub fn caret(&self, expr: &str) -> String {
        const BEFORE: usize = 60;
        const WINDOW: usize = 100;
        let start = expr.floor_char_boundary(self.span.start);
        let end = expr.ceil_char_boundary(self.span.end.max(start));
        let shown = |part: &str| -> String {
            let plain = |c: char| if c.width() > Some(0) { c } else { '\u{fffd}' };
            part.chars().map(plain).collect()
        };
        let from = expr.floor_char_boundary(start.saturating_sub(BEFORE));
        let to = expr.floor_char_boundary(from.saturating_add(WINDOW));
        let slice = |range: Range<usize>| shown(expr.get(range).unwrap_or_default());
        let (before, wrong, after) =
            (slice(from..start), slice(start..end.min(to)), slice(end.min(to)..to));
        let left = if from > 0 { "…" } else { "" };
        let right = if to < expr.len() { "…" } else { "" };
        format!(
            "{left}{before}{wrong}{after}{right}\n{}{}",
            " ".repeat(left.width() + before.width()),
            "^".repeat(wrong.width().max(1)),
        )
    }
}
