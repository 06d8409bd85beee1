//! Runs of an earlier life of the worker, which was killed together with its guard.
//!
//! A worker keeps a list of its live runs, the [ledger](super::ledger). When it starts, it ends what
//! carries the marker of a run that is on it. So nothing is touched that belongs to another worker
//! or another fleet, nor what a run that had ended by itself has left in the background.
//! A start that still hangs carries no marker yet; it comes to nothing by itself, for its worker is
//! gone.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::time::Duration;

use carillon_core::id::RunId;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::cgroup::Cgroups;
use super::ledger::Ledger;
use super::marker::{self, Process};
use super::usage::Census;

/// Between SIGTERM and SIGKILL: a job's usual grace. That of its own is not known any more.
const GRACE: Duration = Duration::from_secs(10);
/// Between two looks, and how many in a row must see nothing of a run: what executes a program has no
/// marker for a moment.
const PAUSE: Duration = Duration::from_millis(250);
const LOOKS: usize = 3;

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
    // With the groups of each, and how many times in a row nothing of it was seen.
    let mut runs: BTreeMap<RunId, (HashSet<i32>, usize)> =
        runs.into_iter().map(|run| (run, Default::default())).collect();
    let mut asked = HashSet::new();
    let mut kill_at = None;
    while !runs.is_empty() {
        let all = census.processes_after(Instant::now()).await;
        let mut over = Vec::new();
        for (&run, (groups, quiet)) in &mut runs {
            let keeper = keeper_of(&all, run);
            let inside = cgroups.as_ref().map(|c| c.processes(run)).unwrap_or_default();
            let left = marker::of_run(&all, run, keeper.map(|k| k.pid), &inside, groups);
            *quiet = if left.is_empty() { *quiet + 1 } else { 0 };
            if left.is_empty() {
                if *quiet == LOOKS {
                    over.push(run);
                }
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
            ledger.end(run);
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
