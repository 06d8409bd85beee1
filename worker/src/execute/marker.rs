//! The processes of a run, wherever they went: by the marker in their environment, and by descent.
//!
//! Every process of a run inherits `CARILLON_RUN=<run>`, so one that has left the group, the
//! session and its parent is still found. One that was given another environment, or has
//! overwritten it (`setproctitle`), is found by its group, its session, and by standing below the
//! run's keeper.

use std::collections::{HashMap, HashSet};
use std::fs;

use carillon_core::id::RunId;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::proc::{self, Stat};

/// What a guard is called, as in `ps`.
pub(super) const GUARD: &str = "carillon-guard";
/// What the keeper of a run is called; no other process of a worker is.
pub(super) const KEEPER: &str = "carillon-keeper";
/// What it is called until it has started the shell, and what becomes the shell until it does.
pub(super) const STARTER: &str = "carillon-start";
/// What the marker's entry in the environment begins with.
const MARKER: &[u8] = b"CARILLON_RUN=";

/// A process that runs; a zombie does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// The id of its parent.
    pub(crate) parent: i32,
    /// The id of its process group.
    pub(crate) group: i32,
    /// The id of its session.
    pub(crate) session: i32,
    /// When it started, in clock ticks since boot: with it an id is no other process's.
    pub(crate) started: u64,
    /// The run whose marker it carries.
    pub(crate) run: Option<RunId>,
    /// Whether it is called what a keeper is.
    pub(crate) is_keeper: bool,
    /// Whether it is called what a keeper is that has not started its shell.
    pub(crate) is_starter: bool,
    /// Whether it is called what a guard is, and a keeper that it has just forked off.
    pub(crate) is_guard: bool,
}

impl Process {
    fn of(stat: &Stat) -> Option<Self> {
        let run = || {
            // Empty for a moment while it executes a program; unreadable where it is not ours.
            let environment = fs::read(format!("/proc/{}/environ", stat.pid)).ok()?;
            let mut entries = environment.split(|&byte| byte == 0);
            let marker = entries.find_map(|entry| entry.strip_prefix(MARKER))?;
            std::str::from_utf8(marker).ok()?.parse().ok()
        };
        stat.runs.then(|| Self {
            pid: stat.pid,
            parent: stat.parent,
            group: stat.group,
            session: stat.session,
            started: stat.started,
            run: run(),
            is_keeper: stat.is_called(KEEPER) || stat.is_called(STARTER),
            is_starter: stat.is_called(STARTER),
            is_guard: stat.is_called(GUARD),
        })
    }

    /// Signals it, if it is still what was seen. Returns whether that is permitted.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let Some(Ok(handle)) =
            Pid::from_raw(self.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()))
        else {
            return true;
        };
        // Looked at while the handle is held: what is signalled is what is looked at, or nothing.
        let now = proc::read(&self.pid.to_string()).and_then(|stat| Self::of(&stat));
        // Its parent may have ended, its group and its environment have changed.
        let is_it = now.is_some_and(|now| now.started == self.started);
        !is_it || pidfd_send_signal(&handle, signal) != Err(Errno::PERM)
    }
}

/// Every process that runs on this machine.
pub(crate) fn scan() -> Vec<Process> {
    proc::processes().filter_map(|stat| Process::of(&stat)).collect()
}

/// Those of `all` that belong to the run: they carry its marker, are in a group or session that is
/// led by one that does, descend from its `keeper`, or are `inside` its control group; and the keeper
/// itself until it has started the shell, which it may do yet. `groups` keeps these groups from scan
/// to scan, because the leader may end first.
pub(crate) fn of_run<'a>(
    all: &'a [Process],
    run: RunId,
    keeper: Option<i32>,
    inside: &[i32],
    groups: &mut HashSet<i32>,
) -> Vec<&'a Process> {
    // The id of a group that was seen empty may pass to another.
    groups.retain(|group| all.iter().any(|p| p.group == *group || p.session == *group));
    let leaders = all.iter().filter(|p| p.run == Some(run) && p.pid == p.group);
    groups.extend(leaders.map(|p| p.group));
    let below = keeper.map(|keeper| below(all, keeper)).unwrap_or_default();
    let belongs = |p: &Process| match p.run {
        Some(marked) if marked == run => true,
        // A worker that runs within a run has runs of its own.
        Some(_) => false,
        None => {
            groups.contains(&p.group)
                || groups.contains(&p.session)
                || below.contains(&p.pid)
                || (p.is_starter || p.is_guard) && keeper == Some(p.pid)
                || inside.contains(&p.pid)
        }
    };
    all.iter().filter(|&p| belongs(p)).collect()
}

/// The descendants of a keeper; none of a process that is not one, or not any more.
fn below(all: &[Process], keeper: i32) -> HashSet<i32> {
    let mut found = HashSet::new();
    if !all.iter().any(|p| p.pid == keeper && p.is_keeper) {
        return found;
    }
    let mut children = HashMap::<i32, Vec<i32>>::new();
    for process in all {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let mut next = vec![keeper];
    while let Some(parent) = next.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            if found.insert(child) {
                next.push(child);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_its_carriers_and_the_groups_that_they_lead() {
        let (ours, other) = (RunId::FIRST, RunId::LAST);
        let process = |pid, group, run| Process { pid, group, run, ..Process::default() };
        let leader = process(10, 10, Some(ours));
        let rest = [
            process(11, 10, None),
            process(12, 12, None),
            process(13, 12, Some(ours)),
            process(14, 10, Some(other)),
        ];
        let mut groups = HashSet::new();
        let mut pids = |all: &[Process]| -> Vec<i32> {
            of_run(all, ours, None, &[], &mut groups).iter().map(|p| p.pid).collect()
        };
        let all = [&[leader][..], &rest].concat();
        assert_eq!(pids(&all), [10, 11, 13]);
        assert_eq!(pids(&rest), [11, 13], "the leader has ended");
        assert_eq!(pids(&rest[1..3]), [13]);
        assert_eq!(pids(&rest[..2]), [] as [i32; 0], "the group was seen empty");
    }

    #[test]
    fn what_stands_below_a_keeper_is_of_its_run_wherever_it_went() {
        let process = |pid, parent| Process { pid, parent, ..Process::default() };
        let keeper = Process { is_keeper: true, ..process(5, 1) };
        let other = Process { run: Some(RunId::LAST), ..process(9, 8) };
        let all = [process(8, 7), process(7, 5), keeper, process(6, 1), other];
        let pids = |all: &[Process], keeper| -> Vec<i32> {
            let found = of_run(all, RunId::FIRST, keeper, &[6], &mut HashSet::new());
            found.iter().map(|p| p.pid).collect()
        };
        assert_eq!(pids(&all, Some(5)), [8, 7, 6], "6 is in its control group");
        assert_eq!(pids(&all, Some(7)), [6], "the keeper's id is another's now");
        assert_eq!(pids(&all, None), [6]);
        let starter = Process { is_starter: true, ..all[2].clone() };
        let all = [all[1].clone(), starter];
        assert_eq!(pids(&all, Some(5)), [7, 5], "what it has not started it may start yet");
        let unnamed =
            Process { is_guard: true, is_starter: false, is_keeper: false, ..all[1].clone() };
        assert_eq!(pids(&[unnamed], Some(5)), [5]);
        assert_eq!(pids(&all, Some(9)), [] as [i32; 0], "another run's");
    }

    #[test]
    fn a_process_is_found_by_its_marker_and_not_signalled_as_another() {
        let run = RunId::new(chrono::Utc::now());
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .env("CARILLON_RUN", run.to_string())
            .spawn()
            .unwrap();
        let found = loop {
            if let Some(found) = scan().into_iter().find(|p| p.run == Some(run)) {
                break found;
            }
        };
        assert_eq!(found.pid.unsigned_abs(), child.id());
        let stranger = Process { started: found.started + 1, ..found.clone() };
        assert!(stranger.signal(Signal::KILL));
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(found.signal(Signal::KILL));
        child.wait().unwrap();
    }
}
