//! Claims against hand-written transactions of the same compares, puts and reads.

use std::time::{Duration, Instant};

use carillon_core::claims::{Answer, BATCH, Claims, Step};
use carillon_core::decide::Cursor;
use carillon_core::etcd::Etcd;
use carillon_core::id::{JobName, RunId, Slot, WorkerId};
use carillon_core::keys::Keys;
use carillon_core::run::{RunState, Running, Trigger};
use carillon_core::steps::{Grounds, Overlap};
use chrono::{TimeDelta, Utc};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, KvClient, PutOptions, Txn, TxnOp,
    TxnOpResponse,
};
use futures::{StreamExt, stream};
use system_tests::stack::{Options, Stack};
use tokio::runtime::Runtime;

use crate::bars::Bars;
use crate::ratio::Ratio;
use crate::scene::put_jobs;

/// Claims in one round: so many batches of either size that the flights are full most of the time.
const CLAIMS: usize = 3_840;
const ROUNDS: usize = 9;
/// As many as the worker's courier has.
const FLIGHTS: usize = 8;
const LEASE_SECS: i64 = 600;

pub(crate) fn run(runtime: &Runtime, one: &Stack, bars: &mut Bars) {
    println!("claims a second, {FLIGHTS} transactions under way, {ROUNDS} rounds of {CLAIMS}\n");
    on_nodes(runtime, one, bars);
    let three = Options { etcd_nodes: 3, ..Options::default() };
    let three = runtime.block_on(Stack::start_with(&three)).unwrap();
    on_nodes(runtime, &three, bars);
}

fn on_nodes(runtime: &Runtime, stack: &Stack, bars: &mut Bars) {
    let nodes = if stack.members() == 1 { "one node" } else { "three nodes" };
    // Both by the same member.
    let leader = runtime.block_on(stack.etcd_leader()).unwrap();
    let url = stack.etcd_member_urls()[leader].clone();
    for batch in [32, BATCH] {
        let mut ours = runtime.block_on(Ground::prepare(stack, &url));
        let mut theirs = runtime.block_on(Ground::prepare(stack, &url));
        let claims = runtime.block_on(async {
            let etcd = Etcd::connect(std::slice::from_ref(&url), ours.keys.clone()).await.unwrap();
            Claims::new(etcd)
        });
        let raw = theirs.etcd.kv_client();
        let ratio = Ratio::measure(
            ROUNDS,
            (CLAIMS, CLAIMS),
            || runtime.block_on(theirs.claim_raw(&raw, batch)),
            || runtime.block_on(ours.claim(&claims, batch)),
        );
        println!(
            "{nodes:11}, batches of {batch:2}   {:6.0}/s   raw {:6.0}/s   {:.2} x raw ({:.2}-{:.2})",
            1.0 / ratio.ours,
            1.0 / ratio.theirs,
            ratio.middle,
            ratio.low,
            ratio.high,
        );
        let what = format!("claims against raw transactions, {nodes}, batches of {batch}");
        bars.at_least(&what, ratio.middle, 0.7, "");
    }
}

/// Jobs with cursors and a registered worker: what claims rest on.
struct Ground {
    etcd: Client,
    keys: Keys,
    worker: WorkerId,
    lease: i64,
    jobs: Vec<Claimable>,
}

struct Claimable {
    name: JobName,
    revision: i64,
    cursor_revision: i64,
}

/// One claim for etcd's own client, ready but for the transaction.
struct Bare {
    cursor: (String, i64, Vec<u8>),
    job: (String, i64),
    worker: (String, i64),
    settings: String,
    live: String,
    running: (String, Vec<u8>),
}

impl Ground {
    async fn prepare(stack: &Stack, url: &str) -> Self {
        let keys = Keys::new(&stack.fresh_prefix()).unwrap();
        let mut etcd = Client::connect([url], None).await.unwrap();
        let names = (0..CLAIMS).map(|n| JobName::new(&format!("job-{n}")).unwrap());
        let names: Vec<JobName> = names.collect();
        let json = r#"{"command":"true","cronExpr":"* * * * * *"}"#;
        let jobs = names.iter().map(|name| (name.to_string(), json.to_owned())).collect();
        put_jobs(&etcd, keys.fleet(), jobs).await;
        let mut jobs = Vec::new();
        for name in names {
            let answer = etcd.get(keys.job(&name), None).await.unwrap();
            let revision = answer.kvs()[0].mod_revision();
            jobs.push(Claimable { name, revision, cursor_revision: 0 });
        }
        let worker = WorkerId::new("w1").unwrap();
        let lease = etcd.lease_grant(LEASE_SECS, None).await.unwrap().id();
        let hangs = PutOptions::new().with_lease(lease);
        etcd.put(keys.worker(&worker), "{}", Some(hangs)).await.unwrap();
        Self { etcd, keys, worker, lease, jobs }
    }

    fn values(&self, job: &Claimable) -> (Cursor, RunId, Running) {
        let now = Utc::now();
        let cursor = Cursor {
            rev: job.revision,
            expr: "* * * * * *".to_owned(),
            zone: "UTC".to_owned(),
            anchor: None,
            enabled: true,
            rules: carillon_core::fleet::rules_version().to_owned(),
            through: now,
            offset: 0,
            updated_at: None,
        };
        let running = Running {
            worker: self.worker.clone(),
            lease: self.lease,
            slot: Some(Slot::at(now)),
            attempt: 1,
            trigger: Trigger::Schedule,
            pid: None,
            state: RunState::Claimed,
            since: now,
            spawn_before: now + TimeDelta::seconds(60),
            grace_secs: 10,
            continues_secs: None,
            job_revision: job.revision,
        };
        (cursor, RunId::new(now), running)
    }

    fn step(&self, job: &Claimable) -> Step {
        let (cursor, run, running) = self.values(job);
        let grounds = Grounds {
            job: job.name.clone(),
            on: None,
            job_revision: job.revision,
            cursor_revision: job.cursor_revision,
            settings_revision: 0,
            worker: self.worker.clone(),
            lease: self.lease,
        };
        Step::claim_slot(&self.keys, &grounds, &cursor, run, &running, &Overlap::Forbid)
    }

    fn bare(&self, job: &Claimable) -> Bare {
        let (cursor, run, running) = self.values(job);
        let cursor = serde_json::to_vec(&cursor).unwrap();
        Bare {
            cursor: (self.keys.cursor(&job.name, None), job.cursor_revision, cursor),
            job: (self.keys.job(&job.name), job.revision),
            worker: (self.keys.worker(&self.worker), self.lease),
            settings: self.keys.settings(),
            live: self.keys.running_of(&job.name, None),
            running: (
                self.keys.running(&job.name, None, run),
                serde_json::to_vec(&running).unwrap(),
            ),
        }
    }

    async fn claim(&mut self, claims: &Claims, batch: usize) -> Duration {
        let steps: Vec<Step> = self.jobs.iter().map(|job| self.step(job)).collect();
        let batches: Vec<Vec<Step>> = steps.chunks(batch).map(<[Step]>::to_vec).collect();
        let begun = Instant::now();
        let answers: Vec<i64> = stream::iter(batches)
            .map(|batch| {
                let claims = claims.clone();
                tokio::spawn(async move { claims.send(&batch).await })
            })
            .buffered(FLIGHTS)
            .flat_map(|answers| stream::iter(answers.unwrap()))
            .map(|answer| match answer.unwrap() {
                Answer::Done(revision) => revision,
                Answer::Refused(why) => panic!("a claim was refused: {}", why.as_str()),
            })
            .collect()
            .await;
        let spent = begun.elapsed();
        self.settle(&answers).await;
        spent
    }

    async fn claim_raw(&mut self, kv: &KvClient, batch: usize) -> Duration {
        let mut bare: Vec<Bare> = self.jobs.iter().map(|job| self.bare(job)).collect();
        let mut batches = Vec::new();
        while !bare.is_empty() {
            let rest = bare.split_off(batch.min(bare.len()));
            batches.push(std::mem::replace(&mut bare, rest));
        }
        let begun = Instant::now();
        let answers: Vec<i64> = stream::iter(batches)
            .map(|batch| {
                let mut kv = kv.clone();
                tokio::spawn(async move {
                    let inner: Vec<TxnOp> =
                        batch.into_iter().map(|claim| TxnOp::txn(claim.transaction())).collect();
                    let answer = kv.txn(Txn::new().and_then(inner)).await.unwrap();
                    let revision = answer.header().unwrap().revision();
                    let done = |response: &TxnOpResponse| {
                        matches!(response, TxnOpResponse::Txn(inner) if inner.succeeded())
                    };
                    let answers = answer.op_responses();
                    assert!(answers.iter().all(done), "a transaction was refused");
                    vec![revision; answers.len()]
                })
            })
            .buffered(FLIGHTS)
            .flat_map(|answers| stream::iter(answers.unwrap()))
            .collect()
            .await;
        let spent = begun.elapsed();
        self.settle(&answers).await;
        spent
    }

    /// Makes all jobs claimable again. The cursors are where the claims have put them.
    async fn settle(&mut self, revisions: &[i64]) {
        assert_eq!(revisions.len(), self.jobs.len());
        for (job, revision) in self.jobs.iter_mut().zip(revisions) {
            job.cursor_revision = *revision;
        }
        let live = format!("{}/running/", self.keys.fleet());
        self.etcd.delete(live, Some(DeleteOptions::new().with_prefix())).await.unwrap();
    }
}

impl Bare {
    fn transaction(self) -> Txn {
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let Self { cursor, job, worker, settings, live, running } = self;
        let reads = [&cursor.0, &job.0, &worker.0, &settings];
        let reads: Vec<TxnOp> =
            reads.map(|key| TxnOp::get(key.as_str(), keys_only())).into_iter().collect();
        let when = [
            Compare::mod_revision(cursor.0.as_str(), CompareOp::Equal, cursor.1),
            Compare::mod_revision(job.0, CompareOp::Equal, job.1),
            Compare::lease(worker.0, CompareOp::Equal, worker.1),
            Compare::mod_revision(settings, CompareOp::Equal, 0),
            Compare::create_revision(live, CompareOp::Less, 1).with_prefix(),
        ];
        let then = [TxnOp::put(cursor.0, cursor.2, None), TxnOp::put(running.0, running.1, None)];
        Txn::new().when(when).and_then(then).or_else(reads)
    }
}
