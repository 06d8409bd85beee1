//! The outside oracle: what really ran, held against what should have run and what Carillon says.
//!
//! It shares no code with what it judges, but for ids, slots and outcomes as texts, and the hash by
//! which [`tables_agree`] tells which jobs a worker knows: commands write down their own starts in a file that
//! Carillon knows nothing of ([`witness`]), slots are counted second by second ([`expected`]),
//! MongoDB is read as any other tool would. [`check`] is a pure function of what was found.

pub mod check;
pub mod expected;
pub mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use carillon_core::etcd::Etcd;
use carillon_core::fleet::WorkerEntry;
use carillon_core::id::{RunId, Slot};
use carillon_core::replica::Replica;
use carillon_core::run::Outcome;
use chrono::{DateTime, TimeDelta, Utc};
use etcd_client::{Client as EtcdClient, GetOptions};
use futures::TryStreamExt;
use mongodb::Client as MongoClient;
use mongodb::bson::{Document, doc};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::faults;
use check::{Evidence, Record};
use witness::Witness;

/// Neither etcd's many keys nor MongoDB's documents offer one event to wait for, so they are asked
/// this often.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How far back records may still change, in milliseconds: far longer than any run of a trial, a
/// clock that is off included.
const CHANGES: i64 = 5 * 60_000;

/// From which record on MongoDB is read.
#[derive(Debug, Clone, Copy)]
pub struct Since(RunId);

impl Since {
    /// From the first that may have changed since this was collected.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        let newest = evidence.records.iter().map(|record| record.id).max();
        let at = newest.map(|id| id.made_at() - TimeDelta::milliseconds(CHANGES));
        Self(at.map_or(RunId::FIRST, RunId::new))
    }
}

impl Evidence {
    /// Puts what was found later over what was found before.
    pub fn take_in(&mut self, later: Self) {
        let newer: BTreeSet<RunId> = later.records.iter().map(|record| record.id).collect();
        self.records.retain(|record| !newer.contains(&record.id));
        self.records.extend(later.records);
        self.lines = later.lines;
        self.through = later.through;
    }
}

/// Waits until all that is decided now is settled and recorded, and collects the evidence of it,
/// with the records from `since` on.
///
/// # Errors
///
/// When a server does not answer, or something is still unsettled when nothing was for `limit`; then
/// with what.
pub async fn gather(
    etcd: &mut EtcdClient,
    mongo: &MongoClient,
    prefix: &str,
    witness: &Witness,
    since: Since,
    limit: Duration,
) -> Result<Evidence> {
    let mut deadline = Instant::now() + limit;
    let (through, mut open) = decided(etcd, prefix).await?;
    while !open.is_empty() {
        let (_, still) = decided(etcd, prefix).await?;
        let before = open.len();
        open.retain(|id, _| still.contains_key(id));
        if open.len() < before {
            // A machine that is busy with other things is slow, and that is no fault.
            deadline = Instant::now() + limit;
        }
        if Instant::now() >= deadline {
            let keys: Vec<&String> = open.values().take(5).collect();
            let admin = mongo.database("admin");
            let ping = timeout(limit / 10, admin.run_command(doc! {"ping": 1}));
            let answers = if matches!(ping.await, Ok(Ok(_))) { "answers" } else { "is silent" };
            bail!(
                "{} decisions wait, none was settled for {limit:?}, such as {keys:?}; MongoDB {answers}",
                open.len()
            );
        }
        sleep(ASK_EVERY).await;
    }
    let until = Instant::now() + limit;
    let records = loop {
        match records(mongo, prefix, since).await {
            // A server of one thread that is busy for long is taken for gone by the driver.
            Err(_) if Instant::now() < until => sleep(ASK_EVERY).await,
            answer => break answer?,
        }
    };
    Ok(Evidence { lines: witness.lines()?, records, through })
}

/// Up to which instant each job is decided, and the keys of decisions that are not recorded yet,
/// by their ids, as of one revision.
async fn decided(
    etcd: &mut EtcdClient,
    prefix: &str,
) -> Result<(BTreeMap<String, DateTime<Utc>>, BTreeMap<String, String>)> {
    loop {
        // Not as one transaction: an etcd that is full refuses even those that only read.
        match decided_once(etcd, prefix).await {
            // The revision that one member gave has not come to another.
            Err(e) if format!("{e:#}").contains("future revision") => sleep(ASK_EVERY).await,
            answer => return answer,
        }
    }
}

async fn decided_once(
    etcd: &mut EtcdClient,
    prefix: &str,
) -> Result<(BTreeMap<String, DateTime<Utc>>, BTreeMap<String, String>)> {
    let cursors = format!("{prefix}/cursor/");
    let options = GetOptions::new().with_prefix();
    let answer = etcd.get(cursors.clone(), Some(options)).await.context("cannot read etcd")?;
    let revision = answer.header().context("etcd answered without a revision")?.revision();
    let mut through = BTreeMap::new();
    for pair in answer.kvs() {
        let job = pair.key_str()?.strip_prefix(&cursors).unwrap_or_default().to_owned();
        let value: Value = serde_json::from_slice(pair.value()).context("a cursor is no JSON")?;
        let instant = value.get("through").and_then(Value::as_str).context("a cursor is empty")?;
        through.insert(job, instant.parse().context("a cursor is at no instant")?);
    }
    let mut open = BTreeMap::new();
    for kind in ["running", "done"] {
        let options = GetOptions::new().with_prefix().with_keys_only().with_revision(revision);
        let keys = format!("{prefix}/{kind}/");
        let answer = etcd.get(keys, Some(options)).await.context("cannot read etcd")?;
        for pair in answer.kvs() {
            let key = pair.key_str()?.to_owned();
            let id = key.rsplit('/').next().unwrap_or_default().to_owned();
            open.insert(id, key);
        }
    }
    Ok((through, open))
}

async fn records(mongo: &MongoClient, fleet: &str, since: Since) -> Result<Vec<Record>> {
    let fields = doc! {
        "jobName": 1, "outcome": 1, "scheduledTime": 1, "attempt": 1,
        "fromSlot": 1, "toSlot": 1, "count": 1,
    };
    let log = mongo.database("cron").collection::<Document>("log");
    let found = log
        .find(doc! {"fleet": fleet, "_id": {"$gte": since.0.to_string()}})
        .projection(fields)
        .batch_size(10_000)
        .await;
    let found = found.context("cannot read the records")?;
    let documents: Vec<Document> = found.try_collect().await.context("cannot read the records")?;
    documents.iter().map(|document| read(document).context("a strange record")).collect()
}

fn read(document: &Document) -> Result<Record> {
    let instant = |field| {
        let millis = document.get_datetime(field).ok()?.timestamp_millis();
        DateTime::from_timestamp_millis(millis)
    };
    let number = |field| {
        let value = document.get(field)?;
        value.as_i64().or_else(|| value.as_i32().map(i64::from))
    };
    let outcome: Outcome =
        document.get_str("outcome")?.parse().map_err(|error: String| anyhow::anyhow!(error))?;
    let gap = instant("toSlot").map(Slot::at).zip(number("count"));
    Ok(Record {
        id: document.get_str("_id")?.parse::<RunId>()?,
        job: document.get_str("jobName")?.to_owned(),
        outcome,
        slot: instant("fromSlot").or(instant("scheduledTime")).map(Slot::at),
        gap,
        attempt: number("attempt").and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
    })
}

/// The processes that are alive although their run is recorded as over: to be asked when the grace
/// of every job has passed.
#[must_use]
pub fn left_behind(evidence: &Evidence) -> Vec<(RunId, u32)> {
    let over: BTreeSet<RunId> =
        evidence.records.iter().filter(|r| r.outcome.is_final()).map(|r| r.id).collect();
    faults::environments("CARILLON_RUN")
        .into_iter()
        .filter_map(|(pid, run)| Some((run.parse::<RunId>().ok()?, pid)))
        .filter(|(run, _)| over.contains(run))
        .collect()
}

/// Waits until every worker's registration carries the hash of a fresh list of the jobs.
///
/// # Errors
///
/// When etcd does not answer, or a worker has another hash after `limit`.
pub async fn tables_agree(etcd: &Etcd, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let mut fresh: Replica = Replica::default();
        fresh.apply(etcd.keys(), &etcd.snapshot().await?, Utc::now());
        let wanted = format!("{:016x}", fresh.table_hash());
        let agrees = |worker: &&WorkerEntry| {
            worker.value.as_ref().is_ok_and(|registration| registration.table_hash == wanted)
        };
        let differ: Vec<_> = fresh.workers.values().filter(|w| !agrees(w)).map(|w| &w.id).collect();
        if differ.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{differ:?} know other jobs than etcd after {limit:?}");
        sleep(ASK_EVERY).await;
    }
}
