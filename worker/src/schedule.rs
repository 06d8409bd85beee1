//! What this worker knows and when it must act: the replica of the fleet's state and the times at
//! which something becomes due. Pure: feeds and instants in, work out.
//!
//! Two lists hold those times: the jobs' slots, and the agenda for everything else. What changes
//! for every job at once is not filed for each: a round visits them, a few at a time.

mod leftovers;
mod slots;
mod triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use carillon_core::decide::{Move, Situation, Step, due_at, next_step, retention_days};
use carillon_core::fleet::rules_version;
use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::{Checked, Job, JobEntry, Scope, StoredJob};
use carillon_core::keys::{Key, Keys};
use carillon_core::rank::{Call, Roster};
use carillon_core::replica::{Feed, Item, Replica, Versioned};
use carillon_core::run::{LiveRun, RunRecord, RunState};
use carillon_core::steps::{Grounds, Overlap, Write};
use chrono::{DateTime, TimeDelta, Utc};

use crate::agenda::Agenda;
use slots::Slots;
pub(crate) use triggers::WantedTrigger;

/// How long each rank leaves to the one before it. The watch brings a step of another long before.
const RANK_DELAY: TimeDelta = TimeDelta::milliseconds(250);
/// How late a slot may be, at most, while those before us in rank are seen claiming others. Two
/// thousand slots of one second are not claimed in a moment, and each that two workers try costs a
/// transaction.
const QUEUE: TimeDelta = TimeDelta::seconds(2);
/// How long after its last claim a worker counts as claiming.
const CLAIMING: TimeDelta = TimeDelta::milliseconds(500);
/// After how long a worker completes a `done/` record that its own worker left behind, or its own
/// that was never written.
const LINGERING: TimeDelta = TimeDelta::seconds(15);
/// The same of a worker that is there: it only waits for MongoDB, which four that write the same
/// would make four times as slow.
const LINGERING_OF_LIVE: TimeDelta = TimeDelta::seconds(120);

/// When a list has changed as much as this, a round visits every job, and none is filed by itself.
const MANY: usize = 10_000;

/// Something that becomes due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Due {
    /// A look at a job: at its oldest undecided slot, or a second look.
    Job(JobName),
    /// Those before us in rank have not taken the job's step: it is our turn.
    JobTurn(JobName),
    /// A trigger whose time has come, or a second look at it.
    Trigger(JobName, RunId),
    /// Those before us in rank have not taken the trigger: it is our turn.
    TriggerTurn(JobName, RunId),
    /// The run of a worker that seems dead.
    Lost(JobName, RunId),
    /// The start deadline of a run that waits for those it replaces.
    Spawn(JobName, RunId),
    /// A decision that nobody has taken to MongoDB.
    Lingering(JobName, RunId),
    /// A cursor that may be needed no more.
    Cursor(JobName, Option<WorkerId>),
}

/// The state of the fleet and what this worker has to do about it.
pub(crate) struct Schedule {
    pub replica: Replica<StoredJob>,
    /// What is to be done besides the slots.
    pub agenda: Agenda<Due>,
    /// What is due and waits for room among the runs, by when it was due.
    held: Agenda<Due>,
    slots: Slots,
    /// Jobs with a slot to catch up that wait for the end of a run.
    blocked: BTreeSet<JobName>,
    roster: Roster,
    /// When the watch last showed a claim of each of the others.
    claiming: BTreeMap<WorkerId, DateTime<Utc>>,
    /// Up to which job every one is being looked at again.
    round: Option<Bound<JobName>>,
    /// What a list has changed of which not every part has come; `None`: too much to tell.
    listed: Option<BTreeSet<Key>>,
    /// Whose turn it is.
    turn: u8,
    keys: Keys,
    worker: WorkerId,
    labels: BTreeMap<String, String>,
    /// When this worker registered.
    registered: DateTime<Utc>,
    max_skew: TimeDelta,
    /// Why nothing may be claimed, by what others than the settings say.
    bar: Option<String>,
}

/// A step that wants to be taken, with everything the transaction compares.
pub(crate) struct Wanted {
    pub entry: Arc<JobEntry>,
    pub grounds: Grounds,
    pub step: Move,
    pub overlap: Overlap,
    /// The live run because of which a slot is skipped.
    pub blocking: Option<LiveRun>,
    /// How many other workers come first; 0: nobody.
    pub rank: u32,
    pub retention_days: Option<u32>,
}

impl Wanted {
    /// What the step asks of the worker that takes it.
    fn call(step: &Move) -> Call {
        match step {
            Move::Run { .. } | Move::Skip { .. } => Call::Run,
            Move::Miss { .. } | Move::Rebase { .. } => Call::Settle,
        }
    }
}

impl Schedule {
    pub fn new(
        keys: Keys,
        worker: WorkerId,
        labels: BTreeMap<String, String>,
        max_skew: TimeDelta,
    ) -> Self {
        Self {
            replica: Replica::default(),
            agenda: Agenda::default(),
            held: Agenda::default(),
            slots: Slots::default(),
            blocked: BTreeSet::new(),
            roster: Roster::default(),
            claiming: BTreeMap::new(),
            round: None,
            listed: Some(BTreeSet::new()),
            turn: 0,
            keys,
            worker,
            labels,
            registered: DateTime::UNIX_EPOCH,
            max_skew,
            bar: None,
        }
    }

    /// Takes in a feed, files what it changed, and returns the touched keys; of a list, with its
    /// last part, and of one that changed very much, not every job and cursor.
    pub fn take(&mut self, feed: &Feed, now: DateTime<Utc>) -> BTreeSet<Key> {
        let mut touched = self.replica.apply(&self.keys, feed, now);
        match feed {
            Feed::Part { .. } => {
                let listed = self.listed.take().filter(|l| l.len() + touched.len() < MANY);
                self.listed = listed.map(|mut listed| {
                    listed.append(&mut touched);
                    listed
                });
                return BTreeSet::new();
            }
            Feed::Snapshot { .. } => {}
            Feed::Changes { .. } => self.see_claims(&touched, now),
            Feed::Lost { .. } => return touched,
        }
        if touched.iter().any(|key| matches!(key, Key::Worker(_) | Key::Drain(_))) {
            self.roster = Roster::of(&self.replica);
            let workers = &self.replica.workers;
            self.claiming.retain(|worker, _| workers.contains_key(worker));
        }
        if matches!(feed, Feed::Snapshot { .. }) {
            match self.listed.replace(BTreeSet::new()) {
                Some(mut listed) => touched.append(&mut listed),
                None => self.visit_all(now),
            }
        }
        for key in &touched {
            self.file(key, now);
        }
        touched
    }

    fn see_claims(&mut self, touched: &BTreeSet<Key>, now: DateTime<Utc>) {
        for key in touched {
            if let Key::Running(job, _, run) = key
                && let Some(live) = self.live(job, *run)
                && live.value.state == RunState::Claimed
                && live.value.worker != self.worker
            {
                self.claiming.insert(live.value.worker.clone(), now);
            }
        }
    }

    /// Files everything that a list may have changed about jobs and their cursors.
    fn visit_all(&mut self, now: DateTime<Utc>) {
        self.look_at_all(now);
        let orphans: Vec<JobName> = self.replica.orphans().cloned().collect();
        for job in orphans {
            self.file_unneeded(&job, None, now);
        }
    }

    /// Takes in what an acknowledged transaction of our own has written, unless the watch has
    /// brought it already.
    pub fn take_own(&mut self, writes: Vec<Write>, revision: i64, now: DateTime<Utc>) {
        if self.replica.revision >= revision {
            return;
        }
        let item = |(key, value): (String, Option<Vec<u8>>)| Item {
            key: key.into_bytes(),
            value,
            mod_revision: revision,
            create_revision: revision,
            lease: 0,
        };
        let parts = writes.into_iter().map(|write| match write {
            Write::Put(key, value) => (key, Some(value)),
            Write::Delete(key) => (key, None),
        });
        let items = parts.map(item).collect();
        // The revision itself is the watch's to advance: it has not delivered everything before.
        self.take(&Feed::Changes { revision: self.replica.revision, items }, now);
    }

    /// This worker has registered.
    pub fn registered(&mut self, now: DateTime<Utc>) {
        self.registered = now;
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
                1 => self.next_of_round(now).map(Due::Job),
                _ => self.pop_held(room).or_else(|| self.slots.pop_due(now).map(Due::Job)),
            }
        })
    }

    fn pop_held(&mut self, room: bool) -> Option<Due> {
        room.then(|| self.held.pop_due(DateTime::<Utc>::MAX_UTC)).flatten().map(|(_, due)| due)
    }

    fn next_of_round(&mut self, now: DateTime<Utc>) -> Option<JobName> {
        let after = self.round.take()?;
        let rest = self.replica.jobs.range((after, Bound::Unbounded));
        let job = rest.map(|(job, _)| job.clone()).next()?;
        self.round = Some(Bound::Excluded(job.clone()));
        self.file_unneeded(&job, None, now);
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
        // live one, the start of a claimed run, whether a job or a worker comes back. The others
        // wait for what the clock shows.
        let waits = |due: &Due| {
            matches!(due, Due::Lost(..) | Due::Lingering(..) | Due::Spawn(..) | Due::Cursor(..))
        };
        self.agenda.shift(by, waits);
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

    /// Where this worker looks for the job's cursor: at its own, where the job runs on every
    /// worker.
    fn place_of(&self, scope: Scope) -> Option<&WorkerId> {
        (scope == Scope::EveryWorker).then_some(&self.worker)
    }

    /// Has a job looked at, unless a round that visits it anyhow is about to begin.
    fn look_at_soon(&mut self, job: &JobName, now: DateTime<Utc>) {
        let visited = self.round == Some(Bound::Unbounded) && self.replica.jobs.contains_key(job);
        if !visited {
            self.agenda.insert(Due::Job(job.clone()), now);
        }
    }

    fn follow_cursor(&mut self, job: &JobName, now: DateTime<Utc>) {
        self.agenda.remove(&Due::JobTurn(job.clone()));
        if !self.replica.jobs.contains_key(job) {
            return;
        }
        let on = self.replica.scope_of(job).and_then(|scope| self.place_of(scope));
        let cursor = self.replica.cursor(job, on).map(|cursor| cursor.value);
        // One in the future stops its job, which a look finds out and tells.
        let cursor = cursor.filter(|cursor| cursor.through <= now + self.max_skew);
        if !cursor.is_some_and(|cursor| self.slots.go_on(job, &cursor)) {
            self.look_at_soon(job, now);
        }
    }

    fn file(&mut self, key: &Key, now: DateTime<Utc>) {
        match key {
            Key::Cursor(job, on) => {
                if on.as_ref().is_none_or(|on| *on == self.worker) {
                    self.follow_cursor(job, now);
                }
                self.file_unneeded(job, on.as_ref(), now);
            }
            Key::Job(job) => {
                self.agenda.remove(&Due::JobTurn(job.clone()));
                self.look_at_soon(job, now);
                self.bring_up_triggers(job, now);
                self.file_unneeded(job, None, now);
                let own = self.replica.own_cursors.get(job);
                let own: Vec<_> = own.into_iter().flat_map(|own| own.keys().cloned()).collect();
                for on in own {
                    self.file_unneeded(job, Some(&on), now);
                }
            }
            Key::Trigger(job, id) => {
                self.agenda.remove(&Due::TriggerTurn(job.clone(), *id));
                self.agenda.insert(Due::Trigger(job.clone(), *id), now);
            }
            Key::Running(job, _, run) => {
                let due = Due::Lost(job.clone(), *run);
                match self.settlement_of(job, *run, now) {
                    // Its worker's name may be registered anew and refreshed every few seconds:
                    // that must not put the settlement off.
                    Some(at) if self.agenda.get(&due).is_none() => self.agenda.insert(due, at),
                    Some(_) => {}
                    None => drop(self.agenda.remove(&due)),
                }
                if self.blocked.remove(job) {
                    self.agenda.insert(Due::Job(job.clone()), now);
                }
                self.bring_up_triggers(job, now);
            }
            Key::Worker(worker) => {
                let runs: Vec<_> = self
                    .replica
                    .all_live()
                    .filter(|live| live.value.worker == *worker)
                    .map(|live| (live.job.clone(), live.on.clone(), live.run))
                    .collect();
                for (job, on, run) in runs {
                    self.file(&Key::Running(job, on, run), now);
                }
                if !self.replica.workers.contains_key(worker) {
                    let left = self.replica.done.iter();
                    let left = left.filter(|(_, done)| done.value.worker == worker.as_str());
                    let left: Vec<_> = left.map(|(place, _)| place.clone()).collect();
                    for (job, id) in left {
                        self.file(&Key::Done(job, id), now);
                    }
                    let own = &self.replica.own_cursors;
                    let own = own.iter().filter(|(_, own)| own.contains_key(worker));
                    let own: Vec<_> = own.map(|(job, _)| job.clone()).collect();
                    for job in own {
                        self.file_unneeded(&job, Some(worker), now);
                    }
                }
            }
            Key::Done(job, id) => {
                let due = Due::Lingering(job.clone(), *id);
                match self.completion_of(job, *id, now) {
                    Some(at) => self.agenda.insert(due, at),
                    None => drop(self.agenda.remove(&due)),
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

    /// How many other workers come before this one for a step of the job.
    pub fn rank(&self, name: &JobName, job: Option<&Job>, call: Call) -> u32 {
        match job {
            Some(job) => self.roster.rank(&self.worker, name, job, call),
            None => self.roster.rank(&self.worker, name, &Job::default(), call),
        }
    }

    /// Waits for those before us in rank to take a job's step.
    pub fn leave_to_others(&mut self, due: Due, rank: u32, now: DateTime<Utc>) {
        self.agenda.insert(due, now + RANK_DELAY * small(rank));
    }

    /// Whether those before us in rank for a slot are on their way to it: they are taking others, or
    /// they wait for etcd as we do, which is `slow`.
    pub fn is_coming_up(&self, wanted: &Wanted, slow: bool, now: DateTime<Utc>) -> bool {
        let Move::Run { slot, spawn_before, .. } = &wanted.step else { return false };
        let Ok(checked) = &wanted.entry.state else { return false };
        let due = due_at(checked, slot.instant());
        let busy = |worker: &WorkerId| {
            let seen = self.claiming.get(worker).map(|at| now - *at);
            seen.is_some_and(|ago| ago >= TimeDelta::zero() && ago < CLAIMING)
        };
        let call = Wanted::call(&wanted.step);
        let mut before = self.roster.before(&self.worker, &checked.name, &checked.job, call);
        wanted.rank > 0
            && now - due < QUEUE.min((*spawn_before - due) / 2)
            && (slow || before.any(busy))
    }

    /// A live run.
    pub fn live(&self, job: &JobName, run: RunId) -> Option<&LiveRun> {
        self.replica.live.get(job)?.get(&run)
    }

    /// A decision that MongoDB has not acknowledged.
    pub fn done(&self, job: &JobName, id: RunId) -> Option<&Versioned<RunRecord>> {
        self.replica.done.get(&(job.clone(), id))
    }

    /// Bars this worker from claiming, or lets it go on: then every job is looked at again.
    pub fn bar(&mut self, why: Option<String>, now: DateTime<Utc>) {
        let was = std::mem::replace(&mut self.bar, why);
        if was.is_some() && self.bar.is_none() {
            self.look_at_all(now);
        }
    }

    /// Why nothing at all may be claimed. When it is lifted, every job is looked at again.
    pub fn barred(&self) -> Option<String> {
        if self.bar.is_some() {
            return self.bar.clone();
        }
        let settings = &self.replica.settings.as_ref()?.value;
        if settings.frozen {
            return Some("the fleet is frozen".to_owned());
        }
        let (theirs, ours) = (settings.rules_version.as_deref()?, rules_version());
        (theirs != ours)
            .then(|| format!("it computes by the rules {ours}, and the fleet by {theirs}"))
    }

    fn grounds(
        &self,
        job: &JobName,
        on: Option<&WorkerId>,
        job_revision: i64,
        lease: i64,
    ) -> Grounds {
        Grounds {
            job: job.clone(),
            on: on.cloned(),
            job_revision,
            cursor_revision: self.replica.cursor_revision(job, on).unwrap_or(0),
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
        self.agenda.remove(&Due::JobTurn(job.clone()));
        self.held.remove(&due);
        self.blocked.remove(job);
        let Some(entry) = self.replica.job(job).map(Arc::new) else {
            self.slots.forget(job);
            return Ok(None);
        };
        if self.barred().is_some() {
            return Ok(None);
        }
        let checked = entry.state.as_ref().map_err(ToString::to_string)?;
        let on = self.place_of(checked.job.scope).cloned();
        if on.is_some() && !checked.job.selects(&self.labels) {
            self.slots.forget(job);
            return Ok(None);
        }
        let zone = self.replica.zone_of(checked)?;
        let cursor = self.replica.cursor(job, on.as_ref()).map(|c| c.value);
        let cursor = cursor.as_ref();
        let live = self.replica.live_on(job, on.as_ref()).next();
        let situation = Situation {
            entry: &entry,
            zone,
            cursor,
            live: live.map(|live| live.run),
            registered: on.as_ref().map(|_| self.registered),
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
            Step::Blocked(_) => {
                self.blocked.insert(job.clone());
                Ok(None)
            }
            Step::Move(step) => {
                let rank = match on {
                    Some(_) => 0,
                    None => self.rank(job, Some(&checked.job), Wanted::call(&step)),
                };
                let blocking = matches!(step, Move::Skip { .. }).then(|| live.cloned()).flatten();
                Ok(Some(Wanted {
                    grounds: self.grounds(job, on.as_ref(), entry.mod_revision, lease),
                    overlap: self.overlap(checked, on.as_ref()),
                    retention_days: self.retention_of(Some(&entry)),
                    entry: entry.clone(),
                    step,
                    blocking,
                    rank,
                }))
            }
        }
    }

    /// For how many days the job's records are kept.
    pub fn retention_of(&self, entry: Option<&JobEntry>) -> Option<u32> {
        retention_days(entry, &self.replica.settings().0)
    }

    /// The live runs of the job that were claimed before `live`.
    pub fn older_than(&self, live: &LiveRun) -> usize {
        let others = self.replica.live_on(&live.job, live.on.as_ref());
        others.filter(|other| other.fence < live.fence).count()
    }

    fn overlap(&self, checked: &Checked, on: Option<&WorkerId>) -> Overlap {
        Overlap::of(checked, &self.replica, on)
    }

    /// Whether this worker must not write anything: it may know a past that is not true.
    pub fn stands_by(&self) -> bool {
        self.bar.is_some()
    }
}

/// A rank as a factor; past a thousand all are last.
fn small(rank: u32) -> i32 {
    i32::try_from(rank).map_or(1000, |rank| rank.min(1000))
}

#[cfg(test)]
mod tests;
