//! What others have left behind: cursors that nobody needs, and the runs of dead workers. Pure.

use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::{KeptJob, Scope};
use carillon_core::rank::Call;
use carillon_core::run::LiveRun;
use chrono::{DateTime, TimeDelta, Utc};

use super::{Due, LINGERING, LINGERING_OF_LIVE, RANK_DELAY, Schedule, small};

/// Added to a dead worker's grace period before its runs are settled: its children are gone then.
const SETTLE_MARGIN: TimeDelta = TimeDelta::seconds(2);
/// How long the cursor of a deleted job is kept: made again meanwhile, the job is known.
pub(super) const KEPT_OF_JOB: TimeDelta = TimeDelta::days(1);
/// How long a worker's own cursors are kept after it has gone: a restart takes less.
const KEPT_OF_WORKER: TimeDelta = TimeDelta::seconds(60);

impl Schedule {
    /// Puts a cursor that nobody may need any more on the agenda.
    pub fn file_unneeded(&mut self, job: &JobName, on: Option<&WorkerId>, now: DateTime<Utc>) {
        let due = Due::Cursor(job.clone(), on.cloned());
        match self.unneeded(job, on) {
            Some(after) if self.agenda.get(&due).is_none() => {
                let rank = self.rank(job, None, Call::Settle);
                self.agenda.insert(due, now + after + RANK_DELAY * small(rank));
            }
            Some(_) => {}
            None => drop(self.agenda.remove(&due)),
        }
    }

    /// After how long a cursor is deleted; `None` while it is needed, or there is none.
    fn unneeded(&self, job: &JobName, on: Option<&WorkerId>) -> Option<TimeDelta> {
        self.replica.cursor_revision(job, on)?;
        if !self.replica.jobs.contains_key(job) {
            return Some(KEPT_OF_JOB);
        }
        let scope = self.replica.scope_of(job)?;
        if (scope == Scope::EveryWorker) != on.is_some() {
            return Some(TimeDelta::zero());
        }
        let on = on?;
        if *on == self.worker {
            // Selected again later, it starts anew.
            let entry = self.replica.job(job)?;
            return (!entry.job()?.selects(&self.labels)).then(TimeDelta::zero);
        }
        (!self.replica.workers.contains_key(on)).then_some(KEPT_OF_WORKER)
    }

    /// The revision of a cursor that may be deleted now, that of its job (0: it is gone), and
    /// whether its worker is gone.
    pub fn collectable(&self, job: &JobName, on: Option<&WorkerId>) -> Option<(i64, i64, bool)> {
        self.unneeded(job, on)?;
        // What a broken job is, nobody knows.
        if self.replica.job(job).is_some_and(|entry| entry.state.is_err()) {
            return None;
        }
        let job_revision = self.replica.jobs.get(job).map_or(0, KeptJob::mod_revision);
        let gone = on.is_some_and(|on| !self.replica.workers.contains_key(on));
        Some((self.replica.cursor_revision(job, on)?, job_revision, gone))
    }

    /// When a run may be settled as lost: `None` while its worker is alive.
    pub(super) fn settlement_of(
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
        if alive {
            return None;
        }
        let grace = TimeDelta::seconds(live.value.grace_secs.into()) + SETTLE_MARGIN;
        let rank = self.rank(job, None, Call::Settle);
        // One that goes on without its lease may still be running until its time-out. That counts
        // from its start, which may be as late as its deadline, by its own worker's clock.
        let latest_start = live.value.spawn_before + self.max_skew;
        let ends = live
            .value
            .continues_secs
            .map(|secs| latest_start + TimeDelta::seconds(secs.into()) + grace);
        Some((now + grace).max(ends.unwrap_or(now)) + RANK_DELAY * small(rank))
    }

    /// When this worker takes a decision to MongoDB that is not there yet.
    pub fn completion_of(
        &self,
        job: &JobName,
        id: RunId,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let owner = &self.done(job, id)?.value.worker;
        if *owner == self.worker.as_str() {
            return Some(now + LINGERING);
        }
        let is_there = self.replica.workers.keys().any(|worker| worker.as_str() == owner);
        let after = if is_there { LINGERING_OF_LIVE } else { LINGERING };
        let rank = self.rank(job, None, Call::Settle);
        Some(now + after + RANK_DELAY * 4 * small(rank))
    }

    /// A run whose worker is dead.
    pub fn lost(&self, job: &JobName, run: RunId) -> Option<&LiveRun> {
        self.settlement_of(job, run, DateTime::default())?;
        self.live(job, run)
    }
}
