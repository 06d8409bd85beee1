//! The transactions: the only writes by which slots are decided and runs begin and end.
//!
//! Each carries its whole predicate set as compares of revisions, so that sending one again after
//! a lost answer cannot do anything twice. What they decide is computed in [`crate::decide`].

use chrono::{DateTime, Utc};
use etcd_client::{
    Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use serde::Serialize;

use crate::decide::{Cursor, Gap};
use crate::etcd::{Etcd, EtcdError};
use crate::fleet::Registration;
use crate::id::{JobName, RunId, WorkerId};
use crate::job::{Checked, Concurrency, JobEntry};
use crate::keys::{Key, Keys};
use crate::replica::Versioned;
use crate::run::{KillRequest, LiveRun, Outcome, RunRecord, Running, TriggerRequest};

/// What a decision rests on: all of it is compared in the transaction.
#[derive(Debug, Clone)]
pub struct Grounds {
    /// The job.
    pub job: JobName,
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
        /// The runs to kill.
        victims: Vec<RunId>,
    },
}

/// A definite answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out, at this revision.
    Done(i64),
    /// Nothing was done, because a predicate did not hold.
    Refused(Refusal),
}

/// Which predicate refused a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// The transactions of one fleet.
#[derive(Clone)]
pub struct Claims {
    etcd: Etcd,
}

fn same_mod(key: String, revision: i64) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, revision)
}

fn put(key: String, value: &impl Serialize) -> TxnOp {
    // Structs of strings, numbers and maps with string keys always serialize.
    TxnOp::put(key, serde_json::to_vec(value).unwrap_or_default(), None)
}

fn delete(key: String) -> TxnOp {
    TxnOp::delete(key, None)
}

impl Claims {
    /// The transactions of the fleet that `etcd` is connected to.
    pub fn new(etcd: Etcd) -> Self {
        Self { etcd }
    }

    fn keys(&self) -> &Keys {
        self.etcd.keys()
    }

    fn grounds(&self, g: &Grounds, with_cursor: bool) -> Vec<Compare> {
        let keys = self.keys();
        let mut compares = vec![
            same_mod(keys.job(&g.job), g.job_revision),
            same_mod(keys.settings(), g.settings_revision),
            Compare::lease(keys.worker(&g.worker), CompareOp::Equal, g.lease),
        ];
        if with_cursor {
            compares.push(same_mod(keys.cursor(&g.job), g.cursor_revision));
        }
        compares
    }

    fn overlap(
        &self,
        job: &JobName,
        overlap: &Overlap,
        now: DateTime<Utc>,
    ) -> (Vec<Compare>, Vec<TxnOp>) {
        let created_before = |revision| {
            Compare::create_revision(self.keys().running_of(job), CompareOp::Less, revision)
                .with_prefix()
        };
        match overlap {
            Overlap::Allow => (Vec::new(), Vec::new()),
            // No key at all reads as created at revision 0.
            Overlap::Forbid => (vec![created_before(1)], Vec::new()),
            Overlap::Replace { applied, victims } => {
                let kill = KillRequest {
                    grace_secs: None,
                    by: "the next run (concurrency replace)".to_owned(),
                    at: now,
                };
                // A victim that has ended meanwhile must not leave a kill key behind.
                let live = |run: &RunId| {
                    let key = self.keys().running(job, *run);
                    Compare::create_revision(key, CompareOp::Greater, 0)
                };
                let compares = victims.iter().map(live).chain([created_before(applied + 1)]);
                let kills =
                    victims.iter().map(|run| put(self.keys().kill_run(job, *run), &kill)).collect();
                (compares.collect(), kills)
            }
        }
    }

    /// Sends one step; a refusal is explained by what the same transaction read.
    async fn step(
        &self,
        g: &Grounds,
        compares: Vec<Compare>,
        then: Vec<TxnOp>,
        trigger: Option<(RunId, i64)>,
    ) -> Result<Answer, EtcdError> {
        let keys = self.keys();
        let bare = || Some(GetOptions::new().with_keys_only());
        let mut reads = vec![
            TxnOp::get(keys.job(&g.job), bare()),
            TxnOp::get(keys.settings(), bare()),
            TxnOp::get(keys.worker(&g.worker), bare()),
            TxnOp::get(keys.cursor(&g.job), bare()),
        ];
        if let Some((id, _)) = trigger {
            reads.push(TxnOp::get(keys.trigger(&g.job, id), bare()));
        }
        let txn = Txn::new().when(compares).and_then(then).or_else(reads);
        let answer = self.etcd.txn_once(txn).await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        if answer.succeeded() {
            return Ok(Answer::Done(revision));
        }
        let mut found = (0, 0, 0, 0, 0);
        for response in answer.op_responses() {
            let TxnOpResponse::Get(got) = response else {
                continue;
            };
            let Some(kv) = got.kvs().first() else {
                continue;
            };
            match keys.parse(kv.key()) {
                Key::Job(_) => found.0 = kv.mod_revision(),
                Key::Settings => found.1 = kv.mod_revision(),
                Key::Worker(_) => found.2 = kv.lease(),
                Key::Cursor(_) => found.3 = kv.mod_revision(),
                Key::Trigger(..) => found.4 = kv.mod_revision(),
                _ => {}
            }
        }
        Ok(Answer::Refused(if trigger.is_some_and(|(_, rev)| rev != found.4) {
            Refusal::TriggerGone
        } else if trigger.is_none() && found.3 != g.cursor_revision {
            Refusal::CursorMoved
        } else if found.0 != g.job_revision {
            Refusal::JobChanged
        } else if found.2 != g.lease {
            Refusal::NotRegistered
        } else if found.1 != g.settings_revision {
            Refusal::SettingsChanged
        } else {
            Refusal::RunsChanged
        }))
    }

    /// Claims a slot: moves the cursor over it and makes the run's key.
    ///
    /// # Errors
    /// An ambiguous error means that the claim may have been carried out; the watch will tell.
    pub async fn claim_slot(
        &self,
        g: &Grounds,
        cursor: &Cursor,
        run: RunId,
        running: &Running,
        overlap: &Overlap,
    ) -> Result<Answer, EtcdError> {
        let (more, kills) = self.overlap(&g.job, overlap, running.since);
        let mut compares = self.grounds(g, true);
        compares.extend(more);
        let mut then = vec![
            put(self.keys().cursor(&g.job), cursor),
            put(self.keys().running(&g.job, run), running),
        ];
        then.extend(kills);
        self.step(g, compares, then, None).await
    }

    /// Claims a run that was asked for outside the schedule: takes its trigger and makes its key.
    ///
    /// # Errors
    /// An ambiguous error means that the claim may have been carried out; the watch will tell.
    pub async fn claim_trigger(
        &self,
        g: &Grounds,
        trigger: (RunId, i64),
        run: RunId,
        running: &Running,
        overlap: &Overlap,
    ) -> Result<Answer, EtcdError> {
        let (more, kills) = self.overlap(&g.job, overlap, running.since);
        let key = self.keys().trigger(&g.job, trigger.0);
        let mut compares = self.grounds(g, false);
        compares.push(same_mod(key.clone(), trigger.1));
        compares.extend(more);
        let mut then = vec![delete(key), put(self.keys().running(&g.job, run), running)];
        then.extend(kills);
        self.step(g, compares, then, Some(trigger)).await
    }

    /// Settles a trigger that will not run.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn settle_trigger(
        &self,
        job: &JobName,
        trigger: (RunId, i64),
        record: &RunRecord,
    ) -> Result<Answer, EtcdError> {
        let key = self.keys().trigger(job, trigger.0);
        let txn = Txn::new()
            .when([same_mod(key.clone(), trigger.1)])
            .and_then([delete(key), put(self.keys().done(job, record.id), record)]);
        self.plain(txn, Refusal::TriggerGone).await
    }

    /// Moves the cursor over slots that do not run, or makes it follow a change of the job.
    ///
    /// `blocking` is the live run because of which a slot is skipped: it must still be live.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn pass(
        &self,
        g: &Grounds,
        cursor: &Cursor,
        record: Option<&RunRecord>,
        blocking: Option<RunId>,
    ) -> Result<Answer, EtcdError> {
        let mut compares = self.grounds(g, true);
        if let Some(run) = blocking {
            let key = self.keys().running(&g.job, run);
            compares.push(Compare::create_revision(key, CompareOp::Greater, 0));
        }
        let mut then = vec![put(self.keys().cursor(&g.job), cursor)];
        then.extend(record.map(|r| put(self.keys().done(&g.job, r.id), r)));
        self.step(g, compares, then, None).await
    }

    async fn plain(&self, txn: Txn, refusal: Refusal) -> Result<Answer, EtcdError> {
        Ok(answered(&self.etcd.txn(txn).await?, refusal))
    }

    fn is_the_run(&self, job: &JobName, run: RunId, fence: i64) -> Compare {
        Compare::create_revision(self.keys().running(job, run), CompareOp::Equal, fence)
    }

    /// Writes how far a live run has come.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn advance(&self, live: &LiveRun) -> Result<Answer, EtcdError> {
        let txn = Txn::new()
            .when([self.is_the_run(&live.job, live.run, live.fence)])
            .and_then([put(self.keys().running(&live.job, live.run), &live.value)]);
        self.plain(txn, Refusal::NotTheRun).await
    }

    /// Ends a run: its key becomes its `done/` record. Sent once: after an ambiguous error a refusal
    /// may mean that the earlier try was carried out.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn end(&self, live: &LiveRun, record: &RunRecord) -> Result<Answer, EtcdError> {
        let compares = vec![self.is_the_run(&live.job, live.run, live.fence)];
        self.finish(live, record, compares).await
    }

    /// Settles the run of a worker that is dead: gone, or registered under another lease.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn settle_lost(
        &self,
        live: &LiveRun,
        record: &RunRecord,
    ) -> Result<Answer, EtcdError> {
        let compares = vec![
            self.is_the_run(&live.job, live.run, live.fence),
            Compare::lease(
                self.keys().worker(&live.value.worker),
                CompareOp::NotEqual,
                live.value.lease,
            ),
        ];
        self.finish(live, record, compares).await
    }

    async fn finish(
        &self,
        live: &LiveRun,
        record: &RunRecord,
        compares: Vec<Compare>,
    ) -> Result<Answer, EtcdError> {
        let keys = self.keys();
        let txn = Txn::new().when(compares).and_then([
            delete(keys.running(&live.job, live.run)),
            delete(keys.kill_run(&live.job, live.run)),
            put(keys.done(&live.job, live.run), record),
        ]);
        // The caller asks again and must know that it did.
        let answer = self.etcd.txn_once(txn).await?;
        Ok(answered(&answer, Refusal::NotTheRun))
    }

    /// Deletes a decision that MongoDB has acknowledged.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn acknowledged(
        &self,
        job: &JobName,
        done: &Versioned<RunRecord>,
    ) -> Result<Answer, EtcdError> {
        let key = self.keys().done(job, done.value.id);
        let txn =
            Txn::new().when([same_mod(key.clone(), done.mod_revision)]).and_then([delete(key)]);
        self.plain(txn, Refusal::NotTheRun).await
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
        let exists =
            Compare::create_revision(self.keys().job(job), CompareOp::Equal, request.job_created);
        let txn = Txn::new().when([exists]).and_then([put(self.keys().trigger(job, id), request)]);
        // Not again after a lost answer: by then a worker may have taken the trigger.
        let answer = self.etcd.txn_once(txn).await?;
        Ok(answered(&answer, Refusal::JobChanged))
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
        let key = self.keys().running(job, run);
        let live = Compare::create_revision(key, CompareOp::Greater, 0);
        let txn = Txn::new().when([live]).and_then([put(self.keys().kill_run(job, run), request)]);
        self.plain(txn, Refusal::NotTheRun).await
    }

    /// Asks a worker to take nothing new, or withdraws that; returns the revision.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn request_drain(&self, worker: &WorkerId, on: bool) -> Result<i64, EtcdError> {
        let key = self.keys().drain(worker);
        let op = if on { TxnOp::put(key, "", None) } else { delete(key) };
        let answer = self.etcd.txn(Txn::new().and_then([op])).await?;
        Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
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
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(if answer.succeeded() || renewed {
            Answer::Done(revision)
        } else {
            Answer::Refused(Refusal::NotRegistered)
        })
    }
}

fn answered(answer: &TxnResponse, refusal: Refusal) -> Answer {
    let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
    if answer.succeeded() { Answer::Done(revision) } else { Answer::Refused(refusal) }
}

/// The overlap rule of a claim, from the job's policy and what is live.
pub fn overlap_of(job: &Checked, applied: i64, live: impl Iterator<Item = RunId>) -> Overlap {
    match job.job.concurrency {
        Concurrency::Forbid => Overlap::Forbid,
        Concurrency::Allow => Overlap::Allow,
        Concurrency::Replace => Overlap::Replace { applied, victims: live.collect() },
    }
}

/// The record of slots that did not run.
pub fn gap_record(
    entry: &JobEntry,
    gap: &Gap,
    outcome: Outcome,
    worker: &WorkerId,
    now: DateTime<Utc>,
) -> RunRecord {
    let id = RunId::new(now);
    let mut record = RunRecord::of_none(id, &entry.name, outcome, worker, now, &gap.reason);
    record.command = entry.job().map(|j| j.command.clone()).unwrap_or_default();
    record.scheduled_time = Some(gap.from.instant());
    record.job_revision = entry.mod_revision;
    if gap.count > 1 {
        record.from_slot = Some(gap.from.instant());
        record.to_slot = Some(gap.to.instant());
        record.count = i64::try_from(gap.count).ok();
    }
    record
}
