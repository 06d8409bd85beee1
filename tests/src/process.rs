//! One process under the harness: its log, its signals, its end.
//!
//! A test that is killed cannot clean up. So each process is started with a guard beside it, a
//! shell that reads from a pipe held by the test: when the test is gone, whatever became of it,
//! the pipe closes and the guard kills the whole process group. Nothing is left on the machine.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::faults::to_pid;

/// The shell becomes the program, so that its pid and its exit status are the program's own; the
/// guard stays behind in the same process group.
const GUARDED: &str = r#"
exec 3<&0
{ trap '' INT TERM HUP; read -r _ <&3; kill -s KILL 0; } &
exec "$@" </dev/null 3<&-
"#;

/// How much of a log an error shows.
const TAIL_LINES: usize = 20;

/// What to start.
#[derive(Debug)]
pub struct Spec {
    program: PathBuf,
    command: Command,
}

impl Spec {
    /// Starts `program`, with its output in a log file.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(GUARDED).arg("guard").arg(program);
        Self { program: program.to_owned(), command }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Hides every variable of the test's own environment that starts with `prefix`.
    #[must_use]
    pub fn without_env(mut self, prefix: &str) -> Self {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(prefix) {
                self.command.env_remove(name);
            }
        }
        self
    }

    /// Starts it, appending what it prints to `log`.
    ///
    /// # Errors
    ///
    /// When the log cannot be opened or no process can be made.
    pub fn spawn(mut self, log: &Path) -> Result<Process> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a log file")?;
        let child = self
            .command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        Process::new(child, log)
    }
}

/// A process that ends with its owner: dropping it kills its process group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    handle: OwnedFd,
    log: PathBuf,
    /// Set once the group has been killed: from then on its id may belong to someone else.
    killed: bool,
}

impl Process {
    fn new(mut child: Child, log: &Path) -> Result<Self> {
        let opened = to_pid(child.id()).and_then(|pid| {
            let handle = pidfd_open(pid, PidfdFlags::empty())
                .context("this kernel has no pidfd (Linux 5.3 or newer is needed)")?;
            Ok((pid, handle))
        });
        match opened {
            Ok((pid, handle)) => {
                Ok(Self { child, pid, handle, log: log.to_owned(), killed: false })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Its process id, which is also the id of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its output, for an error message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Sends a signal to the process itself, not to what it started.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.handle, signal)
            .with_context(|| format!("process {} has ended", self.pid()))
    }

    /// Freezes it, as a suspended machine would.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn try_exit(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot ask after a process")
    }

    /// Waits for its end, at most so long.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub async fn exited_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let handle = self.handle.try_clone().context("cannot share a process handle")?;
        tokio::task::spawn_blocking(move || wait_readable(&handle, limit))
            .await
            .context("a wait was cancelled")??;
        self.try_exit()
    }

    /// As [`exited_within`](Self::exited_within), for code that is not asynchronous.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn blocking_exited_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        wait_readable(&self.handle, limit)?;
        self.try_exit()
    }

    /// Asks it to end with SIGTERM and waits, at most so long.
    ///
    /// # Errors
    ///
    /// When it is still there afterwards.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.try_exit()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.exited_within(limit).await?.ok_or_else(|| {
            anyhow!(
                "process {} is still there {limit:?} after SIGTERM\n{}",
                self.pid(),
                self.log_tail()
            )
        })
    }

    /// Kills it and its process group with SIGKILL, and waits.
    ///
    /// # Errors
    ///
    /// When the system does not tell how it ended.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // Even when the program itself has ended, the guard is there and keeps the group's id.
        if !self.killed {
            self.killed = true;
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        self.child.wait().context("cannot wait for a killed process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Waits until `handle` can be read, at most so long.
pub(crate) fn wait_readable(handle: &OwnedFd, limit: Duration) -> Result<bool> {
    let timeout = limit.try_into().context("that is too long a wait")?;
    let mut handles = [PollFd::new(handle, PollFlags::IN)];
    loop {
        match poll(&mut handles, Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot poll"),
        }
    }
}

/// The last lines of a file, each indented; or why there are none.
#[must_use]
pub fn tail(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(TAIL_LINES);
            let mut shown = format!("the end of {}:", path.display());
            for line in lines.iter().skip(from) {
                shown.push_str("\n    ");
                shown.push_str(line);
            }
            shown
        }
        Err(error) => format!("{}: {error}", path.display()),
    }
}
