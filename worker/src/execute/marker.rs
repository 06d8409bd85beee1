//! The processes of a run, wherever they went: by the marker in their environment.
//!
//! Every process of a run inherits `CARILLON_RUN=<run>`, so one that has left the group, the
//! session and its parent is still found. One that was given another environment, or has
//! overwritten it (`setproctitle`), is found by its group only.

use std::collections::HashSet;
use std::fs;

use carillon_core::id::RunId;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::usage::{self, Stat};

/// What the marker's entry in the environment begins with.
const MARKER: &[u8] = b"CARILLON_RUN=";

/// A process that runs; a zombie does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// The id of its process group.
    pub(crate) group: i32,
    /// When it started, in clock ticks since boot: with it an id is no other process's.
    pub(crate) started: u64,
    /// The run whose marker it carries.
    pub(crate) run: Option<RunId>,
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
            group: stat.group,
            started: stat.started,
            run: run(),
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
        let now = usage::read(&self.pid.to_string()).and_then(|stat| Self::of(&stat));
        now.as_ref() != Some(self) || pidfd_send_signal(&handle, signal) != Err(Errno::PERM)
    }
}

/// Every process that runs on this machine.
pub(crate) fn scan() -> Vec<Process> {
    usage::processes().filter_map(|stat| Process::of(&stat)).collect()
}

/// Those of `all` that belong to the run: they carry its marker, or are in a group that is led by
/// one that does. `groups` keeps these groups from scan to scan, because the leader may end first.
pub(crate) fn of_run<'a>(
    all: &'a [Process],
    run: RunId,
    groups: &mut HashSet<i32>,
) -> Vec<&'a Process> {
    // The id of a group that was seen empty may pass to another.
    groups.retain(|group| all.iter().any(|p| p.group == *group));
    let leaders = all.iter().filter(|p| p.run == Some(run) && p.pid == p.group);
    groups.extend(leaders.map(|p| p.group));
    let belongs = |p: &Process| match p.run {
        Some(marked) => marked == run,
        None => groups.contains(&p.group),
    };
    all.iter().filter(|&p| belongs(p)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_its_carriers_and_the_groups_that_they_lead() {
        let (ours, other) = (RunId::FIRST, RunId::LAST);
        let process = |pid, group, run| Process { pid, group, started: 1, run };
        let leader = process(10, 10, Some(ours));
        let rest = [
            process(11, 10, None),
            process(12, 12, None),
            process(13, 12, Some(ours)),
            process(14, 10, Some(other)),
        ];
        let mut groups = HashSet::new();
        let mut pids = |all: &[Process]| -> Vec<i32> {
            of_run(all, ours, &mut groups).iter().map(|p| p.pid).collect()
        };
        let all = [&[leader][..], &rest].concat();
        assert_eq!(pids(&all), [10, 11, 13]);
        assert_eq!(pids(&rest), [11, 13], "the leader has ended");
        assert_eq!(pids(&rest[1..3]), [13]);
        assert_eq!(pids(&rest[..2]), [] as [i32; 0], "the group was seen empty");
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
