//! The processes of one run: started, signalled, awaited and reaped as one process group.
//!
//! The shell leads the group and a session, and is the child of a [`keeper`](super::guard::keeper).
//! It is reaped last, after everything that was to be ended has ended: until then its id, and with
//! it the id of the group, cannot be taken by a process of somebody else, so no signal can hit a
//! stranger. Needs Linux 5.3 or later (`pidfd_open`).

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::capture::Pipes;
use super::guard::Guard;
use super::launch::{Launch, REAP, Reply, StartError};
use super::run::Spec;
use super::usage::{self, Group};

/// How long a keeper may take to reap a shell that has ended. It only waits for the processor.
const REAP_LIMIT: Duration = Duration::from_secs(10);

/// What a reaped run leaves behind.
#[derive(Debug)]
pub(crate) struct Remains {
    /// How the shell ended.
    pub(crate) status: ExitStatus,
    /// Processor time of the shell, of all that it waited for, and of what it left behind that has
    /// ended.
    pub(crate) cpu: Duration,
    /// The largest resident memory of any one of these, in bytes; absent where Linux does not
    /// tell: a child's figure starts at its parent's, so one below a keeper's own, some three
    /// megabytes, says nothing.
    pub(crate) max_rss_bytes: Option<u64>,
}

/// A started process group. Dropped before [`Tree::reap`], it is killed.
#[derive(Debug)]
pub(crate) struct Tree {
    group: Pid,
    keeper: i32,
    exit: AsyncFd<OwnedFd>,
    talk: BufReader<UnixStream>,
    at_start: Group,
    reaped: bool,
}

impl Tree {
    /// Has the run's shell started as the leader of a new session, and connects its output, unless
    /// that comes after its deadline or after its lease. May take any time: name services and network
    /// file systems do. If the future is dropped, nothing is started any more, or it is to be ended
    /// below the keeper that the guard was told of.
    ///
    /// # Errors
    /// Says what the operator has to mend.
    pub(crate) async fn start(guard: &Guard, spec: &Spec) -> Result<(Self, Pipes), StartError> {
        let fail = |e| StartError::Other(spec.launch.shell.clone(), e);
        // Before anything is opened for it: thousands may wait for the guard.
        let turn = guard.turn().await.map_err(fail)?;
        let (out, stdout) = pipe::pipe().map_err(fail)?;
        let (err, stderr) = pipe::pipe().map_err(fail)?;
        let (talk, theirs) = UnixStream::pair().map_err(fail)?;
        let theirs = theirs.into_std().map_err(fail)?;
        theirs.set_nonblocking(false).map_err(fail)?;
        let out = out.into_blocking_fd().map_err(fail)?;
        let err = err.into_blocking_fd().map_err(fail)?;
        let files = [out, err, theirs.into()];
        guard.keeper(spec, turn, files).await.map_err(fail)?;
        let mut talk = BufReader::new(talk);
        let keeper = match ask(&mut talk, &spec.launch).await {
            Ok(Reply::Kept { keeper }) => keeper,
            other => return Err(unstarted(other)),
        };
        guard.kept_by(spec.run, keeper);
        let shell = match hear(&mut talk).await {
            Ok(Reply::Started { shell }) => shell,
            other => return Err(unstarted(other)),
        };
        let group = Pid::from_raw(shell);
        let exit = match watch(shell) {
            Ok(exit) => exit,
            Err(e) => {
                let _ = killpg(group, Signal::SIGKILL);
                return Err(fail(e));
            }
        };
        let at_start = usage::of_process(shell.unsigned_abs());
        // From here on the drop of the tree kills it.
        let tree = Self { group, keeper, exit, talk, at_start, reaped: false };
        Ok((tree, Pipes::new(stdout, stderr)))
    }

    /// The id of the shell, of the group and of the session.
    pub(crate) fn id(&self) -> i32 {
        self.group.as_raw()
    }

    /// The process below which everything of the run stands.
    pub(crate) fn keeper(&self) -> i32 {
        self.keeper
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

    /// Waits for the end of the keeper, which is none while the run lasts: somebody has killed it.
    /// May be dropped and called again.
    pub(crate) async fn abandoned(&self) {
        // It says nothing by itself, so there is only the end to be read; `ready` alone may be wrong.
        let talk = self.talk.get_ref();
        while talk.ready(Interest::READABLE).await.is_ok() {
            match talk.try_read(&mut [0]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }

    /// Signals every process of the group. That none is left is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = killpg(self.group, signal);
    }

    /// Has the shell reaped, which must have exited, and gives the group's id back to the system.
    ///
    /// # Errors
    /// The keeper is gone, and with it how the shell ended.
    pub(crate) async fn reap(mut self) -> io::Result<Remains> {
        self.reaped = true;
        let asking = async {
            self.talk.get_mut().write_all(REAP).await?;
            hear(&mut self.talk).await
        };
        match timeout(REAP_LIMIT, asking).await?? {
            Reply::Ended { status, cpu_micros, max_rss_bytes } => Ok(Remains {
                status: ExitStatus::from_raw(status),
                cpu: Duration::from_micros(cpu_micros),
                max_rss_bytes,
            }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Drop for Tree {
    /// Kills the group of a run that nobody follows any more; its keeper reaps it.
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// Whether the worker may signal this process.
pub(crate) fn may_signal(id: i32) -> bool {
    kill(Pid::from_raw(id), None) != Err(Errno::EPERM)
}

async fn ask(talk: &mut BufReader<UnixStream>, launch: &Launch) -> io::Result<Reply> {
    let mut line = serde_json::to_vec(launch)?;
    line.push(b'\n');
    // A guard that refuses does not read.
    talk.get_mut().write_all(&line).await.ok();
    hear(talk).await
}

/// Why there is no shell, by what came in place of the word that there is.
fn unstarted(said: io::Result<Reply>) -> StartError {
    match said {
        Ok(Reply::Failed(why)) => StartError::Said(why),
        Ok(Reply::TooLate) => StartError::TooLate,
        _ => StartError::Gone,
    }
}

async fn hear(talk: &mut BufReader<UnixStream>) -> io::Result<Reply> {
    let mut line = String::new();
    if talk.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

#[allow(
    deprecated,
    reason = "its successor asks for `unsafe`, to promise what an `OwnedFd` always keeps"
)]
fn watch(shell: i32) -> io::Result<AsyncFd<OwnedFd>> {
    let id = rustix::process::Pid::from_raw(shell).ok_or(io::ErrorKind::NotFound)?;
    let fd = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty())?;
    AsyncFd::with_interest(fd, Interest::READABLE)
}
