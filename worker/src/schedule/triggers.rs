//! The runs asked for outside the schedule: when each is looked at, and what becomes of it. Pure.

use std::sync::Arc;

use carillon_core::id::{JobName, RunId};
use carillon_core::job::JobEntry;
use carillon_core::rank::Call;
use carillon_core::replica::Versioned;
use carillon_core::run::{Outcome, Trigger, TriggerRequest};
use carillon_core::steps::{Grounds, Overlap};
use chrono::{DateTime, TimeDelta, Utc};

use super::{Due, Schedule};

/// A trigger that wants to be taken or settled.
pub(crate) struct WantedTrigger {
    pub id: RunId,
    pub trigger: Versioned<TriggerRequest>,
    pub grounds: Grounds,
    /// The job and how to run it, or why it does not run.
    pub verdict: Result<(Arc<JobEntry>, Overlap), (Outcome, String)>,
    /// The job that it was asked of, if that is still there.
    pub of: Option<Arc<JobEntry>>,
    /// How many other workers come first; 0: nobody.
    pub rank: u32,
    pub retention_days: Option<u32>,
}

impl Schedule {
    pub(super) fn bring_up_triggers(&mut self, job: &JobName, at: DateTime<Utc>) {
        for (id, _) in self.replica.triggers_of(job) {
            self.agenda.insert(Due::Trigger(job.clone(), id), at);
        }
    }

    /// When a trigger that nobody has taken is settled.
    pub fn expiry_of(&self, request: &TriggerRequest) -> DateTime<Utc> {
        Self::settled_after(self.max_skew + TimeDelta::seconds(1), request)
    }

    /// Another worker's clock may be behind: it could still start the run in time.
    fn settled_after(patience: TimeDelta, request: &TriggerRequest) -> DateTime<Utc> {
        request.not_after.checked_add_signed(patience).unwrap_or(request.not_after)
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
        self.agenda.remove(&Due::TriggerTurn(job.clone(), id));
        self.held.remove(&due);
        let trigger = self.replica.triggers.get(&(job.clone(), id))?.clone();
        let request = &trigger.value;
        if self.barred().is_some() {
            return None;
        }
        let entry = self.replica.job(job).map(Arc::new);
        let on = request.on.as_ref();
        let verdict = match self.verdict(entry.as_ref(), request, now) {
            Verdict::Runs(entry, overlap) => Ok((entry, overlap)),
            Verdict::Settled(outcome, reason) => Err((outcome, reason)),
            Verdict::Waits(until) => {
                self.agenda.insert(due, until);
                return None;
            }
        };
        let call = if verdict.is_ok() { Call::Run } else { Call::Settle };
        let rank = match on {
            Some(_) if call == Call::Run => 0,
            _ => self.rank(job, entry.as_ref().and_then(|e| e.job()), call),
        };
        let job_revision = entry.as_ref().map_or(0, |e| e.mod_revision);
        let grounds = self.grounds(job, on, job_revision, lease);
        let retention_days = self.retention_of(entry.as_deref());
        let of = entry.filter(|entry| entry.create_revision == trigger.value.job_created);
        Some(WantedTrigger { id, trigger, grounds, verdict, of, rank, retention_days })
    }

    /// What becomes of a trigger, as things stand.
    fn verdict(
        &self,
        entry: Option<&Arc<JobEntry>>,
        request: &TriggerRequest,
        now: DateTime<Utc>,
    ) -> Verdict {
        let missed = |reason: &str| Verdict::Settled(Outcome::Missed, reason.to_owned());
        let Some(entry) = entry else {
            return missed("the job was deleted before the run could start");
        };
        if entry.create_revision != request.job_created {
            return missed("the job was deleted and made again before the run could start");
        }
        if now > Self::settled_after(self.max_skew, request) {
            return missed("no worker started it in time");
        }
        let checked = match &entry.state {
            Ok(checked) => checked,
            Err(problems) => return missed(&problems.to_string()),
        };
        // What a person asks for runs although the job is paused.
        let by_itself = matches!(request.kind, Trigger::Retry | Trigger::After);
        if !checked.job.enabled
            && (by_itself || request.kind == Trigger::Rerun && request.attempt > 1)
        {
            let reason = "the job was paused before the next attempt".to_owned();
            return Verdict::Settled(Outcome::Skipped, reason);
        }
        if request.not_before > now {
            return Verdict::Waits(request.not_before);
        }
        let on = request.on.as_ref();
        let elsewhere = on.is_some_and(|on| *on != self.worker);
        let overlap = self.overlap(checked, on);
        let busy = matches!(overlap, Overlap::Forbid)
            && self.replica.live_on(&entry.name, on).next().is_some();
        if elsewhere || busy || now > request.not_after {
            // It waits for its worker, for the live run to end, or for clocks that are behind.
            return Verdict::Waits(self.expiry_of(request));
        }
        Verdict::Runs(entry.clone(), overlap)
    }
}

/// What becomes of a trigger.
enum Verdict {
    Runs(Arc<JobEntry>, Overlap),
    Settled(Outcome, String),
    Waits(DateTime<Utc>),
}
