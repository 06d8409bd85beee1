//! Worker processes: started, awaited until they are registered, stopped in every way there is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use carillon_core::id::WorkerId;
use carillon_core::keys::Keys;
use etcd_client::{Client as EtcdClient, EventType, WatchOptions};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::faults::Doomed;
use crate::process::{Process, Spec};
use crate::programs;
use crate::stack::Stack;

/// How long a worker may take to register. The name of one that was killed is free again only
/// when its lease has run out, after ten seconds.
const REGISTER_LIMIT: Duration = Duration::from_secs(30);
/// How long a worker may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How a fleet is made up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The key prefix; `None` for one that nobody else uses.
    pub prefix: Option<String>,
    /// Where state and logs go; `None` for a temporary folder that goes with the fleet.
    pub folder: Option<PathBuf>,
    /// Further arguments for every worker, such as `--drain-timeout` and its value.
    pub arguments: Vec<String>,
}

/// How one worker differs from the others.
#[derive(Debug, Clone, Default)]
pub struct WorkerOptions {
    /// Where it finds etcd, such as behind a proxy; `None` for the stack's own address.
    pub etcd: Option<String>,
    /// Where it finds MongoDB; behind a proxy with `?directConnection=true`, or the driver would
    /// go on to the address that the server gives itself.
    pub mongo: Option<String>,
    /// Further arguments, such as `--fault` and a point.
    pub arguments: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// What becomes the worker, such as `ip netns exec` and a name.
    pub through: Vec<String>,
}

/// Workers under one key prefix. Dropping it kills them and all that they started.
pub struct Fleet {
    workers: BTreeMap<String, Process>,
    keys: Keys,
    etcd_url: String,
    mongo_uri: String,
    etcd: EtcdClient,
    options: Options,
    /// What killed workers had started: it is left alone until the fleet goes.
    strays: Doomed,
    folder: PathBuf,
    /// After the workers, so that it is removed when they are gone.
    _temporary: Option<TempDir>,
}

impl Fleet {
    /// Starts workers `w1` to `w<count>` under a prefix of their own.
    ///
    /// # Errors
    ///
    /// When one does not start or does not register in time; then with the end of its log.
    pub async fn start(stack: &Stack, count: usize) -> Result<Self> {
        Self::start_with(stack, count, Options::default()).await
    }

    /// As [`start`](Self::start), made up as `options` say.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(stack: &Stack, count: usize, options: Options) -> Result<Self> {
        let prefix = options.prefix.clone().unwrap_or_else(|| stack.fresh_prefix());
        let (folder, temporary) = if let Some(folder) = &options.folder {
            (folder.clone(), None)
        } else {
            let temporary = TempDir::new_in(stack.folder()).context("cannot make a folder")?;
            (temporary.path().to_owned(), Some(temporary))
        };
        let mut fleet = Self {
            workers: BTreeMap::new(),
            keys: Keys::new(&prefix)?,
            etcd_url: stack.etcd_url(),
            mongo_uri: stack.mongo_uri(),
            etcd: stack.etcd().await?,
            options,
            strays: Doomed::default(),
            folder,
            _temporary: temporary,
        };
        let ids: Vec<String> = (1..=count).map(|number| format!("w{number}")).collect();
        // They start at the same time, as after a power cut.
        let mut since = Vec::new();
        for id in &ids {
            since.push(fleet.spawn(id, &WorkerOptions::default()).await?);
        }
        for (id, since) in ids.iter().zip(since) {
            fleet.registered(id, since).await?;
        }
        Ok(fleet)
    }

    /// Starts one worker, or starts one again that was stopped or killed.
    ///
    /// # Errors
    ///
    /// When it is running, does not start or does not register in time.
    pub async fn add(&mut self, id: &str) -> Result<()> {
        self.add_with(id, &WorkerOptions::default()).await
    }

    /// As [`add`](Self::add), one that is made up as `options` say.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub async fn add_with(&mut self, id: &str, options: &WorkerOptions) -> Result<()> {
        let since = self.spawn(id, options).await?;
        self.registered(id, since).await
    }

    /// Starts one worker and does not wait for it, as while etcd is away.
    ///
    /// # Errors
    ///
    /// When it is running or does not start.
    pub fn launch(&mut self, id: &str) -> Result<()> {
        self.start_process(id, &WorkerOptions::default())
    }

    /// Waits for a worker that ends by itself, such as at the point of `--fault`, at most so long.
    /// What it started is left alone until the fleet goes.
    ///
    /// # Errors
    ///
    /// When it is not running, or still there afterwards.
    pub async fn ended(&mut self, id: &str, limit: Duration) -> Result<ExitStatus> {
        let process =
            self.workers.get_mut(id).with_context(|| format!("worker {id} is not running"))?;
        let status = process.exited_within(limit).await?;
        let status = status.with_context(|| format!("worker {id} still runs after {limit:?}"))?;
        self.workers.remove(id);
        Ok(status)
    }

    /// Asks a worker to end, with SIGTERM, and waits for it.
    ///
    /// # Errors
    ///
    /// When it is not running or does not end in time.
    pub async fn stop(&mut self, id: &str) -> Result<ExitStatus> {
        self.take(id)?.terminate(STOP_LIMIT).await
    }

    /// Kills a worker, with SIGKILL. What it started is left alone until the fleet goes.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn kill9(&mut self, id: &str) -> Result<ExitStatus> {
        let mut process = self.take(id)?;
        self.strays.add_descendants(process.pid());
        process.kill()
    }

    /// Freezes a worker; what it started goes on.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause(&self, id: &str) -> Result<()> {
        self.worker(id)?.pause()
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume(&self, id: &str) -> Result<()> {
        self.worker(id)?.resume()
    }

    /// Asks all workers to end, at the same time, and kills those that have not within `limit`.
    ///
    /// # Errors
    ///
    /// When a process cannot be awaited.
    pub async fn stop_all(&mut self, limit: Duration) -> Result<()> {
        for process in self.workers.values() {
            // One that has ended already needs no asking.
            let _ = process.signal(Signal::TERM);
        }
        let deadline = tokio::time::Instant::now() + limit;
        for process in self.workers.values_mut() {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            process.exited_within(left).await?;
        }
        self.kill_all();
        Ok(())
    }

    /// The running worker's process.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn worker(&self, id: &str) -> Result<&Process> {
        self.workers.get(id).with_context(|| format!("worker {id} is not running"))
    }

    /// The ids of the workers that were started and neither stopped nor killed since.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.workers.keys().map(String::as_str)
    }

    /// The keys of this fleet.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The key prefix, which is also the `fleet` of its records.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.keys.fleet()
    }

    /// Where a worker logs to.
    #[must_use]
    pub fn log(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.log"))
    }

    fn kill_all(&mut self) {
        for process in self.workers.values() {
            self.strays.add_descendants(process.pid());
        }
        self.workers.clear();
        self.strays.kill();
    }

    fn take(&mut self, id: &str) -> Result<Process> {
        self.workers.remove(id).with_context(|| format!("worker {id} is not running"))
    }

    /// Starts the process, and returns the revision after which it will register.
    async fn spawn(&mut self, id: &str, options: &WorkerOptions) -> Result<i64> {
        let key = self.key(id)?;
        let answer = self.etcd.get(key, None).await.context("cannot read from etcd")?;
        let revision = answer.header().context("etcd answered without a revision")?.revision();
        self.start_process(id, options)?;
        Ok(revision)
    }

    fn start_process(&mut self, id: &str, options: &WorkerOptions) -> Result<()> {
        ensure!(!self.workers.contains_key(id), "worker {id} is already running");
        let state = self.folder.join(id);
        fs::create_dir_all(&state)
            .with_context(|| format!("cannot make the folder {}", state.display()))?;
        let worker = programs::own("carillon-worker")?;
        let mut spec = match options.through.split_first() {
            Some((first, rest)) => Spec::new(Path::new(first)).args(rest).arg(&worker),
            None => Spec::new(&worker),
        }
        .without_env("CARILLON_");
        for (name, value) in &options.environment {
            spec = spec.env(name, value);
        }
        let process = spec
            .args(["--etcd", options.etcd.as_ref().unwrap_or(&self.etcd_url)])
            .args(["--mongo", options.mongo.as_ref().unwrap_or(&self.mongo_uri)])
            .args(["--prefix", self.keys.fleet()])
            .args(["--id", id])
            .args([Path::new("--state-dir"), &state])
            .args(&self.options.arguments)
            .args(&options.arguments)
            .spawn(&self.log(id))?;
        self.workers.insert(id.to_owned(), process);
        Ok(())
    }

    /// Waits until the worker has put its registration, after the revision `since`.
    async fn registered(&mut self, id: &str, since: i64) -> Result<()> {
        let key = self.key(id)?;
        let etcd = &mut self.etcd;
        let process =
            self.workers.get_mut(id).with_context(|| format!("worker {id} is not running"))?;
        let outcome = tokio::select! {
            put = timeout(REGISTER_LIMIT, put_after(etcd, &key, since)) => match put {
                Ok(put) => put,
                Err(_) => Err(anyhow!("worker {id} has not put {key} after {REGISTER_LIMIT:?}")),
            },
            ended = process.exited_within(REGISTER_LIMIT) => match ended {
                Ok(Some(status)) => Err(anyhow!("worker {id} ended before it registered: {status}")),
                Ok(None) => Err(anyhow!("worker {id} has not put {key} after {REGISTER_LIMIT:?}")),
                Err(error) => Err(error),
            },
        };
        outcome.map_err(|error| {
            let tail = self.workers.remove(id).map(|process| process.log_tail());
            anyhow!("{error:#}\n{}", tail.unwrap_or_default())
        })
    }

    fn key(&self, id: &str) -> Result<String> {
        Ok(self.keys.worker(&id.parse::<WorkerId>()?))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Waits until `key` is put in a revision after `since`.
///
/// # Errors
///
/// When etcd does not answer, or ends the watch.
pub async fn put_after(etcd: &mut EtcdClient, key: &str, since: i64) -> Result<()> {
    let options = WatchOptions::new().with_start_revision(since + 1);
    let mut watch = etcd.watch(key, Some(options)).await.context("cannot watch etcd")?;
    while let Some(answer) = watch.message().await.context("the watch broke off")? {
        ensure!(!answer.canceled(), "etcd ended the watch on {key}: {}", answer.cancel_reason());
        if answer.events().iter().any(|event| event.event_type() == EventType::Put) {
            return Ok(());
        }
    }
    Err(anyhow!("etcd ended the watch on {key}"))
}
