//! The log drawn.
use crate::{model::log::LogView, theme::Theme};
use chrono::{DateTime, Utc};
use ratatui::{Frame, layout::Rect};
/// Draw.
pub fn draw(_f: &mut Frame<'_>, _area: Rect, _l: &LogView, _t: &Theme, _now: DateTime<Utc>) {}
