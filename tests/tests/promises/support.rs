//! What the scenarios share: a fleet on the shared servers, and waiting for what it records.

use std::future::Future;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use carillon_core::etcd::Etcd;
use carillon_core::id::JobName;
use carillon_core::records::{HistoryFilter, Records};
use carillon_core::run::{Outcome, RunRecord};
use system_tests::fleet::Fleet;
use system_tests::programs;
use system_tests::stack::Stack;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Long enough for anything that works, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// MongoDB has no event for "a document like this exists", so it is asked this often.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Workers on servers, under a key prefix of their own.
pub struct Scene {
    // Before the stack, so that the workers end first.
    pub fleet: Fleet,
    pub records: Records,
    pub folder: TempDir,
    pub stack: Arc<Stack>,
}

impl Scene {
    /// `workers` workers on the shared servers.
    pub async fn shared(workers: usize) -> Self {
        let stack = Stack::shared().await.unwrap();
        let fleet = Fleet::start(&stack, workers).await.unwrap();
        Self::of(stack, fleet).await
    }

    /// This fleet, on these servers.
    pub async fn of(stack: Arc<Stack>, fleet: Fleet) -> Self {
        let records = Records::connect(&stack.mongo_uri(), fleet.prefix()).await.unwrap();
        let folder = TempDir::new().unwrap();
        Self { fleet, records, folder, stack }
    }

    /// Puts a job as any tool would.
    pub fn put(&self, name: &str, json: &str) {
        put(&self.stack, self.fleet.prefix(), name, json);
    }

    /// A key of this fleet.
    pub fn key(&self, rest: &str) -> String {
        format!("{}/{rest}", self.fleet.prefix())
    }

    /// A connection of our own to this fleet's etcd.
    pub async fn etcd(&self) -> Etcd {
        let endpoints = vec![self.stack.etcd_url()];
        Etcd::connect(endpoints.as_slice(), self.fleet.keys().clone()).await.unwrap()
    }

    /// All records of a job, oldest first; `None` while MongoDB does not answer.
    pub async fn records_of(&self, job: &str) -> Option<Vec<RunRecord>> {
        let filter = HistoryFilter { job: Some(JobName::new(job).unwrap()), ..Default::default() };
        let page = self.records.history(&filter, None, 500).await.ok()?;
        Some(page.records.into_iter().rev().collect())
    }

    /// A file in this scene's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `carillon` with these arguments.
    pub fn carillon(&self, arguments: &[&str]) -> Output {
        carillon(&self.stack, self.fleet.prefix()).args(arguments).output().unwrap()
    }

    /// Runs `carillon`, which must succeed, and returns what it printed.
    pub fn carillon_ok(&self, arguments: &[&str]) -> String {
        let output = self.carillon(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "carillon {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The first record of a job that `wanted` accepts.
    pub async fn record(&self, job: &str, wanted: impl Fn(&RunRecord) -> bool) -> RunRecord {
        record(&self.records, job, wanted).await
    }

    /// The first record of a job with a final outcome other than skipped or missed.
    pub async fn finished(&self, job: &str) -> RunRecord {
        self.record(job, |r| {
            r.outcome.is_final() && !matches!(r.outcome, Outcome::Skipped | Outcome::Missed)
        })
        .await
    }

    /// The live run of a job that has started its process: its id and pid.
    pub async fn started(&self, job: &str) -> RunRecord {
        self.record(job, |r| r.outcome == Outcome::Running && r.pid.is_some()).await
    }
}

pub fn put(stack: &Stack, prefix: &str, name: &str, json: &str) {
    stack.etcdctl(&["put", &format!("{prefix}/jobs/{name}"), json]).unwrap();
}

/// `carillon` on these servers and keys.
pub fn carillon(stack: &Stack, prefix: &str) -> Command {
    let mut command = Command::new(programs::own("carillon").unwrap());
    command.args(["--etcd", &stack.etcd_url(), "--mongo", &stack.mongo_uri(), "--prefix", prefix]);
    command
}

pub async fn record(
    records: &Records,
    job: &str,
    wanted: impl Fn(&RunRecord) -> bool,
) -> RunRecord {
    let filter = HistoryFilter { job: Some(JobName::new(job).unwrap()), ..Default::default() };
    eventually(&format!("a record of {job}"), || async {
        let page = records.history(&filter, None, 500).await.ok()?;
        // Oldest first.
        page.records.into_iter().rev().find(&wanted)
    })
    .await
}

/// Asks until there is an answer.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        sleep(ASK_EVERY).await;
    }
}
