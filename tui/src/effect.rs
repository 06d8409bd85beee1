//! What the console asks of the world. Effects are values: `update` returns them, [`crate::gate`]
//! admits or refuses them, and only then does anything happen.

use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::job::Job;
use carillon_core::jobs::Expected;
use carillon_core::records::HistoryFilter;
use chrono::{DateTime, Utc};

/// How much an effect can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// Changes nothing in the fleet.
    Reads,
    /// Changes something that can be changed back.
    Writes,
    /// Ends or removes something for good.
    Destroys,
}

/// Something to be done outside the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read a page of the history; answered by [`crate::msg::Msg::History`].
    LoadHistory {
        /// Comes back with the answer.
        generation: u64,
        /// Which records.
        filter: HistoryFilter,
        /// Only records that started before this one: where the last page ended.
        before: Option<(DateTime<Utc>, RunId)>,
        /// How many records at most.
        limit: usize,
    },
    /// Send the output of a run, and what is added to it, until it is closed.
    OpenLog {
        /// Whose.
        run: RunId,
        /// Its job.
        job: String,
    },
    /// Send no more output of this run.
    CloseLog {
        /// Whose.
        run: RunId,
    },
    /// Write a job by compare-and-swap; answered by [`crate::msg::Msg::Saved`].
    SaveJob {
        /// Comes back with the answer.
        ticket: Ticket,
        /// What to write.
        save: SaveJob,
    },
    /// Delete jobs, each only at the revision that was seen.
    DeleteJobs(Vec<(JobName, i64)>),
    /// Run jobs once, now.
    RunNow(Vec<JobName>),
    /// Kill runs.
    Kill(Vec<(JobName, RunId)>),
    /// Ask a worker to take nothing new, or to take work again.
    Drain {
        /// Which.
        worker: WorkerId,
        /// Whether it drains.
        on: bool,
    },
    /// Load a theme by name; answered by [`crate::msg::Msg::Theme`].
    LoadTheme(String),
    /// Put text on the operator's clipboard.
    Copy(String),
    /// Stop the console in the background, as Ctrl-Z does.
    Suspend,
    /// Draw everything anew.
    Repaint,
    /// Leave.
    Quit,
}

impl Effect {
    /// How much it can do: what the gate decides by.
    pub fn danger(&self) -> Danger {
        match self {
            Self::LoadHistory { .. }
            | Self::OpenLog { .. }
            | Self::CloseLog { .. }
            | Self::LoadTheme(_)
            | Self::Copy(_)
            | Self::Suspend
            | Self::Repaint
            | Self::Quit => Danger::Reads,
            Self::SaveJob { .. } | Self::RunNow(_) | Self::Drain { .. } => Danger::Writes,
            Self::DeleteJobs(_) | Self::Kill(_) => Danger::Destroys,
        }
    }

    /// What it does, in words: `kill 2 runs`.
    pub fn describe(&self) -> String {
        let several = |n: usize, what: &str| match n {
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        };
        match self {
            Self::LoadHistory { .. } => "read the history".to_owned(),
            Self::OpenLog { job, .. } => format!("read the output of {job}"),
            Self::CloseLog { .. } => "close the log".to_owned(),
            Self::SaveJob { save, .. } => format!("{} {}", save.what.verb(), save.job.name),
            Self::DeleteJobs(jobs) => format!("delete {}", several(jobs.len(), "job")),
            Self::RunNow(jobs) => format!("run {}", several(jobs.len(), "job")),
            Self::Kill(runs) => format!("kill {}", several(runs.len(), "run")),
            Self::Drain { worker, on: true } => format!("drain {worker}"),
            Self::Drain { worker, on: false } => format!("undrain {worker}"),
            Self::LoadTheme(name) => format!("load the theme {name}"),
            Self::Copy(_) => "copy".to_owned(),
            Self::Suspend => "suspend".to_owned(),
            Self::Repaint => "repaint".to_owned(),
            Self::Quit => "leave".to_owned(),
        }
    }
}

/// Finds who asked for a write when its answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// A job to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct SaveJob {
    /// The job.
    pub job: Box<Job>,
    /// What must stand in etcd for the write to happen.
    pub expected: Expected,
    /// What the write is, for the audit trail and the toast.
    pub what: SaveKind,
}

/// What a write of a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveKind {
    /// A new job.
    Create,
    /// Changed fields.
    Edit,
    /// `enabled` was set to false.
    Pause,
    /// `enabled` was set to true.
    Resume,
}

impl SaveKind {
    /// The verb: `create`, `edit`, `pause`, `resume`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Edit => "edit",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The past tense: `created`, `changed`, `paused`, `resumed`.
    pub fn done(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Edit => "changed",
            Self::Pause => "paused",
            Self::Resume => "resumed",
        }
    }
}
