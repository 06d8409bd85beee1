//! What can be done to a process from outside: stop it, freeze it, find what it left behind.

use std::fs;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

/// Sends `signal` to the process `pid`.
///
/// # Errors
///
/// When there is no such process, or it belongs to another user.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let fd = pidfd_open(to_pid(pid)?, PidfdFlags::empty())
        .with_context(|| format!("process {pid} is gone"))?;
    pidfd_send_signal(&fd, signal).with_context(|| format!("cannot signal process {pid}"))
}

/// Whether `pid` is a process that runs. One that has ended and waits for its parent does not.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Whether `pid` is a process that was stopped, by a signal or from its terminal.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// The running processes with the environment entry `name=value`, such as `CARILLON_RUN` and a
/// run's id: all that came of that run, in whatever session and under whatever parent.
#[must_use]
pub fn with_environment(name: &str, value: &str) -> Vec<u32> {
    let found = environments(name).into_iter();
    found.filter(|(_, found)| found == value).map(|(pid, _)| pid).collect()
}

/// The running processes that have an environment variable of this name, with its value.
#[must_use]
pub fn environments(name: &str) -> Vec<(u32, String)> {
    let start = format!("{name}=");
    processes()
        .filter_map(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let mut entries = environment.split(|&byte| byte == 0);
            let value = entries.find_map(|entry| entry.strip_prefix(start.as_bytes()))?;
            Some((pid, String::from_utf8_lossy(value).into_owned()))
        })
        .filter(|&(pid, _)| is_running(pid))
        .collect()
}

/// The running processes that `pid` started, and those that they started. One whose parent has
/// ended is no longer among them.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> =
        processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.retain(|&found| found != pid && is_running(found));
    found
}

/// Processes to be killed later, whose ids cannot pass to others meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Doomed(Vec<OwnedFd>);

impl Doomed {
    /// Adds what `pid` started and has not ended.
    pub(crate) fn add_descendants(&mut self, pid: u32) {
        let handles = descendants(pid)
            .into_iter()
            .filter_map(|pid| pidfd_open(to_pid(pid).ok()?, PidfdFlags::empty()).ok());
        self.0.extend(handles);
    }

    pub(crate) fn kill(&mut self) {
        for handle in self.0.drain(..) {
            // Gone already is as good.
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The fields of /proc/PID/stat after the command, which is in brackets and may contain anything.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.trim_start().to_owned())
}

fn state(pid: u32) -> Option<char> {
    stat(pid)?.chars().next()
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.split(' ').nth(1)?.parse().ok()
}

pub(crate) fn to_pid(pid: u32) -> Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is not a pid"))
}
