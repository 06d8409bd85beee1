//! What this worker knows and when it must act: the replica of the fleet's state and the times at
//! which something becomes due. Pure: feeds and instants in, work out.

use std::collections::BTreeSet;

use carillon_core::claims::{Grounds, Overlap, overlap_of};
use carillon_core::decide::{Move, Situation, Step, next_step};
use carillon_core::fleet::rules_version;
use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::{Checked, JobEntry};
use carillon_core::keys::{Key, Keys};
use carillon_core::replica::{Feed, Item, Replica, Versioned};
use carillon_core::run::{LiveRun, RunRecord, TriggerRequest};
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;

use crate::agenda::Agenda;

/// After how long any worker completes a `done/` record that its own worker left behind.
const LINGERING: TimeDelta = TimeDelta::seconds(15);
/// Added to a dead worker's grace period before its runs are settled: its children are gone then.
const SETTLE_MARGIN: TimeDelta = TimeDelta::seconds(2);

/// Something that becomes due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Due {
    /// The oldest undecided slot of a job, or a second look at it.
    Slot(JobName),
    /// A trigger whose time has come, or a second look at it.
    Trigger(JobName, RunId),
    /// The run of a worker that seems dead.
    Lost(JobName, RunId),
    /// The start deadline of a run that waits for those it replaces.
    Spawn(JobName, RunId),
    /// A decision that nobody has taken to MongoDB.
    Lingering(JobName, RunId),
}

/// The state of the fleet and this worker's timetable over it.
pub(crate) struct Schedule {
    pub replica: Replica,
    pub due: Agenda<Due>,
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
        Self { replica: Replica::default(), due: Agenda::default(), keys, worker, max_skew }
    }

    /// Takes in a feed, puts what it changed on the timetable, and returns the touched keys.
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

    fn file(&mut self, key: &Key, now: DateTime<Utc>) {
        match key {
            Key::Cursor(job) => self.due.insert(Due::Slot(job.clone()), now),
            Key::Job(job) => {
                self.due.insert(Due::Slot(job.clone()), now);
                self.bring_up_triggers(job, now);
            }
            Key::Trigger(job, id) => self.due.insert(Due::Trigger(job.clone(), *id), now),
            Key::Running(job, run) => {
                let due = Due::Lost(job.clone(), *run);
                match self.settlement_of(job, *run, now) {
                    // Its worker's name may be registered anew and refreshed every few seconds:
                    // that must not put the settlement off.
                    Some(at) if self.due.get(&due).is_none() => self.due.insert(due, at),
                    Some(_) => {}
                    None => drop(self.due.remove(&due)),
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
                    self.due.insert(due, now + LINGERING);
                } else {
                    self.due.remove(&due);
                }
            }
            Key::Settings => {
                for job in self.replica.jobs.keys() {
                    self.due.insert(Due::Slot(job.clone()), now);
                }
                for (job, id) in self.replica.triggers.keys() {
                    self.due.insert(Due::Trigger(job.clone(), *id), now);
                }
            }
            Key::KillJob(_)
            | Key::KillRun(..)
            | Key::Drain(_)
            | Key::Unknown(_)
            | Key::Misnamed(..) => {}
        }
    }

    fn bring_up_triggers(&mut self, job: &JobName, now: DateTime<Utc>) {
        let waiting: Vec<_> = self.triggers_of(job).collect();
        for id in waiting {
            self.due.insert(Due::Trigger(job.clone(), id), now);
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

    /// Looks at a job: puts its next time on the timetable, or returns the step that is due.
    ///
    /// # Errors
    /// Why the job cannot be scheduled at all.
    pub fn look_at(
        &mut self,
        job: &JobName,
        lease: i64,
        now: DateTime<Utc>,
    ) -> Result<Option<Wanted>, String> {
        let due = Due::Slot(job.clone());
        self.due.remove(&due);
        let Some(entry) = self.replica.jobs.get(job).cloned() else {
            return Ok(None);
        };
        if self.barred().is_some() {
            return Ok(None);
        }
        let checked = entry.state.as_ref().map_err(ToString::to_string)?;
        let situation = Situation {
            entry: &entry,
            zone: self.replica.zone_of(checked)?,
            cursor: self.replica.cursors.get(job).map(|c| &c.value),
            live: self.replica.live_of(job).next().map(|live| live.run),
            now,
            max_skew: self.max_skew,
        };
        match next_step(&situation) {
            Step::Stuck(why) => Err(why),
            Step::Wait(at) => {
                if let Some(at) = at {
                    self.due.insert(due, at);
                }
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

    /// Looks at a trigger: puts its time on the timetable, or says what becomes of it.
    pub fn look_at_trigger(
        &mut self,
        job: &JobName,
        id: RunId,
        lease: i64,
        now: DateTime<Utc>,
    ) -> Option<WantedTrigger> {
        let due = Due::Trigger(job.clone(), id);
        self.due.remove(&due);
        let trigger = self.replica.triggers.get(&(job.clone(), id))?.clone();
        let request = &trigger.value;
        if self.barred().is_some() {
            return None;
        }
        if request.not_before > now {
            self.due.insert(due, request.not_before);
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
            let second = TimeDelta::seconds(1);
            let until = request.not_after.checked_add_signed(second).unwrap_or(request.not_after);
            self.due.insert(due, until);
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
