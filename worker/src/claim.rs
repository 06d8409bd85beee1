//! Competing: one task per step, which sends its transaction and reports what came of it.

use carillon_core::claims::{Answer, Claims, gap_record};
use carillon_core::decide::{Gap, Move};
use carillon_core::etcd::EtcdError;
use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::JobEntry;
use carillon_core::keys::Keys;
use carillon_core::run::{LiveRun, Outcome, RunRecord, RunState, Running, Trigger};
use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::{Wanted, WantedTrigger};

/// What came of a step.
pub(crate) struct Settled {
    /// The job.
    pub job: JobName,
    /// The run that the step would begin.
    pub run: Option<LiveRun>,
    /// The job it runs, as claimed.
    pub entry: Option<std::sync::Arc<JobEntry>>,
    /// The record of a slot that does not run.
    pub record: Option<RunRecord>,
    /// The keys that the transaction puts.
    pub puts: Vec<(String, Vec<u8>)>,
    /// The answer.
    pub answer: Result<Answer, EtcdError>,
}

/// Makes the value of a run's key.
fn running(
    worker: &WorkerId,
    lease: i64,
    entry: &JobEntry,
    now: DateTime<Utc>,
    spawn_before: DateTime<Utc>,
) -> Running {
    Running {
        worker: worker.clone(),
        lease,
        slot: None,
        attempt: 1,
        trigger: Trigger::Schedule,
        pid: None,
        state: RunState::Claimed,
        since: now,
        spawn_before,
        grace_secs: entry.job().map_or(0, |job| job.kill_grace_secs),
        job_revision: entry.mod_revision,
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn live(entry: &JobEntry, run: RunId, value: Running) -> LiveRun {
    LiveRun {
        job: entry.name.clone(),
        run,
        fence: 0,
        value,
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
    let Wanted {
        entry,
        grounds,
        step,
        overlap,
    } = wanted;
    let gap = |gap: &Gap, outcome| gap_record(&entry, gap, outcome, &grounds.worker, now);
    let (cursor, record, blocking, begun) = match step {
        Move::Run {
            slot,
            cursor,
            spawn_before,
        } => {
            let mut value = running(&grounds.worker, grounds.lease, &entry, now, spawn_before);
            value.slot = Some(slot);
            (cursor, None, None, Some(value))
        }
        Move::Skip {
            slot,
            cursor,
            because,
        } => {
            let reason = format!("the run {because} was still live");
            let mut record = gap(
                &Gap {
                    from: slot,
                    to: slot,
                    count: 1,
                    reason,
                },
                Outcome::Skipped,
            );
            (record.from_slot, record.to_slot, record.count) = (None, None, None);
            (cursor, Some(record), Some(because), None)
        }
        Move::Miss {
            gap: missed,
            cursor,
        } => (cursor, Some(gap(&missed, Outcome::Missed)), None, None),
        Move::Rebase { cursor, owed } => (
            cursor,
            owed.map(|owed| gap(&owed, Outcome::Skipped)),
            None,
            None,
        ),
    };
    let mut puts = vec![(keys.cursor(&entry.name), json(&cursor))];
    let answer = if let Some(value) = &begun {
        puts.push((keys.running(&entry.name, run), json(value)));
        claims
            .claim_slot(&grounds, &cursor, run, value, &overlap)
            .await
    } else {
        puts.extend(
            record
                .as_ref()
                .map(|r| (keys.done(&entry.name, r.id), json(r))),
        );
        claims
            .pass(&grounds, &cursor, record.as_ref(), blocking)
            .await
    };
    let begun = begun.map(|value| live(&entry, run, value));
    Settled {
        job: entry.name.clone(),
        run: begun,
        entry: Some(entry),
        record,
        puts,
        answer,
    }
}

/// Takes or settles one trigger.
pub(crate) async fn take_trigger(
    claims: Claims,
    keys: Keys,
    wanted: WantedTrigger,
    job: JobName,
    now: DateTime<Utc>,
) -> Settled {
    let WantedTrigger {
        entry,
        id,
        trigger,
        grounds,
        verdict,
    } = wanted;
    let request = trigger.value;
    let taken = (id, trigger.mod_revision);
    match (entry, verdict) {
        (Some(entry), Ok(overlap)) => {
            let deadline = entry.job().map_or(0, |job| job.start_deadline_secs);
            let spawn_before = now + TimeDelta::seconds(deadline.into());
            let mut value = running(&grounds.worker, grounds.lease, &entry, now, spawn_before);
            value.slot = request.slot;
            value.attempt = request.attempt;
            value.trigger = request.kind;
            // The trigger's id becomes the run's: whoever asked can follow it.
            let puts = vec![(keys.running(&job, id), json(&value))];
            let answer = claims
                .claim_trigger(&grounds, taken, id, &value, &overlap)
                .await;
            let begun = live(&entry, id, value);
            Settled {
                job,
                run: Some(begun),
                entry: Some(entry),
                record: None,
                puts,
                answer,
            }
        }
        (entry, verdict) => {
            let reason = verdict
                .err()
                .unwrap_or_else(|| "the job was deleted".to_owned());
            let mut record = RunRecord::new(id, &job, Outcome::Missed, now);
            record.end_time = Some(now);
            record.trigger = request.kind;
            record.attempt = request.attempt;
            record.scheduled_time = request.slot.map(carillon_core::id::Slot::instant);
            record.worker = grounds.worker.to_string();
            record.err.clone_from(&reason);
            record.reason = Some(reason);
            let puts = vec![(keys.done(&job, id), json(&record))];
            let answer = claims.settle_trigger(&job, taken, &record).await;
            Settled {
                job,
                run: None,
                entry,
                record: Some(record),
                puts,
                answer,
            }
        }
    }
}
