//! A fleet under trial: three members of etcd, workers behind a network that can fail, jobs that
//! the [`oracle`] follows, and every fault that is done to them.
//!
//! A fault is over when its method returns: what it stopped runs again. What the fleet has to do
//! about it may still be under way; [`Trial::verify`] waits for that and judges.

mod faults;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use carillon_core::etcd::Etcd;
use carillon_core::id::RunId;
use chrono::{DateTime, TimeDelta, Utc};
use etcd_client::Client as EtcdClient;
use mongodb::Client as MongoClient;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::fleet::{Fleet, Options as FleetOptions, WorkerOptions};
use crate::namespace::Namespace;
use crate::oracle::check::{Evidence, Expectation, Report, check};
use crate::oracle::expected::{Era, Healthy};
use crate::oracle::witness::{Line, Witness};
use crate::oracle::{self, Since};
use crate::process::tail;
use crate::proxy::Proxy;
use crate::stack::{Options as StackOptions, Stack};

pub use faults::{CutOff, POINTS};

/// Long enough for anything that works, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How soon every worker knows the same jobs as etcd.
const TABLES_AGREE: Duration = Duration::from_secs(5);
/// A file offers no event to wait for, so it is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long one request to a wounded etcd may take before it is sent again.
const ONE_TRY: Duration = Duration::from_secs(2);

/// A job as the trial makes it.
#[derive(Debug, Clone)]
pub struct Load {
    /// Seconds from slot to slot, counted from the Unix epoch.
    pub every: u32,
    /// `forbid`, `allow` or `replace`.
    pub concurrency: &'static str,
    /// How late a run may start, in seconds.
    pub deadline_secs: u32,
    /// What it does, in the words of the shell.
    pub work: &'static str,
    /// Further fields of the job.
    pub more: Value,
}

impl Default for Load {
    fn default() -> Self {
        let more = json!({});
        Self { every: 1, concurrency: "allow", deadline_secs: 60, work: "true", more }
    }
}

impl Load {
    fn era(&self, from: DateTime<Utc>) -> Era {
        Era {
            every: self.every.into(),
            overlaps: self.concurrency != "forbid",
            deadline: TimeDelta::seconds(self.deadline_secs.into()),
            from,
        }
    }

    fn job(&self, name: &str, witness: &Witness) -> Value {
        let mut job = json!({
            "name": name,
            "command": witness.command(self.work),
            "cronExpr": format!("@every {}s", self.every),
            "concurrency": self.concurrency,
            "startDeadlineSecs": self.deadline_secs,
            // So that the runs of a dead worker are settled soon.
            "killGraceSecs": 1,
        });
        if let (Some(job), Some(more)) = (job.as_object_mut(), self.more.as_object()) {
            job.extend(more.clone());
        }
        job
    }
}

/// How a trial is made up.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many workers there are.
    pub workers: usize,
    /// Further arguments for etcd's members.
    pub etcd_arguments: Vec<String>,
    /// Where data and logs go, and stay; `None` for a temporary folder.
    pub folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 3, etcd_arguments: Vec::new(), folder: None }
    }
}

/// What stands between one worker and the rest of the world.
struct Link {
    etcd: Vec<Proxy>,
    mongo: Proxy,
    /// How many milliseconds its clock is off.
    clock: PathBuf,
    /// Where it is, if not on this machine.
    namespace: Option<Namespace>,
}

/// A fleet under trial. Dropping it ends everything.
pub struct Trial {
    // Before the stack, so that the workers end first.
    fleet: Fleet,
    links: BTreeMap<String, Link>,
    stack: Stack,
    mongo: MongoClient,
    witness: Witness,
    folder: TempDir,
    expected: Expectation,
    evidence: Evidence,
    /// Since when the fleet is able to run what is due.
    healthy_since: Option<DateTime<Utc>>,
    probes: u32,
}

impl Trial {
    /// Starts three members of etcd, MongoDB and the workers `w1`, `w2`, ….
    ///
    /// # Errors
    ///
    /// When something does not start.
    pub async fn start(options: Options) -> Result<Self> {
        let stack_options = StackOptions {
            etcd_nodes: 3,
            etcd_arguments: options.etcd_arguments,
            folder: options.folder.clone(),
            ..StackOptions::default()
        };
        // What starts processes is a large future, so it is boxed.
        let stack = Box::pin(Stack::start_with(&stack_options)).await?;
        let folder = TempDir::new_in(stack.folder()).context("cannot make a folder")?;
        let arguments = ["--drain-timeout", "5"].map(str::to_owned).to_vec();
        let fleet_options = FleetOptions { arguments, folder: options.folder, prefix: None };
        let mut trial = Self {
            fleet: Box::pin(Fleet::start_with(&stack, 0, fleet_options)).await?,
            links: BTreeMap::new(),
            mongo: stack.mongo().await?,
            witness: Witness::in_folder(folder.path()),
            stack,
            folder,
            expected: Expectation::default(),
            evidence: Evidence::default(),
            healthy_since: None,
            probes: 0,
        };
        for number in 1..=options.workers {
            Box::pin(trial.start_worker(&format!("w{number}"), &[])).await?;
        }
        trial.is_well();
        Ok(trial)
    }

    /// Starts a worker behind a network of its own, with further arguments. Its name has to be
    /// free, which that of a killed one is when its lease has ended.
    ///
    /// # Errors
    ///
    /// When it does not start or register in time.
    pub async fn start_worker(&mut self, id: &str, arguments: &[&str]) -> Result<()> {
        self.start_worker_in(id, arguments, Vec::new()).await
    }

    /// As [`start_worker`](Self::start_worker), one that libfaketime shows another time: real time
    /// and `offset`, such as `+90s`. Returns whether it is installed.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn start_worker_deceived(&mut self, id: &str, offset: &str) -> Result<bool> {
        let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
        let library = |folder| Path::new(folder).join("faketime/libfaketimeMT.so.1");
        let Some(library) = folders.map(library).into_iter().find(|path| path.exists()) else {
            return Ok(false);
        };
        let environment = [
            ("LD_PRELOAD", library.to_string_lossy().into_owned()),
            ("FAKETIME", offset.to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        self.start_worker_in(id, &[], environment.to_vec()).await?;
        Ok(true)
    }

    async fn start_worker_in(
        &mut self,
        id: &str,
        arguments: &[&str],
        environment: Vec<(String, String)>,
    ) -> Result<()> {
        if !self.links.contains_key(id) {
            let link = self.lay(id, None).await?;
            self.links.insert(id.to_owned(), link);
        }
        let link = self.link(id)?;
        let etcd: Vec<String> =
            link.etcd.iter().map(|proxy| format!("http://{}", proxy.address())).collect();
        let mongo = format!("mongodb://{}/?directConnection=true", link.mongo.address());
        let clock = link.clock.to_string_lossy().into_owned();
        let through = link.namespace.as_ref().map(Namespace::enter).unwrap_or_default();
        let name = format!("name={id}");
        let own = ["--label", &name, "--clock-offset-file", &clock];
        let arguments = own.iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
        let (etcd, mongo) = (Some(etcd.join(",")), Some(mongo));
        let options = WorkerOptions { etcd, mongo, arguments, environment, through };
        self.fleet.add_with(id, &options).await
    }

    /// As [`start_worker`](Self::start_worker), one at the end of a cable. Returns whether this
    /// machine can do that.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn start_worker_far(&mut self, id: &str) -> Result<bool> {
        let Some(namespace) = Namespace::make()? else { return Ok(false) };
        let link = self.lay(id, Some(namespace)).await?;
        self.links.insert(id.to_owned(), link);
        self.start_worker(id, &[]).await?;
        Ok(true)
    }

    /// Lays the network between a worker and the servers.
    async fn lay(&self, id: &str, namespace: Option<Namespace>) -> Result<Link> {
        let address = namespace.as_ref().map_or(Ipv4Addr::LOCALHOST, Namespace::outside);
        let mut etcd = Vec::new();
        for port in self.stack.etcd_ports() {
            etcd.push(Proxy::start(address, port).await?);
        }
        let mongo = Proxy::start(address, self.stack.mongo_port()).await?;
        let clock = self.folder.path().join(format!("{id}.clock"));
        Ok(Link { etcd, mongo, clock, namespace })
    }

    fn link(&self, id: &str) -> Result<&Link> {
        self.links.get(id).with_context(|| format!("there is no worker {id}"))
    }

    /// The workers that run.
    #[must_use]
    pub fn workers(&self) -> Vec<String> {
        self.fleet.ids().map(str::to_owned).collect()
    }

    /// The workers' processes.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The servers.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// What the log of a worker says, from its first start on.
    #[must_use]
    pub fn log(&self, id: &str) -> String {
        fs::read_to_string(self.fleet.log(id)).unwrap_or_default()
    }

    /// Saves a job, new or changed, and has the oracle expect its slots.
    ///
    /// # Errors
    ///
    /// When etcd does not take it.
    pub async fn put(&mut self, name: &str, load: &Load) -> Result<()> {
        let from = Utc::now();
        self.write(name, Some(load.job(name, &self.witness).to_string())).await?;
        self.expect(name, load.era(from));
        Ok(())
    }

    /// Saves a job as paused.
    ///
    /// # Errors
    ///
    /// When etcd does not take it.
    pub async fn pause(&mut self, name: &str, load: &Load) -> Result<()> {
        let from = Utc::now();
        let mut job = load.job(name, &self.witness);
        if let Some(job) = job.as_object_mut() {
            job.insert("enabled".to_owned(), json!(false));
        }
        self.write(name, Some(job.to_string())).await?;
        self.expect(name, Era { every: 0, ..load.era(from) });
        Ok(())
    }

    /// Deletes a job.
    ///
    /// # Errors
    ///
    /// When etcd does not take it.
    pub async fn delete(&mut self, name: &str) -> Result<()> {
        let from = Utc::now();
        self.write(name, None).await?;
        self.expect(name, Era { every: 0, ..Load::default().era(from) });
        Ok(())
    }

    fn expect(&mut self, name: &str, era: Era) {
        self.expected.lives.entry(name.to_owned()).or_default().0.push(era);
    }

    /// Puts or deletes a job's key, again while etcd does not answer.
    async fn write(&self, name: &str, value: Option<String>) -> Result<()> {
        let key = format!("{}/jobs/{name}", self.fleet.prefix());
        let until = Instant::now() + PATIENCE;
        loop {
            let written = async {
                let mut etcd = self.stack.etcd().await?;
                match &value {
                    Some(value) => etcd.put(key.as_str(), value.as_str(), None).await.map(drop),
                    None => etcd.delete(key.as_str(), None).await.map(drop),
                }
                .with_context(|| format!("cannot write {key}"))
            };
            match timeout(ONE_TRY, written).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if Instant::now() >= until => return Err(error),
                Err(_) if Instant::now() >= until => bail!("etcd does not take {key}"),
                _ => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until something that was written down is as `wanted`, and returns it.
    ///
    /// # Errors
    ///
    /// When nothing is within a minute.
    pub async fn line(&self, what: &str, wanted: impl Fn(&Line) -> bool) -> Result<Line> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.witness.lines()?.into_iter().find(&wanted) {
                return Ok(line);
            }
            if Instant::now() >= until {
                let logs: Vec<String> =
                    self.fleet.ids().map(|id| tail(&self.fleet.log(id))).collect();
                bail!("waited {PATIENCE:?} for {what}\n{}", logs.join("\n"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a job starts that starts after now.
    ///
    /// # Errors
    ///
    /// When none does within a minute.
    pub async fn fires(&self) -> Result<Line> {
        let now = Utc::now();
        self.line("any firing", |line| line.start && line.at > now).await
    }

    /// Waits until this worker runs a job that only it may run: it is well again.
    ///
    /// # Errors
    ///
    /// When it does not within a minute.
    pub async fn works(&mut self, id: &str) -> Result<()> {
        self.probes += 1;
        let name = format!("probe-{}", self.probes);
        let load = Load { more: json!({"selector": {"name": id}}), ..Load::default() };
        self.write(&name, Some(load.job(&name, &self.witness).to_string())).await?;
        self.line(&format!("worker {id} to run {name}"), |line| line.job == name).await?;
        self.write(&name, None).await
    }

    /// From now on the fleet is able to run what is due.
    pub fn is_well(&mut self) {
        self.healthy_since.get_or_insert_with(Utc::now);
    }

    /// From now on it is not, by no fault of its own.
    pub fn is_ill(&mut self) {
        let to = Utc::now();
        if let Some(from) = self.healthy_since.take() {
            self.expected.healthy.push(Healthy { from, to });
        }
    }

    /// Waits until everything that is decided by now is settled, and judges all that has been.
    ///
    /// # Errors
    ///
    /// When a server does not answer, or something is not settled within a minute.
    pub async fn verify(&mut self) -> Result<Report> {
        let mut etcd = self.stack.etcd().await?;
        let since = Since::of(&self.evidence);
        let found = oracle::gather(
            &mut etcd,
            &self.mongo,
            self.fleet.prefix(),
            &self.witness,
            since,
            PATIENCE,
        )
        .await?;
        self.evidence.take_in(found);
        let urls = self.stack.etcd_member_urls();
        let core = Etcd::connect(&urls, self.fleet.keys().clone()).await?;
        oracle::tables_agree(&core, TABLES_AGREE).await?;
        let left_behind = self.left_behind();
        ensure!(left_behind.is_empty(), "processes of runs that are over live: {left_behind:?}");
        Ok(self.judge())
    }

    /// As [`verify`](Self::verify), with all records read anew.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn verify_anew(&mut self) -> Result<Report> {
        self.evidence = Evidence::default();
        self.verify().await
    }

    fn judge(&self) -> Report {
        let mut expected = self.expected.clone();
        let now = self.healthy_since.map(|from| Healthy { from, to: Utc::now() });
        expected.healthy.extend(now);
        check(&expected, &self.evidence)
    }

    /// The processes of runs that are over: see [`oracle::left_behind`].
    #[must_use]
    pub fn left_behind(&self) -> Vec<(RunId, u32)> {
        oracle::left_behind(&self.evidence)
    }

    async fn etcd(&self) -> Result<EtcdClient> {
        self.stack.etcd().await
    }
}
