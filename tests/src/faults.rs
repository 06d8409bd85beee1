//! What can be done to a process from outside: stop it, freeze it, find what it left behind.

use std::fs;

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
    // The state is the first field after the command, which is in brackets and may contain any.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit(')').next()?.trim_start().chars().next())
        .is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The running processes that were started with the environment entry `name=value`, or descend
/// from one that was, wherever they moved since: into another session, under another parent.
#[must_use]
pub fn with_environment(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid: &u32| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment
                    .split(|&byte| byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
        })
        .filter(|&pid| is_running(pid))
        .collect()
}

/// Kills every process of [`with_environment`], and those they start meanwhile.
pub fn kill_with_environment(name: &str, value: &str) {
    // A process that forks faster than it is killed gets a bounded number of rounds.
    for _ in 0..20 {
        let left = with_environment(name, value);
        if left.is_empty() {
            return;
        }
        for pid in left {
            // Gone already is as good.
            let _ = signal(pid, Signal::KILL);
        }
    }
}

pub(crate) fn to_pid(pid: u32) -> Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{pid} is not a pid"))
}
