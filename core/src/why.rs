//! What became of one slot, or what keeps it from being decided: the judgement behind
//! `carillon why`. Pure: it says what follows from the fleet's state and from the records, and
//! claims no more. What was before is known from the records alone; who could run the job, only as
//! the workers are registered now.

mod place;
mod slots;
mod story;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

pub use slots::{newest_decided, next_slot, read_slot};
pub use story::{Decision, Fate, Hindrance, Next, Other, Prospect, Standing, Story, ToCome};

use crate::decide::{Move, Situation, Step, due_at, next_step};
use crate::fleet::WorkerEntry;
use crate::id::{JobName, RunId, Slot, WorkerId};
use crate::job::{Checked, Concurrency, Job, JobEntry, Scope};
use crate::keys::Key;
use crate::rank::{Call, Roster, unfit};
use crate::replica::Replica;
use crate::run::{LiveRun, Outcome, RunRecord, Trigger};
use place::Place;
use slots::last_before;

/// What is known when it is asked why.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The fleet's state in etcd.
    pub replica: &'a Replica,
    /// The job.
    pub job: &'a JobName,
    /// What MongoDB has of the slot: [`crate::records::Records::of_slot`].
    pub records: &'a [RunRecord],
    /// Other records of the job, such as the newest: they tell how long it usually runs, and what
    /// became of a run that stood in the way.
    pub others: &'a [RunRecord],
    /// The asker's clock.
    pub now: DateTime<Utc>,
    /// How far two clocks of the fleet may be apart.
    pub max_skew: TimeDelta,
}

/// Tells the story of one slot.
pub fn story(known: &Known<'_>, slot: Slot) -> Story {
    let Known { replica, job, others, now, .. } = *known;
    let entry = replica.jobs.get(job).map(AsRef::as_ref);
    let checked = entry.and_then(|entry| entry.state.as_ref().ok());
    let zone = checked.map(|checked| replica.zone_of(checked));
    let scheduled = match (checked, &zone) {
        (Some(checked), Some(Ok(zone))) => Some((checked, *zone)),
        _ => None,
    };
    let due = scheduled.map(|(checked, _)| due_at(checked, slot.instant()));
    let mut told = Story {
        job: job.clone(),
        slot,
        zone: scheduled.map_or(Tz::UTC, |(_, zone)| zone),
        on_every_worker: checked.is_some_and(|checked| checked.job.scope == Scope::EveryWorker),
        due,
        deadline: due.zip(checked).map(|(due, c)| due + c.job.start_deadline()),
        fate: Fate::Unknown,
        attempts_to_come: to_come(replica, job, slot),
        hindrances: hindrances(known, entry, slot),
        workers: standings(replica, job, checked.map(|checked| &checked.job)),
        next: None,
        usual_millis: usual(others),
    };
    if let Some((checked, _)) = scheduled {
        told.next = next_slot(replica, job, now).map(|slot| {
            let due = due_at(checked, slot.instant());
            Next { slot, due, overdue: due <= now }
        });
    }
    told.fate = fate(known, scheduled, slot, due);
    told
}

fn fate(
    known: &Known<'_>,
    scheduled: Option<(&Checked, Tz)>,
    slot: Slot,
    due: Option<DateTime<Utc>>,
) -> Fate {
    let fires = |(checked, zone): (&Checked, Tz)| {
        let before = slot.instant() - TimeDelta::seconds(1);
        checked.schedule.next_after(zone, before) == Some(slot.instant())
    };
    let fires = scheduled.is_none_or(fires);
    let decisions = decisions(known, slot, due, fires);
    let places = scheduled.map(|(checked, _)| Place::of(known.replica, checked));
    let places = places.unwrap_or_default();
    let behind = places.iter().filter(|place| !place.has_passed(slot));
    let undecided: Vec<WorkerId> = behind.clone().filter_map(|place| place.on.clone()).collect();
    if !decisions.is_empty() {
        return Fate::Decided { decisions, undecided };
    }
    let Some((checked, zone)) = scheduled else { return Fate::Unknown };
    if !fires {
        return Fate::NoSlot {
            before: last_before(&checked.schedule, zone, slot.instant()).map(Slot::at),
            after: checked.schedule.next_after(zone, slot.instant()).map(Slot::at),
        };
    }
    let is_due = due.is_some_and(|due| due <= known.now);
    match behind.clone().next() {
        _ if !is_due => match places.iter().filter_map(|place| place.through).min() {
            Some(through) if behind.count() == 0 => Fate::Unrecorded { through },
            _ => Fate::Ahead,
        },
        Some(place) => Fate::Overdue { prospect: prospect(known, place, zone), undecided },
        None => match places.iter().filter_map(|place| place.through).min() {
            Some(through) => Fate::Unrecorded { through },
            // It runs on every worker, and there is none.
            None => Fate::Overdue { prospect: Prospect::Stuck, undecided },
        },
    }
}

fn prospect(known: &Known<'_>, place: &Place, zone: Tz) -> Prospect {
    let Known { replica, job, now, max_skew, .. } = *known;
    let Some(entry) = replica.jobs.get(job) else { return Prospect::Stuck };
    let on = place.on.as_ref();
    let cursor = replica.cursor(job, on).map(|cursor| cursor.value);
    let situation = Situation {
        entry,
        zone,
        cursor: cursor.as_ref(),
        live: replica.live_on(job, on).next().map(|live| live.run),
        registered: place.registered,
        now,
        max_skew,
    };
    match next_step(&situation) {
        Step::Next(_) if entry.job().is_some_and(|job| !job.enabled) => Prospect::Stuck,
        Step::Next(_) => Prospect::Waits,
        Step::Wait(at) => Prospect::Settled { at },
        Step::Blocked(by) => Prospect::Blocked { by },
        Step::Stuck { .. } => Prospect::Stuck,
        Step::Move(Move::Rebase { .. }) => Prospect::Follows,
        Step::Move(Move::Run { spawn_before, caught_up, .. }) => {
            Prospect::Runs { late: caught_up, until: spawn_before }
        }
        Step::Move(Move::Skip { .. }) => Prospect::Skipped,
        Step::Move(Move::Miss { .. }) => Prospect::Missed,
    }
}

/// Everything that is recorded of the slot, in MongoDB or still in etcd. `fires` says whether it is
/// a slot of the job as it stands: only then does a gap's record speak of it.
fn decisions(
    known: &Known<'_>,
    slot: Slot,
    due: Option<DateTime<Utc>>,
    fires: bool,
) -> Vec<Decision> {
    let Known { replica, job, .. } = *known;
    let entry = replica.jobs.get(job);
    let at = slot.instant();
    let speaks = |record: &&RunRecord| {
        let of_gap =
            || record.from_slot.zip(record.to_slot).is_some_and(|(a, b)| a <= at && at <= b);
        record.scheduled_time == Some(at) || fires && of_gap()
    };
    let mut all: BTreeMap<RunId, Decision> = BTreeMap::new();
    let decision = |record: RunRecord, unacknowledged| Decision {
        late_millis: late(&record, due),
        because: blocked_by(&record).map(|run| other(known, run)),
        job_changed: entry.is_none_or(|entry| {
            record.job_revision != 0 && entry.mod_revision != record.job_revision
        }),
        state: None,
        kill: None,
        unacknowledged,
        record,
    };
    for record in known.records.iter().filter(speaks) {
        all.insert(record.id, decision(record.clone(), false));
    }
    for record in replica.done_of(job).filter(speaks) {
        let known = all.get(&record.id);
        if known.is_none_or(|known| !known.record.outcome.is_final()) {
            all.insert(record.id, decision(record.clone(), true));
        }
    }
    for live in replica.live_of(job).filter(|live| live.value.slot == Some(slot)) {
        let command = entry.and_then(|entry| entry.job()).map_or("", |job| job.command.as_str());
        let found = all
            .entry(live.run)
            .or_insert_with(|| decision(RunRecord::of_run(live, command, live.value.since), true));
        if !found.record.outcome.is_final() {
            found.state = Some(live.value.state);
            found.kill = replica.kill_of(live);
        }
    }
    let mut all: Vec<Decision> = all.into_values().collect();
    all.sort_by_key(|decision| (decision.record.start_time, decision.record.id));
    all
}

/// The run because of which a slot was skipped, as its record names it.
pub fn blocked_by(record: &RunRecord) -> Option<RunId> {
    let reason = record.reason.as_deref().filter(|_| record.outcome == Outcome::Skipped)?;
    reason.split_whitespace().find_map(|word| word.parse().ok())
}

fn late(record: &RunRecord, due: Option<DateTime<Utc>>) -> Option<i64> {
    let first = record.trigger == Trigger::Schedule && record.attempt <= 1;
    let claimed = record.claimed_time.filter(|_| first)?;
    Some((claimed - due?).num_milliseconds())
}

fn to_come(replica: &Replica, job: &JobName, slot: Slot) -> Vec<ToCome> {
    let of_slot = replica.triggers_of(job).filter(|(_, t)| t.value.slot == Some(slot));
    of_slot
        .map(|(run, trigger)| ToCome {
            run,
            kind: trigger.value.kind,
            attempt: trigger.value.attempt,
            not_before: trigger.value.not_before,
            not_after: trigger.value.not_after,
            by: trigger.value.by.clone(),
        })
        .collect()
}

/// What is known of another run of the job.
fn other(known: &Known<'_>, run: RunId) -> Other {
    let job = known.replica.jobs.get(known.job).and_then(|entry| entry.job());
    if let Some(live) = known.replica.live_of(known.job).find(|live| live.run == run) {
        return live_other(live, job);
    }
    let record = known.others.iter().chain(known.records).find(|record| record.id == run);
    Other {
        run,
        worker: record.map(|record| record.worker.clone()).unwrap_or_default(),
        slot: record.and_then(|record| record.scheduled_time).map(Slot::at),
        since: record.map(|record| record.start_time),
        ended: record.and_then(|record| record.end_time),
        outcome: record.map(|record| record.outcome),
        times_out: None,
    }
}

fn live_other(live: &LiveRun, job: Option<&Job>) -> Other {
    let limit = job.map_or(0, |job| job.timeout_secs);
    Other {
        run: live.run,
        worker: live.value.worker.to_string(),
        slot: live.value.slot,
        since: Some(live.value.since),
        ended: None,
        outcome: Some(Outcome::Running),
        times_out: (limit > 0).then(|| live.value.since + TimeDelta::seconds(limit.into())),
    }
}

fn hindrances(known: &Known<'_>, entry: Option<&JobEntry>, slot: Slot) -> Vec<Hindrance> {
    let Known { replica, job, now, max_skew, .. } = *known;
    let mut found = Vec::new();
    let broken = |why: &dyn std::fmt::Display| Hindrance::Broken { why: why.to_string() };
    let checked = match entry.map(|entry| &entry.state) {
        None => {
            found.push(Hindrance::Gone);
            None
        }
        Some(Err(problems)) => {
            found.push(broken(problems));
            None
        }
        Some(Ok(checked)) => {
            found.extend(replica.zone_of(checked).err().map(|why| broken(&why)));
            Some(checked)
        }
    };
    for key in [Key::Settings, Key::Cursor(job.clone(), None)] {
        if let Some(why) = replica.unreadable.get(&key.to_string()) {
            found.push(broken(&format!("the key {key} cannot be read: {why}")));
        }
    }
    if replica.settings().0.frozen {
        found.push(Hindrance::Frozen);
    }
    if replica.workers.is_empty() {
        found.push(Hindrance::NoWorkers);
    }
    let Some(checked) = checked else { return found };
    if !checked.job.enabled {
        found.push(Hindrance::Paused);
    }
    let places = Place::of(replica, checked);
    let ahead = places.iter().filter_map(|place| place.through).max();
    found.extend(
        ahead
            .filter(|through| *through > now + max_skew)
            .map(|through| Hindrance::CursorAhead { through }),
    );
    let takers = Roster::of(replica);
    if !replica.workers.is_empty() && takers.order(job, &checked.job, Call::Run).is_empty() {
        found.push(Hindrance::NobodyTakesIt);
    }
    if checked.job.concurrency == Concurrency::Forbid {
        let in_the_way = |live: &&LiveRun| live.value.slot != Some(slot);
        let live = replica.live_of(job).filter(in_the_way);
        found.extend(live.map(|live| Hindrance::Live(live_other(live, Some(&checked.job)))));
    }
    found
}

fn standings(replica: &Replica, name: &JobName, job: Option<&Job>) -> Vec<Standing> {
    let roster = Roster::of(replica);
    let order = job.map(|job| roster.order(name, job, Call::Run)).unwrap_or_default();
    let mut all: Vec<Standing> = replica
        .workers
        .values()
        .map(|worker| {
            let rank = order.iter().position(|id| **id == worker.id);
            let reason = || reason(worker, replica.drains.contains(&worker.id), job);
            Standing {
                rank,
                reason: if rank.is_some() { None } else { reason() },
                started: worker.value.as_ref().ok().map(|registration| registration.started),
                worker: worker.id.clone(),
            }
        })
        .collect();
    all.sort_by_key(|standing| standing.rank.unwrap_or(usize::MAX));
    all
}

/// Why a worker takes no run of the job.
fn reason(worker: &WorkerEntry, asked_to_drain: bool, job: Option<&Job>) -> Option<String> {
    if let Some(reason) = unfit(worker, asked_to_drain) {
        return Some(reason);
    }
    let (registration, job) = (worker.value.as_ref().ok()?, job?);
    let lacking = job.selector.iter().filter(|(k, v)| registration.labels.get(*k) != Some(v));
    let lacking: Vec<String> = lacking.map(|(k, v)| format!("{k}={v}")).collect();
    if !lacking.is_empty() {
        return Some(format!("it is not selected: it lacks {}", lacking.join(", ")));
    }
    let (running, capacity) = (registration.running, registration.capacity);
    registration.full.then(|| format!("it is full: {running} of {capacity} runs"))
}

fn usual(records: &[RunRecord]) -> Option<i64> {
    let took = |r: &RunRecord| Some((r.end_time? - r.start_time).num_milliseconds());
    let succeeded = records.iter().filter(|record| record.outcome == Outcome::Succeeded);
    let mut all: Vec<i64> = succeeded.filter_map(took).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

#[cfg(test)]
mod tests;
