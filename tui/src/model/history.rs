//! The records of runs and of slots that did not run, newest first, read page by page.

use std::collections::HashMap;

use carillon_core::id::{JobName, RunId};
use carillon_core::records::{HistoryFilter, Page};
use carillon_core::run::RunRecord;
use chrono::{DateTime, Utc};

use super::filter::{Ask, Filter, Subject, contains_folded};
use super::list::List;
use crate::effect::Effect;

/// How many records are asked for at once: a few screens of the largest terminal.
pub const PAGE: usize = 200;

/// How close to the end the cursor comes before the next page is asked for.
const MARGIN: usize = 50;

/// Pages of which nothing is shown are read on by themselves up to this many.
const BARREN_PAGES: usize = 20;

/// The history view.
#[derive(Debug, Default)]
pub struct History {
    /// The rows.
    pub list: List<RunId>,
    /// Which are shown.
    pub filter: Filter,
    /// Whether the first page was ever asked for.
    pub opened: bool,
    /// Whether an answer is awaited.
    pub loading: bool,
    /// Why the last question was not answered.
    pub error: Option<String>,
    records: HashMap<RunId, RunRecord>,
    order: Vec<RunId>,
    generation: u64,
    more: bool,
    /// Where the last page ended, whether or not its records are shown.
    reached: Option<(DateTime<Utc>, RunId)>,
    /// Pages in a row of which nothing is shown.
    barren: usize,
}

impl History {
    /// A record by its id.
    pub fn record(&self, run: RunId) -> Option<&RunRecord> {
        self.records.get(&run)
    }

    /// The record under the cursor.
    pub fn selected(&self) -> Option<&RunRecord> {
        self.record(*self.list.selected()?)
    }

    /// Whether older records follow those that were read.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Forgets what was read and asks for the first page.
    pub fn reload(&mut self, generation: u64) -> Effect {
        self.records.clear();
        self.order.clear();
        self.list.set_rows(Vec::new());
        self.opened = true;
        (self.reached, self.barren) = (None, 0);
        self.ask(generation, None)
    }

    /// Asks for the next page when the cursor comes near the end.
    pub fn next_page(&mut self, generation: u64) -> Option<Effect> {
        let near = self.list.at() + self.list.height() + MARGIN >= self.list.rows().len();
        if !near || !self.more || self.loading || self.error.is_some() {
            return None;
        }
        let before = self.reached?;
        Some(self.ask(generation, Some(before)))
    }

    /// Whether to go on although nobody moves: pages were read and nothing of them is shown.
    pub fn must_go_on(&self) -> bool {
        (1..BARREN_PAGES).contains(&self.barren)
    }

    fn ask(&mut self, generation: u64, before: Option<(DateTime<Utc>, RunId)>) -> Effect {
        self.generation = generation;
        self.loading = true;
        self.error = None;
        Effect::LoadHistory { generation, filter: question(&self.filter), before, limit: PAGE }
    }

    /// Takes an answer; false when it is to an older question.
    pub fn answered(&mut self, generation: u64, result: Result<Page, String>) -> bool {
        if generation != self.generation {
            return false;
        }
        self.loading = false;
        match result {
            Ok(page) => {
                self.more = page.more;
                self.reached = page.reached.or(self.reached);
                let shown = self.order.len();
                for record in page.records {
                    // The store answered for the words it knows; the rest is asked here.
                    if self.filter.matches(&record) && !self.records.contains_key(&record.id) {
                        self.order.push(record.id);
                        self.keep(record);
                    }
                }
                self.barren = if self.order.len() == shown { self.barren + 1 } else { 0 };
                self.list.set_rows(self.order.clone());
            }
            Err(why) => self.error = Some(why),
        }
        true
    }

    /// Takes in the newest records of the fleet: new rows come in at the top, and live ones end. Their
    /// output does not come with them, so one that has a wanted text only there is shown when the
    /// page is read anew.
    pub fn learn(&mut self, records: &[RunRecord]) {
        if !self.opened || (self.loading && self.order.is_empty()) {
            return;
        }
        let newest = self.order.first().and_then(|id| self.record(*id));
        let newest = newest.map(|r| (r.start_time, r.id));
        let mut fresh = Vec::new();
        for record in records {
            if self.records.contains_key(&record.id) {
                self.keep(record.clone());
            } else if newest.is_none_or(|at| (record.start_time, record.id) > at)
                && self.filter.matches(record)
            {
                fresh.push((record.start_time, record.id));
                self.keep(record.clone());
            }
        }
        if !fresh.is_empty() {
            fresh.sort_unstable();
            fresh.reverse();
            let at_top = self.list.at() == 0;
            self.order.splice(0..0, fresh.into_iter().map(|(_, id)| id));
            self.list.set_rows(self.order.clone());
            if at_top {
                self.list.to_top();
            }
        }
    }

    /// The output is read when it is opened; a thousand records with 64 KiB each are not kept.
    fn keep(&mut self, mut record: RunRecord) {
        record.output = String::new();
        self.records.insert(record.id, record);
    }
}

/// The part of a filter that the store can answer.
fn question(filter: &Filter) -> HistoryFilter {
    let mut asked = HistoryFilter::default();
    for term in filter.terms().iter().filter(|t| !t.inverse) {
        match &term.ask {
            Ask::Field("job", name) => asked.job = JobName::new(name).ok(),
            Ask::Field("worker", id) => asked.worker = Some(id.clone()),
            Ask::Field("trigger", why) => asked.trigger = why.to_lowercase().parse().ok(),
            Ask::Field(_, word) => {
                asked.outcome = carillon_core::run::Outcome::ALL
                    .into_iter()
                    .find(|o| o.as_str().eq_ignore_ascii_case(word));
            }
            // One word narrows it down there; all of them are asked here.
            Ask::Text(text) => asked.text = Some(text.clone()),
            Ask::Label(..) => {}
        }
    }
    asked
}

impl Subject for RunRecord {
    fn contains(&self, lower: &str) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        [&self.job_name, &self.err, &self.output, &self.worker]
            .into_iter()
            .any(|text| contains_folded(text, lower))
            || contains_folded(reason, lower)
    }

    fn has_label(&self, _: &str, _: Option<&str>) -> bool {
        false
    }

    fn field_is(&self, field: &str, lower: &str) -> bool {
        match field {
            "job" => self.job_name.to_lowercase() == lower,
            "worker" => self.worker.to_lowercase() == lower,
            "trigger" => self.trigger.as_str() == lower,
            _ => self.outcome.as_str().eq_ignore_ascii_case(lower),
        }
    }
}
