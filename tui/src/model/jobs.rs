//! The jobs as the console shows them: the replica's jobs with what became of their last runs,
//! filtered and ordered. The index is rebuilt when data, filter or order change, never per frame.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use carillon_core::id::{JobName, RunId};
use carillon_core::job::JobEntry;
use carillon_core::replica::Replica;
use carillon_core::run::{Outcome, RunRecord};
use chrono::{DateTime, TimeDelta, Utc};

use super::filter::{Filter, Subject, contains_folded};
use super::list::List;
use super::sort::{Columns, Sort, absent_last};

/// How many outcomes of a job are remembered for its strip.
pub const STRIP: usize = 20;

/// The columns of the jobs table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its title")]
pub enum JobColumn {
    State,
    Name,
    Schedule,
    Next,
    At,
    Last,
    Took,
    Strip,
    Labels,
}

impl Columns for JobColumn {
    const ALL: &'static [Self] = &[
        Self::State,
        Self::Name,
        Self::Schedule,
        Self::Next,
        Self::At,
        Self::Last,
        Self::Took,
        Self::Strip,
        Self::Labels,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::State => "STATE",
            Self::Name => "NAME",
            Self::Schedule => "SCHEDULE",
            Self::Next => "NEXT",
            Self::At => "AT",
            Self::Last => "LAST",
            Self::Took => "TOOK",
            Self::Strip => "LAST 20",
            Self::Labels => "LABELS",
        }
    }

    fn sorts(self) -> bool {
        !matches!(self, Self::Strip | Self::Labels | Self::Schedule | Self::At)
    }
}

/// The state of a job, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Its value cannot be read.
    Broken,
    /// So many runs are live.
    Running(usize),
    /// Its schedule is followed.
    Enabled,
    /// Its schedule is not followed.
    Paused,
}

impl JobState {
    /// The state of `entry` with `live` runs.
    pub fn of(entry: &JobEntry, live: usize) -> Self {
        match entry.job() {
            None => Self::Broken,
            Some(_) if live > 0 => Self::Running(live),
            Some(job) if job.enabled => Self::Enabled,
            Some(_) => Self::Paused,
        }
    }

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Running(_) => "running",
            Self::Enabled => "enabled",
            Self::Paused => "paused",
        }
    }
}

/// One run of a job, as far as its row needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub run: RunId,
    /// What became of it.
    pub outcome: Outcome,
    /// When it started.
    pub start: DateTime<Utc>,
    /// When it ended, if it has.
    pub end: Option<DateTime<Utc>>,
}

impl Seen {
    /// When it was over, or else began.
    pub fn at(&self) -> DateTime<Utc> {
        self.end.unwrap_or(self.start)
    }

    /// How long it ran, where that is known.
    pub fn took(&self) -> Option<TimeDelta> {
        self.outcome.is_timed().then(|| self.at() - self.start)
    }
}

/// What became of the last runs of one job, oldest first, at most [`STRIP`].
#[derive(Debug, Clone, Default)]
pub struct Past(Vec<Seen>);

impl Past {
    fn take(&mut self, seen: Seen) -> bool {
        match self.0.binary_search_by_key(&seen.run, |s| s.run) {
            Ok(i) => match self.0.get_mut(i) {
                // A final outcome is never overwritten by a record that was read earlier.
                Some(old) if !old.outcome.is_final() || seen.outcome.is_final() => {
                    std::mem::replace(old, seen) != seen
                }
                _ => false,
            },
            Err(0) if self.0.len() >= STRIP => false,
            Err(i) => {
                self.0.insert(i, seen);
                if self.0.len() > STRIP {
                    self.0.remove(0);
                }
                true
            }
        }
    }

    /// The newest run that is over.
    pub fn last(&self) -> Option<&Seen> {
        self.0.iter().rev().find(|s| s.outcome.is_final())
    }

    /// The newest run, live or over.
    pub fn newest(&self) -> Option<&Seen> {
        self.0.last()
    }

    /// The finished runs, oldest first.
    pub fn strip(&self) -> impl Iterator<Item = Outcome> {
        let outcomes = self.0.iter().map(|s| s.outcome);
        outcomes.filter(|o| o.is_final())
    }
}

/// The jobs view.
#[derive(Debug)]
pub struct Jobs {
    /// The rows.
    pub list: List<JobName>,
    /// Their order.
    pub sort: Sort<JobColumn>,
    /// Which are shown.
    pub filter: Filter,
    past: HashMap<String, Past>,
    stale: bool,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            list: List::default(),
            sort: Sort::by(JobColumn::Name),
            filter: Filter::default(),
            past: HashMap::new(),
            stale: true,
        }
    }
}

impl Jobs {
    /// What became of the last runs of a job.
    pub fn past(&self, job: &JobName) -> Option<&Past> {
        self.past.get(job.as_str())
    }

    /// Takes in records; true when a row changed.
    pub fn learn(&mut self, records: &[RunRecord]) -> bool {
        let mut changed = false;
        for record in records {
            let seen = Seen {
                run: record.id,
                outcome: record.outcome,
                start: record.start_time,
                end: record.end_time,
            };
            let past = match self.past.get_mut(&record.job_name) {
                Some(past) => past,
                None => self.past.entry(record.job_name.clone()).or_default(),
            };
            changed |= past.take(seen);
        }
        if changed {
            self.outdate();
        }
        changed
    }

    /// The index no longer fits the data.
    pub fn outdate(&mut self) {
        self.stale = true;
    }

    /// Whether the order changes while nothing but the time does.
    pub fn depends_on_time(&self) -> bool {
        self.sort.column == JobColumn::Next
    }

    /// Rebuilds the index if it no longer fits.
    pub fn settle(&mut self, replica: &Replica, now: DateTime<Utc>) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let none = Past::default();
        let past = |entry: &JobEntry| self.past.get(entry.name.as_str()).unwrap_or(&none);
        let shown = replica.jobs.values().filter(|entry| {
            let subject = JobSubject { entry, replica, past: past(entry) };
            self.filter.is_empty() || self.filter.matches(&subject)
        });
        let mut rows: Vec<&JobEntry> = shown.map(AsRef::as_ref).collect();
        let live = |entry: &JobEntry| replica.live.get(&entry.name).map_or(0, BTreeMap::len);
        match self.sort.column {
            // The replica is in the order of the names.
            JobColumn::Name
            | JobColumn::Schedule
            | JobColumn::At
            | JobColumn::Strip
            | JobColumn::Labels => {
                if self.sort.inverted {
                    rows.reverse();
                }
            }
            JobColumn::State => {
                rows.sort_by_cached_key(|e| match JobState::of(e, live(e)) {
                    JobState::Running(n) => (1, Reverse(n)),
                    JobState::Broken => (0, Reverse(0)),
                    JobState::Enabled => (2, Reverse(0)),
                    JobState::Paused => (3, Reverse(0)),
                });
                if self.sort.inverted {
                    rows.reverse();
                }
            }
            JobColumn::Next => self.order(&mut rows, |e| replica.next_firing(e, now)),
            // The newest first: what happened just now is what is looked for.
            JobColumn::Last => self.order(&mut rows, |e| past(e).last().map(|s| Reverse(s.at()))),
            JobColumn::Took => {
                self.order(&mut rows, |e| past(e).last().and_then(Seen::took).map(Reverse));
            }
        }
        let names = rows.into_iter().map(|entry| entry.name.clone()).collect();
        self.list.set_rows(names);
        self.list.retain_marks(|job| replica.jobs.contains_key(job));
    }

    fn order<K: Ord + Copy>(
        &self,
        rows: &mut Vec<&JobEntry>,
        key: impl Fn(&JobEntry) -> Option<K>,
    ) {
        let mut keyed: Vec<(Option<K>, &JobEntry)> = rows.drain(..).map(|e| (key(e), e)).collect();
        keyed.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(_), Some(_)) => self.sort.apply(absent_last(*a, *b)),
            _ => absent_last(*a, *b),
        });
        rows.extend(keyed.into_iter().map(|(_, entry)| entry));
    }
}

struct JobSubject<'a> {
    entry: &'a JobEntry,
    replica: &'a Replica,
    past: &'a Past,
}

impl Subject for JobSubject<'_> {
    fn contains(&self, lower: &str) -> bool {
        if contains_folded(self.entry.name.as_str(), lower) {
            return true;
        }
        let Some(job) = self.entry.job() else {
            return false;
        };
        [&job.cron_expr, &job.description, &job.owner, &job.command]
            .into_iter()
            .any(|text| contains_folded(text, lower))
            || job
                .labels
                .iter()
                .any(|(k, v)| contains_folded(k, lower) || contains_folded(v, lower))
    }

    fn has_label(&self, key: &str, value: Option<&str>) -> bool {
        self.entry.job().is_some_and(|job| {
            job.labels.iter().any(|(k, v)| {
                k.to_lowercase() == key && value.is_none_or(|wanted| v.to_lowercase() == wanted)
            })
        })
    }

    fn field_is(&self, field: &str, lower: &str) -> bool {
        let last = || {
            let outcome = self.past.last().map(|s| s.outcome.as_str());
            outcome.is_some_and(|o| o.eq_ignore_ascii_case(lower))
        };
        match field {
            "state" => {
                let live = self.replica.live_of(&self.entry.name).count();
                JobState::of(self.entry, live).word() == lower || last()
            }
            "outcome" => last(),
            "worker" => self
                .replica
                .live_of(&self.entry.name)
                .any(|run| run.value.worker.as_str().eq_ignore_ascii_case(lower)),
            _ => contains_folded(self.entry.name.as_str(), lower),
        }
    }
}
