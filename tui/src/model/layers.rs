//! What lies over the view: dialogs, the palette, help, details, the log, the editor. The top
//! layer gets the keys, and Esc takes it away.

use carillon_core::id::{JobName, RunId, WorkerId};
use carillon_core::replica::Replica;
use carillon_core::run::{LiveRun, RunRecord, RunState};
use chrono::{DateTime, TimeDelta, Utc};

use super::editor::Editor;
use super::filter::Filter;
use super::input::Input;
use super::log::LogView;
use crate::command::{Command, Context, Spec, TABLE};
use crate::effect::{SaveJob, Ticket};

/// One layer.
#[derive(Debug)]
pub enum Layer {
    /// The keys of a place.
    Help {
        /// Which place.
        place: Context,
        /// How many lines are scrolled away.
        scroll: usize,
    },
    /// A command is being typed.
    Palette(Palette),
    /// A filter is being typed.
    Filter {
        /// What is typed.
        input: Input,
        /// What was there before: Esc brings it back.
        before: Filter,
    },
    /// A question.
    Confirm(Box<Confirm>),
    /// A kill is followed to its end.
    Kill(KillWatch),
    /// One job in full.
    Details(Details),
    /// The output of a run.
    Log {
        /// Whose.
        run: RunId,
        /// The view.
        view: Box<LogView>,
    },
    /// A job is being written.
    Editor {
        /// Finds this editor when the answer to its save comes.
        ticket: Ticket,
        /// The form.
        editor: Box<Editor>,
    },
}

/// The palette: a line of text and the commands that fit it.
#[derive(Debug, Clone, Default)]
pub struct Palette {
    /// What is typed.
    pub input: Input,
    /// Which of the fitting commands is chosen.
    pub at: usize,
}

impl Palette {
    /// The commands that fit what is typed, best first: those whose name begins with it, then
    /// those whose name contains it. Not those whose help does: what runs must be what was typed.
    pub fn choices(&self, place: Context, read_only: bool) -> Vec<&'static Spec> {
        let word = self.input.text().split_whitespace().next().unwrap_or("");
        let word = word.to_lowercase();
        let rank = |spec: &Spec| match () {
            () if spec.name == word => Some(0),
            () if spec.name.starts_with(&word) => Some(1),
            () if spec.name.contains(&word) => Some(2),
            () => None,
        };
        let offered = TABLE.iter().filter(|spec| {
            spec.works_in(place) && spec.is_offered(read_only) && spec.command != Command::Palette
        });
        let mut ranked: Vec<_> = offered.filter_map(|s| Some((rank(s)?, s))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, spec)| spec).collect()
    }

    /// What follows the command's name.
    pub fn argument(&self) -> Option<&str> {
        let (_, rest) = self.input.text().trim_start().split_once(' ')?;
        Some(rest.trim()).filter(|rest| !rest.is_empty())
    }
}

/// A run that is to be killed, as it was when the question was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct KillTarget {
    /// Its job.
    pub job: JobName,
    /// Its id.
    pub run: RunId,
    /// Who runs it.
    pub worker: WorkerId,
    /// Its process, once started.
    pub pid: Option<u32>,
    /// Since when it runs.
    pub since: DateTime<Utc>,
}

impl From<&LiveRun> for KillTarget {
    fn from(live: &LiveRun) -> Self {
        Self {
            job: live.job.clone(),
            run: live.run,
            worker: live.value.worker.clone(),
            pid: live.value.pid,
            since: live.value.since,
        }
    }
}

/// What a confirmed question leads to. The targets are frozen: what changes meanwhile does not
/// change them.
#[derive(Debug, Clone, PartialEq)]
pub enum Pending {
    /// Kill these runs.
    Kill(Vec<KillTarget>),
    /// Delete these jobs, at these revisions.
    Delete(Vec<(JobName, i64)>),
    /// Run these jobs.
    Run(Vec<JobName>),
    /// Write these jobs.
    Save(Vec<SaveJob>),
    /// Drain this worker.
    Drain(WorkerId),
    /// Close the editor and lose what was typed.
    Discard,
    /// Leave and lose what was typed.
    Quit,
}

/// The two buttons of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Focus {
    /// Nothing happens.
    #[default]
    Cancel,
    /// It happens.
    Act,
}

/// A question before something that cannot be undone, or that touches many.
#[derive(Debug, Clone)]
pub struct Confirm {
    /// The question.
    pub title: String,
    /// Each target, exactly.
    pub targets: Vec<String>,
    /// What will happen.
    pub note: String,
    /// The word on the button that does it.
    pub verb: &'static str,
    /// What it leads to.
    pub pending: Pending,
    /// The number that must be typed where there is more than one target.
    pub count: Option<usize>,
    /// What is typed of it.
    pub typed: Input,
    /// The focused button.
    pub focus: Focus,
    /// How many targets are scrolled away.
    pub scroll: usize,
}

impl Confirm {
    /// A question with Cancel focused. More than one target asks for their number.
    pub fn new(title: String, verb: &'static str, targets: Vec<String>, pending: Pending) -> Self {
        Self {
            title,
            note: String::new(),
            verb,
            pending,
            count: (targets.len() > 1).then_some(targets.len()),
            targets,
            typed: Input::default(),
            focus: Focus::Cancel,
            scroll: 0,
        }
    }

    /// With a sentence on what will happen.
    pub fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Whether the number that was asked for has been typed.
    pub fn is_armed(&self) -> bool {
        self.count.is_none_or(|n| self.typed.text().trim() == n.to_string())
    }
}

/// How far a kill has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KillStep {
    /// The console has sent it.
    Asked,
    /// It stands in etcd.
    Requested,
    /// The worker has read it.
    Received,
    /// SIGTERM was sent.
    Terminated,
    /// SIGKILL was sent.
    Killed,
    /// Nothing of the run is left.
    Gone,
}

/// One run on its way out.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Which.
    pub target: KillTarget,
    /// How far it has come.
    pub step: KillStep,
    /// The furthest that was seen before it was gone.
    pub seen: KillStep,
    /// How long it took until it was gone.
    pub took: Option<TimeDelta>,
}

/// Follows a kill until every run is gone, or until the operator leaves.
#[derive(Debug, Clone)]
pub struct KillWatch {
    /// The runs.
    pub runs: Vec<Watched>,
    /// When it was asked for.
    pub asked: DateTime<Utc>,
    /// Why it could not be asked for.
    pub error: Option<String>,
    /// How many are scrolled away.
    pub scroll: usize,
}

impl KillWatch {
    /// Begins at `asked`.
    pub fn new(targets: Vec<KillTarget>, asked: DateTime<Utc>) -> Self {
        let watched =
            |target| Watched { target, step: KillStep::Asked, seen: KillStep::Asked, took: None };
        Self { runs: targets.into_iter().map(watched).collect(), asked, error: None, scroll: 0 }
    }

    /// Reads how far each run has come.
    pub fn follow(&mut self, replica: &Replica, now: DateTime<Utc>) {
        for watched in &mut self.runs {
            let key = (watched.target.job.clone(), watched.target.run);
            let seen = match super::runs::find(replica, &key) {
                None => KillStep::Gone,
                Some(live) => match live.value.state {
                    RunState::Received => KillStep::Received,
                    RunState::Terminated => KillStep::Terminated,
                    RunState::Killed => KillStep::Killed,
                    RunState::Claimed | RunState::Running if replica.kill_of(live).is_some() => {
                        KillStep::Requested
                    }
                    RunState::Claimed | RunState::Running | RunState::Unknown => KillStep::Asked,
                },
            };
            if seen == KillStep::Gone && watched.step != KillStep::Gone {
                watched.took = Some((now - self.asked).max(TimeDelta::zero()));
            }
            if seen < KillStep::Gone {
                watched.seen = watched.seen.max(seen);
            }
            watched.step = watched.step.max(seen);
        }
    }

    /// Whether every run is gone.
    pub fn is_over(&self) -> bool {
        self.runs.iter().all(|w| w.step == KillStep::Gone)
    }
}

/// One job in full, with its recent records.
#[derive(Debug, Clone)]
pub struct Details {
    /// Which.
    pub job: JobName,
    /// How many lines are scrolled away.
    pub scroll: usize,
    /// The furthest that it can be scrolled.
    pub lines: usize,
    /// Its newest records, once they were read.
    pub records: Option<Result<Vec<RunRecord>, String>>,
    /// The number of the question for them.
    pub generation: u64,
}
