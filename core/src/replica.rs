//! The fleet's etcd state as one value: what the worker schedules from and the console shows.
//!
//! Pure. [`crate::etcd::Etcd::feed`] delivers, [`Replica::apply`] takes in, and what it returns says
//! which keys changed, so that nobody has to look at the rest.

mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::de::DeserializeOwned;

use crate::cursors::Cursors;
pub use crate::cursors::Versioned;
use crate::decide::{Cursor, next_due};
use crate::fleet::{FleetSettings, WorkerEntry};
use crate::id::{JobName, RunId, Slot, WorkerId};
use crate::job::{Checked, JobEntry, KeptJob, Scope, StoredJob};
use crate::keys::{Key, Keys};
use crate::run::{KillRequest, LiveRun, RunRecord, TriggerRequest};
use crate::schedule::{Interner, gathered, mixed};
use listing::Listing;

/// A key with its value, or its deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The whole key.
    pub key: Vec<u8>,
    /// The value; `None` where the key was deleted.
    pub value: Option<Vec<u8>>,
    /// Revision of this write or deletion.
    pub mod_revision: i64,
    /// Revision that created the key.
    pub create_revision: i64,
    /// The lease it hangs on, or 0.
    pub lease: i64,
}

impl Item {
    /// How long its key and its value are together, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// What the feed delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// A part of the whole state at `revision`, in the order of the keys; more follows.
    Part {
        /// etcd revision of the list.
        revision: i64,
        /// The cluster that it is read from.
        cluster: u64,
        /// The next keys.
        items: Vec<Item>,
    },
    /// The last part of the whole state, or all of it: at the start and after a gap in the watch.
    Snapshot {
        /// etcd revision of the list.
        revision: i64,
        /// The cluster that it was read from.
        cluster: u64,
        /// The last keys.
        items: Vec<Item>,
    },
    /// What changed, in order, up to `revision`.
    Changes {
        /// etcd revision of the answer.
        revision: i64,
        /// The writes and deletions.
        items: Vec<Item>,
    },
    /// The connection is gone and is being made again; what is known may be out of date.
    Lost {
        /// Why, for an operator.
        reason: String,
    },
}

/// Everything under the prefix, decoded.
///
/// A value that cannot be decoded is listed in `unreadable`. A cursor or the settings are absent then;
/// of a run, a decision or a trigger the last value that could be read stands. Jobs and workers carry
/// their error themselves, so that they can be shown.
///
/// `J` is what is kept of each job: the console shows them all and keeps them decoded, a worker
/// keeps their text.
#[derive(Debug, Clone)]
pub struct Replica<J = Arc<JobEntry>> {
    /// The etcd revision this state has reached.
    pub revision: i64,
    /// Every job, broken ones included.
    pub jobs: BTreeMap<JobName, J>,
    /// Up to where each job's slots are decided.
    pub cursors: Cursors,
    /// The same for jobs that run on every worker, for each worker.
    pub own_cursors: BTreeMap<JobName, BTreeMap<WorkerId, Versioned<Cursor>>>,
    /// Every live run, by job.
    pub live: BTreeMap<JobName, BTreeMap<RunId, LiveRun>>,
    /// Decisions that MongoDB has not acknowledged yet.
    pub done: BTreeMap<(JobName, RunId), Versioned<RunRecord>>,
    /// Runs asked for outside the schedule.
    pub triggers: BTreeMap<(JobName, RunId), Versioned<TriggerRequest>>,
    /// Kill requests for every live run of a job: the revision counts, not the value.
    pub job_kills: BTreeMap<JobName, i64>,
    /// Kill requests for one run.
    pub run_kills: BTreeMap<(JobName, RunId), Versioned<KillRequest>>,
    /// Registered workers.
    pub workers: BTreeMap<WorkerId, WorkerEntry>,
    /// Workers that were asked to take nothing new.
    pub drains: BTreeSet<WorkerId>,
    /// The fleet's settings, where there are any.
    pub settings: Option<Versioned<FleetSettings>>,
    /// Keys whose value or name cannot be read, and why.
    pub unreadable: BTreeMap<String, String>,
    table_hash: u64,
    schedules: Interner,
    listing: Option<Box<Listing<J>>>,
}

impl<J> Default for Replica<J> {
    fn default() -> Self {
        Self {
            revision: 0,
            jobs: BTreeMap::new(),
            cursors: Cursors::default(),
            own_cursors: BTreeMap::new(),
            live: BTreeMap::new(),
            done: BTreeMap::new(),
            triggers: BTreeMap::new(),
            job_kills: BTreeMap::new(),
            run_kills: BTreeMap::new(),
            workers: BTreeMap::new(),
            drains: BTreeSet::new(),
            settings: None,
            unreadable: BTreeMap::new(),
            table_hash: 0,
            schedules: Interner::default(),
            listing: None,
        }
    }
}

impl<J: KeptJob> Replica<J> {
    /// Takes in what the feed delivered at `now` (the reader's clock) and returns what changed.
    ///
    /// A list replaces everything. Jobs and their cursors do so part by part, and everything else,
    /// the revision too, with the last one; then the result also names the keys that vanished.
    pub fn apply(&mut self, keys: &Keys, feed: &Feed, now: DateTime<Utc>) -> BTreeSet<Key> {
        match feed {
            Feed::Lost { .. } => BTreeSet::new(),
            Feed::Changes { revision, items } => {
                let touched = items.iter().map(|item| self.take(keys, item, now)).collect();
                self.revision = self.revision.max(*revision);
                touched
            }
            Feed::Part { revision, cluster, items } => {
                let mut listing = self.listing(*revision, *cluster);
                let touched = self.take_part(&mut listing, keys, items, now);
                self.listing = Some(listing);
                touched
            }
            Feed::Snapshot { revision, cluster, items } => {
                let mut listing = self.listing(*revision, *cluster);
                let mut touched = self.take_part(&mut listing, keys, items, now);
                touched.append(&mut self.end_list(*listing));
                touched
            }
        }
    }

    /// The name as it is kept already: one text for everything that is known of a job.
    fn shared(&self, job: &JobName) -> JobName {
        let known = self.jobs.get_key_value(job).map(|(known, _)| known);
        known.or_else(|| self.cursors.name(job)).unwrap_or(job).clone()
    }

    fn take(&mut self, keys: &Keys, item: &Item, now: DateTime<Utc>) -> Key {
        let key = keys.parse(&item.key);
        match &item.value {
            Some(value) => self.put(&key, value, item, now),
            None => self.delete(&key),
        }
        key
    }

    fn put(&mut self, key: &Key, value: &[u8], item: &Item, now: DateTime<Utc>) {
        self.unreadable.remove(&key.to_string());
        let rev = item.mod_revision;
        match key {
            Key::Job(job) => {
                let name = self.shared(job);
                self.put_job(&name, value, rev, item.create_revision);
            }
            Key::Cursor(job, None) => match self.decode(key, value, rev) {
                Some(cursor) => self.cursors.insert(self.shared(job), cursor),
                None => self.cursors.remove(job),
            },
            Key::Cursor(job, Some(on)) => match self.decode(key, value, rev) {
                Some(cursor) => {
                    self.own_cursors.entry(job.clone()).or_default().insert(on.clone(), cursor);
                }
                None => self.forget_own_cursor(job, on),
            },
            Key::Running(job, on, run) => {
                if let Some(Versioned { value, .. }) = self.decode(key, value, rev) {
                    let (job, on, run) = (job.clone(), on.clone(), *run);
                    let live = LiveRun { job, on, run, fence: item.create_revision, value };
                    self.live.entry(live.job.clone()).or_default().insert(run, live);
                }
            }
            Key::Done(job, id) => {
                if let Some(done) = self.decode(key, value, rev) {
                    self.done.insert((job.clone(), *id), done);
                }
            }
            Key::Trigger(job, id) => {
                if let Some(trigger) = self.decode(key, value, rev) {
                    self.triggers.insert((job.clone(), *id), trigger);
                }
            }
            Key::KillJob(job) => drop(self.job_kills.insert(job.clone(), rev)),
            Key::KillRun(job, run) => {
                // Any value asks for a kill; one that says nothing more is as good as an empty one.
                let value = serde_json::from_slice(value).unwrap_or_else(|_| KillRequest {
                    grace_secs: None,
                    by: "another tool".to_owned(),
                    at: now,
                });
                let kill = Versioned { value, mod_revision: rev };
                self.run_kills.insert((job.clone(), *run), kill);
            }
            Key::Worker(id) => {
                let value: Result<crate::fleet::Registration, _> =
                    serde_json::from_slice(value).map_err(|e| e.to_string());
                let skew = value.as_ref().ok().map(|r| r.clock - now);
                let entry = WorkerEntry {
                    id: id.clone(),
                    lease: item.lease,
                    mod_revision: rev,
                    value,
                    skew,
                };
                self.workers.insert(id.clone(), entry);
            }
            Key::Drain(id) => drop(self.drains.insert(id.clone())),
            Key::Settings => self.settings = self.decode(key, value, rev),
            Key::Misnamed(name, why) => {
                self.unreadable.insert(key.to_string(), format!("{name:?}: {why}"));
            }
            Key::Unknown(_) => {}
        }
    }

    fn put_job(&mut self, name: &JobName, value: &[u8], rev: i64, created: i64) {
        let known = self.jobs.get(name);
        // After a list most jobs are as they were: compiling them again would take seconds.
        if known.is_some_and(|k| (k.mod_revision(), k.create_revision()) == (rev, created)) {
            return;
        }
        self.count_job(name, rev);
        let entry = J::take(&mut self.schedules, name, value, rev, created);
        self.jobs.insert(name.clone(), entry);
    }

    fn decode<T: DeserializeOwned>(
        &mut self,
        key: &Key,
        value: &[u8],
        mod_revision: i64,
    ) -> Option<Versioned<T>> {
        match serde_json::from_slice(value) {
            Ok(value) => Some(Versioned { value, mod_revision }),
            Err(e) => {
                self.unreadable.insert(key.to_string(), e.to_string());
                None
            }
        }
    }

    fn delete(&mut self, key: &Key) {
        self.unreadable.remove(&key.to_string());
        match key {
            Key::Job(job) => {
                self.count_job(job, 0);
                self.jobs.remove(job);
            }
            Key::Cursor(job, None) => self.cursors.remove(job),
            Key::Cursor(job, Some(on)) => self.forget_own_cursor(job, on),
            Key::Running(job, _, run) => {
                if let Some(runs) = self.live.get_mut(job) {
                    runs.remove(run);
                    if runs.is_empty() {
                        self.live.remove(job);
                    }
                }
            }
            Key::Done(job, id) => drop(self.done.remove(&(job.clone(), *id))),
            Key::Trigger(job, id) => drop(self.triggers.remove(&(job.clone(), *id))),
            // A request that was withdrawn in the same breath still counts; runs that are claimed
            // later are newer than it.
            Key::KillJob(_) => {}
            Key::KillRun(job, run) => drop(self.run_kills.remove(&(job.clone(), *run))),
            Key::Worker(id) => drop(self.workers.remove(id)),
            Key::Drain(id) => drop(self.drains.remove(id)),
            Key::Settings => self.settings = None,
            Key::Misnamed(..) | Key::Unknown(_) => {}
        }
    }

    fn forget_own_cursor(&mut self, job: &JobName, on: &WorkerId) {
        if let Some(own) = self.own_cursors.get_mut(job) {
            own.remove(on);
            if own.is_empty() {
                self.own_cursors.remove(job);
            }
        }
    }

    /// Every key that is in one of the two and not, or not at the same revision, in the other;
    /// except jobs and the fleet's cursors. Of a run the revision of its claim counts, whatever has
    /// become of it since.
    fn difference(&self, other: &Self) -> BTreeSet<Key> {
        let (ours, theirs) = (self.revisions(), other.revisions());
        let changed = theirs.iter().filter(|(k, rev)| ours.get(k) != Some(rev));
        let gone = ours.iter().filter(|(k, _)| !theirs.contains_key(k));
        changed.chain(gone).map(|(key, _)| key.clone()).collect()
    }

    fn revisions(&self) -> BTreeMap<Key, i64> {
        let runs = self.live.values().flat_map(BTreeMap::values);
        let pair = |(job, id): &(JobName, RunId)| (job.clone(), *id);
        let own_cursors = self.own_cursors.iter().flat_map(|(job, own)| {
            own.iter().map(|(on, v)| (Key::Cursor(job.clone(), Some(on.clone())), v.mod_revision))
        });
        let live = runs.map(|r| (Key::Running(r.job.clone(), r.on.clone(), r.run), r.fence));
        let done = self.done.iter().map(|(k, v)| {
            let (job, id) = pair(k);
            (Key::Done(job, id), v.mod_revision)
        });
        let triggers = self.triggers.iter().map(|(k, v)| {
            let (job, id) = pair(k);
            (Key::Trigger(job, id), v.mod_revision)
        });
        let run_kills = self.run_kills.iter().map(|(k, v)| {
            let (job, id) = pair(k);
            (Key::KillRun(job, id), v.mod_revision)
        });
        let job_kills = self.job_kills.iter().map(|(k, rev)| (Key::KillJob(k.clone()), *rev));
        let workers = self.workers.iter().map(|(k, v)| (Key::Worker(k.clone()), v.mod_revision));
        let drains = self.drains.iter().map(|k| (Key::Drain(k.clone()), 0));
        let settings = self.settings.iter().map(|v| (Key::Settings, v.mod_revision));
        own_cursors
            .chain(live)
            .chain(done)
            .chain(triggers)
            .chain(run_kills)
            .chain(job_kills)
            .chain(workers)
            .chain(drains)
            .chain(settings)
            .collect()
    }

    /// Counts a job at its new revision instead of the known one; 0: it is gone.
    fn count_job(&mut self, job: &JobName, revision: i64) {
        let known = self.jobs.get(job).map_or(0, J::mod_revision);
        let share = |revision: i64| match revision {
            0 => 0,
            revision => mixed(gathered(job.as_str().bytes()) ^ mixed(revision.cast_unsigned())),
        };
        self.table_hash = self.table_hash.wrapping_sub(share(known)).wrapping_add(share(revision));
    }
}

impl<J> Replica<J> {
    /// The job table in one number: the same wherever the same jobs are known at the same
    /// revisions, in whatever order they arrived.
    pub fn table_hash(&self) -> u64 {
        self.table_hash
    }

    /// The cursor of a job, or a worker's own where the job runs on every worker.
    pub fn cursor(&self, job: &JobName, on: Option<&WorkerId>) -> Option<Versioned<Cursor>> {
        match on {
            None => self.cursors.get(job),
            Some(on) => self.own_cursors.get(job)?.get(on).cloned(),
        }
    }

    /// The jobs of which only the cursor is left, in order.
    pub fn orphans(&self) -> impl Iterator<Item = &JobName> {
        absent(self.cursors.names(), self.jobs.keys())
    }

    /// The revision of that cursor.
    pub fn cursor_revision(&self, job: &JobName, on: Option<&WorkerId>) -> Option<i64> {
        match on {
            None => self.cursors.revision(job),
            Some(on) => Some(self.own_cursors.get(job)?.get(on)?.mod_revision),
        }
    }

    /// The live runs of a job that a step must reckon with, oldest first: all of them, or those on
    /// one worker where the job runs on every worker.
    pub fn live_on<'a>(
        &'a self,
        job: &JobName,
        on: Option<&'a WorkerId>,
    ) -> impl Iterator<Item = &'a LiveRun> {
        self.live_of(job).filter(move |live| on.is_none() || live.on.as_ref() == on)
    }

    /// The fleet's settings and their revision; the defaults at 0 where there are none.
    pub fn settings(&self) -> (FleetSettings, i64) {
        match &self.settings {
            Some(v) => (v.value.clone(), v.mod_revision),
            None => (FleetSettings::default(), 0),
        }
    }

    /// The zone that a job's schedule is computed in.
    ///
    /// # Errors
    /// Says that the fleet's default zone cannot be read.
    pub fn zone_of(&self, job: &Checked) -> Result<Tz, String> {
        job.zone.map_or_else(|| self.settings().0.zone(), Ok)
    }

    /// The live runs of one job, oldest first.
    pub fn live_of(&self, job: &JobName) -> impl Iterator<Item = &LiveRun> {
        self.live.get(job).into_iter().flat_map(BTreeMap::values)
    }

    /// Every live run in the fleet, by job and then oldest first.
    pub fn all_live(&self) -> impl Iterator<Item = &LiveRun> {
        self.live.values().flat_map(BTreeMap::values)
    }

    /// The decisions of one job that MongoDB has not acknowledged, oldest first.
    pub fn done_of(&self, job: &JobName) -> impl Iterator<Item = &RunRecord> {
        self.done.range(all_of(job)).map(|(_, done)| &done.value)
    }

    /// The runs of one job that were asked for outside the schedule, oldest first.
    pub fn triggers_of(
        &self,
        job: &JobName,
    ) -> impl Iterator<Item = (RunId, &Versioned<TriggerRequest>)> {
        self.triggers.range(all_of(job)).map(|((_, id), trigger)| (*id, trigger))
    }

    /// The newest slot of a job that is decided, as far as etcd tells.
    pub fn newest_decided(&self, job: &JobName) -> Option<Slot> {
        let live = self.live_of(job).filter_map(|live| live.value.slot);
        live.chain(self.done_of(job).filter_map(RunRecord::newest_slot)).max()
    }

    /// The kill request that applies to a live run: one that is newer than its claim.
    pub fn kill_of(&self, live: &LiveRun) -> Option<KillRequest> {
        let own = self.run_kills.get(&(live.job.clone(), live.run));
        let own = own.filter(|kill| kill.mod_revision > live.fence).map(|kill| kill.value.clone());
        own.or_else(|| {
            let revision = self.job_kills.get(&live.job)?;
            (*revision > live.fence).then(|| KillRequest {
                grace_secs: None,
                by: "a kill of the whole job".to_owned(),
                at: live.value.since,
            })
        })
    }

    /// When the next slot of a job after `now` is due, if it is enabled, whole and has one.
    pub fn next_firing(&self, job: &JobEntry, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let checked = job.state.as_ref().ok().filter(|c| c.job.enabled)?;
        next_due(checked, self.zone_of(checked).ok()?, now)
    }
}

impl Replica<StoredJob> {
    /// A job, read from its text.
    pub fn job(&self, job: &JobName) -> Option<JobEntry> {
        let (name, stored) = self.jobs.get_key_value(job)?;
        Some(stored.read(name.clone()))
    }

    /// The scope of a job, without reading the whole of it where that can be helped; `None` where it
    /// is not known, nor can be told.
    pub fn scope_of(&self, job: &JobName) -> Option<Scope> {
        let (name, stored) = self.jobs.get_key_value(job)?;
        stored.scope().or_else(|| Some(stored.read(name.clone()).job()?.scope))
    }
}

/// Where the runs of one job are among those of all.
fn all_of(job: &JobName) -> RangeInclusive<(JobName, RunId)> {
    (job.clone(), RunId::FIRST)..=(job.clone(), RunId::LAST)
}

/// Those of the names that are not among the others. Both come in order.
fn absent<'a, 'b>(
    names: impl Iterator<Item = &'a JobName>,
    others: impl Iterator<Item = &'b JobName>,
) -> impl Iterator<Item = &'a JobName> {
    let mut others = others.peekable();
    names.filter(move |name| {
        while others.next_if(|other| other < name).is_some() {}
        others.peek() != Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{name, put};

    const JOB: &str = r#"{"name":"a","command":"true","cronExpr":"* * * * *"}"#;

    #[test]
    fn a_broken_value_disturbs_no_other() {
        let keys = Keys::new("/cron").unwrap();
        let mut replica: Replica = Replica::default();
        let items = vec![
            put("jobs/a", JOB, 2),
            put("jobs/b", "{oops", 3),
            put("jobs/x/y", JOB, 4),
            put("cursor/a", "nonsense", 5),
        ];
        let now = Utc::now();
        let touched = replica.apply(&keys, &Feed::Snapshot { revision: 5, cluster: 1, items }, now);
        assert_eq!(touched.len(), 2);
        assert!(replica.jobs[&name("a")].state.is_ok());
        assert!(replica.jobs[&name("b")].state.is_err());
        assert!(replica.unreadable.contains_key("jobs/x/y"));
        assert!(replica.unreadable.contains_key("cursor/a"));
    }

    #[test]
    fn a_second_snapshot_names_what_changed_and_what_vanished() {
        let keys = Keys::new("/cron").unwrap();
        let mut replica: Replica = Replica::default();
        let now = Utc::now();
        let items = ["a", "b", "c"].map(|n| put(&format!("jobs/{n}"), JOB, 2)).to_vec();
        replica.apply(&keys, &Feed::Snapshot { revision: 4, cluster: 1, items }, now);
        let items = vec![put("jobs/a", JOB, 2), put("jobs/b", JOB, 9)];
        let touched = replica.apply(&keys, &Feed::Snapshot { revision: 9, cluster: 1, items }, now);
        assert_eq!(touched, [Key::Job(name("b")), Key::Job(name("c"))].into());
        assert!(!replica.jobs.contains_key(&name("c")));
    }

    #[test]
    fn a_list_from_before_what_is_known_is_of_another_past() {
        let keys = Keys::new("/cron").unwrap();
        let mut replica: Replica = Replica::default();
        let now = Utc::now();
        let cursor = r#"{"rev":2,"expr":"* * * * *","zone":"UTC","enabled":true,"through":"2026-01-01T00:00:00Z"}"#;
        let items = |job: &str| vec![put("cursor/a", cursor, 3), put("jobs/a", job, 2)];
        let known = Feed::Snapshot { revision: 9, cluster: 1, items: items(JOB) };
        let other = JOB.replace("true", "false");
        let restored = Feed::Snapshot { revision: 8, cluster: 1, items: items(&other) };
        replica.apply(&keys, &known, now);
        let touched = replica.apply(&keys, &restored, now);
        assert_eq!(touched, [Key::Cursor(name("a"), None), Key::Job(name("a"))].into());
        assert_eq!(replica.jobs[&name("a")].job().unwrap().command, "false");
        let mut fresh: Replica = Replica::default();
        fresh.apply(&keys, &restored, now);
        assert_eq!(replica.table_hash(), fresh.table_hash());
    }

    #[test]
    fn a_list_in_parts_is_the_list() {
        let keys = Keys::new("/cron").unwrap();
        let now = Utc::now();
        let cursor = r#"{"rev":2,"expr":"* * * * *","zone":"UTC","enabled":true,"through":"2026-01-01T00:00:00Z"}"#;
        let items = vec![
            put("cursor/a", cursor, 3),
            put("cursor/c", cursor, 3),
            put("drain/w", "", 4),
            put("jobs/a", JOB, 2),
            put("jobs/b", "{oops", 5),
            put("killer/a", "", 6),
        ];
        let whole = Feed::Snapshot { revision: 9, cluster: 1, items: items.clone() };
        let before = ["a", "z"].map(|n| put(&format!("jobs/{n}"), JOB, 1)).to_vec();
        let before = [before, vec![put("cursor/z", cursor, 1)]].concat();
        for before in [Vec::new(), before] {
            let before = Feed::Changes { revision: 1, items: before };
            let shown = |replica: &Replica| format!("{replica:?}");
            let mut one: Replica = Replica::default();
            one.apply(&keys, &before, now);
            let touched = one.apply(&keys, &whole, now);
            assert_eq!(one.orphans().collect::<Vec<_>>(), [&name("c")]);
            for cut in 0..=items.len() {
                let (part, rest) = items.split_at(cut);
                let (part, rest) = (part.to_vec(), rest.to_vec());
                let broken_off = Feed::Part { revision: 8, cluster: 1, items: part.clone() };
                let part = Feed::Part { revision: 9, cluster: 1, items: part };
                let mut other: Replica = Replica::default();
                other.apply(&keys, &before, now);
                let mut parts = other.apply(&keys, &part, now);
                assert_eq!(other.revision, 1, "the rest is to come");
                let rest = Feed::Snapshot { revision: 9, cluster: 1, items: rest };
                parts.append(&mut other.apply(&keys, &rest, now));
                assert_eq!((shown(&other), &parts), (shown(&one), &touched), "cut at {cut}");

                let mut again: Replica = Replica::default();
                for fed in [&before, &broken_off, &Feed::Lost { reason: String::new() }, &whole] {
                    again.apply(&keys, fed, now);
                }
                assert_eq!(shown(&again), shown(&one), "broken off at {cut}");
            }
        }
    }

    #[test]
    fn the_table_hash_follows_the_jobs_and_not_the_way_there() {
        let keys = Keys::new("/cron").unwrap();
        let now = Utc::now();
        let gone = |key: &str, rev| Item { value: None, ..put(key, "", rev) };
        let take = |replica: &mut Replica, items: Vec<Item>| {
            replica.apply(&keys, &Feed::Changes { revision: 9, items }, now);
        };
        let (mut one, mut other): (Replica, Replica) = Default::default();
        take(&mut one, vec![put("jobs/a", JOB, 2), put("jobs/b", JOB, 3)]);
        take(&mut one, vec![put("jobs/a", JOB, 7), put("cursor/a", "{}", 8)]);
        let items = vec![put("jobs/b", JOB, 3), put("jobs/a", JOB, 7)];
        other.apply(&keys, &Feed::Snapshot { revision: 9, cluster: 1, items }, now);
        assert_eq!(one.table_hash(), other.table_hash());
        take(&mut other, vec![gone("jobs/b", 9)]);
        assert_ne!(one.table_hash(), other.table_hash());
        take(&mut one, vec![gone("jobs/b", 9), gone("jobs/never", 9)]);
        assert_eq!(one.table_hash(), other.table_hash());
    }

    #[test]
    fn a_kill_of_the_whole_job_spares_later_runs() {
        let keys = Keys::new("/cron").unwrap();
        let mut replica: Replica = Replica::default();
        let now = Utc::now();
        let run = |rev| {
            let value = format!(
                r#"{{"worker":"w","lease":7,"attempt":1,"since":"{0}","spawnBefore":"{0}"}}"#,
                now.to_rfc3339()
            );
            put(&format!("running/a/{}", RunId::new(now)), &value, rev)
        };
        let items = vec![run(5), put("killer/a", "", 6), run(7)];
        replica.apply(&keys, &Feed::Changes { revision: 7, items }, now);
        let killed: Vec<_> =
            replica.all_live().map(|r| (r.fence, replica.kill_of(r).is_some())).collect();
        assert!(killed.contains(&(5, true)) && killed.contains(&(7, false)), "{killed:?}");
    }
}
