//! Runs of an earlier life of the worker, which was killed together with its guard.
//!
//! A worker keeps an empty file for each live run in its state folder. When it starts, it ends what
//! carries the marker of such a run. So nothing is touched that belongs to another worker or another
//! fleet, nor what a run that had ended by itself has left in the background.
//! A start that still hangs carries no marker yet; it comes to nothing by itself, for its worker is
//! gone.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carillon_core::id::RunId;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::cgroup::Cgroups;
use super::marker::{self, Process};
use super::usage::Census;

/// Between SIGTERM and SIGKILL: a job's usual grace. That of its own is not known any more.
const GRACE: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// The list of live runs.
#[derive(Debug, Clone)]
pub(super) struct Ledger(PathBuf);

impl Ledger {
    /// One in the folder `live` of this one.
    pub(super) fn new(folder: &Path) -> Self {
        let folder = folder.join("live");
        if let Err(e) = fs::create_dir_all(&folder) {
            warn!("cannot keep a list of live runs in {}: {e}", folder.display());
        }
        Self(folder)
    }

    /// What is on it.
    pub(super) fn runs(&self) -> Vec<RunId> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// The run is about to be started. Where this fails, only its trace is missing.
    pub(super) async fn begin(&self, run: RunId) {
        tokio::fs::File::create(self.0.join(run.to_string())).await.ok();
    }

    /// Nothing of the run is to be ended any more.
    pub(super) async fn end(&self, run: RunId) {
        match tokio::fs::remove_file(self.0.join(run.to_string())).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                warn!(%run, "cannot strike the run off the list of live ones: {e}");
            }
            _ => {}
        }
    }
}

/// Ends what is left of `runs`, and strikes them off. What an earlier guard still looks after is left
/// to it.
pub(super) async fn end(
    ledger: Ledger,
    runs: Vec<RunId>,
    census: Census,
    cgroups: Option<Cgroups>,
) {
    if let Some(cgroups) = &cgroups {
        cgroups.tidy();
    }
    let mut runs: BTreeMap<RunId, HashSet<i32>> =
        runs.into_iter().map(|run| (run, HashSet::new())).collect();
    let mut asked = HashSet::new();
    let mut kill_at = None;
    while !runs.is_empty() {
        let all = census.processes_after(Instant::now()).await;
        let mut over = Vec::new();
        for (&run, groups) in &mut runs {
            let keeper = keeper_of(&all, run);
            let inside = cgroups.as_ref().map(|c| c.processes(run)).unwrap_or_default();
            let left = marker::of_run(&all, run, keeper.map(|k| k.pid), &inside, groups);
            if left.is_empty() {
                over.push(run);
            } else if !keeper.is_some_and(is_guarded) {
                if kill_at.is_none() {
                    let pids: Vec<i32> = left.iter().map(|process| process.pid).collect();
                    warn!(%run, ?pids, "ending what an earlier life of this worker has left");
                }
                let kill = Instant::now() >= *kill_at.get_or_insert(Instant::now() + GRACE);
                let (signal, again) =
                    if kill { (Signal::KILL, true) } else { (Signal::TERM, false) };
                let due = |p: &&&Process| asked.insert((p.pid, p.started)) || again;
                let signalled = left.iter().filter(due).map(|p| p.signal(signal));
                let refused = signalled.filter(|permitted| !permitted).count();
                if kill && refused == left.len() {
                    warn!(%run, "not permitted to kill what is left of it");
                    over.push(run);
                }
            }
        }
        for run in over {
            info!(%run, "nothing is left of a run of an earlier life");
            runs.remove(&run);
            if let Some(cgroups) = &cgroups {
                cgroups.remove(run);
            }
            ledger.end(run).await;
        }
        if !runs.is_empty() {
            sleep(PAUSE).await;
        }
    }
}

/// The keeper of a run, where one is left: the parent of something that carries the marker.
fn keeper_of(all: &[Process], run: RunId) -> Option<&Process> {
    let marked = all.iter().filter(|p| p.run == Some(run));
    let parents: HashSet<i32> = marked.map(|p| p.parent).collect();
    all.iter().find(|p| p.is_keeper && parents.contains(&p.pid))
}

/// Whether the keeper's guard is still there.
fn is_guarded(keeper: &Process) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", keeper.parent));
    name.is_ok_and(|name| name.trim_end() == marker::GUARD)
}
