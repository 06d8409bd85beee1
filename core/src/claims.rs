//! The one way to etcd for the transactions of [`crate::steps`]: alone or in batches, and what
//! etcd's answers mean. They are the only writes by which slots are decided and runs begin and end.

use etcd_client::{
    Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use std::collections::HashMap;

use crate::etcd::{Etcd, EtcdError};
use crate::fleet::{FleetSettings, Registration};
use crate::id::{JobName, RunId, WorkerId};
use crate::keys::{Key, Keys};
use crate::run::{KillRequest, TriggerRequest};
pub use crate::steps::{Answer, Refusal, Step};
use crate::steps::{Predicate, Test, Write};

/// How many steps travel in one transaction at most: etcd takes 128 operations in all on each path
/// of nesting, and a step has at most what a batch leaves of them.
pub const BATCH: usize = 60;

/// The transactions of one fleet.
#[derive(Clone)]
pub struct Claims {
    etcd: Etcd,
}

impl Claims {
    /// The transactions of the fleet that `etcd` is connected to.
    pub fn new(etcd: Etcd) -> Self {
        Self { etcd }
    }

    /// The key layout of this fleet.
    pub fn keys(&self) -> &Keys {
        self.etcd.keys()
    }

    /// Sends steps once, in one transaction in which each is carried out or refused by itself. They
    /// must be about different jobs. The answers are in the order of the steps.
    ///
    /// What etcd refuses as a whole, such as a batch that is too large, is cut in two until the one
    /// step is found that it refuses.
    ///
    /// # Errors
    /// For each step. An ambiguous error means that it may have been carried out; the watch will
    /// tell.
    pub async fn send(&self, steps: &[Step]) -> Vec<Result<Answer, EtcdError>> {
        let mut answers = Vec::with_capacity(steps.len());
        let mut parts = vec![steps];
        while let Some(part) = parts.pop() {
            let txn = match part {
                [] => continue,
                [step] => transaction(step),
                many => {
                    let inner: Vec<TxnOp> =
                        many.iter().map(|step| TxnOp::txn(transaction(step))).collect();
                    Txn::new().and_then(inner)
                }
            };
            match self.etcd.txn_once(txn).await {
                Ok(answer) => answers.extend(read(part, &answer).into_iter().map(Ok)),
                Err(EtcdError::Refused { .. }) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                Err(e) => answers.extend(part.iter().map(|_| Err(e.clone()))),
            }
        }
        answers
    }

    /// Sends one step once.
    ///
    /// # Errors
    /// An ambiguous error means that it may have been carried out.
    pub async fn send_one(&self, step: &Step) -> Result<Answer, EtcdError> {
        let answer = self.etcd.txn_once(transaction(step)).await?;
        Ok(explain(step, &answer, revision(&answer)))
    }

    /// Sends one step, again while nobody answers: a refusal may then mean that an earlier try was
    /// carried out.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn send_until_answered(&self, step: &Step) -> Result<Answer, EtcdError> {
        let answer = self.etcd.txn(transaction(step)).await?;
        Ok(explain(step, &answer, revision(&answer)))
    }

    /// Asks for a run outside the schedule. The trigger is made only if the job still exists in
    /// the incarnation it is asked of.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn request_run(
        &self,
        job: &JobName,
        id: RunId,
        request: &TriggerRequest,
    ) -> Result<Answer, EtcdError> {
        // Not again after a lost answer: by then a worker may have taken the trigger.
        self.send_one(&Step::request_run(self.keys(), job, id, request)).await
    }

    /// Asks for the end of one run, if it is live.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn request_kill(
        &self,
        job: &JobName,
        run: RunId,
        request: &KillRequest,
    ) -> Result<Answer, EtcdError> {
        let live = self.etcd.list(&self.keys().running_of(job, None)).await?.items;
        let on = live.iter().find_map(|item| match self.keys().parse(&item.key) {
            Key::Running(_, on, found) if found == run => Some(on),
            _ => None,
        });
        let Some(on) = on else { return Ok(Answer::Refused(Refusal::NotTheRun)) };
        let step = Step::request_kill(self.keys(), job, on.as_ref(), run, request);
        self.send_until_answered(&step).await
    }

    /// Asks a worker to take nothing new, or withdraws that; returns the revision.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn request_drain(&self, worker: &WorkerId, on: bool) -> Result<i64, EtcdError> {
        let key = self.keys().drain(worker);
        let op = if on { TxnOp::put(key, "", None) } else { TxnOp::delete(key, None) };
        let answer = self.etcd.txn(Txn::new().and_then([op])).await?;
        Ok(revision(&answer))
    }

    /// Writes the fleet's settings, if they are still those of revision `read`; 0: there are none.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn write_settings(
        &self,
        read: i64,
        settings: &FleetSettings,
    ) -> Result<Answer, EtcdError> {
        let key = self.keys().settings();
        let same = Compare::mod_revision(key.clone(), CompareOp::Equal, read);
        let value = serde_json::to_vec(settings).unwrap_or_default();
        let txn = Txn::new().when([same]).and_then([TxnOp::put(key, value, None)]);
        let answer = self.etcd.txn(txn).await?;
        Ok(if answer.succeeded() {
            Answer::Done(revision(&answer))
        } else {
            Answer::Refused(Refusal::SettingsChanged)
        })
    }

    /// Registers a worker under `lease`, if its name is free or already under this lease.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn register(
        &self,
        worker: &WorkerId,
        lease: i64,
        registration: &Registration,
    ) -> Result<Answer, EtcdError> {
        let key = self.keys().worker(worker);
        let value = serde_json::to_vec(registration).unwrap_or_default();
        let store = TxnOp::put(key.clone(), value, Some(PutOptions::new().with_lease(lease)));
        let free = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
        let mine = Compare::lease(key, CompareOp::Equal, lease);
        let again = Txn::new().when([mine]).and_then([store.clone()]);
        let txn = Txn::new().when([free]).and_then([store]).or_else([TxnOp::txn(again)]);
        let answer = self.etcd.txn(txn).await?;
        let renewed = answer
            .op_responses()
            .iter()
            .any(|r| matches!(r, TxnOpResponse::Txn(inner) if inner.succeeded()));
        Ok(if answer.succeeded() || renewed {
            Answer::Done(revision(&answer))
        } else {
            Answer::Refused(Refusal::NotRegistered)
        })
    }
}

fn revision(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, etcd_client::ResponseHeader::revision)
}

/// A step for etcd. Refused, it reads what it compared, so that the loser knows why.
fn transaction(step: &Step) -> Txn {
    let reads: Vec<TxnOp> = step
        .when
        .iter()
        .filter(|p| !matches!(p.test, Test::AllCreatedBefore(_)))
        .map(|p| TxnOp::get(p.key.as_str(), Some(GetOptions::new().with_keys_only())))
        .collect();
    let writes: Vec<TxnOp> = step
        .then
        .iter()
        .map(|write| match write {
            Write::Put(key, value) => TxnOp::put(key.as_str(), value.as_slice(), None),
            Write::Delete(key) => TxnOp::delete(key.as_str(), None),
        })
        .collect();
    let when: Vec<Compare> = step.when.iter().map(compare).collect();
    Txn::new().when(when).and_then(writes).or_else(reads)
}

fn compare(p: &Predicate) -> Compare {
    let key = p.key.as_str();
    match p.test {
        Test::ModifiedAt(revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
        Test::ModifiedBefore(revision) => Compare::mod_revision(key, CompareOp::Less, revision),
        Test::CreatedAt(revision) => Compare::create_revision(key, CompareOp::Equal, revision),
        Test::Exists => Compare::create_revision(key, CompareOp::Greater, 0),
        // No key at all reads as created at revision 0.
        Test::AllCreatedBefore(revision) => {
            Compare::create_revision(key, CompareOp::Less, revision).with_prefix()
        }
        Test::LeaseIs(lease) => Compare::lease(key, CompareOp::Equal, lease),
        Test::LeaseIsNot(lease) => Compare::lease(key, CompareOp::NotEqual, lease),
    }
}

fn read(steps: &[Step], answer: &TxnResponse) -> Vec<Answer> {
    let revision = revision(answer);
    if let [step] = steps {
        return vec![explain(step, answer, revision)];
    }
    let inner = answer.op_responses();
    let mut answers = inner.iter().filter_map(|response| match response {
        TxnOpResponse::Txn(inner) => Some(inner),
        _ => None,
    });
    let explained = steps.iter().map(|step| match answers.next() {
        Some(answer) => explain(step, answer, revision),
        // etcd answers every operation of a transaction.
        None => Answer::Refused(Refusal::NotRegistered),
    });
    explained.collect()
}

/// What the answer to one step means: of a refusal, which predicate did not hold.
fn explain(step: &Step, answer: &TxnResponse, revision: i64) -> Answer {
    if answer.succeeded() {
        return Answer::Done(revision);
    }
    let mut found = HashMap::new();
    for response in answer.op_responses() {
        if let TxnOpResponse::Get(got) = response {
            found.extend(got.kvs().iter().map(|kv| {
                (kv.key().to_vec(), (kv.create_revision(), kv.mod_revision(), kv.lease()))
            }));
        }
    }
    let holds = |p: &Predicate| {
        let (created, modified, lease) = found.get(p.key.as_bytes()).copied().unwrap_or_default();
        match p.test {
            Test::ModifiedAt(revision) => modified == revision,
            Test::ModifiedBefore(revision) => modified < revision,
            Test::CreatedAt(revision) => created == revision,
            Test::Exists => created > 0,
            // Not read: it is to blame when nothing else is.
            Test::AllCreatedBefore(_) => false,
            Test::LeaseIs(id) => lease == id,
            Test::LeaseIsNot(id) => lease != id,
        }
    };
    let to_blame = step.when.iter().find(|p| !holds(p)).or(step.when.last());
    Answer::Refused(to_blame.map_or(Refusal::RunsChanged, |p| p.refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::live_run;
    use crate::steps::{Grounds, Overlap, VICTIMS};

    /// etcd's `--max-txn-ops`, which counts the operations on each path of nesting.
    const ETCD_TAKES: usize = 128;

    #[test]
    fn a_claim_that_replaces_many_runs_fits_into_a_batch_and_a_larger_one_only_makes_way() {
        let (keys, job) = (Keys::new("/cron").unwrap(), JobName::new("j").unwrap());
        let live = live_run(&job, 1);
        let grounds = Grounds {
            job: job.clone(),
            on: None,
            job_revision: 5,
            cursor_revision: 6,
            settings_revision: 0,
            worker: live.value.worker.clone(),
            lease: 7,
        };
        let claim = |count| {
            let victims = (0..count).map(|_| live_run(&job, 1)).collect();
            let overlap = Overlap::Replace { applied: 9, victims };
            Step::claim_trigger(&keys, &grounds, (live.run, 8), &live.value, &overlap)
        };
        for (count, claims) in [(0, true), (VICTIMS, true), (VICTIMS + 1, false), (500, false)] {
            let step = claim(count);
            let own = step.when.len().max(step.then.len());
            assert!(BATCH + own <= ETCD_TAKES, "{count} victims: {own} operations");
            let begins =
                |write: &Write| matches!(write, Write::Put(k, _) if *k == keys.running_key(&live));
            assert_eq!(step.then.iter().any(begins), claims, "{count} victims");
            let takes = |write: &Write| matches!(write, Write::Delete(_));
            assert_eq!(step.then.iter().any(takes), claims, "{count} victims");
        }
    }
}
