//! The live runs: what etcd knows of them, with the telemetry that their workers write to MongoDB.

use std::cmp::Reverse;
use std::collections::HashMap;

use carillon_core::id::{JobName, RunId};
use carillon_core::replica::Replica;
use carillon_core::run::{LiveRun, RunRecord, RunState};

use super::filter::{Filter, Subject, contains_folded};
use super::list::List;
use super::sort::{Columns, Sort, absent_last};

/// The columns of the table of live runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its title")]
pub enum RunColumn {
    Job,
    State,
    Worker,
    Pid,
    Elapsed,
    Cpu,
    Memory,
    LastLine,
}

impl Columns for RunColumn {
    const ALL: &'static [Self] = &[
        Self::Job,
        Self::State,
        Self::Worker,
        Self::Pid,
        Self::Elapsed,
        Self::Cpu,
        Self::Memory,
        Self::LastLine,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Job => "JOB",
            Self::State => "STATE",
            Self::Worker => "WORKER",
            Self::Pid => "PID",
            Self::Elapsed => "ELAPSED",
            Self::Cpu => "CPU",
            Self::Memory => "MEMORY",
            Self::LastLine => "LAST LINE",
        }
    }

    fn sorts(self) -> bool {
        !matches!(self, Self::Pid | Self::LastLine)
    }
}

/// How far a kill of the run has come, in the words of the kill ladder; else its state.
pub fn state_word(replica: &Replica, live: &LiveRun) -> &'static str {
    match live.value.state {
        RunState::Claimed | RunState::Running if replica.kill_of(live).is_some() => {
            "kill requested"
        }
        RunState::Claimed => "starting",
        RunState::Running | RunState::Unknown => "running",
        RunState::Received => "kill received",
        RunState::Terminated => "terminated",
        RunState::Killed => "killed",
    }
}

/// The view of live runs.
#[derive(Debug)]
pub struct Runs {
    /// The rows.
    pub list: List<(JobName, RunId)>,
    /// Their order.
    pub sort: Sort<RunColumn>,
    /// Which are shown.
    pub filter: Filter,
    telemetry: HashMap<RunId, RunRecord>,
    stale: bool,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            list: List::default(),
            sort: Sort::by(RunColumn::Elapsed),
            filter: Filter::default(),
            telemetry: HashMap::new(),
            stale: true,
        }
    }
}

impl Runs {
    /// What the run's worker last wrote about it.
    pub fn telemetry(&self, run: RunId) -> Option<&RunRecord> {
        self.telemetry.get(&run)
    }

    /// Takes in the records of all live runs.
    pub fn learn(&mut self, records: Vec<RunRecord>) {
        self.telemetry = records.into_iter().map(|r| (r.id, r)).collect();
        self.outdate();
    }

    /// The index no longer fits the data.
    pub fn outdate(&mut self) {
        self.stale = true;
    }

    /// Rebuilds the index if it no longer fits.
    pub fn settle(&mut self, replica: &Replica) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let shown = replica.all_live().filter(|live| {
            let subject = RunSubject { live, replica, telemetry: self.telemetry.get(&live.run) };
            self.filter.is_empty() || self.filter.matches(&subject)
        });
        let mut rows: Vec<&LiveRun> = shown.collect();
        let record = |live: &LiveRun| self.telemetry.get(&live.run);
        rows.sort_by(|a, b| {
            let order = match self.sort.column {
                RunColumn::Job => a.job.cmp(&b.job),
                RunColumn::State => state_word(replica, a).cmp(state_word(replica, b)),
                RunColumn::Worker => a.value.worker.cmp(&b.value.worker),
                RunColumn::Cpu => absent_last(
                    record(a).and_then(|r| r.cpu_millis).map(Reverse),
                    record(b).and_then(|r| r.cpu_millis).map(Reverse),
                ),
                RunColumn::Memory => absent_last(
                    record(a).and_then(|r| r.max_rss_bytes).map(Reverse),
                    record(b).and_then(|r| r.max_rss_bytes).map(Reverse),
                ),
                // The longest first: what hangs is what is looked for.
                RunColumn::Elapsed | RunColumn::Pid | RunColumn::LastLine => {
                    a.value.since.cmp(&b.value.since)
                }
            };
            self.sort.apply(order.then_with(|| a.run.cmp(&b.run)))
        });
        let keys = rows.into_iter().map(|r| (r.job.clone(), r.run)).collect();
        self.list.set_rows(keys);
        self.list.retain_marks(|key| find(replica, key).is_some());
    }
}

/// The live run of that key, while it is live.
pub fn find<'a>(replica: &'a Replica, key: &(JobName, RunId)) -> Option<&'a LiveRun> {
    replica.live.get(&key.0)?.get(&key.1)
}

struct RunSubject<'a> {
    live: &'a LiveRun,
    replica: &'a Replica,
    telemetry: Option<&'a RunRecord>,
}

impl Subject for RunSubject<'_> {
    fn contains(&self, lower: &str) -> bool {
        contains_folded(self.live.job.as_str(), lower)
            || contains_folded(self.live.value.worker.as_str(), lower)
            || self
                .telemetry
                .and_then(|r| r.last_line.as_deref())
                .is_some_and(|line| contains_folded(line, lower))
    }

    fn has_label(&self, key: &str, value: Option<&str>) -> bool {
        let job = self.replica.jobs.get(&self.live.job).and_then(|e| e.job());
        job.is_some_and(|job| {
            job.labels.iter().any(|(k, v)| {
                k.to_lowercase() == key && value.is_none_or(|wanted| v.to_lowercase() == wanted)
            })
        })
    }

    fn field_is(&self, field: &str, lower: &str) -> bool {
        match field {
            "worker" => self.live.value.worker.as_str().eq_ignore_ascii_case(lower),
            "job" => contains_folded(self.live.job.as_str(), lower),
            _ => state_word(self.replica, self.live).contains(lower),
        }
    }
}
