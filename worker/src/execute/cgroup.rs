//! A control group for each run, where the worker's own is writable (cgroups(7), version 2).
//!
//! No process leaves its group by itself, so what is in a run's group is of that run, whatever it
//! did to its parents, session and environment, and the kernel kills all of it at once. Groups are
//! found by the run's id alone, by the worker and by its guard. Where there are none, the marker and
//! descent do.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carillon_core::id::RunId;

/// What a run's group is called, before the run's id.
const NAME: &str = "carillon-run-";

/// The group of the worker, in which those of its runs are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroups(PathBuf);

/// What a whole group has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Processor time.
    pub(crate) cpu: Duration,
    /// The most memory at a time, in bytes, where the kernel keeps count: the group above must give
    /// its groups the memory controller.
    pub(crate) memory_peak: Option<u64>,
}

impl Cgroups {
    /// Those of this process.
    ///
    /// # Errors
    /// Why it can have none, in words.
    pub(crate) fn find() -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let folder = folder(&own, &mounts).ok_or("there is no cgroup of version 2")?;
        let found = Self(folder);
        let probe = found.0.join(format!("carillon-probe-{}", std::process::id()));
        fs::create_dir(&probe)
            .map_err(|e| format!("{} is not writable: {e}", found.0.display()))?;
        let kills = probe.join("cgroup.kill").exists();
        fs::remove_dir(&probe).ok();
        match kills {
            true => Ok(found),
            false => Err("the kernel has no cgroup.kill (Linux 5.14)".to_owned()),
        }
    }

    /// Where the groups are.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the group of a run, in which its first process is to be born; nothing where that fails.
    pub(crate) fn make(&self, run: RunId) -> Option<PathBuf> {
        let group = self.of(run);
        fs::create_dir(&group).ok().map(|()| group)
    }

    /// The processes in the run's group, zombies not; none where it has no group.
    pub(crate) fn processes(&self, run: RunId) -> Vec<i32> {
        let list = fs::read_to_string(self.of(run).join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills all that is in the run's group, and what is being born in it.
    pub(crate) fn kill(&self, run: RunId) {
        fs::write(self.of(run).join("cgroup.kill"), "1").ok();
    }

    /// What the run has used so far; nothing where it has no group.
    pub(crate) fn used(&self, run: RunId) -> Option<Used> {
        let group = self.of(run);
        let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
        let micros =
            stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()?;
        let peak = fs::read_to_string(group.join("memory.peak")).ok();
        Some(Used {
            cpu: Duration::from_micros(micros),
            memory_peak: peak.and_then(|peak| peak.trim().parse().ok()),
        })
    }

    /// Removes the run's group, if nothing is in it any more.
    pub(crate) fn remove(&self, run: RunId) {
        fs::remove_dir(self.of(run)).ok();
    }

    /// Removes the groups of ended runs whose last process has ended since.
    pub(crate) fn tidy(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(NAME) {
                // Refused where there is something in it.
                fs::remove_dir(entry.path()).ok();
            }
        }
    }

    fn of(&self, run: RunId) -> PathBuf {
        self.0.join(format!("{NAME}{run}"))
    }
}

/// The folder of a process by its /proc/PID/cgroup and /proc/PID/mounts.
fn folder(own: &str, mounts: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(point)
    })?;
    Some(Path::new(mount).join(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_own_group_below_the_mount() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
             cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let own = "4:memory:/a\n0::/system.slice/carillon.service\n";
        let expected = Path::new("/sys/fs/cgroup/unified/system.slice/carillon.service");
        assert_eq!(folder(own, mounts).as_deref(), Some(expected));
        assert_eq!(folder("4:memory:/a\n", mounts), None);
        assert_eq!(folder(own, "tmpfs / tmpfs rw 0 0\n"), None);
    }
}
