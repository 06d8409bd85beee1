//! The way of steps to etcd. A lone one goes at once; while enough transactions are under way those
//! that come meanwhile wait and then travel together, in batches in which each is carried out or
//! refused by itself.

use std::collections::{BTreeSet, VecDeque};

use carillon_core::claims::{Answer, BATCH, Claims, Step};
use carillon_core::etcd::EtcdError;
use carillon_core::keys::Keys;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Transactions under way at once: more did not make one node of etcd faster.
const FLIGHTS: usize = 8;
/// Groups of steps on their way to the courier. Whoever sends one more waits.
const INBOX_BOUND: usize = 256;
/// Steps that wait for a flight; while there are so many, the inbox is left alone.
const QUEUE_BOUND: usize = 4096;

struct Parcel {
    step: Step,
    reply: Option<oneshot::Sender<Result<Answer, EtcdError>>>,
}

/// Hands steps to the courier. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Courier {
    inbox: mpsc::Sender<Vec<Parcel>>,
    keys: Keys,
}

impl Courier {
    /// Starts a courier, which ends when the last of its handles is dropped.
    pub fn start(claims: Claims, metrics: Metrics) -> Self {
        let keys = claims.keys().clone();
        let (inbox, parcels) = mpsc::channel(INBOX_BOUND);
        tokio::spawn(carry(claims, metrics, parcels));
        Self { inbox, keys }
    }

    /// The key layout of the fleet.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Sends one step once.
    ///
    /// # Errors
    /// An ambiguous error means that it may have been carried out.
    pub async fn send(&self, step: Step) -> Result<Answer, EtcdError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(vec![Parcel { step, reply: Some(reply) }]).await.map_err(|_| leaving())?;
        answer.await.unwrap_or_else(|_| Err(leaving()))
    }

    /// Sends a group of steps once; the answers are in the same order.
    pub async fn send_all(
        &self,
        steps: impl Iterator<Item = Step>,
    ) -> Vec<Result<Answer, EtcdError>> {
        let (mut parcels, answers): (Vec<_>, Vec<_>) = steps
            .map(|step| {
                let (reply, answer) = oneshot::channel();
                (Parcel { step, reply: Some(reply) }, answer)
            })
            .unzip();
        while !parcels.is_empty() {
            let rest = parcels.split_off(parcels.len().min(BATCH));
            // Where nobody takes them, the replies are dropped, and each answer says so.
            self.inbox.send(std::mem::replace(&mut parcels, rest)).await.ok();
        }
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            all.push(answer.await.unwrap_or_else(|_| Err(leaving())));
        }
        all
    }

    /// Sends a step whose answer nobody needs.
    pub async fn post(&self, step: Step) {
        self.inbox.send(vec![Parcel { step, reply: None }]).await.ok();
    }
}

fn leaving() -> EtcdError {
    EtcdError::Unreachable { endpoints: String::new(), detail: "the worker is leaving".to_owned() }
}

async fn carry(claims: Claims, metrics: Metrics, mut inbox: mpsc::Receiver<Vec<Parcel>>) {
    let mut queue = VecDeque::<Vec<Parcel>>::new();
    let mut flights = JoinSet::new();
    let mut open = true;
    while open || !queue.is_empty() || !flights.is_empty() {
        tokio::select! {
            group = inbox.recv(), if open && waiting(&queue) < QUEUE_BOUND => match group {
                Some(group) => queue.push_back(group),
                None => open = false,
            },
            Some(_) = flights.join_next() => {}
        }
        while waiting(&queue) < QUEUE_BOUND
            && let Ok(group) = inbox.try_recv()
        {
            queue.push_back(group);
        }
        while flights.len() < FLIGHTS && !queue.is_empty() {
            flights.spawn(deliver(claims.clone(), metrics.clone(), batch(&mut queue)));
        }
    }
}

fn waiting(queue: &VecDeque<Vec<Parcel>>) -> usize {
    queue.iter().map(Vec::len).sum()
}

/// Takes the next batch off the queue: the first steps, at most one of each job. Those that came
/// together and fit into one transaction stay together; smaller ones behind them fill the rest.
fn batch(queue: &mut VecDeque<Vec<Parcel>>) -> Vec<Parcel> {
    let mut jobs = BTreeSet::new();
    let mut batch = Vec::new();
    let mut later = VecDeque::new();
    while batch.len() < BATCH
        && let Some(group) = queue.pop_front()
    {
        if (BATCH - batch.len() + 1..=BATCH).contains(&group.len()) {
            // Whatever is about the same jobs comes after it.
            jobs.extend(group.iter().map(|parcel| parcel.step.job.clone()));
            later.push_back(group);
            continue;
        }
        let mut rest = Vec::new();
        for parcel in group {
            if batch.len() < BATCH && jobs.insert(parcel.step.job.clone()) {
                batch.push(parcel);
            } else {
                rest.push(parcel);
            }
        }
        if !rest.is_empty() {
            later.push_back(rest);
        }
    }
    for group in later.into_iter().rev() {
        queue.push_front(group);
    }
    batch
}

async fn deliver(claims: Claims, metrics: Metrics, batch: Vec<Parcel>) {
    let sent = Instant::now();
    let (steps, replies): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|parcel| (parcel.step, parcel.reply)).unzip();
    let answers = claims.send(&steps).await;
    metrics.answered(sent.elapsed(), steps.len());
    for (answer, reply) in answers.into_iter().zip(replies) {
        if let Ok(Answer::Refused(why)) = &answer {
            metrics.refused(*why);
        }
        if let Some(reply) = reply {
            // Whoever asked may be gone.
            reply.send(answer).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_core::id::JobName;

    use super::*;

    fn group(jobs: &[&str]) -> Vec<Parcel> {
        let step = |job: &&str| {
            let job = JobName::new(job).unwrap();
            Step { job, when: Vec::new(), then: Vec::new() }
        };
        jobs.iter().map(|job| Parcel { step: step(job), reply: None }).collect()
    }

    /// Each by itself.
    fn alone(jobs: &[&str]) -> VecDeque<Vec<Parcel>> {
        jobs.iter().map(|job| group(&[*job])).collect()
    }

    fn jobs<'a>(parcels: impl IntoIterator<Item = &'a Parcel>) -> Vec<&'a str> {
        parcels.into_iter().map(|parcel| parcel.step.job.as_str()).collect()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("j{n}")).collect()
    }

    #[test]
    fn a_batch_has_one_step_of_each_job_and_leaves_the_rest_in_order() {
        for mut queue in [
            alone(&["a", "b", "a", "c", "a", "b"]),
            VecDeque::from([group(&["a", "b", "a", "c", "a", "b"])]),
        ] {
            assert_eq!(jobs(&batch(&mut queue)), ["a", "b", "c"]);
            assert_eq!(jobs(queue.iter().flatten()), ["a", "a", "b"]);
            assert_eq!(jobs(&batch(&mut queue)), ["a", "b"]);
            assert_eq!(jobs(&batch(&mut queue)), ["a"]);
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn a_batch_is_bounded() {
        let names = names(BATCH + 3);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for mut queue in [alone(&names), VecDeque::from([group(&names)])] {
            assert_eq!(batch(&mut queue).len(), BATCH);
            assert_eq!(jobs(queue.iter().flatten()), names[BATCH..]);
        }
    }

    #[test]
    fn what_came_together_stays_together_and_others_fill_the_rest() {
        let names = names(BATCH);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut queue = alone(&["a", "b"]);
        queue.push_back(group(&names));
        // The second is about a job of the group, and must not come before it.
        queue.extend(alone(&["c", "j1"]));
        assert_eq!(jobs(&batch(&mut queue)), ["a", "b", "c"]);
        assert_eq!(jobs(&batch(&mut queue)), names);
        assert_eq!(jobs(&batch(&mut queue)), ["j1"]);
    }
}
