//! The transactions as values: what each compares, what it writes, and who is to blame when it is
//! refused. Pure, so that the whole protocol can be read in one place and run against a model of
//! etcd; [`crate::claims`] sends them.
//!
//! Each carries its whole predicate set as compares of revisions, never of values, so that sending
//! one again after a lost answer cannot do anything twice.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::decide::Cursor;
use crate::id::{JobName, RunId, WorkerId};
use crate::job::{Checked, Concurrency};
use crate::keys::Keys;
use crate::replica::{Replica, Versioned};
use crate::run::{KillRequest, LiveRun, RunRecord, Running, TriggerRequest};

/// How many live runs one step asks to end at most: with as many compares and reads, and with its
/// other operations, it fits into what a batch leaves of the 128 that etcd takes.
pub const VICTIMS: usize = 60;

/// A definite answer to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out, at this revision.
    Done(i64),
    /// Nothing was done, because a predicate did not hold.
    Refused(Refusal),
}

/// Which predicate refused a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Somebody moved the cursor: the slot is decided.
    CursorMoved,
    /// The job was edited, paused or deleted.
    JobChanged,
    /// The fleet's settings changed.
    SettingsChanged,
    /// This worker's registration or lease is gone.
    NotRegistered,
    /// A run is live, or is no longer.
    RunsChanged,
    /// The trigger was taken or withdrawn.
    TriggerGone,
    /// The run's key is gone or belongs to somebody else.
    NotTheRun,
    /// The run's worker is alive after all.
    WorkerAlive,
    /// Somebody asked for the end of the run: no other attempt follows it.
    KillAsked,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 9] = [
        Self::CursorMoved,
        Self::JobChanged,
        Self::SettingsChanged,
        Self::NotRegistered,
        Self::RunsChanged,
        Self::TriggerGone,
        Self::NotTheRun,
        Self::WorkerAlive,
        Self::KillAsked,
    ];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CursorMoved => "cursorMoved",
            Self::JobChanged => "jobChanged",
            Self::SettingsChanged => "settingsChanged",
            Self::NotRegistered => "notRegistered",
            Self::RunsChanged => "runsChanged",
            Self::TriggerGone => "triggerGone",
            Self::NotTheRun => "notTheRun",
            Self::WorkerAlive => "workerAlive",
            Self::KillAsked => "killAsked",
        }
    }
}

/// What a predicate compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// The key was last written at this revision; 0: there is no such key.
    ModifiedAt(i64),
    /// The key's last write is older than this revision, or there is no such key.
    ModifiedBefore(i64),
    /// The key was created at this revision; 0: there is no such key.
    CreatedAt(i64),
    /// The key exists.
    Exists,
    /// Every key that begins with this one was created before this revision; 1: there are none.
    AllCreatedBefore(i64),
    /// The key hangs on this lease.
    LeaseIs(i64),
    /// The key hangs on another lease, or there is no such key.
    LeaseIsNot(i64),
}

/// One compare of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate {
    /// The key, or the beginning of all keys of a range.
    pub key: String,
    /// What must hold.
    pub test: Test,
    /// What it means when it does not.
    pub refusal: Refusal,
}

/// One write of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The key gets this value.
    Put(String, Vec<u8>),
    /// The key is deleted, if it exists.
    Delete(String),
}

/// One transaction: all of `when` holds and all of `then` is written, or nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The job it is about: two steps of one job do not travel in one batch, where neither would
    /// see the other.
    pub job: JobName,
    /// What is compared. The first that does not hold is the one that is named.
    pub when: Vec<Predicate>,
    /// What is written.
    pub then: Vec<Write>,
}

/// What a decision rests on: all of it is compared in the transaction.
#[derive(Debug, Clone)]
pub struct Grounds {
    /// The job.
    pub job: JobName,
    /// The worker whose own cursor it is, for a job that runs on every worker.
    pub on: Option<WorkerId>,
    /// Revision of the job that the step was computed with.
    pub job_revision: i64,
    /// Revision of the cursor; 0 where there is none.
    pub cursor_revision: i64,
    /// Revision of the settings; 0 where there are none.
    pub settings_revision: i64,
    /// The deciding worker.
    pub worker: WorkerId,
    /// Its lease.
    pub lease: i64,
}

/// How a claim treats runs that are live already.
#[derive(Debug, Clone)]
pub enum Overlap {
    /// There must be none.
    Forbid,
    /// They do not matter.
    Allow,
    /// They are killed by the same transaction, and none newer than `applied` may exist.
    Replace {
        /// The revision up to which the worker knows the state.
        applied: i64,
        /// The runs to kill; more than [`VICTIMS`] take more than one step.
        victims: Vec<LiveRun>,
    },
}

impl Overlap {
    /// From the job's policy and what is live.
    pub fn of<J>(job: &Checked, replica: &Replica<J>, on: Option<&WorkerId>) -> Self {
        match job.job.concurrency {
            Concurrency::Forbid => Self::Forbid,
            Concurrency::Allow => Self::Allow,
            Concurrency::Replace => {
                let mut victims: Vec<_> = replica.live_on(&job.name, on).cloned().collect();
                if victims.len() > VICTIMS {
                    // The others have been asked.
                    victims.retain(|live| replica.kill_of(live).is_none());
                }
                Self::Replace { applied: replica.revision, victims }
            }
        }
    }

    /// Whether one step can claim a run and ask all that it replaces to end. Where it cannot, it
    /// only makes way: it asks the oldest of them, and the claim comes after.
    pub fn fits(&self) -> bool {
        !matches!(self, Self::Replace { victims, .. } if victims.len() > VICTIMS)
    }
}

fn must(key: String, test: Test, refusal: Refusal) -> Predicate {
    Predicate { key, test, refusal }
}

fn put(key: String, value: &impl Serialize) -> Write {
    // Structs of strings, numbers and maps with string keys always serialize.
    Write::Put(key, serde_json::to_vec(value).unwrap_or_default())
}

impl Step {
    fn new(job: &JobName, when: Vec<Predicate>, then: Vec<Write>) -> Self {
        Self { job: job.clone(), when, then }
    }

    /// Claims a slot: moves the cursor over it and makes the run's key, if the overlap fits.
    pub fn claim_slot(
        keys: &Keys,
        g: &Grounds,
        cursor: &Cursor,
        run: RunId,
        running: &Running,
        overlap: &Overlap,
    ) -> Self {
        let then = vec![
            put(keys.cursor(&g.job, g.on.as_ref()), cursor),
            put(keys.running(&g.job, g.on.as_ref(), run), running),
        ];
        Self::claim(keys, g, (grounds(keys, g, true), then), running.since, overlap)
    }

    /// Claims a run that was asked for outside the schedule: takes its trigger and makes its key, if
    /// the overlap fits. `trigger` is its id, which becomes the run's, and its revision.
    pub fn claim_trigger(
        keys: &Keys,
        g: &Grounds,
        trigger: (RunId, i64),
        running: &Running,
        overlap: &Overlap,
    ) -> Self {
        let mut taken = Self::withdraw(keys, &g.job, trigger);
        taken.when.extend(grounds(keys, g, false));
        let run = keys.running(&g.job, g.on.as_ref(), trigger.0);
        taken.then.push(put(run, running));
        Self::claim(keys, g, (taken.when, taken.then), running.since, overlap)
    }

    fn claim(
        keys: &Keys,
        g: &Grounds,
        (mut when, mut then): (Vec<Predicate>, Vec<Write>),
        now: DateTime<Utc>,
        overlap: &Overlap,
    ) -> Self {
        let (more, kills) = overlapping(keys, g, overlap, now);
        when.extend(more);
        if !overlap.fits() {
            then.clear();
        }
        then.extend(kills);
        Self::new(&g.job, when, then)
    }

    /// Settles a trigger that will not run.
    pub fn settle_trigger(
        keys: &Keys,
        job: &JobName,
        trigger: (RunId, i64),
        record: &RunRecord,
    ) -> Self {
        let mut step = Self::withdraw(keys, job, trigger);
        step.then.push(put(keys.done(job, record.id), record));
        step
    }

    /// Takes away a trigger whose run is recorded already.
    pub fn withdraw(keys: &Keys, job: &JobName, trigger: (RunId, i64)) -> Self {
        let key = keys.trigger(job, trigger.0);
        let when = vec![must(key.clone(), Test::ModifiedAt(trigger.1), Refusal::TriggerGone)];
        Self::new(job, when, vec![Write::Delete(key)])
    }

    /// Moves the cursor over slots that do not run, or makes it follow a change of the job.
    ///
    /// `blocking` is the live run because of which a slot is skipped: it must still be live.
    pub fn pass(
        keys: &Keys,
        g: &Grounds,
        cursor: &Cursor,
        record: Option<&RunRecord>,
        blocking: Option<&LiveRun>,
    ) -> Self {
        let mut when = grounds(keys, g, true);
        when.extend(blocking.map(|live| {
            must(keys.running_key(live), Test::CreatedAt(live.fence), Refusal::RunsChanged)
        }));
        let mut then = vec![put(keys.cursor(&g.job, g.on.as_ref()), cursor)];
        then.extend(record.map(|r| put(keys.done(&g.job, r.id), r)));
        Self::new(&g.job, when, then)
    }

    /// Writes how far a live run has come.
    pub fn advance(keys: &Keys, live: &LiveRun) -> Self {
        let then = vec![put(keys.running_key(live), &live.value)];
        Self::new(&live.job, vec![is_the_run(keys, live)], then)
    }

    /// Ends a run: its key becomes its `done/` record, and `again` the trigger of the attempt that
    /// follows, unless somebody asked for the end of the run.
    pub fn end(
        keys: &Keys,
        live: &LiveRun,
        record: &RunRecord,
        again: Option<&(RunId, TriggerRequest)>,
    ) -> Self {
        Self::finish(keys, live, record, again, vec![is_the_run(keys, live)])
    }

    /// Settles the run of a worker that is dead: gone, or registered under another lease.
    pub fn settle_lost(
        keys: &Keys,
        live: &LiveRun,
        record: &RunRecord,
        again: Option<&(RunId, TriggerRequest)>,
    ) -> Self {
        let worker = keys.worker(&live.value.worker);
        let dead = must(worker, Test::LeaseIsNot(live.value.lease), Refusal::WorkerAlive);
        Self::finish(keys, live, record, again, vec![is_the_run(keys, live), dead])
    }

    fn finish(
        keys: &Keys,
        live: &LiveRun,
        record: &RunRecord,
        again: Option<&(RunId, TriggerRequest)>,
        mut when: Vec<Predicate>,
    ) -> Self {
        let kill = keys.kill_run(&live.job, live.run);
        let mut then = gone(keys, live);
        then.push(put(keys.done(&live.job, live.run), record));
        if let Some((id, request)) = again {
            let of_job = Test::ModifiedBefore(live.fence + 1);
            when.push(must(kill, Test::ModifiedAt(0), Refusal::KillAsked));
            when.push(must(keys.kill_job(&live.job), of_job, Refusal::KillAsked));
            then.push(put(keys.trigger(&live.job, *id), request));
        }
        Self::new(&live.job, when, then)
    }

    /// Takes away a run that a restored etcd takes for live and whose end is recorded. Otherwise it
    /// would be settled as lost, and perhaps run again.
    pub fn forget(keys: &Keys, live: &LiveRun) -> Self {
        Self::new(&live.job, vec![is_the_run(keys, live)], gone(keys, live))
    }

    /// Deletes a decision that MongoDB has acknowledged.
    pub fn acknowledged(keys: &Keys, job: &JobName, done: &Versioned<RunRecord>) -> Self {
        let key = keys.done(job, done.value.id);
        let same = must(key.clone(), Test::ModifiedAt(done.mod_revision), Refusal::NotTheRun);
        Self::new(job, vec![same], vec![Write::Delete(key)])
    }

    /// Deletes a cursor that nobody needs, as long as it is at `revision` and its job at
    /// `job_revision`; 0: there is none. Where it is not needed because its worker has `gone`, that
    /// must not be back.
    pub fn collect(
        keys: &Keys,
        job: &JobName,
        on: Option<&WorkerId>,
        revision: i64,
        job_revision: i64,
        gone: bool,
    ) -> Self {
        let key = keys.cursor(job, on);
        let mut when = vec![
            must(key.clone(), Test::ModifiedAt(revision), Refusal::CursorMoved),
            must(keys.job(job), Test::ModifiedAt(job_revision), Refusal::JobChanged),
        ];
        when.extend(
            on.filter(|_| gone)
                .map(|worker| must(keys.worker(worker), Test::ModifiedAt(0), Refusal::WorkerAlive)),
        );
        Self::new(job, when, vec![Write::Delete(key)])
    }

    /// Sets a job's cursor by hand: what `carillon recover` does. `revision` is that of the cursor.
    pub fn reset(
        keys: &Keys,
        job: &JobName,
        on: Option<&WorkerId>,
        revision: i64,
        cursor: &Cursor,
    ) -> Self {
        let key = keys.cursor(job, on);
        let same = must(key.clone(), Test::ModifiedAt(revision), Refusal::CursorMoved);
        Self::new(job, vec![same], vec![put(key, cursor)])
    }

    /// Asks for a run outside the schedule, if the job still exists in the incarnation it is asked
    /// of.
    pub fn request_run(keys: &Keys, job: &JobName, id: RunId, request: &TriggerRequest) -> Self {
        let created = Test::CreatedAt(request.job_created);
        let exists = must(keys.job(job), created, Refusal::JobChanged);
        Self::new(job, vec![exists], vec![put(keys.trigger(job, id), request)])
    }

    /// Asks for the end of one run, if it is live. `on` is the worker, where the job runs on every
    /// worker.
    pub fn request_kill(
        keys: &Keys,
        job: &JobName,
        on: Option<&WorkerId>,
        run: RunId,
        request: &KillRequest,
    ) -> Self {
        let live = must(keys.running(job, on, run), Test::Exists, Refusal::NotTheRun);
        Self::new(job, vec![live], vec![put(keys.kill_run(job, run), request)])
    }
}

fn grounds(keys: &Keys, g: &Grounds, with_cursor: bool) -> Vec<Predicate> {
    let cursor = with_cursor.then(|| {
        let key = keys.cursor(&g.job, g.on.as_ref());
        must(key, Test::ModifiedAt(g.cursor_revision), Refusal::CursorMoved)
    });
    let others = [
        must(keys.job(&g.job), Test::ModifiedAt(g.job_revision), Refusal::JobChanged),
        must(keys.worker(&g.worker), Test::LeaseIs(g.lease), Refusal::NotRegistered),
        must(keys.settings(), Test::ModifiedAt(g.settings_revision), Refusal::SettingsChanged),
    ];
    cursor.into_iter().chain(others).collect()
}

fn overlapping(
    keys: &Keys,
    g: &Grounds,
    overlap: &Overlap,
    now: DateTime<Utc>,
) -> (Vec<Predicate>, Vec<Write>) {
    let all_before = |revision| {
        let range = keys.running_of(&g.job, g.on.as_ref());
        must(range, Test::AllCreatedBefore(revision), Refusal::RunsChanged)
    };
    match overlap {
        Overlap::Allow => (Vec::new(), Vec::new()),
        Overlap::Forbid => (vec![all_before(1)], Vec::new()),
        Overlap::Replace { applied, victims } => {
            let victims = victims.get(..VICTIMS).unwrap_or(victims);
            let kill = KillRequest {
                grace_secs: None,
                by: "the next run (concurrency replace)".to_owned(),
                at: now,
            };
            // A victim that has ended meanwhile must not leave a kill key behind.
            let live = |run: &LiveRun| {
                must(keys.running_key(run), Test::CreatedAt(run.fence), Refusal::RunsChanged)
            };
            let when = victims.iter().map(live).chain([all_before(applied + 1)]);
            let kills = victims.iter().map(|run| put(keys.kill_run(&g.job, run.run), &kill));
            (when.collect(), kills.collect())
        }
    }
}

/// Nothing of a live run is left: neither its key nor the wish for its end.
fn gone(keys: &Keys, live: &LiveRun) -> Vec<Write> {
    let kill = keys.kill_run(&live.job, live.run);
    vec![Write::Delete(keys.running_key(live)), Write::Delete(kill)]
}

fn is_the_run(keys: &Keys, live: &LiveRun) -> Predicate {
    must(keys.running_key(live), Test::CreatedAt(live.fence), Refusal::NotTheRun)
}
