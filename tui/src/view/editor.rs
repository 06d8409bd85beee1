//! The form drawn.
use crate::{model::editor::Editor, theme::Theme};
use chrono::{DateTime, Utc};
use ratatui::{Frame, layout::Rect};
/// Draw.
pub fn draw(_f: &mut Frame<'_>, _area: Rect, _e: &Editor, _t: &Theme, _now: DateTime<Utc>) {}
