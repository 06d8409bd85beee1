//! The guard: a small process beside the worker that ends its runs when the worker cannot.
//!
//! A worker that is killed leaves its children behind, and one that is frozen past its lease runs
//! what the fleet has settled as lost. So the worker tells a second process of its own program,
//! `carillon-worker guard`, which runs there are and until when its lease is certain. The guard
//! ends the runs when the pipe from the worker closes, and those that are not to outlive the lease
//! when its deadline passes: SIGTERM, the run's grace, SIGKILL, until nothing carries their marker.
//! It is in a session of its own, where no ctrl-C and no kill of a process group reaches it.
//!
//! [`Guard`] is the worker's side, `serve` the other. The guard decides nothing that the worker
//! can decide itself, and knows neither etcd nor jobs.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use carillon_core::id::RunId;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, warn};

use line::{Line, Terms};

pub(crate) use serve::serve;

mod line;
mod serve;
#[cfg(test)]
mod tests;

/// How long a start waits for the guard to be told of it. Only a guard that is just being started
/// again takes as long; the run then starts all the same.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long the guard may leave its full pipe unread before it is started again.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// The first and the longest pause before it is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// A guard that has lived so long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(10);

/// The worker's handle on its guard. Cheap to clone; when the last clone is dropped, or the worker
/// dies, the guard ends every run that has not ended, and then itself.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    known: watch::Sender<Known>,
    /// Up to which change of `known` the guard has been told.
    told: watch::Receiver<u64>,
}

/// What the guard has to know. The newest is told, however often it changed meanwhile: nothing
/// queues up, and a new guard is told all of it.
#[derive(Debug, Default)]
struct Known {
    runs: BTreeMap<RunId, Terms>,
    lease: Option<Duration>,
    changes: u64,
}

impl Guard {
    /// Starts the guard, and starts it again whenever it ends. Needs a runtime.
    pub(crate) fn start() -> Self {
        Self::start_as(&["guard"])
    }

    fn start_as(arguments: &'static [&'static str]) -> Self {
        let (known, to_tell) = watch::channel(Known::default());
        let (telling, told) = watch::channel(0);
        tokio::spawn(keep(arguments, to_tell, telling));
        Self { known, told }
    }

    /// To be awaited before a process of the run is started: from then on the guard ends the run
    /// when the worker dies, and unless `keep_on_lease_loss` when the lease runs out. `grace` is
    /// between SIGTERM and SIGKILL. Takes 200 ms at most, the hop to another task as a rule.
    pub(crate) async fn watch(&self, run: RunId, grace: Duration, keep_on_lease_loss: bool) {
        let change = self.change(|known| {
            known.runs.insert(run, Terms { grace, keep: keep_on_lease_loss });
        });
        let mut told = self.told.clone();
        if timeout(PATIENCE, told.wait_for(|&told| told >= change)).await.is_err() {
            warn!(%run, "starts before the guard knows of it");
        }
    }

    /// The run's shell was reaped: what it left behind is left alone. Never waits.
    pub(crate) fn ended(&self, run: RunId) {
        self.change(|known| {
            known.runs.remove(&run);
        });
    }

    /// Until when the worker's lease is certain, by [`crate::clock::since_boot`]: what its last
    /// acknowledged renewal was sent at, and the lease's time to live. When this passes, the guard
    /// ends the runs that were not to be kept; a later deadline does not save them. To be called
    /// before anything acts on a new lease. Until the first call there is no deadline. Never waits.
    pub(crate) fn lease_until(&self, since_boot: Duration) {
        self.change(|known| known.lease = Some(since_boot));
    }

    /// Returns the number of the change.
    fn change(&self, change: impl FnOnce(&mut Known)) -> u64 {
        let mut number = 0;
        self.known.send_modify(|known| {
            change(known);
            known.changes += 1;
            number = known.changes;
        });
        number
    }
}

impl Known {
    /// The lines that tell who knows `self` of `new`, which `self` then is. The lease comes first:
    /// a new run is under the new one.
    fn catch_up(&mut self, new: &Self) -> String {
        let lease = new.lease.filter(|_| new.lease != self.lease).map(Line::Lease);
        let gone = self.runs.keys().filter(|run| !new.runs.contains_key(run));
        let come = new.runs.iter().filter(|(run, _)| !self.runs.contains_key(run));
        let lines: Vec<Line> = lease
            .into_iter()
            .chain(gone.map(|&run| Line::End(run)))
            .chain(come.map(|(&run, &terms)| Line::Run(run, terms)))
            .collect();
        let mut text = String::new();
        for line in lines {
            text.push_str(&format!("{line}\n"));
            match line {
                Line::Run(run, terms) => drop(self.runs.insert(run, terms)),
                Line::End(run) => drop(self.runs.remove(&run)),
                Line::Lease(until) => self.lease = Some(until),
            }
        }
        text
    }
}

/// Keeps a guard running, and telling it, until every handle is dropped.
async fn keep(
    arguments: &'static [&'static str],
    mut known: watch::Receiver<Known>,
    told: watch::Sender<u64>,
) {
    let mut pause = PAUSES.0;
    loop {
        let begun = Instant::now();
        let Err(why) = one(arguments, &mut known, &told).await else { return };
        if begun.elapsed() > SETTLED {
            pause = PAUSES.0;
        }
        error!("no guard over the runs: {why}; starting one again");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Starts one guard and tells it what changes, until every handle is dropped.
///
/// # Errors
/// Why there is no guard now.
async fn one(
    arguments: &[&str],
    known: &mut watch::Receiver<Known>,
    told: &watch::Sender<u64>,
) -> Result<(), String> {
    let mut guard = start(arguments).map_err(|e| format!("it cannot be started: {e}"))?;
    let mut pipe = guard.stdin.take().ok_or("it has no pipe")?;
    let mut knows = Known::default();
    loop {
        let (text, change) = {
            let new = known.borrow_and_update();
            (knows.catch_up(&new), new.changes)
        };
        match timeout(READ_LIMIT, pipe.write_all(text.as_bytes())).await {
            Ok(Ok(())) => told.send_replace(change),
            failed => {
                // Before the pipe closes: it would take that for the worker's death.
                guard.kill().await.ok();
                let why = failed.map_or("it does not listen".to_owned(), |e| format!("{e:?}"));
                return Err(why);
            }
        };
        select! {
            status = guard.wait() => {
                return Err(status.map_or_else(|e| e.to_string(), |s| format!("it ended: {s}")));
            }
            changed = known.changed() => if changed.is_err() {
                return Ok(());
            },
        }
    }
}

fn start(arguments: &[&str]) -> io::Result<Child> {
    // The program that runs now, even if another has been installed in its place.
    Command::new("/proc/self/exe")
        .arg0("carillon-worker")
        .args(arguments)
        // It needs nothing of it, and must not carry the marker of a run that a worker is part of.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
}
