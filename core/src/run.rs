//! The life of one firing: a run while it is live, and what became of it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::id::{JobName, RunId, Slot, WorkerId};
use crate::notice::Call;

/// What became of a slot or a run. `Running` is the only one that is not final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Live.
    Running,
    /// Exit code 0.
    Succeeded,
    /// Another exit code, a signal of its own, or it could not be started.
    Failed,
    /// Ended by its time-out.
    TimedOut,
    /// Ended by a kill request.
    Killed,
    /// Its worker died or lost its lease.
    Lost,
    /// Not run, because an earlier run was live or the job changed.
    Skipped,
    /// Not run, because its start deadline passed.
    Missed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Killed,
        Self::Lost,
        Self::Skipped,
        Self::Missed,
    ];

    /// The name used in records and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timedOut",
            Self::Killed => "killed",
            Self::Lost => "lost",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }

    /// Whether nothing more will happen to the run.
    pub fn is_final(self) -> bool {
        self != Self::Running
    }

    /// Whether it is known how long the run took: not of a slot that did not run, nor of a lost run,
    /// of which only is known when its loss was noticed.
    pub fn is_timed(self) -> bool {
        !matches!(self, Self::Skipped | Self::Missed | Self::Lost)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|o| o.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not an outcome"))
    }
}

/// Why a run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trigger {
    /// Its schedule.
    #[default]
    Schedule,
    /// Somebody asked for it.
    Manual,
    /// An earlier attempt failed.
    Retry,
    /// A recorded run was asked for again.
    Rerun,
    /// A past range was asked for.
    Backfill,
    /// Another job succeeded.
    After,
}

impl Trigger {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Schedule, Self::Manual, Self::Retry, Self::Rerun, Self::Backfill, Self::After];

    /// The name used in records and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Retry => "retry",
            Self::Rerun => "rerun",
            Self::Backfill => "backfill",
            Self::After => "after",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Trigger {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|t| t.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a reason to run"))
    }
}

/// How far a live run has come; the kill ladder is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunState {
    /// Claimed, its process not started yet.
    #[default]
    Claimed,
    /// Its process runs.
    Running,
    /// The worker has read the kill request.
    Received,
    /// SIGTERM was sent.
    Terminated,
    /// SIGKILL was sent after the grace period.
    Killed,
    /// One of a later version: it runs, or has not ended yet.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Claimed => "claimed",
            Self::Running => "running",
            Self::Received => "kill received",
            Self::Terminated => "terminated",
            Self::Killed => "killed",
            Self::Unknown => "unknown",
        })
    }
}

/// The value of `running/<job>/<run>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Who runs it.
    pub worker: WorkerId,
    /// The lease under which the worker was registered when it claimed.
    pub lease: i64,
    /// The slot, absent for a run outside the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Why it runs.
    #[serde(default)]
    pub trigger: Trigger,
    /// Process id on the worker, once started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How far it has come.
    #[serde(default)]
    pub state: RunState,
    /// When the run was claimed, by the worker's clock.
    pub since: DateTime<Utc>,
    /// Not to be spawned after this instant.
    pub spawn_before: DateTime<Utc>,
    /// The job's grace in seconds, so that survivors can settle without the job.
    #[serde(default)]
    pub grace_secs: u32,
    /// For a run that goes on when its worker loses its lease: the job's time-out in seconds, after
    /// which survivors may settle it. Absent for one that is ended then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues_secs: Option<u32>,
    /// Revision of the job it runs.
    #[serde(default)]
    pub job_revision: i64,
}

/// A live run as found in etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveRun {
    /// Its job.
    pub job: JobName,
    /// The worker whose own it is, where the job runs on every worker.
    pub on: Option<WorkerId>,
    /// Its id.
    pub run: RunId,
    /// The revision that created the key: the fence of every later write.
    pub fence: i64,
    /// The stored value.
    pub value: Running,
}

/// The value of `killer/<job>/<run>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KillRequest {
    /// Seconds before SIGKILL; the job's own grace where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_secs: Option<u32>,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// The value of `trigger/<job>/<id>`: a run asked for outside the schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerRequest {
    /// Why.
    pub kind: Trigger,
    /// The slot that is run again, for retries, reruns and backfills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Not to start before.
    pub not_before: DateTime<Utc>,
    /// Settled as missed after.
    pub not_after: DateTime<Utc>,
    /// The only worker that may take it, for another attempt of a job that runs on every worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<WorkerId>,
    /// Create revision of the job it was asked of.
    pub job_created: i64,
    /// Who asked.
    pub by: String,
}

/// One document of the `log` collection: a live run, a finished one, or a slot that did not run.
///
/// Field names are the stored ones; times are instants in UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// The decision's id.
    #[serde(rename = "_id")]
    pub id: RunId,
    /// The fleet it belongs to: the etcd prefix.
    #[serde(default)]
    pub fleet: String,
    /// The job's name.
    pub job_name: String,
    /// The command that ran.
    #[serde(default)]
    pub command: String,
    /// Empty on success, else the reason in words.
    #[serde(default)]
    pub err: String,
    /// Both streams as text: the first and the last 32 KiB.
    #[serde(default)]
    pub output: String,
    /// When the process started; for a slot that did not run, when that was decided.
    pub start_time: DateTime<Utc>,
    /// When it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime<Utc>>,
    /// The slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<DateTime<Utc>>,
    /// When it was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_time: Option<DateTime<Utc>>,
    /// Why it ran.
    #[serde(default)]
    pub trigger: Trigger,
    /// 1 for the first attempt.
    #[serde(default)]
    pub attempt: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// Exit code, where the process exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal number, where one ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Who ran or decided it.
    #[serde(default)]
    pub worker: String,
    /// Process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// etcd revision of the job.
    #[serde(default)]
    pub job_revision: i64,
    /// etcd revision of the claim.
    #[serde(default)]
    pub fencing_token: i64,
    /// Processor time of the shell and its children, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<i64>,
    /// Peak resident memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rss_bytes: Option<i64>,
    /// Output written so far, bytes.
    #[serde(default)]
    pub output_bytes: i64,
    /// Whether some of it was not kept.
    #[serde(default)]
    pub output_truncated: bool,
    /// The last line of output of a live run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_line: Option<String>,
    /// Who asked for the kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_by: Option<String>,
    /// For a run that was ended, from the kill, time-out or other reason until nothing of it was left,
    /// milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_millis: Option<i64>,
    /// Why the slot did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// First slot of a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_slot: Option<DateTime<Utc>>,
    /// Last slot of a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_slot: Option<DateTime<Utc>>,
    /// How many slots the gap has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// What a run that was taken for lost reported afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_result: Option<String>,
    /// When the record is deleted; absent while the run is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_at: Option<DateTime<Utc>>,
    /// What is told of it, and to whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Box<Call>>,
    /// What could not be told of it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_note: Option<String>,
}

impl RunRecord {
    /// A record with everything that every decision has; the rest is empty.
    pub fn new(id: RunId, job: &JobName, outcome: Outcome, start_time: DateTime<Utc>) -> Self {
        Self {
            id,
            fleet: String::new(),
            job_name: job.to_string(),
            command: String::new(),
            err: String::new(),
            output: String::new(),
            start_time,
            end_time: None,
            scheduled_time: None,
            claimed_time: None,
            trigger: Trigger::Schedule,
            attempt: 1,
            outcome,
            exit_code: None,
            signal: None,
            worker: String::new(),
            pid: None,
            job_revision: 0,
            fencing_token: 0,
            cpu_millis: None,
            max_rss_bytes: None,
            output_bytes: 0,
            output_truncated: false,
            last_line: None,
            killed_by: None,
            kill_millis: None,
            reason: None,
            from_slot: None,
            to_slot: None,
            count: None,
            late_result: None,
            expire_at: None,
            notify: None,
            notify_note: None,
        }
    }

    /// The record of a claimed run, as it stands at its start.
    pub fn of_run(live: &LiveRun, command: &str, start_time: DateTime<Utc>) -> Self {
        Self {
            command: command.to_owned(),
            scheduled_time: live.value.slot.map(Slot::instant),
            claimed_time: Some(live.value.since),
            trigger: live.value.trigger,
            attempt: live.value.attempt,
            worker: live.value.worker.to_string(),
            pid: live.value.pid,
            job_revision: live.value.job_revision,
            fencing_token: live.fence,
            ..Self::new(live.run, &live.job, Outcome::Running, start_time)
        }
    }

    /// The record of something that did not run, decided by `worker` at `now`.
    pub fn of_none(
        id: RunId,
        job: &JobName,
        outcome: Outcome,
        worker: &str,
        now: DateTime<Utc>,
        reason: &str,
    ) -> Self {
        let record = Self { worker: worker.to_owned(), ..Self::new(id, job, outcome, now) };
        record.ended(outcome, now, reason)
    }

    /// The same record, of a run that was asked for outside the schedule.
    #[must_use]
    pub fn asked_for(self, request: &TriggerRequest) -> Self {
        Self {
            trigger: request.kind,
            attempt: request.attempt,
            scheduled_time: request.slot.map(Slot::instant),
            ..self
        }
    }

    /// The same record, ended for a reason of the fleet's rather than of the process.
    #[must_use]
    pub fn ended(mut self, outcome: Outcome, now: DateTime<Utc>, reason: &str) -> Self {
        self.outcome = outcome;
        self.end_time = Some(now);
        reason.clone_into(&mut self.err);
        self.reason = Some(reason.to_owned());
        self
    }

    /// The same record, to be deleted `days` after its end; kept for ever where there are none, and
    /// while the run is live.
    #[must_use]
    pub fn kept_for(mut self, days: Option<u32>) -> Self {
        self.expire_at = self.end_time.and_then(|end| expiry(end, days));
        self
    }

    /// The newest slot that it speaks of: its own, or the last one of its gap.
    pub fn newest_slot(&self) -> Option<Slot> {
        self.to_slot.max(self.scheduled_time).map(Slot::at)
    }

    /// How long it ran, or has run at `now`.
    pub fn duration(&self, now: DateTime<Utc>) -> TimeDelta {
        self.end_time.unwrap_or(now) - self.start_time
    }

    /// The same, where it [is known](Outcome::is_timed).
    pub fn took(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        self.outcome.is_timed().then(|| self.duration(now))
    }
}

/// When output that was written by `at` is deleted: a day later than a record that ends then, so that
/// the output of a run of up to a day never goes before its record.
pub fn output_expiry(at: DateTime<Utc>, days: Option<u32>) -> Option<DateTime<Utc>> {
    expiry(at, days?.checked_add(1))
}

fn expiry(from: DateTime<Utc>, days: Option<u32>) -> Option<DateTime<Utc>> {
    from.checked_add_signed(TimeDelta::try_days(days?.into())?)
}

/// Which stream a chunk of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A piece of a run's output, as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Order within the run, from 0, without gaps unless output was dropped.
    pub seq: u64,
    /// When it was read.
    pub at: DateTime<Utc>,
    /// Where it came from.
    pub stream: Stream,
    /// The bytes, unchanged.
    pub data: Vec<u8>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{at, name};

    #[test]
    fn a_state_of_a_later_version_is_read_as_unknown() {
        let read = |text| serde_json::from_str::<RunState>(text).unwrap();
        assert_eq!(read("\"received\""), RunState::Received);
        assert_eq!(read("\"frozen\""), RunState::Unknown);
    }

    #[test]
    fn what_is_kept_for_days_counts_from_the_end_and_a_live_run_is_kept() {
        let (start, end) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T06:00:00Z"));
        let live = RunRecord::new(RunId::new(start), &name("long"), Outcome::Running, start);
        assert_eq!(live.clone().kept_for(Some(1)).expire_at, None);
        let over = live.ended(Outcome::Failed, end, "x");
        assert_eq!(over.clone().kept_for(Some(1)).expire_at, Some(at("2026-01-03T06:00:00Z")));
        assert_eq!(over.clone().kept_for(None).expire_at, None);
        // What it wrote in its last day goes no earlier than its record.
        let last_day = output_expiry(end - TimeDelta::days(1), Some(1));
        assert_eq!(last_day, over.kept_for(Some(1)).expire_at);
        assert_eq!(output_expiry(end, None), None);
    }

    /// A live run of the slot at 2026-01-01 00:00 UTC.
    pub(crate) fn live_run(job: &JobName, attempt: u32) -> LiveRun {
        let since: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let value = Running {
            worker: WorkerId::new("w1").unwrap(),
            lease: 7,
            slot: Some(Slot::at(since)),
            attempt,
            trigger: Trigger::Schedule,
            pid: None,
            state: RunState::Claimed,
            since,
            spawn_before: since,
            grace_secs: 10,
            continues_secs: None,
            job_revision: 5,
        };
        LiveRun { job: job.clone(), on: None, run: RunId::new(since), fence: 5, value }
    }
}
