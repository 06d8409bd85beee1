//! All of Carillon on one machine, with sample jobs: what `make demo` shows and what the picture
//! in the README is taken from.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use carillon_core::records::{HistoryFilter, Records};
use carillon_core::run::{Outcome, RunRecord};
use futures::StreamExt;
use mongodb::bson::Document;
use tokio::time::timeout;

use crate::fleet::{self, Fleet};
use crate::programs;
use crate::stack::{self, Stack};

/// Where the sample jobs are, below the root of the checkout.
pub const JOBS: &str = "tests/demo-jobs.json";

/// The key prefix: the default one, so that no command needs to name it.
const PREFIX: &str = carillon_core::keys::DEFAULT_PREFIX;
/// How many workers there are.
const WORKERS: usize = 3;
/// How long the workers may take to end before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running demo. Dropping it ends everything at once; [`stop`](Self::stop) does it in order.
pub struct Demo {
    fleet: Fleet,
    stack: Stack,
    folder: PathBuf,
    /// Locked for as long as the demo runs; the system unlocks it however the demo ends.
    _lock: File,
}

impl Demo {
    /// Starts the servers and the workers and saves the sample jobs, with data and logs in
    /// `folder`, whose former content goes. `tell` is told what is being done.
    ///
    /// # Errors
    ///
    /// When a demo is running in that folder, or something does not start; then with the end of
    /// its log.
    pub async fn start(folder: &Path, tell: impl Fn(&str)) -> Result<Self> {
        let lock = claim(folder)?;
        empty(folder)?;
        let mut stack = Stack::prepare(&stack::Options {
            folder: Some(folder.to_owned()),
            ..stack::Options::default()
        })?;
        tell(&format!("starting {}", stack.places().join(" and ")));
        stack.launch().await?;

        tell(&format!("starting {WORKERS} workers"));
        let options = fleet::Options {
            prefix: Some(PREFIX.to_owned()),
            folder: Some(folder.to_owned()),
            // Whoever leaves the console does not want to wait for the jobs.
            arguments: ["--drain-timeout", "1"].map(str::to_owned).to_vec(),
        };
        let fleet = Fleet::start_with(&stack, WORKERS, options).await?;

        let demo = Self { fleet, stack, folder: folder.to_owned(), _lock: lock };
        tell("saving the sample jobs");
        demo.save_jobs()?;
        Ok(demo)
    }

    /// The two servers.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The key prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.fleet.prefix()
    }

    /// The arguments with which `carillon` finds this demo.
    #[must_use]
    pub fn connection(&self) -> Vec<String> {
        let (etcd, mongo) = (self.stack.etcd_url(), self.stack.mongo_uri());
        vec!["--etcd".to_owned(), etcd, "--mongo".to_owned(), mongo]
    }

    /// A command line with `carillon`, which finds this demo.
    ///
    /// # Errors
    ///
    /// When it has not been built.
    pub fn carillon(&self) -> Result<Command> {
        let mut command = Command::new(programs::own("carillon")?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARILLON_") {
                command.env_remove(name);
            }
        }
        command.args(self.connection());
        Ok(command)
    }

    /// Saves the sample jobs as a user would.
    fn save_jobs(&self) -> Result<()> {
        let jobs = programs::root().join(JOBS);
        let output = self
            .carillon()?
            .arg("apply")
            .arg("-f")
            .arg(&jobs)
            .stdin(Stdio::null())
            .output()
            .context("cannot run carillon")?;
        ensure!(
            output.status.success(),
            "carillon apply -f {} failed ({}): {}",
            jobs.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }

    /// Waits until `count` runs have succeeded, and returns the newest of them.
    ///
    /// # Errors
    ///
    /// When they have not within `limit`; then with the end of a worker's log.
    pub async fn succeeded(&self, count: usize, limit: Duration) -> Result<RunRecord> {
        let finished = timeout(limit, async {
            let records = Records::connect(&self.stack.mongo_uri(), PREFIX).await?;
            let log = self.stack.mongo().await?.database("cron").collection::<Document>("log");
            let mut changes = log.watch().await.context("cannot watch the run records")?;
            let filter =
                HistoryFilter { outcome: Some(Outcome::Succeeded), ..HistoryFilter::default() };
            loop {
                let mut page = records.history(&filter, None, count).await?.records;
                if page.len() >= count && !page.is_empty() {
                    return Ok(page.swap_remove(0));
                }
                match changes.next().await {
                    Some(change) => drop(change.context("cannot watch the run records")?),
                    None => bail!("the watch on the run records ended"),
                }
            }
        });
        match finished.await {
            Ok(record) => record,
            Err(_) => Err(anyhow!(
                "fewer successful runs than {count} within {limit:?}\n{}",
                crate::process::tail(&self.fleet.log("w1"))
            )),
        }
    }

    /// Ends the workers, then the servers. The logs stay in the folder.
    ///
    /// # Errors
    ///
    /// When a process cannot be awaited.
    pub async fn stop(mut self) -> Result<()> {
        self.fleet.stop_all(STOP_LIMIT).await
    }

    /// Where the data and the logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Makes the folder this demo's own.
fn claim(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join("lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Who it is helps, but is not known in the moment before it has been written.
            let _ = lock.read_to_string(&mut owner);
            let owner = owner.trim();
            bail!(
                "a demo is already running in {} (process {owner}): leave its console, or run \
                 `kill {owner}`",
                folder.display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(lock)
}

/// Removes everything from the folder but its lock.
fn empty(folder: &Path) -> Result<()> {
    let remove = || -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() != "lock" {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().with_context(|| format!("cannot empty {}", folder.display()))
}
