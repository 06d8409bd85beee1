//! What the processes of a run use, and whether any is left, read from `/proc`.
//!
//! One scan of `/proc` serves every run of the worker: the cost grows with the processes of the
//! machine, not with its processes times its runs. Nothing is read while nobody asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::marker::{self, Process};
use super::proc::{Stat, processes, read};

/// What one process group uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Processor time of its members and of the children that they have waited for.
    pub(crate) cpu: Duration,
    /// Resident memory of its members; pages that they share are counted for each.
    pub(crate) rss_bytes: u64,
    /// Its processes that still run; a zombie does not.
    pub(crate) alive: Vec<i32>,
}

/// Every process group of the machine, by its id.
pub(crate) type Groups = HashMap<i32, Group>;

/// The shared view of `/proc`. Cheap to clone; clones share their scans.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census {
    groups: Shared<Groups>,
    processes: Shared<Vec<Process>>,
}

impl Census {
    /// The process groups as seen by a scan that began at `moment` or later. Callers that wait
    /// at the same time share one scan.
    pub(crate) async fn after(&self, moment: Instant) -> Arc<Groups> {
        self.groups.after(moment, scan).await
    }

    /// As [`Census::after`], every process with the run whose marker it carries.
    pub(crate) async fn processes_after(&self, moment: Instant) -> Arc<Vec<Process>> {
        self.processes.after(moment, marker::scan).await
    }
}

/// The last scan of one kind.
#[derive(Debug, Clone, Default)]
struct Shared<T>(Arc<Mutex<Option<Scan<T>>>>);

#[derive(Debug)]
struct Scan<T> {
    begun: Instant,
    seen: Arc<T>,
}

impl<T: Default + Send + Sync + 'static> Shared<T> {
    async fn after(&self, moment: Instant, scan: fn() -> T) -> Arc<T> {
        let mut last = self.0.lock().await;
        if let Some(scan) = last.as_ref()
            && scan.begun >= moment
        {
            return Arc::clone(&scan.seen);
        }
        let begun = Instant::now();
        let seen = Arc::new(tokio::task::spawn_blocking(scan).await.unwrap_or_default());
        *last = Some(Scan { begun, seen: Arc::clone(&seen) });
        seen
    }
}

/// What one process uses by itself; nothing if there is no such process.
pub(crate) fn of_process(pid: u32) -> Group {
    let mut group = Group::default();
    if let Some(stat) = read(&pid.to_string()) {
        group.add(&stat, &Units::of_this_machine());
    }
    group
}

fn scan() -> Groups {
    let units = Units::of_this_machine();
    let mut groups = Groups::new();
    for stat in processes() {
        groups.entry(stat.group).or_default().add(&stat, &units);
    }
    groups
}

impl Group {
    fn add(&mut self, stat: &Stat, units: &Units) {
        self.cpu += Duration::from_millis(stat.ticks.saturating_mul(1000) / units.ticks_per_second);
        if stat.runs {
            self.rss_bytes += stat.pages.saturating_mul(units.page_bytes);
            self.alive.push(stat.pid);
        }
    }
}

/// The units of `/proc/<pid>/stat`.
struct Units {
    ticks_per_second: u64,
    page_bytes: u64,
}

impl Units {
    fn of_this_machine() -> Self {
        let ask = |what, usual| {
            let answer = sysconf(what).ok().flatten();
            answer.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0).unwrap_or(usual)
        };
        Self {
            ticks_per_second: ask(SysconfVar::CLK_TCK, 100),
            page_bytes: ask(SysconfVar::PAGE_SIZE, 4096),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scan_is_shared_until_a_newer_one_is_asked_for() {
        let census = Census::default();
        let start = Instant::now();
        let first = census.after(start).await;
        assert!(Arc::ptr_eq(&first, &census.after(start).await));
        assert!(!Arc::ptr_eq(&first, &census.after(Instant::now()).await));
        let group = nix::unistd::getpgrp().as_raw();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(first[&group].alive.contains(&me));
    }
}
