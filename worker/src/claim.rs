//! What this worker proposes to etcd: a step, and what follows once it is carried out. Pure.

use std::sync::Arc;

use carillon_core::decide::{Gap, Move, due_at};
use carillon_core::id::{RunId, WorkerId};
use carillon_core::job::{JobEntry, OnLeaseLoss};
use carillon_core::keys::Keys;
use carillon_core::notify::attach;
use carillon_core::run::{LiveRun, Outcome, RunRecord, RunState, Running, Trigger, TriggerRequest};
use carillon_core::steps::{Grounds, Overlap, Step};
use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::{Wanted, WantedTrigger};

/// A step, and what it does once it is carried out.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    /// The step.
    pub step: Step,
    /// What follows.
    pub effect: Effect,
}

/// What a step does once it is carried out.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// A run begins.
    Begins(LiveRun, Arc<JobEntry>),
    /// A decision is recorded.
    Records(Box<RunRecord>),
    /// Only the cursor moves.
    Moves,
    /// Nothing: a key that nobody needs is gone, or runs that are to be replaced are asked to end.
    Tidies,
}

/// What became of a slot, or of a step that fires none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It runs at its time.
    Run,
    /// It runs late, as the job's catch-up says.
    CaughtUp,
    /// A run outside the schedule.
    Triggered,
    /// Skipped: an earlier run is live, or the job changed.
    Skipped,
    /// Missed: past its start deadline.
    Missed,
    /// A run of a dead worker was settled.
    Lost,
    /// The cursor followed a change of the job.
    Rebased,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Run,
        Self::CaughtUp,
        Self::Triggered,
        Self::Skipped,
        Self::Missed,
        Self::Lost,
        Self::Rebased,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::CaughtUp => "caughtUp",
            Self::Triggered => "triggered",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Lost => "lost",
            Self::Rebased => "rebased",
        }
    }
}

impl Effect {
    /// Of a step that claims a run, or only makes way for it.
    fn of_claim(live: LiveRun, entry: Arc<JobEntry>, overlap: &Overlap) -> Self {
        if overlap.fits() { Self::Begins(live, entry) } else { Self::Tidies }
    }
}

impl Proposal {
    /// What it decides about how many slots, once it is carried out; `None` where it only tidies up.
    pub fn decision(&self) -> Option<(Decision, usize)> {
        let records = |record: &RunRecord| match record.outcome {
            Outcome::Skipped => Some(Decision::Skipped),
            Outcome::Missed => Some(Decision::Missed),
            Outcome::Lost => Some(Decision::Lost),
            _ => None,
        };
        match &self.effect {
            Effect::Begins(live, _) if live.value.trigger != Trigger::Schedule => {
                Some((Decision::Triggered, 1))
            }
            Effect::Begins(live, entry) => {
                let due = live.value.slot.zip(entry.state.as_ref().ok());
                let late = due.is_some_and(|(slot, job)| {
                    live.value.since >= due_at(job, slot.instant()) + job.job.start_deadline()
                });
                Some((if late { Decision::CaughtUp } else { Decision::Run }, 1))
            }
            Effect::Records(record) => {
                let count = record.count.and_then(|count| usize::try_from(count).ok());
                Some((records(record)?, count.unwrap_or(1)))
            }
            Effect::Moves => Some((Decision::Rebased, 1)),
            Effect::Tidies => None,
        }
    }
}

/// The value of a freshly claimed run's key; the schedule's first attempt until said otherwise.
fn claimed(g: &Grounds, entry: &JobEntry, now: DateTime<Utc>, within: TimeDelta) -> Running {
    let job = entry.job();
    Running {
        worker: g.worker.clone(),
        lease: g.lease,
        slot: None,
        attempt: 1,
        trigger: Trigger::Schedule,
        pid: None,
        state: RunState::Claimed,
        since: now,
        spawn_before: now + within,
        grace_secs: job.map_or(0, |job| job.kill_grace_secs),
        continues_secs: job
            .filter(|job| job.on_lease_loss == OnLeaseLoss::Continue)
            .map(|job| job.timeout_secs),
        job_revision: entry.mod_revision,
    }
}

/// The step that a job's cursor takes. `run` is the id of the run it may begin.
pub(crate) fn propose(keys: &Keys, wanted: Wanted, run: RunId, now: DateTime<Utc>) -> Proposal {
    let Wanted { entry, grounds, step, overlap, blocking, retention_days, .. } = wanted;
    let job = entry.name.clone();
    let record = |gap: &Gap, outcome| {
        let record = gap_record(&entry, gap, outcome, &grounds.worker, now);
        let mut record = record.kept_for(retention_days);
        attach(entry.job(), &mut record, false);
        record
    };
    let (cursor, record) = match step {
        Move::Run { slot, cursor, spawn_before, .. } => {
            let within = spawn_before - now;
            let value = Running { slot: Some(slot), ..claimed(&grounds, &entry, now, within) };
            let step = Step::claim_slot(keys, &grounds, &cursor, run, &value, &overlap);
            let live = LiveRun { job, on: grounds.on, run, fence: 0, value };
            return Proposal { step, effect: Effect::of_claim(live, entry, &overlap) };
        }
        Move::Skip { slot, cursor, because } => {
            let reason = format!("the run {because} was still live");
            let gap = Gap { from: slot, to: slot, count: 1, reason };
            (cursor, Some(record(&gap, Outcome::Skipped)))
        }
        Move::Miss { gap, cursor } => (cursor, Some(record(&gap, Outcome::Missed))),
        Move::Rebase { cursor, owed } => (cursor, owed.map(|owed| record(&owed, Outcome::Skipped))),
    };
    let step = Step::pass(keys, &grounds, &cursor, record.as_ref(), blocking.as_ref());
    let effect = record.map_or(Effect::Moves, |record| Effect::Records(Box::new(record)));
    Proposal { step, effect }
}

/// The step that takes or settles one trigger.
pub(crate) fn propose_trigger(keys: &Keys, wanted: WantedTrigger, now: DateTime<Utc>) -> Proposal {
    let WantedTrigger { id, trigger, grounds, verdict, of, retention_days, .. } = wanted;
    let job = grounds.job.clone();
    let request = trigger.value;
    let taken = (id, trigger.mod_revision);
    match verdict {
        Ok((entry, overlap)) => {
            let deadline = entry.job().map_or(0, |job| job.start_deadline_secs);
            let value = Running {
                slot: request.slot,
                attempt: request.attempt,
                trigger: request.kind,
                ..claimed(&grounds, &entry, now, TimeDelta::seconds(deadline.into()))
            };
            // The trigger's id becomes the run's: whoever asked can follow it.
            let step = Step::claim_trigger(keys, &grounds, taken, &value, &overlap);
            let live = LiveRun { job, on: grounds.on, run: id, fence: 0, value };
            Proposal { step, effect: Effect::of_claim(live, entry, &overlap) }
        }
        Err((outcome, reason)) => {
            let worker = grounds.worker.as_str();
            let mut record = RunRecord::of_none(id, &job, outcome, worker, now, &reason)
                .asked_for(&request)
                .kept_for(retention_days);
            attach(of.as_ref().and_then(|entry| entry.job()), &mut record, false);
            let step = Step::settle_trigger(keys, &job, taken, &record);
            Proposal { step, effect: Effect::Records(Box::new(record)) }
        }
    }
}

/// The step that settles the run of a dead worker; `entry` is its job, if it still exists, and
/// `again` the attempt that follows.
pub(crate) fn propose_lost(
    keys: &Keys,
    live: &LiveRun,
    entry: Option<&JobEntry>,
    again: Option<&(RunId, TriggerRequest)>,
    retention_days: Option<u32>,
    now: DateTime<Utc>,
) -> Proposal {
    let command = entry.and_then(|e| e.job()).map_or("", |job| job.command.as_str());
    let reason = format!("the worker {} died or lost its lease during the run", live.value.worker);
    let mut record = RunRecord::of_run(live, command, live.value.since)
        .ended(Outcome::Lost, now, &reason)
        .kept_for(retention_days);
    attach(entry.and_then(|e| e.job()), &mut record, again.is_some());
    let step = Step::settle_lost(keys, live, &record, again);
    Proposal { step, effect: Effect::Records(Box::new(record)) }
}

/// The step that ends a run of ours that was claimed and cannot be started.
pub(crate) fn propose_unstarted(
    keys: &Keys,
    live: &LiveRun,
    (outcome, reason): (Outcome, &str),
    retention_days: Option<u32>,
    now: DateTime<Utc>,
) -> Proposal {
    let record =
        RunRecord::of_run(live, "", now).ended(outcome, now, reason).kept_for(retention_days);
    let step = Step::end(keys, live, &record, None);
    Proposal { step, effect: Effect::Records(Box::new(record)) }
}

/// The record of slots that did not run.
fn gap_record(
    entry: &JobEntry,
    gap: &Gap,
    outcome: Outcome,
    worker: &WorkerId,
    now: DateTime<Utc>,
) -> RunRecord {
    let id = RunId::new(now);
    let mut record =
        RunRecord::of_none(id, &entry.name, outcome, worker.as_str(), now, &gap.reason);
    record.command = entry.job().map(|j| j.command.clone()).unwrap_or_default();
    record.scheduled_time = Some(gap.from.instant());
    record.job_revision = entry.mod_revision;
    if gap.count > 1 {
        record.from_slot = Some(gap.from.instant());
        record.to_slot = Some(gap.to.instant());
        record.count = i64::try_from(gap.count).ok();
    }
    record
}
