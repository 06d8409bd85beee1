//! Competing: one task per step, which sends its transaction and reports what came of it.

use std::sync::Arc;

use carillon_core::claims::{Answer, Claims, Grounds, gap_record};
use carillon_core::decide::{Gap, Move};
use carillon_core::etcd::EtcdError;
use carillon_core::id::{JobName, RunId, Slot};
use carillon_core::job::JobEntry;
use carillon_core::keys::Keys;
use carillon_core::run::{LiveRun, Outcome, RunRecord, RunState, Running, Trigger};
use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::{Wanted, WantedTrigger};

/// What came of a step.
pub(crate) struct Settled {
    /// The job.
    pub job: JobName,
    /// What the step does once it is carried out.
    pub effect: Effect,
    /// The keys that the transaction puts.
    pub puts: Vec<(String, Vec<u8>)>,
    /// The answer.
    pub answer: Result<Answer, EtcdError>,
}

/// What a step does once it is carried out.
pub(crate) enum Effect {
    /// A run begins.
    Begins(LiveRun, Arc<JobEntry>),
    /// A decision is recorded.
    Records(Box<RunRecord>),
    /// Only the cursor moves.
    Moves,
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The value of a freshly claimed run's key; the schedule's first attempt until said otherwise.
fn claimed(g: &Grounds, entry: &JobEntry, now: DateTime<Utc>, within: TimeDelta) -> Running {
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
        grace_secs: entry.job().map_or(0, |job| job.kill_grace_secs),
        job_revision: entry.mod_revision,
    }
}

/// Takes one step of a job's cursor. `run` is the id of the run it may begin.
pub(crate) async fn take_step(
    claims: Claims,
    keys: Keys,
    wanted: Wanted,
    run: RunId,
    now: DateTime<Utc>,
) -> Settled {
    let Wanted { entry, grounds, step, overlap, retention_days } = wanted;
    let job = entry.name.clone();
    let record = |gap: &Gap, outcome| {
        let record = gap_record(&entry, gap, outcome, &grounds.worker, now);
        record.kept_for(retention_days)
    };
    let (cursor, record, blocking) = match step {
        Move::Run { slot, cursor, spawn_before } => {
            let within = spawn_before - now;
            let value = Running { slot: Some(slot), ..claimed(&grounds, &entry, now, within) };
            let puts =
                vec![(keys.cursor(&job), json(&cursor)), (keys.running(&job, run), json(&value))];
            let answer = claims.claim_slot(&grounds, &cursor, run, &value, &overlap).await;
            let live = LiveRun { job: job.clone(), run, fence: 0, value };
            return Settled { job, effect: Effect::Begins(live, entry), puts, answer };
        }
        Move::Skip { slot, cursor, because } => {
            let reason = format!("the run {because} was still live");
            let gap = Gap { from: slot, to: slot, count: 1, reason };
            (cursor, Some(record(&gap, Outcome::Skipped)), Some(because))
        }
        Move::Miss { gap, cursor } => (cursor, Some(record(&gap, Outcome::Missed)), None),
        Move::Rebase { cursor, owed } => {
            (cursor, owed.map(|owed| record(&owed, Outcome::Skipped)), None)
        }
    };
    let mut puts = vec![(keys.cursor(&job), json(&cursor))];
    puts.extend(record.as_ref().map(|r| (keys.done(&job, r.id), json(r))));
    let answer = claims.pass(&grounds, &cursor, record.as_ref(), blocking).await;
    let effect = record.map_or(Effect::Moves, |record| Effect::Records(Box::new(record)));
    Settled { job, effect, puts, answer }
}

/// Takes or settles one trigger.
pub(crate) async fn take_trigger(
    claims: Claims,
    keys: Keys,
    wanted: WantedTrigger,
    now: DateTime<Utc>,
) -> Settled {
    let WantedTrigger { id, trigger, grounds, verdict, retention_days } = wanted;
    let job = grounds.job.clone();
    let request = trigger.value;
    let taken = (id, trigger.mod_revision);
    let (effect, puts, answer) = match verdict {
        Ok((entry, overlap)) => {
            let deadline = entry.job().map_or(0, |job| job.start_deadline_secs);
            let value = Running {
                slot: request.slot,
                attempt: request.attempt,
                trigger: request.kind,
                ..claimed(&grounds, &entry, now, TimeDelta::seconds(deadline.into()))
            };
            // The trigger's id becomes the run's: whoever asked can follow it.
            let puts = vec![(keys.running(&job, id), json(&value))];
            let answer = claims.claim_trigger(&grounds, taken, id, &value, &overlap).await;
            let live = LiveRun { job: job.clone(), run: id, fence: 0, value };
            (Effect::Begins(live, entry), puts, answer)
        }
        Err(reason) => {
            let worker = &grounds.worker;
            let mut record = RunRecord::of_none(id, &job, Outcome::Missed, worker, now, &reason)
                .kept_for(retention_days);
            record.trigger = request.kind;
            record.attempt = request.attempt;
            record.scheduled_time = request.slot.map(Slot::instant);
            let puts = vec![(keys.done(&job, id), json(&record))];
            let answer = claims.settle_trigger(&job, taken, &record).await;
            (Effect::Records(Box::new(record)), puts, answer)
        }
    };
    Settled { job, effect, puts, answer }
}
