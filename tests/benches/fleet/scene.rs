//! Workers with jobs that stamp the time, and what can be read from outside: the stamps, the
//! workers' own numbers, and what etcd holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use carillon_core::run::Running;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use etcd_client::{Client, DeleteOptions, GetOptions, Txn, TxnOp, WatchOptions};
use futures::{StreamExt, TryStreamExt, stream};
use system_tests::fleet::{Fleet, Options};
use system_tests::stack::Stack;
use tempfile::TempDir;
use tokio::time::sleep;

/// What stands in for the shell of every job here.
pub(crate) const STAMP: &str = env!("CARGO_BIN_EXE_stamp");
/// Runs that one worker takes at once: more than there are jobs, so that nothing waits for room.
const CAPACITY: u32 = 4096;
/// Puts in one transaction: etcd takes 128.
const PUTS: usize = 100;
/// Transactions under way at once.
const FLIGHTS: usize = 8;
/// The largest message of a watch, in bytes.
const WATCH_LIMIT: usize = 1 << 30;
/// For what ought to happen at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet, its jobs and their stamps.
pub(crate) struct Scene {
    pub(crate) fleet: Fleet,
    pub(crate) etcd: Client,
    folder: TempDir,
}

/// One start of a command.
pub(crate) struct Stamp {
    pub(crate) job: String,
    pub(crate) slot: DateTime<Utc>,
    pub(crate) at: DateTime<Utc>,
}

impl Stamp {
    /// In milliseconds after the slot.
    pub(crate) fn lateness(&self) -> f64 {
        (self.at - self.slot).as_seconds_f64() * 1e3
    }
}

impl Scene {
    pub(crate) async fn start(stack: &Stack, workers: usize) -> Self {
        let capacity = CAPACITY.to_string();
        let arguments = ["--metrics-addr", "127.0.0.1:0", "--capacity", &capacity];
        let arguments = arguments.map(str::to_owned).to_vec();
        let options = Options { arguments, ..Default::default() };
        let fleet = Fleet::start_with(stack, workers, options).await.unwrap();
        let etcd = stack.etcd().await.unwrap();
        Self { fleet, etcd, folder: TempDir::new_in(stack.folder()).unwrap() }
    }

    pub(crate) fn stamp_file(&self) -> PathBuf {
        self.folder.path().join("stamps")
    }

    /// Puts so many jobs with this schedule and waits until every one has its cursor. They are
    /// `NAME-0` and so on.
    pub(crate) async fn put_jobs(&mut self, name: &str, count: usize, expr: &str) {
        let file = self.stamp_file();
        let jobs = (0..count).map(|n| {
            let name = format!("{name}-{n}");
            let job = serde_json::json!({
                "name": name, "command": file, "cronExpr": expr, "shell": STAMP
            });
            (name, job.to_string())
        });
        put_jobs(&self.etcd, self.fleet.prefix(), jobs.collect()).await;
        self.until_count("cursor/", count).await;
    }

    /// Deletes the jobs and what is left of them, once nothing more is under way.
    pub(crate) async fn clear(&mut self) {
        self.delete("jobs/").await;
        self.until_count("running/", 0).await;
        self.until_count("done/", 0).await;
        self.delete("cursor/").await;
        fs::remove_file(self.stamp_file()).ok();
    }

    async fn delete(&mut self, part: &str) {
        let key = format!("{}/{part}", self.fleet.prefix());
        self.etcd.delete(key, Some(DeleteOptions::new().with_prefix())).await.unwrap();
    }

    /// How many keys there are, and at which revision.
    pub(crate) async fn count(&mut self, part: &str) -> (usize, i64) {
        count(&mut self.etcd, &format!("{}/{part}", self.fleet.prefix())).await
    }

    /// Waits until there are so many keys; returns whether that came to be.
    pub(crate) async fn until_count(&mut self, part: &str, wanted: usize) -> bool {
        let begun = Instant::now();
        while self.count(part).await.0 != wanted {
            if begun.elapsed() > PATIENCE {
                println!("    ({part} has not come to {wanted} keys within {PATIENCE:?})");
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        let text = fs::read_to_string(self.stamp_file()).unwrap_or_default();
        let stamp = |line: &str| {
            let mut fields = line.split(' ');
            let (job, slot, _worker) = (fields.next()?, fields.next()?, fields.next()?);
            let nanos: i64 = fields.next()?.parse().ok()?;
            let at = DateTime::from_timestamp_nanos(nanos);
            Some(Stamp { job: job.to_owned(), slot: slot.parse().ok()?, at })
        };
        text.lines().filter_map(stamp).collect()
    }

    /// The stamps of one slot, once there are so many.
    pub(crate) async fn until_stamped(&self, slot: DateTime<Utc>, count: usize) -> Vec<Stamp> {
        let begun = Instant::now();
        loop {
            let mut stamps = self.stamps();
            stamps.retain(|stamp| stamp.slot == slot);
            if stamps.len() >= count || begun.elapsed() > PATIENCE {
                return stamps;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where each worker tells its numbers.
    pub(crate) fn desks(&self) -> Vec<String> {
        let address = |id: &str| {
            let log = fs::read_to_string(self.fleet.log(id)).unwrap();
            let (_, rest) = log.split_once("metrics on http://").unwrap();
            rest.split_once('/').unwrap().0.to_owned()
        };
        self.fleet.ids().map(address).collect()
    }

    /// Every claim after a revision: which worker made it, by the revision of its transaction.
    pub(crate) async fn claims_since(&mut self, revision: i64) -> Vec<(i64, String)> {
        let prefix = format!("{}/running/", self.fleet.prefix());
        let header = self.etcd.put(format!("{prefix}end"), "", None).await.unwrap();
        let end = header.header().unwrap().revision();
        let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
        // All of it may come as one message.
        let watch = self.etcd.watch_client().max_decoding_message_size(WATCH_LIMIT);
        let mut watch = { watch }.watch(prefix.clone(), Some(options)).await.unwrap();
        let mut claims = Vec::new();
        while let Some(answer) = watch.message().await.unwrap() {
            for kv in answer.events().iter().filter_map(|event| event.kv()) {
                if kv.mod_revision() == end {
                    self.etcd.delete(format!("{prefix}end"), None).await.unwrap();
                    return claims;
                }
                let new = kv.create_revision() == kv.mod_revision();
                if let Ok(run) = serde_json::from_slice::<Running>(kv.value())
                    && new
                {
                    claims.push((kv.mod_revision(), run.worker.to_string()));
                }
            }
        }
        panic!("the watch ended")
    }
}

pub(crate) async fn count(etcd: &mut Client, prefix: &str) -> (usize, i64) {
    let options = GetOptions::new().with_prefix().with_count_only();
    let answer = etcd.get(prefix, Some(options)).await.unwrap();
    (usize::try_from(answer.count()).unwrap(), answer.header().unwrap().revision())
}

/// Puts jobs, by name and JSON.
pub(crate) async fn put_jobs(etcd: &Client, prefix: &str, jobs: Vec<(String, String)>) {
    stream::iter(jobs.chunks(PUTS))
        .map(|jobs| {
            let mut kv = etcd.kv_client();
            let puts: Vec<TxnOp> = jobs
                .iter()
                .map(|(name, json)| {
                    TxnOp::put(format!("{prefix}/jobs/{name}"), json.as_str(), None)
                })
                .collect();
            async move { kv.txn(Txn::new().and_then(puts)).await }
        })
        .buffer_unordered(FLIGHTS)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .unwrap();
}

/// The numbers of all workers, added up.
#[derive(Default)]
pub(crate) struct Numbers(BTreeMap<String, f64>);

impl Numbers {
    pub(crate) fn of(desks: &[String]) -> Self {
        let mut all = Self::default();
        for desk in desks {
            let mut stream = TcpStream::connect(desk).unwrap();
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: {desk}\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            for line in answer.lines().filter_map(|line| line.strip_prefix("carillon_worker_")) {
                let Some((name, value)) = line.rsplit_once(' ') else { continue };
                let Ok(value) = value.parse::<f64>() else { continue };
                // Without the label that tells the worker.
                let name = match name.split_once("{worker=\"") {
                    Some((name, rest)) => {
                        let rest = rest.split_once('"').map_or("", |(_, rest)| rest);
                        format!("{name}{{{}", rest.trim_start_matches(','))
                    }
                    None => name.to_owned(),
                };
                *all.0.entry(name).or_default() += value;
            }
        }
        all
    }

    /// The sum of all whose name and labels begin so.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.0.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| value).sum()
    }
}

/// The next instant whose seconds are a multiple of `period`, and at least so far away.
pub(crate) fn next_slot(period: i64, ahead: TimeDelta) -> DateTime<Utc> {
    let from = (Utc::now() + ahead).trunc_subsecs(0).timestamp();
    DateTime::from_timestamp((from / period + 1) * period, 0).unwrap()
}

pub(crate) async fn sleep_until(at: DateTime<Utc>) {
    sleep((at - Utc::now()).to_std().unwrap_or_default()).await;
}
