//! The book of this process's own runs: claimed, live, ended. Pure, so that what may be started,
//! and what never twice, can be read and tested here.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use carillon_core::id::{RunId, WorkerId};
use carillon_core::run::{LiveRun, RunState};
use chrono::{DateTime, TimeDelta, Utc};

use crate::agenda::moved;

/// A claim that has waited for so long tells that etcd is slow for all.
const LONG: TimeDelta = TimeDelta::milliseconds(100);

/// A run that this process started.
struct Mine {
    /// The revision of its claim.
    fence: i64,
    lease: i64,
    /// Whether it goes on when the lease is lost.
    continues: bool,
    grace: Duration,
}

/// A run that this process has ended.
struct Ended {
    /// The revision of its claim.
    fence: i64,
    /// That of its end, where it is known.
    at: Option<i64>,
}

/// Every run that this process has claimed, and those that it must not start again.
#[derive(Default)]
pub(crate) struct Runs {
    /// Claims that have not been answered yet, and when they were made, by the clock as it is set now.
    pending: BTreeMap<RunId, DateTime<Utc>>,
    live: HashMap<RunId, Mine>,
    /// Ended runs whose end the watch has not shown yet: until then it may still bring the claim.
    ended: HashMap<RunId, Ended>,
}

impl Runs {
    /// A claim is made.
    pub fn claim(&mut self, run: RunId, at: DateTime<Utc>) {
        self.pending.insert(run, at);
    }

    /// A claim is answered, or given up. Returns when it was made, by the clock as it is set now.
    pub fn answered(&mut self, run: RunId) -> Option<DateTime<Utc>> {
        self.pending.remove(&run)
    }

    /// The clock was set by so much.
    pub fn clock_set(&mut self, by: TimeDelta) {
        self.pending.values_mut().for_each(|at| *at = moved(*at, by));
    }

    /// How many claims are under way.
    pub fn claiming(&self) -> usize {
        self.pending.len()
    }

    /// Whether a claim has waited for etcd for long.
    pub fn waits_long(&self, now: DateTime<Utc>) -> bool {
        self.pending.values().any(|at| now - *at >= LONG)
    }

    /// How many runs are live or may become so.
    pub fn load(&self) -> usize {
        self.live.len() + self.pending.len()
    }

    /// How many runs are live.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Whether this process runs it.
    pub fn has(&self, run: RunId) -> bool {
        self.live.contains_key(&run)
    }

    /// Begins a run, once: returns whether it was not begun before.
    pub fn begin(&mut self, live: &LiveRun) -> bool {
        if self.live.contains_key(&live.run) || self.ended.contains_key(&live.run) {
            return false;
        }
        let mine = Mine {
            fence: live.fence,
            lease: live.value.lease,
            continues: live.value.continues_secs.is_some(),
            grace: Duration::from_secs(live.value.grace_secs.into()),
        };
        self.live.insert(live.run, mine);
        true
    }

    /// Ends a run. `at` is the revision of its end in etcd, where it is known.
    pub fn end(&mut self, run: RunId, at: Option<i64>) {
        let fence = self.live.remove(&run).map_or(0, |mine| mine.fence);
        self.ended.insert(run, Ended { fence, at });
    }

    /// The run's key is not there at `revision`. What is older than the claim says nothing: such a
    /// list may come before the watch that brings it.
    pub fn gone(&mut self, run: RunId, revision: i64) {
        if self.ended.get(&run).is_some_and(|ended| revision >= ended.fence) {
            self.ended.remove(&run);
        }
    }

    /// Everything up to `revision` is known.
    pub fn seen(&mut self, revision: i64) {
        self.ended.retain(|_, ended| ended.at.is_none_or(|at| at > revision));
    }

    /// Whether a key is a claim of ours whose answer was lost: it stands under our lease, and this
    /// process neither waits for the answer nor ever started it.
    pub fn is_orphan(&self, live: &LiveRun, worker: &WorkerId, lease: i64) -> bool {
        live.value.worker == *worker
            && live.value.lease == lease
            && live.value.state == RunState::Claimed
            && !self.pending.contains_key(&live.run)
            && !self.live.contains_key(&live.run)
            && !self.ended.contains_key(&live.run)
    }

    /// Whether somebody else settled the run: its key is gone in a state that is newer than its
    /// claim.
    pub fn is_settled_by_others(&self, run: RunId, revision: i64) -> bool {
        self.live.get(&run).is_some_and(|mine| revision >= mine.fence)
    }

    /// Every live run.
    pub fn all(&self) -> impl Iterator<Item = RunId> {
        self.live.keys().copied()
    }

    /// The live runs that were claimed under another lease than this one, and end with theirs.
    pub fn without_lease(&self, lease: i64) -> impl Iterator<Item = RunId> {
        let unleased = move |mine: &Mine| mine.lease != lease && !mine.continues;
        self.live.iter().filter(move |(_, mine)| unleased(mine)).map(|(run, _)| *run)
    }

    /// The longest grace period of a live run.
    pub fn longest_grace(&self) -> Duration {
        self.live.values().map(|mine| mine.grace).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::id::JobName;
    use carillon_core::run::{Running, Trigger};

    fn claimed(fence: i64) -> (LiveRun, WorkerId) {
        let worker = WorkerId::new("w").unwrap();
        let value = Running {
            worker: worker.clone(),
            lease: 7,
            slot: None,
            attempt: 1,
            trigger: Trigger::Schedule,
            pid: None,
            state: RunState::Claimed,
            since: Utc::now(),
            spawn_before: Utc::now(),
            grace_secs: 10,
            continues_secs: None,
            job_revision: 1,
        };
        let job = JobName::new("j").unwrap();
        (LiveRun { job, on: None, run: RunId::new(Utc::now()), fence, value }, worker)
    }

    #[test]
    fn only_a_claim_that_was_never_begun_is_an_orphan() {
        let (live, me) = claimed(5);
        let mut runs = Runs::default();
        assert!(runs.is_orphan(&live, &me, 7));
        assert!(!runs.is_orphan(&live, &me, 8), "another lease");
        runs.claim(live.run, live.value.since);
        assert!(!runs.is_orphan(&live, &me, 7), "its answer is awaited");
        runs.answered(live.run);
        assert!(runs.begin(&live) && !runs.begin(&live));
        assert!(!runs.is_orphan(&live, &me, 7));
    }

    #[test]
    fn a_claim_waits_from_when_it_was_made_and_not_from_when_it_was_asked_for() {
        let now = Utc::now();
        // As of a retry: its id is as old as the failure.
        let run = RunId::new(now - TimeDelta::seconds(10));
        let mut runs = Runs::default();
        runs.claim(run, now);
        assert!(!runs.waits_long(now) && runs.waits_long(now + LONG));
        let by = TimeDelta::hours(1);
        runs.clock_set(by);
        assert!(!runs.waits_long(now + by) && runs.waits_long(now + by + LONG));
        assert_eq!(runs.answered(run), Some(now + by));
        assert!(!runs.waits_long(now + by + LONG));
    }

    #[test]
    fn a_short_run_is_not_begun_again_when_the_watch_brings_its_claim_late() {
        let (live, me) = claimed(5);
        let mut runs = Runs::default();
        assert!(runs.begin(&live));
        runs.end(live.run, Some(6));
        runs.seen(5);
        assert!(!runs.is_orphan(&live, &me, 7) && !runs.begin(&live));
        // A list from before the claim.
        runs.gone(live.run, 4);
        assert!(!runs.is_orphan(&live, &me, 7) && !runs.begin(&live));
        runs.seen(6);
        assert!(runs.ended.is_empty(), "nothing is kept for ever");
        assert!(runs.begin(&live));
        runs.end(live.run, None);
        runs.gone(live.run, 6);
        assert!(runs.ended.is_empty(), "nothing is kept for ever");
    }

    #[test]
    fn a_run_goes_on_without_its_lease_only_where_the_job_says_so() {
        let mut runs = Runs::default();
        let (ends, _) = claimed(5);
        let (mut goes_on, _) = claimed(5);
        goes_on.value.continues_secs = Some(60);
        assert!(runs.begin(&ends) && runs.begin(&goes_on));
        assert_eq!(runs.without_lease(7).count(), 0);
        assert_eq!(runs.without_lease(8).collect::<Vec<_>>(), [ends.run]);
    }

    #[test]
    fn a_list_from_before_the_claim_does_not_settle_the_run() {
        let (live, _) = claimed(5);
        let mut runs = Runs::default();
        assert!(runs.begin(&live));
        assert!(!runs.is_settled_by_others(live.run, 4));
        assert!(runs.is_settled_by_others(live.run, 6));
    }
}
