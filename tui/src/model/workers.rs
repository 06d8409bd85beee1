//! The workers of the fleet, filtered and ordered.

use std::cmp::Reverse;

use carillon_core::fleet::WorkerEntry;
use carillon_core::id::WorkerId;
use carillon_core::replica::Replica;
use chrono::TimeDelta;

use super::filter::{Filter, Subject, contains_folded};
use super::list::List;
use super::sort::{Columns, Sort, absent_last};

/// A clock that differs from ours by more than this is shown as a warning.
pub const SKEW_WARNING: TimeDelta = TimeDelta::seconds(2);

/// The columns of the workers table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its title")]
pub enum WorkerColumn {
    Id,
    State,
    Load,
    Late,
    Skew,
    Lag,
    Up,
    Host,
    Version,
    Rules,
    Labels,
}

impl Columns for WorkerColumn {
    const ALL: &'static [Self] = &[
        Self::Id,
        Self::State,
        Self::Load,
        Self::Late,
        Self::Skew,
        Self::Lag,
        Self::Up,
        Self::Host,
        Self::Version,
        Self::Rules,
        Self::Labels,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Id => "WORKER",
            Self::State => "STATE",
            Self::Load => "RUNS",
            Self::Late => "LATE P99",
            Self::Skew => "SKEW",
            Self::Lag => "LAG",
            Self::Up => "UP",
            Self::Host => "HOST",
            Self::Version => "VERSION",
            Self::Rules => "RULES",
            Self::Labels => "LABELS",
        }
    }

    fn sorts(self) -> bool {
        self != Self::Labels
    }
}

/// The state of a worker, in one word.
pub fn state_word(replica: &Replica, worker: &WorkerEntry) -> &'static str {
    match &worker.value {
        Err(_) => "unreadable",
        Ok(r) if r.draining => "draining",
        Ok(_) if replica.drains.contains(&worker.id) => "drain asked",
        Ok(r) if r.standing_by.is_some() => "standing by",
        Ok(_) => "ready",
    }
}

/// How many runs of the fleet are live on this worker, by etcd.
pub fn live_on(replica: &Replica, worker: &WorkerId) -> usize {
    let runs = replica.all_live();
    runs.filter(|run| run.value.worker == *worker).count()
}

/// The workers view.
#[derive(Debug)]
pub struct Workers {
    /// The rows.
    pub list: List<WorkerId>,
    /// Their order.
    pub sort: Sort<WorkerColumn>,
    /// Which are shown.
    pub filter: Filter,
    stale: bool,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            list: List::default(),
            sort: Sort::by(WorkerColumn::Id),
            filter: Filter::default(),
            stale: true,
        }
    }
}

impl Workers {
    /// The index no longer fits the data.
    pub fn outdate(&mut self) {
        self.stale = true;
    }

    /// Rebuilds the index if it no longer fits.
    pub fn settle(&mut self, replica: &Replica) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let shown = replica.workers.values().filter(|worker| {
            let subject = WorkerSubject { worker, replica };
            self.filter.is_empty() || self.filter.matches(&subject)
        });
        let mut rows: Vec<&WorkerEntry> = shown.collect();
        rows.sort_by(|a, b| {
            let (x, y) = (a.value.as_ref().ok(), b.value.as_ref().ok());
            let order = match self.sort.column {
                WorkerColumn::Id | WorkerColumn::Labels => a.id.cmp(&b.id),
                WorkerColumn::State => state_word(replica, a).cmp(state_word(replica, b)),
                WorkerColumn::Load => {
                    absent_last(x.map(|r| Reverse(r.running)), y.map(|r| Reverse(r.running)))
                }
                WorkerColumn::Late => absent_last(
                    x.and_then(|r| r.lateness_p99_millis).map(Reverse),
                    y.and_then(|r| r.lateness_p99_millis).map(Reverse),
                ),
                WorkerColumn::Skew => {
                    absent_last(a.skew.map(|s| Reverse(s.abs())), b.skew.map(|s| Reverse(s.abs())))
                }
                WorkerColumn::Lag => {
                    absent_last(x.map(|r| r.watch_revision), y.map(|r| r.watch_revision))
                }
                WorkerColumn::Up => absent_last(x.map(|r| r.started), y.map(|r| r.started)),
                WorkerColumn::Host => absent_last(x.map(|r| &r.host), y.map(|r| &r.host)),
                WorkerColumn::Version => absent_last(x.map(|r| &r.version), y.map(|r| &r.version)),
                WorkerColumn::Rules => {
                    absent_last(x.map(|r| &r.rules_version), y.map(|r| &r.rules_version))
                }
            };
            self.sort.apply(order.then_with(|| a.id.cmp(&b.id)))
        });
        let ids = rows.into_iter().map(|w| w.id.clone()).collect();
        self.list.set_rows(ids);
    }
}

struct WorkerSubject<'a> {
    worker: &'a WorkerEntry,
    replica: &'a Replica,
}

impl Subject for WorkerSubject<'_> {
    fn contains(&self, lower: &str) -> bool {
        contains_folded(self.worker.id.as_str(), lower)
            || self.worker.value.as_ref().is_ok_and(|r| {
                contains_folded(&r.host, lower)
                    || contains_folded(&r.version, lower)
                    || r.labels
                        .iter()
                        .any(|(k, v)| contains_folded(k, lower) || contains_folded(v, lower))
            })
    }

    fn has_label(&self, key: &str, value: Option<&str>) -> bool {
        self.worker.value.as_ref().is_ok_and(|r| {
            r.labels.iter().any(|(k, v)| {
                k.to_lowercase() == key && value.is_none_or(|wanted| v.to_lowercase() == wanted)
            })
        })
    }

    fn field_is(&self, field: &str, lower: &str) -> bool {
        match field {
            "worker" => self.worker.id.as_str().eq_ignore_ascii_case(lower),
            _ => state_word(self.replica, self.worker).contains(lower),
        }
    }
}
