//! Schedules: a text in the cron dialect of Carillon becomes a [`Schedule`], and
//! [`Schedule::next_after`] says when it fires next in a time zone.
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// A parsed schedule.
#[derive(Debug, Clone)]
pub struct Schedule;
/// Why an expression is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScheduleError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// Byte range of the wrong part in the expression.
    pub span: std::ops::Range<usize>,
}
impl Schedule {
    /// Parses.
    pub fn parse(_expr: &str) -> Result<Self, ScheduleError> {
        Ok(Self)
    }
    /// The first firing strictly after.
    pub fn next_after(&self, _zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        Some(after + chrono::TimeDelta::seconds(1))
    }
    /// Counts.
    pub fn slots_between(
        &self,
        _zone: Tz,
        _after: DateTime<Utc>,
        _through: DateTime<Utc>,
        _limit: usize,
    ) -> (usize, Option<DateTime<Utc>>) {
        (0, None)
    }
}
