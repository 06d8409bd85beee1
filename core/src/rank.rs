//! Who takes a job's next step first: a rendezvous hash of the job and the workers that could.
//!
//! Every worker computes the same order from the same registrations. A rank only saves work: it
//! tells who acts at once and who waits to see whether that is needed. What is safe is decided by
//! the transactions alone, so two workers that know different registrations do no harm.

use std::collections::BTreeMap;

use crate::fleet::{WorkerEntry, rules_version};
use crate::id::{JobName, WorkerId};
use crate::job::Job;
use crate::replica::Replica;
use crate::schedule::{gathered, mixed};

/// What a step asks of the worker that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To run the job: it must be selected, and have room.
    Run,
    /// To write down what does not run: any worker will do.
    Settle,
}

/// A worker that may take steps.
#[derive(Debug, Clone)]
struct Candidate {
    id: WorkerId,
    seed: u64,
    labels: BTreeMap<String, String>,
    full: bool,
}

/// Why a worker has no rank.
pub fn unfit(worker: &WorkerEntry, asked_to_drain: bool) -> Option<String> {
    let registration = match &worker.value {
        Ok(registration) => registration,
        Err(e) => return Some(format!("its registration cannot be read: {e}")),
    };
    if worker.lease == 0 {
        return Some("its registration hangs on no lease".to_owned());
    }
    if registration.draining || asked_to_drain {
        return Some("it is draining".to_owned());
    }
    if registration.rules_version != rules_version() {
        return Some(format!("it computes by the rules {}", registration.rules_version));
    }
    registration.standing_by.as_ref().map(|why| format!("it stands by: {why}"))
}

/// The workers that may take steps, as one worker knows them.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    candidates: Vec<Candidate>,
}

impl Roster {
    /// Everybody who is registered, takes new work and computes by the same rules.
    pub fn of<J>(replica: &Replica<J>) -> Self {
        let fit = |w: &&WorkerEntry| unfit(w, replica.drains.contains(&w.id)).is_none();
        let candidates = replica.workers.values().filter(fit).filter_map(|worker| {
            let registration = worker.value.as_ref().ok()?;
            Some(Candidate {
                id: worker.id.clone(),
                seed: gathered(worker.id.as_str().bytes()),
                labels: registration.labels.clone(),
                full: registration.full,
            })
        });
        Self { candidates: candidates.collect() }
    }

    /// How many others come before `me`. Whether `me` may take the step at all is for it to know:
    /// of itself a worker knows more than its registration says.
    pub fn rank(&self, me: &WorkerId, name: &JobName, job: &Job, call: Call) -> u32 {
        u32::try_from(self.before(me, name, job, call).count()).unwrap_or(u32::MAX)
    }

    /// Those who come before `me`, in no order.
    pub fn before<'a>(
        &'a self,
        me: &'a WorkerId,
        name: &JobName,
        job: &'a Job,
        call: Call,
    ) -> impl Iterator<Item = &'a WorkerId> {
        let name = gathered(name.as_str().bytes());
        let mine = (weight(name, gathered(me.as_str().bytes())), me);
        let all = self.candidates.iter();
        all.filter(move |c| {
            c.id != *me && c.answers(job, call) && (weight(name, c.seed), &c.id) > mine
        })
        .map(|c| &c.id)
    }

    /// Who takes the job's next step, first to last.
    pub fn order(&self, name: &JobName, job: &Job, call: Call) -> Vec<&WorkerId> {
        let name = gathered(name.as_str().bytes());
        let mut order: Vec<_> = self
            .candidates
            .iter()
            .filter(|c| c.answers(job, call))
            .map(|c| (weight(name, c.seed), &c.id))
            .collect();
        order.sort_unstable();
        order.into_iter().rev().map(|(_, id)| id).collect()
    }
}

impl Candidate {
    fn answers(&self, job: &Job, call: Call) -> bool {
        call == Call::Settle || !self.full && job.selects(&self.labels)
    }
}

fn weight(name: u64, seed: u64) -> u64 {
    mixed(name ^ mixed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(count: usize) -> Roster {
        let candidates = (1..=count).map(|n| {
            let id = WorkerId::new(&format!("w{n}")).unwrap();
            let seed = gathered(id.as_str().bytes());
            Candidate { id, seed, labels: BTreeMap::new(), full: false }
        });
        Roster { candidates: candidates.collect() }
    }

    fn name(n: usize) -> JobName {
        JobName::new(&format!("job-{n}")).unwrap()
    }

    #[test]
    fn every_worker_computes_the_same_order() {
        let (roster, job) = (roster(5), Job::default());
        for n in 0..200 {
            let order = roster.order(&name(n), &job, Call::Run);
            for (place, worker) in order.into_iter().enumerate() {
                let rank = roster.rank(worker, &name(n), &job, Call::Run);
                assert_eq!(rank as usize, place);
            }
        }
    }

    #[test]
    fn jobs_are_spread_evenly_and_stay_when_another_worker_goes() {
        let (five, four, job) = (roster(5), roster(4), Job::default());
        let mut counts = BTreeMap::new();
        for n in 0..5_000 {
            let first = five.order(&name(n), &job, Call::Run)[0].clone();
            if first.as_str() != "w5" {
                assert_eq!(*four.order(&name(n), &job, Call::Run)[0], first);
            }
            *counts.entry(first).or_insert(0) += 1;
        }
        assert!(counts.values().all(|n| (900..1100).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_worker_that_is_full_or_not_selected_still_settles() {
        let mut roster = roster(2);
        roster.candidates[0].full = true;
        let job = Job::default();
        assert_eq!(roster.order(&name(1), &job, Call::Run).len(), 1);
        assert_eq!(roster.order(&name(1), &job, Call::Settle).len(), 2);
        let picky = Job { selector: [("gpu".into(), "yes".into())].into(), ..Job::default() };
        assert_eq!(roster.order(&name(1), &picky, Call::Run).len(), 0);
        assert_eq!(roster.order(&name(1), &picky, Call::Settle).len(), 2);
    }
}
