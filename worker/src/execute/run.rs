//! What a run is to the rest of the worker: what is asked for, what it can be told, what happens to
//! it, and what became of it.

use std::time::Duration;

use carillon_core::id::RunId;
use carillon_core::job::{Job, OnLeaseLoss, Overflow};
use carillon_core::run::{Chunk, Outcome};
use chrono::{DateTime, Utc};

use super::launch::Launch;
use crate::clock;

/// What to run, and within which bounds.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The run, for the log.
    pub(crate) run: RunId,
    /// What is started.
    pub(crate) launch: Launch,
    /// How long the run may take, from its start.
    pub(crate) timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL; with zero there is no SIGTERM.
    pub(crate) grace: Duration,
    /// How much output is kept, in bytes: the head and, past the limit, the tail.
    pub(crate) output_limit: u64,
    /// Whether it waits when it writes faster than its output is taken; else what comes meanwhile is
    /// dropped.
    pub(crate) blocks: bool,
    /// Whether it goes on when the worker's lease runs out while the worker is frozen.
    pub(crate) keep_on_lease_loss: bool,
    /// The lease that it was claimed under: it is not started under another.
    pub(crate) lease: Option<i64>,
}

impl Spec {
    /// A run of this job; `vars` are the `CARILLON_*` variables.
    pub(crate) fn new(run: RunId, job: &Job, vars: Vec<(String, String)>) -> Self {
        Self {
            run,
            launch: Launch {
                command: job.command.clone(),
                shell: job.shell.clone(),
                cwd: job.cwd.clone(),
                user: job.user.clone(),
                env: job.env.clone(),
                vars,
                umask: job.umask_bits(),
                nice: job.nice,
                limits: job.limits.clone(),
                cgroup: None,
                start_by: None,
            },
            timeout: job.timeout(),
            grace: job.kill_grace(),
            output_limit: job.output_limit_bytes,
            blocks: job.overflow == Overflow::Block,
            keep_on_lease_loss: job.on_lease_loss == OnLeaseLoss::Continue,
            lease: None,
        }
    }
}

/// What a live run can be told. The first order decides how the run is recorded; a later one can
/// only shorten the grace period.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Somebody wants it dead.
    Kill {
        /// Before SIGKILL; the job's own grace where absent.
        grace: Option<Duration>,
        /// Who asked.
        by: String,
    },
    /// The worker cannot keep it: it stops, or it has lost its lease. The job's grace applies.
    Abandon {
        /// Why, to be read after "ended because": `worker w1 is stopping`.
        reason: String,
    },
}

/// What happens to a live run.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Its shell runs.
    Started {
        /// Process id of the shell, and of the process group.
        pid: u32,
        /// When.
        at: DateTime<Utc>,
    },
    /// The next output, in order.
    Output(Vec<Chunk>),
    /// Its figures changed. Sent every 2 s at most; an unread one is replaced by the next.
    Progress(Progress),
    /// A kill was read.
    Received,
    /// SIGTERM was sent.
    Terminated,
    /// SIGKILL was sent.
    Killed,
}

/// The figures of a live run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Processor time of the process group, in milliseconds.
    pub(crate) cpu_millis: u64,
    /// Largest resident memory of the process group seen so far, in bytes.
    pub(crate) max_rss_bytes: u64,
    /// Output so far, in bytes, kept or not.
    pub(crate) output_bytes: u64,
    /// The last line that is not blank, at most 200 characters.
    pub(crate) last_line: String,
}

/// What became of a run.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// Succeeded, failed, timed out or killed; lost, where its keeper was killed. A run that was told
    /// to end is never a success.
    pub(crate) outcome: Outcome,
    /// Empty on success, else the reason in words.
    pub(crate) err: String,
    /// Where the shell exited.
    pub(crate) exit_code: Option<i32>,
    /// Where a signal ended the shell.
    pub(crate) signal: Option<i32>,
    /// When the shell was started, or the attempt was made.
    pub(crate) started: DateTime<Utc>,
    /// When the shell had ended; after a kill, when its whole group had.
    pub(crate) ended: DateTime<Utc>,
    /// Processor time in milliseconds, exact for everything that had ended with the shell.
    pub(crate) cpu_millis: u64,
    /// Peak resident memory in bytes: of the largest process, exact where it grew beyond some 3 MB, or
    /// the largest sum over the group that was seen, at the start and every 2 s; 0 if none was.
    pub(crate) max_rss_bytes: u64,
    /// The first and the last 32 KiB of both streams; what is not UTF-8 is replaced.
    pub(crate) output: String,
    /// The output that was not sent as an event: what came last, and the tail of a long one. To be
    /// stored after all that was received.
    pub(crate) rest: Vec<Chunk>,
    /// All output, in bytes, kept or not.
    pub(crate) output_bytes: u64,
    /// Whether some of it was dropped.
    pub(crate) truncated: bool,
    /// Who asked for the kill, if one ended the run.
    pub(crate) killed_by: Option<String>,
    /// From the order or time-out that ended the run until nothing of it was left.
    pub(crate) ending_took: Option<Duration>,
}

impl Finished {
    /// Of a run that had no process.
    pub(super) fn without_process(
        outcome: Outcome,
        err: String,
        at: DateTime<Utc>,
        killed_by: Option<String>,
    ) -> Self {
        Self {
            outcome,
            err,
            exit_code: None,
            signal: None,
            started: at,
            ended: clock::now(),
            cpu_millis: 0,
            max_rss_bytes: 0,
            output: String::new(),
            rest: Vec::new(),
            output_bytes: 0,
            truncated: false,
            killed_by,
            ending_took: None,
        }
    }
}
