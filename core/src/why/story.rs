//! The story of one slot as values: what is told of it, and how that reads as JSON.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Serialize, Serializer};

use crate::id::{JobName, RunId, Slot, WorkerId};
use crate::run::{KillRequest, Outcome, RunRecord, RunState, Trigger};

/// The story of one slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// The job.
    pub job: JobName,
    /// The slot, or the instant that is none.
    pub slot: Slot,
    /// The zone that the schedule is computed in.
    #[serde(serialize_with = "by_name")]
    pub zone: Tz,
    /// Whether every worker that is selected runs it, each for itself.
    pub on_every_worker: bool,
    /// When it is due: its instant and the job's share of the spread. Absent where the job is gone
    /// or broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// Until when it may start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// What became of it.
    #[serde(flatten)]
    pub fate: Fate,
    /// Further attempts that were asked for and have not begun.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts_to_come: Vec<ToCome>,
    /// What keeps the job from running, as things stand now.
    pub hindrances: Vec<Hindrance>,
    /// Every registered worker as it stands now: first those that take the job, in their order.
    pub workers: Vec<Standing>,
    /// The oldest slot that is not decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// How long the job usually runs: the median of its newest successes, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual_millis: Option<i64>,
}

/// What became of a slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "fate")]
pub enum Fate {
    /// It is decided: every attempt at it, or why it did not run; oldest first.
    Decided {
        /// One for each record.
        decisions: Vec<Decision>,
        /// For a job that runs on every worker: those that have not decided it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        undecided: Vec<WorkerId>,
    },
    /// The cursor has passed it, and nothing is recorded of it.
    Unrecorded {
        /// Up to where the cursor has decided.
        through: DateTime<Utc>,
    },
    /// It is past due, and nobody has decided it.
    Overdue {
        /// What the job's cursor does next.
        prospect: Prospect,
        /// For a job that runs on every worker: those that have not decided it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        undecided: Vec<WorkerId>,
    },
    /// It is still to come.
    Ahead,
    /// The schedule does not fire at this instant.
    NoSlot {
        /// The last slot before it.
        before: Option<Slot>,
        /// The first slot after it.
        after: Option<Slot>,
    },
    /// The job is gone or broken, so its slots are not known.
    Unknown,
}

/// One record of a slot, and what else is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The record.
    #[serde(flatten)]
    pub record: RunRecord,
    /// From when the slot was due to the claim, in milliseconds; for a first attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_millis: Option<i64>,
    /// How far it has come, while it is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
    /// Who asked for its end, while it is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill: Option<KillRequest>,
    /// Whether it stands in etcd alone: MongoDB has not acknowledged it.
    pub unacknowledged: bool,
    /// The live run because of which it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<Other>,
    /// Whether the job was written since.
    pub job_changed: bool,
}

/// Another run of the same job, which is or was in the way.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    /// The run.
    pub run: RunId,
    /// Its worker; empty where nothing is known of it any more.
    pub worker: String,
    /// Its slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// When it was claimed or started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<DateTime<Utc>>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// When its time-out ends it, while it is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_out: Option<DateTime<Utc>>,
}

/// A further attempt at the slot that waits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToCome {
    /// The id that its run will have.
    pub run: RunId,
    /// Why it was asked for.
    pub kind: Trigger,
    /// Which attempt it is.
    pub attempt: u32,
    /// Not to start before.
    pub not_before: DateTime<Utc>,
    /// Settled as missed after.
    pub not_after: DateTime<Utc>,
    /// Who asked.
    pub by: String,
}

/// What the cursor does with its oldest undecided slot, as things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "next")]
pub enum Prospect {
    /// It follows a change of the job before anything else.
    Follows,
    /// The slot runs, as soon as somebody takes it.
    Runs {
        /// Whether its deadline has passed and it is caught up.
        late: bool,
        /// Until when it may start.
        until: DateTime<Utc>,
    },
    /// It is skipped.
    Skipped,
    /// It is settled as missed.
    Missed,
    /// Its deadline has passed; it is settled then, when no clock of the fleet is still before it.
    Settled {
        /// When.
        at: DateTime<Utc>,
    },
    /// It is caught up once this run has ended.
    Blocked {
        /// The run.
        by: RunId,
    },
    /// It cannot be decided; the hindrances say why.
    Stuck,
    /// An earlier one is due first.
    Waits,
}

/// What keeps a job from running.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub enum Hindrance {
    /// It is not in etcd.
    Gone,
    /// Its stored value, its cursor or the fleet's settings cannot be read.
    Broken {
        /// Why.
        why: String,
    },
    /// It is paused.
    Paused,
    /// The fleet claims nothing.
    Frozen,
    /// Its cursor is in the future.
    CursorAhead {
        /// Up to where it has decided.
        through: DateTime<Utc>,
    },
    /// No worker is registered.
    NoWorkers,
    /// Workers are registered, and none of them takes it.
    NobodyTakesIt,
    /// Under `forbid`, an earlier run is live.
    Live(Other),
}

/// A registered worker as it stands to the job.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The worker.
    pub worker: WorkerId,
    /// Its place among those that take the job, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Why it does not take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When its process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<DateTime<Utc>>,
}

/// A slot that is not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Next {
    /// The slot.
    pub slot: Slot,
    /// When it is due.
    pub due: DateTime<Utc>,
    /// Whether that is past.
    pub overdue: bool,
}

fn by_name<S: Serializer>(zone: &Tz, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(zone.name())
}
