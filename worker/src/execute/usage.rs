//! What the processes of a run use, and whether any is left, read from `/proc`.
//!
//! One scan of `/proc` serves every run of the worker: the cost grows with the processes of the
//! machine, not with its processes times its runs. Nothing is read while nobody asks.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::marker::{self, Process};

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

/// Every process of the machine, zombies too.
pub(super) fn processes() -> impl Iterator<Item = Stat> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        name.starts_with(|c: char| c.is_ascii_digit()).then(|| read(name))?
    })
}

/// The process of this id; nothing if there is none.
pub(super) fn read(pid: &str) -> Option<Stat> {
    // The command name in it is any bytes that the process likes.
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    Stat::parse(&String::from_utf8_lossy(&bytes))
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

/// The fields of `/proc/<pid>/stat` that matter here; their numbers are those of proc(5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    name: String,
    pub(super) runs: bool,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    ticks: u64,
    /// Since boot, in clock ticks.
    pub(super) started: u64,
    pages: u64,
}

impl Stat {
    /// Whether this is its name, as in /proc/PID/comm.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name
    }

    fn parse(text: &str) -> Option<Self> {
        // Field 2, the command name, is in parentheses and may itself contain `) R 1 2`.
        let (pid, rest) = text.split_once(' ')?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |n| field(n)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.strip_prefix('(')?.to_owned(),
            runs: !matches!(field(3)?, "Z" | "X" | "x"),
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            ticks: number(14)? + number(15)? + number(16)? + number(17)?,
            started: number(22)?,
            pages: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let tail = "S 1 77 77 0 -1 4194304 117 0 0 0 3 4 5 6 20 0 1 0 725699 3133440 394 1 1 1";
        for name in ["(cat)", "(a b)", "() R 1 2 3)", "(\u{fffd})"] {
            let stat = Stat::parse(&format!("80 {name} {tail}")).unwrap();
            let expected = Stat {
                pid: 80,
                name: name[1..name.len() - 1].to_owned(),
                runs: true,
                parent: 1,
                group: 77,
                session: 77,
                ticks: 18,
                started: 725_699,
                pages: 394,
            };
            assert_eq!(stat, expected, "{name}");
        }
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::parse("80 (cat) S 1"), None);
    }

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
