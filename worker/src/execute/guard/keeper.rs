//! The keeper of a run: a small process that is forked off the guard for each, and is the parent of
//! its shell.
//!
//! It starts the shell, so that what hangs there, a name service or a directory of a dead server,
//! hangs one run alone. It is a sub-reaper: whatever leaves its parents, its session and its
//! environment behind stays below it, and so is known to be of this run. It reaps the shell only
//! when the worker asks for it: until then the shell's id, which is that of its group and session,
//! is nobody else's. It decides nothing and ends nothing. Until it has started the shell it has a
//! name of its own: to end the run then is to end the keeper.
//!
//! It outlives a guard that is killed. When the worker goes, it stays until nothing of the run is
//! left.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::prctl::{set_child_subreaper, set_name};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, dup2_stdin};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitOptions, wait};

use super::shell;
use super::system::children;
use crate::execute::account::Account;
use crate::execute::launch::{Launch, Reply, StartError};
use crate::execute::marker::{KEEPER, STARTER};

/// What belongs to a run when it is handed over: its output, and the socket to the worker.
pub(super) struct Files {
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    pub(super) talk: OwnedFd,
}

impl Files {
    /// Tells the worker that it is not started.
    pub(super) fn refuse(self, why: &Reply) {
        tell(&mut UnixStream::from(self.talk), why).ok();
    }
}

/// Keeps one run, from its start on, until the worker has no more use for it. Nothing is read from
/// `null`; `own` is whom a run without a user runs as.
///
/// # Errors
/// The kernel refuses what it never does, or the worker is gone before the start.
pub(super) fn keep(files: Files, null: &File, own: Account) -> io::Result<()> {
    be_called(STARTER);
    set_child_subreaper(true)?;
    // Standard input is the guard's own channel.
    dup2_stdin(null)?;
    let children = children()?;
    let mut talk = UnixStream::from(files.talk);
    let mut orders = BufReader::new(talk.try_clone()?);
    let mut line = String::new();
    if orders.read_line(&mut line)? == 0 {
        return Ok(());
    }
    let launch: Launch = serde_json::from_str(&line)?;
    tell(&mut talk, &Reply::Kept { keeper: Pid::this().as_raw() })?;
    let shell = match shell::start(&launch, own, files.out, files.err, &talk) {
        Ok(shell) => shell,
        Err(StartError::TooLate) => return tell(&mut talk, &Reply::TooLate),
        Err(e) => return tell(&mut talk, &Reply::Failed(e.to_string())),
    };
    be_called(KEEPER);
    drop((launch, line));
    if tell(&mut talk, &Reply::Started { shell: shell.as_raw() }).is_err() {
        // The worker has gone in this very moment.
        return outlast();
    }
    loop {
        let mut handles = [
            PollFd::new(&talk, PollFlags::IN),
            PollFd::from_borrowed_fd(children.as_fd(), PollFlags::IN),
        ];
        match poll(&mut handles, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let [spoken, _] = handles.each_ref().map(|handle| !handle.revents().is_empty());
        children.read_signal()?;
        if spoken {
            let mut order = String::new();
            return match orders.read_line(&mut order) {
                Ok(read) if read > 0 => tell(&mut talk, &reap(shell)?),
                // The worker is gone, or has dropped the run.
                _ => outlast(),
            };
        }
        reap_strays(shell)?;
    }
}

fn be_called(name: &str) {
    CString::new(name).ok().and_then(|name| set_name(&name).ok());
}

fn tell(talk: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    talk.write_all(&line)
}

/// Reaps orphans that have ended, up to the shell.
fn reap_strays(shell: Pid) -> io::Result<()> {
    loop {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::All, look) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(ended) if ended.pid() == Some(shell) => return Ok(()),
            Ok(ended) => {
                if let Some(stray) = ended.pid() {
                    nix::sys::wait::waitpid(stray, Some(WaitPidFlag::WNOHANG))?;
                }
            }
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Reaps the shell, which has ended, and every other that has.
fn reap(shell: Pid) -> io::Result<Reply> {
    let mut status = None;
    let mut options = WaitOptions::NOHANG;
    while let Ok(Some((ended, how))) = wait(options) {
        if ended.as_raw_nonzero().get() == shell.as_raw() {
            status = Some(how.as_raw());
        }
        options = WaitOptions::NOHANG;
    }
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let own = getrusage(UsageWho::RUSAGE_SELF)?;
    let cpu = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    let rss = Some(used.max_rss()).filter(|&rss| rss > own.max_rss());
    Ok(Reply::Ended {
        status: status.ok_or(io::ErrorKind::NotFound)?,
        cpu_micros: u64::try_from(cpu).unwrap_or_default(),
        max_rss_bytes: rss.and_then(|kib| u64::try_from(kib).ok()).map(|kib| kib * 1024),
    })
}

/// Reaps until there is nothing left to be reaped.
fn outlast() -> io::Result<()> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Ok(()),
        }
    }
}
