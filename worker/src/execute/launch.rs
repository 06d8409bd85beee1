//! What is to be started, and what may keep it from it: the words that a worker and the keeper of a
//! run exchange, one line of JSON each, on the run's own socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use carillon_core::job::Limits;
use carillon_core::run::Outcome;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What is to be started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// Given to the shell after `-c`.
    pub(crate) command: String,
    /// Absolute path of the shell.
    pub(crate) shell: String,
    /// Where to start; the user's home where absent, `/` where there is none.
    pub(crate) cwd: Option<String>,
    /// Whom to become; the worker's own user where absent.
    pub(crate) user: Option<String>,
    /// The job's variables, over a clean base: `PATH HOME LANG USER LOGNAME SHELL`.
    pub(crate) env: BTreeMap<String, String>,
    /// The `CARILLON_*` variables, which the job cannot override.
    pub(crate) vars: Vec<(String, String)>,
    /// The file mode mask; the worker's own where absent.
    pub(crate) umask: Option<u32>,
    /// The nice value; the worker's own where absent.
    pub(crate) nice: Option<i32>,
    /// Resource limits; the worker's own where absent.
    pub(crate) limits: Limits,
    /// The control group to be born in, a folder.
    pub(crate) cgroup: Option<PathBuf>,
    /// When its shell must be there, since boot; later it is not started.
    pub(crate) start_by: Option<Duration>,
}

/// What a keeper says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It is about to be started.
    Kept {
        /// The process id of the keeper.
        keeper: i32,
    },
    /// The shell runs.
    Started {
        /// Its process id.
        shell: i32,
    },
    /// It does not, and why, in the words of a [`StartError`].
    Failed(String),
    /// It does not, because the worker's lease had run out, or its own deadline had passed.
    TooLate,
    /// The shell was reaped.
    Ended {
        /// As wait(2) has it.
        status: i32,
        /// Processor time of everything that the keeper has reaped, in microseconds.
        cpu_micros: u64,
        /// The largest resident memory of any one of these, in bytes; absent where it is below the
        /// keeper's own, at which a child's figure starts.
        max_rss_bytes: Option<u64>,
    },
}

/// What a worker says after the launch: the shell, which has ended, is to be reaped.
pub(crate) const REAP: &[u8] = b"reap\n";

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
    /// The system refuses it even to root.
    #[error("cannot become user \"{0}\": {1}")]
    Switch(String, &'static str),
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
    /// The nice value is below the worker's own.
    #[error("nice {0}: {1} (less than the worker's own takes root)")]
    Nice(i32, &'static str),
    /// A resource limit cannot be set.
    #[error("limits.{0} {1}: {2} (more than the worker's own takes root)")]
    Limit(&'static str, u64, &'static str),
    /// The user has so many processes already.
    #[error("user \"{0}\" has as many processes already as limits.processes allows")]
    Processes(String),
    /// What a keeper said.
    #[error("{0}")]
    Said(String),
    /// It was to start when the worker's lease had run out, or its own deadline had passed.
    #[error("it was too late to start it")]
    TooLate,
    /// Whoever was to start it was killed, so nobody knows whether it was started.
    #[error("what was to start it was killed")]
    Gone,
    /// Everything else, such as a machine without free process ids.
    #[error("cannot start {0}: {1}")]
    Other(String, std::io::Error),
}

impl StartError {
    /// What becomes of the run.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Gone => Outcome::Lost,
            _ => Outcome::Failed,
        }
    }
}
