//! The cursor's next step as a pure function.
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The value of `cursor/<job>`: up to which instant the job's slots are decided, and for which
/// revision and schedule of the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// etcd revision of the job this cursor belongs to.
    pub rev: i64,
    /// The schedule's text.
    pub expr: String,
    /// The zone the schedule was computed in.
    pub zone: String,
    /// Whether the job was enabled.
    pub enabled: bool,
    /// Everything up to and including this instant is decided.
    pub through: DateTime<Utc>,
}
