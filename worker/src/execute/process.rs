//! The processes of one run: started, signalled, awaited and reaped as one process group.
//!
//! The shell leads the group. It is reaped last, after everything that was to be ended has ended:
//! until then its id, and with it the id of the group, cannot be taken by a process of somebody
//! else, so no signal can hit a stranger. Needs Linux 5.3 or later (`pidfd_open`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use wait4::Wait4;

use super::account::Account;
use super::capture::Pipes;
use super::usage::{self, Group};

/// Why a run could not be started, in words for an operator.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The user database does not have the job's user.
    #[error("no user \"{0}\" on this worker")]
    NoUser(String),
    /// The user database cannot be read.
    #[error("cannot look up user \"{0}\": {1}")]
    UserLookup(String, &'static str),
    /// Only root becomes somebody else.
    #[error("may not switch to user \"{0}\": the worker does not run as root")]
    MayNotSwitch(String),
    /// The working directory is missing, no directory, or closed to the run's user.
    #[error("working directory {0}: {1}")]
    Directory(String, &'static str),
    /// The shell is missing or not to be executed.
    #[error("{0}: {1}")]
    Shell(String, &'static str),
    /// Command and environment are larger than Linux allows.
    #[error(
        "the command is {0} bytes long, its environment {1}; Linux takes 131071 bytes in one of them (put long scripts in a file)"
    )]
    TooLong(usize, usize),
    /// Everything else, such as a machine without free process ids.
    #[error("cannot start {0}: {1}")]
    Other(String, io::Error),
}

/// What is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// Given to the shell after `-c`.
    pub(crate) command: String,
    /// Absolute path of the shell.
    pub(crate) shell: String,
    /// Where to start; the user's home where absent, `/` where there is none.
    pub(crate) cwd: Option<String>,
    /// Whom to become; the worker's own user where absent.
    pub(crate) user: Option<String>,
    /// The job's variables.
    pub(crate) env: BTreeMap<String, String>,
    /// Variables that the job cannot override.
    pub(crate) vars: Vec<(String, String)>,
}

/// What a reaped run leaves behind.
#[derive(Debug)]
pub(crate) struct Remains {
    /// How the shell ended.
    pub(crate) status: ExitStatus,
    /// Processor time of the shell and of all that it waited for.
    pub(crate) cpu: Duration,
    /// The largest resident memory of any one of these, in bytes; absent where Linux does not
    /// tell: a child's figure starts at its parent's, so one below the worker's own says nothing.
    pub(crate) max_rss_bytes: Option<u64>,
}

/// A started process group. Dropped before [`Tree::reap`], it is killed.
#[derive(Debug)]
pub(crate) struct Tree {
    child: Option<Child>,
    group: Pid,
    exit: AsyncFd<OwnedFd>,
    at_start: Group,
}

impl Tree {
    /// Starts the launch's shell as the leader of a new process group, and connects its output.
    ///
    /// # Errors
    /// Says what the operator has to mend.
    pub(crate) async fn start(launch: Launch) -> Result<(Self, Pipes), StartError> {
        let shell = launch.shell.clone();
        let fail = |e| StartError::Other(shell.clone(), e);
        // Name services, network file systems and the fork itself may take their time.
        let (mut child, at_start) = tokio::task::spawn_blocking(move || spawn(&launch))
            .await
            .map_err(|e| fail(io::Error::other(e)))??;
        let pipes = connect(&mut child);
        let (group, exit) = match watch(&child) {
            Ok(watched) => watched,
            Err(e) => {
                abandon(child);
                return Err(fail(e));
            }
        };
        // From here on the drop of the tree kills it.
        let tree = Self { child: Some(child), group, exit, at_start };
        Ok((tree, pipes.map_err(fail)?))
    }

    /// The id of the shell and of the group.
    pub(crate) fn id(&self) -> i32 {
        self.group.as_raw()
    }

    /// What the shell used when it had just started: all that is ever seen of many a short run.
    pub(crate) fn at_start(&self) -> &Group {
        &self.at_start
    }

    /// Waits for the end of the shell, without reaping it. May be dropped and called again.
    pub(crate) async fn exited(&self) {
        // A pidfd becomes readable once and stays so; an error cannot come from it.
        let _ = self.exit.readable().await;
    }

    /// Signals every process of the group. That none is left is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = killpg(self.group, signal);
    }

    /// Reaps the shell, which must have exited, and gives the group's id back to the system.
    ///
    /// # Errors
    /// Somebody else has reaped it.
    pub(crate) fn reap(mut self) -> io::Result<Remains> {
        let child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        let used = child.wait4()?;
        let own_peak = getrusage(UsageWho::RUSAGE_SELF)
            .ok()
            .and_then(|own| u64::try_from(own.max_rss()).ok())
            .map_or(u64::MAX, |kib| kib.saturating_mul(1024));
        Ok(Remains {
            status: used.status,
            cpu: used.rusage.utime + used.rusage.stime,
            max_rss_bytes: Some(used.rusage.maxrss).filter(|&bytes| bytes > own_peak),
        })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            abandon(child);
        }
    }
}

/// Kills the group of a run that nobody follows any more, and has it reaped.
fn abandon(mut child: Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = std::thread::Builder::new().spawn(move || child.wait());
}

/// Whether the worker may signal this process.
pub(crate) fn may_signal(id: i32) -> bool {
    kill(Pid::from_raw(id), None) != Err(Errno::EPERM)
}

#[allow(
    deprecated,
    reason = "its successor asks for `unsafe`, to promise what an `OwnedFd` always keeps"
)]
fn watch(child: &Child) -> io::Result<(Pid, AsyncFd<OwnedFd>)> {
    let raw = i32::try_from(child.id()).map_err(io::Error::other)?;
    let id = rustix::process::Pid::from_raw(raw).ok_or(io::ErrorKind::NotFound)?;
    let fd = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty())?;
    let interest = tokio::io::Interest::READABLE;
    Ok((Pid::from_raw(raw), AsyncFd::with_interest(fd, interest)?))
}

fn connect(child: &mut Child) -> io::Result<Pipes> {
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let stdout = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
    let stderr = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
    Ok(Pipes::new(pipe::Receiver::from_owned_fd(stdout)?, pipe::Receiver::from_owned_fd(stderr)?))
}

fn spawn(launch: &Launch) -> Result<(Child, Group), StartError> {
    let account = Account::find(launch.user.as_deref())?;
    let cwd = directory(launch, &account)?;
    let environment = account.environment(&launch.shell, &launch.env, &launch.vars);
    let mut command = Command::new(&launch.shell);
    command
        .arg("-c")
        .arg(&launch.command)
        .env_clear()
        .envs(&environment)
        .current_dir(&cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some((uid, gid)) = account.become_ids {
        // As root, this also gives up the worker's supplementary groups.
        command.uid(uid).gid(gid);
    }
    let child = command.spawn().map_err(|e| explain(e, launch, &account, &cwd, &environment))?;
    let at_start = usage::of_process(child.id());
    Ok((child, at_start))
}

fn directory(launch: &Launch, account: &Account) -> Result<PathBuf, StartError> {
    let Some(cwd) = &launch.cwd else {
        let home = account.home.is_dir().then(|| account.home.clone());
        return Ok(home.unwrap_or_else(|| PathBuf::from("/")));
    };
    let wrong = |why| Err(StartError::Directory(cwd.clone(), why));
    match Path::new(cwd).metadata() {
        Ok(found) if !found.is_dir() => wrong("not a directory"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => wrong("no such directory"),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => wrong("not a directory"),
        // The rest is for the run's user to find out: a network home may be closed to root.
        _ => Ok(cwd.into()),
    }
}

/// The kernel's one number, told apart by looking at what it may have meant.
fn explain(
    error: io::Error,
    launch: &Launch,
    account: &Account,
    cwd: &Path,
    environment: &BTreeMap<String, String>,
) -> StartError {
    let shell = |why| StartError::Shell(launch.shell.clone(), why);
    let found = Path::new(&launch.shell).metadata();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if found.is_ok() => shell("its interpreter is missing"),
        Some(Errno::ENOENT | Errno::ENOTDIR) => shell("no such file"),
        Some(Errno::ENOEXEC) => shell("not a program"),
        Some(Errno::EPERM) if account.become_ids.is_some() => {
            StartError::MayNotSwitch(account.name.clone())
        }
        Some(Errno::EACCES) => {
            use std::os::unix::fs::PermissionsExt;
            if found.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0) {
                let cwd = cwd.display().to_string();
                StartError::Directory(cwd, "permission denied")
            } else {
                shell("not an executable file")
            }
        }
        Some(Errno::E2BIG) => {
            let size = environment.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
            StartError::TooLong(launch.command.len(), size)
        }
        _ => StartError::Other(launch.shell.clone(), error),
    }
}
