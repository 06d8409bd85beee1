//! The whole state of the console, as one value. It is changed by [`crate::update`] only and read
//! by [`crate::view`]; nothing in it knows a socket, a file or a clock.

pub mod connection;
pub mod editor;
pub mod filter;
pub mod history;
pub mod input;
pub mod jobs;
pub mod layers;
pub mod list;
pub mod log;
pub mod runs;
pub mod sort;
pub mod toasts;
pub mod workers;

use carillon_core::id::JobName;
use carillon_core::job::JobEntry;
use carillon_core::keys::Keys;
use carillon_core::replica::Replica;
use chrono::{DateTime, Utc};

use self::connection::{Connection, Link};
use self::history::History;
use self::jobs::Jobs;
use self::layers::Layer;
use self::runs::Runs;
use self::toasts::Toasts;
use self::workers::Workers;
use crate::command::Context;
use crate::keymap::Keymap;
use crate::theme::Theme;

/// The smallest terminal that the console can be used on: columns and rows.
pub const SMALLEST: (u16, u16) = (60, 15);

/// Rows of the screen that are not the table's body: tabs, headings, hints, status.
const CHROME: u16 = 4;

/// The views, in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// The jobs.
    #[default]
    Jobs,
    /// The live runs.
    Running,
    /// The records.
    History,
    /// The workers.
    Workers,
}

impl View {
    /// Every view.
    pub const ALL: [Self; 4] = [Self::Jobs, Self::Running, Self::History, Self::Workers];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Running => "running",
            Self::History => "history",
            Self::Workers => "workers",
        }
    }

    /// Where its keys are looked up.
    pub fn context(self) -> Context {
        match self {
            Self::Jobs => Context::Jobs,
            Self::Running => Context::Running,
            Self::History => Context::History,
            Self::Workers => Context::Workers,
        }
    }
}

/// What the model is made from.
#[derive(Debug)]
pub struct Setup {
    /// The keys of the fleet.
    pub keys: Keys,
    /// Where etcd is looked for, without credentials.
    pub etcd: String,
    /// Where MongoDB is looked for, without credentials.
    pub mongo: String,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// The colours.
    pub theme: Theme,
    /// The keys of the commands.
    pub keymap: Keymap,
}

/// The state of the console.
#[derive(Debug)]
pub struct Model {
    /// The fleet's keys.
    pub keys: Keys,
    /// The fleet, as etcd last told.
    pub replica: Replica,
    /// Whether etcd has ever told.
    pub synced: bool,
    /// The time of the last message.
    pub now: DateTime<Utc>,
    /// Columns and rows of the terminal.
    pub screen: (u16, u16),
    /// The view at the bottom.
    pub view: View,
    /// The jobs view.
    pub jobs: Jobs,
    /// The view of live runs.
    pub runs: Runs,
    /// The history view.
    pub history: History,
    /// The workers view.
    pub workers: Workers,
    /// What lies over the view, the top one last.
    pub layers: Vec<Layer>,
    /// Short messages.
    pub toasts: Toasts,
    /// Both stores.
    pub connection: Connection,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// The colours.
    pub theme: Theme,
    /// The keys of the commands.
    pub keymap: Keymap,
    /// Whether the screen no longer shows the model.
    pub dirty: bool,
    counter: u64,
}

impl Model {
    /// The console at its start.
    pub fn new(setup: Setup, now: DateTime<Utc>) -> Self {
        Self {
            keys: setup.keys,
            replica: Replica::default(),
            synced: false,
            now,
            screen: (80, 24),
            view: View::default(),
            jobs: Jobs::default(),
            runs: Runs::default(),
            history: History::default(),
            workers: Workers::default(),
            layers: Vec::new(),
            toasts: Toasts::default(),
            connection: Connection { etcd: Link::new(&setup.etcd), mongo: Link::new(&setup.mongo) },
            read_only: setup.read_only,
            theme: setup.theme,
            keymap: setup.keymap,
            dirty: true,
            counter: 0,
        }
    }

    /// A number that was not used before: for questions and tickets.
    pub fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// The rows that a table's body has on this screen.
    pub fn body_rows(&self) -> usize {
        usize::from(self.screen.1.saturating_sub(CHROME)).max(1)
    }

    /// Whether the screen is large enough to be used.
    pub fn fits(&self) -> bool {
        self.screen.0 >= SMALLEST.0 && self.screen.1 >= SMALLEST.1
    }

    /// Makes every index fit its data: before keys are read and before anything is drawn.
    pub fn settle(&mut self) {
        let rows = self.body_rows();
        self.jobs.settle(&self.replica, self.now);
        self.runs.settle(&self.replica);
        self.workers.settle(&self.replica);
        self.jobs.list.set_height(rows);
        self.runs.list.set_height(rows);
        self.history.list.set_height(rows);
        self.workers.list.set_height(rows);
    }

    /// Where keys are looked up and what the palette offers: the details of a job, or the view.
    pub fn place(&self) -> Context {
        let details = |layer: &Layer| matches!(layer, Layer::Details(_));
        match self.layers.iter().any(details) {
            true => Context::Details,
            false => self.view.context(),
        }
    }

    /// The job that details are shown of, if they are.
    pub fn detailed(&self) -> Option<&JobName> {
        self.layers.iter().rev().find_map(|layer| match layer {
            Layer::Details(details) => Some(&details.job),
            _ => None,
        })
    }

    /// A job by its name.
    pub fn job(&self, name: &JobName) -> Option<&JobEntry> {
        self.replica.jobs.get(name).map(AsRef::as_ref)
    }

    /// Whether something on the screen changes with the time alone, so that ticks are needed.
    pub fn wants_ticks(&self) -> bool {
        if !self.toasts.is_empty() || self.connection.wants_ticks() || !self.synced {
            return true;
        }
        let covered = self.layers.iter().any(|l| matches!(l, Layer::Editor { .. }));
        if covered {
            // The editor shows the next firings, which pass.
            return true;
        }
        match self.view {
            View::Jobs => !self.replica.jobs.is_empty(),
            View::Running => !self.replica.live.is_empty(),
            View::History => !self.history.list.rows().is_empty(),
            View::Workers => !self.replica.workers.is_empty(),
        }
    }
}
