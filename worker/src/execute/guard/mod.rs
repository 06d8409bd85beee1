//! The guard: a small process beside the worker that starts its runs, and ends them when the worker
//! cannot.
//!
//! A worker that is killed leaves its children behind, and one that is frozen past its lease runs
//! what the fleet has settled as lost. So the worker tells a second process of its own program,
//! `carillon-worker guard`, which runs there are and until when its lease is certain. The guard
//! ends the runs when the socket from the worker closes, and those that are not to outlive the lease
//! when its deadline passes: SIGTERM, the run's grace, SIGKILL, until nothing of them is left.
//! It is in a session of its own, where no ctrl-C and no kill of a process group reaches it.
//!
//! It starts them because fork(2) takes the longer the larger the process, and a worker is large:
//! for each run it forks off a [`keeper`], which starts the shell and then answers to the worker by
//! itself. So a guard that is killed takes no run along: a new one is told what runs there are.
//!
//! [`Guard`] is the worker's side, `serve` the other. The guard decides nothing that the worker
//! can decide itself, and knows neither etcd nor jobs.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use carillon_core::id::RunId;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::error;

use line::{Line, Terms};
use told::{Known, Told, deadline};

use crate::execute::Spec;

pub(crate) use serve::serve;
pub(crate) use told::Lease;

mod clone;
pub(crate) mod keeper;
mod line;
mod serve;
pub(crate) mod shell;
mod system;
#[cfg(test)]
pub(crate) mod tests;
mod told;

/// Starts that wait for the guard: as many as may be under way at once, and then some.
const STARTS_BOUND: usize = 64;
/// What fits into the socket at once or not at all, in bytes.
const WHOLE: usize = 2048;
/// How many files this process might open when it was started.
pub(super) static OPEN_FILES: OnceLock<Rlimit> = OnceLock::new();
/// How long the guard may leave its full socket unread before it is started again.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// The first and the longest pause before it is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// A guard that has lived so long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(10);

/// The worker's handle on its guard. Cheap to clone; when the last clone is dropped, or the worker
/// dies, the guard ends every run that has not ended, and then itself.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    known: watch::Sender<Known>,
    starts: mpsc::Sender<Start>,
}

/// The right to ask for one start.
#[derive(Debug)]
pub(crate) struct Turn(mpsc::OwnedPermit<Start>);

/// A run that is to be started.
#[derive(Debug)]
struct Start {
    run: RunId,
    lease: Option<i64>,
    start_by: Option<Duration>,
    files: [OwnedFd; 3],
    told: oneshot::Sender<()>,
}

impl Guard {
    /// Starts the guard, and starts it again whenever it ends. Needs a runtime.
    pub(crate) fn start() -> Self {
        Self::start_as(&["guard"])
    }

    pub(crate) fn start_as(arguments: &'static [&'static str]) -> Self {
        let known = watch::Sender::new(Known::default());
        let (starts, to_start) = mpsc::channel(STARTS_BOUND);
        tokio::spawn(keep(arguments, known.clone(), to_start));
        Self { known, starts }
    }

    /// Waits until the guard takes another start.
    ///
    /// # Errors
    /// The worker is leaving.
    pub(crate) async fn turn(&self) -> io::Result<Turn> {
        let turn = self.starts.clone().reserve_owned().await;
        turn.map(Turn).map_err(|_| io::Error::other("the worker is leaving"))
    }

    /// Has a keeper forked off for the run; `files` are where its standard output goes, where its
    /// standard error goes, and the keeper's socket. From then on the guard ends the run when the
    /// worker dies, and unless it is to be kept when the lease runs out. A guard that comes to it
    /// past its deadline, or when the lease that it was claimed under is not certain any more,
    /// refuses, however certain another is by then.
    ///
    /// # Errors
    /// There is no guard, and another that was started in its place failed too. However many starts
    /// wait for one that works, none of them fails.
    pub(crate) async fn keeper(
        &self,
        spec: &Spec,
        turn: Turn,
        files: [OwnedFd; 3],
    ) -> io::Result<()> {
        let run = spec.run;
        let terms = Terms { grace: spec.grace, keep: spec.keep_on_lease_loss, keeper: None };
        self.known.send_modify(|known| {
            known.runs.insert(run, terms);
            known.changed.insert(run);
        });
        let (told, was_told) = oneshot::channel();
        let (lease, start_by) = (spec.lease, spec.launch.start_by);
        turn.0.send(Start { run, lease, start_by, files, told });
        let none = |_| io::Error::other("the worker has no guard now; see its log");
        was_told.await.map_err(none)
    }

    /// The run is about to be started, and kept by this process. Never waits.
    pub(crate) fn kept_by(&self, run: RunId, keeper: i32) {
        self.known.send_modify(|known| {
            if let Some(terms) = known.runs.get_mut(&run) {
                terms.keeper = Some(keeper);
                known.changed.insert(run);
            }
        });
    }

    /// Which process keeps the run, while that runs.
    pub(crate) fn keeper_of(&self, run: RunId) -> Option<i32> {
        self.known.borrow().runs.get(&run)?.keeper
    }

    /// The run's shell was reaped: what it left behind is left alone. Never waits.
    pub(crate) fn ended(&self, run: RunId) {
        self.known.send_modify(|known| {
            known.runs.remove(&run);
            known.changed.insert(run);
        });
    }

    /// The worker's lease, new or renewed. When it is not certain any more, the guard ends the runs
    /// that were not to be kept; a later deadline does not save them. To be called before anything
    /// acts on a new lease. Until the first call there is no deadline. Never waits.
    pub(crate) fn hold(&self, lease: Lease) {
        self.known.send_modify(|known| known.lease = Some(lease));
    }
}

/// Keeps a guard running, and telling it, until every handle is dropped.
async fn keep(
    arguments: &'static [&'static str],
    known: watch::Sender<Known>,
    mut starts: mpsc::Receiver<Start>,
) {
    let mut pause = PAUSES.0;
    let mut start = None;
    loop {
        let begun = Instant::now();
        let Err(why) = one(arguments, &known, &mut starts, &mut start).await else { return };
        if begun.elapsed() > SETTLED {
            pause = PAUSES.0;
        }
        error!("no guard over the runs: {why}; starting one again");
        if pause > PAUSES.0 {
            // Whoever waits is told that there is none.
            start = None;
            while starts.try_recv().is_ok() {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Starts one guard and tells it what changes, until every handle is dropped. The `start` in hand has
/// not been told; the next guard has it where this one does not take it.
///
/// # Errors
/// Why there is no guard now.
async fn one(
    arguments: &[&str],
    known: &watch::Sender<Known>,
    starts: &mut mpsc::Receiver<Start>,
    start: &mut Option<Start>,
) -> Result<(), String> {
    let started = begin(arguments).map_err(|e| format!("it cannot be started: {e}"))?;
    let (mut guard, mut channel) = started;
    let mut told = Told::default();
    let mut change = known.subscribe();
    known.send_modify(Known::tell_again);
    loop {
        // One each time, however often what is known changes: thousands of runs that begin and end
        // must not keep the next ones waiting.
        if start.is_none() {
            *start = starts.try_recv().ok();
        }
        change.mark_unchanged();
        let (mut text, mut lease) = (String::new(), None);
        known.send_if_modified(|known| {
            (text, lease) = (told.catch_up(known), known.lease);
            false
        });
        let telling = async {
            if start.is_none() || text.len() > WHOLE {
                channel.write_all(text.as_bytes()).await?;
                text.clear();
            }
            match &*start {
                Some(next) => {
                    told.started(next.run);
                    hand_over(&channel, text, next, lease).await
                }
                None => Ok(()),
            }
        };
        match timeout(READ_LIMIT, telling).await {
            // Whoever asked may have lost patience.
            Ok(Ok(())) => drop(start.take().map(|start| start.told.send(()))),
            failed => {
                // Before the socket closes: it would take that for the worker's death.
                guard.kill().await.ok();
                let why = match failed {
                    Ok(failed) => format!("{failed:?}"),
                    Err(_) => "it does not listen".to_owned(),
                };
                return Err(why);
            }
        }
        select! {
            // What has changed is told before the handles are found to be dropped.
            biased;
            status = guard.wait() => {
                return Err(status.map_or_else(|e| e.to_string(), |s| format!("it ended: {s}")));
            }
            Ok(()) = change.changed() => {}
            asked = starts.recv() => match asked {
                Some(asked) => *start = Some(asked),
                None => return Ok(()),
            },
        }
    }
}

/// Sends the line that starts a run, with its files, after what there is to be told before.
async fn hand_over(
    channel: &UnixStream,
    mut text: String,
    start: &Start,
    lease: Option<Lease>,
) -> io::Result<()> {
    let before = deadline(start.lease, lease, start.start_by);
    text.push_str(&format!("{}\n", Line::Start(start.run, before)));
    let files = start.files.each_ref().map(AsFd::as_fd);
    channel
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut along = SendAncillaryBuffer::new(&mut space);
            along.push(SendAncillaryMessage::ScmRights(&files));
            let text = [IoSlice::new(text.as_bytes())];
            // So short a text goes whole or not at all.
            Ok(sendmsg(channel, &text, &mut along, SendFlags::NOSIGNAL)?)
        })
        .await?;
    Ok(())
}

fn begin(arguments: &[&str]) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    // The program that runs now, even if another has been installed in its place.
    let guard = Command::new("/proc/self/exe")
        .arg0("carillon-worker")
        .args(arguments)
        // It needs nothing of it, and must not carry the marker of a run that a worker is part of.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()?;
    share_open_files(&guard);
    Ok((guard, UnixStream::from_std(ours)?))
}

/// Raises how many files this process may have open, four for each live run, as far as it may, and
/// has the guard, and with it the runs, keep what the worker was given.
fn share_open_files(guard: &Child) {
    let given = OPEN_FILES.get_or_init(|| getrlimit(Resource::Nofile));
    let guard = guard.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(guard) = guard {
        // It has started nothing yet.
        prlimit(Some(guard), Resource::Nofile, *given).ok();
    }
    let most = Rlimit { current: given.maximum, maximum: given.maximum };
    setrlimit(Resource::Nofile, most).ok();
}
