//! The subcommands: one file each, the same operations as the console, for scripts.
//!
//! Exit codes: 0 done, 1 the operation failed, 2 bad usage, 3 a store is unreachable, 4 somebody
//! else changed the job meanwhile. `run --wait` exits with the job's own code, and with 0 only for a
//! success.

mod apply;
mod change;
mod drain;
mod history;
mod info;
mod jobs;
mod kill;
mod logs;
mod next;
mod print;
mod purge;
mod recover;
mod run;
mod stats;
mod when;
mod why;
mod workers;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use carillon_core::etcd::EtcdError;
use carillon_core::id::{JobName, WorkerId};
use carillon_core::jobs::SaveError;
use carillon_core::records::RecordsError;
use carillon_core::replica::Replica;
use carillon_core::settings::Connection;
use chrono::Utc;
use clap::{Subcommand, ValueEnum};

use crate::operator::{Done, Operator, OperatorError, Who};

/// What the program is asked to do; the console where nothing is given.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "a comment on a flattened field would become help text")]
pub enum Command {
    /// List the jobs
    Jobs {
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Show one job: every policy, its next firings, its stored JSON with -o json
    Get {
        /// The job
        name: JobName,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Create or change jobs from JSON: one job or an array of jobs
    #[command(
        after_help = "Example:\n  echo '{\"name\": \"tidy\", \"command\": \"/opt/tidy.sh\", \"cronExpr\": \"0 3 * * *\"}' | carillon apply -f -\n\nAll jobs are checked before the first is written."
    )]
    Apply {
        /// The file, or - for standard input
        #[arg(short, long, value_name = "FILE|-")]
        file: PathBuf,
        /// Say what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Delete jobs
    Delete {
        /// The jobs
        #[arg(required = true)]
        names: Vec<JobName>,
    },
    /// Stop following the schedule of jobs
    Pause {
        /// The jobs
        #[arg(required = true)]
        names: Vec<JobName>,
    },
    /// Follow the schedule of paused jobs again, from now on
    Resume {
        /// The jobs
        #[arg(required = true)]
        names: Vec<JobName>,
    },
    /// Run a job once, now
    Run {
        /// The job
        name: JobName,
        /// Stream its output and exit with its exit code: 0 only for a success, 128+n for signal n,
        /// 125 where Carillon itself failed or the run left no other
        #[arg(long)]
        wait: bool,
    },
    /// Kill the live runs of a job
    Kill {
        /// The job
        name: JobName,
        /// Only this run
        #[arg(long, value_name = "ID")]
        run: Option<carillon_core::id::RunId>,
        /// Wait until they are gone
        #[arg(long)]
        wait: bool,
    },
    /// List run records, newest first
    History(history::History),
    /// Print the output of a run, or of the newest run of a job
    Logs(logs::Logs),
    /// Tell how often a job ran, how it ended and how long it took, and whether that changed
    #[command(
        after_help = "Counted are the records of the time asked for, at most the newest 1,000; compared are those of\nthe same time before. Example:\n  carillon stats settle --since 7d"
    )]
    Stats(stats::Stats),
    /// Delete old records and their output
    #[command(
        after_help = "Examples:\n  carillon purge --older-than 30d --dry-run            count only\n  carillon purge --older-than 90d --job settle --yes   without asking\n\nLive runs stay. What is deleted cannot be brought back; broken off, it can be run again."
    )]
    Purge(purge::Purge),
    /// Tell why a slot ran, or why it did not
    #[command(
        after_help = "Examples:\n  carillon why settle                       the newest decided slot, else the next\n  carillon why settle '2026-11-24 09:30'    by the clock of the job's zone\n  carillon why settle 2026-11-24T08:30:00Z -o json"
    )]
    Why {
        /// The job
        name: JobName,
        /// The slot: an instant in RFC 3339, or a time in the job's zone [default: the newest
        /// decided one, else the next]
        slot: Option<String>,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// List the workers
    Workers {
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Ask workers to take nothing new; their runs go on to their end
    #[command(
        after_help = "Example:\n  carillon drain w3 && carillon workers    # until it has 0 running\n\nIt lasts until `carillon undrain`, also when the worker is started again."
    )]
    Drain {
        /// The workers
        #[arg(required = true)]
        workers: Vec<WorkerId>,
    },
    /// Let workers take work again
    Undrain {
        /// The workers
        #[arg(required = true)]
        workers: Vec<WorkerId>,
    },
    /// Put cursors right after etcd was restored from a backup, or a clock was wrong
    #[command(
        after_help = "Examples:\n  carillon recover --dry-run     say what would be done\n  carillon recover               the whole fleet: workers that stand by after a restore go on\n  carillon recover settle        one job that stopped because its cursor is in the future\n\nNo slot that is recorded in MongoDB runs again. It can be run again at any time."
    )]
    Recover {
        /// Only these jobs
        names: Vec<JobName>,
        /// Say what would be done and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// etcd was restored, although no worker is there to say so
        #[arg(long, conflicts_with = "names")]
        restored: bool,
    },
    /// Print when a schedule fires next
    Next(next::Next),
    /// Print versions, paths and the state of both stores
    Info {
        #[command(flatten)]
        format: FormatArgument,
    },
}

impl Command {
    /// Whether it changes something in the fleet.
    pub fn writes(&self) -> bool {
        match self {
            Self::Apply { dry_run, .. }
            | Self::Recover { dry_run, .. }
            | Self::Purge(purge::Purge { dry_run, .. }) => !dry_run,
            Self::Delete { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Run { .. }
            | Self::Kill { .. }
            | Self::Drain { .. }
            | Self::Undrain { .. } => true,
            Self::Jobs { .. }
            | Self::Get { .. }
            | Self::History(_)
            | Self::Logs(_)
            | Self::Stats(_)
            | Self::Why { .. }
            | Self::Workers { .. }
            | Self::Next(_)
            | Self::Info { .. } => false,
        }
    }
}

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct FormatArgument {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Why a subcommand ends with another exit code than 0.
#[derive(Debug)]
pub enum Failure {
    /// The operation failed.
    Failed(String),
    /// A store does not answer.
    Unreachable(String),
    /// Somebody else changed the job.
    Conflict(String),
    /// The exit code is somebody else's; all has been said.
    Exit(u8),
}

impl Failure {
    /// The program's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Unreachable(_) => 3,
            Self::Conflict(_) => 4,
            Self::Exit(code) => *code,
        }
    }

    /// What to tell the operator, if anything is left to say.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Failed(text) | Self::Unreachable(text) | Self::Conflict(text) => Some(text),
            Self::Exit(_) => None,
        }
    }

    /// The graver of two: what a command over several jobs ends with.
    fn or_worse(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.code() > self.code() => other,
            _ => self,
        }
    }
}

impl From<EtcdError> for Failure {
    fn from(e: EtcdError) -> Self {
        match e {
            EtcdError::Unreachable { .. } => Self::Unreachable(e.to_string()),
            _ => Self::Failed(e.to_string()),
        }
    }
}

impl From<RecordsError> for Failure {
    fn from(e: RecordsError) -> Self {
        match e {
            RecordsError::Unreachable { .. } => Self::Unreachable(e.to_string()),
            _ => Self::Failed(e.to_string()),
        }
    }
}

impl From<OperatorError> for Failure {
    fn from(e: OperatorError) -> Self {
        match e {
            OperatorError::Etcd(e) | OperatorError::Save(SaveError::Etcd(e)) => e.into(),
            OperatorError::Records(e) => e.into(),
            OperatorError::Unanswered { .. } => Self::Unreachable(e.to_string()),
            OperatorError::Save(SaveError::Conflict(_)) => Self::Conflict(e.to_string()),
            _ => Self::Failed(e.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            // Whoever reads us has enough: `carillon history | head`.
            std::io::ErrorKind::BrokenPipe => Self::Exit(0),
            _ => Self::Failed(e.to_string()),
        }
    }
}

/// Runs one subcommand.
///
/// # Errors
/// What to say and with which code to exit.
pub async fn execute(
    command: Command,
    connection: &Connection,
    who: Who,
    config: &std::path::Path,
    state: &std::path::Path,
) -> Result<(), Failure> {
    if let Command::Next(asked) = &command {
        return next::next(asked);
    }
    let operator = Operator::connect(connection, who).await?;
    match command {
        Command::Jobs { format } => jobs::jobs(&operator, format.output).await,
        Command::Get { name, format } => jobs::get(&operator, &name, format.output).await,
        Command::Apply { file, dry_run, format } => {
            apply::apply(&operator, &file, dry_run, format.output).await
        }
        Command::Delete { names } => change::delete(&operator, &names).await,
        Command::Pause { names } => change::set_enabled(&operator, &names, false).await,
        Command::Resume { names } => change::set_enabled(&operator, &names, true).await,
        Command::Run { name, wait } => run::run(&operator, &name, wait).await,
        Command::Kill { name, run, wait } => kill::kill(&operator, &name, run, wait).await,
        Command::History(asked) => history::history(&operator, asked).await,
        Command::Logs(asked) => logs::logs(&operator, &asked).await,
        Command::Stats(asked) => stats::stats(&operator, &asked).await,
        Command::Purge(asked) => purge::purge(&operator, &asked).await,
        Command::Why { name, slot, format } => {
            why::why(&operator, &name, slot.as_deref(), format.output).await
        }
        Command::Drain { workers } => drain::drain(&operator, &workers, true).await,
        Command::Undrain { workers } => drain::drain(&operator, &workers, false).await,
        Command::Recover { names, dry_run, yes, restored } => {
            recover::recover(&operator, &names, recover::How { dry_run, yes, restored }).await
        }
        Command::Workers { format } => workers::workers(&operator, format.output).await,
        Command::Info { format } => {
            info::info(&operator, connection, config, state, format.output).await
        }
        Command::Next(_) => Ok(()),
    }
}

/// The fleet's state, read now.
async fn replica(operator: &Operator) -> Result<Replica, Failure> {
    let mut replica: Replica = Replica::default();
    let snapshot = operator.etcd.snapshot().await?;
    replica.apply(operator.etcd.keys(), &snapshot, Utc::now());
    Ok(replica)
}

/// Tells the operator something on standard error.
pub fn tell(message: &str) {
    print::note(message);
}

/// Tells on standard error that a change has no trace, if it has none.
fn told<T>(done: Done<T>) -> T {
    if let Some(why) = done.untraced {
        print::note(&format!("done, but not in the audit trail: {why}"));
    }
    done.value
}

/// Asks on the terminal.
fn confirmed() -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Failed(
            "there is no terminal to ask on: add --yes to do it, --dry-run to look only".to_owned(),
        ));
    }
    write!(std::io::stderr().lock(), "Do it? [y/N] ")?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
