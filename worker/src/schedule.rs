//! What this worker knows and when it must act: the replica of the fleet's state and the times at
//! which something becomes due. Pure: feeds and instants in, work out.
//!
//! Two lists hold those times: the jobs' slots, and the agenda for everything else. What changes
//! for every job at once is not filed for each: a round visits them, a few at a time.

mod slots;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use carillon_core::claims::{Grounds, Overlap, overlap_of};
use carillon_core::decide::{Move, Situation, Step, next_step};
use carillon_core::fleet::rules_version;
use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::{Checked, JobEntry};
use carillon_core::keys::{Key, Keys};
use carillon_core::replica::{Feed, Item, Replica, Versioned};
use carillon_core::run::{LiveRun, RunRecord, TriggerRequest};
use chrono::{DateTime, TimeDelta, Utc};

use crate::agenda::Agenda;
use slots::Slots;

/// After how long any worker completes a `done/` record that its own worker left behind.
const LINGERING: TimeDelta = TimeDelta::seconds(15);
/// Added to a dead worker's grace period before its runs are settled: its children are gone then.
const SETTLE_MARGIN: TimeDelta = TimeDelta::seconds(2);

/// Something that becomes due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Due {
    /// A look at a job: at its oldest undecided slot, or a second look.
    Job(JobName),
    /// A trigger whose time has come, or a second look at it.
    Trigger(JobName, RunId),
    /// The run of a worker that seems dead.
    Lost(JobName, RunId),
    /// The start deadline of a run that waits for those it replaces.
    Spawn(JobName, RunId),
    /// A decision that nobody has taken to MongoDB.
    Lingering(JobName, RunId),
}

/// The state of the fleet and what this worker has to do about it.
pub(crate) struct Schedule {
    pub replica: Replica,
    /// What is to be done besides the slots.
    pub agenda: Agenda<Due>,
    /// What is due and waits for room among the runs, by when it was due.
    held: Agenda<Due>,
    slots: Slots,
    /// Up to which job every one is being looked at again.
    round: Option<Bound<JobName>>,
    /// Whose turn it is.
    turn: u8,
    keys: Keys,
    worker: WorkerId,
    max_skew: TimeDelta,
}

/// A step that wants to be taken, with everything the transaction compares.
pub(crate) struct Wanted {
    pub entry: Arc<JobEntry>,
    pub grounds: Grounds,
    pub step: Move,
    pub overlap: Overlap,
    pub retention_days: Option<u32>,
}

/// A trigger that wants to be taken or settled.
pub(crate) struct WantedTrigger {
    pub id: RunId,
    pub trigger: Versioned<TriggerRequest>,
    pub grounds: Grounds,
    /// The job and how to run it, or why it does not run.
    pub verdict: Result<(Arc<JobEntry>, Overlap), String>,
    pub retention_days: Option<u32>,
}

impl Schedule {
    pub fn new(keys: Keys, worker: WorkerId, max_skew: TimeDelta) -> Self {
        Self {
            replica: Replica::default(),
            agenda: Agenda::default(),
            held: Agenda::default(),
            slots: Slots::default(),
            round: None,
            turn: 0,
            keys,
            worker,
            max_skew,
        }
    }

    /// Takes in a feed, files what it changed, and returns the touched keys.
    pub fn take(&mut self, feed: &Feed, now: DateTime<Utc>) -> BTreeSet<Key> {
        let touched = self.replica.apply(&self.keys, feed, now);
        for key in &touched {
            self.file(key, now);
        }
        touched
    }

    /// Takes in the keys that an acknowledged transaction of our own has put, unless the watch has
    /// brought them already.
    pub fn take_own(&mut self, puts: Vec<(String, Vec<u8>)>, revision: i64, now: DateTime<Utc>) {
        if self.replica.revision >= revision {
            return;
        }
        let items = puts
            .into_iter()
            .map(|(key, value)| Item {
                key: key.into_bytes(),
                value: Some(value),
                mod_revision: revision,
                create_revision: revision,
                lease: 0,
            })
            .collect();
        // The revision itself is the watch's to advance: it has not delivered everything before.
        self.take(&Feed::Changes { revision: self.replica.revision, items }, now);
    }

    /// The earliest instant at which anything is to be done.
    pub fn peek(&mut self) -> Option<DateTime<Utc>> {
        let times = [self.slots.peek(), self.agenda.peek()];
        times.into_iter().flatten().min()
    }

    /// Takes what is to be done first. Where there is `room` for another run, what is held comes
    /// before the slots that are due.
    pub fn pop_due(&mut self, now: DateTime<Utc>, room: bool) -> Option<Due> {
        // In turns: neither ten thousand slots nor a change of the settings may keep the rest
        // waiting.
        (0..3).find_map(|_| {
            self.turn = (self.turn + 1) % 3;
            match self.turn {
                0 => self.agenda.pop_due(now).map(|(_, due)| due),
                1 => self.next_of_round().map(Due::Job),
                _ => self.pop_held(room).or_else(|| self.slots.pop_due(now).map(Due::Job)),
            }
        })
    }

    fn pop_held(&mut self, room: bool) -> Option<Due> {
        room.then(|| self.held.pop_due(DateTime::<Utc>::MAX_UTC)).flatten().map(|(_, due)| due)
    }

    fn next_of_round(&mut self) -> Option<JobName> {
        let after = self.round.take()?;
        let rest = self.replica.jobs.range((after, Bound::Unbounded));
        let job = rest.map(|(job, _)| job.clone()).next()?;
        self.round = Some(Bound::Excluded(job.clone()));
        Some(job)
    }

    /// Has every job and every trigger looked at again.
    fn look_at_all(&mut self, now: DateTime<Utc>) {
        self.round = Some(Bound::Unbounded);
        for (job, id) in self.replica.triggers.keys() {
            self.agenda.insert(Due::Trigger(job.clone(), *id), now);
        }
    }

    /// The clock was set, and shows `now`.
    pub fn clock_set(&mut self, by: TimeDelta, now: DateTime<Utc>) {
        // These wait for a length of time: the end of a dead worker's children, the report of a
        // live one. The others wait for what the clock shows.
        self.agenda.shift(by, |due| matches!(due, Due::Lost(..) | Due::Lingering(..)));
        self.look_at_all(now);
    }

    /// Holds what is due until there is room; `at` is when it was.
    pub fn hold(&mut self, due: Due, at: DateTime<Utc>) {
        self.held.insert(due, at);
    }

    /// Has a job go on from its cursor, and its triggers looked at: its last step is over.
    pub fn go_on(&mut self, job: &JobName, now: DateTime<Utc>) {
        self.follow_cursor(job, now);
        self.bring_up_triggers(job, now);
    }

    /// Has a job and its triggers looked at then.
    pub fn bring_up(&mut self, job: &JobName, at: DateTime<Utc>) {
        self.agenda.insert(Due::Job(job.clone()), at);
        self.bring_up_triggers(job, at);
    }

    fn follow_cursor(&mut self, job: &JobName, now: DateTime<Utc>) {
        let cursor = self.replica.cursors.get(job).map(|cursor| &cursor.value);
        // One in the future stops its job, which a look finds out and tells.
        let cursor = cursor.filter(|cursor| cursor.through <= now + self.max_skew);
        if !cursor.is_some_and(|cursor| self.slots.go_on(job, cursor)) {
            self.agenda.insert(Due::Job(job.clone()), now);
        }
    }

    fn file(&mut self, key: &Key, now: DateTime<Utc>) {
        match key {
            Key::Cursor(job) => self.follow_cursor(job, now),
            Key::Job(job) => self.bring_up(job, now),
            Key::Trigger(job, id) => self.agenda.insert(Due::Trigger(job.clone(), *id), now),
            Key::Running(job, run) => {
                let due = Due::Lost(job.clone(), *run);
                match self.settlement_of(job, *run, now) {
                    // Its worker's name may be registered anew and refreshed every few seconds:
                    // that must not put the settlement off.
                    Some(at) if self.agenda.get(&due).is_none() => self.agenda.insert(due, at),
                    Some(_) => {}
                    None => drop(self.agenda.remove(&due)),
                }
                self.bring_up_triggers(job, now);
            }
            Key::Worker(worker) => {
                let runs: Vec<_> = self
                    .replica
                    .all_live()
                    .filter(|live| live.value.worker == *worker)
                    .map(|live| (live.job.clone(), live.run))
                    .collect();
                for (job, run) in runs {
                    self.file(&Key::Running(job, run), now);
                }
            }
            Key::Done(job, id) => {
                let due = Due::Lingering(job.clone(), *id);
                if self.replica.done.contains_key(&(job.clone(), *id)) {
                    self.agenda.insert(due, now + LINGERING);
                } else {
                    self.agenda.remove(&due);
                }
            }
            Key::Settings => self.look_at_all(now),
            Key::KillJob(_)
            | Key::KillRun(..)
            | Key::Drain(_)
            | Key::Unknown(_)
            | Key::Misnamed(..) => {}
        }
    }

    fn bring_up_triggers(&mut self, job: &JobName, at: DateTime<Utc>) {
        let waiting: Vec<_> = self.triggers_of(job).collect();
        for id in waiting {
            self.agenda.insert(Due::Trigger(job.clone(), id), at);
        }
    }

    fn triggers_of(&self, job: &JobName) -> impl Iterator<Item = RunId> {
        let all = (job.clone(), RunId::FIRST)..=(job.clone(), RunId::LAST);
        self.replica.triggers.range(all).map(|((_, id), _)| *id)
    }

    /// When a run may be settled as lost: `None` while its worker is alive.
    fn settlement_of(
        &self,
        job: &JobName,
        run: RunId,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let live = self.live(job, run)?;
        let alive = self
            .replica
            .workers
            .get(&live.value.worker)
            .is_some_and(|worker| worker.lease == live.value.lease);
        let grace = TimeDelta::seconds(live.value.grace_secs.into());
        (!alive).then(|| now + grace + SETTLE_MARGIN)
    }

    /// A live run.
    pub fn live(&self, job: &JobName, run: RunId) -> Option<&LiveRun> {
        self.replica.live.get(job)?.get(&run)
    }

    /// A run whose worker is dead.
    pub fn lost(&self, job: &JobName, run: RunId) -> Option<&LiveRun> {
        self.settlement_of(job, run, DateTime::default())?;
        self.live(job, run)
    }

    /// A decision that MongoDB has not acknowledged.
    pub fn done(&self, job: &JobName, id: RunId) -> Option<&Versioned<RunRecord>> {
        self.replica.done.get(&(job.clone(), id))
    }

    /// Why nothing at all may be claimed, by the fleet's settings. A change of them brings every
    /// job up again.
    pub fn barred(&self) -> Option<String> {
        let (settings, _) = self.replica.settings();
        if settings.frozen {
            return Some("the fleet is frozen".to_owned());
        }
        let (theirs, ours) = (settings.rules_version?, rules_version());
        (theirs != ours)
            .then(|| format!("it computes by the rules {ours}, and the fleet by {theirs}"))
    }

    fn grounds(&self, job: &JobName, job_revision: i64, lease: i64) -> Grounds {
        Grounds {
            job: job.clone(),
            job_revision,
            cursor_revision: self.replica.cursors.get(job).map_or(0, |c| c.mod_revision),
            settings_revision: self.replica.settings().1,
            worker: self.worker.clone(),
            lease,
        }
    }

    /// Looks at a job: files its next time, or returns the step that is due.
    ///
    /// # Errors
    /// Why the job cannot be scheduled at all.
    pub fn look_at(
        &mut self,
        job: &JobName,
        lease: i64,
        now: DateTime<Utc>,
    ) -> Result<Option<Wanted>, String> {
        let due = Due::Job(job.clone());
        self.agenda.remove(&due);
        self.held.remove(&due);
        let Some(entry) = self.replica.jobs.get(job).cloned() else {
            self.slots.forget(job);
            return Ok(None);
        };
        if self.barred().is_some() {
            return Ok(None);
        }
        let checked = entry.state.as_ref().map_err(ToString::to_string)?;
        let zone = self.replica.zone_of(checked)?;
        let cursor = self.replica.cursors.get(job).map(|c| &c.value);
        let situation = Situation {
            entry: &entry,
            zone,
            cursor,
            live: self.replica.live_of(job).next().map(|live| live.run),
            now,
            max_skew: self.max_skew,
        };
        match next_step(&situation) {
            Step::Stuck { why, until } => {
                if let Some(until) = until {
                    self.agenda.insert(due, until);
                }
                Err(why)
            }
            Step::Next(at) => {
                match at.and(cursor) {
                    Some(cursor) => {
                        self.slots.wait(checked, entry.mod_revision, zone, cursor.through);
                    }
                    None => self.slots.forget(job),
                }
                Ok(None)
            }
            Step::Wait(at) => {
                self.agenda.insert(due, at);
                Ok(None)
            }
            Step::Move(step) => {
                let grounds = self.grounds(job, entry.mod_revision, lease);
                let overlap = self.overlap(checked);
                let retention_days = self.retention_of(&entry);
                Ok(Some(Wanted { entry: entry.clone(), grounds, step, overlap, retention_days }))
            }
        }
    }

    /// For how many days the job's records are kept; for ever where neither it nor the fleet says.
    pub fn retention_of(&self, entry: &JobEntry) -> Option<u32> {
        let own = entry.job().and_then(|job| job.retention_days);
        own.or(self.replica.settings().0.retention_days)
    }

    /// The live runs of the job that were claimed before `live`.
    pub fn older_than(&self, live: &LiveRun) -> usize {
        self.replica.live_of(&live.job).filter(|other| other.fence < live.fence).count()
    }

    fn overlap(&self, checked: &Checked) -> Overlap {
        let live = self.replica.live_of(&checked.name).map(|live| live.run);
        overlap_of(checked, self.replica.revision, live)
    }

    /// When a trigger that nobody has taken is settled.
    pub fn expiry_of(request: &TriggerRequest) -> DateTime<Utc> {
        let second = TimeDelta::seconds(1);
        request.not_after.checked_add_signed(second).unwrap_or(request.not_after)
    }

    /// Looks at a trigger: files its time, or says what becomes of it.
    pub fn look_at_trigger(
        &mut self,
        job: &JobName,
        id: RunId,
        lease: i64,
        now: DateTime<Utc>,
    ) -> Option<WantedTrigger> {
        let due = Due::Trigger(job.clone(), id);
        self.agenda.remove(&due);
        self.held.remove(&due);
        let trigger = self.replica.triggers.get(&(job.clone(), id))?.clone();
        let request = &trigger.value;
        if self.barred().is_some() {
            return None;
        }
        if request.not_before > now {
            self.agenda.insert(due, request.not_before);
            return None;
        }
        let entry = self.replica.jobs.get(job).cloned();
        let too_late = now > request.not_after;
        let verdict = match &entry {
            None => Err("the job was deleted before the run could start".to_owned()),
            Some(entry) if entry.create_revision != request.job_created => {
                Err("the job was deleted and made again before the run could start".to_owned())
            }
            Some(_) if too_late => Err("no worker started it in time".to_owned()),
            Some(entry) => match &entry.state {
                Err(problems) => Err(problems.to_string()),
                Ok(checked) => Ok((entry.clone(), self.overlap(checked))),
            },
        };
        if matches!(verdict, Ok((_, Overlap::Forbid))) && self.replica.live_of(job).next().is_some()
        {
            // It waits for the live run to end, as long as it may.
            self.agenda.insert(due, Self::expiry_of(request));
            return None;
        }
        let job_revision = entry.as_ref().map_or(0, |e| e.mod_revision);
        let grounds = self.grounds(job, job_revision, lease);
        let retention_days = match &entry {
            Some(entry) => self.retention_of(entry),
            None => self.replica.settings().0.retention_days,
        };
        Some(WantedTrigger { id, trigger, grounds, verdict, retention_days })
    }
}

#[cfg(test)]
mod tests;
