//! What happens to the console: every key, every answer and every change in the fleet arrives as
//! one [`Msg`]. Nothing else reaches the model.

use std::time::Duration;

use carillon_core::id::RunId;
use carillon_core::job::JobEntry;
use carillon_core::records::Page;
use carillon_core::replica::Feed;
use carillon_core::run::{Chunk, RunRecord};
use chrono::{DateTime, Utc};
use crossterm::event::Event;

use crate::effect::{SaveKind, Ticket};
use crate::theme::Theme;

/// One thing that happened.
#[derive(Debug)]
pub enum Msg {
    /// The terminal reported a key, a paste or a new size.
    Input(Event),
    /// A second passed while something on the screen depends on the time.
    Tick,
    /// etcd delivered, or went away.
    Fleet(Feed),
    /// The newest records of the fleet, newest first.
    Recent(Vec<RunRecord>),
    /// The records of live runs: processor time, memory and last line.
    Live(Vec<RunRecord>),
    /// A page of the history that was asked for.
    History {
        /// The number of the question, so that an answer to an older one is dropped.
        generation: u64,
        /// The page, or why there is none.
        result: Result<Page, String>,
    },
    /// Output of a run whose log is open.
    Log {
        /// Whose.
        run: RunId,
        /// What came.
        part: LogPart,
    },
    /// A job was written, or was not.
    Saved {
        /// Given with the effect: finds the editor that asked.
        ticket: Ticket,
        /// The job's name.
        job: String,
        /// What the write was.
        what: SaveKind,
        /// The etcd revision of the write, or why it was refused.
        result: Result<i64, ActError>,
    },
    /// Another action came to an end.
    Acted {
        /// What was asked for, in the words of [`crate::effect::Effect::describe`].
        action: String,
        /// What to tell the operator.
        result: Result<String, ActError>,
    },
    /// The state of a store's connection changed, or was measured again.
    Health {
        /// Which.
        store: Store,
        /// How it is.
        health: Health,
    },
    /// A theme was loaded, or could not be.
    Theme(Result<Box<Theme>, String>),
    /// The console is in the foreground again after a suspension.
    Resume,
}

/// A part of a run's output.
#[derive(Debug)]
pub enum LogPart {
    /// Bytes, in order.
    Chunks(Vec<Chunk>),
    /// The run is over: its final record. No chunks follow.
    Ended(Box<RunRecord>),
    /// The output cannot be read, and why.
    Failed(String),
}

/// Why an action was not done.
#[derive(Debug, Clone)]
pub enum ActError {
    /// Somebody else changed the job meanwhile.
    Conflict {
        /// What stands in etcd now; `None` where it was deleted.
        theirs: Option<Box<JobEntry>>,
    },
    /// It cannot be done, and why.
    Refused(String),
    /// The store could not be asked.
    Unreachable(String),
}

/// One of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Jobs, live runs and workers.
    Etcd,
    /// Records and output.
    Mongo,
}

impl Store {
    /// The name on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Mongo => "mongo",
        }
    }
}

/// How the connection to a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it answers.
    pub up: bool,
    /// The median round trip of the last requests.
    pub rtt: Option<Duration>,
    /// Since when it has been up, or down.
    pub since: DateTime<Utc>,
    /// When down: what failed and where. Empty when all is well.
    pub detail: String,
}
